"""Documents as files: a statement, an invoice or a credit note as PDF, JSON, CSV and e-invoice.

Every file is a function of the document alone: the same document gives the same bytes, whenever and wherever.
"""

from metering.rules.billing.documents import BillingDocument
from reports.documents.einvoices import xml_files
from reports.documents.pdf import pdf_bytes
from reports.documents.raw import json_bytes
from reports.documents.tables import lines_csv


def files_of(document: BillingDocument) -> dict[str, bytes]:
    """A document's files by suffix: `json`, `pdf`, `csv`; of what is owed also `xml` (CII) and `ubl.xml`.

    A draft has no number, and what has no number is no e-invoice.
    """
    files = {"json": json_bytes(document), "csv": lines_csv(document)}
    if document.kind != "statement" and document.number is not None:
        files["xml"], files["ubl.xml"] = xml_files(document)
    files["pdf"] = pdf_bytes(document, files.get("xml"))
    return files

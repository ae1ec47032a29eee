"""Pages of documents: PDF/A-3a and PDF/UA-1 by Typst, with the e-invoice inside (Factur-X).

Nothing of the machine gets in: fonts are those that Typst carries, times and identifiers come from the document. So
the same document gives the same bytes.
"""

from datetime import UTC, datetime, time
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from metering.rules.billing.documents import BillingDocument
from reports.documents.facturx_metadata import told_as_facturx
from reports.documents.page import page_of

if TYPE_CHECKING:
    from typst import Compiler

FOLDER = Path(__file__).parent
TEMPLATE = FOLDER / "document.typ"

_compiling = Lock()


def pdf_bytes(document: BillingDocument, cii: bytes | None) -> bytes:
    """A document's pages, the CII inside where there is one."""
    inputs = {"document": msgspec.json.encode(page_of(document, has_xml=cii is not None)).decode()}
    if cii is not None:
        inputs["xml"] = cii.decode()
    with _compiling:
        content = _compiler().compile(
            sys_inputs=inputs,
            format="pdf",
            pdf_standards=["a-3a", "ua-1"],
            timestamp=datetime.combine(document.issued_on, time(), UTC),
        )
    assert isinstance(content, bytes)
    return content if cii is None else told_as_facturx(content)


@cache
def _compiler() -> "Compiler":
    from typst import Compiler  # noqa: PLC0415 - 50 MB that only documents need

    return Compiler(TEMPLATE, root=FOLDER, ignore_system_fonts=True)

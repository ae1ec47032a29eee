"""Tells a PDF file's metadata that the XML inside is a Factur-X invoice. Pure.

Typst writes metadata for PDF/A and PDF/UA and knows nothing of Factur-X. Nothing of what it wrote is changed: a new
version of the one object that holds the metadata is appended with a table of where it is, as ISO 32000 has it for
incremental updates. A library of PDF files does the same in 90 ms, because it reads and compares every object.
"""

import re

XML_NAME = "factur-x.xml"
NAMESPACE = "urn:factur-x:pdfa:CrossIndustryDocument:invoice:1p0#"
PROPERTIES = {
    "DocumentFileName": (XML_NAME, "The name of the embedded XML document"),
    "DocumentType": ("INVOICE", "The type of the hybrid document in capital letters"),
    "Version": ("1.0", "The version of the standard that the embedded XML document follows"),
    "ConformanceLevel": ("EN 16931", "The conformance level of the embedded XML document"),
}
"""Properties of Factur-X with their values, and what the file says that each is."""

_SCHEMAS_END = "</rdf:Bag></pdfaExtension:schemas>"
_DESCRIPTION_END = "</rdf:Description></rdf:RDF>"
_TRAILER = re.compile(
    rb"trailer\s*<<(?P<entries>/Size \d+/Root (?P<root>\d+) 0 R.*?)>>\s*startxref\s+(?P<table>\d+)\s+%%EOF\s*\Z",
    re.DOTALL,
)
_TABLE_HEAD = re.compile(rb"xref\s+0 \d+\s+")
_ENTRY_BYTES = 20
_METADATA = re.compile(rb"/Metadata (\d+) 0 R")
_STREAM = re.compile(rb"\d+ 0 obj\s*<</Length (\d+)/Type/Metadata/Subtype/XML>>\s*stream\n")


def told_as_facturx(pdf: bytes) -> bytes:
    """A file as Typst writes it, with the metadata of Factur-X; asserts that it is of the form that Typst gives it."""
    trailer = _TRAILER.search(pdf, max(0, len(pdf) - 1_000))
    assert trailer is not None
    table = int(trailer["table"])
    catalog = _offset(pdf, table, int(trailer["root"]))
    found = _METADATA.search(pdf, catalog, pdf.index(b"endobj", catalog))
    assert found is not None
    number = int(found[1])
    stream = _STREAM.match(pdf, _offset(pdf, table, number))
    assert stream is not None
    xmp = _with_facturx(pdf[stream.end() : stream.end() + int(stream[1])].decode()).encode()
    new = b"\n%d 0 obj\n<</Length %d/Type/Metadata/Subtype/XML>>\nstream\n%b\nendstream\nendobj\n" % (
        number,
        len(xmp),
        xmp,
    )
    return (
        b"%b%bxref\n0 1\n0000000000 65535 f\r\n%d 1\n%010d 00000 n\r\ntrailer\n<<%b/Prev %d>>\nstartxref\n%d\n%%%%EOF\n"
        % (
            pdf,
            new,
            number,
            len(pdf) + 1,
            trailer["entries"],
            table,
            len(pdf) + len(new),
        )
    )


def _offset(pdf: bytes, table: int, number: int) -> int:
    """Where an object begins, by the table of the file."""
    head = _TABLE_HEAD.match(pdf, table)
    assert head is not None
    entry = head.end() + number * _ENTRY_BYTES
    return int(pdf[entry : entry + 10])


def _with_facturx(xmp: str) -> str:
    """Metadata with the properties of Factur-X, and the schema that PDF/A wants of properties it doesn't know."""
    assert xmp.count(_SCHEMAS_END) == xmp.count(_DESCRIPTION_END) == 1
    described = "".join(
        '<rdf:li rdf:parseType="Resource"><pdfaProperty:category>external</pdfaProperty:category>'
        f"<pdfaProperty:description>{why}</pdfaProperty:description><pdfaProperty:name>{name}</pdfaProperty:name>"
        "<pdfaProperty:valueType>Text</pdfaProperty:valueType></rdf:li>"
        for name, (_value, why) in PROPERTIES.items()
    )
    schema = (
        '<rdf:li rdf:parseType="Resource"><pdfaSchema:schema>Factur-X PDFA Extension Schema</pdfaSchema:schema>'
        f"<pdfaSchema:namespaceURI>{NAMESPACE}</pdfaSchema:namespaceURI><pdfaSchema:prefix>fx</pdfaSchema:prefix>"
        f"<pdfaSchema:property><rdf:Seq>{described}</rdf:Seq></pdfaSchema:property></rdf:li>"
    )
    values = "".join(f"<fx:{name}>{value}</fx:{name}>" for name, (value, _why) in PROPERTIES.items())
    properties = f'<rdf:Description rdf:about="" xmlns:fx="{NAMESPACE}">{values}</rdf:Description>'
    return xmp.replace(_SCHEMAS_END, schema + _SCHEMAS_END).replace(
        _DESCRIPTION_END, f"</rdf:Description>{properties}</rdf:RDF>"
    )

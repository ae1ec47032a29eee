"""Pages: a tagged PDF/A with the e-invoice inside, that says what the document says and nothing it was made to say."""

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from pypdf import PdfReader
from pypdf.generic import ArrayObject, DictionaryObject, IndirectObject

from reports.documents import files_of
from reports.documents.glyphs import has_glyph, shown
from reports.documents.pdf import pdf_bytes
from reports.documents.words import ENGLISH, FRENCH
from tests.documents.examples import ALL, draft, invoice


def read(content: bytes) -> tuple[PdfReader, str]:
    reader = PdfReader(io.BytesIO(content), strict=True)
    text = " ".join(page.extract_text() for page in reader.pages)
    return reader, re.sub(r"[\s\u202f\xa0]+", " ", text.replace("\u200b", ""))


def tags(reader: PdfReader) -> list[DictionaryObject]:
    """Elements of the structure, in the order in which they are read."""
    found: list[DictionaryObject] = []

    def walk(node: object) -> None:
        node = node.get_object() if isinstance(node, IndirectObject) else node
        if isinstance(node, ArrayObject):
            for one in node:
                walk(one)
        elif isinstance(node, DictionaryObject):
            if "/S" in node:
                found.append(node)
            walk(node.get("/K"))

    walk(reader.root_object["/StructTreeRoot"])
    return found


def test_an_invoice_is_an_accessible_archive_with_the_einvoice_inside() -> None:
    files = files_of(invoice())
    reader, text = read(files["pdf"])
    assert reader.attachments["factur-x.xml"] == [files["xml"]]
    (place,) = reader.root_object["/AF"]
    assert place.get_object()["/AFRelationship"] == "/Alternative"
    metadata = reader.root_object["/Metadata"].get_data()
    etree.fromstring(metadata)
    for said in (
        b"<pdfaid:part>3</pdfaid:part><pdfaid:conformance>A</pdfaid:conformance>",
        b"<pdfuaid:part>1</pdfuaid:part>",
        b"<fx:ConformanceLevel>EN 16931</fx:ConformanceLevel>",
        b"<pdfaSchema:prefix>fx</pdfaSchema:prefix>",
    ):
        assert said in metadata
    structure = tags(reader)
    names = [one["/S"] for one in structure]
    assert names.count("/H1") == 1
    assert names.count("/H2") >= 5
    assert names.count("/TH") == 5
    (figure,) = [one for one in structure if one["/S"] == "/Figure"]
    assert "maximum de 3\u202f282\u202f460" in str(figure["/Alt"])
    assert reader.root_object["/Lang"] == "fr"
    for said in (
        "Facture FA-2026-10-0042",
        "Montant dû",
        "114,00 €",
        "41 382 911 jetons 0,20 € / 1 000 000 jetons 20 % 8,28",
        "44 045,123 s 0,36 € / h",
        "Europe/Paris",
        "de 1,01 à 1,63 kg CO2e",
        "81 % A – mesurée",
        "lot n° 48 213",
        "FR76 3000 1007",
        "TVA 20 % sur 95,00 € 19,00 €",
        "Page 1 sur 2",
    ):
        assert said in text, said


def test_each_kind_says_what_it_is() -> None:
    said = {
        "statement": ("Montant valorisé, non facturé", "Accès gratuit", "non mesuré", "Usage sans prix"),
        "credit_note": ("FA-2026-09-0038 du 5 octobre 2026", "correction de septembre 2026"),
        "francs": (
            "CHF 731.11",
            "Switzerland",
            "VAT: €130.81",
            "European Central Bank, 30 October 2026",
            "Page 1 of 1",
        ),
        "out_of_scope": ("hors du champ d’application de la TVA", "VATEX-EU-O"),
        "draft": ("BROUILLON", "attribué à la clôture"),
    }
    for name, expected in said.items():
        reader, text = read(files_of(ALL[name]())["pdf"])
        for part in expected:
            assert part in text, (name, part)
        assert bool(reader.attachments) == (name not in {"statement", "draft"})
    assert "Montant dû" not in read(files_of(ALL["statement"]())["pdf"])[1]


def test_a_long_table_repeats_its_headings() -> None:
    reader, _text = read(files_of(ALL["long"]())["pdf"])
    assert len(reader.pages) > 4
    for page in reader.pages[:4]:
        assert "Prix unitaire" in page.extract_text()


def test_markup_in_names_is_shown_and_never_run() -> None:
    reader, text = read(files_of(ALL["hostile"]())["pdf"])
    assert '#import "/etc/passwd"; #eval("1") $x$ *b* `c` \\ @ref <label>' in text
    assert "root:" not in text
    assert "<script>alert(1)</script>" in text
    assert len(reader.pages) < 5


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1))
def test_any_name_gives_pages(name: str) -> None:
    document = draft()
    assert pdf_bytes(replace(document, buyer=replace(document.buyer, name=name), days=()), None)


def test_characters_said_to_have_a_glyph_have_one() -> None:
    from typst import Compiler

    page = (
        b'#set document(title: "t")\n#set text(font: ("Libertinus Serif", "DejaVu Sans Mono", "New Computer Modern", '
    )
    page += b'"New Computer Modern Math"))\n#for one in sys.inputs.at("all").clusters() [#box(one) ]'
    every = "".join(chr(point) for point in range(0x20, 0x1F900) if has_glyph(chr(point)))
    assert len(every) > 7_000
    assert Compiler(page, ignore_system_fonts=True).compile(
        format="pdf", sys_inputs={"all": every}, pdf_standards=["a-3a", "ua-1"], timestamp=0
    )
    assert shown("漢字 é") == "\ufffd\ufffd é"


def test_both_languages_say_the_same_things() -> None:
    assert FRENCH.keys() == ENGLISH.keys()
    for key, text in FRENCH.items():
        assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", ENGLISH[key])), key


@pytest.mark.parametrize("name", ["invoice", "out_of_scope"])
def test_lines_as_a_table(name: str) -> None:
    rows = files_of(ALL[name]())["csv"].decode("utf-8-sig").splitlines()
    assert len(rows) == 12
    if name == "invoice":
        assert rows[0].startswith("Document;Ligne;Mois;Convention;Projet")
        assert ";8,28;EUR;20,00;;ministeres-2026-07" in rows[2]
    else:
        assert rows[0].startswith("Document;Ligne;Service;Engagement;Convention;Projet;")
        assert rows[2].startswith("FA-2026-10-0044;2;SDSI-01;1512345678;CNV-2026-017;Assistant d’accueil;")
        assert rows[2].endswith(";41382911;jetons;0,200000000;1\u202f000\u202f000\xa0jetons;8,28;EUR")

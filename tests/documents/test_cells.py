"""Text in cells: nothing is run, nothing hides, and what is harmless stays as it is."""

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.cells import csv_bytes, neutral, plain, short


@pytest.mark.parametrize(
    "name",
    [
        "=cmd|' /C calc'!A0",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r\n=1",
        "  =1",
        "\u200b=1",
        "＝1+1",
        "\u22121",
        "\ufeff=1",
    ],
)
def test_what_begins_like_a_formula_is_text(name: str) -> None:
    assert neutral(name).startswith("'")


@pytest.mark.parametrize("name", ["", "Évaluation n° 3", "a=b", "Mairie d’Aÿ-Champagne", "مشروع", "1-2"])
def test_what_is_harmless_stays(name: str) -> None:
    assert neutral(name) == plain(name) == name


def test_what_cannot_be_seen_is_shown() -> None:
    assert plain("a\u202egpj.exe\x00\x9f\ufffe") == "a\ufffdgpj.exe\ufffd\ufffd\ufffd"
    assert plain("one\r\n\ttwo\u2028three") == "one two three"
    assert short("x" * 10_000) == "x" * 199 + "…"


@given(st.text())
def test_any_text_is_one_cell_that_xml_can_write_and_no_formula(text: str) -> None:
    from lxml import etree

    cell = neutral(text)
    etree.Element("name").text = cell
    assert neutral(cell) == cell
    lines = csv_bytes(["name"], [[text, text]], "fr").decode("utf-8-sig")
    assert list(csv.reader(io.StringIO(lines, newline=""), delimiter=";"))[1:] == [[cell, cell]]
    assert not cell.lstrip()[:1] or cell.lstrip()[0] not in "=+-@"


def test_numbers_are_of_the_language() -> None:
    row = (Decimal("-1234.50"), 7, None, Decimal("1E+3"))
    assert csv_bytes(["a", "b", "c", "d"], [row], "fr") == "\ufeffa;b;c;d\r\n-1234,50;7;;1000\r\n".encode()
    assert csv_bytes(["a", "b", "c", "d"], [row], "en") == "\ufeffa,b,c,d\r\n-1234.50,7,,1000\r\n".encode()

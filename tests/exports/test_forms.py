"""Every form of one sheet says the same, whatever names and numbers are in it: read back by other libraries."""

import csv
import hashlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import openpyxl
import polars as pl
import pytest
from openpyxl.utils.escape import unescape

from metering.errors import TooLarge
from reports.cells import plain
from reports.exports.forms import METADATA_KEY, write
from reports.exports.sheets import About, Column, Sheet
from reports.exports.spooling import Spooled, spool
from tests.exports.samples import HOSTILE, OCTOBER

COLUMNS = (
    Column("at", "instant"),
    Column("name", "text", headings={"fr": "Nom", "en": "Name"}),
    Column("tokens", "count"),
    Column("amount", "decimal", 2),
)
AT = "2026-10-25T02:30:00+01:00"
HUGE = 2**53 * 1_024 + 1
ROWS = [[AT, name, HUGE if number % 2 else None, Decimal(-number).scaleb(-2)] for number, name in enumerate(HOSTILE)]


@pytest.fixture
def spooled(tmp_path: Path) -> Spooled:
    about = About("usage", OCTOBER.start, OCTOBER.end, 13, "ab" * 32)
    return spool(Sheet(about, COLUMNS, iter(ROWS)), tmp_path / "rows")


def test_the_hash_is_that_of_the_rows_as_ndjson(spooled: Spooled, tmp_path: Path) -> None:
    content = write(spooled, "ndjson", "en", tmp_path / "a.ndjson").path.read_bytes()
    assert spooled.content_sha256 == hashlib.sha256(content).hexdigest()
    assert [json.loads(line)["name"] for line in content.splitlines()] == list(HOSTILE)
    whole = json.loads(write(spooled, "json", "en", tmp_path / "a.json").path.read_bytes())
    assert whole["items"] == [json.loads(line) for line in content.splitlines()]
    assert (whole["ledger_batch"], whole["ledger_hash"]) == (13, "ab" * 32)
    assert whole["content_sha256"] == spooled.content_sha256


def test_parquet_keeps_every_character_and_digit(spooled: Spooled, tmp_path: Path) -> None:
    path = write(spooled, "parquet", "en", tmp_path / "a.parquet").path
    found = pl.read_parquet(path)
    assert found.schema["tokens"] == pl.Decimal(38, 0)
    assert found["name"].to_list() == list(HOSTILE)
    assert found["tokens"].to_list() == [row[2] for row in ROWS]
    assert found["amount"].to_list() == [row[3] for row in ROWS]
    assert found["at"].to_list() == [datetime(2026, 10, 25, 1, 30, tzinfo=UTC)] * len(ROWS)
    assert json.loads(pl.read_parquet_metadata(path)[METADATA_KEY]) == spooled.told()


@pytest.mark.parametrize(("language", "mark"), [("en", "."), ("fr", ",")])
def test_csv_runs_nothing_and_has_the_decimal_mark_of_its_language(
    spooled: Spooled, tmp_path: Path, language, mark
) -> None:
    path = write(spooled, "csv", language, tmp_path / "a.csv").path
    assert path.read_bytes().startswith(b"\xef\xbb\xbf") == (language == "fr")
    with path.open(encoding="utf-8-sig", newline="") as file:
        heading, *found = csv.reader(file, delimiter=";" if language == "fr" else ",", strict=True)
    assert heading[1] == ("Nom" if language == "fr" else "name")
    assert len(found) == len(ROWS)
    for row, (_at, name, tokens, amount) in zip(found, ROWS, strict=True):
        assert row[1] in {plain(name), f"'{plain(name)}"}
        assert not row[1].lstrip().startswith(("=", "+", "-", "@"))
        assert row[2] == ("" if tokens is None else str(tokens))
        assert row[3] == str(amount).replace(".", mark)


def test_a_workbook_has_no_formula_and_no_number_that_lost_a_digit(spooled: Spooled, tmp_path: Path) -> None:
    first = write(spooled, "xlsx", "fr", tmp_path / "a.xlsx")
    assert write(spooled, "xlsx", "fr", tmp_path / "b.xlsx").sha256 == first.sha256
    book = openpyxl.load_workbook(first.path)
    data, about = book["Données"], book["À propos"]
    assert data.freeze_panes == "A2"
    assert [cell.value for cell in data[1]] == ["at", "Nom", "tokens", "amount"]
    for cells, (_at, name, tokens, amount) in zip(data.iter_rows(min_row=2), ROWS, strict=True):
        assert {cell.data_type for cell in cells} <= {"s", "inlineStr", "n", "d"}
        assert not any(cell.hyperlink for cell in cells)
        shown = plain(name)
        assert unescape(cells[1].value) == (shown if len(shown) <= 32_767 else shown[:32_766] + "…")
        assert cells[2].value == (None if tokens is None else str(tokens))
        assert Decimal(str(cells[3].value)) == amount
        assert cells[0].value == datetime(2026, 10, 25, 2, 30)  # noqa: DTZ001 - a spreadsheet's, of the zone that it names
    told = {row[0].value: row[1].value for row in about.iter_rows()}
    assert told["content_sha256"] == spooled.content_sha256
    assert (told["ledger_batch"], told["cells_cut"]) == ("13", "1")


@pytest.mark.parametrize("form", ["csv", "xlsx", "parquet", "json", "ndjson"])
def test_nothing_at_all_is_a_file_too(tmp_path: Path, form) -> None:
    about = About("usage", OCTOBER.start, OCTOBER.end, 0, "")
    empty = spool(Sheet(about, COLUMNS, iter([])), tmp_path / "rows")
    assert write(empty, form, "en", tmp_path / f"a.{form}").path.exists()
    if form == "parquet":
        assert pl.read_parquet(tmp_path / "a.parquet").height == 0


def test_too_many_rows_to_wait_for_are_refused(tmp_path: Path) -> None:
    about = About("usage", OCTOBER.start, OCTOBER.end, 0, "")
    with pytest.raises(TooLarge):
        spool(Sheet(about, COLUMNS, iter(ROWS)), tmp_path / "rows", rows_max=3)

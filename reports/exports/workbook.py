"""XLSX: sheets of rows whose heading stays in sight, and one that says what the file is of.

A text is written as a text, whatever it begins with: nothing in the file is a formula or a link. A number of more
digits than a spreadsheet keeps is a text too. The same rows give the same bytes.
"""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import xlsxwriter

from reports.cells import Cell, plain
from reports.exports.forms import cell_of, telling
from reports.exports.sheets import Column
from reports.exports.spooling import Spooled, Told
from reports.wording import Language

ROWS_MAX = 1_048_576
"""Of a sheet, its heading included."""

CELL_CHARACTERS_MAX = 32_767
EXACT_BELOW = 10**15
"""Spreadsheets keep 15 digits of a number."""

SHEET_NAMES: dict[Language, tuple[str, str]] = {"fr": ("Données", "À propos"), "en": ("Data", "About")}
WIDTH_MIN, WIDTH_MAX = 10, 40


def write_workbook(spooled: Spooled, language: Language, path: Path, told: Told | None) -> None:
    """Write rows as a workbook; beyond a sheet's length they go on in the next."""
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(str(path), options) as book:
        book.set_properties({"created": spooled.about.end.astimezone(UTC).replace(tzinfo=None)})
        writer = _Writer(book, spooled, language)
        for row in telling(spooled.rows(), spooled.count, told):
            writer.add(row)
        writer.end()


class _Writer:
    """Writes rows to the sheet in hand, and opens the next when that is full."""

    def __init__(self, book: Any, spooled: Spooled, language: Language) -> None:
        self._book, self._spooled, self._language = book, spooled, language
        self._heading = book.add_format({"bold": True, "text_wrap": True, "valign": "top", "bottom": 1})
        self._formats = [_format(book, column) for column in spooled.columns]
        self._cut = 0
        self._sheets = 0
        self._open()

    def add(self, row: list[Any]) -> None:
        """Write one row."""
        if self._at == ROWS_MAX:
            self._open()
        for place, (value, column) in enumerate(zip(row, self._spooled.columns, strict=True)):
            self._write(place, cell_of(value, column), column)
        self._at += 1

    def end(self) -> None:
        """Write the sheet that says what the file is of."""
        about = self._book.add_worksheet(SHEET_NAMES[self._language][1])
        about.set_column(0, 0, 24)
        about.set_column(1, 1, 80)
        told = self._spooled.told() | ({"cells_cut": self._cut} if self._cut else {})
        for line, (name, value) in enumerate(told.items()):
            about.write_string(line, 0, name, self._heading)
            about.write_string(line, 1, self._fitting(value if isinstance(value, str) else str(value)))

    def _open(self) -> None:
        self._sheets += 1
        name = SHEET_NAMES[self._language][0]
        self._sheet = self._book.add_worksheet(name if self._sheets == 1 else f"{name} {self._sheets}")
        self._sheet.freeze_panes(1, 0)
        self._sheet.set_row(0, 30)
        for place, column in enumerate(self._spooled.columns):
            heading = column.heading(self._language)
            width = max(WIDTH_MIN, min(WIDTH_MAX, len(heading) + 2, 24 if column.kind in {"text", "json"} else 20))
            self._sheet.set_column(place, place, width)
            self._sheet.write_string(0, place, heading, self._heading)
        self._at = 1

    def _write(self, place: int, cell: Cell, column: Column) -> None:
        at, form = self._at, self._formats[place]
        if cell is None:
            return
        if isinstance(cell, str) and column.kind in {"instant", "date"}:
            moment = datetime.fromisoformat(cell) if column.kind == "instant" else date.fromisoformat(cell)
            self._sheet.write_datetime(at, place, _civil(moment), form)
        elif isinstance(cell, int | Decimal) and -EXACT_BELOW < cell < EXACT_BELOW:
            self._sheet.write_number(at, place, cell, form)
        else:
            self._sheet.write_string(at, place, self._fitting(str(cell)))

    def _fitting(self, text: str) -> str:
        shown = plain(text)
        if len(shown) <= CELL_CHARACTERS_MAX:
            return shown
        self._cut += 1
        return shown[: CELL_CHARACTERS_MAX - 1] + "…"


def _civil(moment: datetime | date) -> datetime | date:
    """Spreadsheets know no zones: the clock's time, of the zone that the sheet `About` names."""
    return moment.replace(tzinfo=None) if isinstance(moment, datetime) else moment


def _format(book: Any, column: Column) -> Any:
    forms: dict[str, str] = {
        "count": "#,##0",
        "decimal": "#,##0." + "0" * min(2, column.scale) + "#" * max(0, column.scale - 2),
        "instant": "yyyy-mm-dd hh:mm",
        "date": "yyyy-mm-dd",
    }
    return book.add_format({"num_format": forms[column.kind]}) if column.kind in forms else None

"""Files of emission factors, as their publishers write them: RTE's éCO2mix, Electricity Maps, and columns by name."""

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Literal
from zoneinfo import ZoneInfo

from metering.carbon.importing import NewFactor
from metering.carbon.importing_slots import Slots, TimedRow, to_slots
from metering.errors import Unprocessable
from metering.rules.carbon.apportioning import rounded
from metering.rules.carbon.factors import FactorKind
from metering.rules.periods import PARIS

FactorFormat = Literal["rte", "electricitymaps", "csv"]

UGCO2E_PER_G = 1_000_000
G_PER_KWH_MAX = 2_000
"""No grid emits more: burning nothing but lignite in old plants takes about 1,300 g a kWh."""

YEARS = range(2000, 2101)

FIRST_VERSION = "1"

_ABSENT = frozenset({"", "-", "nd", "na", "nan", "null"})
"""What publishers write where there is no value."""

_day_first = re.compile(r"(\d{2})/(\d{2})/(\d{4})(.*)")
_zone_form = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+~=-]{0,127}")
_versions_form = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of a file, each by the names it may have.

    starts: parts of a time, joined by a space. clock: of times without an offset; None: every time has one. version:
    the column that says what edition a row is of. zone, ends, version: None or absent from the file: none is stated.
    """

    starts: tuple[str, ...]
    values: tuple[str, ...]
    ends: str | None = None
    zone: str | None = None
    version: str | None = None
    clock: ZoneInfo | None = None


LAYOUTS: Mapping[FactorFormat, Layout] = {
    "rte": Layout(("Date", "Heures"), ("Taux de Co2",), version="Nature", clock=PARIS),
    "electricitymaps": Layout(
        ("Datetime (UTC)",),
        ("Carbon intensity gCO₂eq/kWh (Life cycle)", "Carbon intensity gCO₂eq/kWh (LCA)"),
        zone="Zone id",
        clock=ZoneInfo("UTC"),
    ),
    "csv": Layout(("starts_at",), ("gco2e_per_kwh",), ends="ends_at", zone="zone"),
}
SOURCES: Mapping[FactorFormat, str] = {"rte": "rte-eco2mix", "electricitymaps": "electricitymaps"}
ZONES: Mapping[FactorFormat, str] = {"rte": "FR"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made of a file. zone: of rows that name none, or the one zone to take of those that do."""

    kind: FactorKind
    source: str
    layout: Layout
    zone: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class FactorFile:
    """What a file holds. rows: lines of data; without_value: those that have none."""

    factors: Sequence[NewFactor]
    slots: Slots
    rows: int
    without_value: int


@dataclass(frozen=True, slots=True)
class Span:
    """What a file has of a zone and version. Values are in µg CO2e/kWh; the mean is by time."""

    zone: str
    version: str
    slots: int
    starts_at: datetime
    ends_at: datetime
    lowest: int
    mean: int
    highest: int


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of data: its number, and its cells by the names of columns, folded."""

    number: int
    cells: Mapping[str, str]

    def cell(self, name: str | None) -> str:
        return "" if name is None else self.cells.get(_folded(name), "")


def read_factors_file(content: bytes, wanted: Wanted) -> FactorFile:
    """Read a file whole. Raises: Unprocessable, which names the row and the column."""
    value, lines = _table_of(_text_of(content), wanted.layout)
    rows: list[TimedRow] = []
    without_value = 0
    for line in lines:
        if line.cell(value).casefold() in _ABSENT:
            without_value += 1
        elif (row := _row_of(line, value, wanted)) is not None:
            rows.append(row)
    if not rows:
        raise Unprocessable("no_factors", "The file has no value.", field=value, expected="a row with a value")
    slots = to_slots(rows, wanted.layout.clock or ZoneInfo("UTC"))
    factors = [
        NewFactor(
            slot.zone, wanted.kind, slot.starts_at, slot.ends_at, slot.ugco2e_per_kwh, wanted.source, slot.version,
            row=slot.line,
        )
        for slot in slots.slots
    ]  # fmt: skip
    return FactorFile(factors, slots, len(lines), without_value)


def _text_of(content: bytes) -> str:
    """A file's text: UTF-8, or as RTE writes it. Raises: Unprocessable for an archive or a spreadsheet."""
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b")):
        raise Unprocessable("not_text", "This is an archive or a spreadsheet.", field="FILE", expected="the text in it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _table_of(text: str, layout: Layout) -> tuple[str, list[_Line]]:
    """The column of values, and the lines below the header.

    Raises: Unprocessable where a column is missing, or there are no lines.
    """
    delimiter = max("\t;,", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [_folded(name) for name in next(reader, [])]
        value = _column_of(names, layout)
        lines = [
            _Line(reader.line_num, dict(zip(names, (cell.strip() for cell in cells), strict=False))) for cells in reader
        ]
    except csv.Error as error:
        raise Unprocessable("not_text", "This isn't text in columns.", field="FILE", expected="CSV") from error
    # RTE's files end with a sentence, and exports of spreadsheets with empty lines.
    dated = [line for line in lines if line.cell(layout.starts[0])]
    if not dated:
        raise Unprocessable("no_factors", "The file has no rows.", field="FILE", expected="rows below a header")
    return value, dated


def _column_of(names: Sequence[str], layout: Layout) -> str:
    """The column of values, once those of times are there too. Raises: Unprocessable."""
    for name in layout.starts:
        if _folded(name) not in names:
            raise Unprocessable("missing_column", "A column of times is missing.", field=name, expected="in the header")
    for name in layout.values:
        if _folded(name) in names:
            return name
    raise Unprocessable(
        "missing_column",
        "The column of values is missing.",
        field=layout.values[0],
        expected="in the header; --value-column names another",
    )


def _row_of(line: _Line, value: str, wanted: Wanted) -> TimedRow | None:
    """A row with its value; None for one of another zone than the one wanted."""
    layout = wanted.layout
    stated = line.cell(layout.zone)
    zone = stated or wanted.zone or ""
    if stated and wanted.zone not in (None, stated):
        return None
    if not _zone_form.fullmatch(zone):
        raise _refused(line, "has no zone, or one that isn't a name", layout.zone or "zone", "a zone as FR, or --zone")
    ends = line.cell(layout.ends)
    return TimedRow(
        line.number,
        zone,
        _time_of(line, " ".join(line.cell(name) for name in layout.starts), layout, layout.starts[0]),
        _time_of(line, ends, layout, layout.ends or "") if ends else None,
        _micrograms(line, line.cell(value), value),
        wanted.version or _version_of(line.cell(layout.version)),
    )


def _time_of(line: _Line, text: str, layout: Layout, column: str) -> datetime:
    """A time as it stands in a row: with its offset, or naive where the layout says whose clock it is by."""
    if found := _day_first.fullmatch(text):
        day, month, year, rest = found.groups()
        text = f"{year}-{month}-{day}{rest}"
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        read = None
    if read is None or read.year not in YEARS or (read.tzinfo is None and layout.clock is None):
        expected = "RFC 3339 with an offset" if layout.clock is None else "a date and time as 2026-10-05 14:30"
        raise _refused(line, "has a time that can't be read", column, f"{expected}; --tz says whose clock it is by")
    return read


def _micrograms(line: _Line, text: str, column: str) -> int:
    """µg CO2e/kWh of a text in g: exact to six decimals, rounded half up beyond."""
    try:
        grams = Decimal(text.replace(",", "."))
    except InvalidOperation:
        grams = Decimal("NaN")
    if not (grams.is_finite() and 0 <= grams <= G_PER_KWH_MAX):
        raise _refused(line, "has a value that can't be a factor", column, f"0 to {G_PER_KWH_MAX:,} g CO2e a kWh")
    return int((grams * UGCO2E_PER_G).to_integral_value(ROUND_HALF_UP))


def _version_of(stated: str) -> str:
    """The version that a row names, in letters without accents: `Données définitives` is `donnees-definitives`."""
    plain = unicodedata.normalize("NFKD", stated).encode("ascii", "ignore").decode().casefold()
    return _versions_form.sub("-", plain).strip("-") or FIRST_VERSION


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _refused(line: _Line, what: str, column: str, expected: str) -> Unprocessable:
    return Unprocessable("invalid_factor", f"Row {line.number} {what}.", field=column, expected=expected)


def layout_of(
    form: FactorFormat, *, starts: str | None, ends: str | None, value: str | None, clock: ZoneInfo | None
) -> Layout:
    """The layout of a format, with other columns and another clock where they are given. starts: split by commas."""
    layout = LAYOUTS[form]
    return replace(
        layout,
        starts=layout.starts if starts is None else tuple(part.strip() for part in starts.split(",")),
        ends=ends or layout.ends,
        values=layout.values if value is None else (value,),
        clock=clock or layout.clock,
    )


def spans_of(read: FactorFile) -> list[Span]:
    """What a file has, by zone and version."""
    several: dict[tuple[str, str], list[NewFactor]] = defaultdict(list)
    for factor in read.factors:
        several[factor.zone, factor.version].append(factor)
    return [_span_of(*key, factors) for key, factors in sorted(several.items())]


def _span_of(zone: str, version: str, factors: Sequence[NewFactor]) -> Span:
    values = [factor.ugco2e_per_kwh for factor in factors]
    times_us = [(factor.ends_at - factor.starts_at) // timedelta(microseconds=1) for factor in factors]
    weighed = sum(value * time_us for value, time_us in zip(values, times_us, strict=True))
    starts_at, ends_at = min(factor.starts_at for factor in factors), max(factor.ends_at for factor in factors)
    mean = rounded(weighed, sum(times_us))
    return Span(zone, version, len(factors), starts_at, ends_at, min(values), mean, max(values))

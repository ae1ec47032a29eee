"""The forms of a file: CSV, XLSX, Parquet, JSON, NDJSON. Each is written from rows on disk, a few at a time."""

import csv
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from reports.cells import SEPARATORS, Cell, written
from reports.exports.sheets import DIGITS, Column, Form
from reports.exports.spooling import ROWS_TOLD, Spooled, Told
from reports.wording import Language

MEDIA_TYPES: dict[Form, str] = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
}

METADATA_KEY = "jauge"
"""Of what a Parquet file tells of itself, as JSON."""

ROW_GROUP = 100_000


@dataclass(frozen=True, slots=True)
class Written:
    """A file, and the SHA-256 of its bytes."""

    path: Path
    size: int
    sha256: str


def write(spooled: Spooled, form: Form, language: Language, path: Path, told: Told | None = None) -> Written:
    """Write rows in a form. language: of decimal marks, separators and headings in CSV and XLSX."""
    if form == "csv":
        _write_csv(spooled, language, path, told)
    elif form == "xlsx":
        from reports.exports.workbook import write_workbook  # noqa: PLC0415 - a library that few need

        write_workbook(spooled, language, path, told)
    elif form == "parquet":
        _write_parquet(spooled, path)
    elif form == "json":
        _write_json(spooled, path)
    else:
        shutil.copyfile(spooled.path, path)
    return Written(path, path.stat().st_size, sha256_of(path))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def telling(rows: Iterator[list[Any]], count: int, told: Told | None) -> Iterator[list[Any]]:
    """The same rows, while progress is told."""
    for number, row in enumerate(rows, 1):
        yield row
        if told is not None and number % ROWS_TOLD == 0:
            told(number, count)


def cell_of(value: Any, column: Column) -> Cell:
    """A value read from disk, as a cell."""
    if isinstance(value, bool):
        return str(value).lower()
    return Decimal(value) if column.kind == "decimal" and value is not None else value


def _write_csv(spooled: Spooled, language: Language, path: Path, told: Told | None) -> None:
    """RFC 4180, in UTF-8 that says so by its mark where a French spreadsheet would take it for something else."""
    columns = spooled.columns
    with path.open("w", encoding="utf-8-sig" if language == "fr" else "utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=SEPARATORS[language], lineterminator="\r\n")
        # English CSV is read by programs: it keeps the names that the API has.
        writer.writerow([column.heading(language) if language == "fr" else column.name for column in columns])
        for row in telling(spooled.rows(), spooled.count, told):
            writer.writerow([written(cell_of(*pair), language) for pair in zip(row, columns, strict=True)])


def _write_json(spooled: Spooled, path: Path) -> None:
    """One object: what the file is of, then `items`."""
    head = msgspec.json.encode(spooled.told())
    with path.open("wb") as file:
        file.write(head[:-1] + b',"items":[')
        for number, line in enumerate(spooled.lines()):
            file.write((b",\n" if number else b"\n") + line)
        file.write(b"\n]}\n")


def _write_parquet(spooled: Spooled, path: Path) -> None:
    """Integers of any size and decimals as DECIMAL, instants in UTC; streamed by Polars.

    Numbers are read as the text they are: nothing passes through a float.
    """
    import polars as pl  # noqa: PLC0415 - a library that few need

    names = [column.name for column in spooled.columns]
    told = msgspec.json.encode(spooled.told()).decode()
    if spooled.count:
        frame = pl.scan_ndjson(spooled.path, schema=dict.fromkeys(names, pl.String))
    else:
        frame = pl.LazyFrame(schema=dict.fromkeys(names, pl.String))
    frame = frame.select(_expression(pl, column) for column in spooled.columns)
    frame.sink_parquet(path, metadata={METADATA_KEY: told}, row_group_size=ROW_GROUP)


def _expression(pl: Any, column: Column) -> Any:
    text = pl.col(column.name)
    if column.kind in {"count", "decimal"}:
        return text.cast(pl.Decimal(DIGITS, column.scale))
    if column.kind == "instant":
        return text.str.replace(r"Z$", "+00:00").str.to_datetime(
            "%Y-%m-%dT%H:%M:%S%:z", time_unit="us", time_zone="UTC"
        )
    return text.str.to_date("%Y-%m-%d") if column.kind == "date" else text

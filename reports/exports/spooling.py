"""Rows of a sheet in a file of their own, one JSON object a line, before they take their form.

So the transaction that reads them ends before anybody's network is waited for, their number and hash are known when
the form is begun and can stand at its head, an error leaves no half of a file, and memory holds a few rows at a time.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from metering.errors import TooLarge
from reports.exports.sheets import About, Column, Sheet

ROWS_TOLD = 1_000
"""Rows after which progress is told."""

Told = Callable[[int, int | None], None]
"""Takes how many rows are done, and of how many, where that is known. What it raises ends the export."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """Rows on disk."""

    path: Path
    about: About
    columns: tuple[Column, ...]
    count: int
    content_sha256: str

    def told(self) -> dict[str, Any]:
        """What stands in every file of them, or beside it."""
        return {**self.about.told(), "rows": self.count, "content_sha256": self.content_sha256}

    def lines(self) -> Iterator[bytes]:
        """Rows as they are on disk."""
        with self.path.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\n")

    def rows(self) -> Iterator[list[Any]]:
        """Values in the order of columns; decimals are text."""
        decoder = msgspec.json.Decoder(dict[str, Any])
        names = [column.name for column in self.columns]
        for line in self.lines():
            record = decoder.decode(line)
            yield [record[name] for name in names]


def spool(sheet: Sheet, path: Path, told: Told | None = None, rows_max: int | None = None) -> Spooled:
    """Write a sheet's rows to a file. Raises: TooLarge beyond `rows_max`."""
    encoder = msgspec.json.Encoder(decimal_format="string")
    names = [column.name for column in sheet.columns]
    digest, count = hashlib.sha256(), 0
    with path.open("wb") as file:
        for row in sheet.rows:
            line = encoder.encode(dict(zip(names, row, strict=True))) + b"\n"
            file.write(line)
            digest.update(line)
            count += 1
            if rows_max is not None and count > rows_max:
                raise TooLarge("export_too_large", "Too many rows to be waited for.", expected=f"at most {rows_max:,}")
            if told is not None and count % ROWS_TOLD == 0:
                told(count, None)
    return Spooled(path, sheet.about, sheet.columns, count, digest.hexdigest())

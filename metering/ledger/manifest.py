"""What a sealed month consists of: its files, with the hash that each must have, and the state of the ledger in them.

    DATA/sealed/2026-10/manifest.json
    DATA/sealed/2026-10/entries-123-0001.parquet    entries up to batch 123, sorted by administration and time

Nothing in a manifest depends on when or where it was written.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from metering.ledger.rows import FRAME_SCHEMA
from metering.rules.quantities import QUANTITIES, add
from metering.tables import SERIES_FIELDS

FORM: Final = "jauge-seal-1"
MANIFEST_NAME = "manifest.json"

_SERIES_TYPES: dict[str, pl.DataType] = {"streamed": pl.Boolean(), "http_status": pl.Int32()}

SEALED_SCHEMA: Final[dict[str, pl.DataType]] = {
    "batch_seq": pl.Int64(),
    **{"tenant_number" if name == "tenant" else name: kind for name, kind in FRAME_SCHEMA.items()},
    **{name: _SERIES_TYPES.get(name, pl.String()) for name in SERIES_FIELDS},
}
"""Columns of a sealed file: those of an entry, from which its row can be made again, and the names of its series."""

Sums = dict[str, str | None]
"""Sum of every quantity, in digits, because it may be larger than readers of JSON carry; null where it is unknown."""


class SealedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of entries that began in [start, end)."""

    name: str
    sha256: str
    bytes: int
    rows: int
    start: datetime
    end: datetime
    first_batch: int
    last_batch: int
    sums: Sums


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sealed month. ledger_hash: link of the ledger's chain at `last_batch`, the last that was asked for."""

    form: str
    month: str
    start: datetime
    end: datetime
    last_batch: int
    ledger_hash: str
    rows: int
    sums: Sums
    files: tuple[SealedFile, ...]

    def to_bytes(self) -> bytes:
        """The one form it is written and hashed in."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def month_folder(data: Path, month: str) -> Path:
    """Where a sealed month is, in the data folder."""
    return data / "sealed" / month


def read_manifest(raw: bytes) -> Manifest:
    """Raises: msgspec.DecodeError for what is no manifest."""
    return msgspec.json.decode(raw, type=Manifest)


def sums_of(frame: pl.DataFrame) -> Sums:
    """Sum of every quantity of a frame, 128 bits wide."""
    wide = (pl.col(name).cast(pl.Int128) for name in QUANTITIES)
    row = frame.select(pl.when(one.count() > 0).then(one.sum()) for one in wide).row(0)
    return {name: None if value is None else str(value) for name, value in zip(QUANTITIES, row, strict=True)}


def added_up(sums: Iterable[Sums]) -> Sums:
    """Sums of all together."""
    total: dict[str, int | None] = dict.fromkeys(QUANTITIES)
    for one in sums:
        for name, digits in one.items():
            total[name] = add(total[name], None if digits is None else int(digits))
    return {name: None if value is None else str(value) for name, value in total.items()}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file. Raises: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

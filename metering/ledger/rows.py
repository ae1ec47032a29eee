"""Frames of entries, and their binary form.

A frame is a Polars table with the columns of `FRAME_SCHEMA`: the form in which entries come to the ledger. Its rows
become PostgreSQL binary COPY tuples; the same bytes are stored, compared with a retry's, and hashed into the chain.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from metering.rules.quantities import QUANTITIES
from metering.tables import ledger_entry

EVENT, CORRECTION, VOID = 0, 1, 2

INSTANT = pl.Datetime("us", "UTC")

FRAME_SCHEMA: Final[dict[str, pl.DataType]] = {
    "identity": pl.Binary(),
    "series": pl.Int32(),
    "tenant": pl.Int32(),
    "occurred_at": INSTANT,
    "ended_at": INSTANT,
    "first_token_at": INSTANT,
    "queue_ms": pl.Int64(),
    **{name: pl.Int64() for name in QUANTITIES},
    "attempt": pl.Int64(),
    "kind": pl.Int16(),
    "uncounted_requests": pl.Int16(),
    "corrects": pl.Binary(),
    "event_id": pl.String(),
    "reservation": pl.String(),
    "parent": pl.String(),
    "reason": pl.String(),
    "author": pl.String(),
}
"""Columns of a frame, in the order of `ledger_entry` after `batch_seq`."""

ENTRY_COLUMNS = tuple(column.name for column in ledger_entry.columns)
assert ("batch_seq", *FRAME_SCHEMA) == ENTRY_COLUMNS

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
COPY_TRAILER = struct.pack(">h", -1)
COPY_NULL = struct.pack(">i", -1)

_TEXTS = tuple(name for name, kind in FRAME_SCHEMA.items() if kind == pl.String())
_BINARIES = frozenset(name for name, kind in FRAME_SCHEMA.items() if kind == pl.Binary())
_FIXED = tuple(name for name in FRAME_SCHEMA if name not in _TEXTS)
_POSTGRES_EPOCH_US = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970
_length = struct.Struct(">i").pack


def row_prefix(seq: int) -> bytes:
    """What comes before `encode_rows` bytes in a tuple: the number of columns, and the batch's number."""
    return struct.pack(">hiq", len(ENTRY_COLUMNS), 8, seq)


def with_prefix(seq: int, rows: Iterable[bytes]) -> bytes:
    """Tuples of a batch, one after another: rows of `encode_rows`, each with the prefix."""
    prefix = row_prefix(seq)
    return b"".join([prefix, prefix.join(rows)])


def fingerprints_of(rows: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """64 bits a row that tell a retry from other content under its identity; rows are without their prefix.

    XXH3, for its speed: nobody gains by a collision, since the SHA-256 of the chain covers the row itself.
    """
    return np.fromiter(map(xxhash.xxh3_64_intdigest, rows), dtype=np.uint64, count=len(rows)).view(np.int64)


def identities_of(frame: pl.DataFrame) -> npt.NDArray[np.void]:
    """Identities of a frame, 16 bytes each."""
    return np.frombuffer(b"".join(frame["identity"].to_list()), dtype="V16")


def encode_rows(frame: pl.DataFrame) -> list[bytes]:
    """Rows of a frame as binary COPY tuples without their prefix (`row_prefix`).

    Columns of a fixed width are laid out together for all rows that are null in the same places.
    """
    nulls = {name: frame[name].null_count() for name in FRAME_SCHEMA}
    known = [name for name in _FIXED if nulls[name] < frame.height]
    sometimes = [name for name in known if nulls[name]]
    # One select for all columns: each costs a turn of the engine, which is long when the processor is busy.
    filled = frame.select(
        *(pl.col(name).to_physical().fill_null(bytes(16) if name in _BINARIES else 0) for name in known),
        *(pl.col(name).is_null().alias(f"{name} is null") for name in sometimes),
    )
    columns = {name: _big_endian(filled[name]) for name in known}
    patterns = np.zeros(frame.height, dtype=np.int64)
    for place, name in enumerate(sometimes):
        patterns |= filled[f"{name} is null"].to_numpy().astype(np.int64) << place
    heads = [b""] * frame.height
    for pattern in np.unique(patterns).tolist():
        present = {name: column for name, column in columns.items() if name not in sometimes}
        present |= {name: columns[name] for place, name in enumerate(sometimes) if not pattern >> place & 1}
        where = np.flatnonzero(patterns == pattern)
        laid = _laid_out(present, where)
        if len(where) == frame.height:
            heads = laid
        else:
            for row, head in zip(where.tolist(), laid, strict=True):
                heads[row] = head
    return list(map(bytes.__add__, heads, _text_tails(frame, nulls)))


def _laid_out(present: dict[str, npt.NDArray[np.void]], where: npt.NDArray[np.intp]) -> list[bytes]:
    """Heads of the rows at `where`, which have the columns that are present and no other."""
    fields: list[tuple[str, str | np.dtype[np.void]]] = []
    for name in _FIXED:
        fields.append((f"{name} length", ">i4"))
        if name in present:
            fields.append((name, present[name].dtype))
    laid = np.empty(len(where), dtype=fields)
    for name in _FIXED:
        laid[f"{name} length"] = present[name].dtype.itemsize if name in present else -1
        if name in present:
            laid[name] = present[name][where]
    width = laid.dtype.itemsize
    blob = laid.tobytes()
    return [blob[start : start + width] for start in range(0, len(blob), width)]


def _big_endian(column: pl.Series) -> npt.NDArray[np.void]:
    if column.name in _BINARIES:
        return np.frombuffer(b"".join(column.to_list()), dtype="V16")
    values = column.to_numpy()
    if FRAME_SCHEMA[column.name] == INSTANT:
        values = values - _POSTGRES_EPOCH_US
    return values.astype(values.dtype.newbyteorder(">"))


def _text_tails(frame: pl.DataFrame, nulls: dict[str, int]) -> list[bytes]:
    """Text columns of every row: the event's id, then the links and reasons, which are mostly null."""
    first, *others = _TEXTS
    absent = b""
    tails = [_length(len(text)) + text for text in map(str.encode, frame[first].to_list())]
    for name in others:
        if nulls[name] == frame.height:
            absent += COPY_NULL
        else:
            tails = [tail + absent + _text(value) for tail, value in zip(tails, frame[name].to_list(), strict=True)]
            absent = b""
    return [tail + absent for tail in tails]


def _text(value: str | None) -> bytes:
    if value is None:
        return COPY_NULL
    encoded = value.encode()
    return _length(len(encoded)) + encoded

"""Appending to the ledger: dedupe, rows, rollups and the chain's next link, in one transaction.

`prepare` does all that needs no database, so that a second thread can prepare the next group while PostgreSQL writes
this one. `Ledger.write` holds the chain's lock: batches commit in the order of their numbers.
"""

import itertools
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import polars as pl
import psycopg
import sqlalchemy as sa

from metering.database import raw, transaction
from metering.ledger import rollups
from metering.ledger.partitions import ensure_partition
from metering.ledger.rows import (
    COPY_HEADER,
    COPY_TRAILER,
    ENTRY_COLUMNS,
    encode_rows,
    fingerprints_of,
    identities_of,
    with_prefix,
)
from metering.ledger.series import SeriesRegistry
from metering.rules.chain import GENESIS, canonical_series, link, rows_digest
from metering.rules.periods import BOOKS_ZONE
from metering.tables import ledger_batch

_LOCAL = pl.col("occurred_at").dt.convert_time_zone(BOOKS_ZONE).dt
MONTH_NUMBER = _LOCAL.year().cast(pl.Int32) * 12 + _LOCAL.month().cast(pl.Int32) - 1
"""Months of the books since the year 0."""

LEDGER_LOCK = 0x4C4544474552  # "LEDGER": held while a batch is written, so that numbers commit in order


class Outcome(StrEnum):
    """What became of an event that was offered to the ledger."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frame ready to be written: its first row of every identity, sorted by identity."""

    frame: pl.DataFrame
    identities: npt.NDArray[np.void]
    rows: list[bytes]
    fingerprints: npt.NDArray[np.int64]
    place: npt.NDArray[np.intp]
    """Where each row that was offered, in its order, stands among those prepared (repeats with their first)."""
    offered: npt.NDArray[np.int64]
    """Fingerprint of each row that was offered."""
    first: npt.NDArray[np.bool_]
    """Whether each row that was offered is the first of its identity."""
    sums: pl.DataFrame
    """Sums of the frame by hour and series, see `rollups.hourly_sums`."""

    def only(self, fresh: npt.NDArray[np.bool_]) -> "Prepared":
        """What remains to be written when other rows are in the ledger already."""
        frame = self.frame.filter(fresh)
        rows = list(itertools.compress(self.rows, fresh.tolist()))
        return replace(self, frame=frame, rows=rows, sums=rollups.hourly_sums(frame))


def prepare(frame: pl.DataFrame) -> Prepared:
    """Encode a frame (see `rows.FRAME_SCHEMA`) and set repeats within it aside."""
    halves = identities_of(frame).view(">u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: of repeats, the first offered comes first
    ordered = frame[order]
    rows = encode_rows(ordered)
    fingerprints = fingerprints_of(rows)
    new = np.ones(frame.height, dtype=np.bool_)
    new[1:] = (halves[order][1:] != halves[order][:-1]).any(axis=1)
    place = np.empty(frame.height, dtype=np.intp)
    offered, first = np.empty_like(fingerprints), np.empty_like(new)
    place[order], offered[order], first[order] = np.cumsum(new) - 1, fingerprints, new
    if not new.all():
        ordered, fingerprints = ordered.filter(new), fingerprints[new]
        rows = [row for row, is_new in zip(rows, new.tolist(), strict=True) if is_new]
    sums = rollups.hourly_sums(ordered)
    return Prepared(ordered, identities_of(ordered), rows, fingerprints, place, offered, first, sums)


@dataclass(frozen=True, slots=True)
class Head:
    """The chain's last link, and the database's clock."""

    seq: int
    hash: bytes
    now: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """For each prepared row: whether its identity was in the ledger before, and the fingerprint it is recorded with."""

    known: npt.NDArray[np.bool_]
    fingerprints: npt.NDArray[np.int64]


class Ledger:
    """The append-only book of entries."""

    def __init__(self, engine: sa.Engine, series: SeriesRegistry) -> None:
        self._engine = engine
        self._series = series
        self._repeats_expected = False

    def append(self, frame: pl.DataFrame) -> list[Outcome]:
        """Write a frame; the answer says what became of each row, in order. Raises: Unavailable."""
        return self.write(prepare(frame))

    def write(self, prepared: Prepared) -> list[Outcome]:
        """Write what was prepared, durably; safe to repeat. Raises: Unavailable: it may be written or not."""
        if not prepared.rows:
            return []
        with transaction(self._engine) as connection:
            return self.write_within(connection, prepared)

    def write_within(self, connection: sa.Connection, prepared: Prepared) -> list[Outcome]:
        """Write as a part of the caller's transaction: durable when that commits, and locked until then."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LEDGER_LOCK)))
        head = _head(connection)
        recorded = self._claim_identities(connection, head.seq + 1, prepared)
        if not recorded.known.all():
            fresh = prepared.only(~recorded.known) if recorded.known.any() else prepared
            self._write_batch(connection, head, fresh)
        self._repeats_expected = bool(recorded.known.any())
        return _outcomes(prepared, recorded)

    def _claim_identities(self, connection: sa.Connection, seq: int, prepared: Prepared) -> Recorded:
        """Record the identities that are new, and find what the others are recorded with.

        New is the rule, so it copies as if all were new and looks only when PostgreSQL objects. Repeats come in runs
        (a file sent again), so after one it looks first.
        """
        recorded = Recorded(np.zeros(len(prepared.rows), dtype=np.bool_), prepared.fingerprints)
        if not self._repeats_expected:
            try:
                with raw(connection).transaction():
                    _copy_identities(connection, seq, prepared, ~recorded.known)
            except psycopg.errors.UniqueViolation:
                pass
            else:
                return recorded
        recorded = _recorded(connection, prepared)
        _copy_identities(connection, seq, prepared, ~recorded.known)
        return recorded

    def _write_batch(self, connection: sa.Connection, head: Head, fresh: Prepared) -> None:
        """Write rows that are new, their sums and the chain's link."""
        seq = head.seq + 1
        series = self._series.get(connection, sorted(fresh.frame["series"].unique().to_list()))
        _copy_rows(connection, seq, fresh.frame, fresh.rows)
        rollups.add_to_rollups(connection, rollups.hourly_cells(fresh.sums, series))
        sums = rollups.batch_sums(fresh.sums)
        canonical = ((number, canonical_series(fields)) for number, fields in series.items())
        digest = rows_digest(canonical, [b"".join(fresh.rows)])
        connection.execute(
            ledger_batch.insert().values(
                seq=seq,
                recorded_at=head.now,
                row_count=len(fresh.rows),
                sums=sums,
                rows_digest=digest,
                hash=link(head.hash, seq, microseconds(head.now), len(fresh.rows), sums, digest),
            )
        )


def _head(connection: sa.Connection) -> Head:
    now = connection.scalar(sa.select(sa.func.clock_timestamp()))
    assert isinstance(now, datetime)
    last = connection.execute(
        sa.select(ledger_batch.c.seq, ledger_batch.c.hash).order_by(ledger_batch.c.seq.desc()).limit(1)
    ).first()
    return Head(0, GENESIS, now) if last is None else Head(last.seq, bytes(last.hash), now)


def microseconds(instant: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _recorded(connection: sa.Connection, prepared: Prepared) -> Recorded:
    rows = connection.execute(
        sa.text(
            "SELECT uuid_send(identity), fingerprint FROM ledger_identity "
            "WHERE identity = ANY(CAST(CAST(:identities AS text[]) AS uuid[]))"
        ),
        {"identities": [identity.hex() for identity in map(bytes, prepared.identities)]},
    )
    found = {bytes(identity): fingerprint for identity, fingerprint in rows}
    known = np.array([bytes(identity) in found for identity in prepared.identities], dtype=np.bool_)
    fingerprints = prepared.fingerprints.copy()
    fingerprints[known] = [found[bytes(identity)] for identity in prepared.identities[known]]
    return Recorded(known, fingerprints)


def _copy_identities(connection: sa.Connection, seq: int, prepared: Prepared, fresh: npt.NDArray[np.bool_]) -> None:
    rows = np.empty(
        int(fresh.sum()),
        dtype=[
            ("columns", ">i2"),
            ("batch_seq length", ">i4"),
            ("batch_seq", ">i8"),
            ("identity length", ">i4"),
            ("identity", "V16"),
            ("fingerprint length", ">i4"),
            ("fingerprint", ">i8"),
        ],
    )
    rows["columns"], rows["batch_seq length"], rows["identity length"], rows["fingerprint length"] = 3, 8, 16, 8
    rows["batch_seq"], rows["identity"] = seq, prepared.identities[fresh]
    rows["fingerprint"] = prepared.fingerprints[fresh]
    _copy(connection, "ledger_identity", ("batch_seq", "identity", "fingerprint"), rows.tobytes())


def _copy_rows(connection: sa.Connection, seq: int, frame: pl.DataFrame, rows: list[bytes]) -> None:
    """Copy each row into the partition of its month."""
    month_of_row = frame.select(MONTH_NUMBER).to_series().to_numpy()
    months = np.unique(month_of_row).tolist()
    for number in months:
        chosen = rows if len(months) == 1 else itertools.compress(rows, (month_of_row == number).tolist())
        name = ensure_partition(connection, number // 12, number % 12 + 1)
        _copy(connection, name, ENTRY_COLUMNS, with_prefix(seq, chosen))


def _copy(connection: sa.Connection, table: str, columns: tuple[str, ...], rows: bytes) -> None:
    names = ", ".join(columns)
    with raw(connection).cursor().copy(f"COPY {table} ({names}) FROM STDIN (FORMAT binary)") as copy:
        copy.write(COPY_HEADER + rows + COPY_TRAILER)


def _outcomes(prepared: Prepared, recorded: Recorded) -> list[Outcome]:
    """Each offered row against what is recorded under its identity."""
    same = prepared.offered == recorded.fingerprints[prepared.place]
    accepted = prepared.first & ~recorded.known[prepared.place]
    if accepted.all():
        return [Outcome.ACCEPTED] * len(accepted)
    return [
        Outcome.ACCEPTED if is_accepted else Outcome.DUPLICATE if is_same else Outcome.CONFLICT
        for is_accepted, is_same in zip(accepted.tolist(), same.tolist(), strict=True)
    ]

"""Appending to the ledger: dedupe, rows, rollups and the chain's next link, in one transaction.

`prepare` does all that needs no database, so that a second thread can prepare the next group while PostgreSQL writes
this one. `Ledger.write` holds the chain's lock: batches commit in the order of their numbers.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import polars as pl
import psycopg
import sqlalchemy as sa

from metering.database import raw, transaction
from metering.ledger import rollups
from metering.ledger.partitions import ensure_partition
from metering.ledger.rows import COPY_HEADER, COPY_TRAILER, ENTRY_COLUMNS, encode_rows, row_prefix
from metering.ledger.series import SeriesRegistry
from metering.rules.chain import GENESIS, canonical_series, fingerprint_of, link, rows_digest
from metering.rules.periods import BOOKS_ZONE
from metering.tables import ledger_batch

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
    identities: list[bytes]
    rows: list[bytes]
    fingerprints: list[int]
    offered: list[tuple[bytes, int]]
    """(identity, fingerprint) of every row that was offered, in its order."""
    position: list[int]
    """Where each prepared row stood among those offered."""


def prepare(frame: pl.DataFrame) -> Prepared:
    """Encode a frame (see `rows.FRAME_SCHEMA`) and set repeats within it aside."""
    encoded = encode_rows(frame)
    identities = frame["identity"].to_list()
    fingerprints = [fingerprint_of(row) for row in encoded]
    first: dict[bytes, int] = {}
    for position, identity in enumerate(identities):
        first.setdefault(identity, position)
    chosen = [first[identity] for identity in sorted(first)]
    return Prepared(
        frame=frame[chosen],
        identities=[identities[position] for position in chosen],
        rows=[encoded[position] for position in chosen],
        fingerprints=[fingerprints[position] for position in chosen],
        offered=list(zip(identities, fingerprints, strict=True)),
        position=chosen,
    )


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
        known = self._claim_identities(connection, head.seq + 1, prepared)
        fresh = [at for at, identity in enumerate(prepared.identities) if identity not in known]
        if fresh:
            self._write_batch(connection, head, prepared, fresh)
        self._repeats_expected = bool(known)
        return _outcomes(prepared, known)

    def _claim_identities(self, connection: sa.Connection, seq: int, prepared: Prepared) -> dict[bytes, int]:
        """Record the identities that are new; return the others with the fingerprint they are recorded with.

        New is the rule, so it copies as if all were new and looks only when PostgreSQL objects. Repeats come in runs
        (a file sent again), so after one it looks first.
        """
        known: dict[bytes, int] = {}
        if not self._repeats_expected:
            try:
                with raw(connection).transaction():
                    _copy_identities(connection, seq, prepared, known)
            except psycopg.errors.UniqueViolation:
                pass
            else:
                return known
        known = _recorded(connection, prepared.identities)
        _copy_identities(connection, seq, prepared, known)
        return known

    def _write_batch(self, connection: sa.Connection, head: "Head", prepared: Prepared, fresh: list[int]) -> None:
        seq = head.seq + 1
        whole = len(fresh) == len(prepared.rows)
        frame = prepared.frame if whole else prepared.frame[fresh]
        prefix = row_prefix(seq)
        rows = [prefix + prepared.rows[at] for at in fresh]
        series = self._series.get(connection, sorted(frame["series"].unique().to_list()))
        _copy_rows(connection, frame, rows)
        cells = rollups.hourly_cells(frame, series)
        rollups.add_to_rollups(connection, cells)
        sums = rollups.batch_sums(cells)
        digest = rows_digest(((number, canonical_series(fields)) for number, fields in series.items()), rows)
        connection.execute(
            ledger_batch.insert().values(
                seq=seq,
                recorded_at=head.now,
                row_count=len(rows),
                sums=sums,
                rows_digest=digest,
                hash=link(head.hash, seq, microseconds(head.now), len(rows), sums, digest),
            )
        )


@dataclass(frozen=True, slots=True)
class Head:
    """The chain's last link, and the database's clock."""

    seq: int
    hash: bytes
    now: datetime


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


def _recorded(connection: sa.Connection, identities: list[bytes]) -> dict[bytes, int]:
    rows = connection.execute(
        sa.text(
            "SELECT uuid_send(identity), fingerprint FROM ledger_identity "
            "WHERE identity = ANY(CAST(CAST(:identities AS text[]) AS uuid[]))"
        ),
        {"identities": [identity.hex() for identity in identities]},
    )
    return {bytes(identity): fingerprint for identity, fingerprint in rows}


def _copy_identities(connection: sa.Connection, seq: int, prepared: Prepared, known: dict[bytes, int]) -> None:
    batch = b"\0\3\0\0\0\x08" + seq.to_bytes(8, "big") + b"\0\0\0\x10"
    rows = [
        b"%b%b\0\0\0\x08%b" % (batch, identity, fingerprint.to_bytes(8, "big", signed=True))
        for identity, fingerprint in zip(prepared.identities, prepared.fingerprints, strict=True)
        if identity not in known
    ]
    _copy(connection, "ledger_identity", ("batch_seq", "identity", "fingerprint"), rows)


def _copy_rows(connection: sa.Connection, frame: pl.DataFrame, rows: list[bytes]) -> None:
    """Copy each row into the partition of its month."""
    local = frame["occurred_at"].dt.convert_time_zone(BOOKS_ZONE)
    month_of_row = list(zip(local.dt.year().to_list(), local.dt.month().to_list(), strict=True))
    months = set(month_of_row)
    for year, month in sorted(months):
        chosen = (
            rows
            if len(months) == 1
            else [row for row, at in zip(rows, month_of_row, strict=True) if at == (year, month)]
        )
        _copy(connection, ensure_partition(connection, year, month), ENTRY_COLUMNS, chosen)


def _copy(connection: sa.Connection, table: str, columns: tuple[str, ...], rows: list[bytes]) -> None:
    names = ", ".join(columns)
    with raw(connection).cursor().copy(f"COPY {table} ({names}) FROM STDIN (FORMAT binary)") as copy:
        copy.write(COPY_HEADER + b"".join(rows) + COPY_TRAILER)


def _outcomes(prepared: Prepared, known: dict[bytes, int]) -> list[Outcome]:
    """Each offered row against what is recorded under its identity."""
    recorded = dict(zip(prepared.identities, prepared.fingerprints, strict=True)) | known
    outcomes = [
        Outcome.DUPLICATE if recorded[identity] == fingerprint else Outcome.CONFLICT
        for identity, fingerprint in prepared.offered
    ]
    for at, identity in zip(prepared.position, prepared.identities, strict=True):
        if identity not in known:
            outcomes[at] = Outcome.ACCEPTED
    return outcomes

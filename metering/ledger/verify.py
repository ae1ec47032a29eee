"""Verification: recompute the chain, the identities and the rollups from the rows, and name what differs.

It reads one snapshot of the database, so it can run while events arrive. Truncating the newest batches together with
everything that tells of them leaves a shorter chain that is sound: keep the head's number and hash elsewhere and
compare (`jauge verify --json` prints them).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from metering.database import raw, transaction
from metering.ledger.append import microseconds
from metering.ledger.rows import COPY_HEADER, COPY_TRAILER, ENTRY_COLUMNS, SERIES_OFFSET, fingerprint_of, row_prefix
from metering.rules.chain import GENESIS, canonical_series, link, rows_digest
from metering.rules.periods import BOOKS_ZONE
from metering.rules.quantities import FAILURES, QUANTITIES
from metering.tables import DAILY_KEYS, HOURLY_KEYS, ROLLUP_SUMS, SERIES_FIELDS, ledger_batch, ledger_series

CHUNK_ROWS = 200_000
NAMED_MAX = 100
"""Differences that are named, a kind; the rest is counted."""

_PREFIX_LENGTH = len(row_prefix(0))
_IDENTITY = slice(_PREFIX_LENGTH + 4, _PREFIX_LENGTH + 20)
_SEQ = slice(_PREFIX_LENGTH - 8, _PREFIX_LENGTH)
_SERIES = slice(SERIES_OFFSET, SERIES_OFFSET + 4)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was written: a kind, where, and what about it."""

    kind: str
    where: str
    detail: str


@dataclass(slots=True)
class Verification:
    """What was checked, and every difference found (at most `NAMED_MAX` named, a kind)."""

    batches: int = 0
    rows: int = 0
    head_seq: int = 0
    head_hash: str = GENESIS.hex()
    differences: list[Difference] = field(default_factory=list)
    unnamed: int = 0

    @property
    def clean(self) -> bool:
        return not self.differences

    def found(self, kind: str, where: str, detail: str) -> None:
        if sum(difference.kind == kind for difference in self.differences) < NAMED_MAX:
            self.differences.append(Difference(kind, where, detail))
        else:
            self.unnamed += 1


Progress = Callable[[int, int], None]


def verify(engine: sa.Engine, progress: Progress = lambda _done, _total: None) -> Verification:
    """Check the whole ledger; `progress` is told rows checked and rows in all. Raises: Unavailable."""
    result = Verification()
    with transaction(engine, snapshot=True) as connection:
        canonical = _check_series(connection, result)
        batches = _check_links(connection, result)
        total = sum(batch.row_count for batch in batches)
        for chunk in _chunks(batches):
            _check_rows(connection, chunk, canonical, result)
            progress(result.rows, total)
        _check_strays(connection, result)
        _check_sums(connection, batches, result)
        _check_rollup(connection, "usage_hourly", "hour", HOURLY_KEYS, result)
        _check_rollup(connection, "usage_daily", "day", DAILY_KEYS, result)
    return result


def _check_series(connection: sa.Connection, result: Verification) -> dict[int, bytes]:
    """Canonical form of every series; each must have the digest it was given."""
    canonical: dict[int, bytes] = {}
    for row in connection.execute(sa.select(ledger_series)):
        canonical[row.number] = canonical_series([row._mapping[name] for name in SERIES_FIELDS])
        if hashlib.sha256(canonical[row.number]).digest() != bytes(row.digest):
            result.found("series_changed", f"series {row.number}", "its attributes don't have its digest")
    return canonical


def _check_links(connection: sa.Connection, result: Verification) -> Sequence[sa.Row[Any]]:
    """Every batch; its hash must follow from the one before and from its header."""
    batches = connection.execute(sa.select(ledger_batch).order_by(ledger_batch.c.seq)).all()
    previous, expected_seq = GENESIS, 1
    for batch in batches:
        if batch.seq != expected_seq:
            result.found("batch_missing", f"batch {expected_seq}", f"the chain goes on with batch {batch.seq}")
        sums = [None if value is None else int(value) for value in batch.sums]
        digest = bytes(batch.rows_digest)
        if link(previous, batch.seq, microseconds(batch.recorded_at), batch.row_count, sums, digest) != batch.hash:
            result.found("batch_changed", f"batch {batch.seq}", "its header doesn't have its hash")
        previous, expected_seq = bytes(batch.hash), batch.seq + 1
        result.head_seq, result.head_hash = batch.seq, previous.hex()
    result.batches = len(batches)
    return batches


def _chunks(batches: Sequence[sa.Row[Any]]) -> Iterator[list[sa.Row[Any]]]:
    chunk: list[sa.Row[Any]] = []
    rows = 0
    for batch in batches:
        if chunk and rows + batch.row_count > CHUNK_ROWS:
            yield chunk
            chunk, rows = [], 0
        chunk.append(batch)
        rows += batch.row_count
    if chunk:
        yield chunk


def _check_rows(
    connection: sa.Connection, chunk: list[sa.Row[Any]], canonical: Mapping[int, bytes], result: Verification
) -> None:
    """Rows of some batches: each against its fingerprint, all of a batch against its digest."""
    first, last = chunk[0].seq, chunk[-1].seq
    fingerprints = _fingerprints(connection, first, last)
    rows: dict[int, list[bytes]] = {batch.seq: [] for batch in chunk}
    for row in _read_rows(connection, first, last):
        rows.setdefault(int.from_bytes(row[_SEQ], "big"), []).append(row)
        result.rows += 1
    for batch in chunk:
        found_before = len(result.differences) + result.unnamed
        _compare(batch.seq, rows[batch.seq], fingerprints.get(batch.seq, {}), result)
        used = sorted({int.from_bytes(row[_SERIES], "big") for row in rows[batch.seq]})
        series = [(number, canonical.get(number, b"")) for number in used]
        whole = rows_digest(series, rows[batch.seq]) == bytes(batch.rows_digest)
        if not whole and len(result.differences) + result.unnamed == found_before:
            result.found("rows_changed", f"batch {batch.seq}", "its rows and series don't have its digest")
        elif whole and len(result.differences) + result.unnamed > found_before:
            result.found("identities_changed", f"batch {batch.seq}", "its rows are sound: the identities were changed")


def _compare(seq: int, rows: list[bytes], fingerprints: dict[bytes, int], result: Verification) -> None:
    met: set[bytes] = set()
    for row in rows:
        identity = row[_IDENTITY]
        if identity not in fingerprints:
            result.found("entry_added", _place(seq, identity), "no such identity was recorded in this batch")
        elif identity in met:
            result.found("entry_added", _place(seq, identity), "it stands there twice")
        elif fingerprints[identity] != fingerprint_of(row[_PREFIX_LENGTH:]):
            result.found("entry_changed", _place(seq, identity), "it doesn't have its fingerprint")
        met.add(identity)
    for identity in sorted(fingerprints.keys() - met):
        result.found("entry_missing", _place(seq, identity), "its identity was recorded, and the row is gone")


def _place(seq: int, identity: bytes) -> str:
    return f"batch {seq}, entry {identity.hex()}"


def _fingerprints(connection: sa.Connection, first: int, last: int) -> dict[int, dict[bytes, int]]:
    found: dict[int, dict[bytes, int]] = {}
    query = "SELECT batch_seq, uuid_send(identity), fingerprint FROM ledger_identity WHERE batch_seq BETWEEN %s AND %s"
    with raw(connection).cursor(binary=True) as cursor:
        for seq, identity, fingerprint in cursor.execute(query, (first, last)):
            found.setdefault(seq, {})[identity] = fingerprint
    return found


def _read_rows(connection: sa.Connection, first: int, last: int) -> Iterator[bytes]:
    """Binary tuples of the rows of some batches, by batch and identity: the order they were hashed in."""
    columns = ", ".join(ENTRY_COLUMNS)
    query = (
        f"COPY (SELECT {columns} FROM ledger_entry WHERE batch_seq BETWEEN {first} AND {last} "
        "ORDER BY batch_seq, identity) TO STDOUT (FORMAT binary)"
    )
    with raw(connection).cursor().copy(query) as copy:
        for message in copy:
            row = bytes(message).removeprefix(COPY_HEADER)
            if row != COPY_TRAILER:
                yield row


def _check_strays(connection: sa.Connection, result: Verification) -> None:
    """Rows and identities of batches that don't exist."""
    seqs = sa.select(ledger_batch.c.seq)
    for table, kind in (("ledger_entry", "entry_added"), ("ledger_identity", "identities_changed")):
        stray = sa.table(table, sa.column("batch_seq"), sa.column("identity"))
        rows = connection.execute(
            sa.select(stray.c.batch_seq, sa.cast(stray.c.identity, sa.Text))
            .where(stray.c.batch_seq.not_in(seqs))
            .limit(NAMED_MAX)
        )
        for seq, identity in rows:
            result.found(kind, f"batch {seq}, entry {identity.replace('-', '')}", "there is no such batch")


def _check_sums(connection: sa.Connection, batches: Sequence[sa.Row[Any]], result: Verification) -> None:
    """Sums of every batch against its rows."""
    sums = ", ".join(f"sum({name})" for name in QUANTITIES)
    summed = connection.execute(sa.text(f"SELECT batch_seq, ARRAY[{sums}]::numeric[] FROM ledger_entry GROUP BY 1"))
    actual = dict(summed.tuples().all())
    for batch in batches:
        if batch.seq in actual and actual[batch.seq] != batch.sums:
            result.found("sums_differ", f"batch {batch.seq}", "its sums aren't those of its rows")


def _check_rollup(
    connection: sa.Connection, rollup: str, period: str, keys: tuple[str, ...], result: Verification
) -> None:
    """A rollup against the sums of the rows, cell by cell."""
    names = [f'"{name}"' for name in (period, *keys)]
    cell = ", ".join(names)
    sums = ", ".join(ROLLUP_SUMS)
    periods = {
        "hour": "date_trunc('hour', occurred_at, 'UTC')",
        "day": f"(occurred_at AT TIME ZONE '{BOOKS_ZONE}')::date",
    }
    attributes = ", ".join(
        "COALESCE(s.model_served, s.model_requested)" if name == "model" else f's."{name}"' for name in keys
    )
    summed = ", ".join(
        [f"sum({name})" for name in QUANTITIES]
        + [f"sum(requests) FILTER (WHERE s.status = '{status}')" for status in FAILURES]
        + ["sum(uncounted_requests)"]
    )
    rows = f"SELECT {periods[period]}, {attributes}, {summed} FROM ledger_entry e JOIN ledger_series s ON s.number = e.series"
    ordinals = ", ".join(str(place) for place in range(1, len(names) + 1))
    recomputed = f"{rows} GROUP BY {ordinals}"
    stored = f"SELECT {cell}, {sums} FROM {rollup}"
    for side, left, right in (
        ("differs from the rows, or has none", stored, recomputed),
        ("is missing or differs", recomputed, stored),
    ):
        found = connection.execute(sa.text(f"SELECT {cell} FROM (({left}) EXCEPT ALL ({right})) AS d ({cell}, {sums})"))
        for row in found:
            where = ", ".join(f"{name}={value}" for name, value in zip((period, *keys), row, strict=True))
            result.found("rollup_differs", f"{rollup}: {where}", f"the cell {side}")

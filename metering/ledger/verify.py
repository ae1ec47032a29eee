"""Verification: recompute the chain, the identities and the rollups from the rows, and name what differs.

It reads one snapshot of the database, so it can run while events arrive. Truncating the newest batches together with
everything that tells of them leaves a shorter chain that is sound: keep the head's number and hash elsewhere and
compare (`jauge verify --json` prints them).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from metering.database import raw, transaction
from metering.ledger.rows import COPY_HEADER, COPY_TRAILER, ENTRY_COLUMNS, fingerprints_of, row_prefix
from metering.rules.chain import GENESIS, canonical_series, link, rows_digest
from metering.rules.periods import BOOKS_ZONE
from metering.rules.quantities import FAILURES, QUANTITIES
from metering.tables import DAILY_KEYS, HOURLY_KEYS, ROLLUP_SUMS, SERIES_FIELDS, ledger_batch, ledger_series

CHUNK_ROWS = 200_000
CHUNK_BATCHES = 5_000
"""What is held at a time: this many rows and batches, whatever the ledger's size."""

NAMED_MAX = 100
"""Differences that are named, a kind; the rest is counted."""

_PREFIX_LENGTH = len(row_prefix(0))
_SEQ = slice(_PREFIX_LENGTH - 8, _PREFIX_LENGTH)
_IDENTITY = slice(4, 20)
_SERIES = slice(24, 28)
"""Where a tuple has its batch, and what follows the batch its identity and series, each after its length."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was written: a kind, where, and what about it."""

    kind: str
    where: str
    detail: str


@dataclass(slots=True)
class Verification:
    """What was checked, and every difference found (at most `NAMED_MAX` named, a kind; `counts` has them all)."""

    batches: int = 0
    rows: int = 0
    head_seq: int = 0
    head_hash: str = GENESIS.hex()
    differences: list[Difference] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    unnamed: int = 0

    @property
    def clean(self) -> bool:
        return not self.differences

    @property
    def found_so_far(self) -> int:
        return len(self.differences) + self.unnamed

    def found(self, kind: str, where: str, detail: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.counts[kind] <= NAMED_MAX:
            self.differences.append(Difference(kind, where, detail))
        else:
            self.unnamed += 1


Progress = Callable[[int, int], None]


def verify(engine: sa.Engine, progress: Progress = lambda _done, _total: None) -> Verification:
    """Check the whole ledger; `progress` is told rows checked and rows in all. Raises: Unavailable."""
    result = Verification()
    with transaction(engine, snapshot=True) as connection:
        canonical = _check_series(connection, result)
        total = int(connection.scalar(sa.select(sa.func.sum(ledger_batch.c.row_count))) or 0)
        for chunk in _chunks(_check_links(connection, result)):
            _check_rows(connection, chunk, canonical, result)
            _check_sums(connection, chunk, result)
            progress(result.rows, total)
        _check_strays(connection, result)
        _check_rollup(connection, "usage_hourly", "hour", HOURLY_KEYS, result)
        _check_rollup(connection, "usage_daily", "day", DAILY_KEYS, result)
    return result


def _check_series(connection: sa.Connection, result: Verification) -> dict[int, bytes]:
    """Canonical form of every series; each must have the digest it was given."""
    canonical: dict[int, bytes] = {}
    for row in stream_rows(connection, sa.select(ledger_series)):
        canonical[row.number] = canonical_series([row._mapping[name] for name in SERIES_FIELDS])
        if hashlib.sha256(canonical[row.number]).digest() != bytes(row.digest):
            result.found("series_changed", f"series {row.number}", "its attributes don't have its digest")
    return canonical


def _check_links(connection: sa.Connection, result: Verification) -> Iterator[sa.Row[Any]]:
    """Every batch; its hash must follow from the one before and from its header."""
    previous, expected_seq = GENESIS, 1
    for batch in stream_rows(connection, headers_of(ledger_batch)):
        if batch.seq != expected_seq:  # what its hash follows from is gone with the batch that is missing
            result.found("batch_missing", f"batch {expected_seq}", f"the chain goes on with batch {batch.seq}")
        elif link_of(previous, batch) != batch.hash:
            result.found("batch_changed", f"batch {batch.seq}", "its header doesn't have its hash")
        previous, expected_seq = bytes(batch.hash), batch.seq + 1
        result.head_seq, result.head_hash = batch.seq, previous.hex()
        result.batches += 1
        yield batch


def headers_of(table: sa.Table) -> sa.Select[Any]:
    """Headers of a chain's batches in order, with `recorded_at_us` for `link_of`."""
    # As a number, because a time that was tampered with may be one that Python can't hold.
    recorded_at_us = sa.cast(sa.extract("epoch", table.c.recorded_at), sa.Numeric) * 1_000_000
    others = [column for column in table.columns if column.name != "recorded_at"]
    return sa.select(*others, recorded_at_us.label("recorded_at_us")).order_by(table.c.seq)


def link_of(previous: bytes, batch: sa.Row[Any]) -> bytes | None:
    """The hash that a header should have; None if it holds what is no integer."""
    numbers = (batch.recorded_at_us, *(value for value in batch.sums if value is not None))
    if not all(value.is_finite() and value == value.to_integral_value() for value in numbers):
        return None
    sums = [None if value is None else int(value) for value in batch.sums]
    return link(previous, batch.seq, int(batch.recorded_at_us), batch.row_count, sums, bytes(batch.rows_digest))


def stream_rows(connection: sa.Connection, query: sa.Executable) -> Iterator[sa.Row[Any]]:
    """Rows of a query through a cursor of the server's, so that a large result is never held whole."""
    return iter(connection.execute(query, execution_options={"yield_per": 1000}))


def _chunks(batches: Iterable[sa.Row[Any]]) -> Iterator[list[sa.Row[Any]]]:
    chunk: list[sa.Row[Any]] = []
    rows = 0
    for batch in batches:
        if chunk and (rows + batch.row_count > CHUNK_ROWS or len(chunk) == CHUNK_BATCHES):
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
    for seq, row in _read_rows(connection, first, last):
        rows.setdefault(seq, []).append(row)
        result.rows += 1
    for batch in chunk:
        found_before = result.found_so_far
        _compare(batch.seq, rows[batch.seq], fingerprints.get(batch.seq, {}), result)
        used = sorted({int.from_bytes(row[_SERIES], "big") for row in rows[batch.seq]})
        series = [(number, canonical.get(number, b"")) for number in used]
        whole = rows_digest(series, rows[batch.seq]) == bytes(batch.rows_digest)
        if not whole and result.found_so_far == found_before:
            result.found("rows_changed", f"batch {batch.seq}", "its rows and series don't have its digest")
        elif whole and result.found_so_far > found_before:
            result.found("identities_changed", f"batch {batch.seq}", "its rows are sound: the identities were changed")


def _compare(seq: int, rows: list[bytes], recorded: dict[bytes, int], result: Verification) -> None:
    identities = [row[_IDENTITY] for row in rows]
    fingerprints = fingerprints_of(rows).tolist()
    if len(rows) == len(recorded) and dict(zip(identities, fingerprints, strict=True)) == recorded:
        return
    met: set[bytes] = set()
    for identity, fingerprint in zip(identities, fingerprints, strict=True):
        if identity not in recorded:
            result.found("entry_added", _place(seq, identity), "no such identity was recorded in this batch")
        elif identity in met:
            result.found("entry_added", _place(seq, identity), "it stands there twice")
        elif recorded[identity] != fingerprint:
            result.found("entry_changed", _place(seq, identity), "it doesn't have its fingerprint")
        met.add(identity)
    for identity in sorted(recorded.keys() - met):
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


def _read_rows(connection: sa.Connection, first: int, last: int) -> Iterator[tuple[int, bytes]]:
    """Batch and binary tuple after it of the rows of some batches, in the order they were hashed in."""
    columns = ", ".join(ENTRY_COLUMNS)
    query = (
        f"COPY (SELECT {columns} FROM ledger_entry WHERE batch_seq BETWEEN {first} AND {last} "  # noqa: S608 - names of our own
        "ORDER BY batch_seq, identity) TO STDOUT (FORMAT binary)"
    )
    with raw(connection).cursor().copy(query) as copy:
        for message in copy:
            row = bytes(message).removeprefix(COPY_HEADER)
            if row != COPY_TRAILER:
                yield int.from_bytes(row[_SEQ], "big"), row[_PREFIX_LENGTH:]


def _check_strays(connection: sa.Connection, result: Verification) -> None:
    """Rows and identities of batches that don't exist."""
    for table, kind in (("ledger_entry", "entry_added"), ("ledger_identity", "identities_changed")):
        stray = sa.table(table, sa.column("batch_seq"), sa.column("identity"))
        rows = connection.execute(
            sa.select(stray.c.batch_seq, sa.cast(stray.c.identity, sa.Text))
            .where(~sa.exists().where(ledger_batch.c.seq == stray.c.batch_seq))
            .order_by(stray.c.batch_seq, stray.c.identity)
            .limit(NAMED_MAX)
        )
        for seq, identity in rows:
            result.found(kind, f"batch {seq}, entry {identity.replace('-', '')}", "there is no such batch")


def _check_sums(connection: sa.Connection, chunk: list[sa.Row[Any]], result: Verification) -> None:
    """Sums of some batches against their rows."""
    sums = ", ".join(f"sum({name})" for name in QUANTITIES)
    summed = connection.execute(
        sa.text(
            f"SELECT batch_seq, ARRAY[{sums}]::numeric[] AS sums FROM ledger_entry "  # noqa: S608 - names of our own
            "WHERE batch_seq BETWEEN :first AND :last GROUP BY 1"
        ),
        {"first": chunk[0].seq, "last": chunk[-1].seq},
    )
    actual: dict[int, list[Decimal | None]] = {row.batch_seq: row.sums for row in summed}
    for batch in chunk:
        if batch.seq in actual and actual[batch.seq] != batch.sums:
            result.found("sums_differ", f"batch {batch.seq}", "its sums aren't those of its rows")


_SIDES = {
    (True, True): "the cell isn't the sum of its rows",
    (True, False): "the cell sums no rows",
    (False, True): "the cell is missing",
}


def _check_rollup(
    connection: sa.Connection, rollup: str, period: str, keys: tuple[str, ...], result: Verification
) -> None:
    """A rollup against the sums of the rows, cell by cell."""
    cell = ", ".join(f'"{name}"' for name in (period, *keys))
    sums = ", ".join(ROLLUP_SUMS)
    shown = ", ".join(f'"{name}"::text' for name in (period, *keys))
    # What is on both sides cancels out.
    query = sa.text(
        f"""WITH sides ({cell}, {sums}, side) AS (
            SELECT {cell}, {sums}, 1 FROM {rollup} UNION ALL ({_recomputed(period, keys)})
        ), unmatched AS (
            SELECT {cell}, sum(side) AS side FROM sides GROUP BY {cell}, {sums} HAVING sum(side) <> 0
        )
        SELECT {shown}, bool_or(side > 0), bool_or(side < 0) FROM unmatched GROUP BY {cell} ORDER BY {cell}"""  # noqa: S608 - names of our own
    )
    for row in stream_rows(connection, query):
        *place, stored, summed = tuple[Any, ...](row)
        where = ", ".join(f"{name}={value}" for name, value in zip((period, *keys), place, strict=True))
        result.found("rollup_differs", f"{rollup}: {where}", _SIDES[stored, summed])


def _recomputed(period: str, keys: tuple[str, ...]) -> str:
    """Query of the cells that the rows sum to, with -1 for their side."""
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
    ordinals = ", ".join(str(place) for place in range(1, len(keys) + 2))
    return (
        f"SELECT {periods[period]}, {attributes}, {summed}, -1 "  # noqa: S608 - names of our own
        f"FROM ledger_entry e JOIN ledger_series s ON s.number = e.series GROUP BY {ordinals}"
    )

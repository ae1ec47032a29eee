"""Verification of readings and of carbon: chains recomputed, energy conserved, and what differs named."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec
import sqlalchemy as sa

from metering.carbon.chains import batch_digest
from metering.carbon.posting import ENTRY_COLUMNS, METER_COLUMNS, canonical_rows, entry_of_row, meter_of_row
from metering.carbon.readings import READING_COLUMNS, Reading
from metering.database import transaction
from metering.ledger.verify import Verification, headers_of, link_of, stream_rows
from metering.rules.chain import GENESIS
from metering.tables import carbon_batch, carbon_entry, carbon_gpu, energy_batch, energy_reading

_HEADER = ("seq", "recorded_at", "row_count", "sums", "rows_digest", "hash")

# What is live of an hour against what its meters said: what was measured must be somebody's, to the microjoule.
_NOT_CONSERVED = sa.text("""
    SELECT hour, posted.uj, metered.uj
    FROM (SELECT hour, sum(gpu_energy_uj) AS uj FROM carbon_entry WHERE tier IN ('A', 'B') GROUP BY hour) posted
    FULL JOIN (
        SELECT hour, sum(energy_uj) AS uj FROM (
            SELECT DISTINCT ON (hour) hour, seq FROM carbon_batch ORDER BY hour, seq DESC
        ) newest JOIN carbon_gpu USING (hour) WHERE carbon_gpu.batch_seq = newest.seq GROUP BY hour
    ) metered USING (hour)
    WHERE coalesce(posted.uj, 0) <> coalesce(metered.uj, 0) ORDER BY hour
""")


# A batch is of one hour, which its digest covers; its rows say it again.
_ANOTHER_HOUR = sa.text("""
    SELECT DISTINCT seq FROM carbon_batch b
    WHERE EXISTS (SELECT FROM carbon_entry e WHERE e.batch_seq = b.seq AND e.hour <> b.hour)
       OR EXISTS (SELECT FROM carbon_gpu g WHERE g.batch_seq = b.seq AND g.hour <> b.hour)
    ORDER BY seq
""")


def verify_carbon(engine: sa.Engine) -> Verification:
    """Check both chains against their rows, and the energy of every hour. Raises: Unavailable."""
    result = Verification()
    with transaction(engine, snapshot=True) as connection:
        _check_chain(connection, energy_batch, _readings(connection), "readings", result)
        _check_chain(connection, carbon_batch, _entries(connection), "carbon", result)
        for seq in connection.scalars(_ANOTHER_HOUR):
            result.found("carbon_changed", f"batch {seq}", "some of its rows are of another hour")
        for hour, posted_uj, metered_uj in connection.execute(_NOT_CONSERVED):
            detail = f"entries have {posted_uj or 0} µJ, meters {metered_uj or 0} µJ"
            result.found("energy_not_conserved", f"hour {hour:%Y-%m-%d %H:%M} UTC", detail)
    return result


Batches = Iterator[tuple[int, list[bytes]]]
"""Batches that have rows, in order, with their rows in canonical form."""


def _check_chain(connection: sa.Connection, table: sa.Table, batches: Batches, name: str, result: Verification) -> None:
    previous, expected_seq = GENESIS, 1
    rows_of = next(batches, None)
    for batch in stream_rows(connection, headers_of(table)):
        rows: list[bytes] = []
        while rows_of is not None and rows_of[0] <= batch.seq:
            if rows_of[0] == batch.seq:
                rows = rows_of[1]
            else:
                result.found(f"{name}_changed", f"batch {rows_of[0]}", "there is no such batch")
            rows_of = next(batches, None)
        if batch.seq != expected_seq:
            result.found(f"{name}_batch_missing", f"batch {expected_seq}", f"the chain goes on with {batch.seq}")
        elif link_of(previous, batch) != batch.hash:
            result.found(f"{name}_batch_changed", f"batch {batch.seq}", "its header doesn't have its hash")
        said = {column.name: batch._mapping[column.name] for column in table.columns if column.name not in _HEADER}
        if batch_digest(said, rows) != bytes(batch.rows_digest):
            result.found(f"{name}_changed", f"batch {batch.seq}", "its rows don't have its digest")
        previous, expected_seq = bytes(batch.hash), batch.seq + 1
        result.batches += 1
        result.rows += len(rows)
    if rows_of is not None:
        result.found(f"{name}_changed", f"batch {rows_of[0]}", "there is no such batch")


def _readings(connection: sa.Connection) -> Batches:
    columns = [energy_reading.c.batch_seq, *READING_COLUMNS]
    query = sa.select(*columns).order_by(energy_reading.c.batch_seq, energy_reading.c.identity)
    for seq, rows in groupby(stream_rows(connection, query), key=itemgetter(0)):
        yield seq, [msgspec.json.encode(Reading._make(row[1:])) for row in rows]


def _entries(connection: sa.Connection) -> Batches:
    """Entries and meters of each batch: two sorted streams, merged by batch."""
    entries = _grouped(connection, carbon_entry, ENTRY_COLUMNS)
    meters = _grouped(connection, carbon_gpu, METER_COLUMNS)
    entry_rows, meter_rows = next(entries, None), next(meters, None)
    while entry_rows is not None or meter_rows is not None:
        seq = min(one[0] for one in (entry_rows, meter_rows) if one is not None)
        own_entries = entry_rows[1] if entry_rows is not None and entry_rows[0] == seq else []
        own_meters = meter_rows[1] if meter_rows is not None and meter_rows[0] == seq else []
        yield seq, canonical_rows(map(entry_of_row, own_entries), map(meter_of_row, own_meters))
        entry_rows = next(entries, None) if own_entries else entry_rows
        meter_rows = next(meters, None) if own_meters else meter_rows


def _grouped(
    connection: sa.Connection, table: sa.Table, columns: Sequence[sa.Column[Any]]
) -> Iterator[tuple[int, list[Sequence[Any]]]]:
    query = sa.select(table.c.batch_seq, *columns).order_by(table.c.batch_seq)
    for seq, rows in groupby(stream_rows(connection, query), key=itemgetter(0)):
        yield seq, [tuple(row)[1:] for row in rows]

"""Counters from the ledger: built whole when they are lost, and settled batch by batch as entries are recorded.

Both happen under one lock, so that no batch is counted twice, or by nobody: a building has every batch up to its own,
and settling goes on from there.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from metering.catalog.conventions import convention_in_force
from metering.catalog.limits import limits_of
from metering.catalog.snapshot import CatalogReader, Snapshot
from metering.database import transaction
from metering.quotas.calls import Lost, OtherLimits, Seen
from metering.quotas.places import bounds_ms, counted_request, limits_digest, places_of
from metering.quotas.store import CounterStore
from metering.rules.counting import METER_NUMBER, used_amounts
from metering.rules.limits import Request
from metering.rules.periods import PARIS
from metering.rules.quantities import QUANTITIES
from metering.tables import ledger_batch, ledger_entry, ledger_series, quota_cursor, quota_epoch, usage_daily

COUNTERS_LOCK = 0x4A415551  # "JAUQ": one builder or settler at a time
PIECE = 500
"""Counters or rows in one call of the script."""
MINUTE_S = 70
"""How far back a minute's counter looks: seven cells of 10 s."""
BATCHES_MAX = 200
"""Batches settled in one round."""

_WHO = ("project", "user", "api_key", "model", "operation")

MARKS = 1_000_000
"""Marks of a batch: it has fewer rows."""

Spot = tuple[str, bool, int, int]
"""A counter's window: field, is_minute, start (or for a minute the moment) in ms, end in ms."""
Row = tuple[int, str, list[tuple[Any, ...]]]
"""A row to settle: mark, reservation or nothing, and (*Spot, amount)s."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CounterBuilder:
    """Builds and settles the counters of all administrations."""

    engine: sa.Engine
    catalog: CatalogReader
    store: CounterStore

    def build(self, tenant_id: str, seen: Seen, now: datetime, *, is_reset: bool) -> None:
        """Build an administration's counters from the ledger, unless somebody else just did. Raises: Unavailable.

        seen: what the caller knows of them. is_reset: the holds in the store are not believed either.
        """
        with self._alone(), transaction(self.engine, snapshot=True) as connection:
            held = limits_digest(self.catalog.current(), tenant_id, now)
            if self._is_built(tenant_id, (seen[0] + 1, 0, held)):
                return
            epoch = connection.scalar(
                insert(quota_epoch)
                .values(tenant=tenant_id, epoch=1, built_at=now)
                .on_conflict_do_update(
                    index_elements=["tenant"], set_={"epoch": quota_epoch.c.epoch + 1, "built_at": now}
                )
                .returning(quota_epoch.c.epoch)
            )
            assert epoch is not None
            batch = last_batch(connection)
            # Settling goes on from the first counters that were ever built.
            connection.execute(insert(quota_cursor).values(batch=batch).on_conflict_do_nothing())
            spots = [*self._periods(connection, tenant_id, now), *self._minutes(connection, tenant_id, now)]
            pieces = [spots[at : at + PIECE] for at in range(0, len(spots), PIECE)] or [[]]
            for number, piece in enumerate(pieces):
                is_first, is_last = number == 0, number == len(pieces) - 1
                self.store.call(tenant_id, "build", epoch, _mark(batch), held, is_first, is_last, is_reset, piece)
        log.info("counters_built", tenant=tenant_id, epoch=epoch, batch=batch, counters=len(spots))

    def settle(self, after: int, now: datetime) -> int:
        """Count the entries of the batches after `after`; returns the last batch counted. Raises: Unavailable."""
        with self._alone(), transaction(self.engine, snapshot=True) as connection:
            last = min(last_batch(connection), after + BATCHES_MAX)
            if last <= after:
                return after
            entries = connection.execute(_entries(after, last)).mappings()
            for tenant_id, rows in groupby(entries, key=itemgetter("tenant")):
                self._settle_tenant(tenant_id, last, self._counted(list(rows), now))
        return last

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A lock of its own transaction: what is read under it begins after it is had."""
        with transaction(self.engine) as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(COUNTERS_LOCK)))
            yield

    def _is_built(self, tenant_id: str, wanted: Seen) -> bool:
        try:
            self.store.call(tenant_id, "look", wanted)
        except (Lost, OtherLimits):
            return False
        return True

    def _settle_tenant(self, tenant_id: str, last: int, rows: Sequence[Row]) -> None:
        """In pieces, each with the mark of what is then counted: one that is sent again counts nothing twice."""
        try:
            for at in range(0, len(rows), PIECE):
                piece = rows[at : at + PIECE]
                self.store.call(tenant_id, "settle", piece[-1][0], piece)
            self.store.call(tenant_id, "settle", _mark(last), [])
        except Lost:
            log.debug("counters_not_there", tenant=tenant_id)  # built when somebody asks for them

    def _counted(self, entries: Sequence[Mapping[Any, Any]], now: datetime) -> list[Row]:
        """Rows of the script for one administration's entries: those of a reservation each, the others by batch."""
        rows: list[Row] = []
        for batch, members in groupby(entries, key=itemgetter("batch_seq")):
            together: dict[Spot, int] = defaultdict(int)
            mark = batch * MARKS
            for entry in members:
                spots = self._spots(entry, now)
                if entry["reservation"]:
                    mark += 1
                    rows.append((mark, entry["reservation"], [(*spot, amount) for spot, amount in spots]))
                else:
                    for spot, amount in spots:
                        together[spot] += amount
            if together:
                rows.append((mark + 1, "", [(*spot, amount) for spot, amount in together.items()]))
        return rows

    def _spots(self, entry: Mapping[Any, Any], now: datetime) -> list[tuple[Spot, int]]:
        """What an entry adds to which counters: in the windows of its own time, under the limits of now."""
        moment: datetime = entry["occurred_at"]
        snapshot = self.catalog.current()
        request = counted_request(snapshot, _request_of(entry["tenant"], entry), now)
        amounts = used_amounts(entry, entry["operation"])
        moment_ms = int(moment.timestamp() * 1000)
        return [
            ((place.field, place.is_minute, moment_ms if place.is_minute else place.start_ms, place.end_ms), amount)
            for place in places_of(snapshot, request, now, moment=moment)
            if (amount := amounts.get(METER_NUMBER[place.limit.meter]))
        ]

    def _periods(self, connection: sa.Connection, tenant_id: str, now: datetime) -> Iterator[tuple[Any, ...]]:
        """What the daily sums hold for the windows that are open now."""
        snapshot = self.catalog.current()
        query = sa.select(*(usage_daily.c[name] for name in ("day", *_WHO, *QUANTITIES)))
        query = query.where(usage_daily.c.tenant == tenant_id)
        if (first := _first_day(snapshot, tenant_id, now)) is not None:
            query = query.where(usage_daily.c.day >= first)
        sums: dict[Spot, int] = defaultdict(int)
        for row in connection.execute(query).mappings():
            request = counted_request(snapshot, _request_of(tenant_id, row), now)
            amounts = used_amounts(row, row["operation"])
            start_ms, end_ms = bounds_ms("day", row["day"], None)
            for place in places_of(snapshot, request, now):
                if not place.is_minute and place.start_ms <= start_ms and (not place.end_ms or end_ms <= place.end_ms):
                    amount = int(amounts.get(METER_NUMBER[place.limit.meter], 0))
                    sums[place.field, False, place.start_ms, place.end_ms] += amount
        return ((*spot, amount) for spot, amount in sums.items())

    def _minutes(self, connection: sa.Connection, tenant_id: str, now: datetime) -> Iterator[tuple[Any, ...]]:
        """What the entries of the last minute hold."""
        sums: dict[Spot, int] = defaultdict(int)
        recent = _rows().where(
            ledger_entry.c.occurred_at > now - timedelta(seconds=MINUTE_S), ledger_series.c.tenant == tenant_id
        )
        for entry in connection.execute(recent).mappings():
            for spot, amount in self._spots(entry, now):
                if spot[1]:
                    sums[spot] += amount
        return ((*spot, amount) for spot, amount in sums.items())


def last_batch(connection: sa.Connection) -> int:
    """Number of the ledger's newest batch; 0 while it is empty."""
    return connection.scalar(sa.select(sa.func.coalesce(sa.func.max(ledger_batch.c.seq), 0))) or 0


def _rows() -> sa.Select[Any]:
    return sa.select(
        ledger_series.c.tenant,
        ledger_entry.c.batch_seq,
        ledger_entry.c.occurred_at,
        ledger_entry.c.reservation,
        ledger_series.c.project,
        ledger_series.c.user,
        ledger_series.c.api_key,
        sa.func.coalesce(ledger_series.c.model_served, ledger_series.c.model_requested).label("model"),
        ledger_series.c.operation,
        *(ledger_entry.c[name] for name in QUANTITIES),
    ).join(ledger_series, ledger_series.c.number == ledger_entry.c.series)


def _entries(after: int, last: int) -> sa.Select[Any]:
    """Entries of some batches, in an order that is the same every time."""
    query = _rows().where(ledger_entry.c.batch_seq > after, ledger_entry.c.batch_seq <= last)
    return query.order_by(ledger_series.c.tenant, ledger_entry.c.batch_seq, ledger_entry.c.identity)


def _request_of(tenant_id: str, row: Mapping[Any, Any]) -> Request:
    return Request(tenant_id, row["project"], row["user"], row["api_key"], row["model"], operation=row["operation"])


def _first_day(snapshot: Snapshot, tenant_id: str, now: datetime) -> date | None:
    """First day that an open window reaches back to; None where there is none: a credit never begins anew."""
    if any(limit.window == "credit" for limit in limits_of(snapshot, tenant_id, now)):
        return None
    today = now.astimezone(PARIS).date()
    convention = convention_in_force(snapshot, tenant_id, today)
    return min(today.replace(day=1), convention.starts_on if convention else today)


def _mark(batch: int) -> int:
    """What is counted once a batch is, whole."""
    return batch * MARKS + MARKS - 1

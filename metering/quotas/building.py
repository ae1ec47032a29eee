"""Counters from the ledger: built whole when they are lost, and settled batch by batch as entries are recorded.

Both happen under one lock, so that no batch is counted twice, or by nobody: a building has every batch up to its own,
and settling goes on from there. Every call says where it belongs (a mark, a piece), so that one which is sent again,
or comes too late, counts nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain, count, groupby, islice
from operator import itemgetter
from threading import Lock
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from metering.catalog.conventions import convention_in_force
from metering.catalog.documents import YEAR_MIN
from metering.catalog.limits import limits_of
from metering.catalog.snapshot import CatalogReader, Snapshot
from metering.database import transaction
from metering.errors import Unavailable
from metering.quotas.announcing import announce_thresholds, is_watched
from metering.quotas.calls import Lost, Place, Seen
from metering.quotas.places import bounds_ms, counted_request, is_rated, limits_digest, places_of
from metering.quotas.rates import rate_days, rates_of
from metering.quotas.store import CounterStore
from metering.rules.counting import BILLABLE_REQUESTS, METER_NUMBER, RATED_METERS, rated_amounts, used_amounts
from metering.rules.limits import Request
from metering.rules.periods import PARIS
from metering.rules.quantities import QUANTITIES, QUANTITY_MAX
from metering.tables import ledger_batch, ledger_entry, ledger_series, quota_cursor, quota_epoch, usage_daily

COUNTERS_LOCK = 0x4A415551  # "JAUQ": one builder or settler at a time
PIECE = 500
"""Counters, holds or reservations in one call of the script, more or less: others wait while it runs."""
ENTRIES = 100
"""Entries that are counted together, all or none."""
MINUTE_S = 70
"""How far back a minute's counter looks: seven cells of 10 s."""
ROUND_ROWS = 20_000
"""Rows of batches settled in one round; one batch may have more."""
RECENT_S = 600
RECENT_MAX = 50_000
"""Reservations that new counters know as settled: those whose commit may still be under way."""

NOT_BILLED = ("error", "refused")
"""Statuses of requests that prices by request aren't for."""

_WHO = ("project", "user", "api_key", "model", "operation")

MARKS = 1_000_000
"""Marks of a batch: it has fewer rows."""

Spot = tuple[str, bool, int, int]
"""A counter's window: field, is_minute, start (or for a minute the moment) in ms, end in ms."""
Standing = tuple[Place, int]
"""A counter, and an amount of it."""
Row = tuple[int, str, int, list[tuple[Any, ...]]]
"""A row to settle: mark, reservation or nothing, when (ms), and (*Spot, amount)s."""
T = TypeVar("T")

_turn = Lock()
"""Who waits for the database's lock has a connection, and who has the lock needs another: one of a process waits."""
TURN_WAIT_S = 10

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
        self.catalog.refresh()
        with self._alone():
            there = self._look(tenant_id)
            built_for = limits_digest(self.catalog.current(), tenant_id, now)
            if there.epoch > seen[0] and there.limits == built_for:
                return
            epoch = self._next_epoch(tenant_id, max(seen[0], there.epoch), now)
            try:
                with transaction(self.engine, snapshot=True) as connection:
                    self._build(connection, tenant_id, epoch, there, now, built_for, is_reset=is_reset)
            except Lost as error:
                raise Unavailable("counters_unavailable", "The counters are being built.", retry_after_s=1) from error

    def settle(self, after: int, now: datetime) -> int:
        """Count the entries of the batches after `after`; returns the last batch counted. Raises: Unavailable."""
        with self._alone(), transaction(self.engine, snapshot=True) as connection:
            # Whoever built counters may have known limits and prices that this process doesn't yet.
            self.catalog.refresh()
            last = _last_of_round(connection, after)
            if last <= after:
                return after
            marks = dict(connection.execute(sa.select(quota_epoch.c.tenant, quota_epoch.c.mark)).all())
            entries = _read(connection, _entries(after, last))
            for tenant_id, rows in groupby(entries, key=itemgetter("tenant")):
                try:
                    standings = self._settle_tenant(tenant_id, marks.get(tenant_id, 0), last, rows, now)
                except Lost:
                    log.debug("counters_not_there", tenant=tenant_id)  # built when somebody asks for them
                else:
                    _remember_mark(connection, tenant_id, last)
                    announce_thresholds(connection, tenant_id, standings)
        return last

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A lock of its own transaction: what is read under it begins after it is had. Raises: Unavailable."""
        if not _turn.acquire(timeout=TURN_WAIT_S):
            raise Unavailable("counters_unavailable", "The counters are being built.", retry_after_s=1)
        try:
            with transaction(self.engine) as connection:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(COUNTERS_LOCK)))
                yield
        finally:
            _turn.release()

    def _look(self, tenant_id: str) -> "_There":
        try:
            reply = self.store.call(tenant_id, "look")
        except Lost as lost:
            return _There(lost.now)
        return _There(reply.now, reply.epoch, *reply.figures)

    def _next_epoch(self, tenant_id: str, seen: int, now: datetime) -> int:
        """A number that no counters have had, whatever becomes of these."""
        begun = insert(quota_epoch).values(tenant=tenant_id, epoch=seen + 1, built_at=now)
        begun = begun.on_conflict_do_update(
            index_elements=["tenant"],
            set_={"epoch": sa.func.greatest(quota_epoch.c.epoch, seen) + 1, "built_at": now},
        )
        with transaction(self.engine) as connection:
            epoch: int = connection.execute(begun.returning(quota_epoch.c.epoch)).scalar_one()
            return epoch

    def _build(
        self, connection: sa.Connection, tenant_id: str, epoch: int, there: "_There", now: datetime, built_for: int,
        *, is_reset: bool,
    ) -> None:  # fmt: skip
        """Raises: Lost, where another building has outrun this one."""
        batch = last_batch(connection)
        # Settling goes on from the first counters that were ever built.
        connection.execute(insert(quota_cursor).values(batch=batch).on_conflict_do_nothing())
        is_reset = is_reset or not there.epoch
        reservations: list[str] = []
        if is_reset:
            reservations = _recent_reservations(connection, tenant_id)
        else:
            # What the sums have already must not be in holds as well.
            entries = entries_since(connection, there.mark, tenant_id)
            self._settle_tenant(tenant_id, 0, batch, entries, now)
        periods = self.periods(connection, tenant_id, now, there.now)
        spots = [
            *_with_amounts((_spot(place, 0), amount) for place, amount in periods),
            *self._minutes(connection, tenant_id, now, there.now),
        ]
        self.store.call(
            tenant_id, "begin", epoch, _mark(batch), is_reset, is_reset and _was_built(connection, tenant_id)
        )
        pieces = count(1)
        for some in _chunks(spots, PIECE):
            self.store.call(tenant_id, "build", epoch, next(pieces), some, [])
        for known in _chunks(reservations, PIECE):
            self.store.call(tenant_id, "build", epoch, next(pieces), [], known)
        for first in count(0, PIECE):
            if self.store.call(tenant_id, "adopt", epoch, next(pieces), built_for, first, PIECE).granted:
                break
        _remember_mark(connection, tenant_id, batch)
        announce_thresholds(connection, tenant_id, [one for one in periods if is_watched(one[0], now)])
        log.info("counters_built", tenant=tenant_id, epoch=epoch, batch=batch, counters=len(spots))

    def _settle_tenant(
        self, tenant_id: str, counted: int, last: int, entries: Iterable[Mapping[Any, Any]], now: datetime
    ) -> list[Standing]:
        """Count one administration's entries, in counters that have all up to the mark `counted`. Raises: Lost.

        Returns where those counters then stand that somebody is told of.
        """
        rows: list[Row] = []
        watched: dict[str, Place] = {}
        for mark, some in marked(entries):
            rows += self._counted(mark, some, now, watched)
            if sum(len(row[3]) + 1 for row in rows) >= PIECE:
                self.store.call(tenant_id, "settle", counted, rows[-1][0], rows, [])
                rows = []
        first, *others = [*_chunks(watched, PIECE)] or [[]]
        replies = [self.store.call(tenant_id, "settle", counted, _mark(last), rows, first)]
        replies += [self.store.call(tenant_id, "settle", counted, _mark(last), [], fields) for fields in others]
        figures = chain.from_iterable(reply.figures for reply in replies)
        starts_and_used = zip(*[figures] * 2, strict=True)
        # Where the store's clock is in another window, nothing is known of the one that is meant.
        return [
            (place, used)
            for place, (start_ms, used) in zip(watched.values(), starts_and_used, strict=True)
            if start_ms == place.start_ms
        ]

    def _counted(
        self, mark: int, entries: Sequence[Mapping[Any, Any]], now: datetime, watched: dict[str, Place]
    ) -> list[Row]:
        """Rows of the script for some entries: those of a reservation each, the others together.

        watched: is given the counters that are met and that somebody is told of.
        """
        rows: list[Row] = []
        together: dict[Spot, int] = defaultdict(int)
        for entry in entries:
            moment_ms, met = self.met(entry, now)
            watched.update((place.field, place) for place, _amount in met if is_watched(place, now))
            spots = [(_spot(place, moment_ms), amount) for place, amount in met]
            if entry["reservation"]:
                rows.append((mark, entry["reservation"], _ms(entry["occurred_at"]), _with_amounts(spots)))
            else:
                for spot, amount in spots:
                    together[spot] += amount
        if together:
            rows.append((mark, "", 0, _with_amounts(together.items())))
        return rows

    def met(self, entry: Mapping[Any, Any], now: datetime) -> tuple[int, list[Standing]]:
        """When an entry counts (ms), and what it adds to which counters, in the windows of that time."""
        # Gateways may be some minutes ahead: a window that isn't open yet would close the one that is.
        moment = min(entry["occurred_at"], now)
        snapshot = self.catalog.current()
        request = counted_request(snapshot, _request_of(entry["tenant"], entry), now)
        places = places_of(snapshot, request, now, moment=moment)
        day = entry["occurred_at"].astimezone(PARIS).date()
        amounts = _amounts(snapshot, request, entry, day, places)
        return _ms(moment), [
            (place, amount) for place in places if (amount := amounts.get(METER_NUMBER[place.limit.meter]))
        ]

    def periods(self, connection: sa.Connection, tenant_id: str, now: datetime, clock: datetime) -> list[Standing]:
        """What the daily sums hold for the windows that are open on the store's clock."""
        snapshot = self.catalog.current()
        sums: dict[str, int] = defaultdict(int)
        places: dict[str, Place] = {}
        for row in _read(connection, _sums(tenant_id, _stretches(snapshot, tenant_id, now, clock))):
            request = counted_request(snapshot, _request_of(tenant_id, row), now)
            since_ms = bounds_ms("day", row["since"], None)[0] if row["since"] else 0
            met = places_of(snapshot, request, now, moment=clock)
            amounts = _amounts(snapshot, request, row, row["since"] or date(YEAR_MIN, 1, 1), met)
            for place in met:
                amount = amounts.get(METER_NUMBER[place.limit.meter])
                if amount and not place.is_minute and place.start_ms <= since_ms:
                    places[place.field] = place
                    sums[place.field] += int(amount)
        return [(place, sums[field]) for field, place in places.items()]

    def _minutes(
        self, connection: sa.Connection, tenant_id: str, now: datetime, clock: datetime
    ) -> Iterator[tuple[Any, ...]]:
        """What the entries of the last minute hold."""
        sums: dict[Spot, int] = defaultdict(int)
        recent = counted_rows().where(
            ledger_entry.c.occurred_at > clock - timedelta(seconds=MINUTE_S), ledger_series.c.tenant == tenant_id
        )
        for entry in connection.execute(recent).mappings():
            moment_ms, met = self.met(entry, now)
            for place, amount in met:
                if place.is_minute:
                    sums[_spot(place, moment_ms)] += amount
        yield from _with_amounts(sums.items())


@dataclass(frozen=True, slots=True)
class _There:
    """What the store has of an administration, by its clock; epoch 0: nothing."""

    now: datetime
    epoch: int = 0
    mark: int = 0
    limits: int = 0


def marked(entries: Iterable[Mapping[Any, Any]]) -> Iterator[tuple[int, list[Mapping[Any, Any]]]]:
    """Entries as they are counted, all of a mark or none; cut at the same places every time."""
    for batch, members in groupby(entries, key=itemgetter("batch_seq")):
        for number, some in enumerate(_chunks(members, ENTRIES), start=1):
            yield batch * MARKS + number, some


def entries_since(connection: sa.Connection, mark: int, tenant_id: str) -> Iterator[Mapping[Any, Any]]:
    """An administration's entries of the batch that a mark is in, and of all after it."""
    return _read(connection, _entries(mark // MARKS - 1, last_batch(connection), tenant_id))


def last_batch(connection: sa.Connection) -> int:
    """Number of the ledger's newest batch; 0 while it is empty."""
    return connection.scalar(sa.select(sa.func.coalesce(sa.func.max(ledger_batch.c.seq), 0))) or 0


def _last_of_round(connection: sa.Connection, after: int) -> int:
    """The last of the next batches that are settled together; `after` where there is none."""
    rows_so_far = sa.func.sum(ledger_batch.c.row_count).over(order_by=ledger_batch.c.seq)
    some = (
        sa.select(ledger_batch.c.seq, rows_so_far.label("rows"), ledger_batch.c.row_count)
        .where(ledger_batch.c.seq > after)
        .order_by(ledger_batch.c.seq)
        .limit(ROUND_ROWS)
        .subquery()
    )
    fitting = sa.select(sa.func.max(some.c.seq)).where(some.c.rows - some.c.row_count < ROUND_ROWS)
    return connection.scalar(fitting) or after


def _was_built(connection: sa.Connection, tenant_id: str) -> bool:
    """Whether an administration has had counters, which then may have had holds."""
    mark = connection.scalar(sa.select(quota_epoch.c.mark).where(quota_epoch.c.tenant == tenant_id))
    return bool(mark)


def _remember_mark(connection: sa.Connection, tenant_id: str, batch: int) -> None:
    """Counters that come back with less are an older copy."""
    connection.execute(quota_epoch.update().where(quota_epoch.c.tenant == tenant_id).values(mark=_mark(batch)))


def _read(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Mapping[Any, Any]]:
    """Rows as they come, so that however many there are, few are in memory."""
    return iter(connection.execute(query, execution_options={"yield_per": 1_000}).mappings())


def counted_rows() -> sa.Select[Any]:
    """Entries with who and what. A request that was refused hasn't used any of what limits requests."""
    requests = sa.case((ledger_series.c.status == "refused", 0), else_=ledger_entry.c.requests)
    billable = sa.case((ledger_series.c.status.in_(NOT_BILLED), 0), else_=ledger_entry.c.requests)
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
        requests.label("requests"),
        billable.label(BILLABLE_REQUESTS),
        *(ledger_entry.c[name] for name in QUANTITIES if name != "requests"),
    ).join(ledger_series, ledger_series.c.number == ledger_entry.c.series)


def _entries(after: int, last: int, tenant_id: str | None = None) -> sa.Select[Any]:
    """Entries of some batches, in an order that is the same every time."""
    query = counted_rows().where(ledger_entry.c.batch_seq > after, ledger_entry.c.batch_seq <= last)
    if tenant_id is not None:
        query = query.where(ledger_series.c.tenant == tenant_id)
    return query.order_by(ledger_series.c.tenant, ledger_entry.c.batch_seq, ledger_entry.c.identity)


def _recent_reservations(connection: sa.Connection, tenant_id: str) -> list[str]:
    """Reservations of the entries that were recorded last."""
    recent = sa.select(sa.func.min(ledger_batch.c.seq)).where(
        ledger_batch.c.recorded_at > sa.func.now() - timedelta(seconds=RECENT_S)
    )
    query = (
        sa.select(ledger_entry.c.reservation)
        .join(ledger_series, ledger_series.c.number == ledger_entry.c.series)
        .where(
            ledger_entry.c.batch_seq >= recent.scalar_subquery(),
            ledger_entry.c.reservation.is_not(None),
            ledger_series.c.tenant == tenant_id,
        )
    )
    return list(connection.scalars(query.order_by(ledger_entry.c.batch_seq.desc()).limit(RECENT_MAX)))


def _amounts(
    snapshot: Snapshot, request: Request, row: Mapping[Any, Any], day: date, places: Sequence[Place]
) -> Mapping[int, int]:
    """Amounts by number of meter of an entry or a sum of entries, at the rates of a day where a counter needs them."""
    amounts = used_amounts(row, row["operation"])
    if any(map(is_rated, places)):
        amounts |= rated_amounts(row, rates_of(snapshot, request, day))
    return amounts


def _stretches(snapshot: Snapshot, tenant_id: str, now: datetime, clock: datetime) -> list[date | None]:
    """First days of the stretches that open windows are made of, the latest first; None: from the beginning on.

    A credit never begins anew. Within a stretch all uses of a kind count at the same rates.
    """
    today = clock.astimezone(PARIS).date()
    convention = convention_in_force(snapshot, tenant_id, today)
    starts = {today, today.replace(day=1), convention.starts_on if convention else today}
    limits = limits_of(snapshot, tenant_id, now)
    has_credit = any(limit.window == "credit" for limit in limits)
    if any(limit.meter in RATED_METERS for limit in limits):
        first = date.min if has_credit else min(starts)
        # An event may be a little ahead of the clock, and so in tomorrow.
        starts |= {day for day in rate_days(snapshot, tenant_id, today + timedelta(days=2)) if day > first}
    return [*sorted(starts, reverse=True), *([None] if has_credit else [])]


def _sums(tenant_id: str, stretches: Sequence[date | None]) -> sa.Select[Any]:
    """The daily sums by stretch (`since`: its first day) and by who and what; what is ahead is in the latest."""
    days = [start for start in stretches if start is not None]
    since = sa.case(*((usage_daily.c.day >= start, sa.cast(start, sa.Date)) for start in days)).label("since")
    who = [usage_daily.c[name] for name in _WHO]
    run = usage_daily.c.requests - sa.func.coalesce(usage_daily.c.requests_refused, 0)
    billable = run - sa.func.coalesce(usage_daily.c.requests_error, 0)
    query = sa.select(
        since, *who, sa.func.sum(run).label("requests"), sa.func.sum(billable).label(BILLABLE_REQUESTS),
        *(sa.func.sum(usage_daily.c[name]).label(name) for name in QUANTITIES if name != "requests"),
    ).where(usage_daily.c.tenant == tenant_id)  # fmt: skip
    if None not in stretches:
        query = query.where(usage_daily.c.day >= days[-1])
    return query.group_by(sa.text("since"), *who)


def _request_of(tenant_id: str, row: Mapping[Any, Any]) -> Request:
    return Request(tenant_id, row["project"], row["user"], row["api_key"], row["model"], operation=row["operation"])


def _spot(place: Place, moment_ms: int) -> Spot:
    return place.field, place.is_minute, moment_ms if place.is_minute else place.start_ms, place.end_ms


def _mark(batch: int) -> int:
    """What is counted once a batch is, whole."""
    return batch * MARKS + MARKS - 1


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _with_amounts(spots: Iterable[tuple[Spot, int]]) -> list[tuple[Any, ...]]:
    """(*Spot, amount)s; the script's numbers are exact up to QUANTITY_MAX, where limits end."""
    return [(*spot, max(-QUANTITY_MAX, min(amount, QUANTITY_MAX))) for spot, amount in spots]


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some

"""The journal: requests one by one, the newest first, without any content.

A page begins where the one before ended, at a place in the order (instant, batch, identity): what arrives meanwhile
moves nothing. Entries have no index by time, which would cost every event more than all pages cost; the rollups tell in
which hours or days a reader's requests are, and only those are read, by block ranges of their month's partition.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.errors import Unprocessable
from metering.rules.carbon.apportioning import rounded
from metering.rules.periods import PARIS, day_bounds
from metering.rules.quantities import FAILURES, QUANTITIES, net
from metering.tables import (
    CARBON_KEYS,
    DAILY_KEYS,
    HOURLY_KEYS,
    carbon_entry,
    ledger_entry,
    ledger_series,
    tenant,
    usage_daily,
    usage_hourly,
)
from reports.usage import UsageQuestion

State = Literal["recorded", "corrected", "void"]
"""How an event stands: as it came, with other quantities since, or counting for nothing."""

EVENT, VOID = 0, 2
"""Kinds of entries, see `tables.ledger_entry`."""

CURSOR_PATTERN = "^[0-9]{1,16}:[0-9]{1,18}:[0-9a-f]{32}$"

NEAR = timedelta(days=3)
"""How far back rollups are looked at first: most pages are full by then."""
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_cursor = re.compile(CURSOR_PATTERN)


class Place(NamedTuple):
    """A place in the order of requests. identity: of (source, id), see `rules.chain`, in hexadecimal."""

    at: datetime
    batch: int
    identity: str


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A request as it counts now, with who made it and how it ended; quantities are those of `QUANTITIES`, net.

    model: the one that answered, or else the one asked for. uncounted: part of its use is unknown. carbon_ng: mean of
    the requests of its key, model and hour of which emissions are posted; None where none are.
    """

    place: Place
    source: str
    event: str
    started_at: datetime
    ended_at: datetime
    first_token_at: datetime | None
    tenant: str
    project: str | None
    user: str | None
    api_key: str | None
    application: str | None
    operation: str
    endpoint: str | None
    model: str
    model_requested: str
    deployment: str | None
    streamed: bool
    status: str
    http_status: int | None
    finish_reason: str | None
    error_code: str | None
    quantities: Mapping[str, int | None]
    uncounted: bool
    state: State = "recorded"
    carbon_ng: int | None = None

    @property
    def id(self) -> str:
        """What its own page is called by."""
        return self.place.identity


def written(place: Place) -> str:
    """A place as `next_cursor` tells it."""
    return f"{(place.at - EPOCH) // MICROSECOND}:{place.batch}:{place.identity}"


def read_cursor(text: str | None) -> Place | None:
    """A place that `written` wrote; none at the beginning. Raises: Unprocessable."""
    if not text:
        return None
    if not _cursor.fullmatch(text):
        raise Unprocessable("invalid_cursor", "No page begins there.", field="cursor", expected="next_cursor of a page")
    at_us, batch, identity = text.split(":")
    return Place(EPOCH + int(at_us) * MICROSECOND, int(batch), identity)


def read_journal(
    connection: sa.Connection, question: UsageQuestion, *, after: Place | None = None, limit: int = 50
) -> list[LoggedRequest]:
    """Up to `limit` requests of a period after a place, the newest first, as they count now.

    question: its filters are those of usage, and `status`.
    """
    end = question.end if after is None else min(question.end, after.at + MICROSECOND)
    own = _series_of(connection, question)
    rows: list[sa.RowMapping] = []
    if own is None or own:
        # A day by block ranges is never dearer than its month, but the planner can't know how well they fit.
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        for stretch in _stretches(connection, replace(question, end=end), limit):
            query = _entries_of(connection, question, own, stretch, after).limit(limit - len(rows))
            rows += connection.execute(query).mappings()
            if len(rows) == limit:
                break
    return as_they_count(connection, named(connection, rows))


def as_they_count(connection: sa.Connection, found: Sequence[LoggedRequest]) -> list[LoggedRequest]:
    """Requests with what corrected them, and the emissions that are posted."""
    corrected = _with_corrections(connection, found)
    means = _carbon_means(connection, found)
    return [replace(one, carbon_ng=means.get(_carbon_key(one))) for one in corrected]


Stretch = tuple[datetime, datetime]
"""From an instant to another, exclusive."""


def _stretches(connection: sa.Connection, question: UsageQuestion, wanted: int) -> Iterator[Stretch]:
    """Stretches of time that hold what is asked for, the newest first; each fills a page, or is alone among others.

    A request that was made void counts for nothing in the rollups, so what they promise may be less than there is, and
    never leaves any out.
    """
    near = max(question.start, question.end - NEAR)
    for start, end in ((near, question.end), (question.start, near)):
        stretch, promised = None, 0
        periods = _periods(connection, replace(question, start=start, end=end)) if start < end else ()
        for (first, last), requests in periods:
            clipped = (max(first, start), min(last, end))
            if stretch is not None and stretch[0] != clipped[1]:
                yield stretch
                stretch = None
            stretch = (clipped[0], clipped[1] if stretch is None else stretch[1])
            # A period that is cut holds less than the rollup says.
            promised += requests if clipped == (first, last) else 0
            if promised >= wanted:
                yield stretch
                stretch, promised = None, 0
        if stretch is not None:
            yield stretch


def _periods(connection: sa.Connection, question: UsageQuestion) -> Iterable[tuple[Stretch, int]]:
    """Hours or days in which there are requests of a question, the newest first, and how many count."""
    used = {name for name in question.filters if name != "status"}
    is_hourly = used <= set(HOURLY_KEYS)
    rollup = usage_hourly if is_hourly else usage_daily
    moment = rollup.c.hour if is_hourly else rollup.c.day
    assert used <= set(DAILY_KEYS)
    conditions: list[sa.ColumnElement[bool]] = [rollup.c[name].in_(question.filters[name]) for name in used]
    if is_hourly:
        conditions += [moment > question.start - HOUR, moment < question.end]
    else:
        last = (question.end - MICROSECOND).astimezone(PARIS).date()
        conditions += [moment >= question.start.astimezone(PARIS).date(), moment <= last]
    count = _counted(rollup, question.filters.get("status", ()))
    query = sa.select(moment, sa.func.coalesce(sa.func.sum(count), 0)).where(*conditions, count.is_not(None))
    for period, requests in connection.execute(query.group_by(moment).order_by(moment.desc())):
        yield (period, period + HOUR) if is_hourly else day_bounds(period), int(requests)


def _counted(rollup: sa.Table, statuses: Sequence[str]) -> sa.ColumnElement[Any]:
    """Requests of a rollup's row that ended so; null where it never had any."""
    if not statuses or "ok" in statuses:
        # What remains was ok; that nothing remains doesn't say that there never was any.
        return sa.func.coalesce(rollup.c.requests, 0) if not statuses else sa.func.greatest(_ok(rollup), 0)
    columns = [rollup.c[f"requests_{status}"] for status in statuses if status in FAILURES]
    known = sa.func.coalesce(*columns, sa.null())
    return sa.case((known.is_not(None), sum((sa.func.coalesce(one, 0) for one in columns), sa.literal(0))))


def _ok(rollup: sa.Table) -> sa.ColumnElement[Any]:
    failed = [sa.func.coalesce(rollup.c[f"requests_{status}"], 0) for status in FAILURES]
    return sa.func.coalesce(rollup.c.requests, 0) - sum(failed, sa.literal(0))


ENTRY_SHOWN = (
    "occurred_at", "batch_seq", "identity", "series", "event_id", "ended_at", "first_token_at", "uncounted_requests",
    *QUANTITIES,
)  # fmt: skip
SERIES_SHOWN = (
    "source", "tenant", "project", "user", "api_key", "application", "operation", "endpoint", "model_requested",
    "deployment", "streamed", "status", "http_status", "finish_reason", "error_code",
)  # fmt: skip
ORDER = (ledger_entry.c.occurred_at, ledger_entry.c.batch_seq, ledger_entry.c.identity)


def entries() -> sa.Select[Any]:
    """The events' entries: what `named` needs of them."""
    return sa.select(*(ledger_entry.c[name] for name in ENTRY_SHOWN)).where(ledger_entry.c.kind == EVENT)


def _series_of(connection: sa.Connection, question: UsageQuestion) -> list[int] | None:
    """Numbers of the series that the filters let through; None for all, or all of some administrations."""
    if set(question.filters) <= {"tenant"}:
        return None
    series = ledger_series.c
    model = sa.func.coalesce(series.model_served, series.model_requested)
    columns = {name: model if name == "model" else series[name] for name in question.filters}
    query = sa.select(series.number).where(*(columns[name].in_(values) for name, values in question.filters.items()))
    return list(connection.scalars(query))


def _entries_of(
    connection: sa.Connection, question: UsageQuestion, own: list[int] | None, stretch: Stretch, after: Place | None
) -> sa.Select[Any]:
    """Entries of a stretch, the newest first. Their series aren't joined: a plan could begin with those."""
    entry = ledger_entry.c
    query = entries().where(entry.occurred_at >= stretch[0], entry.occurred_at < stretch[1])
    if own is not None:
        query = query.where(entry.series == sa.any_(sa.cast(own, pg.ARRAY(sa.Integer))))
    elif "tenant" in question.filters:
        numbers = sa.select(tenant.c.number).where(tenant.c.id.in_(question.filters["tenant"]))
        query = query.where(entry.tenant.in_(connection.scalars(numbers).all()))
    if after is not None:
        query = query.where(sa.tuple_(*ORDER) < sa.tuple_(after.at, after.batch, sa.cast(after.identity, sa.UUID)))
    return query.order_by(*(one.desc() for one in ORDER))


def named(connection: sa.Connection, rows: Sequence[sa.RowMapping]) -> list[LoggedRequest]:
    """Requests of entries as they were recorded, with what their series say."""
    series = ledger_series.c
    model = sa.func.coalesce(series.model_served, series.model_requested).label("model")
    query = sa.select(series.number, model, *(series[name] for name in SERIES_SHOWN))
    chosen = query.where(series.number.in_({row["series"] for row in rows}))
    by_number = {one["number"]: one for one in connection.execute(chosen).mappings()} if rows else {}
    return [_request(row, by_number[row["series"]]) for row in rows]


def _request(row: sa.RowMapping, series: sa.RowMapping) -> LoggedRequest:
    return LoggedRequest(
        place=Place(row["occurred_at"], row["batch_seq"], row["identity"].replace("-", "")),
        event=row["event_id"],
        started_at=row["occurred_at"],
        ended_at=row["ended_at"],
        first_token_at=row["first_token_at"],
        model=series["model"],
        quantities={name: row[name] for name in QUANTITIES},
        uncounted=row["uncounted_requests"] > 0,
        **{name: series[name] for name in SERIES_SHOWN},
    )


def _with_corrections(connection: sa.Connection, found: Sequence[LoggedRequest]) -> Iterator[LoggedRequest]:
    """Requests with the net of their entries: a correction has its event's instant, and so its partition."""
    entry = ledger_entry.c
    later: dict[str, list[sa.RowMapping]] = {}
    if found:
        instants = [one.place.at for one in found]
        columns = (entry.corrects, entry.kind, entry.uncounted_requests, *(entry[name] for name in QUANTITIES))
        query = sa.select(*columns).where(
            entry.corrects.in_([one.id for one in found]),
            entry.occurred_at >= min(instants),
            entry.occurred_at <= max(instants),
        )
        for row in connection.execute(query):
            later.setdefault(row.corrects.replace("-", ""), []).append(row._mapping)
    for one in found:
        rows = later.get(one.id, [])
        if not rows:
            yield one
            continue
        yield replace(
            one,
            quantities=net([one.quantities, *({name: row[name] for name in QUANTITIES} for row in rows)]),
            uncounted=int(one.uncounted) + sum(row["uncounted_requests"] for row in rows) > 0,
            state="void" if any(row["kind"] == VOID for row in rows) else "corrected",
        )


CarbonKey = tuple[datetime, str | None, str | None, str | None, str | None, str | None, str | None]


def _carbon_key(one: LoggedRequest) -> CarbonKey:
    hour = one.started_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return (hour, *(getattr(one, name) for name in CARBON_KEYS))


def _carbon_means(connection: sa.Connection, found: Sequence[LoggedRequest]) -> dict[CarbonKey, int]:
    """Mean emissions (ng CO2e) of use and of making, by hour and key, of the requests of which they are known."""
    if not found:
        return {}
    columns = carbon_entry.c
    grams = columns.location_ng + columns.embodied_ng
    keys = [columns.hour, *(columns[name] for name in CARBON_KEYS)]
    requests = sa.func.sum(columns.requests).filter(grams.is_not(None))
    hours = {_carbon_key(one)[0] for one in found}
    query = sa.select(*keys, sa.func.sum(grams), requests).where(
        columns.part == "use", columns.hour.in_(hours), columns.tenant.in_({one.tenant for one in found})
    )
    means: dict[CarbonKey, int] = {}
    for *key, total, count in connection.execute(query.group_by(*keys)):
        if total is not None and count:
            hour, *names = key
            means[(hour.astimezone(UTC), *names)] = rounded(int(total), int(count))
    return means

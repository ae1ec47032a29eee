"""Who consumed what: sums of the ledger by period and group.

Three sources give the same figures. The hourly rollup answers whole hours of any zone without people or keys; the
daily one answers days and months of the books down to people and keys; the entries themselves answer the rest: as of
a past batch, or finer cuts. A quantity that no request of a group knows is None; 0 is a measurement.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa

from metering.errors import Forbidden, Unprocessable
from metering.identity import Principal
from metering.rules.periods import BOOKS_ZONE, PARIS, Bucket, day_bounds
from metering.rules.quantities import FAILURES, QUANTITIES
from metering.tables import (
    DAILY_KEYS,
    HOURLY_KEYS,
    ROLLUP_SUMS,
    ledger_batch,
    ledger_entry,
    ledger_series,
    tenant,
    usage_daily,
    usage_hourly,
)

GROUPS: tuple[str, ...] = DAILY_KEYS
"""What usage may be grouped and filtered by."""

HOURS_MAX = 24 * 400
"""Longest period that may be cut in hours."""

YEARS = (1900, 9000)
"""Years that a period may begin and end in; further out, some time zone has no date."""

VALUES_MAX = 500

STREAMED_ROWS = 2_000
"""Rows that are in memory at a time where all are read."""


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """A question about usage: start inclusive, end exclusive, both aware; filters hold the values let through."""

    start: datetime
    end: datetime
    bucket: Bucket | None = None
    zone: ZoneInfo = PARIS
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    as_of: int | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums of one bucket and group. `bucket_start` is UTC; quantities: those read of `tables.ROLLUP_SUMS`."""

    bucket_start: datetime | None
    group: Mapping[str, str | None]
    quantities: Mapping[str, int | None]


def parse_question(params: Mapping[str, str | Sequence[str] | None]) -> UsageQuestion:
    """A question from text: start, end, bucket, tz, group_by, as_of, and a filter by the name of any group.

    Dates are midnights of `tz` (Europe/Paris unless given). Raises: Unprocessable, naming the field.
    """
    zone = _zone(_one(params, "tz") or BOOKS_ZONE)
    start, end = _instant(params, "start", zone), _instant(params, "end", zone)
    if start >= end:
        raise Unprocessable("empty_period", "The period ends before it starts.", field="end", expected="after start")
    bucket = _one(params, "bucket")
    if bucket is not None and bucket not in get_args(Bucket):
        raise Unprocessable("unknown_value", "Not a bucket.", field="bucket", expected=", ".join(get_args(Bucket)))
    if bucket == "hour" and end - start > timedelta(hours=HOURS_MAX):
        raise Unprocessable("period_too_long", "Too long to be cut in hours.", field="end", expected="at most 400 days")
    group_by = tuple(dict.fromkeys(name for value in _many(params, "group_by") for name in value.split(",") if name))
    if not set(group_by) <= set(GROUPS):
        raise Unprocessable("unknown_value", "Not a group.", field="group_by", expected=", ".join(GROUPS))
    filters = {name: values for name in GROUPS if (values := tuple(filter(None, _many(params, name))))}
    return UsageQuestion(start, end, bucket, zone, group_by, filters, _whole(params, "as_of"))  # type: ignore[arg-type]


def for_reader(question: UsageQuestion, reader: Principal) -> UsageQuestion:
    """The part of a question that a reader may ask: a manager of the administration, a member of their own use.

    Raises: Forbidden for a filter on others.
    """
    filters = dict(question.filters)
    for name, value in _own_of(reader).items():
        if any(asked != value for asked in filters.get(name, ())):
            raise Forbidden("not_yours", "That isn't yours to read.", field=name, expected="your own")
        filters[name] = (value,)
    return replace(question, filters=filters)


def _own_of(reader: Principal) -> dict[str, str]:
    """What a reader is kept to: their administration, and a member to themselves; the platform's staff to nothing."""
    own = {"tenant": reader.tenant} | ({"user": reader.account} if reader.role == "member" else {})
    return {name: value for name, value in own.items() if value is not None}


def read_usage(
    connection: sa.Connection,
    question: UsageQuestion,
    *,
    offset: int = 0,
    limit: int | None = None,
    quantities: Sequence[str] = ROLLUP_SUMS,
) -> list[UsageRow]:
    """Rows in the order of buckets, then groups (unknown last): all, or `limit` of them after the first `offset`.

    quantities: those to be read; fewer are summed faster.
    """
    found = connection.execute(_query(question, quantities).offset(offset).limit(limit))
    return [_row(row._mapping, question, quantities) for row in found]


def stream_usage(connection: sa.Connection, question: UsageQuestion) -> Iterator[UsageRow]:
    """The same rows, all of them, of which a few are in memory at a time."""
    found = connection.execute(_query(question), execution_options={"yield_per": STREAMED_ROWS})
    for row in found:
        yield _row(row._mapping, question)


def _query(question: UsageQuestion, quantities: Sequence[str] = ROLLUP_SUMS) -> sa.Select[Any]:
    source, moment = _source(question)
    columns = source.c
    bucket = _bucket(moment, question) if question.bucket else None
    keys = [columns[name] for name in question.group_by]
    query = sa.select(
        *([] if bucket is None else [bucket.label("bucket_start")]),
        *keys,
        *(sa.func.sum(columns[name]).label(name) for name in quantities),
    )
    query = query.where(*_period(moment, question))
    for name, values in question.filters.items():
        query = query.where(columns[name].in_(values))
    ordering = [*([] if bucket is None else [sa.literal_column("bucket_start")]), *keys]
    if ordering:
        return query.group_by(*ordering).order_by(*(one.asc().nulls_last() for one in ordering))
    return query.having(sa.func.count() > 0)


def last_batch(connection: sa.Connection) -> tuple[int, datetime] | None:
    """Number and time of the newest batch; None while the ledger is empty."""
    row = connection.execute(
        sa.select(ledger_batch.c.seq, ledger_batch.c.recorded_at).order_by(ledger_batch.c.seq.desc()).limit(1)
    ).first()
    return None if row is None else (row.seq, row.recorded_at)


def recorded_bounds(connection: sa.Connection, reader: Principal) -> tuple[datetime, datetime] | None:
    """First and last hour (UTC) with usage that a reader sees, or the first of those days; None while there is none."""
    own = _own_of(reader)
    source = _rollup_of({*own})
    moment = source.c.hour if source is usage_hourly else source.c.day
    first, last = connection.execute(
        sa.select(sa.func.min(moment), sa.func.max(moment)).where(*(source.c[name] == own[name] for name in own))
    ).one()
    if first is None:
        return None
    return (first, last) if source is usage_hourly else (day_bounds(first)[0], day_bounds(last)[0])


def known_values(connection: sa.Connection, name: str, reader: Principal) -> list[str]:
    """Values of a group that a reader finds in use, sorted, at most 500; of administrations, the registered ones."""
    own = _own_of(reader)
    if name == "tenant":
        query = sa.select(tenant.c.id).order_by(tenant.c.id)
        if "tenant" in own:
            query = query.where(tenant.c.id == own["tenant"])
    else:
        source = _rollup_of({name, *own})
        column = source.c[name]
        query = sa.select(column).where(column.is_not(None), *(source.c[key] == own[key] for key in own))
        query = query.distinct().order_by(column)
    return list(connection.scalars(query.limit(VALUES_MAX)))


def _rollup_of(used: set[str]) -> sa.Table:
    """The rollup that knows these groups; the smaller one, if both do."""
    return usage_hourly if used <= set(HOURLY_KEYS) else usage_daily


def record_fields(question: UsageQuestion) -> list[str]:
    """Columns of a record, in order."""
    return [*(["bucket_start"] if question.bucket else []), *question.group_by, *ROLLUP_SUMS]


def to_record(row: UsageRow, question: UsageQuestion) -> dict[str, str | int | None]:
    """A row as flat values for JSON, CSV and tables; the bucket's start is in the question's zone."""
    start = {} if row.bucket_start is None else {"bucket_start": row.bucket_start.astimezone(question.zone).isoformat()}
    return {**start, **row.group, **row.quantities}


def _source(question: UsageQuestion) -> tuple[sa.FromClause, sa.ColumnElement[Any]]:
    """The cheapest source that answers exactly, and its column of time."""
    used = {*question.group_by, *question.filters}
    if question.as_of is None and used <= set(HOURLY_KEYS) and _whole_hours(question):
        return usage_hourly, usage_hourly.c.hour
    if question.as_of is None and _whole_days(question):
        return usage_daily, usage_daily.c.day
    entries = _entries(question.as_of)
    return entries, entries.c.occurred_at


def _entries(as_of: int | None) -> sa.Subquery:
    """The entries with the columns of a rollup, up to and including a batch."""
    entry, series = ledger_entry, ledger_series
    columns = [
        entry.c.occurred_at,
        *(series.c[name] for name in GROUPS if name != "model"),
        sa.func.coalesce(series.c.model_served, series.c.model_requested).label("model"),
        *(entry.c[name] for name in (*QUANTITIES, "uncounted_requests")),
        *(sa.case((series.c.status == status, entry.c.requests)).label(f"requests_{status}") for status in FAILURES),
    ]
    query = sa.select(*columns).join_from(entry, series, entry.c.series == series.c.number)
    if as_of is not None:
        query = query.where(entry.c.batch_seq <= as_of)
    return query.subquery("entries")


def _whole_hours(question: UsageQuestion) -> bool:
    """Whether hours (UTC) cut the period and its buckets exactly."""
    edges = (question.start, question.end)
    if any(edge.astimezone(UTC).replace(minute=0, second=0, microsecond=0) != edge for edge in edges):
        return False
    return question.bucket is None or _keeps_whole_hours(question.zone)


@cache
def _keeps_whole_hours(zone: ZoneInfo) -> bool:
    """Whether a zone is whole hours from UTC, in winter as in summer: Lord Howe's clocks change by half an hour."""
    offsets = (datetime(2026, month, 1, tzinfo=zone).utcoffset() for month in (1, 7))
    return all((offset or timedelta()) % timedelta(hours=1) == timedelta() for offset in offsets)


def _whole_days(question: UsageQuestion) -> bool:
    """Whether days of the books cut the period and its buckets exactly."""
    if question.bucket == "hour" or (question.bucket is not None and question.zone.key != BOOKS_ZONE):
        return False
    return all(day_bounds(edge.astimezone(PARIS).date())[0] == edge for edge in (question.start, question.end))


def _period(moment: sa.ColumnElement[Any], question: UsageQuestion) -> tuple[sa.ColumnElement[bool], ...]:
    if moment is usage_daily.c.day:
        first, last = (edge.astimezone(PARIS).date() for edge in (question.start, question.end))
        return moment >= first, moment < last
    return moment >= question.start, moment < question.end


def _bucket(moment: sa.ColumnElement[Any], question: UsageQuestion) -> sa.ColumnElement[Any]:
    if moment is usage_daily.c.day:
        return sa.func.date_trunc(question.bucket, sa.cast(moment, sa.TIMESTAMP)).op("AT TIME ZONE")(BOOKS_ZONE)
    return sa.func.date_trunc(question.bucket, moment, question.zone.key)


def _row(found: sa.RowMapping, question: UsageQuestion, quantities: Sequence[str] = ROLLUP_SUMS) -> UsageRow:
    start: datetime | None = found["bucket_start"] if question.bucket else None
    return UsageRow(
        bucket_start=start.astimezone(UTC) if start else None,
        group={name: found[name] for name in question.group_by},
        quantities={name: None if found[name] is None else int(found[name]) for name in quantities},
    )


def _one(params: Mapping[str, str | Sequence[str] | None], name: str) -> str | None:
    values = _many(params, name)
    if len(values) > 1:
        raise Unprocessable("repeated_parameter", "Given more than once.", field=name, expected="one value")
    return values[0] if values and values[0] else None


def _many(params: Mapping[str, str | Sequence[str] | None], name: str) -> list[str]:
    value = params.get(name)
    if value is None:
        return []
    values = [value] if isinstance(value, str) else list(value)
    if any("\0" in text for text in values):
        raise Unprocessable("unknown_value", "Text holds no NUL.", field=name)
    return values


_zone_name = re.compile(r"UTC|[A-Z][A-Za-z_]+(/[A-Z][A-Za-z0-9_+-]+){1,2}")


def _zone(name: str) -> ZoneInfo:
    try:
        if not _zone_name.fullmatch(name):  # files beside the zones, as localtime, mean nothing to PostgreSQL
            raise ValueError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Unprocessable("unknown_value", "Not a time zone.", field="tz", expected="as Europe/Paris") from error


def _instant(params: Mapping[str, str | Sequence[str] | None], name: str, zone: ZoneInfo) -> datetime:
    expected = "a date, or RFC 3339, as 2026-10-05T08:00:00+02:00"
    text = _one(params, name)
    if text is None:
        raise Unprocessable("missing_field", "A period needs a start and an end.", field=name, expected=expected)
    try:
        if len(text) == len("2026-10-05"):
            instant = day_bounds(date.fromisoformat(text), zone)[0]
        else:
            read = datetime.fromisoformat(text)
            instant = (read if read.tzinfo else read.replace(tzinfo=zone)).astimezone(UTC)
        if not YEARS[0] <= instant.year <= YEARS[1]:
            raise ValueError(text)
        return instant
    except (ValueError, OverflowError) as error:
        raise Unprocessable("invalid_time", "Not a date or time.", field=name, expected=expected) from error


def _whole(params: Mapping[str, str | Sequence[str] | None], name: str) -> int | None:
    text = _one(params, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Unprocessable("out_of_range", "Not a batch number.", field=name, expected="an integer from 0")
    return int(text)

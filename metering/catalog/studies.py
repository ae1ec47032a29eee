"""Reads what a study is made of: sums of the ledger by day and hour, for the counters of one limit."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from metering.catalog.snapshot import Snapshot
from metering.rules.limits import EACH, EVERYTHING, Limit
from metering.rules.periods import PARIS, day_bounds
from metering.rules.quantities import add
from metering.rules.studies import (
    METER_OPERATION,
    METER_QUANTITIES,
    CounterDay,
    CounterHour,
    Study,
    studied_days,
    study_of,
)
from metering.tables import ledger_batch, usage_daily, usage_hourly

_SUBJECT_COLUMNS = {"project": "project", "user": "user", "key": "api_key"}
_KEPT_BY_HOUR = frozenset({"tenant", "project"})


def read_study(
    connection: sa.Connection, snapshot: Snapshot, tenant: str, wanted: Limit, present: Limit, now: datetime
) -> Study:
    """The study for a wanted limit, in one state of the ledger: the connection's transaction is a snapshot.

    wanted: whose use is studied; present: the limit in force there. Rollups hold the model that answered; categories
    are those of the catalogue now.
    """
    today = now.astimezone(PARIS).date()
    first, last = studied_days(today)
    as_of = connection.scalar(sa.select(sa.func.max(ledger_batch.c.seq))) or 0
    daily = usage_daily.c.day.between(first, last)
    days = [
        CounterDay(
            row.period, row.subject, row.what, _value(row, wanted), int(row.requests or 0),
            int(row.requests_refused or 0), int(row.uncounted_requests or 0),
        )
        for row in _sums(connection, snapshot, tenant, wanted, usage_daily.c.day, daily)
    ]  # fmt: skip
    hours: list[CounterHour] = []
    if wanted.scope in _KEPT_BY_HOUR and METER_QUANTITIES[wanted.meter]:
        hour = usage_hourly.c.hour
        hourly = sa.and_(hour >= day_bounds(first)[0], hour < day_bounds(last)[1])
        rows = _sums(connection, snapshot, tenant, wanted, hour, hourly)
        hours = [CounterHour(row.period, _value(row, wanted)) for row in rows]
    return study_of(present, days, hours, today=today, as_of=as_of)


def _value(row: sa.Row[Any], wanted: Limit) -> int | None:
    total: int | None = None
    for name in METER_QUANTITIES[wanted.meter]:
        known = row._mapping[name]
        total = add(total, None if known is None else int(known))
    return total


def _sums(
    connection: sa.Connection, snapshot: Snapshot, tenant: str, wanted: Limit, period: sa.Column[Any],
    within: sa.ColumnElement[bool],
) -> Iterator[sa.Row[Any]]:  # fmt: skip
    """Sums by period and counter, from the rollup that the column of periods is of."""
    columns = period.table.c
    subject, what = _subject(columns, wanted), _what(columns, snapshot, wanted)
    counted = dict.fromkeys(("requests", "requests_refused", "uncounted_requests", *METER_QUANTITIES[wanted.meter]))
    query = sa.select(
        period.label("period"), subject.label("subject"), what.label("what"),
        *(sa.func.sum(columns[name]).label(name) for name in counted),
    ).where(within, columns.tenant == tenant, *_conditions(columns, snapshot, wanted))  # fmt: skip
    # A counter has a subject, and a name where the selector is for each of them: what has none isn't limited.
    if wanted.scope != "tenant":
        query = query.where(subject.is_not(None))
    if wanted.selector.endswith(f":{EACH}"):
        query = query.where(what.is_not(None))
    yield from connection.execute(
        query.group_by(sa.literal_column("1"), sa.literal_column("2"), sa.literal_column("3"))
    )


def _subject(columns: Any, wanted: Limit) -> sa.ColumnElement[str | None]:
    if wanted.scope == "tenant":
        return sa.cast(sa.null(), sa.Text)
    column: sa.ColumnElement[str | None] = columns[_SUBJECT_COLUMNS[wanted.scope]]
    return column


def _what(columns: Any, snapshot: Snapshot, wanted: Limit) -> sa.ColumnElement[str | None]:
    kind, _, name = wanted.selector.partition(":")
    if name != EACH:
        return sa.cast(sa.null(), sa.Text)
    column: sa.ColumnElement[str | None] = columns.operation if kind == "operation" else columns.model
    if kind == "category":
        categories = {model.id: model.category for model in snapshot.models.values()}
        return sa.case(categories, value=column) if categories else sa.cast(sa.null(), sa.Text)
    return column


def _conditions(columns: Any, snapshot: Snapshot, wanted: Limit) -> Iterator[sa.ColumnElement[bool]]:
    if wanted.scope != "tenant" and wanted.subject is not None:
        yield _subject(columns, wanted) == wanted.subject
    if (operation := METER_OPERATION.get(wanted.meter)) is not None:
        yield columns.operation == operation
    kind, _, name = wanted.selector.partition(":")
    if wanted.selector == EVERYTHING or name == EACH:
        return
    if kind == "category":
        yield columns.model.in_([model.id for model in snapshot.models.values() if model.category == name])
    else:
        yield columns[kind] == name

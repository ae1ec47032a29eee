"""The rules that a decoded event must still pass, and its way into a frame of entries."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter

import polars as pl

from metering.events.envelope import (
    NAME_PATTERN,
    PEOPLE,
    UsageData,
    UsageEvent,
    is_address,
    is_name,
    is_source,
    names_of,
)
from metering.events.refusals import Refusal
from metering.ledger.rows import EVENT, FRAME_SCHEMA, INSTANT
from metering.ledger.series import Series
from metering.rules.chain import identity_of
from metering.rules.quantities import OPERATIONS, QUANTITIES, STATUSES, SUBSETS, expected_quantities
from metering.tables import SERIES_FIELDS

AHEAD_MAX = timedelta(minutes=10)
OWN_SOURCES = "jauge:"
"""What the ledger's own entries have as source, see `ledger.corrections`: an event must not take an id of theirs."""
OLDEST = datetime(2020, 1, 1, tzinfo=UTC)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NAMES = names_of(UsageData)
_SERIES_NAMES = tuple(name for name in _NAMES if name in SERIES_FIELDS)
_OWN_NAMES = tuple(name for name in _NAMES if name not in SERIES_FIELDS)
_NESTING = tuple(
    (part, whole, f"{part.partition('_')[0]}_exceeds_{whole.partition('_')[0]}") for part, whole in SUBSETS.items()
)
_EXPECTED_SETS = sorted({expected_quantities(operation, status) for operation in OPERATIONS for status in STATUSES})
_EXPECTED_SET = {
    (operation, status): _EXPECTED_SETS.index(expected_quantities(operation, status))
    for operation in OPERATIONS
    for status in STATUSES
}
_UNCOUNTED = pl.any_horizontal(
    (pl.col("expected") == place) & pl.any_horizontal(pl.col(name).is_null() for name in names)
    for place, names in enumerate(_EXPECTED_SETS)
    if names
)
"""Whether a row lacks a count that its operation is measured by; `expected` is the place of those in _EXPECTED_SETS."""
_own_names = attrgetter(*_OWN_NAMES)

series_fields = attrgetter("source", *(f"data.{name}" for name in SERIES_FIELDS[1:]))
"""Attributes of the series that an event belongs to, in the order of `Series`."""


def check_event(event: UsageEvent, now: datetime) -> Refusal | None:
    """First rule of time, nesting or naming that an event breaks, apart from the names of its series."""
    return _check_times(event, now) or _check_nesting(event.data) or _check_own_names(event)


def _check_times(event: UsageEvent, now: datetime) -> Refusal | None:
    ended, started, first_token = event.time, event.data.started_at, event.data.first_token_at
    if ended > now + AHEAD_MAX:
        return Refusal("time_in_future", "time", "at most 10 minutes ahead")
    if started is not None and started > ended:
        return Refusal("started_after_end", "data.started_at", "at or before time")
    if (started or ended) < OLDEST:
        return Refusal("time_too_old", "time" if started is None else "data.started_at", "2020 or later")
    if first_token is not None and not (started or OLDEST) <= first_token <= ended:
        return Refusal("first_token_outside_request", "data.first_token_at", "between started_at and time")
    return None


def _check_nesting(data: UsageData) -> Refusal | None:
    for part, whole, code in _NESTING:
        part_value, whole_value = getattr(data, part), getattr(data, whole)
        if part_value is not None and whole_value is not None and part_value > whole_value:
            return Refusal(code, f"data.{part}", f"at most {whole}")
    return None


def _check_own_names(event: UsageEvent) -> Refusal | None:
    if not is_name(event.id):
        return Refusal("invalid_name", "id", "an opaque name")
    for name, value in zip(_OWN_NAMES, _own_names(event.data), strict=True):
        if value is not None and not is_name(value):
            return Refusal("invalid_name", f"data.{name}", "an opaque name")
    return None


def check_series(series: Series) -> Refusal | None:
    """First rule of naming that a series breaks; done once a series, not once an event."""
    if not is_source(series.source):
        return Refusal("invalid_name", "source", "an opaque name, or a path")
    if series.source.startswith(OWN_SOURCES):
        return Refusal("reserved_source", "source", "another source")
    for name in _SERIES_NAMES:
        value = getattr(series, name)
        if value is not None and not (is_source if name == "endpoint" else is_name)(value):
            return Refusal("invalid_name", f"data.{name}", "an opaque name")
    for name in PEOPLE:
        if is_address(getattr(series, name) or ""):
            return Refusal("personal_identifier", f"data.{name}", "an opaque name")
    return None


def to_entries(events: Sequence[UsageEvent]) -> pl.DataFrame:
    """Entries of events, one row an event, in order: the columns of a frame but for series and tenant."""
    data = [event.data for event in events]
    ended = [_microseconds(event.time) for event in events]
    started = [None if datum.started_at is None else _microseconds(datum.started_at) for datum in data]
    first_token = [None if datum.first_token_at is None else _microseconds(datum.first_token_at) for datum in data]
    columns: dict[str, Sequence[object]] = {
        "identity": [identity_of(event.source, event.id) for event in events],
        "occurred_at": [end if start is None else start for start, end in zip(started, ended, strict=True)],
        "ended_at": ended,
        "first_token_at": first_token,
        "event_id": [event.id for event in events],
        "kind": [EVENT] * len(events),
    }
    for name in ("queue_ms", *QUANTITIES, "attempt", "reservation", "parent"):
        columns[name] = list(map(attrgetter(name), data))
    expected = pl.Series("expected", [_EXPECTED_SET[datum.operation, datum.status] for datum in data], dtype=pl.Int8)
    names = [name for name in FRAME_SCHEMA if name not in {"series", "tenant", "uncounted_requests"}]
    entries = pl.DataFrame([_column(name, columns.get(name, ()), len(events)) for name in names])
    return entries.hstack(entries.hstack([expected]).select(uncounted_requests=_UNCOUNTED.cast(pl.Int16)))


def suspects(entries: pl.DataFrame, now: datetime) -> list[int]:
    """Rows of `to_entries` that may break a rule of `check_event`: all that do are among them.

    Thousands of good events are told from a few bad ones column by column; only those few are then checked one by one.
    """
    outside = pl.any_horizontal(
        pl.col("ended_at") > now + AHEAD_MAX,
        pl.col("occurred_at") < OLDEST,
        pl.col("occurred_at") > pl.col("ended_at"),
        pl.col("first_token_at").is_between("occurred_at", "ended_at").not_(),
        *(pl.col(part) > pl.col(whole) for part, whole in SUBSETS.items()),
        *(pl.col(name).str.contains(rf"\A(?:{NAME_PATTERN})\z").not_() for name in ("event_id", *_OWN_NAMES)),
    )
    return entries.select(outside.fill_null(value=False).arg_true()).to_series().to_list()


def _column(name: str, values: Sequence[object], height: int) -> pl.Series:
    kind = FRAME_SCHEMA[name]
    if not values:
        return pl.Series(name, [None], dtype=kind).new_from_index(0, height)
    if kind == INSTANT:
        return pl.Series(name, values, dtype=pl.Int64).cast(INSTANT)
    return pl.Series(name, values, dtype=kind)


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND

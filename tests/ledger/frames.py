"""Frames of entries for tests, and what the ledger should make of them, reckoned in plain Python."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import sqlalchemy as sa

from metering.ledger.rows import EVENT, FRAME_SCHEMA
from metering.ledger.series import Series
from metering.rules.chain import identity_of
from metering.rules.periods import PARIS
from metering.rules.quantities import QUANTITIES, add
from metering.tables import DAILY_KEYS, HOURLY_KEYS, ROLLUP_SUMS, usage_daily, usage_hourly

NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)

Row = dict[str, Any]
Cells = dict[tuple[Any, ...], dict[str, int | None]]

_numbers = itertools.count(1)


def a_series(**changes: Any) -> Series:
    """A series that is complete where it must be."""
    fields: dict[str, Any] = {
        **dict.fromkeys(Series._fields),
        "source": "test", "tenant": "dinum", "operation": "chat", "model_requested": "small", "streamed": False,
        "status": "ok",
    }  # fmt: skip
    return Series(**{**fields, **changes})


def a_row(event_id: str | None = None, **changes: Any) -> Row:
    """A row of a frame, new at every call unless its id is given."""
    name = event_id or f"event-{next(_numbers)}"
    return {
        **dict.fromkeys(FRAME_SCHEMA),
        "identity": identity_of(changes.pop("source", "test"), name),
        "series": 1,
        "tenant": 1,
        "occurred_at": NOON,
        "ended_at": changes.get("occurred_at", NOON) + timedelta(seconds=1),
        "requests": 1,
        "kind": EVENT,
        "uncounted_requests": 0,
        "event_id": name,
        **changes,
    }


def a_frame(rows: Iterable[Row]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=FRAME_SCHEMA, orient="row")


def expected_cells(rows: Iterable[Row], series: Mapping[int, Series]) -> tuple[Cells, Cells]:
    """Hourly and daily cells that rows sum to."""
    hourly: Cells = defaultdict(lambda: dict.fromkeys(ROLLUP_SUMS))
    daily: Cells = defaultdict(lambda: dict.fromkeys(ROLLUP_SUMS))
    for row in rows:
        one = series[row["series"]]
        amounts = {name: row[name] for name in (*QUANTITIES, "uncounted_requests")}
        if one.status != "ok":
            amounts[f"requests_{one.status}"] = row["requests"]
        hour = row["occurred_at"].replace(minute=0, second=0, microsecond=0)
        day = row["occurred_at"].astimezone(PARIS).date()
        for cells, period, keys in ((hourly, hour, HOURLY_KEYS), (daily, day, DAILY_KEYS)):
            cell = cells[period, *(getattr(one, key) for key in keys)]
            for name, amount in amounts.items():
                cell[name] = add(cell[name], amount)
    return dict(hourly), dict(daily)


def stored_cells(engine: sa.Engine, tenant: str) -> tuple[Cells, Cells]:
    """Hourly and daily cells of a tenant in the rollups."""
    found: list[Cells] = []
    with engine.connect() as connection:
        for table, period, keys in ((usage_hourly, "hour", HOURLY_KEYS), (usage_daily, "day", DAILY_KEYS)):
            rows = connection.execute(sa.select(table).where(table.c.tenant == tenant)).mappings()
            found.append(
                {
                    (row[period], *(row[key] for key in keys)): {
                        name: None if row[name] is None else int(row[name]) for name in ROLLUP_SUMS
                    }
                    for row in rows
                }
            )
    return found[0], found[1]

"""Rollups: sums of entries by hour and by day, written with the entries they sum.

Charts and invoices read them, so that their cost doesn't grow with the number of requests.
"""

import polars as pl
import sqlalchemy as sa

from metering.ledger.series import Series
from metering.rules.periods import BOOKS_ZONE
from metering.rules.quantities import FAILURES, QUANTITIES
from metering.tables import DAILY_KEYS, HOURLY_KEYS, ROLLUP_SUMS, usage_daily, usage_hourly


def hourly_sums(frame: pl.DataFrame) -> pl.DataFrame:
    """Sums by (hour, series) of what a frame knows.

    A quantity that no row of the frame knows has no column; elsewhere the sum of what nobody knows is null. Sums are
    128 bits wide: 10,000 quantities of 2^53 would overflow 64.
    """
    known = [name for name in (*QUANTITIES, "uncounted_requests") if frame[name].null_count() < frame.height]
    return frame.group_by("series", pl.col("occurred_at").dt.truncate("1h").alias("hour")).agg(*map(_sum, known))


def hourly_cells(sums: pl.DataFrame, series: dict[int, Series]) -> pl.DataFrame:
    """Sums of `hourly_sums` with the attributes that rollups group by."""
    attributes = pl.DataFrame(
        [
            (number, s.tenant, s.project, s.user, s.api_key, s.model, s.operation, s.status)
            for number, s in series.items()
        ],
        schema={"series": pl.Int32} | dict.fromkeys((*DAILY_KEYS, "status"), pl.String),
        orient="row",
    )
    failed = set(attributes["status"].to_list()) & set(FAILURES) if "requests" in sums.columns else set()
    return sums.join(attributes, on="series", validate="m:1").with_columns(
        pl.when(pl.col("status") == status).then(pl.col("requests")).alias(f"requests_{status}")
        for status in sorted(failed)
    )


def batch_sums(sums: pl.DataFrame) -> list[int | None]:
    """Sum of every quantity over a batch, in the order of QUANTITIES."""
    known = sums.select(_sum(name) for name in QUANTITIES if name in sums.columns)
    total = known.row(0, named=True) if known.width else {}
    return [total.get(name) for name in QUANTITIES]


def add_to_rollups(connection: sa.Connection, cells: pl.DataFrame) -> None:
    """Add a batch's cells to both rollups."""
    day = pl.col("hour").dt.convert_time_zone(BOOKS_ZONE).dt.date().alias("day")
    _upsert(connection, usage_hourly, _regroup(cells, pl.col("hour"), HOURLY_KEYS))
    _upsert(connection, usage_daily, _regroup(cells, day, DAILY_KEYS))


def _sum(name: str) -> pl.Expr:
    wide = pl.col(name).cast(pl.Int128)
    return pl.when(wide.count() > 0).then(wide.sum()).alias(name)


def _regroup(cells: pl.DataFrame, period: pl.Expr, keys: tuple[str, ...]) -> pl.DataFrame:
    grouped = cells.group_by(period, *keys).agg(*(_sum(name) for name in ROLLUP_SUMS if name in cells.columns))
    return grouped.sort(grouped.columns[: 1 + len(keys)])  # one order for all: no deadlock


def _upsert(connection: sa.Connection, rollup: sa.Table, cells: pl.DataFrame) -> None:
    """Add cells to a rollup; a sum that is null changes nothing."""
    types = [rollup.c[name].type.compile(connection.dialect) for name in cells.columns]
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in zip(cells.columns, types, strict=True))
    columns = ", ".join(f'"{name}"' for name in cells.columns)
    stored = rollup.name
    added = ", ".join(
        f"{name} = COALESCE({stored}.{name} + EXCLUDED.{name}, {stored}.{name}, EXCLUDED.{name})"
        for name in cells.columns
        if name in ROLLUP_SUMS
    )
    unique = next(one for one in rollup.constraints if isinstance(one, sa.UniqueConstraint))
    connection.execute(
        sa.text(
            f"INSERT INTO {stored} ({columns}) SELECT * FROM unnest({arrays}) "  # noqa: S608 - names of our own
            f"ON CONFLICT ON CONSTRAINT {unique.name} DO UPDATE SET {added}"
        ),
        {name: cells[name].to_list() for name in cells.columns},
    )

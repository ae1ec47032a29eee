"""Rollups: sums of entries by hour and by day, written with the entries they sum.

Charts and invoices read them, so that their cost doesn't grow with the number of requests.
"""

import polars as pl
import sqlalchemy as sa

from metering.ledger.series import Series
from metering.rules.periods import BOOKS_ZONE
from metering.rules.quantities import QUANTITIES, STATUSES
from metering.tables import DAILY_KEYS, HOURLY_KEYS, ROLLUP_SUMS, usage_daily, usage_hourly


def hourly_cells(frame: pl.DataFrame, series: dict[int, Series]) -> pl.DataFrame:
    """Sums by (hour, series) with the attributes that rollups group by.

    Sums are 128 bits wide: 10,000 quantities of 2^53 would overflow 64. The sum of what nobody knows is null.
    """
    by_hour = (
        frame.lazy()
        .group_by("series", pl.col("occurred_at").dt.truncate("1h").alias("hour"))
        .agg(*(_sum(name) for name in (*QUANTITIES, "uncounted_requests")))
        .collect()
    )
    attributes = pl.DataFrame(
        [
            (number, s.tenant, s.project, s.user, s.api_key, s.model, s.operation, s.status)
            for number, s in series.items()
        ],
        schema={"series": pl.Int32} | dict.fromkeys((*DAILY_KEYS, "status"), pl.String),
        orient="row",
    )
    return by_hour.join(attributes, on="series", validate="m:1").with_columns(
        pl.when(pl.col("status") == status).then(pl.col("requests")).alias(f"requests_{status}")
        for status in STATUSES
        if status != "ok"
    )


def batch_sums(cells: pl.DataFrame) -> list[int | None]:
    """Sum of every quantity over a batch's cells, in the order of QUANTITIES."""
    return list(cells.select(_sum(name) for name in QUANTITIES).row(0))


def add_to_rollups(connection: sa.Connection, cells: pl.DataFrame) -> None:
    """Add a batch's cells to both rollups."""
    day = pl.col("hour").dt.convert_time_zone(BOOKS_ZONE).dt.date().alias("day")
    _upsert(connection, usage_hourly, _regroup(cells, [pl.col("hour")], HOURLY_KEYS))
    _upsert(connection, usage_daily, _regroup(cells, [day], DAILY_KEYS))


def _sum(name: str) -> pl.Expr:
    wide = pl.col(name).cast(pl.Int128)
    return pl.when(wide.count() > 0).then(wide.sum()).alias(name)


def _regroup(cells: pl.DataFrame, period: list[pl.Expr], keys: tuple[str, ...]) -> pl.DataFrame:
    grouped = cells.group_by(*period, *keys).agg(*(_sum(name) for name in ROLLUP_SUMS))
    return grouped.sort(grouped.columns[: 1 + len(keys)])  # one order for all: no deadlock


def _upsert(connection: sa.Connection, rollup: sa.Table, cells: pl.DataFrame) -> None:
    quoted = {name: f'"{name}"' for name in cells.columns}
    types = [str(rollup.c[name].type.compile(connection.dialect)) for name in cells.columns]
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in zip(cells.columns, types, strict=True))
    added = ", ".join(
        f"{q} = COALESCE({rollup.name}.{q} + EXCLUDED.{q}, {rollup.name}.{q}, EXCLUDED.{q})"
        for q in (quoted[name] for name in ROLLUP_SUMS)
    )
    unique = next(c for c in rollup.constraints if isinstance(c, sa.UniqueConstraint))
    connection.execute(
        sa.text(
            f"INSERT INTO {rollup.name} ({', '.join(quoted.values())}) "  # noqa: S608 - names of our own
            f"SELECT * FROM unnest({arrays}) "
            f"ON CONFLICT ON CONSTRAINT {unique.name} DO UPDATE SET {added}"
        ),
        {name: cells[name].to_list() for name in cells.columns},
    )

"""Reading sealed months: sums of their files by DuckDB, beside those of the entries that came later."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import sqlalchemy as sa

from metering.errors import Conflict
from metering.ledger.manifest import MANIFEST_NAME, Manifest, month_folder, read_manifest
from metering.ledger.sealing import Seal
from metering.rules.quantities import FAILURES
from metering.tables import HOURLY_KEYS, ROLLUP_SUMS, ledger_entry, ledger_series

HOUR = timedelta(hours=1)

_SUMS = {name: f"sum({name})" for name in ROLLUP_SUMS} | {
    f"requests_{status}": f"sum(requests) FILTER (WHERE status = '{status}')" for status in FAILURES
}
"""How DuckDB adds up what a rollup has; its sums of integers are 128 bits wide."""


@dataclass(frozen=True, slots=True)
class SealedMonth:
    """A month that can be read from its files: those of its manifest, and no other."""

    seal: Seal
    manifest: Manifest
    folder: Path

    @property
    def paths(self) -> list[str]:
        return [str(self.folder / file.name) for file in self.manifest.files]

    @property
    def hours(self) -> int:
        """Hours from its start to its end: 31 days of October have one more."""
        return (self.seal.end - self.seal.start) // HOUR


def open_month(seal: Seal, data: Path) -> SealedMonth:
    """A sealed month in the data folder. Its manifest is held to its seal, its files to their length.

    Raises: Conflict if they aren't as they were sealed; `jauge verify --period` says more.
    """
    folder = month_folder(data, seal.month)
    try:
        raw = (folder / MANIFEST_NAME).read_bytes()
        manifest = read_manifest(raw)
        whole = all((folder / file.name).stat().st_size == file.bytes for file in manifest.files)
    except (OSError, msgspec.DecodeError) as error:
        raise _broken(seal) from error
    if not whole or not seal.is_of(raw):
        raise _broken(seal)
    return SealedMonth(seal, manifest, folder)


def _broken(seal: Seal) -> Conflict:
    return Conflict(
        "seal_broken",
        f"The files of {seal.month} aren't there as they were sealed.",
        field="month",
        expected=f"see jauge verify --period {seal.month}",
    )


def sums_by_key(
    month: SealedMonth,
    names: Sequence[str],
    *,
    tenants: Collection[str] | None = None,
    last_batch: int | None = None,
    parts: Sequence[int] | None = None,
    marked: Sequence[bool] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Sums of a sealed month: HOURLY_KEYS, part, requests of marked hours, then `names` (of ROLLUP_SUMS).

    tenants: of these only; last_batch: up to it only. parts: the number of each hour's part, `marked`: whether it is,
    both by hour from the month's start; without them all is part 0 and nothing is marked.
    """
    if not month.manifest.files:
        return
    keys = ", ".join("coalesce(model_served, model_requested)" if key == "model" else f'"{key}"' for key in HOURLY_KEYS)
    sums = ", ".join(_SUMS[name] for name in names)
    query = f"""
        WITH hours AS (SELECT unnest(range({month.hours})) AS hour, unnest($parts) AS part, unnest($marked) AS marked),
        entries AS (
            SELECT *, (epoch_us(occurred_at) - $start_us) // 3600000000 AS hour FROM read_parquet($paths)
            WHERE batch_seq <= $last_batch AND ($tenants IS NULL OR list_contains($tenants, tenant))
        )
        SELECT {keys}, part, coalesce(sum(requests) FILTER (WHERE marked), 0), {sums}
        FROM entries JOIN hours USING (hour) GROUP BY ALL
    """  # noqa: S608 - names of our own
    given = {
        "paths": month.paths,
        "start_us": int(month.seal.start.timestamp()) * 1_000_000,
        "last_batch": month.seal.last_batch if last_batch is None else last_batch,
        "tenants": None if tenants is None else list(tenants),
        "parts": [0] * month.hours if parts is None else list(parts),
        "marked": [False] * month.hours if marked is None else list(marked),
    }
    with duckdb.connect() as connection:
        rows = connection.execute(query, given)
        while some := rows.fetchmany(10_000):
            yield from some


def entries_between(start: datetime, end: datetime, *, after: int, last: int | None) -> sa.Subquery:
    """Entries that began in [start, end), of batches after one up to another, with the columns of the hourly rollup."""
    entry, series = ledger_entry.c, ledger_series.c
    failed = {f"requests_{status}": sa.case((series.status == status, entry.requests)) for status in FAILURES}
    summed = [failed[name].label(name) if name in failed else entry[name] for name in ROLLUP_SUMS]
    named = [series.tenant, series.project, series.operation]
    model = sa.func.coalesce(series.model_served, series.model_requested).label("model")
    hour = sa.func.date_trunc("hour", entry.occurred_at, "UTC").label("hour")
    joined = sa.select(hour, *named, model, *summed).join_from(
        ledger_entry, ledger_series, entry.series == series.number
    )
    within = [entry.occurred_at >= start, entry.occurred_at < end, entry.batch_seq > after]
    if last is not None:
        within.append(entry.batch_seq <= last)
    return joined.where(*within).subquery("entries")

"""Reading sealed months: sums of their files by DuckDB, beside those of the entries that came later."""

from collections import defaultdict
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
    if not month.manifest.files or (tenants is not None and not tenants):
        return
    columns = ["coalesce(model_served, model_requested)" if key == "model" else f'"{key}"' for key in HOURLY_KEYS]
    keys, sums = ", ".join(columns), ", ".join(_sum_of(month, name) for name in names)
    marks = "coalesce(sum(requests) FILTER (WHERE marked), 0)" if any(marked or ()) else "0"
    source, given = _entries_by_part(month, parts or [0] * month.hours, marked or [False] * month.hours)
    asked, kept = "true", "true"
    if last_batch is not None and last_batch < month.seal.last_batch:
        asked = "batch_seq <= $last_batch"
        given["last_batch"] = last_batch
    if tenants is not None:
        # Files are sorted by administration: bounds leave most of them unread, and sums are fewer to look at than rows.
        asked += " AND tenant BETWEEN $first AND $last"
        kept = "list_contains($tenants, tenant)"
        given |= {"tenants": list(tenants), "first": min(tenants), "last": max(tenants)}
    query = f"""
        SELECT {keys}, part, {marks}, {sums}
        FROM ({source}) WHERE {asked} GROUP BY ALL HAVING {kept}
    """  # noqa: S608 - names of our own
    with duckdb.connect() as connection:
        rows = connection.execute(query, given)
        while some := rows.fetchmany(10_000):
            yield from some


def _sum_of(month: SealedMonth, name: str) -> str:
    """What no entry of the month has, as its manifest says, isn't read."""
    return "NULL" if month.manifest.sums.get(name, "") is None else _SUMS[name]


def _entries_by_part(month: SealedMonth, parts: Sequence[int], marked: Sequence[bool]) -> tuple[str, dict[str, Any]]:
    """A query of entries with the part of their hour and whether it is marked, and what is given to it.

    Only entries of files whose hours differ in that are asked for their instant.
    """
    hours = list(zip(parts, marked, strict=True))
    alike: defaultdict[tuple[int, bool], list[str]] = defaultdict(list)
    mixed: list[str] = []
    for file, path in zip(month.manifest.files, month.paths, strict=True):
        first, last = ((at - month.seal.start) // HOUR for at in (file.start, file.end - timedelta.resolution))
        found = set(hours[first : last + 1])
        (alike[found.pop()] if len(found) == 1 else mixed).append(path)
    given: dict[str, Any] = {f"files{number}": paths for number, paths in enumerate(alike.values())}
    queries = [
        f"SELECT *, {part} AS part, {mark} AS marked FROM read_parquet($files{number})"  # noqa: S608 - numbers of our own
        for number, (part, mark) in enumerate(alike)
    ]
    if mixed:
        hour = f"(epoch_us(occurred_at) - {int(month.seal.start.timestamp()) * 1_000_000}) // 3600000000"
        queries.append(
            f"SELECT *, list_extract($parts, 1 + {hour}) AS part, list_extract($marked, 1 + {hour}) AS marked "  # noqa: S608 - numbers of our own
            "FROM read_parquet($mixed)"
        )
        given |= {"mixed": mixed, "parts": list(parts), "marked": list(marked)}
    return " UNION ALL BY NAME ".join(queries), given


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

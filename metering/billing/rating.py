"""Rating of a month: sums of the rollups between changes of price, then lines.

The database adds up hours; only what it answers (a row for each project, model, operation and part of the month) meets
a price. As of a past batch the entries themselves are added up. With the numbers that a rating names (batches of ledger
and carbon, change of the catalogue) it can be made again, to the last digit, whatever was recorded since.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.billing.prices import Tariffs
from metering.catalog.documents import YEAR_MAX, YEAR_MIN
from metering.errors import NotFound, Unprocessable
from metering.ledger.sealed import HOUR, SealedMonth, entries_between, sums_by_key
from metering.rules.periods import PARIS, month_bounds
from metering.rules.quantities import add
from metering.rules.rating.lines import Place
from metering.rules.rating.meters import CARBON_NG, CARBON_UNKNOWN, COUNTED_SUMS
from metering.rules.rating.months import Month, Terms, Usage, rate_month
from metering.tables import carbon_batch, carbon_entry, ledger_batch, usage_hourly

KEYS = ("tenant", "project", "model", "operation")
PART = "part_of_period"

_month = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")


class AsOf(NamedTuple):
    """Last batches of the ledger and of carbon that count; None: all there are."""

    ledger_batch: int | None = None
    carbon_batch: int | None = None


LATEST = AsOf()


@dataclass(frozen=True, slots=True)
class Period:
    """A month of the books (`2026-10`), from `start` to `end`, exclusive, in UTC."""

    month: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Rating:
    """A month of an administration, rated, and what it follows from. carbon_batch None: no price is for carbon."""

    tenant: str
    period: Period
    ledger_batch: int
    carbon_batch: int | None
    catalog_version: int
    month: Month


def read_month(text: str) -> Period:
    """A month of the books. Raises: Unprocessable."""
    found = _month.fullmatch(text)
    if found is None or not YEAR_MIN <= int(found[1]) <= YEAR_MAX:
        raise Unprocessable("invalid_month", "Not a month.", field="month", expected="as 2026-10")
    return Period(text, *month_bounds(int(found[1]), int(found[2])))


def rate_tenant(
    connection: sa.Connection, tariffs: Tariffs, tenant: str, period: Period, as_of: AsOf = LATEST
) -> Rating:
    """A month of one administration. Raises: NotFound for batches to come."""
    (rating,) = rate_tenants(connection, tariffs, [tenant], period, as_of)
    return rating


def rate_tenants(
    connection: sa.Connection,
    tariffs: Tariffs,
    tenants: Sequence[str],
    period: Period,
    as_of: AsOf = LATEST,
    sealed: SealedMonth | None = None,
) -> list[Rating]:
    """A month of administrations, in their order, from one read. Raises: NotFound for batches to come.

    connection: in a transaction of one state (`snapshot=True`), so that sums and batch numbers belong together.
    sealed: the same month's files, from which the same lines come sooner when there is much of it.
    """
    ledger_seq = _last(connection, ledger_batch, as_of.ledger_batch, "as_of")
    cuts = tariffs.cuts(tenants, period.start, period.end)
    carbon_seq = None
    if any(tariffs.prices_carbon(tenant) for tenant in tenants):
        carbon_seq = _last(connection, carbon_batch, as_of.carbon_batch, "carbon_as_of")
    assert sealed is None or (sealed.seal.start, sealed.seal.end) == (period.start, period.end)
    read = _Read(period, tuple(tenants), cuts, as_of.ledger_batch, carbon_seq, sealed)
    usage: dict[str, list[Usage]] = {tenant: [] for tenant in tenants}
    for tenant, one in _usage(connection, tariffs, read):
        usage[tenant].append(one)
    return [
        Rating(tenant, period, ledger_seq, carbon_seq, tariffs.version, rate_month(rows, tariffs.names))
        for tenant, rows in usage.items()
    ]


@dataclass(frozen=True, slots=True)
class _Read:
    """What is read: usage of administrations in a period, added up between cuts, up to batches.

    ledger_seq None: all, from the rollup. carbon_seq None: no carbon. sealed: its files are read, not the database.
    """

    period: Period
    tenants: tuple[str, ...]
    cuts: Sequence[datetime]
    ledger_seq: int | None
    carbon_seq: int | None
    sealed: SealedMonth | None


def _last(connection: sa.Connection, batches: sa.Table, wanted: int | None, field: str) -> int:
    """The number of the last batch, or of the one that is wanted."""
    last = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(batches.c.seq), 0))) or 0
    if wanted is not None and not 0 <= wanted <= last:
        raise NotFound("unknown_batch", "There is no such batch.", field=field, expected=f"0 to {last}")
    return last if wanted is None else wanted


def _usage(connection: sa.Connection, tariffs: Tariffs, read: _Read) -> Iterable[tuple[str, Usage]]:
    carbon = None if read.carbon_seq is None else _carbon(connection, read)
    starts = [read.period.start, *read.cuts]
    days = [start.astimezone(PARIS).date() for start in starts]
    known_terms: dict[tuple[str, int], Terms] = {}
    for tenant, project, model, operation, part, unposted, sums in _sums(connection, read):
        terms = known_terms.get((tenant, part))
        if terms is None:
            terms = known_terms[tenant, part] = tariffs.terms_on(tenant, days[part])
        if carbon is not None:
            sums[CARBON_NG], unknown = carbon.get((tenant, project, model, operation, part), (None, 0))
            sums[CARBON_UNKNOWN] = unknown + unposted
        yield tenant, Usage(Place(project, model), operation, terms, starts[part], sums)


def _sums(connection: sa.Connection, read: _Read) -> Iterable[tuple[Any, ...]]:
    """Tenant, project, model, operation, part of the period, requests whose carbon isn't posted, sums by name."""
    if read.sealed is not None:
        return _sealed_sums(connection, read, read.sealed)
    return _sums_of(connection, read, usage_as_of(connection, read.period, read.ledger_seq))


def _sums_of(connection: sa.Connection, read: _Read, source: sa.FromClause) -> Iterable[tuple[Any, ...]]:
    columns = source.c
    unposted: sa.ColumnElement[Any] = sa.literal(0)
    if read.carbon_seq is not None:
        unposted = sa.func.coalesce(
            sa.func.sum(columns.requests).filter(columns.hour.not_in(_posted(read.carbon_seq))), 0
        )
    keys = [columns[name] for name in KEYS]
    query = (
        sa.select(
            *keys, _part(columns.hour, read.cuts), unposted, *(sa.func.sum(columns[name]) for name in COUNTED_SUMS)
        )
        .where(*_within(columns, read))
        .group_by(*keys, sa.text(PART))
    )
    for row in connection.execute(query):
        place, (unposted_requests, *sums) = row[:5], row[5:]
        counted = [None if one is None else int(one) for one in sums]
        yield *place, int(unposted_requests), dict(zip(COUNTED_SUMS, counted, strict=True))


def _sealed_sums(connection: sa.Connection, read: _Read, sealed: SealedMonth) -> Iterable[tuple[Any, ...]]:
    """The same from a sealed month's files, with what came later from the database."""
    hours = [read.period.start + HOUR * number for number in range(sealed.hours)]
    parts = [bisect_right(read.cuts, hour) for hour in hours]
    unposted: list[bool] | None = None
    if read.carbon_seq is not None:
        posted = set(connection.scalars(_posted(read.carbon_seq)))
        unposted = [hour not in posted for hour in hours]
    last = sealed.seal.last_batch if read.ledger_seq is None else min(read.ledger_seq, sealed.seal.last_batch)
    after = entries_between(read.period.start, read.period.end, after=sealed.seal.last_batch, last=read.ledger_seq)
    late = {tuple(key): (requests, sums) for *key, requests, sums in _sums_of(connection, read, after)}
    rows = sums_by_key(sealed, COUNTED_SUMS, tenants=read.tenants, last_batch=last, parts=parts, marked=unposted)
    for row in rows:
        key, requests, sums = row[:5], row[5], dict(zip(COUNTED_SUMS, row[6:], strict=True))
        if (more := late.pop(key, None)) is not None:
            requests += more[0]
            sums = {name: add(sums[name], more[1][name]) for name in COUNTED_SUMS}
        yield *key, requests, sums
    for key, (requests, sums) in late.items():
        yield *key, requests, sums


def _posted(carbon_seq: int) -> sa.Select[Any]:
    """Hours whose carbon is known up to a batch."""
    return sa.select(carbon_batch.c.hour).where(carbon_batch.c.seq <= carbon_seq)


def _carbon(connection: sa.Connection, read: _Read) -> dict[tuple[Any, ...], tuple[int | None, int]]:
    """ng CO2e of use and of making, and requests of which that isn't known; by key and part of the period."""
    columns = carbon_entry.c
    grams = columns.location_ng + columns.embodied_ng
    keys = [columns[name] for name in KEYS]
    unknown = sa.func.coalesce(sa.func.sum(columns.requests).filter(grams.is_(None)), 0)
    query = (
        sa.select(*keys, _part(columns.hour, read.cuts), sa.func.sum(grams), unknown)
        .where(*_within(columns, read), columns.part == "use", columns.batch_seq <= read.carbon_seq)
        .group_by(*keys, sa.text(PART))
    )
    found = connection.execute(query)
    return {tuple(row[:5]): (None if row[5] is None else int(row[5]), int(row[6])) for row in found}


def _within(columns: Any, read: _Read) -> tuple[sa.ColumnElement[bool], ...]:
    return columns.tenant.in_(read.tenants), columns.hour >= read.period.start, columns.hour < read.period.end


def _part(hour: sa.ColumnElement[Any], cuts: Sequence[datetime]) -> sa.ColumnElement[Any]:
    """Number of the part of the period that an hour is in: as many as there are cuts before it, or at it."""
    if not cuts:
        return sa.literal_column("0").label(PART)
    edges = sa.bindparam("cuts", list(cuts), type_=pg.ARRAY(sa.TIMESTAMP(timezone=True)), unique=True)
    return sa.func.width_bucket(hour, edges).label(PART)


def usage_as_of(connection: sa.Connection, period: Period, batch: int | None) -> sa.FromClause:
    """Sums by hour with the columns of the hourly rollup: it itself, or what it was after a batch of the ledger.

    In a transaction of one state the rollup is as of the last batch, and is read for that one too: it is much faster.
    """
    last = connection.scalar(sa.select(sa.func.max(ledger_batch.c.seq)))
    if batch in (None, last):
        return usage_hourly
    return entries_between(period.start, period.end, after=0, last=batch)

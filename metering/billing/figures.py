"""What documents show beside amounts: an administration's use by day, and its carbon, as of batches."""

from datetime import timedelta
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from metering.billing.rating import AsOf, Period, usage_as_of
from metering.rules.billing.documents import CarbonFigures, DayFigures
from metering.rules.carbon.apportioning import shared
from metering.rules.carbon.tiers import TIERS
from metering.rules.periods import BOOKS_ZONE
from metering.tables import carbon_batch, carbon_entry

MILLION = 1_000_000
HOUR = timedelta(hours=1)


def days_of(connection: sa.Connection, period: Period, as_of: AsOf) -> dict[str, tuple[DayFigures, ...]]:
    """Requests and tokens by administration and day of the books; days without requests have none."""
    source = usage_as_of(connection, period, as_of.ledger_batch)
    columns = source.c
    day = sa.cast(sa.func.timezone(BOOKS_ZONE, columns.hour), sa.Date).label("day")
    counted = [sa.func.sum(columns[name]) for name in ("requests", "input_tokens", "output_tokens")]
    query = (
        sa.select(columns.tenant, day, *counted)
        .where(columns.hour >= period.start, columns.hour < period.end)
        .group_by(columns.tenant, day)
        .order_by(columns.tenant, day)
    )
    rows = [(tenant, DayFigures(on, int(requests or 0), _tokens(read, written)))
            for tenant, on, requests, read, written in connection.execute(query)]  # fmt: skip
    return {tenant: tuple(one for _, one in found) for tenant, found in groupby(rows, key=lambda row: row[0])}


def _tokens(read: Any, written: Any) -> int | None:
    return None if read is None and written is None else int(read or 0) + int(written or 0)


def carbon_of(connection: sa.Connection, period: Period, carbon_seq: int) -> dict[str, CarbonFigures]:
    """Carbon of a month by administration, of those of whom anything is posted by a batch."""
    entry, batch = carbon_entry.c, carbon_batch.c
    last = connection.scalar(sa.select(sa.func.max(batch.hour)).where(batch.seq <= carbon_seq))
    is_complete = last is not None and last + HOUR >= period.end
    unknown = sa.func.coalesce(sa.func.sum(entry.requests).filter(entry.gpu_energy_uj.is_(None)), 0)
    names = [f"{part}{bound}_ng" for bound in ("", "_lower", "_upper") for part in ("location", "embodied")]
    query = (
        sa.select(
            entry.tenant,
            sa.func.coalesce(sa.func.sum(entry.requests), 0),
            unknown,
            sa.func.sum(entry.energy_uj),
            *(sa.func.sum(entry[name]) for name in names),
            *(sa.func.sum(entry.energy_uj).filter(entry.tier == tier) for tier in TIERS),
            sa.func.array_agg(batch.method.distinct()),
        )
        .join(carbon_batch, batch.seq == entry.batch_seq)
        .where(
            entry.part == "use", entry.hour >= period.start, entry.hour < period.end, entry.batch_seq <= carbon_seq,
            entry.tenant.is_not(None),
        )
        .group_by(entry.tenant)
    )  # fmt: skip
    found = {}
    for tenant, requests, unknown_requests, energy, *more in connection.execute(query):
        sums, tiers, methods = more[:6], more[6:-1], more[-1]
        found[tenant] = CarbonFigures(
            requests=int(requests),
            requests_unknown=int(unknown_requests),
            energy_uj=None if energy is None else int(energy),
            total_ng=_total(*sums[0:2]),
            total_lower_ng=_total(*sums[2:4]),
            total_upper_ng=_total(*sums[4:6]),
            tiers_ppm=_shares(tiers),
            methods=tuple(sorted(methods)),
            as_of=carbon_seq,
            is_complete=is_complete,
        )
    return found


def _total(use: Any, making: Any) -> int | None:
    """Of use and of making; unknown where one of both is."""
    return None if use is None or making is None else int(use) + int(making)


def _shares(energies: list[Any]) -> tuple[tuple[str, int], ...]:
    """Tiers with their share of the energy in millionths, which sum to a million; best first."""
    known = [(tier, int(energy)) for tier, energy in zip(TIERS, energies, strict=True) if energy]
    if not known:
        return ()
    parts = shared(MILLION, [energy for _, energy in known], [tier for tier, _ in known])
    return tuple((tier, part) for (tier, _), part in zip(known, parts, strict=True))

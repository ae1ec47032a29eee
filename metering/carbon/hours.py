"""An hour from readings, events and factors to entries: what is posted, worked out from what is known now."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
import sqlalchemy as sa

from metering.carbon.attribution import attribute
from metering.carbon.claims import Used, measured, modelled
from metering.carbon.costs import costs_of
from metering.carbon.factors import read_factors
from metering.carbon.hosts import host_energies
from metering.carbon.idling import GpuKey, idle_constants, idle_powers
from metering.carbon.meters import MeteredGpu, meter_frame, read_gpus
from metering.carbon.modelled import read_known
from metering.carbon.posting import Meter
from metering.carbon.requests import read_requests
from metering.carbon.sites import read_sites
from metering.rules.carbon.entries import Entry, Key, Sums
from metering.rules.carbon.factors import hour_factor
from metering.rules.carbon.impacts import Bounded
from metering.rules.carbon.pools import Pool, entries_of
from metering.rules.carbon.tiers import worst_tier

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Hour:
    """What an hour comes to: entries, and what each GPU's meter said."""

    entries: Sequence[Entry]
    meters: Sequence[Meter]


def compute_hour(connection: sa.Connection, hour: datetime) -> Hour:
    """Entries of an hour from what the database knows; the same for the same knowledge."""
    requests = read_requests(connection, hour)
    gpus = read_gpus(connection, hour)
    powers = idle_powers(gpus, requests)
    constants = idle_constants(connection, hour, powers)
    attributed = attribute(requests, meter_frame(gpus, constants), costs_of(connection, hour, requests, gpus))
    claimed = requests.with_columns(attributed.shares.drop("identity"), is_new=pl.col("admitted_at") >= hour)
    hosts = host_energies(gpus, hour)
    is_measured = pl.col("dynamic_uj").is_not_null()
    used = [
        *measured(claimed.filter(is_measured), attributed.windows, gpus, hosts),
        modelled(claimed.filter(~is_measured), read_known(connection, hour, requests), hour),
    ]
    return Hour(_entries(connection, hour, used), list(_meters(gpus, hosts, powers, constants)))


def _entries(connection: sa.Connection, hour: datetime, used: Iterable[Used]) -> list[Entry]:
    """Entries of all that was used, one a key: what a key claims of several deployments is added."""
    sites = read_sites(connection)
    zones = {site.zone for site in sites.values()} | {site.contract for site in sites.values() if site.contract}
    factors = read_factors(connection, zones, hour, hour + HOUR)
    entries: dict[Key, Sums] = {}
    for one in used:
        site = sites.get(one.site, sites[None])
        location = hour_factor(factors, site.zone, "location", hour)
        market = hour_factor(factors, site.contract, "market", hour) if site.contract else None
        for key, sums in entries_of(Pool(one.claims, one.host, site.pue_ppm, location, market)):
            entries[key] = _added(entries[key], sums) if key in entries else sums
    return list(entries.items())


def _added(one: Sums, other: Sums) -> Sums:
    """Sums of one key: what is unknown in one is in the other, since tier and factors are of the key."""
    pairs = zip(one, other, strict=True)
    return Sums(*(None if mine is None or theirs is None else mine + theirs for mine, theirs in pairs))


def _meters(
    gpus: Sequence[MeteredGpu],
    hosts: Mapping[GpuKey, Bounded],
    powers: Mapping[GpuKey, tuple[int, ...]],
    constants: Mapping[GpuKey, int],
) -> Iterator[Meter]:
    for one in gpus:
        known = [window.energy_uj for window in one.windows if window.energy_uj is not None]
        key = (one.node, one.gpu)
        yield Meter(
            one.node,
            one.gpu,
            one.deployment_at(one.windows[0].starts_us),
            one.last.gpu_model,
            one.last.site,
            sum(known) if known else None,
            sum(window.lower_uj for window in one.windows),
            sum(window.upper_uj for window in one.windows),
            hosts[key].value,
            worst_tier(window.tier for window in one.windows),
            tuple(sorted({flag for window in one.windows for flag in window.flags})),
            constants.get(key),
            powers[key],
        )

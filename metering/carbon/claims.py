"""Who claims what of an hour's GPU energy: requests by key, and the time when nobody was there."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl

from metering.carbon.costs import models_served
from metering.carbon.meters import MeteredGpu
from metering.carbon.modelled import Known, Place, estimate
from metering.rules.carbon.apportioning import rounded_up, shared
from metering.rules.carbon.entries import Key, Part
from metering.rules.carbon.impacts import HOST_PRIOR_MW, Bounded
from metering.rules.carbon.pools import Claim
from metering.rules.carbon.tiers import Tier, worst_tier
from metering.tables import CARBON_KEYS

NOTHING = Bounded(0, 0, 0)
MICROSECOND = timedelta(microseconds=1)

PARTLY_KNOWN: Tier = "B"
"""Tier of energy that is known of some GPUs or minutes and not of others, which its upper bound holds."""


class Used(NamedTuple):
    """What some GPUs used: where, who claims it, and the energy of their nodes beside them in µJ."""

    site: str | None
    claims: Sequence[Claim]
    host: Bounded


def measured(
    requests: pl.DataFrame, windows: pl.DataFrame, gpus: Sequence[MeteredGpu], hosts: Mapping[tuple[str, str], Bounded]
) -> Iterator[Used]:
    """What the GPUs of each deployment used by their meters, and those that served none.

    requests: with their shares (SHARES_SCHEMA) and `is_new`; windows: WINDOWS_SCHEMA; hosts: µJ by node and GPU.
    """
    models = models_served(requests)
    host_of = _hosts_of_deployments(gpus, hosts)
    site_of = {one.deployment_at(window.starts_us): one.last.site for one in gpus for window in one.windows}
    for deployment, own in windows.partition_by("deployment", as_dict=True).items():
        name = deployment[0]
        count = own["gpus"].max()
        served = requests.filter(pl.col("deployment").eq_missing(name)).with_columns(
            energy_uj=pl.col("dynamic_uj") + pl.col("busy_uj"),
            gpu_us=pl.col("presence_us") * count,
            tier=pl.col("tier").replace("U", PARTLY_KNOWN),
        )
        claims = [*_of_requests(served), *_of_nobody(own, models.get(name))]
        yield Used(site_of.get(name), claims, host_of.get(name, NOTHING))


def modelled(requests: pl.DataFrame, places: Mapping[Place, Known], hour: datetime) -> Used:
    """What requests used in an hour that no meter saw, by the model of `metering.carbon.modelled`."""
    estimated = requests.drop("lower_uj", "upper_uj", "tier").hstack(estimate(requests, places, hour))
    claims = _of_requests(estimated)
    gpu_us = sum(claim.gpu_us for claim in claims)
    return Used(None, claims, HOST_PRIOR_MW.times(Bounded(gpu_us, gpu_us, gpu_us), 1_000))


def _of_requests(requests: pl.DataFrame) -> list[Claim]:
    """Claims of requests with `energy_uj`, its bounds, `gpu_us` and `tier`: one for each key and tier."""
    sums = [pl.col(name).cast(pl.Int128).sum() for name in ("energy_uj", "lower_uj", "upper_uj", "gpu_us")]
    grouped = requests.group_by(*CARBON_KEYS, "tier").agg(pl.col("is_new").sum(), *sums)
    claims = []
    for *names, tier, new, energy_uj, lower_uj, upper_uj, gpu_us in grouped.iter_rows():
        energy = None if tier == "U" else Bounded(energy_uj, lower_uj, upper_uj)
        claims.append(Claim(Key._make(["use", *names, tier, ()]), new, energy, gpu_us))
    return claims


def _of_nobody(windows: pl.DataFrame, model: str | None) -> list[Claim]:
    """What GPUs used with nobody there (idle), what no known request did, and windows nothing is known of."""
    rows = list(windows.iter_rows(named=True))
    known = [row for row in rows if row["energy_uj"] is not None]
    tier = worst_tier(PARTLY_KNOWN if row["tier"] == "U" else row["tier"] for row in known)
    waiting_us = sum(
        row["gpus"] * ((row["ends_at"] - row["starts_at"]) // MICROSECOND - row["busy_us"]) for row in rows
    )
    is_ready = windows["deployment"].is_not_null().all()
    claims = []
    if known:
        claims.append(Claim(_nobodys("idle", model, tier), 0, _part(known, "idle_uj"), waiting_us if is_ready else 0))
        claims.append(
            Claim(
                _nobodys("unallocated", model, tier), 0, _part(known, "unallocated_uj"), 0 if is_ready else waiting_us
            )
        )
    if len(known) < len(rows):
        claims.append(Claim(_nobodys("unallocated", model, "U"), 0, None, 0))
    return [claim for claim in claims if claim.gpu_energy is None or claim.gpu_energy.upper or claim.gpu_us]


def _nobodys(part: Part, model: str | None, tier: Tier) -> Key:
    return Key(part, None, None, None, None, model, None, tier, ())


def _part(windows: Sequence[Mapping[str, int]], name: str) -> Bounded:
    """A part of the windows' energies, with bounds in proportion to theirs."""
    whole = [(row[name], row["lower_uj"], row["upper_uj"], max(row["energy_uj"], 1)) for row in windows]
    return Bounded(
        sum(part for part, _lower, _upper, _energy in whole),
        sum(part * lower // energy for part, lower, _upper, energy in whole),
        sum(rounded_up(part * upper, energy) for part, _lower, upper, energy in whole),
    )


def _hosts_of_deployments(
    gpus: Sequence[MeteredGpu], hosts: Mapping[tuple[str, str], Bounded]
) -> Mapping[str | None, Bounded]:
    """Energy of nodes by the deployments that their GPUs served, each for its time."""
    found: dict[str | None, list[Bounded]] = defaultdict(list)
    for one in gpus:
        time_us: dict[str | None, int] = defaultdict(int)
        for window in one.windows:
            time_us[one.deployment_at(window.starts_us)] += window.ends_us - window.starts_us
        host = hosts[one.node, one.gpu]
        names, weights = [name or "" for name in time_us], list(time_us.values())
        parts = [shared(bound, weights, names) for bound in (host.value, host.lower, host.upper)]
        for name, part in zip(time_us, zip(*parts, strict=True), strict=True):
            found[name].append(Bounded(*part))
    return {
        name: Bounded(sum(one.value for one in own), sum(one.lower for one in own), sum(one.upper for one in own))
        for name, own in found.items()
    }

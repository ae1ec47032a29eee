"""From energy at GPUs to entries: what a pool of GPUs used in an hour, shared among those who claim it.

A pool is a deployment, or GPUs that served none. Its host, building and grams are worked out once, for the whole, and
shared by largest remainder in proportion to GPU energy: entries sum to the pool exactly, in every unit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

from metering.rules.carbon.apportioning import shared
from metering.rules.carbon.entries import Entry, Key, Sums
from metering.rules.carbon.factors import HourFactor
from metering.rules.carbon.hardware import LIFETIME_YEARS, LIFETIME_YEARS_MAX, LIFETIME_YEARS_MIN, manufacture
from metering.rules.carbon.impacts import Bounded, carbon_ng, embodied_ng, facility_energy


@dataclass(frozen=True, slots=True)
class Claim:
    """One key's part of a pool; the key is without factors, which are the pool's.

    requests: those admitted in the hour. gpu_energy: in µJ; None: unknown. gpu_us: time of one GPU, in µs.
    """

    key: Key
    requests: int
    gpu_energy: Bounded | None
    gpu_us: int


@dataclass(frozen=True, slots=True)
class Pool:
    """What some GPUs used in an hour, and where. host: energy of their nodes beside them, in µJ."""

    claims: Sequence[Claim]
    host: Bounded
    pue_ppm: Bounded
    location: HourFactor | None
    market: HourFactor | None


def entries_of(pool: Pool) -> list[Entry]:
    """Entries of a pool, one a claim; what isn't known stays unknown."""
    known = [claim for claim in pool.claims if claim.gpu_energy is not None]
    numbers = {number for one in (pool.location, pool.market) if one is not None for number in one.numbers}
    factors = tuple(sorted(numbers))
    entries = [
        (claim.key._replace(factors=factors), sums) for claim, sums in zip(known, _known_sums(pool, known), strict=True)
    ]
    unknown = (claim for claim in pool.claims if claim.gpu_energy is None)
    return entries + [(claim.key, Sums(claim.requests, *repeat(None, len(Sums._fields) - 1))) for claim in unknown]


def _known_sums(pool: Pool, claims: Sequence[Claim]) -> list[Sums]:
    """Sums of claims whose GPU energy is known."""
    energies = [claim.gpu_energy for claim in claims if claim.gpu_energy is not None]
    facility = facility_energy(_it_energy(energies, pool.host), pool.pue_ppm)
    location, location_lower, location_upper = _emitted(facility, pool.location)
    market, _market_lower, _market_upper = _emitted(facility, pool.market)
    by_energy = _Sharing(claims, [energy.value for energy in energies])
    by_lower = _Sharing(claims, [energy.lower for energy in energies])
    by_upper = _Sharing(claims, [energy.upper for energy in energies])
    by_time = _Sharing(claims, [claim.gpu_us for claim in claims])
    gpu_us = sum(claim.gpu_us for claim in claims)
    columns = (
        (claim.requests for claim in claims),
        (energy.value for energy in energies),
        by_energy.parts(facility.value),
        by_lower.parts(facility.lower),
        by_upper.parts(facility.upper),
        by_energy.parts(location),
        by_lower.parts(location_lower),
        by_upper.parts(location_upper),
        by_energy.parts(market),
        by_time.parts(embodied_ng(gpu_us, manufacture(LIFETIME_YEARS))),
        by_time.parts(embodied_ng(gpu_us, manufacture(LIFETIME_YEARS_MAX))),
        by_time.parts(embodied_ng(gpu_us, manufacture(LIFETIME_YEARS_MIN))),
    )
    return [_ordered(Sums(*row)) for row in zip(*columns, strict=True)]


def _ordered(sums: Sums) -> Sums:
    """Bounds that hold the figure: each was shared by its own weights, and may be beside it by rounding."""
    changes = {}
    for name in ("energy_{}_uj", "location_{}_ng", "embodied_{}_ng"):
        value = getattr(sums, name.replace("_{}", ""))
        if value is not None:
            changes[name.format("lower")] = min(value, getattr(sums, name.format("lower")))
            changes[name.format("upper")] = max(value, getattr(sums, name.format("upper")))
    return sums._replace(**changes)


def _emitted(facility: Bounded, of_hour: HourFactor | None) -> tuple[int | None, int | None, int | None]:
    """Grams of a facility's energy in ng, with bounds; unknown without a factor."""
    if of_hour is None:
        return None, None, None
    emitted = carbon_ng(facility, of_hour.factor)
    return emitted.value, emitted.lower, emitted.upper


def _it_energy(energies: Sequence[Bounded], host: Bounded) -> Bounded:
    return Bounded(
        sum(energy.value for energy in energies) + host.value,
        sum(energy.lower for energy in energies) + host.lower,
        sum(energy.upper for energy in energies) + host.upper,
    )


class _Sharing:
    """Shares totals among claims by one set of weights; equally, where none has a weight."""

    def __init__(self, claims: Sequence[Claim], weights: Sequence[int]) -> None:
        self._names = [repr(claim.key) for claim in claims]
        self._weights = weights if any(weights) else [1] * len(weights)

    def parts(self, total: int | None) -> Iterable[int | None]:
        """Parts of a total, which sum to it; all unknown, if it is."""
        if total is None or not self._weights:
            return repeat(None, len(self._weights))
        parts = shared(total, self._weights, self._names)
        assert parts is not None
        return parts

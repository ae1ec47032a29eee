"""Exact shares of many windows at once, as `metering.rules.carbon.sharing` defines for one."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from metering.carbon.attribution_flights import Booleans, Integers
from metering.rules.carbon.weights import PARTS_PER_SECOND, WORK_MAX


@dataclass(frozen=True, slots=True)
class Claims:
    """Requests in windows, sorted by window; each window has one at least.

    window: number of each claim's; first: of each window, place of its first claim. presence, plain, weighed: see
    `rules.carbon.weights`. spread_per_mille, presence_milli: of `TokenCosts`, by window. flight: of each claim;
    identity: of each flight.
    """

    window: Integers
    first: Integers
    presence: Integers
    plain: Integers
    weighed: Integers
    is_known: Booleans
    spread_per_mille: Integers
    presence_milli: Integers
    flight: Integers
    identity: pl.Series

    def sums(self, amounts: Integers) -> Integers:
        """Sums by window."""
        return np.add.reduceat(amounts, self.first)


@dataclass(frozen=True, slots=True)
class Totals:
    """By window: energy of requests, busy time, and the meter's energy (0 where unknown) with bounds."""

    dynamic_uj: Integers
    busy_uj: Integers
    busy_us: Integers
    energy_uj: Integers
    lower_uj: Integers
    upper_uj: Integers


@dataclass(frozen=True, slots=True)
class Parts:
    """By claim: what it has of its window."""

    dynamic_uj: Integers
    busy_uj: Integers
    presence_us: Integers
    lower_uj: Integers
    upper_uj: Integers


def share(claims: Claims, totals: Totals) -> Parts:
    """Share windows among their claims (`sharing.share_window`)."""
    plain, weighed = _works(claims)
    spread = claims.spread_per_mille[claims.window]
    weights = _weights(claims, plain + weighed)
    dynamic = _largest_remainder(claims, totals.dynamic_uj, weights)
    least = most = dynamic
    for scaled in (weighed * 1_000 // spread, weighed * spread // 1_000):
        end, _rest = _divided(claims, totals.dynamic_uj, _weights(claims, plain + scaled))
        least, most = np.minimum(least, end), np.maximum(most, end + 1)
    busy = _largest_remainder(claims, totals.busy_uj, claims.presence)
    moments = _largest_remainder(claims, totals.busy_us, claims.presence)
    lower, upper = _bounds(claims, totals, least + busy, most + busy)
    return Parts(dynamic, busy, moments, lower, upper)


def _works(claims: Claims) -> tuple[Integers, Integers]:
    """Works, with those that aren't known from the others' (`sharing.works_of`)."""
    plain, weighed = np.minimum(claims.plain, WORK_MAX), np.minimum(claims.weighed, WORK_MAX)
    if claims.presence_milli.any():
        weighed = np.minimum(weighed + _timed(claims), WORK_MAX)
    if claims.is_known.all():
        return plain, weighed
    done = claims.sums((plain + weighed) * claims.is_known)
    parts = claims.sums(claims.presence * claims.is_known)
    guesses = pl.DataFrame(
        {"part": claims.presence, "done": done[claims.window], "parts": parts[claims.window]}
    ).select(
        pl.when(pl.col("parts") > 0)
        .then(pl.col("part").cast(pl.Int128) * pl.col("done") // pl.max_horizontal("parts", pl.lit(1)))
        .otherwise(0)
        .clip(0, WORK_MAX)
        .cast(pl.Int64)
    )
    return np.where(claims.is_known, plain, guesses.to_series().to_numpy()), weighed * claims.is_known


def _timed(claims: Claims) -> Integers:
    """What goes by presence (`Work.with_presence`)."""
    product = pl.col("part").cast(pl.Int128) * pl.col("cost")
    return (
        pl.DataFrame({"part": claims.presence, "cost": claims.presence_milli[claims.window]})
        .select((product // PARTS_PER_SECOND).cast(pl.Int64))
        .to_series()
        .to_numpy()
    )


def _weights(claims: Claims, works: Integers) -> Integers:
    """Works; in a window without any, presence."""
    is_worked = claims.sums(works) > 0
    return works if is_worked.all() else np.where(is_worked[claims.window], works, claims.presence)


def _divided(claims: Claims, totals: Integers, weights: Integers) -> tuple[Integers, Integers]:
    """Totals in proportion to weights, rounded down, and what rounding took in parts of a window's weights.

    The product needs 128 bits. What rounding took is below the sum of a window's weights, so below 2^62, and comes out
    right of arithmetic modulo 2^64.
    """
    total, whole = totals[claims.window], claims.sums(weights)[claims.window]
    product = pl.col("total").cast(pl.Int128) * pl.col("weight")
    parts: Integers = (
        pl.DataFrame({"total": total, "weight": weights, "whole": whole})
        .select((product // pl.col("whole")).cast(pl.Int64))
        .to_series()
        .to_numpy()
    )
    return parts, total * weights - parts * whole


def _largest_remainder(claims: Claims, totals: Integers, weights: Integers) -> Integers:
    """Parts that sum to the totals (`apportioning.shared`)."""
    parts, rests = _divided(claims, totals, weights)
    shared = parts.copy()
    left = totals - claims.sums(parts)
    ends = np.append(claims.first[1:], len(parts))
    for window in np.flatnonzero(left).tolist():
        start, count = int(claims.first[window]), int(left[window])
        shared[start + _largest(claims, rests[start : ends[window]], count, start)] += 1
    return shared


def _largest(claims: Claims, rests: Integers, count: int, start: int) -> Integers:
    """Places of the `count` largest rests of the claims from `start` on; among equals, of the lower identities."""
    limit = np.partition(rests, len(rests) - count)[len(rests) - count]
    above, equal = np.flatnonzero(rests > limit), np.flatnonzero(rests == limit)
    wanted = count - len(above)
    if wanted < len(equal):
        identity = claims.identity[claims.flight[start + equal]]
        equal = equal[identity.arg_sort()[:wanted].to_numpy()]
    return np.concatenate([above, equal])


def _bounds(claims: Claims, totals: Totals, least: Integers, most: Integers) -> tuple[Integers, Integers]:
    """Bounds of shares between least and most (`sharing._bounds`)."""
    energy, meter_lower, meter_upper = (
        amounts[claims.window] for amounts in (totals.energy_uj, totals.lower_uj, totals.upper_uj)
    )
    lower, upper = pl.col("lower").cast(pl.Int128), pl.col("upper").cast(pl.Int128)
    bounds = pl.DataFrame(
        {"least": least, "most": most, "energy": np.maximum(energy, 1), "lower": meter_lower, "upper": meter_upper}
    ).select(
        (pl.col("least") * lower // pl.col("energy")).cast(pl.Int64).alias("lower"),
        ((pl.col("most") * upper + pl.col("energy") - 1) // pl.col("energy")).cast(pl.Int64).alias("upper"),
    )
    by_time, rest = _divided(claims, totals.upper_uj, claims.presence)
    is_unknown = energy == 0
    lower_uj: Integers = bounds["lower"].to_numpy().copy()
    upper_uj: Integers = bounds["upper"].to_numpy().copy()
    lower_uj[is_unknown], upper_uj[is_unknown] = 0, (by_time + (rest > 0))[is_unknown]
    return lower_uj, upper_uj

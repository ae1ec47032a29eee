"""Costs of tokens, fitted to what GPUs used, and kept only where they tell more than data sheets do.

The dynamic energy of a minute is taken to be a·Σdecode + b·Σprefill + c·Σcontext + d·T_busy, with no negative cost
(non-negative least squares: Lawson and Hanson 1974, as SciPy has it). Then κ_p = b/a, κ_c = c/a and κ_s = d/a. T_busy,
which is the sum of presences, has to be there: a step reads all weights whoever is in it, and a fit without it charges
that to whatever kind of token came with it. It is a fit, so it is done in floating point; what comes of it is rounded
to whole numbers, and attribution stays exact.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import nnls

from metering.carbon.attribution import INSTANT
from metering.carbon.attribution_flights import Integers, Period, flights_of, is_work_known, legs_of, swept
from metering.rules.carbon.integration import HOUR_US, MINUTE_US
from metering.rules.carbon.weights import TokenCosts

Floats = npt.NDArray[np.float64]

WORK_SCHEMA: Final[dict[str, pl.DataType]] = {
    "deployment": pl.String(),
    "starts_at": INSTANT,
    "decode": pl.Int64(),
    "prefill": pl.Int64(),
    "context": pl.Int64(),
    "busy_us": pl.Int64(),
    "dynamic_uj": pl.Int64(),
}
"""What GPUs did in a minute: decode and prefill in thousandths of a token, context in thousands of pairs of tokens."""

FEATURES = ("decode", "prefill", "context", "busy_us")
MINUTES_MIN = 120
"""A fit to less than two hours of use says nothing of the next."""
ASIDE_EVERY = 3
"""Every third hour is kept aside to check with."""
CALIBRATED_SPREAD_PER_MILLE = 1_500

_PREFILL_ONLY = TokenCosts(10**6, 0, 1_000, "default")
_CONTEXT_ONLY = TokenCosts(0, 10**6, 1_000, "default")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted costs, the minutes fitted and checked, and the errors when checked: root mean square, in µJ a minute."""

    costs: TokenCosts
    fitted_minutes: int
    checked_minutes: int
    error_uj: int
    prior_error_uj: int


def work_of(requests: pl.DataFrame, windows: pl.DataFrame) -> pl.DataFrame:
    """Work (WORK_SCHEMA) of the minutes in which both energy and all requests are known.

    requests: REQUESTS_SCHEMA; windows: WINDOWS_SCHEMA of the same hours. Hours can be taken one at a time, and what
    comes of them put together.
    """
    whole = (pl.col("ends_at") - pl.col("starts_at")) == pl.duration(microseconds=MINUTE_US)
    minutes = windows.filter(whole & (pl.col("tier") == "A") & (pl.col("requests") > 0))
    if not minutes.height:
        return pl.DataFrame(schema=WORK_SCHEMA)
    deployments = minutes["deployment"].unique().sort().to_list()
    starts_us = minutes["starts_at"].to_physical().to_list()
    period = Period(min(starts_us), max(starts_us) + MINUTE_US)
    flights, _rows = flights_of(requests, deployments, period)
    sweep = swept(flights, len(deployments), period)
    legs, context = (
        legs_of(flights, sweep, deployments, dict.fromkeys(deployments, only), period)
        for only in (_PREFILL_ONLY, _CONTEXT_ONLY)
    )
    sums = {
        name: np.zeros((len(deployments), period.minutes), dtype=np.int64)
        for name in ("decode", "prefill", "context", "unknown")
    }
    at = flights.deployment[legs.flight], legs.minute
    for name, amounts in (("decode", legs.plain), ("prefill", legs.weighed), ("context", context.weighed),
                          ("unknown", ~is_work_known(flights)[legs.flight])):  # fmt: skip
        np.add.at(sums[name], at, amounts)
    return _known(minutes, sums, deployments, period)


def calibrate(work: pl.DataFrame, prior: TokenCosts) -> Calibration | None:
    """Costs for one model on one kind of GPU, from the work (WORK_SCHEMA) of some days, as a rule 7.

    None: there is too little, decoding seems to cost nothing, or the prior tells as much of the hours kept aside.
    """
    hours = work["starts_at"].to_physical().to_numpy() // HOUR_US
    is_aside = hours % ASIDE_EVERY == ASIDE_EVERY - 1
    features = work.select(pl.col(FEATURES).cast(pl.Float64)).to_numpy()
    energy_uj = work["dynamic_uj"].cast(pl.Float64).to_numpy()
    if (~is_aside).sum() < MINUTES_MIN or not is_aside.any():
        return None
    costs = _fitted(features[~is_aside], energy_uj[~is_aside])
    if costs is None:
        return None
    error_uj, prior_error_uj = (_error_uj(one, features, energy_uj, is_aside) for one in (costs, prior))
    if error_uj >= prior_error_uj:
        return None
    checked = int(is_aside.sum())
    return Calibration(costs, work.height - checked, checked, round(error_uj), round(prior_error_uj))


def _known(minutes: pl.DataFrame, sums: dict[str, Integers], deployments: list[str], period: Period) -> pl.DataFrame:
    numbers = {name: at for at, name in enumerate(deployments)}
    deployment = minutes["deployment"].replace_strict(numbers, return_dtype=pl.Int64).to_numpy()
    minute = (minutes["starts_at"].to_physical().to_numpy() - period.starts_us) // MINUTE_US
    columns = [pl.Series(name, amounts[deployment, minute]) for name, amounts in sums.items()]
    return minutes.with_columns(columns).filter(pl.col("unknown") == 0).select(list(WORK_SCHEMA))


def _fitted(features: Floats, energy_uj: Floats) -> TokenCosts | None:
    # Each feature is fitted in its own scale, so that none is small beside the others.
    scales = np.maximum(features.max(axis=0), 1)
    solution, _residual = nnls(features / scales, energy_uj)
    decode, prefill, context, busy = (solution / scales).tolist()
    if decode <= 0:
        return None
    # Decode and prefill are in thousandths of a token, context in thousands of pairs, busy time in millionths of 1 s.
    return TokenCosts(
        min(round(prefill / decode * 10**6), 10**7),
        min(round(context / decode * 10**6), 10**12),
        CALIBRATED_SPREAD_PER_MILLE,
        "calibrated",
        min(round(busy / decode * 10**6), 10**7),
    )


def _error_uj(costs: TokenCosts, features: Floats, energy_uj: Floats, is_aside: npt.NDArray[np.bool_]) -> float:
    """Error out of sample of energy in proportion to work; costs say how work compares, and the fit what it takes."""
    per_million = [10**6, costs.prefill_millionths, costs.context_trillionths, costs.presence_milli]
    work = features @ (np.array(per_million) / 10**6)
    fitted = work[~is_aside]
    uj_per_work = float(fitted @ energy_uj[~is_aside]) / max(float(fitted @ fitted), 1.0)
    errors = energy_uj[is_aside] - uj_per_work * work[is_aside]
    return float(np.sqrt(np.mean(errors**2)))

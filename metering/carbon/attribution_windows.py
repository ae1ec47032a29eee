"""The windows of a meter by deployment: energy of their GPUs, split into what is shared and what isn't."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from metering.carbon.attribution_flights import Booleans, Integers, Period, Sweep
from metering.rules.carbon.integration import MINUTE_US
from metering.rules.carbon.splitting import Split, split
from metering.rules.carbon.tiers import TIERS

NO_DEPLOYMENT = -1


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows in the order of deployment and time; arrays are by window, `splits` by row of the meter.

    deployment: its number, or NO_DEPLOYMENT. first_minute, end_minute: [first, end) of the period. Energies in µJ, 0
    where no GPU's is known (`is_known`). tier: place of the worst in TIERS.
    """

    deployment: Integers
    first_minute: Integers
    end_minute: Integers
    gpus: Integers
    busy_us: Integers
    energy_uj: Integers
    lower_uj: Integers
    upper_uj: Integers
    dynamic_uj: Integers
    busy_uj: Integers
    idle_uj: Integers
    unallocated_uj: Integers
    tier: Integers
    is_known: Booleans
    is_missing: Booleans
    splits: Sequence[Split | None]

    @property
    def is_minute(self) -> Booleans:
        """Whether a window of a deployment is one minute, as most are; others may overlap these."""
        is_minute: Booleans = (self.end_minute - self.first_minute == 1) & (self.deployment != NO_DEPLOYMENT)
        return is_minute


def windows_of(meter: pl.DataFrame, deployments: Sequence[str], period: Period, sweep: Sweep) -> Windows:
    """Windows of a meter (METER_SCHEMA). Edges are whole minutes."""
    numbers = {name: number for number, name in enumerate(deployments)}
    rows = meter.select(
        pl.col("deployment").replace_strict(numbers, default=NO_DEPLOYMENT, return_dtype=pl.Int64),
        *((pl.col(name).to_physical() - period.starts_us) // MINUTE_US for name in ("starts_at", "ends_at")),
    ).to_numpy()
    keys, of_row = np.unique(rows, axis=0, return_inverse=True)
    deployment, first, end = keys.T
    edges = sweep.busy_us_at_edge
    busy_us = np.zeros(len(keys), dtype=np.int64)
    served = deployment != NO_DEPLOYMENT
    at = deployment[served]
    busy_us[served] = edges[at, end[served]] - edges[at, first[served]]
    splits = _splits(meter, busy_us[of_row].tolist())
    known = [Split(0, 0, 0, 0) if one is None else one for one in splits]

    def summed(amounts: Sequence[int] | pl.Series) -> Integers:
        sums = np.zeros(len(keys), dtype=np.int64)
        np.add.at(sums, of_row, np.asarray(amounts, dtype=np.int64))
        return sums

    unknown = meter["energy_uj"].is_null()
    tier = np.zeros(len(keys), dtype=np.int64)
    np.maximum.at(tier, of_row, [TIERS.index(one) for one in meter["tier"].to_list()])
    gpus = summed([1] * len(splits))
    return Windows(
        deployment=deployment,
        first_minute=first,
        end_minute=end,
        gpus=gpus,
        busy_us=busy_us,
        energy_uj=summed(meter["energy_uj"].fill_null(0)),
        lower_uj=summed(meter["lower_uj"]),
        upper_uj=summed(meter["upper_uj"]),
        dynamic_uj=summed([one.dynamic_uj for one in known]),
        busy_uj=summed([one.busy_uj for one in known]),
        idle_uj=summed([one.idle_uj for one in known]),
        unallocated_uj=summed([one.unallocated_uj for one in known]),
        tier=tier,
        is_known=summed(unknown) < gpus,
        is_missing=summed(unknown) > 0,
        splits=splits,
    )


def _splits(meter: pl.DataFrame, busy_us: Sequence[int]) -> list[Split | None]:
    """Split by row: None where energy is unknown. All is unallocated where no model is loaded."""
    rows = meter.select(
        "deployment", "energy_uj", "idle_power_mw", "covered_us",
        (pl.col("ends_at") - pl.col("starts_at")).dt.total_microseconds(),
    ).rows()  # fmt: skip
    splits: list[Split | None] = []
    for (deployment, energy_uj, idle_power_mw, covered_us, window_us), busy in zip(rows, busy_us, strict=True):
        if energy_uj is None:
            splits.append(None)
        elif deployment is None:
            splits.append(Split(0, 0, 0, energy_uj))
        else:
            splits.append(split(energy_uj, idle_power_mw, covered_us=covered_us, window_us=window_us, busy_us=busy))
    return splits

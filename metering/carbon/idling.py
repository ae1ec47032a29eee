"""The power that a GPU draws with a model loaded and nobody to serve, from the minutes when that was so."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on

from metering.carbon.meters import MeteredGpu
from metering.ledger.append import microseconds
from metering.rules.carbon.splitting import idle_power_mw, mean_power_mw
from metering.tables import carbon_gpu

MEMORY = timedelta(days=7)
"""How long what was measured of an idle GPU is taken to hold."""

GpuKey = tuple[str, str]
"""Node and UUID."""


def idle_powers(gpus: Sequence[MeteredGpu], requests: pl.DataFrame) -> Mapping[GpuKey, tuple[int, ...]]:
    """Mean power (mW) of each minute in which a GPU had a deployment loaded and no request in flight."""
    busy = _busy_minutes(requests)
    found: dict[GpuKey, tuple[int, ...]] = {}
    for one in gpus:
        powers = (
            mean_power_mw(window)
            for window in one.windows
            if (deployment := one.deployment_at(window.starts_us)) is not None
            and window.starts_us not in busy.get(deployment, ())
        )
        found[one.node, one.gpu] = tuple(power for power in powers if power is not None)
    return found


def idle_constants(
    connection: sa.Connection, hour: datetime, measured: Mapping[GpuKey, Sequence[int]]
) -> Mapping[GpuKey, int]:
    """Idle power of each GPU (mW) from this hour and the week before it; absent where it never was idle."""
    powers: dict[GpuKey, list[int]] = defaultdict(list)
    newest = (
        sa.select(carbon_gpu.c.node, carbon_gpu.c.gpu, carbon_gpu.c.idle_powers_mw)
        .ext(distinct_on(carbon_gpu.c.hour, carbon_gpu.c.node, carbon_gpu.c.gpu))
        .where(carbon_gpu.c.hour >= hour - MEMORY, carbon_gpu.c.hour < hour)
        .order_by(carbon_gpu.c.hour, carbon_gpu.c.node, carbon_gpu.c.gpu, carbon_gpu.c.batch_seq.desc())
    )
    for node, gpu, remembered in connection.execute(newest):
        powers[node, gpu] += remembered
    for key, own in measured.items():
        powers[key] += own
    constants = {key: idle_power_mw(of_gpu) for key, of_gpu in powers.items()}
    return {key: power for key, power in constants.items() if power is not None}


def _busy_minutes(requests: pl.DataFrame) -> Mapping[str, set[int]]:
    """Minutes (µs since 1970) with a request in flight, by deployment."""
    minutes = (
        requests.lazy()
        .filter(pl.col("deployment").is_not_null())
        .select("deployment", minute=pl.datetime_ranges(pl.col("started_at").dt.truncate("1m"), "ended_at", "1m"))
        .explode("minute")
        .unique()
        .collect()
    )
    found: dict[str, set[int]] = defaultdict(set)
    for deployment, minute in minutes.iter_rows():
        found[deployment].add(microseconds(minute))
    return found

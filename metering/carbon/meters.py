"""What the meters of GPUs say of an hour: readings integrated into windows, each with the deployment it served."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl
import sqlalchemy as sa

from metering.carbon.attribution import METER_SCHEMA
from metering.carbon.chains import instant
from metering.carbon.readings import READING_COLUMNS, Reading
from metering.ledger.append import microseconds
from metering.rules.carbon import integration
from metering.rules.carbon.hardware import GPU_MODELS, UNKNOWN_POWER_LIMIT_MW
from metering.rules.carbon.integration import Gpu, WindowEnergy, integrate
from metering.tables import energy_reading

NEAR = timedelta(minutes=15)
"""Readings so long before and after an hour are read with it; of a longer gap the nearest one."""
GAP_MAX = timedelta(days=1)


class MeteredGpu(NamedTuple):
    """A GPU over an hour: its readings in the order of the node's clock, and its windows."""

    node: str
    gpu: str
    readings: Sequence[Reading]
    windows: Sequence[WindowEnergy]

    @property
    def last(self) -> Reading:
        """The reading that says what it is and where."""
        return self.readings[-1]

    def deployment_at(self, at_us: int) -> str | None:
        """Deployment that it served: what the last reading before said, or the first one after."""
        place = bisect_right(self.readings, at_us, key=lambda reading: reading.at_us)
        return self.readings[max(place - 1, 0)].deployment

    def readings_around(self, starts_us: int, ends_us: int) -> Sequence[Reading]:
        """Readings within a window, and the nearest on either side."""
        times = [reading.at_us for reading in self.readings]
        return self.readings[max(bisect_right(times, starts_us) - 1, 0) : bisect_left(times, ends_us) + 1]


def read_gpus(connection: sa.Connection, hour: datetime) -> list[MeteredGpu]:
    """GPUs that anything is known of in an hour, in the order of node and GPU."""
    end = hour + timedelta(hours=1)
    by_gpu: dict[tuple[str, str], list[Reading]] = defaultdict(list)
    for reading in _read(connection, hour, end):
        by_gpu[reading.node, reading.gpu].append(reading)
    return [
        MeteredGpu(node, gpu, readings, windows_of(gpu, readings, hour, end))
        for (node, gpu), readings in sorted(by_gpu.items())
    ]


def _read(connection: sa.Connection, hour: datetime, end: datetime) -> list[Reading]:
    """Readings near the hour, and of each GPU that has none near on one side the nearest there."""
    at = energy_reading.c.at
    near = sa.select(*READING_COLUMNS).where(at >= hour - NEAR, at <= end + NEAR)
    rows = {Reading(*row) for row in connection.execute(near)}
    since, until = microseconds(hour), microseconds(end)
    has_before = {(one.node, one.gpu) for one in rows if one.at_us < since}
    has_after = {(one.node, one.gpu) for one in rows if one.at_us >= until}
    far = sa.select(*READING_COLUMNS).where(
        energy_reading.c.node == sa.bindparam("node"), energy_reading.c.gpu == sa.bindparam("gpu")
    )
    for key in _known_gpus(connection, hour, end):
        which = {"node": key[0], "gpu": key[1]}
        if key not in has_before:
            rows |= {
                Reading(*row) for row in connection.execute(far.where(at < hour).order_by(at.desc()).limit(1), which)
            }
        if key not in has_after:
            rows |= {Reading(*row) for row in connection.execute(far.where(at >= end).order_by(at).limit(1), which)}
    return sorted(rows, key=lambda reading: (reading.at_us, reading.source, reading.event_id))


def _known_gpus(connection: sa.Connection, hour: datetime, end: datetime) -> list[tuple[str, str]]:
    """GPUs that were read within a day of the hour: a gap that is longer is not bridged."""
    at = energy_reading.c.at
    query = sa.select(energy_reading.c.node, energy_reading.c.gpu).where(at >= hour - GAP_MAX, at <= end + GAP_MAX)
    return [(row.node, row.gpu) for row in connection.execute(query.distinct())]


def windows_of(gpu: str, readings: Sequence[Reading], starts_at: datetime, ends_at: datetime) -> list[WindowEnergy]:
    """A GPU's windows from its readings."""
    limits = [reading.power_limit_mw for reading in readings if reading.power_limit_mw is not None]
    models = [GPU_MODELS[reading.gpu_model] for reading in readings if reading.gpu_model in GPU_MODELS]
    limit = max(limits or [model.power_limit_mw for model in models] or [UNKNOWN_POWER_LIMIT_MW])
    given = [
        integration.Reading(
            reading.epoch,
            reading.at_us,
            reading.monotonic_us,
            None if reading.energy_mj is None else reading.energy_mj * 1_000,
            reading.power_mw,
        )
        for reading in readings
    ]
    return integrate(Gpu(gpu, limit), given, microseconds(starts_at), microseconds(ends_at))


def meter_frame(gpus: Sequence[MeteredGpu], idle_powers_mw: Mapping[tuple[str, str], int]) -> pl.DataFrame:
    """Windows of all GPUs (METER_SCHEMA)."""
    rows = [
        (
            f"{one.node}/{one.gpu}",
            one.deployment_at(window.starts_us),
            instant(window.starts_us),
            instant(window.ends_us),
            window.covered_us,
            window.energy_uj,
            window.lower_uj,
            window.upper_uj,
            window.tier,
            idle_powers_mw.get((one.node, one.gpu)),
        )
        for one in gpus
        for window in one.windows
    ]
    return pl.DataFrame(rows, schema=METER_SCHEMA, orient="row")

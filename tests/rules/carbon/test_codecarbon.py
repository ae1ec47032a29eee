"""The same readings through codecarbon's own arithmetic: the same energy, but for its constant and its faults."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from codecarbon.core.gpu_device import GPUDevice
from codecarbon.core.units import Energy, Time

from metering.rules.carbon.integration import Reading, energy_between
from tests.rules.carbon.telemetry import GPU, HOUR_US, NOON_US, SECOND_US, Trace, reset, without_counter

J_PER_UJ = 10**-6
KWH_PER_UJ = J_PER_UJ * Energy.JOULES_TO_KWH
"""In codecarbon's rounded constant, 2.77778e-7, which is 8 in 10 million more than 1/3,600,000."""


@dataclass
class ReadGpu(GPUDevice):
    """codecarbon's device, reading a trace; its arithmetic is untouched."""

    reading: Reading = field(kw_only=True)

    def _get_total_energy_consumption(self) -> int | None:
        return None if self.reading.energy_uj is None else self.reading.energy_uj // 1_000

    def _get_power_usage(self) -> float:
        assert self.reading.power_mw is not None
        return self.reading.power_mw / 1_000

    def _get_gpu_name(self) -> str:
        return "trace"

    def _get_uuid(self) -> str:
        return "GPU-1"

    def _get_power_limit(self) -> int:
        return GPU.power_limit_mw

    def _get_memory_info(self) -> Any:
        return SimpleNamespace(total=0)


def codecarbon_kwh(readings: list[Reading]) -> float:
    device = ReadGpu(handle=None, gpu_index=0, reading=readings[0])
    device.start()
    total = Energy(0)
    for before, after in pairwise(readings):
        device.reading = after
        device.delta(Time.from_seconds((after.wall_us - before.wall_us) / SECOND_US))
        total += device.energy_delta
    return total.kWh


def our_kwh(readings: list[Reading]) -> float:
    energy_uj = energy_between(GPU, readings, NOON_US, NOON_US + HOUR_US).energy_uj
    assert energy_uj is not None
    return energy_uj * KWH_PER_UJ


@pytest.mark.parametrize("every_s", [1, 10, 15, 60, 300])
def test_counters_give_the_same_energy(every_s):
    readings = Trace(1, NOON_US, 3_600).readings(every_s)
    assert our_kwh(readings) == pytest.approx(codecarbon_kwh(readings), rel=1e-6)


def test_a_constant_power_gives_the_same_energy():
    readings = [replace(without_counter(one), power_mw=321_987) for one in Trace(1, NOON_US, 3_600).readings()]
    assert our_kwh(readings) == pytest.approx(codecarbon_kwh(readings), rel=1e-6)


def test_a_power_that_changes_differs_by_half_a_step_at_both_ends():
    readings = [without_counter(one) for one in Trace(2, NOON_US, 3_600).readings()]
    first, last = readings[0].power_mw, readings[-1].power_mw
    ends_uj = (first - last) * 10 * SECOND_US // 2_000
    assert our_kwh(readings) == pytest.approx(codecarbon_kwh(readings) + ends_uj * KWH_PER_UJ, rel=1e-6)


def test_a_spike_is_energy_to_codecarbon_and_none_to_us():
    trace = Trace(3, NOON_US, 3_600)
    readings = trace.readings()
    spiked = [*readings[:100], replace(readings[100], energy_uj=readings[100].energy_uj * 10), *readings[101:]]
    assert our_kwh(spiked) == pytest.approx(our_kwh(readings), rel=1e-6)
    assert codecarbon_kwh(spiked) > 10 * codecarbon_kwh(readings)


def test_a_reset_is_bridged_by_power_in_both():
    trace = Trace(4, NOON_US, 3_600)
    readings = reset(trace.readings(), NOON_US + 1_205 * SECOND_US)
    assert our_kwh(readings) == pytest.approx(codecarbon_kwh(readings), rel=0.01)

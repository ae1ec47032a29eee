"""From energy to grams: one rounding, bounds that combine as their causes do, and one total in every view."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.carbon.impacts import (
    HOST_PRIOR_MW,
    UJ_PER_KWH,
    Bounded,
    Factor,
    Hardware,
    carbon_ng,
    embodied_ng,
    facility_energy,
    host_energy,
    idle_views,
    metered,
    total,
)

amounts = st.integers(0, 10**15)


def test_a_kilowatt_hour_at_the_factor_of_the_slot():
    one = Bounded(UJ_PER_KWH, UJ_PER_KWH * 95 // 100, UJ_PER_KWH * 105 // 100)
    french = Factor(21_300_000, 20_000_000, 23_000_000)
    assert carbon_ng(one, french) == Bounded(21_300_000_000, 19_000_000_000, 24_150_000_000)


@given(amounts, st.integers(0, 10**9))
def test_carbon_is_rounded_once(energy_uj, factor):
    exact = Fraction(energy_uj * factor * 1_000, UJ_PER_KWH)
    found = carbon_ng(Bounded(energy_uj, energy_uj, energy_uj), Factor(factor, factor, factor))
    assert abs(found.value - exact) <= Fraction(1, 2)
    assert found.lower <= exact <= found.upper


def test_the_building_takes_its_part():
    it = Bounded(1_000, 900, 1_100, 50)
    assert facility_energy(it, Bounded(1_250_000, 1_200_000, 1_300_000)) == Bounded(1_250, 1_080, 1_430, 62)


def test_sensors_of_different_gpus_average_out_and_what_is_common_does_not():
    alike = [(f"gpu-{at}", metered(1_000_000, 950_000, 1_050_000)) for at in range(100)]
    whole = total(alike)
    assert whole == Bounded(100_000_000, 99_500_000, 100_500_000, 500_000)
    same = total([("gpu-0", figure) for _gpu, figure in alike])
    assert same == Bounded(100_000_000, 95_000_000, 105_000_000, 5_000_000)
    common = total([(gpu, Bounded(figure.value, figure.lower, figure.upper)) for gpu, figure in alike])
    assert common == Bounded(100_000_000, 95_000_000, 105_000_000, 0)


def test_a_gap_is_no_sensors_and_adds_up():
    assert total([("a", metered(100, 0, 105)), ("b", metered(0, 0, 50))]) == Bounded(100, 0, 155, 5)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.tuples(amounts, amounts, amounts).map(sorted)), max_size=8))
def test_a_sum_is_within_its_bounds(parts):
    found = total((gpu, Bounded(value, lower, upper)) for gpu, (lower, value, upper) in parts)
    assert found.lower <= found.value <= found.upper


def test_the_host_is_known_from_the_plug_then_from_its_processors_then_assumed():
    known = {"gpus": 8, "duration_us": 3_600_000_000}
    plug = host_energy(70, wall_uj=100, rapl_uj=5, **known)
    assert (plug.source, plug.energy) == ("wall", Bounded(30, 30, 30))
    assert host_energy(100, wall_uj=70, rapl_uj=None, **known).energy.value == 0
    processors = host_energy(70, wall_uj=None, rapl_uj=101, **known)
    assert (processors.source, processors.energy) == ("rapl", Bounded(101, 101, 152))
    assumed = host_energy(70, wall_uj=None, rapl_uj=None, **known)
    assert assumed.source == "prior"
    # 8 GPUs for an hour at 150 W each: 1.2 kWh.
    assert assumed.energy.value == 12 * UJ_PER_KWH // 10
    assert assumed.energy.lower == assumed.energy.value * HOST_PRIOR_MW.lower // HOST_PRIOR_MW.value


def test_an_hour_of_a_gpu_carries_its_part_of_manufacture():
    hardware = Hardware(gpu_g=273_000, server_g=5_700_000, gpus=8, lifetime_hours=3 * 8_760)
    # (273 kg + 5,700 kg / 8) / 26,280 h
    assert embodied_ng(3_600_000_000, hardware) == pytest.approx(37.5e9, rel=0.01)
    assert embodied_ng(0, hardware) == 0


@given(st.dictionaries(st.sampled_from("abcd"), amounts), amounts, amounts)
def test_idle_energy_has_one_total_in_three_views(direct, idle_uj, unallocated_uj):
    views = idle_views(direct, idle_uj, unallocated_uj)
    assert set(views) == {"platform", "pro_rata", "direct"}
    assert {view.total_uj for view in views.values()} == {sum(direct.values()) + idle_uj + unallocated_uj}
    assert views["platform"].accounts == views["direct"].accounts == direct
    assert views["direct"].apart_uj == views["platform"].platform_uj == idle_uj + unallocated_uj
    if any(direct.values()):
        assert views["pro_rata"].platform_uj == unallocated_uj

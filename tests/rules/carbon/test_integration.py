"""From readings to minutes: nothing is lost, made up or taken for nothing, whatever happens to the readings."""

from dataclasses import replace
from datetime import date
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.rules.carbon.integration import (
    SENSOR_PERCENT,
    Gpu,
    Reading,
    WindowEnergy,
    energy_between,
    integrate,
)
from metering.rules.carbon.linking import GAP_MAX_US
from metering.rules.periods import day_bounds
from tests.rules.carbon.telemetry import (
    GPU,
    HOUR_US,
    MINUTE_US,
    NOON_US,
    SECOND_US,
    Trace,
    changed,
    reset,
    without_counter,
)

BEFORE_US, AFTER_US = NOON_US - 900 * SECOND_US, NOON_US + HOUR_US + 900 * SECOND_US


def a_trace(seed: int = 1, gain_per_mille: int = 1_000) -> Trace:
    """An hour and a quarter around it on both sides."""
    return Trace(seed, BEFORE_US, (AFTER_US - BEFORE_US) // SECOND_US, gain_per_mille)


def the_hour(readings: list[Reading], gpu: Gpu = GPU) -> list[WindowEnergy]:
    return integrate(gpu, readings, NOON_US, NOON_US + HOUR_US)


def total(windows: list[WindowEnergy]) -> int:
    return sum(window.energy_uj or 0 for window in windows)


def flags(windows: list[WindowEnergy]) -> set[str]:
    return {flag for window in windows for flag in window.flags}


def is_bounded(windows: list[WindowEnergy], true_uj: int) -> bool:
    return sum(window.lower_uj for window in windows) <= true_uj <= sum(window.upper_uj for window in windows)


def test_whole_readings_give_each_minute_what_the_counter_says():
    trace = a_trace()
    windows = the_hour(trace.readings())
    assert [(window.starts_us, window.ends_us) for window in windows] == [
        (NOON_US + at * MINUTE_US, NOON_US + (at + 1) * MINUTE_US) for at in range(60)
    ]
    for window in windows:
        true_uj = trace.energy_uj(window.starts_us, window.ends_us)
        assert window.energy_uj == true_uj
        assert (window.tier, window.flags, window.covered_us) == ("A", (), MINUTE_US)
        assert window.lower_uj == true_uj * (100 - SENSOR_PERCENT) // 100
        assert window.upper_uj == -(-true_uj * (100 + SENSOR_PERCENT) // 100)


@pytest.mark.parametrize("gain_per_mille", [955, 1_045])
def test_a_sensor_that_is_off_by_what_it_may_be_is_within_the_bounds(gain_per_mille):
    trace = a_trace(gain_per_mille=gain_per_mille)
    for window in the_hour(trace.readings()):
        assert window.lower_uj <= trace.energy_uj(window.starts_us, window.ends_us) <= window.upper_uj


def test_readings_beside_the_minute_are_split_by_time():
    trace = a_trace()
    readings = [replace(one, wall_us=one.wall_us + 3_333_333) for one in trace.readings(every_s=7)]
    windows = the_hour(readings)
    assert total(windows) == energy_between(GPU, readings, NOON_US, NOON_US + HOUR_US).energy_uj
    assert is_bounded(windows, trace.energy_uj(NOON_US, NOON_US + HOUR_US))
    assert flags(windows) == set()


def _reset_epoch(trace):
    readings = reset(trace.readings(), NOON_US + 1_205 * SECOND_US)
    return changed(readings, NOON_US + 1_205 * SECOND_US, 2**62, lambda one: replace(
        one, epoch="boot-2", monotonic_us=one.monotonic_us - 10**9))  # fmt: skip


def _gap(seconds):
    return lambda trace: changed(
        trace.readings(), NOON_US + 605 * SECOND_US, NOON_US + (605 + seconds) * SECOND_US, lambda _one: None
    )


def _stuck(trace):
    readings = trace.readings()
    value = next(one.energy_uj for one in readings if one.wall_us >= NOON_US + 600 * SECOND_US)
    return changed(readings, NOON_US + 600 * SECOND_US, NOON_US + 1_000 * SECOND_US,
                   lambda one: replace(one, energy_uj=value))  # fmt: skip


def _stuck_and_lost(trace):
    readings = _stuck(trace)
    counted = {one.wall_us: one.energy_uj for one in trace.readings()}
    lost = counted[NOON_US + 990 * SECOND_US] - counted[NOON_US + 600 * SECOND_US]
    return changed(readings, NOON_US + 1_000 * SECOND_US, 2**62,
                   lambda one: replace(one, energy_uj=one.energy_uj - lost))  # fmt: skip


def _spike(seconds, times=10):
    return lambda trace: changed(
        trace.readings(), NOON_US + 600 * SECOND_US, NOON_US + (600 + seconds) * SECOND_US,
        lambda one: replace(one, energy_uj=one.energy_uj * times),
    )  # fmt: skip


def _plausible_spike(trace):
    return changed(
        trace.readings(), NOON_US + 600 * SECOND_US, NOON_US + 610 * SECOND_US,
        lambda one: replace(one, energy_uj=one.energy_uj + 3 * 10**9),
    )  # fmt: skip


def _skewed(seconds, since=600, until=1_400):
    return lambda trace: changed(
        trace.readings(), NOON_US + since * SECOND_US, NOON_US + until * SECOND_US,
        lambda one: replace(one, wall_us=one.wall_us + seconds * SECOND_US),
    )  # fmt: skip


def _power_spike(trace):
    return changed(
        [without_counter(one) for one in trace.readings()], NOON_US + 600 * SECOND_US, NOON_US + 610 * SECOND_US,
        lambda one: replace(one, power_mw=10 * 690_000),
    )  # fmt: skip


FAULTS = {
    "reset": (lambda trace: reset(trace.readings(), NOON_US + 1_205 * SECOND_US), "counter_reset"),
    "reset with a new boot": (_reset_epoch, "counter_reset"),
    "gap of 5 minutes": (_gap(300), "gap"),
    "gap of 14 minutes": (_gap(840), "gap"),
    "gap of 40 minutes": (_gap(2_400), "long_gap"),
    "stuck counter that catches up": (_stuck, "stuck_counter"),
    "stuck counter that has lost": (_stuck_and_lost, "stuck_counter"),
    "tenfold counter once": (_spike(10), "spike"),
    "tenfold counter three times": (_spike(30), "spike"),
    "counter of 0 once": (_spike(10, times=0), "spike"),
    "counter 3 kJ ahead once": (_plausible_spike, "spike"),
    "clock 90 s ahead": (_skewed(90), "clock_skew"),
    "clock 90 s behind": (_skewed(-90), "clock_skew"),
    "clock a day ahead": (_skewed(86_400), "clock_skew"),
    "no counter": (lambda trace: [without_counter(one) for one in trace.readings()], "power_only"),
    "no counter and a tenfold power": (_power_spike, "spike"),
    "missing from the start": (lambda trace: changed(trace.readings(), 0, NOON_US + 600 * SECOND_US, lambda _: None),
                               "missing"),
    "missing": (lambda _trace: [], "missing"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("gain_per_mille", [960, 1_040])
def test_the_truth_is_within_the_bounds_of_every_fault_and_the_fault_is_flagged(fault, gain_per_mille):
    befall, flag = FAULTS[fault]
    trace = a_trace(seed=3, gain_per_mille=gain_per_mille)
    readings = befall(trace)
    windows = the_hour(readings)
    true_uj = trace.energy_uj(NOON_US, NOON_US + HOUR_US)
    assert is_bounded(windows, true_uj)
    assert flag in flags(windows)
    whole = energy_between(GPU, readings, NOON_US, NOON_US + HOUR_US)
    assert whole.energy_uj == (total(windows) if flag != "missing" or total(windows) else None)
    assert whole.lower_uj <= true_uj <= whole.upper_uj
    assert set(whole.flags) == flags(windows)


def test_a_gap_is_bridged_to_the_microjoule_and_bounded_minute_by_minute():
    trace = a_trace(seed=4)
    windows = the_hour(_gap(600)(trace))
    assert total(windows) == trace.energy_uj(NOON_US, NOON_US + HOUR_US)
    bridged = [window for window in windows if "gap" in window.flags]
    assert len(bridged) == 11
    assert {window.tier for window in bridged} == {"B"}
    for window in windows:
        assert window.lower_uj <= trace.energy_uj(window.starts_us, window.ends_us) <= window.upper_uj
    whole = energy_between(GPU, _gap(600)(trace), NOON_US, NOON_US + HOUR_US)
    assert whole.upper_uj - whole.lower_uj <= whole.energy_uj * 2 * SENSOR_PERCENT // 100 + 2


def test_a_long_gap_comes_as_one_window_an_hour():
    trace = Trace(5, NOON_US - HOUR_US, 4 * 3_600)
    readings = changed(
        trace.readings(), NOON_US + 1_805 * SECOND_US, NOON_US + 2 * HOUR_US - 1_795 * SECOND_US, lambda _one: None
    )
    windows = integrate(GPU, readings, NOON_US, NOON_US + 2 * HOUR_US)
    long = [window for window in windows if window.ends_us - window.starts_us != MINUTE_US]
    assert [(window.starts_us, window.ends_us) for window in long] == [
        (NOON_US + 1_800 * SECOND_US, NOON_US + HOUR_US),
        (NOON_US + HOUR_US, NOON_US + HOUR_US + 1_800 * SECOND_US),
    ]
    assert all(window.flags == ("long_gap",) and window.tier == "B" for window in long)
    assert total(windows) == trace.energy_uj(NOON_US, NOON_US + 2 * HOUR_US)
    assert [window.starts_us for window in windows[1:]] == [window.ends_us for window in windows[:-1]]


def test_each_hour_of_a_long_gap_by_itself_gives_the_same_windows():
    trace = Trace(5, NOON_US - HOUR_US, 4 * 3_600)
    readings = changed(trace.readings(), NOON_US - 5 * SECOND_US, NOON_US + 2 * HOUR_US, lambda _one: None)
    both = integrate(GPU, readings, NOON_US, NOON_US + 2 * HOUR_US)
    near = [one for one in readings if one.wall_us < NOON_US][-1:] + [one for one in readings if one.wall_us > NOON_US]
    hours = [integrate(GPU, near, at, at + HOUR_US) for at in (NOON_US, NOON_US + HOUR_US)]
    assert [*hours[0], *hours[1]] == both
    assert len(both) == 2


def test_what_nobody_knows_is_unknown_and_never_0():
    windows = the_hour([])
    assert all(window.energy_uj is None and window.tier == "U" and window.covered_us == 0 for window in windows)
    assert all((window.lower_uj, window.upper_uj) == (0, 46_200_000_000) for window in windows)
    assert energy_between(GPU, [], NOON_US, NOON_US + HOUR_US).energy_uj is None


def test_a_gpu_that_is_off_measures_0():
    readings = [replace(one, energy_uj=0, power_mw=0) for one in a_trace().readings()]
    windows = the_hour(readings)
    assert all((window.energy_uj, window.tier, window.flags) == (0, "A", ()) for window in windows)


def test_a_counter_that_stands_still_without_a_power_leaves_energy_unknown():
    readings = [replace(one, energy_uj=10**9, power_mw=None) for one in a_trace().readings()]
    windows = the_hour(readings)
    assert all(window.energy_uj is None for window in windows)
    assert flags(windows) == {"missing", "stuck_counter"}


def test_an_exporter_that_repeats_itself_is_not_stuck():
    trace = a_trace()
    readings = [replace(one, wall_us=one.wall_us + late * SECOND_US, monotonic_us=None)
                for one in trace.readings(every_s=30) for late in (0, 10, 20)]  # fmt: skip
    windows = the_hour(readings)
    assert total(windows) == trace.energy_uj(NOON_US, NOON_US + HOUR_US)
    assert flags(windows) == set()


@pytest.mark.parametrize("seconds", [90, -90])
def test_a_clock_that_was_wrong_for_a_while_moves_no_energy(seconds):
    trace = a_trace(seed=6)
    assert [window.energy_uj for window in the_hour(_skewed(seconds)(trace))] == [
        window.energy_uj for window in the_hour(trace.readings())
    ]


def test_without_a_monotonic_clock_a_wrong_one_is_bounded_all_the_same():
    trace = a_trace(seed=6)
    readings = [replace(one, monotonic_us=None) for one in _skewed(90, 600, 620)(trace)]
    windows = the_hour(readings)
    assert is_bounded(windows, trace.energy_uj(NOON_US, NOON_US + HOUR_US))
    assert "spike" in flags(windows)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.randoms())
def test_order_repetition_and_lateness_change_nothing(seed, random):
    trace = Trace(seed, BEFORE_US, (AFTER_US - BEFORE_US) // SECOND_US)
    befall = random.choice([fault for fault, _flag in FAULTS.values()])
    readings = befall(trace)
    again = [*readings, *random.choices(readings, k=20)] if readings else []
    random.shuffle(again)
    assert the_hour(again) == the_hour(readings)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 85), min_size=40, max_size=80))
def test_minutes_sum_to_the_counter_whenever_it_is_read(seed, steps):
    at, chosen = 0, []
    trace = Trace(seed, NOON_US + HOUR_US // 2, 3_600)
    by_second = trace.readings(every_s=1)
    for step in steps:
        chosen.append(by_second[at])
        at = min(at + step, 3_600)
    windows = integrate(GPU, chosen, NOON_US, NOON_US + 2 * HOUR_US)
    assert total(windows) == chosen[-1].energy_uj - chosen[0].energy_uj
    hours = [integrate(GPU, chosen, NOON_US + at * HOUR_US, NOON_US + (at + 1) * HOUR_US) for at in range(2)]
    assert [window for hour in hours for window in hour] == windows


@given(st.integers(0, 10**6), st.lists(st.sampled_from(sorted(FAULTS)), max_size=1), st.integers(960, 1_040))
def test_any_fault_leaves_a_partition_with_bounds_that_hold(seed, faults, gain_per_mille):
    trace = a_trace(seed, gain_per_mille)
    readings = FAULTS[faults[0]][0](trace) if faults else trace.readings()
    windows = the_hour(readings)
    assert windows[0].starts_us == NOON_US
    assert windows[-1].ends_us == NOON_US + HOUR_US
    assert all(one.ends_us == other.starts_us for one, other in pairwise(windows))
    assert all((window.energy_uj is None) == (window.covered_us == 0) for window in windows)
    assert all(window.lower_uj <= (window.energy_uj or 0) <= window.upper_uj for window in windows)
    assert is_bounded(windows, trace.energy_uj(NOON_US, NOON_US + HOUR_US))


@given(st.lists(st.tuples(
    st.sampled_from(["boot-1", "boot-2"]), st.integers(0, 4_000), st.none() | st.integers(0, 4_000),
    st.none() | st.integers(0, 10**12), st.none() | st.integers(0, 10**7)), max_size=30))  # fmt: skip
def test_readings_without_sense_are_survived(rows):
    readings = [
        Reading(epoch, NOON_US + wall * SECOND_US, None if clock is None else clock * SECOND_US, energy, power)
        for epoch, wall, clock, energy, power in rows
    ]
    windows = the_hour(readings)
    most_uj = 11 * GPU.power_limit_mw * HOUR_US // 10_000
    assert 0 <= total(windows) <= most_uj
    assert sum(window.covered_us for window in windows) <= HOUR_US


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
def test_the_night_the_clock_changes_has_all_of_its_minutes(day, hours):
    start, end = (int(at.timestamp()) * SECOND_US for at in day_bounds(day))
    trace = Trace(7, start, hours * 3_600)
    windows = integrate(GPU, trace.readings(every_s=60), start, end)
    assert len(windows) == hours * 60
    assert flags(windows) == set()
    assert total(windows) == trace.energy_uj(start, end)


def test_readings_within_the_longest_gap_that_is_bridged_need_no_counter():
    trace = a_trace()
    kept = [without_counter(one) for at, one in enumerate(trace.readings(every_s=GAP_MAX_US // SECOND_US)) if at < 3]
    windows = the_hour(kept)
    assert windows[0].flags == ("power_only",)
    assert windows[0].lower_uj == 0
    assert windows[59].flags == ("missing",)


def test_random_spikes_in_any_number_never_make_energy():
    trace, draw = a_trace(seed=8), Random(8)
    readings = [replace(one, energy_uj=one.energy_uj * 10) if draw.random() < 0.1 else one for one in trace.readings()]
    windows = the_hour(readings)
    assert is_bounded(windows, trace.energy_uj(NOON_US, NOON_US + HOUR_US))
    assert total(windows) == pytest.approx(trace.energy_uj(NOON_US, NOON_US + HOUR_US), rel=0.03)

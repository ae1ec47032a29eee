"""What a study says of the use made of a limit."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.limits import METERS, Limit
from metering.rules.quantities import QUANTITIES
from metering.rules.studies import (
    METER_QUANTITIES,
    CounterDay,
    CounterHour,
    PeakDay,
    PeakHour,
    studied_days,
    study_of,
)

TODAY = date(2026, 11, 5)
LIMIT = Limit("user", "model:*", "total_tokens", "day", 100, "hard")


def day(before: int, value: int | None, **changes) -> CounterDay:
    plain = CounterDay(TODAY - timedelta(days=before), "u", "m", value, 1, 0, 0)
    return replace(plain, **changes)


def study(days, hours=(), limit=LIMIT):
    return study_of(limit, days, hours, today=TODAY, as_of=7)


counter_days = st.builds(
    CounterDay,
    st.integers(0, 29).map(lambda before: TODAY - timedelta(days=before)),
    st.sampled_from(["u", "v"]),
    st.sampled_from(["m", "n"]),
    st.none() | st.integers(0, 200),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(0, 3),
)
histories = st.lists(counter_days, max_size=40, unique_by=lambda one: (one.day, one.subject, one.what))


@given(histories)
def test_sums_are_conserved_and_figures_lie_among_the_days(days) -> None:
    found = study(days)
    used = [one for one in days if one.requests or one.value]
    known = [one.value for one in used if one.value is not None]
    assert found.requests == sum(one.requests for one in days)
    assert found.refused_requests == sum(one.refused_requests for one in used)
    assert found.total == (sum(known) if known or not used else None)
    assert found.days_with_use == len({one.day for one in used})
    figures = (found.mean, found.median, found.percentile_95, found.peak_day and found.peak_day.value)
    if not known:
        assert figures == (None,) * 4
        return
    assert min(known) <= found.median <= found.percentile_95 <= found.peak_day.value == max(known)
    assert min(known) <= found.mean <= max(known)
    assert {found.median, found.percentile_95} <= set(known)
    assert sum(value <= found.median for value in known) * 2 >= len(known)
    assert sum(value <= found.percentile_95 for value in known) * 100 >= 95 * len(known)
    assert 0 <= found.near_limit_per_mille <= 1000


@given(histories, st.randoms())
def test_the_order_of_days_never_matters(days, random) -> None:
    shuffled = days.copy()
    random.shuffle(shuffled)
    assert study(shuffled) == study(days)


@given(histories)
def test_the_two_weeks_are_whole_days_before_today(days) -> None:
    found = study(days)
    recent = [one for one in days if 1 <= (TODAY - one.day).days <= 14]
    weeks = (found.last_7_days, found.previous_7_days)
    assert sum(filter(None, weeks)) == sum(one.value or 0 for one in recent if one.requests or one.value)


def test_figures_of_a_month() -> None:
    found = study([day(before, value) for before, value in enumerate([10, 20, 80, 100, 0])])
    assert (found.total, found.mean, found.median, found.percentile_95) == (210, 42, 20, 100)
    assert found.peak_day == PeakDay(TODAY - timedelta(days=3), 100)
    assert found.near_limit_per_mille == 400
    assert (found.first_day, found.last_day, found.as_of) == (date(2026, 10, 7), TODAY, 7)
    assert (found.present_value, found.present_mode, found.present_source) == (100, "hard", "plan")


def test_the_trend_compares_a_week_with_the_one_before() -> None:
    found = study([day(0, 999), day(1, 30), day(7, 30), day(8, 50), day(14, 0), day(15, 999)])
    assert (found.last_7_days, found.previous_7_days, found.change_per_mille) == (60, 50, 200)
    assert study([day(1, 30)]).change_per_mille is None
    assert study([day(1, 30)]).previous_7_days == 0
    assert study([day(8, 40)]).change_per_mille == -1000


def test_the_unknown_is_never_a_zero() -> None:
    found = study([day(1, None, requests=5, uncounted_requests=5)])
    assert (found.total, found.mean, found.median, found.peak_day, found.last_7_days) == (None,) * 5
    assert (found.requests, found.uncounted_requests, found.days_with_use, found.near_limit_per_mille) == (
        5,
        5,
        1,
        None,
    )
    idle = study([])
    assert (idle.total, idle.requests, idle.refused_per_mille, idle.mean, idle.change_per_mille) == (
        0,
        0,
        None,
        None,
        None,
    )


def test_each_counter_has_days_of_its_own() -> None:
    found = study([day(1, 60, subject="u"), day(1, 60, subject="v"), day(1, 60, what="n")])
    assert (found.counters, found.days_with_use, found.total) == (3, 1, 180)
    assert (found.peak_day.value, found.mean, found.near_limit_per_mille) == (60, 60, 0)


def test_refusals_are_told_as_a_part_of_the_requests() -> None:
    found = study([day(1, 5, requests=3, refused_requests=2), day(2, 5, requests=0, refused_requests=0)])
    assert (found.requests, found.refused_requests, found.refused_per_mille) == (3, 2, 667)


def test_a_day_whose_events_were_voided_is_no_day_of_use() -> None:
    assert study([day(1, 0, requests=0)]).days_with_use == 0


@pytest.mark.parametrize("limit", [replace(LIMIT, window="month"), replace(LIMIT, value=None), replace(LIMIT, value=0)])
def test_only_a_limit_by_day_has_days_near_it(limit) -> None:
    assert study([day(1, 100)], limit=limit).near_limit_per_mille is None


@pytest.mark.parametrize("meter", ["cost_neur", "carbon_ugco2e", "concurrent_requests"])
def test_a_meter_that_the_sums_do_not_tell_says_so(meter) -> None:
    found = study([day(1, None, requests=3)], limit=replace(LIMIT, meter=meter))
    assert not found.is_measured
    assert (found.total, found.mean, found.peak_day, found.last_7_days, found.change_per_mille) == (None,) * 5
    assert found.requests == 3
    assert study([], limit=replace(LIMIT, meter=meter)).total is None


def test_the_first_of_equal_peaks_is_told() -> None:
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    hours = [CounterHour(noon + timedelta(hours=2), 9), CounterHour(noon, 9), CounterHour(noon, None)]
    found = study([day(1, 40), day(3, 40)], hours)
    assert found.peak_hour == PeakHour(noon, 9)
    assert found.peak_day == PeakDay(TODAY - timedelta(days=3), 40)
    assert study([day(1, 40)]).peak_hour is None


def test_every_meter_is_a_sum_of_quantities_or_not_measured() -> None:
    assert tuple(METER_QUANTITIES) == METERS
    assert set(QUANTITIES).issuperset(name for names in METER_QUANTITIES.values() for name in names)
    first, last = studied_days(TODAY)
    assert (last - first).days == 29

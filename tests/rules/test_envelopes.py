"""How far an envelope reaches: exact, never below what is used, and more use never reaches further."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from metering.rules.billing.envelopes import Forecast, forecast, trailing_days, warning_due

TODAY = date(2026, 3, 2)
"""A Monday."""
amounts = st.integers(-1_000, 10**15)
histories = st.lists(amounts, min_size=1, max_size=28).map(
    lambda values: {TODAY - timedelta(days=ago): value for ago, value in enumerate(values, start=1)}
)
ends = st.integers(0, 900).map(lambda days: TODAY + timedelta(days=days))


def test_each_day_to_come_uses_what_its_weekday_did() -> None:
    daily = {TODAY - timedelta(days=ago): 0 for ago in range(1, 29)}
    for ago, used in ((7, 10), (14, 11), (21, 12), (28, 14)):  # Mondays
        daily[TODAY - timedelta(days=ago)] = used
    found = forecast(130, 100, daily, today=TODAY, ends_on=TODAY + timedelta(days=21))
    assert found == Forecast(  # three Mondays more, of 11.75, 10 and 14
        135, 130, 142, TODAY + timedelta(days=21), TODAY + timedelta(days=21), None
    )
    assert forecast(100, 100, daily, today=TODAY, ends_on=TODAY).runs_out_on == TODAY


def test_weekdays_that_were_not_seen_take_those_that_were_and_without_a_day_nothing_is_said() -> None:
    sunday, saturday = TODAY - timedelta(days=1), TODAY - timedelta(days=2)
    found = forecast(1_000, 0, {sunday: 3, saturday: 4}, today=TODAY, ends_on=TODAY + timedelta(days=2))
    assert (found.value, found.lower, found.upper) == (7, 6, 8)
    assert forecast(1_000, 0, {}, today=TODAY, ends_on=TODAY + timedelta(days=2)) is None


@given(daily=histories, used=st.integers(0, 10**16), envelope=st.integers(0, 10**17), ends_on=ends)
def test_bounds_hold_the_figure_and_nothing_is_given_back(daily, used, envelope, ends_on) -> None:
    found = forecast(envelope, used, daily, today=TODAY, ends_on=ends_on)
    assert used <= found.lower <= found.value <= found.upper
    never = date.max
    assert (found.earliest or never) <= (found.runs_out_on or never) <= (found.latest or never)
    # It runs out exactly where the forecast goes beyond it (a half is rounded).
    assert (found.upper > envelope or used >= envelope) == (found.earliest is not None)
    assert found.latest is None or found.lower >= envelope


@given(
    daily=histories, used=st.integers(0, 10**16), envelope=st.integers(0, 10**17), ends_on=ends,
    more=st.integers(1, 10**15), data=st.data(),
)  # fmt: skip
def test_who_uses_more_reaches_no_further(daily, used, envelope, ends_on, more, data) -> None:
    before = forecast(envelope, used, daily, today=TODAY, ends_on=ends_on)
    day = data.draw(st.sampled_from(sorted(daily)))
    after = forecast(envelope, used, daily | {day: daily[day] + more}, today=TODAY, ends_on=ends_on)
    for name in ("value", "lower", "upper"):
        assert getattr(before, name) <= getattr(after, name)
    assert (after.runs_out_on or date.max) <= (before.runs_out_on or date.max)


def test_a_forecast_follows_from_four_weeks_of_the_term() -> None:
    assert trailing_days(TODAY, date(2026, 1, 1)) == (date(2026, 2, 2), date(2026, 3, 1))
    assert trailing_days(TODAY, date(2026, 2, 27)) == (date(2026, 2, 27), date(2026, 3, 1))
    assert trailing_days(TODAY, TODAY) == (TODAY, date(2026, 3, 1))


def test_people_are_warned_in_steps_before_an_envelope_runs_out_and_not_after() -> None:
    def due(days: int) -> int | None:
        return warning_due(Forecast(9, 9, 9, TODAY + timedelta(days=days), None, None), TODAY)

    assert [due(days) for days in (91, 90, 31, 30, 8, 7, 1, 0, -3)] == [None, 90, 90, 30, 30, 7, 7, None, None]
    assert warning_due(Forecast(9, 9, 9, None, None, None), TODAY) is None
    assert warning_due(None, TODAY) is None

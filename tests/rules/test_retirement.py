"""When something may end, and when its users are told."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from metering.rules.retirement import TOLD_DAYS, earliest_end, step_due

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def test_a_model_stays_thirty_days_and_a_category_ninety() -> None:
    assert earliest_end("model", NOON) == NOON + 30 * DAY
    assert earliest_end("category", NOON) == NOON + 90 * DAY


def test_users_are_told_at_the_announcement_and_at_each_step_before_the_end() -> None:
    end = NOON + 100 * DAY
    told = [step_due(NOON, end, NOON + number * DAY) for number in range(-1, 101)]
    assert told == [None, *[0] * 10, *[90] * 60, *[30] * 23, *[7] * 7, None]


def test_a_step_that_falls_on_the_announcement_is_told_once() -> None:
    assert {step_due(NOON, NOON + 30 * DAY, NOON + number * DAY) for number in range(30)} == {0, 7}
    assert {step_due(NOON, NOON + 90 * DAY, NOON + number * DAY) for number in range(90)} == {0, 30, 7}


@given(st.integers(1, 400), st.integers(-10, 410))
def test_steps_come_in_order_and_only_while_it_is_retiring(length: int, day: int) -> None:
    step = step_due(NOON, NOON + length * DAY, NOON + day * DAY)
    assert (step is None) == (not 0 <= day < length)
    if step:
        assert step in TOLD_DAYS
        assert length - step <= day

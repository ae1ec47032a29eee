"""Who is told how much of a limit is used, and from which amount on."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.limits import METERS, WINDOWS, Limit
from metering.rules.quantities import QUANTITY_MAX
from metering.rules.thresholds import THRESHOLDS, is_told_of, threshold_reached

LIMIT = Limit("tenant", "*", "total_tokens", "month", 1_000, "hard")


@pytest.mark.parametrize(
    ("used", "value", "part"),
    [(-5, 1_000, None), (499, 1_000, None), (500, 1_000, 50), (799, 1_000, 50), (800, 1_000, 80), (999, 1_000, 80),
     (1_000, 1_000, 100), (5_000, 1_000, 100), (0, 1, None), (1, 1, 100), (1, 3, None), (2, 3, 50)],
)  # fmt: skip
def test_a_threshold_is_reached_at_its_very_amount(used: int, value: int, part: int | None) -> None:
    assert threshold_reached(used, value) == part


@given(value=st.integers(1, QUANTITY_MAX), used=st.integers(-QUANTITY_MAX, QUANTITY_MAX))
def test_the_threshold_is_the_highest_at_or_below_what_is_used(value: int, used: int) -> None:
    part = threshold_reached(used, value)
    assert all((used * 100 >= one * value) == (part is not None and one <= part) for one in THRESHOLDS)


def test_only_limits_that_hold_over_a_day_or_longer_are_told_of() -> None:
    told = {window for window in WINDOWS if is_told_of(replace(LIMIT, window=window))}
    assert told == {"day", "month", "term", "credit"}
    assert all(is_told_of(replace(LIMIT, meter=meter)) for meter in METERS)
    assert is_told_of(replace(LIMIT, mode="soft"))
    assert not is_told_of(replace(LIMIT, mode="shadow"))
    assert not is_told_of(replace(LIMIT, value=None))
    assert not is_told_of(replace(LIMIT, value=0))

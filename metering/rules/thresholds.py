"""When those concerned are told how much of a limit is used: at half of it, at four fifths, and when it is reached.

A limit of a minute is reached and free again before anybody reads of it, what is under way has no use to tell of, and a
shadow limit holds nobody: of these nothing is told.
"""

from collections.abc import Sequence

from metering.rules.limits import Limit, Window

THRESHOLDS: Sequence[int] = (50, 80, 100)
"""Parts of a limit, in percent, at which it is told."""

TOLD_WINDOWS: frozenset[Window] = frozenset({"day", "month", "term", "credit"})


def is_told_of(limit: Limit) -> bool:
    """Whether anybody is told how much of a limit is used; one without a value, or of 0, has no parts."""
    return bool(limit.value) and limit.window in TOLD_WINDOWS and limit.mode != "shadow"


def threshold_reached(used: int, value: int) -> int | None:
    """The highest threshold that is reached, in percent of a limit above 0; both in the meter's base unit."""
    return max((part for part in THRESHOLDS if used * 100 >= part * value), default=None)

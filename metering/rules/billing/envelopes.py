"""How far an envelope reaches: a forecast to the end of the term from what was used on like days of the week.

A day to come is taken to use what the mean of the trailing days of its weekday did; the bounds take their least and
their most. Weekdays of which none was seen take all days that were. Anybody can work it out again, and it is no
promise: it knows no holidays and no growth.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from math import ceil, floor, lcm
from typing import NamedTuple

TRAILING_DAYS = 28
"""Whole days before today that a forecast follows from: four of each weekday."""
WEEK_DAYS = 7
WARNING_DAYS = (90, 30, 7)
"""How long before an envelope runs out its people are told, each once."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is used by the end of the term, in the unit of the days' use, with bounds.

    runs_out_on: the first day on which the envelope doesn't suffice; earliest, latest: by the bounds; None: not within
    the term.
    """

    value: int
    lower: int
    upper: int
    runs_out_on: date | None
    earliest: date | None
    latest: date | None


def warning_due(ahead: Forecast | None, today: date) -> int | None:
    """Which of `WARNING_DAYS` an envelope that won't last has reached; None: none yet, it lasts, or it is used up."""
    if ahead is None or ahead.runs_out_on is None:
        return None
    left_days = (ahead.runs_out_on - today).days
    return min((days for days in WARNING_DAYS if 0 < left_days <= days), default=None)


def trailing_days(today: date, starts_on: date) -> tuple[date, date]:
    """First and last day that a forecast follows from, within the term; the last may be before the first: none."""
    return max(today - timedelta(days=TRAILING_DAYS), starts_on), today - timedelta(days=1)


def forecast(envelope: int, used: int, daily: Mapping[date, int], *, today: date, ends_on: date) -> Forecast | None:
    """What is used by the end of a term, of which `used` is already, today's part included.

    daily: use of each trailing day, 0 where there was none; a day that corrections left below 0 counts as 0. What is
    left of today isn't added. None: no day has passed yet, and nothing can be said.
    """
    if not daily:
        return None
    days = [(today + timedelta(days=ahead)).weekday() for ahead in range(1, (ends_on - today).days + 1)]
    paces = [_pace(daily, kind) for kind in (_mean, min, max)]
    value, least, most = (used + Fraction(sum(pace.weekdays[day] for day in days), pace.per) for pace in paces)
    mean, slow, fast = (_runs_out_on(envelope, used, pace, days, today) for pace in paces)
    return Forecast(
        value=floor(value + Fraction(1, 2)),
        lower=floor(least),
        upper=ceil(most),
        runs_out_on=mean,
        earliest=fast,
        latest=slow,
    )


class _Pace(NamedTuple):
    """What each weekday uses, times `per`: whole numbers, which are faster to add up than fractions."""

    weekdays: Sequence[int]
    per: int


def _mean(values: Sequence[int]) -> Fraction:
    return Fraction(sum(values), len(values))


def _pace(daily: Mapping[date, int], kind: Callable[[Sequence[int]], int | Fraction]) -> _Pace:
    """The mean, the least or the most of each weekday's days."""
    seen: list[list[int]] = [[] for _ in range(WEEK_DAYS)]
    for day, used in daily.items():
        seen[day.weekday()].append(max(used, 0))
    every = [used for days in seen for used in days]
    weekdays = [Fraction(kind(days or every)) for days in seen]
    per = lcm(*(one.denominator for one in weekdays))
    return _Pace([int(one * per) for one in weekdays], per)


def _runs_out_on(envelope: int, used: int, pace: _Pace, days: Sequence[int], today: date) -> date | None:
    if used >= envelope:
        return today
    left = (envelope - used) * pace.per
    for ahead, day in enumerate(days, start=1):
        left -= pace.weekdays[day]
        if left < 0:
            return today + timedelta(days=ahead)
    return None

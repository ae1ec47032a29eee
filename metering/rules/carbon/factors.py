"""Emission factors: which ones count for a zone in an hour, and what they come to."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple

from metering.rules.carbon.impacts import Factor

FactorKind = Literal["location", "market"]

MARGIN_PERCENT = 10
"""What a factor of the slot may be off by: methods and imports differ by so much."""
LAST_RESORT_SPREAD = 2
"""What a yearly mean may be off by for one hour, up or down."""


class EmissionFactor(NamedTuple):
    """Emissions of a kilowatt-hour of a zone from `starts_at` to `ends_at`, exclusive."""

    number: int
    zone: str
    kind: FactorKind
    starts_at: datetime
    ends_at: datetime
    ugco2e_per_kwh: int
    is_last_resort: bool

    def bounded(self) -> Factor:
        """The factor with its bounds, in µg CO2e/kWh."""
        value = self.ugco2e_per_kwh
        if self.is_last_resort:
            return Factor(value, value // LAST_RESORT_SPREAD, value * LAST_RESORT_SPREAD)
        return Factor(value, value * (100 - MARGIN_PERCENT) // 100, value * (100 + MARGIN_PERCENT) // 100)


class HourFactor(NamedTuple):
    """What counts for a zone over an hour: the mean of its slots, and the numbers of the factors in it."""

    factor: Factor
    numbers: tuple[int, ...]


def hour_factor(factors: Sequence[EmissionFactor], zone: str, kind: FactorKind, hour: datetime) -> HourFactor | None:
    """Mean over the hour of the factors that count, by time; None where none is known.

    At any time that is the one imported last, and one of last resort only where there is no other. The mean of an hour
    stands for its slots, because energy inside a gap is known by the hour only; within an hour grids move by less than
    what a factor may be off by.
    """
    end = hour + timedelta(hours=1)
    own = [one for one in factors if (one.zone, one.kind) == (zone, kind)]
    edges = {moment for one in own for moment in (one.starts_at, one.ends_at) if hour < moment < end}
    counting: list[tuple[int, EmissionFactor]] = []
    for begin, until in pairwise([hour, *sorted(edges), end]):
        valid = [one for one in own if one.starts_at <= begin < one.ends_at]
        if valid:
            best = max(valid, key=lambda one: (not one.is_last_resort, one.number))
            counting.append(((until - begin) // timedelta(microseconds=1), best))
    if not counting:
        return None
    return HourFactor(_mean(counting), tuple(sorted({one.number for _duration_us, one in counting})))


def _mean(counting: Sequence[tuple[int, EmissionFactor]]) -> Factor:
    """Mean of factors by their durations in µs, rounded half up to a µg."""
    whole = sum(duration for duration, _one in counting)

    def mean(name: str) -> int:
        weighed = sum(duration * int(getattr(one.bounded(), name)) for duration, one in counting)
        return (2 * weighed + whole) // (2 * whole)

    return Factor(mean("value"), mean("lower"), mean("upper"))

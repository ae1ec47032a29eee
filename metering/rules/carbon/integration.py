"""From a GPU's readings to its energy by the minute, whatever happened to counters, clocks and readings.

What was met is flagged, what isn't known is never 0, and bounds hold in every case. They have two sources. The sensor:
NVIDIA gives power to ±5 % (NVML API reference, nvmlDeviceGetPowerUsage; measured by Yang, Adamek and Armour, SC 2024,
arXiv:2312.02741), and the counter integrates the same sensor. And what isn't known between readings, where a GPU uses
between nothing and 1.1 times its power limit. Where the time of what a counter counted is known to 90 s, no bound is
put on the side of a minute it fell on: what one minute has too much, the next has too little.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from metering.rules.carbon.apportioning import rounded_up, shared
from metering.rules.carbon.linking import (
    GAP_MAX_US,
    HOUR_US,
    LINK_MAX_US,
    MINUTE_US,
    Flag,
    Gpu,
    Link,
    Mark,
    Reading,
    linked,
)
from metering.rules.carbon.tiers import Tier, worst_tier

__all__ = [
    "HOUR_US",
    "MINUTE_US",
    "SENSOR_PERCENT",
    "Flag",
    "Gpu",
    "Reading",
    "WindowEnergy",
    "energy_between",
    "integrate",
]

SENSOR_PERCENT = 5


@dataclass(frozen=True, slots=True)
class WindowEnergy:
    """Energy of one GPU in [starts_us, ends_us), both whole minutes of UTC.

    energy_uj: of the covered_us of which something is known; None: of none. lower_uj, upper_uj: bounds of what the
    whole window used, what isn't covered included. tier: A, B, or U where nothing is known. flags: sorted.
    """

    gpu: str
    starts_us: int
    ends_us: int
    covered_us: int
    energy_uj: int | None
    lower_uj: int
    upper_uj: int
    tier: Tier
    flags: tuple[Flag, ...]


def integrate(gpu: Gpu, readings: Iterable[Reading], starts_us: int, ends_us: int) -> list[WindowEnergy]:
    """Windows that partition [starts_us, ends_us), whole hours, in order and whatever the readings are.

    A window is a minute; but minutes inside a gap of more than 15 minutes that a counter bridges come as one window an
    hour. readings: in any order, repeated or not. Those around the hours belong to them as well: 15 minutes on both
    sides, and in a longer gap the reading at its end.
    """
    links, marks = linked(gpu, readings)
    return _tallied(gpu, links, marks, _partition(links, starts_us, ends_us))


def energy_between(gpu: Gpu, readings: Iterable[Reading], starts_us: int, ends_us: int) -> WindowEnergy:
    """The same energy as one window: its bounds are closer than the sum of minutes', since a gap's total is known."""
    links, marks = linked(gpu, readings)
    return _tallied(gpu, links, marks, [(starts_us, ends_us)])[0]


def _partition(links: Iterable[Link], starts_us: int, ends_us: int) -> list[tuple[int, int]]:
    """Minutes; but those wholly inside a long gap are one window an hour."""
    inside: set[int] = set()
    for link in links:
        if link.powers_mw is None and link.length_us > GAP_MAX_US:
            first, last = rounded_up(link.starts_us, MINUTE_US), link.ends_us // MINUTE_US
            inside.update(
                range(max(first * MINUTE_US, starts_us) + MINUTE_US, min(last * MINUTE_US, ends_us), MINUTE_US)
            )
    edges = [at for at in range(starts_us, ends_us, MINUTE_US) if at not in inside or at % HOUR_US == 0]
    return list(pairwise([*edges, ends_us]))


@dataclass(slots=True)
class _Tally:
    """What links add to one window."""

    covered_us: int = 0
    energy_uj: int = 0
    least_uj: int = 0
    most_uj: int = 0
    tiers: set[Tier] = field(default_factory=set)
    flags: set[Flag] = field(default_factory=set)


def _tallied(
    gpu: Gpu, links: Iterable[Link], marks: Iterable[Mark], windows: Sequence[tuple[int, int]]
) -> list[WindowEnergy]:
    tallies = [_Tally() for _window in windows]
    starts = [starts_us for starts_us, _ends_us in windows]
    ends_us = windows[-1][1]
    for link in links:
        for at, time_us, energy_uj in _parts(link, starts, ends_us):
            least_uj, most_uj = _range(gpu, link, time_us, energy_uj)
            tally = tallies[at]
            tally.covered_us += time_us
            tally.energy_uj += energy_uj
            tally.least_uj += least_uj
            tally.most_uj += most_uj
            tally.tiers.add(link.tier)
    for mark in marks:
        if mark.ends_us >= starts[0] and mark.starts_us < ends_us:
            first, last = (bisect_right(starts, at_us) - 1 for at_us in (mark.starts_us, mark.ends_us))
            for at in range(max(first, 0), last + 1):
                tallies[at].flags.add(mark.flag)
    return [_window(gpu, window, tally) for window, tally in zip(windows, tallies, strict=True)]


def _parts(link: Link, starts: Sequence[int], ends_us: int) -> list[tuple[int, int, int]]:
    """(window, time, energy) of a link: spread evenly over its minutes, by largest remainder, then summed by window."""
    if link.ends_us <= starts[0] or link.starts_us >= ends_us:
        return []
    first = link.starts_us // MINUTE_US
    minutes = range(first * MINUTE_US, link.ends_us, MINUTE_US)
    times = [min(link.ends_us, at + MINUTE_US) - max(link.starts_us, at) for at in minutes]
    energies = shared(link.energy_uj, times, minutes) if len(minutes) > 1 else [link.energy_uj]
    sums: dict[int, tuple[int, int]] = {}
    for at_us, time_us, energy_uj in zip(minutes, times, energies, strict=True):
        if starts[0] <= at_us < ends_us:
            at = bisect_right(starts, at_us) - 1
            time_before, energy_before = sums.get(at, (0, 0))
            sums[at] = time_before + time_us, energy_before + energy_uj
    return [(at, time_us, energy_uj) for at, (time_us, energy_uj) in sums.items()]


def _range(gpu: Gpu, link: Link, time_us: int, energy_uj: int) -> tuple[int, int]:
    """Least and most that was used in a part of a link's time, apart from the sensor."""
    most = gpu.most_uj(time_us)
    if link.powers_mw is None:
        if link.length_us <= LINK_MAX_US or time_us == link.length_us:
            return energy_uj, energy_uj
        return max(link.energy_uj - gpu.most_uj(link.length_us - time_us), 0), min(link.energy_uj, most)
    if link.length_us > LINK_MAX_US:
        return 0, max(most, energy_uj)
    return min(link.powers_mw) * time_us // 1_000, rounded_up(max(link.powers_mw) * time_us, 1_000)


def _window(gpu: Gpu, window: tuple[int, int], tally: _Tally) -> WindowEnergy:
    starts_us, ends_us = window
    missing_us = ends_us - starts_us - tally.covered_us
    missing: set[Flag] = {"missing"} if missing_us else set()
    return WindowEnergy(
        gpu=gpu.uuid,
        starts_us=starts_us,
        ends_us=ends_us,
        covered_us=tally.covered_us,
        energy_uj=tally.energy_uj if tally.covered_us else None,
        lower_uj=tally.least_uj * (100 - SENSOR_PERCENT) // 100,
        upper_uj=rounded_up(tally.most_uj * (100 + SENSOR_PERCENT), 100)
        + (gpu.most_uj(missing_us) if missing_us else 0),
        tier=worst_tier(tally.tiers),
        flags=tuple(sorted(tally.flags | missing)),
    )

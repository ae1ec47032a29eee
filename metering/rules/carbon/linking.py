"""From a GPU's readings to what is known between them: links of energy, and marks of the faults that were met.

Between two readings of one counter the difference is what the GPU used, if it can be: not negative, and below 1.1 times
the power limit for that time. Where a counter can't be believed, the trapezoid of power stands in; where there is
neither, energy is unknown.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median_low
from typing import Literal

from metering.rules.carbon.apportioning import rounded, rounded_up
from metering.rules.carbon.tiers import Tier

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
LINK_MAX_US = 90_000_000
"""Readings further apart leave a gap, and a counter that stands still for longer is stuck: exporters refresh every
30 s by default and are read every 15 to 60 s."""
GAP_MAX_US = 15 * MINUTE_US
"""A longer gap says nothing of its minutes."""
CLOCK_TOLERANCE_US = 2_000_000
"""A wall clock that is further from the others of its epoch was set wrong when it was read."""
SPIKES_MAX = 3
"""Readings in a row that can be passed over for one that agrees with those before."""

Flag = Literal["clock_skew", "counter_reset", "gap", "long_gap", "missing", "power_only", "spike", "stuck_counter"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU: its uuid, and the power its driver holds it to (mW)."""

    uuid: str
    power_limit_mw: int

    def most_uj(self, time_us: int) -> int:
        """Most energy that it can have used in a time."""
        return rounded_up(11 * self.power_limit_mw * time_us, 10_000)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a node read of one GPU at one instant.

    epoch: a boot of the node and load of its driver; counters and monotonic clocks compare within one only. wall_us:
    the node's clock. monotonic_us: its clock that is never set; None: unknown. energy_uj: counter since the epoch
    began, and power_mw: None where it couldn't be read.
    """

    epoch: str
    wall_us: int
    monotonic_us: int | None
    energy_uj: int | None
    power_mw: int | None


@dataclass(frozen=True, slots=True)
class _Point:
    """A reading at the instant it was made; what can't be believed of it is None."""

    at_us: int
    epoch: str
    energy_uj: int | None
    power_mw: int | None


@dataclass(frozen=True, slots=True)
class Link:
    """Energy between two readings. powers_mw: by power, at both; None: by counter."""

    starts_us: int
    ends_us: int
    energy_uj: int
    powers_mw: tuple[int, int] | None = None

    @property
    def length_us(self) -> int:
        return self.ends_us - self.starts_us

    @property
    def tier(self) -> Tier:
        return "A" if self.powers_mw is None and self.length_us <= LINK_MAX_US else "B"


@dataclass(frozen=True, slots=True)
class Mark:
    """A flag on the minutes that [starts_us, ends_us] touches."""

    starts_us: int
    ends_us: int
    flag: Flag


def linked(gpu: Gpu, readings: Iterable[Reading]) -> tuple[list[Link], list[Mark]]:
    """What is known between readings, and the faults that were met."""
    points, marks = _points(gpu, readings)
    ends, chain_marks = _chain(gpu, points)
    links, covered = [], 0
    for at in range(len(points) - 1):
        if at in ends:
            covered = ends[at]
            links.append(_counted(points[at], points[covered]))
        elif at >= covered and (link := _powered(points[at], points[at + 1])) is not None:
            links.append(link)
    return links, [*marks, *chain_marks, *(mark for link in links if (mark := _kind(link)) is not None)]


def _kind(link: Link) -> Mark | None:
    if link.powers_mw is not None:
        return Mark(link.starts_us, link.ends_us, "power_only")
    if link.length_us > GAP_MAX_US:
        return Mark(link.starts_us, link.ends_us, "long_gap")
    return Mark(link.starts_us, link.ends_us, "gap") if link.length_us > LINK_MAX_US else None


def _points(gpu: Gpu, readings: Iterable[Reading]) -> tuple[list[_Point], list[Mark]]:
    """Readings in the order they were made, one an instant; powers beyond the limit are taken away."""
    timed, marks = _timed(set(readings))
    points: list[_Point] = []
    for at_us, reading in sorted(timed, key=lambda one: (one[0], _order(one[1]))):
        point = _Point(at_us, reading.epoch, reading.energy_uj, reading.power_mw)
        if point.power_mw is not None and 10 * point.power_mw > 11 * gpu.power_limit_mw:
            marks.append(Mark(at_us, at_us, "spike"))
            point = replace(point, power_mw=None)
        is_useful = point.energy_uj is not None or point.power_mw is not None
        if is_useful and not (points and points[-1].at_us == at_us):
            points.append(point)
    return points, marks


def _order(reading: Reading) -> tuple[str, int, int, int, int]:
    numbers = (reading.monotonic_us, reading.energy_uj, reading.power_mw)
    monotonic, energy, power = (-1 if number is None else number for number in numbers)
    return reading.epoch, reading.wall_us, monotonic, energy, power


def _timed(readings: Iterable[Reading]) -> tuple[list[tuple[int, Reading]], list[Mark]]:
    """Readings with the instant they were made at.

    That is the wall clock's, unless it is off: then the monotonic clock tells how long after its neighbour of the same
    epoch a reading was made. The clock is right where it agrees with the median of its epoch.
    """
    timed: list[tuple[int, Reading]] = []
    marks: list[Mark] = []
    epochs: dict[str, list[tuple[int, int, Reading]]] = {}
    for reading in readings:
        if reading.monotonic_us is None:
            timed.append((reading.wall_us, reading))
        else:
            offset = reading.wall_us - reading.monotonic_us
            epochs.setdefault(reading.epoch, []).append((reading.monotonic_us, offset, reading))
    for several in epochs.values():
        middle = median_low(offset for _at, offset, _reading in several)
        right = sorted((at, offset) for at, offset, _reading in several if _is_near(offset, middle))
        for at, offset, reading in several:
            before = right[max(bisect_right(right, (at, offset)) - 1, 0)][1]
            if _is_near(offset, middle):
                timed.append((reading.wall_us, reading))
            else:
                timed.append((at + before, reading))
                marks.append(Mark(at + before, at + before, "clock_skew"))
    return timed, marks


def _is_near(offset_us: int, middle_us: int) -> bool:
    return abs(offset_us - middle_us) <= CLOCK_TOLERANCE_US


def _chain(gpu: Gpu, points: Sequence[_Point]) -> tuple[dict[int, int], list[Mark]]:
    """Places of readings from which the counter can be believed to another, with that; and what broke the chain."""
    ends: dict[int, int] = {}
    marks: list[Mark] = []
    runs = _runs(points)
    at = 0
    while at < len(runs):
        first, last = runs[at]
        if last > first and _is_off(points[first : last + 1]):
            ends.update(pairwise(place for place in range(first, last + 1) if points[place].energy_uj is not None))
            first = last
        if _is_still(points, (first, last)):
            # The first reading that moves again may have lost or caught up what wasn't counted: begin anew with it.
            until = runs[at + 1][0] if at + 1 < len(runs) else last
            marks.append(Mark(points[first].at_us, points[until].at_us, "stuck_counter"))
            at += 1
            continue
        step = _next_believed(gpu, points, runs, at)
        there = runs[min(at + (step or 1), len(runs) - 1)][0]
        if step is not None:
            ends[first] = there
        if step != 1 and there > first:
            marks.append(Mark(points[first].at_us, points[there].at_us, "spike" if step else "counter_reset"))
        at += step or 1
    return ends, marks


def _runs(points: Sequence[_Point]) -> list[tuple[int, int]]:
    """First and last places of readings that follow each other with one count of one epoch.

    Exporters that refresh less often than they are read repeat themselves.
    """
    runs: list[tuple[int, int]] = []
    for place, point in enumerate(points):
        if point.energy_uj is None:
            continue
        before = points[runs[-1][0]] if runs else None
        if before is not None and (before.epoch, before.energy_uj) == (point.epoch, point.energy_uj):
            runs[-1] = (runs[-1][0], place)
        else:
            runs.append((place, place))
    return runs


def _is_off(points: Sequence[_Point]) -> bool:
    """Whether power says as well that nothing was used."""
    return all(point.power_mw == 0 for point in points)


def _next_believed(gpu: Gpu, points: Sequence[_Point], runs: Sequence[tuple[int, int]], at: int) -> int | None:
    """Steps to the next count that agrees with the one at a place; counts between them are spikes. None: a reset.

    A count that agrees with the one before, but not with the one after, is a spike if these two agree. One that stood
    still for long is none.
    """
    counts = [points[first] for first, _last in runs[at : at + SPIKES_MAX + 3]]
    for step in range(1, min(SPIKES_MAX + 2, len(counts))):
        is_still = _is_still(points, runs[at + step])
        if _agree(gpu, counts[0], counts[step]):
            after = counts[step + 1 : step + 2]
            if is_still or not after or _agree(gpu, counts[step], after[0]) or not _agree(gpu, counts[0], after[0]):
                return step
        if is_still:
            return None
    return None


def _is_still(points: Sequence[_Point], run: tuple[int, int]) -> bool:
    """Whether a run is longer than any exporter takes to refresh."""
    first, last = run
    return points[last].at_us - points[first].at_us > LINK_MAX_US


def _agree(gpu: Gpu, before: _Point, after: _Point) -> bool:
    """Whether the GPU can have used what the counter went on by."""
    assert before.energy_uj is not None
    assert after.energy_uj is not None
    used = after.energy_uj - before.energy_uj
    return before.epoch == after.epoch and 0 < used < gpu.most_uj(after.at_us - before.at_us)


def _counted(before: _Point, after: _Point) -> Link:
    assert before.energy_uj is not None
    assert after.energy_uj is not None
    return Link(before.at_us, after.at_us, after.energy_uj - before.energy_uj)


def _powered(before: _Point, after: _Point) -> Link | None:
    """Trapezoid of power between readings that follow each other; None where it says nothing."""
    if before.power_mw is None or after.power_mw is None or after.at_us - before.at_us > GAP_MAX_US:
        return None
    # mW·µs are nJ, and half the sum of two powers is their mean.
    energy_uj = rounded((before.power_mw + after.power_mw) * (after.at_us - before.at_us), 2_000)
    return Link(before.at_us, after.at_us, energy_uj, (before.power_mw, after.power_mw))

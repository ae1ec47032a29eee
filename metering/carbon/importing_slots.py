"""From the times in a file to slots of time: clocks that change, lengths that aren't stated, gaps."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from metering.errors import Unprocessable

STEPS = (timedelta(minutes=15), timedelta(minutes=30), timedelta(hours=1))
"""Lengths of a slot that are told by the times of rows alone."""


class TimedRow(NamedTuple):
    """A row that has a value: its line, zone and value, and its times as they stand there (naive ones are local)."""

    line: int
    zone: str
    starts: datetime
    ends: datetime | None
    ugco2e_per_kwh: int
    version: str


class Slot(NamedTuple):
    """A value and the time it is of, in UTC."""

    zone: str
    version: str
    starts_at: datetime
    ends_at: datetime
    ugco2e_per_kwh: int
    line: int


@dataclass(frozen=True, slots=True)
class Slots:
    """Slots by zone and time, and what was met on the way.

    skipped: rows of an hour that spring's change of the clock leaves out. doubled: rows that stand for both of the
    hours that autumn's makes of one, because the file has it once.
    """

    slots: Sequence[Slot]
    skipped: int
    doubled: int

    def gaps(self) -> list[tuple[str, datetime, datetime]]:
        """Zone, begin and end of every stretch between two slots that has none."""
        return [
            (before.zone, before.ends_at, after.starts_at)
            for before, after in pairwise(self.slots)
            if before.zone == after.zone and before.ends_at < after.starts_at
        ]


class _Placed(NamedTuple):
    starts_at: datetime
    row: TimedRow


def to_slots(rows: Sequence[TimedRow], clock: ZoneInfo) -> Slots:
    """Slots of rows. clock: of times without an offset. Raises: Unprocessable, which names a row."""
    placed, skipped, doubled = _placed(rows, clock)
    by_zone: dict[str, list[_Placed]] = defaultdict(list)
    for one in placed:
        by_zone[one.row.zone].append(one)
    slots = [slot for _zone, several in sorted(by_zone.items()) for slot in _of_zone(several, clock)]
    return Slots(slots, skipped, doubled)


def instants_of(local: datetime, clock: ZoneInfo) -> list[datetime]:
    """When a clock shows a time: never, in the hour that spring leaves out; twice, in the one that autumn repeats."""
    instants = {local.replace(tzinfo=clock, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(one for one in instants if one.astimezone(clock).replace(tzinfo=None) == local)


def _placed(rows: Sequence[TimedRow], clock: ZoneInfo) -> tuple[list[_Placed], int, int]:
    """Rows with the instant they begin at.

    A file of local times has 24 hours a day, or as many as there were. Of two rows with one time in autumn the first is
    of the summer's hour; one row alone stands for both hours, as nothing says which it is of. Where it states its end,
    it is one slot of two hours.
    """
    times = Counter((row.zone, row.starts) for row in rows)
    seen: Counter[tuple[str, datetime]] = Counter()
    placed: list[_Placed] = []
    skipped = doubled = 0
    for row in rows:
        instants = [row.starts.astimezone(UTC)] if row.starts.tzinfo else instants_of(row.starts, clock)
        key = (row.zone, row.starts)
        if len(instants) == 2 and (times[key] > 1 or row.ends):
            instants = [instants[min(seen[key], 1)]]
        seen[key] += 1
        skipped += not instants
        doubled += len(instants) == 2
        placed += [_Placed(instant, row) for instant in instants]
    return placed, skipped, doubled


def _of_zone(placed: Sequence[_Placed], clock: ZoneInfo) -> list[Slot]:
    """Slots of one zone, by time; the same slot twice is one. Raises: Unprocessable."""
    step = None if all(one.row.ends for one in placed) else _step_of(placed)
    slots: list[Slot] = []
    for one in sorted(placed, key=lambda one: (one.starts_at, one.row.line)):
        row = one.row
        ends_at = _end_of(row, clock) if step is None or row.ends else one.starts_at + step
        slot = Slot(row.zone, row.version, one.starts_at, ends_at, row.ugco2e_per_kwh, row.line)
        if slot.ends_at <= slot.starts_at:
            raise _refused(row.line, "ends before it begins", "an end after its start")
        if slots and slot.starts_at < slots[-1].ends_at:
            if slot[:-1] != slots[-1][:-1]:
                raise _refused(
                    row.line, f"is of the same time as row {slots[-1].line}, and differs", "one value a slot"
                )
            continue
        slots.append(slot)
    return slots


def _end_of(row: TimedRow, clock: ZoneInfo) -> datetime:
    assert row.ends is not None
    if row.ends.tzinfo:
        return row.ends.astimezone(UTC)
    # The later one in autumn, so that no time is lost between a slot that ends there and the next.
    return (instants_of(row.ends, clock) or [row.ends.replace(tzinfo=clock).astimezone(UTC)])[-1]


def _step_of(placed: Iterable[_Placed]) -> timedelta:
    """Length of slots: the shortest time between two rows. Raises: Unprocessable where that can't be one."""
    starts = sorted({one.starts_at for one in placed})
    step = min((after - before for before, after in pairwise(starts)), default=None)
    if step not in STEPS:
        raise Unprocessable(
            "unknown_slot",
            "How long a value holds isn't told by the times.",
            field="ends_at",
            expected="rows 15, 30 or 60 minutes apart, or a column of ends",
        )
    return step


def _refused(line: int, what: str, expected: str) -> Unprocessable:
    return Unprocessable("invalid_factor", f"Row {line} {what}.", field=f"row {line}", expected=expected)

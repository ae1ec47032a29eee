"""The study of a request for a higher limit: what the use made of the present one says.

A limit counts by counter: one for each subject of its scope and, for `model:*` and the like, for each of what the
selector names. So does the study: its days are those of single counters, and compare with the limit as they are. It
takes 30 days of the books, of which the last is today so far. None is unknown: requests without a count are told by
`uncounted_requests`, and never make a zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import MappingProxyType

from metering.rules.limits import Limit, Meter, Mode, Source
from metering.rules.quantities import add

STUDIED_DAYS = 30
TREND_DAYS = 7
NEAR_PERCENT = 80
"""From this part of its limit on, a day is near it."""

METER_QUANTITIES: Mapping[Meter, tuple[str, ...]] = MappingProxyType(
    {
        "requests": ("requests",),
        "input_tokens": ("input_tokens",),
        "output_tokens": ("output_tokens",),
        "total_tokens": ("input_tokens", "output_tokens"),
        "audio_ms": ("audio_ms",),
        "embedding_requests": ("requests",),
        "embedding_inputs": ("embedding_inputs",),
        "pages": ("pages",),
        "searches": ("searches",),
        "cost_neur": (),
        "carbon_ugco2e": (),
        "concurrent_requests": (),
    }
)
"""Quantities of events that a meter sums; none: the ledger's sums don't tell."""

METER_OPERATION: Mapping[Meter, str] = MappingProxyType({"embedding_requests": "embedding"})
"""Meters that count one operation only."""


@dataclass(frozen=True, slots=True)
class CounterDay:
    """What one counter had on one day of the books. subject, what: what tells it from the limit's other counters."""

    day: date
    subject: str | None
    what: str | None
    value: int | None
    requests: int
    refused_requests: int
    uncounted_requests: int


@dataclass(frozen=True, slots=True)
class CounterHour:
    """What one counter had in the hour that begins at `starts_at` (UTC)."""

    starts_at: datetime
    value: int | None


@dataclass(frozen=True, slots=True)
class PeakDay:
    """The highest day of one counter; the first, where several are as high."""

    day: date
    value: int


@dataclass(frozen=True, slots=True)
class PeakHour:
    """The highest hour of one counter; the first, where several are as high."""

    starts_at: datetime
    value: int


@dataclass(frozen=True, slots=True)
class Study:
    """Measured use, in the meter's base unit, as of a batch of the ledger (0: the ledger is empty).

    is_measured: False for meters that the ledger's sums don't tell. total: all counters together. mean, median,
    percentile_95 (by nearest rank: a value that occurred): of the days with use of single counters. *_per_mille: parts
    of 1,000, rounded half up. near_limit_per_mille: of those days, the ones at 80 % of a limit by day or more.
    last_7_days, previous_7_days: whole days before today. peak_hour: where hours are kept (administration, project).
    """

    as_of: int
    first_day: date
    last_day: date
    is_measured: bool
    counters: int
    days_with_use: int
    total: int | None
    mean: int | None
    median: int | None
    percentile_95: int | None
    peak_day: PeakDay | None
    peak_hour: PeakHour | None
    requests: int
    refused_requests: int
    refused_per_mille: int | None
    uncounted_requests: int
    present_value: int | None
    present_mode: Mode
    present_source: Source
    near_limit_per_mille: int | None
    last_7_days: int | None
    previous_7_days: int | None
    change_per_mille: int | None


def studied_days(today: date) -> tuple[date, date]:
    """First and last day of a study."""
    return today - timedelta(days=STUDIED_DAYS - 1), today


def study_of(
    present: Limit, days: Iterable[CounterDay], hours: Iterable[CounterHour], *, today: date, as_of: int
) -> Study:
    """The study of a limit's counters. days, hours: in any order, within the studied days; hours may be none."""
    first_day, last_day = studied_days(today)
    is_measured = bool(METER_QUANTITIES[present.meter])
    used = [one for one in days if one.requests or one.value]
    values = sorted(one.value for one in used if one.value is not None)
    requests = sum(one.requests for one in used)
    refused = sum(one.refused_requests for one in used)
    last = _sum_of_days(used, today - timedelta(days=TREND_DAYS), today) if is_measured else None
    previous = (
        _sum_of_days(used, today - timedelta(days=2 * TREND_DAYS), today - timedelta(days=TREND_DAYS))
        if is_measured
        else None
    )
    return Study(
        as_of=as_of,
        first_day=first_day,
        last_day=last_day,
        is_measured=is_measured,
        counters=len({(one.subject, one.what) for one in used}),
        days_with_use=len({one.day for one in used}),
        total=_sum_of(used) if is_measured else None,
        mean=_rounded(sum(values), len(values)) if values else None,
        median=_nearest_rank(values, 50),
        percentile_95=_nearest_rank(values, 95),
        peak_day=_peak_day(used),
        peak_hour=_peak_hour(hours),
        requests=requests,
        refused_requests=refused,
        refused_per_mille=_per_mille(refused, requests),
        uncounted_requests=sum(one.uncounted_requests for one in used),
        present_value=present.value,
        present_mode=present.mode,
        present_source=present.source,
        near_limit_per_mille=_near_limit(values, present),
        last_7_days=last,
        previous_7_days=previous,
        change_per_mille=None if last is None or previous is None else _per_mille(last - previous, previous),
    )


def _sum_of(days: Sequence[CounterDay]) -> int | None:
    """Sum of what is known: 0 without any use, None where there was use and nothing is known of it."""
    total = None if days else 0
    for one in days:
        total = add(total, one.value)
    return total


def _sum_of_days(days: Sequence[CounterDay], start: date, end: date) -> int | None:
    return _sum_of([one for one in days if start <= one.day < end])


def _near_limit(values: Sequence[int], present: Limit) -> int | None:
    if present.window != "day" or not present.value:
        return None
    near = sum(1 for value in values if value * 100 >= present.value * NEAR_PERCENT)
    return _per_mille(near, len(values))


def _peak_day(days: Sequence[CounterDay]) -> PeakDay | None:
    known = [PeakDay(one.day, one.value) for one in days if one.value is not None]
    return min(known, key=lambda one: (-one.value, one.day), default=None)


def _peak_hour(hours: Iterable[CounterHour]) -> PeakHour | None:
    known = [PeakHour(one.starts_at, one.value) for one in hours if one.value is not None]
    return min(known, key=lambda one: (-one.value, one.starts_at), default=None)


def _nearest_rank(ordered: Sequence[int], percent: int) -> int | None:
    """The lowest value that so many of a hundred don't exceed."""
    return ordered[-(-percent * len(ordered) // 100) - 1] if ordered else None


def _per_mille(part: int, whole: int) -> int | None:
    return _rounded(1_000 * part, whole) if whole > 0 else None


def _rounded(dividend: int, divisor: int) -> int:
    """A quotient rounded half up."""
    return (2 * dividend + divisor) // (2 * divisor)

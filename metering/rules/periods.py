"""Civil time: the months, days and hours that usage belongs to.

The platform's books are kept in Europe/Paris: its days have 23 or 25 hours when the clock changes, and its months
begin at local midnight. Every interval is half-open, [start, end).
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

BOOKS_ZONE = "Europe/Paris"
"""Time zone of months, days and invoices, whatever zone a reader asks for."""

PARIS = ZoneInfo(BOOKS_ZONE)

Bucket = Literal["hour", "day", "month"]


def month_bounds(year: int, month: int) -> tuple[datetime, datetime]:
    """Start and end, in UTC, of a month of the books."""
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    return _local_midnight(date(year, month, 1)), _local_midnight(date(*following, 1))


def day_bounds(day: date, zone: ZoneInfo = PARIS) -> tuple[datetime, datetime]:
    """Start and end, in UTC, of a civil day: 23 to 25 hours apart."""
    return _local_midnight(day, zone), _local_midnight(day + timedelta(days=1), zone)


def bucket_starts(start: datetime, end: datetime, bucket: Bucket, zone: ZoneInfo) -> list[datetime]:
    """Starts, in UTC, of every bucket of a zone that meets [start, end), in order.

    Hours are hours that pass, so a night when the clock changes has one more or one less.
    """
    starts = [bucket_start(start, bucket, zone)] if start < end else []
    while starts and (following := _bucket_after(starts[-1], bucket, zone)) < end:
        starts.append(following)
    return starts


def bucket_start(instant: datetime, bucket: Bucket, zone: ZoneInfo) -> datetime:
    """Start, in UTC, of the bucket of a zone that an instant falls in."""
    local = instant.astimezone(zone)
    if bucket == "hour":
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return instant.astimezone(UTC) - past
    day = local.date() if bucket == "day" else local.date().replace(day=1)
    return _local_midnight(day, zone)


def _bucket_after(start: datetime, bucket: Bucket, zone: ZoneInfo) -> datetime:
    if bucket == "hour":
        return start + timedelta(hours=1)
    day = start.astimezone(zone).date()
    if bucket == "day":
        return _local_midnight(day + timedelta(days=1), zone)
    return _local_midnight((day.replace(day=1) + timedelta(days=32)).replace(day=1), zone)


def _local_midnight(day: date, zone: ZoneInfo = PARIS) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)

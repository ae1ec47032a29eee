"""Civil time: nights when the clock changes, and buckets that neither overlap nor leave a gap."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.periods import PARIS, bucket_start, bucket_starts, day_bounds, month_bounds

ZONES = [ZoneInfo(name) for name in ("Europe/Paris", "UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Auckland")]
HOUR = timedelta(hours=1)
instants = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds have no zone
zones = st.sampled_from(ZONES)


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2026, 3, 28), 24), (date(2026, 3, 29), 23), (date(2026, 3, 30), 24),
     (date(2026, 10, 24), 24), (date(2026, 10, 25), 25), (date(2026, 10, 26), 24)],
)  # fmt: skip
def test_a_day_of_the_books_has_23_or_25_hours_when_the_clock_changes(day, hours):
    start, end = day_bounds(day)
    assert end - start == hours * HOUR
    assert len(bucket_starts(start, end, "hour", PARIS)) == hours
    assert bucket_starts(start, end, "day", PARIS) == [start]


def test_a_day_of_the_books_starts_at_local_midnight():
    assert day_bounds(date(2026, 3, 29)) == (
        datetime(2026, 3, 28, 23, tzinfo=UTC),
        datetime(2026, 3, 29, 22, tzinfo=UTC),
    )
    assert day_bounds(date(2026, 10, 25)) == (
        datetime(2026, 10, 24, 22, tzinfo=UTC),
        datetime(2026, 10, 25, 23, tzinfo=UTC),
    )


def test_the_hour_that_comes_twice_is_two_buckets():
    first, second = datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert first.astimezone(PARIS).hour == second.astimezone(PARIS).hour == 2
    assert bucket_start(second, "hour", PARIS) - bucket_start(first, "hour", PARIS) == HOUR


def test_months_of_the_books_begin_at_local_midnight():
    assert month_bounds(2026, 3) == (datetime(2026, 2, 28, 23, tzinfo=UTC), datetime(2026, 3, 31, 22, tzinfo=UTC))
    assert month_bounds(2026, 12) == (datetime(2026, 11, 30, 23, tzinfo=UTC), datetime(2026, 12, 31, 23, tzinfo=UTC))
    assert month_bounds(2026, 12)[1] == month_bounds(2027, 1)[0] == datetime(2026, 12, 31, 23, tzinfo=UTC)


@given(instants)
def test_every_instant_is_in_the_month_it_is_said_to_be_in(instant):
    start, end = month_bounds(instant.astimezone(PARIS).year, instant.astimezone(PARIS).month)
    assert start <= instant < end


@given(st.dates(date(2020, 1, 1), date(2034, 12, 31)), zones)
def test_days_follow_each_other_without_gap(day, zone):
    assert day_bounds(day, zone)[1] == day_bounds(day + timedelta(days=1), zone)[0]
    assert day_bounds(day, zone)[1] - day_bounds(day, zone)[0] in {23 * HOUR, 24 * HOUR, 25 * HOUR}


@given(instants, zones, st.sampled_from(["hour", "day", "month"]))
def test_a_bucket_starts_at_or_before_its_instants_and_starts_its_own_bucket(instant, zone, bucket):
    start = bucket_start(instant, bucket, zone)
    assert start <= instant
    assert bucket_start(start, bucket, zone) == start
    local = start.astimezone(zone)
    assert (local.minute, local.second, local.microsecond) == (0, 0, 0)
    if bucket != "hour":
        assert local.hour == 0
    if bucket == "month":
        assert local.day == 1


@given(instants, st.timedeltas(timedelta(0), timedelta(days=100)), zones, st.sampled_from(["hour", "day", "month"]),
       st.integers(0, 999))  # fmt: skip
def test_buckets_partition_a_period(start, length, zone, bucket, thousandths):
    end = start + length
    starts = bucket_starts(start, end, bucket, zone)
    assert starts == sorted(set(starts))
    if not length:
        assert starts == []
        return
    assert starts[0] <= start
    assert starts[-1] < end
    instant = start + (length // timedelta.resolution * thousandths // 1000) * timedelta.resolution
    (found,) = [at for at, after in zip(starts, [*starts[1:], end], strict=True) if at <= instant < after]
    assert found == bucket_start(instant, bucket, zone)


def test_an_empty_or_reversed_period_has_no_bucket():
    instant = datetime(2026, 10, 25, tzinfo=UTC)
    assert bucket_starts(instant, instant, "hour", PARIS) == []
    assert bucket_starts(instant, instant - HOUR, "day", PARIS) == []

"""Which emission factor counts for an hour."""

from datetime import UTC, datetime, timedelta

from metering.rules.carbon.factors import EmissionFactor, hour_factor

HOUR = datetime(2026, 10, 5, 12, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def a_factor(number, value, starts_at=HOUR, ends_at=HOUR + timedelta(hours=1), **changes):
    factor = EmissionFactor(number, "FR", "location", starts_at, ends_at, value, is_last_resort=False)
    return factor._replace(**changes)


def of_hour(*factors):
    found = hour_factor(factors, "FR", "location", HOUR)
    return found and (found.factor.value, found.numbers)


def test_the_factor_imported_last_counts_whatever_the_order():
    assert of_hour(a_factor(1, 50), a_factor(2, 60)) == of_hour(a_factor(2, 60), a_factor(1, 50)) == (60, (2,))


def test_a_factor_of_last_resort_counts_only_where_there_is_no_other():
    year = a_factor(9, 100, HOUR - timedelta(days=90), HOUR + timedelta(days=90), is_last_resort=True)
    assert of_hour(year, a_factor(1, 50)) == (50, (1,))
    assert of_hour(year) == (100, (9,))
    half = a_factor(1, 50, ends_at=HOUR + 2 * QUARTER)
    assert of_hour(year, half) == (75, (1, 9))


def test_quarters_are_weighed_by_their_time_and_rounded_half_up():
    quarters = [a_factor(n, n, HOUR + n * QUARTER, HOUR + (n + 1) * QUARTER) for n in range(4)]
    assert of_hour(*quarters) == (2, (0, 1, 2, 3))  # 1.5


def test_time_without_a_factor_takes_the_mean_of_the_rest_and_an_hour_without_any_is_unknown():
    assert of_hour(a_factor(1, 50, ends_at=HOUR + QUARTER)) == (50, (1,))
    assert of_hour() is None
    assert of_hour(a_factor(1, 50, zone="DE"), a_factor(2, 50, kind="market")) is None
    assert of_hour(a_factor(1, 50, HOUR - timedelta(hours=1), HOUR)) is None


def test_a_yearly_mean_is_bounded_more_widely_than_a_factor_of_the_slot():
    fine = hour_factor([a_factor(1, 1_000)], "FR", "location", HOUR).factor
    coarse = hour_factor([a_factor(1, 1_000, is_last_resort=True)], "FR", "location", HOUR).factor
    assert (fine.lower, fine.upper) == (900, 1_100)
    assert (coarse.lower, coarse.upper) == (500, 2_000)

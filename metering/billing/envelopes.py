"""What a convention's envelope still has: consumed as rated and as posted, and a forecast to the end of its term.

Money is what the months of the term come to so far, to the cent, with tiers, free quantities, minimum and cap. Carbon
is what the hourly attribution has posted. The forecast follows from indicative costs, or posted carbon, of whole days.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa

from metering.billing.costs import cost_rates, linear_cost
from metering.billing.prices import Tariffs
from metering.billing.rating import Rating, rate_tenant, read_month
from metering.catalog.conventions import term_bounds
from metering.catalog.documents import EUR_DECIMALS, GRAM_DECIMALS, Convention
from metering.errors import NotFound
from metering.rules.billing.envelopes import Forecast, forecast, trailing_days
from metering.rules.carbon.apportioning import rounded
from metering.rules.counting import BILLABLE_REQUESTS, rated
from metering.rules.periods import BOOKS_ZONE, PARIS, day_bounds
from metering.rules.quantities import QUANTITIES
from metering.rules.rating.prices import NANO_PER_CENT
from metering.tables import carbon_batch, carbon_entry, usage_daily, usage_hourly

NG_PER_UG = 1_000
CURRENCY = "EUR"


@dataclass(frozen=True, slots=True)
class Part:
    """An envelope of money (nEUR) or carbon (µg CO2e). consumed None: what is owed isn't all in EUR.

    unknown: requests or quantities that have no amount, and aren't in it.
    """

    envelope: int
    consumed: int | None
    forecast: Forecast | None
    unknown: int


@dataclass(frozen=True, slots=True)
class EnvelopeUse:
    """Both envelopes of a convention's version; None: it has none of it."""

    convention: Convention
    at: datetime
    money: Part | None
    carbon: Part | None


def convention_named(conventions: Mapping[str, Sequence[Convention]], name: str, day: date) -> Convention:
    """The version of a convention that holds on a day, or the first one to come. Raises: NotFound."""
    versions = sorted(
        (one for some in conventions.values() for one in some if one.id == name), key=lambda one: one.version
    )
    if not versions:
        raise NotFound("unknown_convention", "No such convention.", field="convention")
    return ([one for one in versions if one.effective_on <= day] or versions[:1])[-1]


def envelope_use(connection: sa.Connection, tariffs: Tariffs, convention: Convention, now: datetime) -> EnvelopeUse:
    """What is left of a convention's envelopes.

    connection: in a transaction of one state (`snapshot=True`), so that all figures are of one ledger.
    """
    today = min(now.astimezone(PARIS).date(), convention.ends_on)
    money = carbon = None
    if convention.envelope_eur is not None:
        money = _money(connection, tariffs, convention, int(convention.envelope_eur.scaleb(EUR_DECIMALS)), today)
    if convention.envelope_gco2e is not None:
        carbon = _carbon(connection, convention, int(convention.envelope_gco2e.scaleb(GRAM_DECIMALS)), today)
    return EnvelopeUse(convention, now, money, carbon)


def _money(connection: sa.Connection, tariffs: Tariffs, convention: Convention, envelope: int, today: date) -> Part:
    ratings = [
        rate_tenant(connection, tariffs, convention.tenant, read_month(month)) for month in _months(convention, today)
    ]
    cents, unknown = _rated(ratings, convention.id)
    if cents is None:
        return Part(envelope, None, None, unknown)
    daily = _spread(_daily_costs(connection, tariffs, convention, today), convention, today)
    consumed = cents * NANO_PER_CENT
    ahead = forecast(envelope, consumed, daily, today=today, ends_on=convention.ends_on)
    return Part(envelope, consumed, ahead, unknown)


def _rated(ratings: Sequence[Rating], convention: str) -> tuple[int | None, int]:
    """Cents of the lines of a convention, without tax, and how many gaps they have; None: not all in EUR."""
    lines = [one for rating in ratings for one in rating.month.lines if one.account.convention == convention]
    gaps = sum(gap.account.convention == convention for rating in ratings for gap, _amount in rating.month.gaps)
    if any(one.account.currency != CURRENCY for one in lines):
        return None, gaps
    return sum(one.line.cents for one in lines), gaps


def _months(convention: Convention, today: date) -> Iterator[str]:
    year, month = convention.starts_on.year, convention.starts_on.month
    while (year, month) <= (today.year, today.month):
        yield f"{year}-{month:02d}"
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)


def _daily_costs(
    connection: sa.Connection, tariffs: Tariffs, convention: Convention, today: date
) -> Iterator[tuple[date, int]]:
    """Indicative cost (nEUR) of each day, model and operation; of what has no price, nothing is known."""
    columns = usage_daily.c
    failed = sa.func.coalesce(columns.requests_error, 0) + sa.func.coalesce(columns.requests_refused, 0)
    query = (
        sa.select(
            columns.day, columns.model, columns.operation,
            sa.func.sum(columns.requests - failed).label(BILLABLE_REQUESTS),
            *(sa.func.sum(columns[name]).label(name) for name in QUANTITIES),
        )
        .where(columns.tenant == convention.tenant, columns.day.between(*trailing_days(today, convention.starts_on)))
        .group_by(columns.day, columns.model, columns.operation)
    )  # fmt: skip
    for row in connection.execute(query).mappings():
        at = day_bounds(row["day"])[0]
        rates = cost_rates(tariffs, convention.tenant, row["model"] or "", row["operation"], at)
        if rates is not None:
            yield row["day"], rated(linear_cost(rates), row)


def _carbon(connection: sa.Connection, convention: Convention, envelope: int, today: date) -> Part:
    start, end = term_bounds(convention)
    grams = carbon_entry.c.location_ng + carbon_entry.c.embodied_ng
    within = (
        carbon_entry.c.tenant == convention.tenant, carbon_entry.c.part == "use", carbon_entry.c.hour >= start,
        carbon_entry.c.hour < end,
    )  # fmt: skip
    day = sa.cast(sa.func.timezone(BOOKS_ZONE, carbon_entry.c.hour), sa.Date)
    total, unknown = connection.execute(
        sa.select(
            sa.func.coalesce(sa.func.sum(grams), 0),
            sa.func.coalesce(sa.func.sum(carbon_entry.c.requests).filter(grams.is_(None)), 0),
        ).where(*within)
    ).one()
    unposted = connection.scalar(
        sa.select(sa.func.coalesce(sa.func.sum(usage_hourly.c.requests), 0)).where(
            usage_hourly.c.tenant == convention.tenant, usage_hourly.c.hour >= start, usage_hourly.c.hour < end,
            usage_hourly.c.hour.not_in(sa.select(carbon_batch.c.hour)),
        )
    )  # fmt: skip
    first, _last = trailing_days(today, convention.starts_on)
    query = sa.select(day, sa.func.sum(grams)).where(*within, carbon_entry.c.hour >= day_bounds(first)[0]).group_by(day)
    days = ((at, rounded(int(posted or 0), NG_PER_UG)) for at, posted in connection.execute(query))
    consumed = rounded(int(total), NG_PER_UG)
    daily = _spread(days, convention, today)
    ahead = forecast(envelope, consumed, daily, today=today, ends_on=convention.ends_on)
    return Part(envelope, consumed, ahead, int(unknown) + int(unposted or 0))


def _spread(used: Iterator[tuple[date, int]], convention: Convention, today: date) -> dict[date, int]:
    """Use by trailing day, 0 on those without any."""
    first, last = trailing_days(today, convention.starts_on)
    days = {date.fromordinal(number): 0 for number in range(first.toordinal(), last.toordinal() + 1)}
    for day, amount in used:
        if day in days:
            days[day] += amount
    return days

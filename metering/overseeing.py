"""What the overview is told by rooms that reports don't import: what a month comes to so far, and envelopes."""

from collections.abc import Mapping
from datetime import datetime

from litestar.datastructures import State

from metering.billing.costs import cost_rates
from metering.billing.envelopes import Part, envelope_use
from metering.billing.prices import Tariffs, tariffs_of
from metering.billing.rating import Rating, rate_tenants, read_month
from metering.catalog.conventions import convention_in_force
from metering.catalog.documents import Convention
from metering.catalog.snapshot import Snapshot
from metering.database import transaction
from metering.identity import Principal
from metering.rules.periods import PARIS
from metering.rules.rating.prices import NANO_PER_CENT
from reports.journal_api import Cost
from reports.overview import Amounts, EnvelopeLeft, Told
from reports.usage import UsageQuestion, for_reader, read_usage


def told(state: State, reader: Principal, now: datetime) -> Told:
    """Amounts and envelopes: an operator's of everybody, a manager's of the administration, a member's of their use."""
    tariffs = tariffs_of(state.catalog.current())
    if reader.role == "member":
        return Told(_own_amounts(state, tariffs, reader, now))
    convention = None
    if reader.tenant is not None:
        convention = convention_in_force(state.catalog.current(), reader.tenant, now.astimezone(PARIS).date())
    return Told(_amounts(state, tariffs, reader, now), _envelopes(state, tariffs, convention, reader, now))


def _amounts(state: State, tariffs: Tariffs, reader: Principal, now: datetime) -> Amounts:
    """The month so far, rated as its documents will be."""
    snapshot: Snapshot = state.catalog.current()
    tenants = sorted(snapshot.tenants) if reader.tenant is None else [reader.tenant]
    period = read_month(f"{now.astimezone(PARIS):%Y-%m}")
    with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
        ratings = rate_tenants(connection, tariffs, tenants, period)
    return Amounts(
        month=period.start.astimezone(PARIS).date(),
        billed=_sums(ratings, "billed"),
        valued=_sums(ratings, "valued"),
        gaps=sum(len(rating.month.gaps) for rating in ratings),
    )


def _sums(ratings: list[Rating], billing: str) -> list[Cost]:
    found: dict[str, int] = {}
    for rating in ratings:
        for (kind, currency), total in rating.month.totals().items():
            if kind == billing:
                found[currency] = found.get(currency, 0) + total.net_cents * NANO_PER_CENT
    return _costs(found)


def _costs(found: Mapping[str, int]) -> list[Cost]:
    return [Cost(nano, currency) for currency, nano in sorted(found.items())]


def _own_amounts(state: State, tariffs: Tariffs, reader: Principal, now: datetime) -> Amounts:
    """What a member used in the month so far, at the indicative prices of each day: nobody invoices them."""
    period = read_month(f"{now.astimezone(PARIS):%Y-%m}")
    question = for_reader(UsageQuestion(period.start, period.end, "day", PARIS, ("model", "operation")), reader)
    with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
        rows = read_usage(connection, question)
    found: dict[str, int] = {}
    gaps: set[tuple[str | None, str | None]] = set()
    for row in rows:
        model, operation = row.group["model"], row.group["operation"]
        assert reader.tenant is not None
        assert row.bucket_start is not None
        rates = cost_rates(tariffs, reader.tenant, model or "", operation or "", row.bucket_start)
        if rates is None or row.quantities["uncounted_requests"]:
            gaps.add((model, operation))
        if rates is not None:
            found[rates.currency] = found.get(rates.currency, 0) + rates.nano_of(row.quantities)
    return Amounts(period.start.astimezone(PARIS).date(), valued=_costs(found), gaps=len(gaps))


def _envelopes(
    state: State, tariffs: Tariffs, convention: Convention | None, reader: Principal, now: datetime
) -> list[EnvelopeLeft]:
    if convention is None or (convention.envelope_eur is None and convention.envelope_gco2e is None):
        return []
    with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
        use = envelope_use(connection, tariffs, convention, now)
    parts = [("cost_neur", use.money), ("carbon_ugco2e", use.carbon)]
    return [_envelope(convention, meter, part) for meter, part in parts if part is not None]


def _envelope(convention: Convention, meter: str, part: Part) -> EnvelopeLeft:
    ahead = part.forecast
    return EnvelopeLeft(
        convention=convention.id,
        title=convention.title,
        ends_on=convention.ends_on,
        meter=meter,
        envelope=part.envelope,
        consumed=part.consumed,
        likely=None if ahead is None else (ahead.value, ahead.lower, ahead.upper),
        runs_out_on=None if ahead is None else ahead.runs_out_on,
        unknown=part.unknown,
    )

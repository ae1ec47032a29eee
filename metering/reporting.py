"""What reports are told by rooms that they don't import: costs, rated lines, emissions of one request."""

from collections.abc import Sequence

from litestar.datastructures import State

from metering.billing.answers import shown_rating
from metering.billing.costs import CostRates, cost_rates
from metering.billing.prices import Tariffs, tariffs_of
from metering.billing.rating import rate_tenant, read_month
from metering.carbon.explaining import ExplainedHour, explain
from metering.database import transaction
from metering.errors import NotFound
from metering.identity import Principal
from metering.rules.rating.meters import COUNTED_SUMS, unit_name
from reports.journal import LoggedRequest
from reports.journal_api import Cost
from reports.organization import SummedUse
from reports.trail import EmissionsShown, LineShown, TrailSources


def indicative_costs(state: State, found: Sequence[LoggedRequest]) -> list[Cost | None]:
    """What each request costs, about, by the prices at its time; None where that isn't known."""
    tariffs = tariffs_of(state.catalog.current())
    known: dict[tuple[object, ...], CostRates | None] = {}
    return [_cost(tariffs, known, one) for one in found]


def _cost(tariffs: Tariffs, known: dict[tuple[object, ...], CostRates | None], one: LoggedRequest) -> Cost | None:
    # Prices change at whole hours.
    hour = one.started_at.replace(minute=0, second=0, microsecond=0)
    key = (one.tenant, one.model, one.operation, hour)
    if key not in known:
        known[key] = cost_rates(tariffs, one.tenant, one.model, one.operation, one.started_at)
    rates = known[key]
    if rates is None:
        return None
    if one.state == "void":
        return Cost(0, rates.currency)
    if one.status in {"error", "refused"}:
        failed = dict.fromkeys(COUNTED_SUMS) | dict(one.quantities) | {f"requests_{one.status}": 1}
        return Cost(rates.nano_of(failed), rates.currency)
    nano = rates.cost_nano(one.quantities)
    return None if nano is None else Cost(nano, rates.currency)


def indicative_sums(state: State, rows: Sequence[SummedUse]) -> list[Cost | None]:
    """What sums of one administration, model and operation cost, about, by the prices at their beginning."""
    tariffs = tariffs_of(state.catalog.current())
    found = []
    for row in rows:
        rates = cost_rates(tariffs, row.tenant, row.model, row.operation, row.starts_at)
        found.append(None if rates is None else Cost(rates.nano_of(row.sums), rates.currency))
    return found


def rated_lines(state: State, reader: Principal, found: LoggedRequest, month: str) -> list[LineShown]:
    """Lines of a month, as it comes to now, of a request's project and model. Raises: Unavailable."""
    tariffs = tariffs_of(state.catalog.current())
    with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
        rating = shown_rating(rate_tenant(connection, tariffs, found.tenant, read_month(month)))
    return [
        LineShown(
            one.meter, one.quantity, unit_name(one.meter, one.per), one.unit_price, one.per, one.amount, one.currency,
            one.billing, one.convention,
        )
        for one in rating.lines
        if (one.project, one.model) == (found.project, found.model)
    ]  # fmt: skip


def emissions(state: State, _reader: Principal, found: LoggedRequest) -> list[EmissionsShown]:
    """What a request answers for, hour by hour; nothing where it used no model."""
    try:
        # The request is known to be the reader's; readings and times of others are the platform's, and stay here.
        with transaction(state.engine, snapshot=True) as connection:
            explained = explain(connection, found.source, found.event, tenant=found.tenant)
    except NotFound:
        return []
    return [_emissions(hour) for hour in explained.hours]


def _emissions(hour: ExplainedHour) -> EmissionsShown:
    part = hour.part or {}

    def total(bound: str) -> int | None:
        location, embodied = (part.get(f"{name}{bound}_ng") for name in ("location", "embodied"))
        return None if location is None or embodied is None else location + embodied

    return EmissionsShown(
        hour=hour.hour,
        batch=hour.batch,
        is_due=hour.is_due,
        tier=hour.tier,
        energy_uj=part.get("energy_uj"),
        total_ng=total(""),
        total_lower_ng=total("_lower"),
        total_upper_ng=total("_upper"),
        factors=[f"{one.zone} · {one.source} {one.version}" for one in hour.factors],
    )


TRAIL = TrailSources(rated_lines, emissions)

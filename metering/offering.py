"""What pages are told of limits, keys and models: of one administration, as far as a reader is concerned."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from litestar.datastructures import State

from metering.billing.prices import Tariffs, tariffs_of
from metering.catalog.conventions import terms_of_use
from metering.catalog.issued_keys import list_keys
from metering.catalog.limits import limits_of
from metering.catalog.models import look_up
from metering.catalog.raises import RaiseRequest, list_raises
from metering.catalog.snapshot import Snapshot
from metering.database import transaction
from metering.errors import Forbidden, Gone, NotFound, Unavailable
from metering.identity import Principal
from metering.quotas.calls import Figure
from metering.quotas.reservations import BEGINNING, OpenReservation
from metering.quotas.service import Ask
from metering.rules.limits import Limit, Request, limits_about
from metering.rules.periods import PARIS
from metering.rules.rating.meters import PriceMeter, unit_name
from metering.rules.rating.prices import Price, Use
from reports.limits_pages import LimitSources
from reports.standing import (
    AskedRaise,
    HeldKey,
    LimitRule,
    OfferedModel,
    OfferedPrice,
    OpenHold,
    Quotas,
    Standing,
)

HOLDS_SHOWN = 50
KEYS_SHOWN = 1_000
RAISES_SHOWN = 200


async def standings_of(
    state: State, reader: Principal, tenant: str | None
) -> tuple[list[Standing], list[OpenReservation]] | None:
    """Where every limit that a reader meets stands, model by model, and open holds.

    None: the counters are away, or it is nobody's.
    """
    snapshot: Snapshot = state.catalog.current()
    if tenant is None or tenant not in snapshot.tenants:
        return None
    found: dict[tuple[object, ...], Figure] = {}
    try:
        for model in snapshot.models.values():
            operation = next(iter(model.operations), None)
            asked = Request(tenant, None, reader.account, None, model.id, None, operation)
            for figure in await _figures(state, asked):
                limit = figure.limit
                found[limit.scope, limit.subject, limit.selector, limit.meter, limit.window] = figure
        user = reader.account if reader.role == "member" else None
        holds, _rest = await state.quotas.open_holds(tenant, BEGINNING, HOLDS_SHOWN, user=user)
    except Unavailable:
        return None
    return [_standing(one) for one in found.values()], holds


async def _figures(state: State, asked: Request) -> Sequence[Figure]:
    """Where the limits of a kind of request stand; none of what can't be asked for now."""
    try:
        decision = await state.quotas.reserve(Ask("", asked, 1), is_dry=True)
    except (NotFound, Gone, Forbidden):
        return ()
    figures: Sequence[Figure] = decision.figures
    return figures


def _standing(figure: Figure) -> Standing:
    return Standing(_rule(figure.limit), figure.used, figure.held, figure.remaining, figure.reset_at)


def _rule(limit: Limit) -> LimitRule:
    return LimitRule(limit.scope, limit.subject, limit.selector, limit.meter, limit.window, limit.mode, limit.value)


def quotas_of(
    state: State,
    reader: Principal,
    tenant: str,
    standings: tuple[Sequence[Standing], Sequence[OpenReservation]] | None,
    now: datetime,
) -> Quotas:
    """An administration's quotas; a member's own keys and requests. Raises: NotFound, Unavailable."""
    snapshot: Snapshot = state.catalog.current()
    if tenant not in snapshot.tenants:
        raise NotFound("unknown_tenant", "No such administration.", field="tenant")
    account = reader.account if reader.role == "member" else None
    with transaction(state.engine, actor=reader.actor) as connection:
        keys = list_keys(connection, tenant, reader, now=now, limit=KEYS_SHOWN)
        raises = list_raises(connection, tenant=tenant, account=account, limit=RAISES_SHOWN)
    terms = terms_of_use(snapshot, tenant, now)
    return Quotas(
        tenant=tenant,
        administration=snapshot.tenants[tenant].name,
        plan=terms.plan.name,
        standings=None if standings is None else standings[0],
        keys=[
            HeldKey(
                key.id, key.name, key.prefix, key.project, key.account, key.expires_at, key.status, key.last_used_on
            )
            for key in sorted(keys, key=lambda one: (one.status != "active", one.name, one.id))
        ],
        holds=[
            OpenHold(hold.model, hold.project, hold.user, hold.api_key, hold.opened_at, hold.expires_at)
            for hold in (standings[1] if standings else ())
        ],
        raises=[_raise(one, reader) for one in reversed(raises)],
    )


def _raise(one: RaiseRequest, reader: Principal) -> AskedRaise:
    study = one.study
    peak = None if study.peak_day is None else study.peak_day.value
    rule = _rule(one.limit.rule(one.subject))
    own = one.id if one.state == "pending" and one.account == reader.account else None
    return AskedRaise(
        rule, one.created_at, peak, study.requests, study.refused_requests, one.state, one.decision_reason, own
    )


def offered_models(state: State, reader: Principal, now: datetime) -> list[OfferedModel]:
    """The catalogue as a reader finds it: prices and limits are those of their administration."""
    snapshot: Snapshot = state.catalog.current()
    tariffs = tariffs_of(snapshot)
    return [_offered(snapshot, tariffs, reader, name, now) for name in sorted(snapshot.models)]


def _offered(snapshot: Snapshot, tariffs: Tariffs, reader: Principal, name: str, now: datetime) -> OfferedModel:
    found = look_up(snapshot, name, now)
    model, retirement = found.model, found.retirement
    return OfferedModel(
        id=model.id,
        name=model.name,
        category=model.category,
        publisher=model.publisher,
        licence=model.licence,
        licence_url=model.licence_url,
        context_tokens=model.context_tokens,
        operations=model.operations,
        aliases=sorted(alias.id for alias in snapshot.aliases.values() if alias.model == model.id),
        status=found.status(now),
        available_from=model.available_from,
        retires_at=None if retirement is None else retirement.retires_at,
        successor=None if retirement is None else retirement.successor,
        prices=_prices(tariffs, reader, [Use(one, model.id, model.category) for one in model.operations], now),
        limits=_limits(snapshot, reader, model.id, model.category, now),
    )


def _prices(tariffs: Tariffs, reader: Principal, uses: Iterable[Use], now: datetime) -> list[OfferedPrice]:
    tenant = reader.tenant
    terms = tariffs.terms_of(None) if tenant is None else tariffs.terms_on(tenant, now.astimezone(PARIS).date())
    if terms.tariff is None or terms.account.currency is None:
        return []
    chosen: dict[PriceMeter, Price] = {}
    for use in uses:
        chosen |= terms.tariff.chosen(use, now)
    return [
        OfferedPrice(
            price.meter, price.tiers[0].nano, unit_name(price.meter, price.per), terms.account.currency,
            len(price.tiers) > 1,
        )
        for price in chosen.values()
    ]  # fmt: skip


def _limits(snapshot: Snapshot, reader: Principal, model: str, category: str, now: datetime) -> list[LimitRule]:
    """Limits that a reader's requests to a model meet, but those of single projects, keys and other people."""
    if reader.tenant is None:
        return []
    about = Request(reader.tenant, None, reader.account, None, model, category, None)
    found = limits_about(about, limits_of(snapshot, reader.tenant, now))
    return [
        _rule(limit)
        for limit in found
        if limit.scope in {"tenant", "user"} and not limit.selector.startswith("operation:")
    ]


LIMITS = LimitSources(standings_of, quotas_of, offered_models)

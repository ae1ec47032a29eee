"""Limits in force, conventions, requests for a higher limit, and overrides."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET, UnsetType

from metering.catalog import documents
from metering.catalog.conventions import terms_of_use
from metering.catalog.documents import Count, Document, Instant, Paragraph
from metering.catalog.limits import limits_of, live_overrides, window_bounds
from metering.catalog.models import look_up
from metering.catalog.overrides import Grant, Override, add_override, check_place, end_override, list_overrides
from metering.catalog.raises import (
    Asked,
    Decision,
    RaiseRequest,
    RaiseState,
    ask_raise,
    decide_raise,
    find_raise,
    list_raises,
    study_raise,
    withdraw_raise,
)
from metering.catalog.routes.acting import AfterId, Page, PageLimit, acting, clock, page_of
from metering.catalog.snapshot import Snapshot
from metering.errors import Forbidden
from metering.identity import Principal
from metering.rules import limits as rules
from metering.rules.limits import EACH, UNITS, Meter, Mode, Scope, Source, Window, limits_about
from metering.rules.quantities import Operation
from metering.rules.studies import Study
from metering.tables import api_key
from metering.web import BODY_BYTES_MAX, TOKEN_SECURITY, caller_of, caller_within, require

Name = Annotated[
    str | None, QueryParameter(min_length=1, max_length=128, description="Limits of this one; of any if absent.")
]
ModelNamed = Annotated[
    str | None,
    QueryParameter(min_length=1, max_length=128, description="Limits of what this model, category or alias means."),
]
Subject = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
InState = Annotated[RaiseState | None, QueryParameter(name="state", description="Only those in this state.")]


class LimitInForce(msgspec.Struct):
    """A limit in force. value, in `unit`: null is unlimited, 0 forbids. subject null: each one of the scope.

    ends_at: of an override that ends. window_start, window_end: of windows that have bounds.
    """

    scope: Scope
    selector: str
    subject: str | None
    meter: Meter
    unit: str
    window: Window
    value: int | None
    mode: Mode
    source: Source
    ends_at: datetime | None
    window_start: datetime | None
    window_end: datetime | None


class LimitList(msgspec.Struct):
    """Limits in force for an administration at an instant, with the terms they come from."""

    at: datetime
    plan: str
    convention: str | None
    tier: documents.Tier
    outage: documents.Outage
    items: list[LimitInForce]


class ConventionList(msgspec.Struct):
    """Every version of every convention of an administration; `in_force`: id and version of the one that holds."""

    in_force: tuple[str, int] | None
    items: list[documents.Convention]


class LimitAsked(Document, frozen=True, kw_only=True):
    """A limit to be higher: whose (null: of every one of the scope), and why."""

    limit: documents.Limit
    subject: Subject | None = None
    motive: Paragraph


class LimitDecision(Document, frozen=True, kw_only=True):
    """A decision; `value` where another than the one asked for is granted, from `starts_at` to `ends_at`, exclusive."""

    decision: Literal["approve", "refuse"]
    reason: Paragraph
    value: Count | UnsetType | None = UNSET
    starts_at: Instant | None = None
    ends_at: Instant | None = None


class OverrideGiven(Document, frozen=True, kw_only=True):
    """An exception to the limits of an administration, from `starts_at` (null: now) to `ends_at`, exclusive."""

    limit: documents.Limit
    subject: Subject | None = None
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    motive: Paragraph


class RaisePage(Page[RaiseRequest]):
    """Requests for a higher limit, oldest first, and where the next page begins."""


class OverridePage(Page[Override]):
    """Overrides, oldest first, and where the next page begins."""


@get("/v1/tenants/{tenant:str}/limits", summary="Limits in force", sync_to_thread=True)
def get_limits(
    request: Request[Any, Any, Any],
    tenant: FromPath[str],
    project: Name = None,
    user: Name = None,
    key: Name = None,
    model: ModelNamed = None,
    operation: Annotated[Operation | None, QueryParameter(description="Limits of this operation.")] = None,
) -> LimitList:
    caller, now = caller_within(request, tenant), clock()
    snapshot = request.app.state.catalog.current()
    named = look_up(snapshot, model, now).model if model is not None else None
    about = rules.Request(
        tenant,
        project,
        _own_user(caller, user),
        key,
        named.id if named else None,
        named.category if named else None,
        operation,
    )
    limits = limits_about(about, limits_of(snapshot, tenant, now))
    if caller.role == "member":
        limits = _without_keys_of_others(request, caller, limits)
    terms = terms_of_use(snapshot, tenant, now)
    return LimitList(
        at=now,
        plan=terms.plan.id,
        convention=terms.convention.id if terms.convention else None,
        tier=terms.tier,
        outage=terms.outage,
        items=list(_shown(snapshot, tenant, limits, now)),
    )


def _own_user(caller: Principal, user: str | None) -> str | None:
    if caller.role == "member" and user not in {None, caller.account}:
        raise Forbidden("not_yours", "That isn't yours to read.", field="user", expected="your own")
    return caller.account if caller.role == "member" else user


def _without_keys_of_others(
    request: Request[Any, Any, Any], caller: Principal, limits: list[rules.Limit]
) -> list[rules.Limit]:
    with acting(request) as connection:
        own = set(connection.scalars(sa.select(api_key.c.id).where(api_key.c.account == caller.account)))
    return [limit for limit in limits if limit.scope != "key" or limit.subject is None or limit.subject in own]


def _shown(snapshot: Snapshot, tenant: str, limits: list[rules.Limit], now: datetime) -> Iterator[LimitInForce]:
    convention = terms_of_use(snapshot, tenant, now).convention
    ends = {
        (one.limit.scope, one.limit.selector, one.limit.meter, one.limit.window, one.limit.subject): one.ends_at
        for one in live_overrides(snapshot, tenant, now)
    }
    for limit in limits:
        each = f"{limit.selector.partition(':')[0]}:{EACH}"
        written = [(limit.scope, name, limit.meter, limit.window, limit.subject) for name in (limit.selector, each)]
        override = next((place for place in written if place in ends), None) if limit.source == "override" else None
        bounds = window_bounds(limit.window, convention, now) or (None, None)
        yield LimitInForce(
            scope=limit.scope,
            selector=limit.selector,
            subject=limit.subject,
            meter=limit.meter,
            unit=UNITS[limit.meter],
            window=limit.window,
            value=limit.value,
            mode=limit.mode,
            source=limit.source,
            ends_at=ends[override] if override else None,
            window_start=bounds[0],
            window_end=bounds[1],
        )


@get("/v1/tenants/{tenant:str}/conventions", summary="Conventions, with every version", sync_to_thread=True)
def get_conventions(request: Request[Any, Any, Any], tenant: FromPath[str]) -> ConventionList:
    caller_within(request, tenant)
    snapshot = request.app.state.catalog.current()
    convention = terms_of_use(snapshot, tenant, clock()).convention
    in_force = None if convention is None else (convention.id, convention.version)
    return ConventionList(in_force, list(snapshot.conventions.get(tenant, ())))


@get("/v1/tenants/{tenant:str}/limit-requests", summary="Requests for a higher limit", sync_to_thread=True)
def get_limit_requests(
    request: Request[Any, Any, Any],
    tenant: FromPath[str],
    in_state: InState = None,
    after: AfterId = "",
    limit: PageLimit = 100,
) -> RaisePage:
    caller = caller_within(request, tenant)
    account = caller.account if caller.role == "member" else None
    with acting(request) as connection:
        items = list_raises(connection, tenant=tenant, account=account, state=in_state, after=after, limit=limit)
    return page_of(RaisePage, items, limit)


@get("/v1/tenants/{tenant:str}/limit-requests/{id:str}", summary="A request for a higher limit", sync_to_thread=True)
def get_limit_request(request: Request[Any, Any, Any], tenant: FromPath[str], id: FromPath[str]) -> RaiseRequest:  # noqa: A002
    caller = caller_within(request, tenant)
    account = caller.account if caller.role == "member" else None
    with acting(request) as connection:
        return find_raise(connection, id, tenant=tenant, account=account)


@post(
    "/v1/tenants/{tenant:str}/limit-requests",
    summary="Ask for a higher limit",
    description=(
        "A member asks for their own account, a manager for any scope. The request carries a study of the use made in "
        "the last 30 days. Only the value is asked for: the mode stays that of the limit in force."
    ),
    sync_to_thread=True,
)
def post_limit_request(
    request: Request[Any, Any, Any], tenant: FromPath[str], data: JSONBody[LimitAsked]
) -> RaiseRequest:
    caller, state = caller_within(request, tenant), request.app.state
    asked = Asked(data.limit, data.subject, data.motive)
    return ask_raise(state.engine, state.catalog.refresh(), caller, asked, clock())


@delete(
    "/v1/tenants/{tenant:str}/limit-requests/{id:str}",
    summary="Withdraw one's own request that waits; it stays listed",
    sync_to_thread=True,
)
def delete_limit_request(request: Request[Any, Any, Any], tenant: FromPath[str], id: FromPath[str]) -> None:  # noqa: A002
    withdraw_raise(request.app.state.engine, caller_within(request, tenant), id, clock())


@post(
    "/v1/tenants/{tenant:str}/limit-requests/study",
    summary="The study that a request for a higher limit would carry",
    description="Nothing is recorded.",
    status_code=200,
    sync_to_thread=True,
)
def post_study(request: Request[Any, Any, Any], tenant: FromPath[str], data: JSONBody[LimitAsked]) -> Study:
    caller, state = caller_within(request, tenant), request.app.state
    asked = Asked(data.limit, data.subject, data.motive)
    return study_raise(state.engine, state.catalog.refresh(), caller, asked, clock())


@get("/v1/admin/limit-requests", summary="Requests for a higher limit, of everybody", sync_to_thread=True)
def get_all_limit_requests(
    request: Request[Any, Any, Any], in_state: InState = None, after: AfterId = "", limit: PageLimit = 100
) -> RaisePage:
    with acting(request) as connection:
        items = list_raises(connection, state=in_state, after=after, limit=limit)
    return page_of(RaisePage, items, limit)


@post(
    "/v1/admin/limit-requests/{id:str}/decision",
    summary="Decide a request; an approval creates the override",
    status_code=200,
    sync_to_thread=True,
)
def post_decision(
    request: Request[Any, Any, Any],
    id: FromPath[str],  # noqa: A002
    data: JSONBody[LimitDecision],
) -> RaiseRequest:
    state = request.app.state
    decision = Decision(data.decision == "approve", data.reason, data.value, data.starts_at, data.ends_at)
    return decide_raise(state.engine, state.catalog.refresh(), caller_of(request), id, decision, clock())


@get("/v1/admin/tenants/{tenant:str}/overrides", summary="Overrides of an administration", sync_to_thread=True)
def get_overrides(
    request: Request[Any, Any, Any], tenant: FromPath[str], after: AfterId = "", limit: PageLimit = 100
) -> OverridePage:
    caller_within(request, tenant)
    with acting(request) as connection:
        items = list_overrides(connection, tenant, after=after, limit=limit)
    return page_of(OverridePage, items, limit)


@post("/v1/admin/tenants/{tenant:str}/overrides", summary="Grant an exception to a limit", sync_to_thread=True)
def post_override(request: Request[Any, Any, Any], tenant: FromPath[str], data: JSONBody[OverrideGiven]) -> Override:
    caller, state = caller_within(request, tenant), request.app.state
    grant = Grant(tenant, data.limit, data.subject, data.starts_at, data.ends_at, data.motive, caller.actor.author)
    snapshot = state.catalog.refresh()
    with acting(request) as connection:
        check_place(connection, snapshot, tenant, data.limit, data.subject)
        return add_override(connection, grant, clock())


@delete(
    "/v1/admin/tenants/{tenant:str}/overrides/{id:str}", summary="End an exception now; it stays listed",
    sync_to_thread=True,
)  # fmt: skip
def delete_override(request: Request[Any, Any, Any], tenant: FromPath[str], id: FromPath[str]) -> None:  # noqa: A002
    caller_within(request, tenant)
    with acting(request) as connection:
        end_override(connection, tenant, id, clock())


limits_router = Router(
    "/",
    route_handlers=[
        Router(
            "/",
            route_handlers=[get_limits, get_limit_requests, get_limit_request],
            guards=[require("operator", "manager", "member")],
        ),
        Router("/", route_handlers=[get_conventions], guards=[require("operator", "manager")]),
        Router(
            "/",
            route_handlers=[post_limit_request, post_study, delete_limit_request],
            guards=[require("manager", "member")],
        ),
        Router(
            "/",
            route_handlers=[get_all_limit_requests, post_decision, get_overrides, post_override, delete_override],
            guards=[require("operator")],
        ),
    ],
    security=TOKEN_SECURITY,
    request_max_body_size=BODY_BYTES_MAX,
    tags=["limits"],
)

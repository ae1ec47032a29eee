"""Administration: limits in force of an administration, and exceptions to them."""

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from litestar import MediaType, Request, Response, get, post

from metering.catalog.limits import limits_of
from metering.catalog.overrides import Grant, Override, add_override, check_place, end_override, list_overrides
from metering.catalog.routes.acting import acting, clock
from metering.catalog.routes.limits import OverrideGiven
from metering.catalog.snapshot import Snapshot
from metering.console.acting import Form as Sent
from metering.console.administration import back_to_admin, done, heads
from metering.console.fields import end_of, made, number_of, start_of
from metering.console.people import choose_tenant
from metering.console.raises import said
from metering.identity import Principal
from metering.rules.limits import METERS, SCOPES, UNITS, WINDOWS
from metering.visiting import Said
from metering.web import caller_within
from reports.limits_said import meter_name
from reports.sheets import Block, Field, Form, Sheet, Table, answer_sheet, at, choices
from reports.wording import Language, say

PAGE = "/admin/limits"
OVERRIDES_SHOWN = 1_000


@get(PAGE, include_in_schema=False, media_type=MediaType.HTML)
async def limits_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Limits of one administration, with where each comes from."""

    def build(language: Language, _reader: Principal) -> Sheet:
        snapshot: Snapshot = request.app.state.catalog.current()
        tenant = request.query_params.get("tenant") or None
        title, what, back = say(language, "admin.limits"), say(language, "admin.limits.what"), back_to_admin(language)
        if tenant is None:
            return Sheet(title, what, [choose_tenant(PAGE, snapshot, language)], back)
        caller_within(request, tenant)
        now = clock()
        with acting(request) as connection:
            overrides = list_overrides(connection, tenant, limit=OVERRIDES_SHOWN)
        live = [one for one in overrides if one.ends_at is None or one.ends_at > now]
        blocks = [
            _limits(snapshot, tenant, now, language), _overrides(live, language), _granting(tenant, language),
            *([_ending(tenant, live, language)] if live else []),
        ]  # fmt: skip
        return Sheet(title, what, blocks, back, period=snapshot.tenants[tenant].name)

    return await answer_sheet(request, build)


def _limits(snapshot: Snapshot, tenant: str, now: datetime, language: Language) -> Block:
    rows = tuple(
        (said(one, language), say(language, f"admin.limits.source.{one.source}"))
        for one in limits_of(snapshot, tenant, now)
    )
    table = Table(say(language, "admin.limits.caption"), heads(language, "quotas.limit", "admin.limits.source"), rows)
    return Block("limits", say(language, "quotas.meters"), table=table, empty=say(language, "quotas.meters.none"))


def _overrides(live: list[Override], language: Language) -> Block:
    table = Table(
        say(language, "admin.limits.overrides.caption"),
        heads(language, "quotas.limit", "admin.starts", "admin.ends", "admin.motive", "admin.limits.approver"),
        tuple(
            (said(one.limit.rule(one.subject), language), at(one.starts_at, language),
             at(one.ends_at, language) or say(language, "admin.no_end"), one.motive, one.approver)
            for one in live
        ),
    )  # fmt: skip
    empty = say(language, "admin.limits.overrides.none")
    return Block("overrides", say(language, "admin.limits.overrides"), table=table, empty=empty)


def _granting(tenant: str, language: Language) -> Block:
    scopes = choices([(scope, say(language, f"limit.scope.{scope}")) for scope in SCOPES])
    meters = choices([(meter, f"{meter_name(meter, language)} ({meter}, {UNITS[meter]})") for meter in METERS])
    windows = choices([(window, say(language, f"limit.window.{window}")) for window in WINDOWS])
    form = Form("/admin/limits/grant", say(language, "admin.limits.grant"), (
        Field("tenant", kind="hidden", value=tenant),
        Field("scope", say(language, "admin.limits.scope"), "select", choices=scopes, is_required=True),
        Field("subject", say(language, "admin.limits.subject"), hint=say(language, "admin.limits.subject.hint")),
        Field("selector", say(language, "admin.limits.selector"), value="*", is_required=True,
              hint=say(language, "admin.limits.selector.hint")),
        Field("meter", say(language, "admin.limits.meter"), "select", choices=meters, is_required=True),
        Field("window", say(language, "admin.limits.window"), "select", choices=windows, is_required=True),
        Field("value", say(language, "admin.limits.value"), "number", hint=say(language, "admin.limits.value.hint")),
        Field("starts_on", say(language, "admin.first_day"), "date", hint=say(language, "admin.notices.at_once")),
        Field("ends_on", say(language, "admin.last_day"), "date", hint=say(language, "admin.last_day.hint")),
        Field.area("motive", say(language, "admin.motive")),
    ))  # fmt: skip
    return Block(
        "grant", say(language, "admin.limits.grant"), (say(language, "admin.limits.grant.what"),), forms=(form,)
    )


def _ending(tenant: str, live: list[Override], language: Language) -> Block:
    options = choices([(one.id, said(one.limit.rule(one.subject), language)) for one in live])
    form = Form("/admin/limits/end", say(language, "admin.limits.end"), (
        Field("tenant", kind="hidden", value=tenant),
        Field("override", say(language, "quotas.limit"), "select", choices=options, is_required=True),
    ), is_grave=True)  # fmt: skip
    return Block("end", say(language, "admin.limits.end"), (say(language, "admin.limits.end.what"),), forms=(form,))


def _own_page(form: Any) -> str:
    return f"{PAGE}?{urlencode({'tenant': str(form.get('tenant', ''))})}"


@post("/admin/limits/grant", include_in_schema=False)
async def grant_override(request: Request[Any, Any, Any]) -> Response[Any]:
    """Grant an exception to a limit."""

    def act(form: Sent) -> Said:
        tenant = form.get("tenant", "")
        caller, state = caller_within(request, tenant), request.app.state
        limit = {name: form.get(name, "") for name in ("scope", "selector", "meter", "window")}
        body = made(OverrideGiven, {
            "limit": limit | {"value": number_of(form, "value")}, "subject": form.get("subject") or None,
            "starts_at": start_of(form, "starts_on"), "ends_at": end_of(form, "ends_on"),
            "motive": form.get("motive", ""),
        })  # fmt: skip
        snapshot, author = state.catalog.refresh(), caller.actor.author
        grant = Grant(tenant, body.limit, body.subject, body.starts_at, body.ends_at, body.motive, author)
        with acting(request) as connection:
            check_place(connection, snapshot, tenant, body.limit, body.subject)
            add_override(connection, grant, clock())
        return Said("done", "admin.limits.granted")

    return await done(request, act, _own_page(await request.form()))


@post("/admin/limits/end", include_in_schema=False)
async def end_exception(request: Request[Any, Any, Any]) -> Response[Any]:
    """End an exception now; it stays listed over the API."""

    def act(form: Sent) -> Said:
        tenant = form.get("tenant", "")
        caller_within(request, tenant)
        with acting(request) as connection:
            end_override(connection, tenant, form.get("override", ""), clock())
        return Said("done", "admin.limits.ended")

    return await done(request, act, _own_page(await request.form()))

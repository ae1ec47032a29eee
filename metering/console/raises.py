"""Asking for a raise, by pages below "Quotas et clés": which limit, the study of one's own use, then the request."""

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from litestar import MediaType, Request, Response, Router, get, post

from metering.catalog.limits import limits_of
from metering.catalog.raises import Asked, ask_raise, study_raise, withdraw_raise
from metering.catalog.routes.acting import clock
from metering.catalog.routes.limits import LimitAsked
from metering.catalog.snapshot import Snapshot
from metering.console.acting import Form as Sent
from metering.console.acting import acted, form_of
from metering.console.fields import made, number_of
from metering.console.guards import require_form_of, require_page
from metering.console.signing_in import to_sign_in
from metering.errors import Forbidden, Unauthorized, Unprocessable
from metering.identity import Principal
from metering.rules.limits import UNITS, Limit
from metering.rules.studies import Study
from metering.visiting import Said
from metering.web import BODY_BYTES_MAX, caller_of, knowing_changes
from reports import wording
from reports.limits_said import said_amount, said_limit, said_place
from reports.rendering import answer_error
from reports.sheets import Block, Cell, Field, Form, Sheet, address, answer_sheet, choices
from reports.shown import Link
from reports.standing import LimitRule
from reports.wording import Language, say

PAGE = "/quotas"
NEW = "/quotas/raises/new"
STUDY = "/quotas/raises/study"
SEPARATOR = "|"
PER_MILLE = 1_000


def rule_of(limit: Limit) -> LimitRule:
    """A limit in the form in which it is said."""
    return LimitRule(limit.scope, limit.subject, limit.selector, limit.meter, limit.window, limit.mode, limit.value)


def place_of(limit: Limit) -> str:
    """Where a limit holds, as a form says it."""
    return SEPARATOR.join((limit.scope, limit.selector, limit.meter, limit.window, limit.subject or ""))


def said(limit: Limit, language: Language) -> str:
    """A limit and where it holds, in words."""
    rule = rule_of(limit)
    return f"{said_limit(rule, language)} ({said_place(rule, language)})"


def _own_limits(snapshot: Snapshot, reader: Principal, now: datetime) -> list[Limit]:
    """Limits that a reader may ask to be higher: a member those of people, of which their own."""
    assert reader.tenant is not None
    found = [one for one in limits_of(snapshot, reader.tenant, now) if one.value is not None]
    if reader.role == "manager":
        return found
    return [one for one in found if one.scope == "user" and one.subject in {None, reader.account}]


@get(NEW, include_in_schema=False, media_type=MediaType.HTML, guards=[require_page("manager", "member")])
async def new_raise(request: Request[Any, Any, Any]) -> Response[str]:
    """Which limit is to be higher, and why."""

    def build(language: Language, reader: Principal) -> Sheet:
        limits = _own_limits(request.app.state.catalog.current(), reader, clock())
        options = choices([(place_of(one), said(one, language)) for one in limits])
        units = ", ".join(sorted({UNITS[one.meter] for one in limits}))
        form = Form(STUDY, say(language, "raise.study"), (
            Field("limit", say(language, "raise.limit"), "select", choices=options),
            Field("value", say(language, "raise.value"), "number", is_required=True,
                  hint=say(language, "raise.value.hint", units=units)),
            Field.area("motive", say(language, "raise.motive")),
        ), method="get")  # fmt: skip
        empty = "" if limits else say(language, "raise.none")
        block = Block("new", say(language, "raise.new"), (say(language, "raise.steps"),), empty=empty,
                      forms=(form,) if limits else ())  # fmt: skip
        return Sheet(say(language, "raise.new"), say(language, "raise.what"), [block], _back(language))

    return await answer_sheet(request, build)


def _asked(form: Sent) -> Asked:
    """What a form asks for, by the same rules as over HTTP. Raises: Unprocessable."""
    parts = form.get("limit", "").split(SEPARATOR)
    if len(parts) != 5:
        raise Unprocessable("not_a_choice", "Not one of the list.", field="limit", expected="a limit in force")
    scope, selector, meter, window, subject = parts
    limit = {"scope": scope, "selector": selector, "meter": meter, "window": window, "value": number_of(form, "value")}
    body = made(LimitAsked, {"limit": limit, "subject": subject or None, "motive": form.get("motive", "")})
    if body.limit.value is None:
        raise Unprocessable("missing_field", "A raise has a value.", field="value", expected="a whole number")
    return Asked(body.limit, body.subject, body.motive)


@get(STUDY, include_in_schema=False, media_type=MediaType.HTML, guards=[require_page("manager", "member")])
async def study_page(request: Request[Any, Any, Any]) -> Response[str]:
    """The study that the request carries, before it is sent."""

    def build(language: Language, reader: Principal) -> Sheet:
        form = {name: value.strip() for name, value in request.query_params.items()}
        asked, state = _asked(form), request.app.state
        study = study_raise(state.engine, state.catalog.current(), reader, asked, clock())
        wanted = said(asked.limit.rule(asked.subject), language)
        send = Form("/quotas/raises", say(language, "raise.send"), tuple(
            Field(name, kind="hidden", value=form.get(name, "")) for name in ("limit", "value", "motive")
        ))  # fmt: skip
        asking = Block("asked", say(language, "raise.asked"), facts=(
            (say(language, "raise.limit"), wanted), (say(language, "raise.motive"), asked.motive)
        ))  # fmt: skip
        facts = study_facts(study, asked.limit.meter, language)
        shown = Block("study", say(language, "raise.study.title"), (say(language, "raise.study.what"),), facts=facts,
                      forms=(send,))  # fmt: skip
        again = Link(say(language, "raise.again"), address(NEW, language))
        return Sheet(say(language, "raise.check"), say(language, "raise.what"), [asking, shown], again)

    return await answer_sheet(request, build)


def study_facts(study: Study, meter: str, language: Language) -> tuple[tuple[str, Cell], ...]:
    """A study in words; what isn't measured is unknown, not 0."""

    def amount(value: int | None) -> str | None:
        return None if value is None else said_amount(value, meter, language)

    def share(per_mille: int | None) -> str | None:
        return None if per_mille is None else wording.share(per_mille, PER_MILLE, language)

    peak = None
    if study.peak_day is not None:
        peak = f"{amount(study.peak_day.value)} ({wording.day(study.peak_day.day, language)})"
    period = f"{wording.day(study.first_day, language)} – {wording.day(study.last_day, language)}"
    return (
        (say(language, "study.period"), period),
        (say(language, "study.present"), amount(study.present_value)),
        (say(language, "study.total"), amount(study.total)),
        (say(language, "study.median"), amount(study.median)),
        (say(language, "study.peak"), peak),
        (say(language, "study.near"), share(study.near_limit_per_mille)),
        (say(language, "study.requests"), wording.amount(study.requests, "requests", language)),
        (say(language, "study.refused"), wording.amount(study.refused_requests, "requests", language)),
        (say(language, "study.uncounted"), wording.amount(study.uncounted_requests, "requests", language)),
        (say(language, "study.batch"), wording.number(study.as_of, language)),
    )


@post("/quotas/raises", guards=[require_form_of("manager", "member")], include_in_schema=False)
async def send_raise(request: Request[Any, Any, Any]) -> Response[Any]:
    """Ask for a raise; its study is made anew, at that moment."""

    def act(form: Sent) -> Said:
        state = request.app.state
        ask_raise(state.engine, state.catalog.refresh(), caller_of(request), _asked(form), clock())
        return Said("done", "raise.sent")

    form = await form_of(request)
    again = urlencode({name: form.get(name, "") for name in ("limit", "value", "motive")})
    return await acted(request, form, act, back=PAGE, refused_back=f"{STUDY}?{again}" if len(again) < 2_000 else NEW)


@post("/quotas/raises/withdraw", guards=[require_form_of("manager", "member")], include_in_schema=False)
async def withdraw(request: Request[Any, Any, Any]) -> Response[Any]:
    """Take back one's own request that waits."""

    def act(form: Sent) -> Said:
        withdraw_raise(request.app.state.engine, caller_of(request), form.get("request", ""), clock())
        return Said("done", "raise.withdrawn")

    return await acted(request, await form_of(request), act, back=PAGE)


def _back(language: Language) -> Link:
    return Link(say(language, "key.back"), address(PAGE, language))


raise_forms = Router(
    "/",
    route_handlers=[new_raise, study_page, send_raise, withdraw],
    middleware=[knowing_changes],
    exception_handlers={Unauthorized: to_sign_in, Forbidden: answer_error},
    request_max_body_size=BODY_BYTES_MAX,
)

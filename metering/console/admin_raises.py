"""Administration: requests for a raise with their study, and deciding them."""

from typing import Any
from urllib.parse import quote

from litestar import MediaType, Request, Response, get, post
from litestar.params import FromPath
from msgspec import UNSET

from metering.catalog.raises import Decision, RaiseRequest, decide_raise, find_raise, list_raises
from metering.catalog.routes.acting import acting, clock
from metering.catalog.routes.limits import LimitDecision
from metering.console.acting import Form as Sent
from metering.console.administration import back_to_admin, done, heads
from metering.console.fields import choice_of, end_of, made, number_of
from metering.console.raises import said, study_facts
from metering.identity import Principal
from metering.rules.limits import UNITS
from metering.visiting import Said
from metering.web import caller_of
from reports.sheets import Block, Cell, Field, Form, Sheet, Table, address, answer_sheet, at
from reports.shown import Link
from reports.wording import Language, say

PAGE = "/admin/raises"
SHOWN = 100
ANSWERS = ("approve", "refuse")


@get(PAGE, include_in_schema=False, media_type=MediaType.HTML)
async def raises_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Requests that wait for a decision, the oldest first."""

    def build(language: Language, _reader: Principal) -> Sheet:
        after = request.query_params.get("after") or None
        with acting(request) as connection:
            found = list_raises(connection, state="pending", after=after, limit=SHOWN)
        table = Table(
            say(language, "admin.raises.caption"),
            heads(language, "raise.limit", "filter.tenant", "people.account", "admin.access.asked"),
            tuple(_row(one, language) for one in found),
            older=address(PAGE, language, after=found[-1].id) if len(found) == SHOWN else None,
            newer=address(PAGE, language) if after else None,
        )
        block = Block(
            "raises", say(language, "admin.raises.list"), table=table, empty=say(language, "admin.raises.none")
        )
        return Sheet(
            say(language, "admin.raises"), say(language, "admin.raises.what"), [block], back_to_admin(language)
        )

    return await answer_sheet(request, build)


def _row(one: RaiseRequest, language: Language) -> tuple[Cell, ...]:
    path = address(f"{PAGE}/{quote(one.id, safe='')}", language)
    limit = Link(said(one.limit.rule(one.subject), language), path)
    return limit, one.tenant, one.account, at(one.created_at, language)


@get(f"{PAGE}/{{raise_id:str}}", include_in_schema=False, media_type=MediaType.HTML)
async def raise_page(request: Request[Any, Any, Any], raise_id: FromPath[str]) -> Response[str]:
    """A request with its study, and its decision."""

    def build(language: Language, _reader: Principal) -> Sheet:
        with acting(request) as connection:
            found = find_raise(connection, raise_id)
        facts: tuple[tuple[str, Cell], ...] = (
            (say(language, "raise.limit"), said(found.limit.rule(found.subject), language)),
            (say(language, "filter.tenant"), found.tenant),
            (say(language, "people.account"), found.account),
            (say(language, "raise.motive"), found.motive),
            (say(language, "admin.access.asked"), at(found.created_at, language)),
            (say(language, "admin.state"), say(language, f"quotas.raise.state.{found.state}")),
            (say(language, "admin.reason"), found.decision_reason),
        )
        study = study_facts(found.study, found.limit.meter, language)
        blocks = [
            Block("raise", say(language, "raise.asked"), facts=facts),
            Block("study", say(language, "raise.study.title"), facts=study),
        ]
        if found.state == "pending":
            blocks.append(_deciding(found, language))
        back = Link(say(language, "admin.raises"), address(PAGE, language))
        return Sheet(say(language, "admin.raises.one"), say(language, "admin.raises.what"), blocks, back)

    return await answer_sheet(request, build)


def _deciding(found: RaiseRequest, language: Language) -> Block:
    own, reason = Field("id", kind="hidden", value=found.id), Field.area("reason", say(language, "admin.reason"))
    approve = Form("/admin/raises/approve", say(language, "admin.approve"), (
        own,
        Field("value", say(language, "admin.raises.value"), "number",
              "" if found.limit.value is None else str(found.limit.value), UNITS[found.limit.meter], is_required=True),
        Field("ends_on", say(language, "admin.last_day"), "date", hint=say(language, "admin.last_day.hint")), reason,
    ), say(language, "admin.approve"))  # fmt: skip
    refuse = Form("/admin/raises/refuse", say(language, "admin.refuse"), (own, reason), say(language, "admin.refuse"),
                  is_grave=True)  # fmt: skip
    return Block(
        "decide", say(language, "admin.decide"), (say(language, "admin.raises.decide"),), forms=(approve, refuse)
    )


@post(f"{PAGE}/{{answer:str}}", include_in_schema=False)
async def decide_on_raise(request: Request[Any, Any, Any], answer: FromPath[str]) -> Response[Any]:
    """Approve a request, which creates the override, or refuse it."""

    def act(form: Sent) -> Said:
        choice_of({"answer": answer}, "answer", ANSWERS)
        given: dict[str, Any] = {"decision": answer, "reason": form.get("reason", "")}
        if answer == "approve":
            given |= {"value": number_of(form, "value"), "ends_at": end_of(form, "ends_on")}
        body = made(LimitDecision, given)
        state = request.app.state
        value = UNSET if answer == "refuse" else body.value
        decision = Decision(answer == "approve", body.reason, value, None, body.ends_at)
        decide_raise(state.engine, state.catalog.refresh(), caller_of(request), form.get("id", ""), decision, clock())
        return Said("done", f"admin.raises.{answer}.done")

    form = await request.form()
    own = f"{PAGE}/{quote(str(form.get('id', '')), safe='')}"
    return await done(request, act, PAGE, own)

"""Administration: requests for an account, and deciding them."""

from typing import Any
from urllib.parse import quote

from litestar import MediaType, Request, Response, get, post
from litestar.params import FromPath

from metering.catalog.access import AccessRequest, Decision, decide, list_requests
from metering.catalog.routes.access import DecisionBody
from metering.catalog.routes.acting import acting, clock
from metering.catalog.snapshot import Snapshot
from metering.console.acting import Form as Sent
from metering.console.administration import back_to_admin, done, heads
from metering.console.fields import made
from metering.errors import NotFound
from metering.identity import Principal
from metering.visiting import Said
from metering.web import caller_of
from reports.sheets import Block, Cell, Field, Form, Sheet, Table, address, answer_sheet, at, choices
from reports.shown import Link
from reports.wording import Language, say

PAGE = "/admin/access"
SHOWN = 100
DECIDABLE = frozenset({"pending", "delayed"})


@get(PAGE, include_in_schema=False, media_type=MediaType.HTML)
async def access_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Requests, those that wait first."""

    def build(language: Language, _reader: Principal) -> Sheet:
        after = request.query_params.get("after", "")
        with acting(request) as connection:
            waiting = list_requests(connection, state="pending", after=after, limit=SHOWN)
            delayed = [] if after else list_requests(connection, state="delayed", limit=SHOWN)
        found = [*waiting, *delayed]
        table = Table(
            say(language, "admin.access.caption"),
            heads(language, "admin.access.name", "admin.access.organisation", "admin.access.kind", "admin.state",
                  "admin.access.asked"),
            tuple(_row(one, language) for one in found),
            older=address(PAGE, language, after=waiting[-1].id) if len(waiting) == SHOWN else None,
            newer=address(PAGE, language) if after else None,
        )  # fmt: skip
        block = Block(
            "requests", say(language, "admin.access.list"), table=table, empty=say(language, "admin.access.none")
        )
        return Sheet(
            say(language, "admin.access"), say(language, "admin.access.what"), [block], back_to_admin(language)
        )

    return await answer_sheet(request, build)


def _row(one: AccessRequest, language: Language) -> tuple[Cell, ...]:
    path = address(f"{PAGE}/{quote(one.id, safe='')}", language)
    return (
        Link(one.name or one.id, path), one.organisation, say(language, f"admin.access.{one.kind}"),
        say(language, f"admin.access.state.{one.state}"), at(one.created_at, language),
    )  # fmt: skip


@get(f"{PAGE}/{{request_id:str}}", include_in_schema=False, media_type=MediaType.HTML)
async def access_request_page(request: Request[Any, Any, Any], request_id: FromPath[str]) -> Response[str]:
    """A request, and its decision."""

    def build(language: Language, _reader: Principal) -> Sheet:
        snapshot: Snapshot = request.app.state.catalog.current()
        with acting(request) as connection:
            # The place just before its id: ids are in the order of arrival.
            found = next(
                (one for one in list_requests(connection, after=request_id[:-1], limit=SHOWN) if one.id == request_id),
                None,
            )
        if found is None:
            raise NotFound("unknown_request", "There is no such request.", field="id")
        facts: tuple[tuple[str, Cell], ...] = (
            (say(language, "admin.access.name"), found.name),
            (say(language, "people.email"), found.email),
            (say(language, "admin.access.organisation"), found.organisation),
            (say(language, "admin.access.siret"), found.siret),
            (say(language, "admin.access.kind"), say(language, f"admin.access.{found.kind}")),
            (say(language, "admin.motive"), found.motive or None),
            (say(language, "admin.state"), say(language, f"admin.access.state.{found.state}")),
            (say(language, "admin.reason"), found.state_reason),
            (say(language, "admin.access.asked"), at(found.created_at, language)),
        )
        blocks = [Block("request", say(language, "admin.access.one"), facts=facts)]
        if found.state in DECIDABLE:
            blocks += _deciding(found, snapshot, language)
        back = Link(say(language, "admin.access"), address(PAGE, language))
        return Sheet(found.name or found.id, say(language, "admin.access.what"), blocks, back)

    return await answer_sheet(request, build)


def _deciding(found: AccessRequest, snapshot: Snapshot, language: Language) -> list[Block]:
    own = Field("id", kind="hidden", value=found.id)
    tenants = sorted(snapshot.tenants.values(), key=lambda one: (one.name, one.id))
    options = choices([(one.id, f"{one.name} ({one.id})") for one in tenants])
    roles = choices([("", say(language, "admin.access.role.usual")), ("member", say(language, "role.member")),
                     ("manager", say(language, "role.manager"))])  # fmt: skip
    approve = Form("/admin/access/approve", say(language, "admin.approve"), (
        own, Field("tenant", say(language, "filter.tenant"), "select", choices=options, is_required=True),
        Field("role", say(language, "people.role"), "select", choices=roles),
    ))  # fmt: skip
    refuse = Form("/admin/access/refuse", say(language, "admin.refuse"), (
        own, Field.area("reason", say(language, "admin.reason"), hint=say(language, "people.reason.hint")),
    ), is_grave=True)  # fmt: skip
    return [
        Block(
            "approve", say(language, "admin.approve"), (say(language, "admin.access.approve.what"),), forms=(approve,)
        ),
        Block("refuse", say(language, "admin.refuse"), forms=(refuse,)),
    ]


@post("/admin/access/approve", include_in_schema=False)
async def approve_access(request: Request[Any, Any, Any]) -> Response[Any]:
    """Approve a request, for an administration."""
    return await _decide(request, "approve")


@post("/admin/access/refuse", include_in_schema=False)
async def refuse_access(request: Request[Any, Any, Any]) -> Response[Any]:
    """Refuse a request, with a reason."""
    return await _decide(request, "refuse")


async def _decide(request: Request[Any, Any, Any], decision: str) -> Response[Any]:
    def act(form: Sent) -> Said:
        said = {"decision": decision} | {name: form[name] for name in ("tenant", "role", "reason") if form.get(name)}
        if decision == "refuse":
            said["reason"] = form.get("reason", "")
        body = made(DecisionBody, said)
        decided = Decision(body.decision == "approve", body.reason, body.tenant, body.role)
        author, master_key = caller_of(request).actor.author, request.app.state.master_key
        with acting(request) as connection:
            decide(connection, master_key, form.get("id", ""), decided, author=author, now=clock())
        return Said("done", f"admin.access.{decision}.done")

    form = await request.form()
    own = f"{PAGE}/{quote(str(form.get('id', '')), safe='')}"
    return await done(request, act, PAGE, own)

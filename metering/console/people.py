"""The page "Personnes": the accounts of an administration, for its managers and for operators."""

from typing import Any
from urllib.parse import quote, urlencode

from litestar import MediaType, Request, Response, Router, get, post
from litestar.params import FromPath

from metering.catalog import accounts
from metering.catalog.access import Invited, checked_email, invite
from metering.catalog.accounts import Account, find_account, list_accounts
from metering.catalog.routes.access import InvitationBody
from metering.catalog.routes.acting import acting, clock
from metering.catalog.routes.people import ReasonBody, RoleBody
from metering.catalog.snapshot import Snapshot
from metering.console.acting import Form as Sent
from metering.console.acting import acted, form_of
from metering.console.fields import check_confirmed, choice_of, made
from metering.console.guards import require_form_of, require_page
from metering.console.signing_in import to_sign_in
from metering.errors import Forbidden, Unauthorized
from metering.identity import Principal
from metering.visiting import Said
from metering.web import BODY_BYTES_MAX, caller_of, caller_within, knowing_changes
from reports.rendering import answer_error
from reports.sheets import Block, Cell, Field, Form, Sheet, Table, address, answer_sheet, at, choices, confirm
from reports.shown import Link
from reports.wording import Language, say

PAGE = "/people"
PEOPLE_SHOWN = 100
ACTS = ("role", "suspend", "restore", "delete")


@get(PAGE, include_in_schema=False, media_type=MediaType.HTML, guards=[require_page("operator", "manager")])
async def people_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Who has an account, and the form that invites somebody."""

    def build(language: Language, reader: Principal) -> Sheet:
        snapshot: Snapshot = request.app.state.catalog.current()
        asked, after = request.query_params.get("tenant") or None, request.query_params.get("after", "")
        tenant = reader.tenant or asked
        title, what = say(language, "people"), say(language, "people.what")
        if tenant is None:
            return Sheet(title, what, [choose_tenant(PAGE, snapshot, language)])
        caller_within(request, asked or tenant)
        with acting(request) as connection:
            found = list_accounts(connection, tenant, after=after, limit=PEOPLE_SHOWN)
        more = found[-1].id if len(found) == PEOPLE_SHOWN else None
        chosen = tenant if reader.tenant is None else None
        table = Table(
            say(language, "people.caption"),
            tuple(say(language, f"people.{name}") for name in ("name", "email", "role", "state", "since")),
            tuple(_row(one, chosen, language) for one in found),
            older=more and address(PAGE, language, tenant=chosen, after=more),
            newer=address(PAGE, language, tenant=chosen) if after else None,
        )
        listed = Block("people", say(language, "people.list"), table=table, empty=say(language, "people.none"))
        return Sheet(title, what, [listed, _inviting(tenant, language)], period=snapshot.tenants[tenant].name)

    return await answer_sheet(request, build)


def choose_tenant(path: str, snapshot: Snapshot, language: Language) -> Block:
    """What an operator is asked where a page is of one administration."""
    tenants = sorted(snapshot.tenants.values(), key=lambda one: (one.name, one.id))
    options = choices([(one.id, f"{one.name} ({one.id})") for one in tenants])
    field = Field("tenant", say(language, "filter.tenant"), "select", choices=options, is_required=True)
    form = Form(path, say(language, "quotas.show"), (field,), method="get")
    why = say(language, "admin.choose" if tenants else "quotas.choose.none")
    return Block("choose", say(language, "quotas.choose"), (why,), forms=(form,) if tenants else ())


def _row(one: Account, chosen: str | None, language: Language) -> tuple[Cell, ...]:
    path = address(f"{PAGE}/{quote(one.id, safe='')}", language, tenant=chosen)
    return (
        Link(one.name or one.id, path), one.email, say(language, f"role.{one.role}"),
        say(language, f"people.status.{one.status}"), at(one.created_at, language),
    )  # fmt: skip


def _inviting(tenant: str, language: Language) -> Block:
    roles = choices([(role, say(language, f"role.{role}")) for role in ("member", "manager")])
    form = Form("/people/invite", say(language, "people.invite"), (
        Field("tenant", kind="hidden", value=tenant),
        Field("name", say(language, "people.name"), is_required=True),
        Field("email", say(language, "people.email"), "email", is_required=True, length_max=254),
        Field("role", say(language, "people.role"), "select", choices=roles, is_required=True),
        Field("language", say(language, "people.language"), "select", is_required=True,
              choices=choices([("fr", "Français"), ("en", "English")], language)),
    ))  # fmt: skip
    return Block("invite", say(language, "people.invite.title"), (say(language, "people.invite.what"),), forms=(form,))


@get(f"{PAGE}/{{account:str}}", include_in_schema=False, media_type=MediaType.HTML,
     guards=[require_page("operator", "manager")])  # fmt: skip
async def person_page(request: Request[Any, Any, Any], account: FromPath[str]) -> Response[str]:
    """An account, and what can be done about it."""

    def build(language: Language, reader: Principal) -> Sheet:
        tenant: str = reader.tenant or request.query_params.get("tenant") or ""
        caller_within(request, tenant)
        with acting(request) as connection:
            found = find_account(connection, tenant, account)
        facts: tuple[tuple[str, Cell], ...] = (
            (say(language, "people.account"), found.id),
            (say(language, "people.email"), found.email),
            (say(language, "people.role"), say(language, f"role.{found.role}")),
            (say(language, "people.state"), say(language, f"people.status.{found.status}")),
            (say(language, "people.since"), at(found.created_at, language)),
        )
        if found.status_reason is not None:
            facts = (*facts, (say(language, "people.reason"), found.status_reason))
        blocks = [Block("person", say(language, "people.one"), facts=facts), *_acts(found, tenant, language)]
        chosen = tenant if reader.tenant is None else None
        back = Link(say(language, "people.back"), address(PAGE, language, tenant=chosen))
        return Sheet(found.name or found.id, say(language, "people.one.what"), blocks, back)

    return await answer_sheet(request, build)


def _acts(found: Account, tenant: str, language: Language) -> list[Block]:
    about = (Field("tenant", kind="hidden", value=tenant), Field("account", kind="hidden", value=found.id))

    def block(act: str, *fields: Field, is_grave: bool = False) -> Block:
        form = Form(f"/people/{act}", say(language, f"people.{act}"), (*about, *fields), is_grave=is_grave)
        title, what = say(language, f"people.{act}.title"), say(language, f"people.{act}.what")
        return Block(act, title, (what,), forms=(form,))

    roles = choices([(role, say(language, f"role.{role}")) for role in ("member", "manager")], found.role)
    reason = Field.area("reason", say(language, "people.reason"), hint=say(language, "people.reason.hint"))
    changing = block("role", Field("role", say(language, "people.role"), "select", choices=roles, is_required=True))
    holding = block("suspend", reason) if found.status == "active" else block("restore")
    return [changing, holding, block("delete", confirm(language, "people.delete.sure"), is_grave=True)]


@post("/people/invite", guards=[require_form_of("operator", "manager")], include_in_schema=False)
async def invite_person(request: Request[Any, Any, Any]) -> Response[Any]:
    """Invite somebody by mail."""

    def act(form: Sent) -> Said:
        state, tenant = request.app.state, form.get("tenant", "")
        actor = caller_within(request, tenant).actor
        body = made(InvitationBody, {name: form.get(name, "") for name in ("name", "email", "role", "language")})
        invited = Invited(body.name, checked_email(body.email), body.role, body.language)
        invite(state.engine, state.master_key, tenant, invited, actor=actor, now=clock())
        return Said("done", "people.invited")

    form = await form_of(request)
    return await acted(request, form, act, back=PAGE + _chosen(request, form))


@post("/people/{act_name:str}", guards=[require_form_of("operator", "manager")], include_in_schema=False)
async def act_on_person(request: Request[Any, Any, Any], act_name: FromPath[str]) -> Response[Any]:
    """Change the role of an account, suspend, restore or delete it."""

    def act(form: Sent) -> Said:
        choice_of({"act": act_name}, "act", ACTS)
        tenant, account = form.get("tenant", ""), form.get("account", "")
        caller = caller_within(request, tenant)
        with acting(request) as connection:
            if act_name == "role":
                role = made(RoleBody, {"role": form.get("role", "")}).role
                accounts.set_role(connection, caller, tenant, account, role)
            elif act_name == "suspend":
                reason = made(ReasonBody, {"reason": form.get("reason", "")}).reason
                accounts.suspend_account(connection, caller, tenant, account, reason, now=clock())
            elif act_name == "restore":
                accounts.restore_account(connection, caller, tenant, account)
            else:
                check_confirmed(form)
                accounts.delete_account(connection, caller, tenant, account, now=clock())
        return Said("done", f"people.{act_name}.done")

    form = await form_of(request)
    chosen = _chosen(request, form)
    own = f"{PAGE}/{quote(form.get('account', ''), safe='')}{chosen}"
    return await acted(request, form, act, back=f"{PAGE}{chosen}" if act_name == "delete" else own, refused_back=own)


def _chosen(request: Request[Any, Any, Any], form: Sent) -> str:
    return "" if caller_of(request).tenant else "?" + urlencode({"tenant": form.get("tenant", "")})


people_forms = Router(
    "/",
    route_handlers=[people_page, person_page, invite_person, act_on_person],
    middleware=[knowing_changes],
    exception_handlers={Unauthorized: to_sign_in, Forbidden: answer_error},
    request_max_body_size=BODY_BYTES_MAX,
)

"""Keys: made, prolonged, replaced and revoked by pages below "Quotas et clés"."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from litestar import MediaType, Request, Response, Router, get, post
from litestar.params import FromPath

from metering.catalog.issued_keys import Key, KeyAsked, NewKey, change_key, create_key, find_key, revoke_key
from metering.catalog.projects import list_projects
from metering.catalog.routes.acting import acting, clock, stated
from metering.catalog.routes.keys import KeyBody, KeyChanges
from metering.console.acting import Form as Sent
from metering.console.acting import acted, form_of, shown_once
from metering.console.fields import end_of, made
from metering.console.guards import require_form, require_form_of, require_page
from metering.console.signing_in import to_sign_in
from metering.errors import Forbidden, NotFound, Unauthorized, Unprocessable
from metering.identity import Principal
from metering.rules.periods import PARIS
from metering.visiting import Said
from metering.web import BODY_BYTES_MAX, caller_of, caller_within, knowing_changes
from reports.rendering import answer_error
from reports.sheets import Block, Cell, Field, Form, Sheet, address, answer_sheet, at, choices
from reports.shown import Link
from reports.wording import Language, say

PAGE = "/quotas"
NEW = "/quotas/keys/new"
PROJECTS_SHOWN = 1_000


@get(NEW, include_in_schema=False, media_type=MediaType.HTML, guards=[require_page("manager", "member")])
async def new_key(request: Request[Any, Any, Any]) -> Response[str]:
    """The form that makes a key."""

    def build(language: Language, reader: Principal) -> Sheet:
        assert reader.tenant is not None
        with acting(request) as connection:
            projects = list_projects(connection, reader.tenant, limit=PROJECTS_SHOWN)
        none = ("", say(language, "key.no_project"))
        open_ones = [none, *((one.id, one.name) for one in projects if one.status == "active")]
        until = (clock().astimezone(PARIS) + timedelta(days=365)).date().isoformat()
        fields = [
            Field("name", say(language, "quotas.key.name"), hint=say(language, "key.name.hint"), is_required=True),
            Field("project", say(language, "key.project"), "select", choices=choices(open_ones)),
            Field("expires_on", say(language, "key.expires_on"), "date", until, say(language, "key.expires_on.hint")),
        ]
        if reader.role == "manager":
            fields.append(Field("for_program", say(language, "key.for_program"), "check", "yes"))
        form = Form("/quotas/keys", say(language, "key.make"), tuple(fields))
        block = Block("new", say(language, "key.new"), (say(language, "key.once"),), forms=(form,),
                      links=(Link(say(language, "key.terms"), address("/terms", language)),))  # fmt: skip
        return Sheet(say(language, "key.new"), say(language, "key.new.what"), [block], _back(None, language))

    return await answer_sheet(request, build)


@post("/quotas/keys", guards=[require_form_of("manager", "member")], include_in_schema=False, status_code=200)
async def make(request: Request[Any, Any, Any]) -> Response[Any]:
    """Make a key, and show its secret on the answering page alone."""

    def act(form: Sent, language: Language) -> Sheet:
        caller = caller_of(request)
        assert caller.tenant is not None
        said = {"name": form.get("name", ""), "project": form.get("project") or None,
                "expires_at": end_of(form, "expires_on"), "for_program": form.get("for_program") == "yes"}  # fmt: skip
        body = made(KeyBody, said)
        asked = KeyAsked(body.name, body.project, body.expires_at, body.for_program)
        with acting(request) as connection:
            return _made(create_key(connection, caller.tenant, caller, asked, now=clock()), language)

    return await shown_once(request, await form_of(request), act, back=NEW)


def _made(key: NewKey, language: Language) -> Sheet:
    """The page that shows a secret, this once."""
    facts: tuple[tuple[str, Cell], ...] = (
        (say(language, "quotas.key.name"), key.name),
        (say(language, "quotas.key.expires"), at(key.expires_at, language)),
    )
    block = Block("secret", say(language, "key.secret"), (say(language, "key.copy"),), facts=facts, secret=key.secret)
    return Sheet(say(language, "key.made"), say(language, "key.made.what"), [block], _back(None, language))


@get("/quotas/keys/{key:str}", include_in_schema=False, media_type=MediaType.HTML,
     guards=[require_page("operator", "manager", "member")])  # fmt: skip
async def key_page(request: Request[Any, Any, Any], key: FromPath[str]) -> Response[str]:
    """A key, and what can be done with it."""

    def build(language: Language, reader: Principal) -> Sheet:
        tenant: str = reader.tenant or request.query_params.get("tenant") or ""
        caller = caller_within(request, tenant)
        with acting(request) as connection:
            found = find_key(connection, tenant, caller, key, now=clock())
        blocks = [_facts(found, language)]
        if found.revoked_at is None:
            blocks += _forms(found, tenant, reader, language)
        chosen = tenant if reader.tenant is None else None
        return Sheet(found.name, say(language, "key.one"), blocks, _back(chosen, language))

    return await answer_sheet(request, build)


def _facts(found: Key, language: Language) -> Block:
    facts: tuple[tuple[str, Cell], ...] = (
        (say(language, "quotas.key.prefix"), f"{found.prefix}…"),
        (say(language, "quotas.key.owner"), found.account or say(language, "quotas.key.program")),
        (say(language, "key.project"), found.project or say(language, "key.no_project")),
        (say(language, "key.created"), at(found.created_at, language)),
        (say(language, "quotas.key.expires"), at(found.expires_at, language) or say(language, "quotas.key.no_end")),
        (say(language, "quotas.key.status"), say(language, f"quotas.key.status.{found.status}")),
    )
    return Block("key", say(language, "key.facts"), facts=facts)


def _forms(found: Key, tenant: str, reader: Principal, language: Language) -> list[Block]:
    about = (Field("tenant", kind="hidden", value=tenant), Field("key", kind="hidden", value=found.id))
    until = "" if found.expires_at is None else found.expires_at.astimezone(PARIS).date().isoformat()
    prolong = Form("/quotas/keys/change", say(language, "key.change"), (
        *about,
        Field("name", say(language, "quotas.key.name"), value=found.name, is_required=True),
        Field("expires_on", say(language, "key.expires_on"), "date", until, say(language, "key.expires_on.hint"),
              is_required=True),
    ))  # fmt: skip
    blocks = [Block("change", say(language, "key.change.title"), forms=(prolong,))]
    if found.account == reader.account and reader.account is not None:
        replace = Form("/quotas/keys/replace", say(language, "key.replace"), about)
        blocks.append(Block("replace", say(language, "key.replace.title"), (say(language, "key.replace.what"),),
                            forms=(replace,)))  # fmt: skip
    revoke = Form("/quotas/keys/revoke", say(language, "quotas.key.revoke.now"), about, is_grave=True)
    blocks.append(Block("revoke", say(language, "quotas.key.revoke"), (say(language, "quotas.key.revoke.why"),),
                        forms=(revoke,)))  # fmt: skip
    return blocks


@post("/quotas/keys/change", guards=[require_form], include_in_schema=False)
async def change(request: Request[Any, Any, Any]) -> Response[Any]:
    """Rename a key, or move its end."""

    def act(form: Sent) -> Said:
        tenant = form.get("tenant", "")
        caller = caller_within(request, tenant)
        body = made(KeyChanges, {"name": form.get("name", ""), "expires_at": _needed_end(form)})
        with acting(request) as connection:
            change_key(connection, tenant, caller, form.get("key", ""), stated(body), now=clock())
        return Said("done", "key.changed")

    form = await form_of(request)
    return await acted(request, form, act, back=_page_of(request, form))


def _needed_end(form: Sent) -> datetime:
    end = end_of(form, "expires_on")
    if end is None:
        raise Unprocessable("missing_field", "A key has an end.", field="expires_on", expected="a date")
    return end


@post("/quotas/keys/replace", guards=[require_form_of("manager", "member")], include_in_schema=False, status_code=200)
async def replace_key(request: Request[Any, Any, Any]) -> Response[Any]:
    """Make a key like another one of one's own; the old one works until it is revoked, so that programs can follow."""

    def act(form: Sent, language: Language) -> Sheet:
        caller = caller_of(request)
        assert caller.tenant is not None
        with acting(request) as connection:
            old = find_key(connection, caller.tenant, caller, form.get("key", ""), now=clock())
            if old.account != caller.account:
                raise NotFound("unknown_key", "There is no such key.", field="key")
            asked = KeyAsked(old.name, old.project, None, for_program=False)
            new = create_key(connection, caller.tenant, caller, asked, now=clock())
        return _made(new, language)

    form = await form_of(request)
    return await shown_once(request, form, act, back=_page_of(request, form))


@post("/quotas/keys/revoke", guards=[require_form], include_in_schema=False)
async def revoke(request: Request[Any, Any, Any]) -> Response[Any]:
    """Revoke a key for good; what its reader may not see isn't there for them."""

    def act(form: Sent) -> Said:
        tenant = form.get("tenant", "")
        caller = caller_within(request, tenant)
        with acting(request) as connection:
            revoke_key(connection, tenant, caller, form.get("key", ""), now=clock())
        return Said("done", "quotas.key.revoked")

    form = await form_of(request)
    return await acted(request, form, act, back=f"{PAGE}{_chosen(request, form)}")


def _chosen(request: Request[Any, Any, Any], form: Sent) -> str:
    """Parameters that lead an operator back to the administration whose form it was."""
    return "" if caller_of(request).tenant else "?" + urlencode({"tenant": form.get("tenant", "")})


def _page_of(request: Request[Any, Any, Any], form: Sent) -> str:
    return f"/quotas/keys/{quote(form.get('key', ''), safe='')}{_chosen(request, form)}"


def _back(tenant: str | None, language: Language) -> Link:
    return Link(say(language, "key.back"), address(PAGE, language, tenant=tenant))


key_forms = Router(
    "/",
    route_handlers=[new_key, make, key_page, change, replace_key, revoke],
    middleware=[knowing_changes],
    exception_handlers={Unauthorized: to_sign_in, Forbidden: answer_error},
    request_max_body_size=BODY_BYTES_MAX,
)

"""Oneself over HTTP: who calls, what is accepted, tokens of one's own."""

from datetime import datetime
from typing import Any

from litestar import Request, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Struct, UnsetType

from metering.catalog import accounts
from metering.catalog.accounts import Administration
from metering.catalog.activation import TOKEN_LIFE
from metering.catalog.documents import Document, Id, Instant, Language, Line, Terms
from metering.catalog.own_tokens import OwnToken, add_own_token, list_own_tokens, own_name, revoke_own_token
from metering.catalog.routes.acting import acting, clock, stated
from metering.catalog.terms import TermsDocument, accept, acceptances
from metering.errors import Unprocessable
from metering.identity import Principal
from metering.rules.access import acceptable
from metering.web import BODY_BYTES_MAX, TOKEN_SECURITY, caller_of, require


class Person(Struct):
    """Who an account is."""

    name: str | None
    email: str | None
    language: str | None


class PlanShown(Struct):
    """What an administration may use without a convention."""

    id: str
    name: str
    tier: str


class TermsState(Struct):
    """A current or coming version, and since when the caller accepts it."""

    document: str
    version: str
    effective_at: datetime
    enforced_at: datetime
    accepted_at: datetime | None


class TokenShown(Struct):
    """The token that the request carries; a browser's session may have none."""

    name: str
    expires_at: datetime | None


class Me(Struct):
    """Who calls, and as what."""

    account: str
    role: str
    administration: Administration
    plan: PlanShown
    person: Person
    terms: list[TermsState]
    token: TokenShown | None


class PersonChanges(Document, frozen=True, kw_only=True):
    """What to change of oneself. Another address is another request for access."""

    name: Line | UnsetType = UNSET
    language: Language | UnsetType = UNSET


class AcceptanceBody(Document, frozen=True, kw_only=True):
    """A version that the caller has read and accepts."""

    document: TermsDocument
    version: Id


class Accepted(Struct):
    """Since when a version is accepted."""

    document: str
    version: str
    accepted_at: datetime


class TermsList(Struct):
    """The current and coming versions of each document, oldest first."""

    items: list[Terms]


class TokenBody(Document, frozen=True, kw_only=True):
    """A token to make; it ends after a year unless an earlier end is stated."""

    name: Id
    expires_at: Instant | None = None


class NewToken(Struct):
    """A token, shown this once."""

    name: str
    token: str
    expires_at: datetime


class TokenList(Struct):
    """The caller's tokens, oldest first."""

    items: list[OwnToken]


@get(
    "/v1/terms", summary="Terms of use and data policy: current and coming versions", sync_to_thread=False, security=[]
)
def get_terms(request: Request[Any, Any, Any]) -> TermsList:
    return TermsList(acceptable(request.app.state.catalog.current().terms, clock()))


@get("/v1/me", summary="Who calls", sync_to_thread=True)
def get_me(request: Request[Any, Any, Any]) -> Me:
    caller = caller_of(request)
    tenant, account = _own(caller)
    catalog = request.app.state.catalog.current()
    with acting(request) as connection:
        found = accounts.find_account(connection, tenant, account)
        administration = accounts.administration_of(connection, tenant)
        accepted = acceptances(connection, caller)
        own = (one for one in list_own_tokens(connection, account) if one.name == own_name(account, caller.name))
        token = next(own, None)
    plan = catalog.plan_of(tenant)
    versions = [
        TermsState(
            one.document, one.version, one.effective_at, one.enforced_at, accepted.get((one.document, one.version))
        )
        for one in acceptable(catalog.terms, clock())
    ]
    return Me(
        account, found.role, administration, PlanShown(plan.id, plan.name, plan.tier),
        Person(found.name, found.email, found.language), versions,
        None if token is None else TokenShown(token.name, token.expires_at),
    )  # fmt: skip


@patch("/v1/me", summary="Change one's name or language", sync_to_thread=True)
def patch_me(request: Request[Any, Any, Any], data: JSONBody[PersonChanges]) -> Person:
    with acting(request) as connection:
        found = accounts.describe_person(connection, *_own(caller_of(request)), stated(data))
    return Person(found.name, found.email, found.language)


@delete(
    "/v1/me",
    summary="Delete one's account",
    description="Keys and tokens are refused at once, name and address erased. The usage of the pseudonym stays.",
    sync_to_thread=True,
)
def delete_me(request: Request[Any, Any, Any]) -> None:
    caller = caller_of(request)
    with acting(request) as connection:
        accounts.delete_account(connection, caller, *_own(caller), now=clock())


@post("/v1/me/acceptances", summary="Accept a version of the terms", status_code=200, sync_to_thread=True)
def post_acceptance(request: Request[Any, Any, Any], data: JSONBody[AcceptanceBody]) -> Accepted:
    catalog = request.app.state.catalog.current()
    version = (data.document, data.version)
    with acting(request) as connection:
        return Accepted(*version, accept(connection, catalog, caller_of(request), version, clock()))


@get("/v1/me/tokens", summary="One's tokens, without their secrets", sync_to_thread=True)
def get_tokens(request: Request[Any, Any, Any]) -> TokenList:
    _tenant, account = _own(caller_of(request))
    with acting(request) as connection:
        return TokenList(list_own_tokens(connection, account))


@post("/v1/me/tokens", summary="Make a token; it is shown once", sync_to_thread=True)
def post_token(request: Request[Any, Any, Any], data: JSONBody[TokenBody]) -> NewToken:
    tenant, account = _own(caller_of(request))
    now = clock()
    expires_at = data.expires_at or now + TOKEN_LIFE
    if not now < expires_at <= now + TOKEN_LIFE:
        raise Unprocessable(
            "out_of_range", "A token can't end then.", field="expires_at", expected="an instant within a year"
        )
    with acting(request) as connection:
        token = add_own_token(connection, tenant, account, data.name, expires_at=expires_at, now=now)
    return NewToken(data.name, token, expires_at)


@delete("/v1/me/tokens/{name:str}", summary="Refuse a token of one's own from now on", sync_to_thread=True)
def delete_token(request: Request[Any, Any, Any], name: FromPath[str]) -> None:
    _tenant, account = _own(caller_of(request))
    with acting(request) as connection:
        revoke_own_token(connection, account, name, now=clock())


def _own(caller: Principal) -> tuple[str, str]:
    """Administration and account of an agent."""
    assert caller.tenant is not None
    assert caller.account is not None
    return caller.tenant, caller.account


me_router = Router(
    "/",
    route_handlers=[
        get_terms,
        Router(
            "/",
            route_handlers=[get_me, patch_me, delete_me, post_acceptance, get_tokens, post_token, delete_token],
            guards=[require("manager", "member")],
            security=TOKEN_SECURITY,
        ),
    ],
    request_max_body_size=BODY_BYTES_MAX,
    tags=["me"],
)

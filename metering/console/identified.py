"""Signing in at the identity provider: `/sign-in/provider` leads there, `/sign-in/callback` is where it leads back to.

What must come back is kept in Valkey under the secret of a cookie, for ten minutes and for one answer. So an answer
that was asked for by another browser, that comes twice, late or unasked for opens nothing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, Router, get
from litestar.concurrency import sync_to_thread
from litestar.response import Redirect
from stdnum.fr import siret as siret_number

from metering.catalog.access import checked_email
from metering.catalog.identities import Proven, account_of
from metering.catalog.snapshot import TokenEntry
from metering.catalog.tokens import principal_of
from metering.console.acting import lead_to
from metering.console.asking import ASK_ACCESS, PERSON_LIFE_S, Person
from metering.console.cookies import kept_cookie, kept_secret, no_kept_cookie
from metering.console.provider import Begun, Identified, Provider
from metering.console.returning import HOME, safe_path
from metering.console.signing_in import BODY_BYTES_MAX, refuse_sign_in, sign_in_at, welcome
from metering.errors import BadRequest, Forbidden, JaugeError, NotFound, Unprocessable
from metering.identity import Principal
from metering.throttling import BEGUN_BY_ADDRESS, address_of, by_address
from reports.frame import SIGN_IN, asked_language

BEGIN = f"{SIGN_IN}/provider"
CALLBACK = f"{SIGN_IN}/callback"
ATTEMPT_LIFE_S = 600


class Attempt(msgspec.Struct, frozen=True):
    """What is kept of a sign-in that was begun. path: where it leads in the end."""

    begun: Begun
    path: str
    language: str


@get(BEGIN, include_in_schema=False, media_type=MediaType.HTML)
async def begin(request: Request[Any, Any, Any]) -> Response[Any]:
    path = safe_path(request.query_params.get("next"))
    try:
        url, secret = await sync_to_thread(_begin, request, path)
    except JaugeError as error:
        return refuse_sign_in(request, "oidc", path, error)
    answer = Redirect(url, status_code=303)
    answer.set_cookie(kept_cookie(request.app.state.settings, "attempt", secret))
    return answer


def _begin(request: Request[Any, Any, Any], path: str) -> tuple[str, str]:
    """Address at the provider, and the secret of what is kept. Raises: JaugeError."""
    signing, provider = sign_in_at(request), _provider(request)
    signing.throttle.count(by_address(address_of(request), "begun", BEGUN_BY_ADDRESS))
    url, begun = provider.begin(_redirect_uri(request))
    attempt = Attempt(begun, path, asked_language(request))
    return url, signing.keeper.keep("attempt", msgspec.json.encode(attempt).decode(), ATTEMPT_LIFE_S)


@get(CALLBACK, include_in_schema=False, media_type=MediaType.HTML)
async def callback(request: Request[Any, Any, Any]) -> Response[Any]:
    path = HOME
    try:
        attempt = await sync_to_thread(_attempt, request)
        path = attempt.path
        proven, id_token = await sync_to_thread(_finish, request, attempt)
        who = await sync_to_thread(_principal, request, proven)
        answer = (
            await _lead_to_access(request, proven)
            if who is None
            else await welcome(request, who, "oidc", path, id_token=id_token)
        )
    except JaugeError as error:
        answer = refuse_sign_in(request, "oidc", path, error)
    answer.set_cookie(no_kept_cookie(request.app.state.settings, "attempt"))
    return answer


def _attempt(request: Request[Any, Any, Any]) -> Attempt:
    """The attempt that an answer of the provider belongs to. It is used up. Raises: BadRequest; TooMany."""
    secret, signing = kept_secret(request, "attempt"), sign_in_at(request)
    with signing.throttle.trying(by_address(address_of(request))):
        kept = None if secret is None else signing.keeper.take("attempt", secret)
        if kept is None:
            raise BadRequest("sign_in_unknown", "No sign-in of this browser waits for this answer.")
        attempt = msgspec.json.decode(kept, type=Attempt)
        asked = request.query_params
        if asked.get("state") != attempt.begun.state or asked.get("iss", _provider(request).profile.issuer) != (
            _provider(request).profile.issuer
        ):
            raise BadRequest("sign_in_state", "The answer isn't the one to this sign-in.")
    return attempt


def _finish(request: Request[Any, Any, Any], attempt: Attempt) -> tuple[Proven, str]:
    """Who came back, as the provider proves it, and the identity token. Raises: Forbidden; Unavailable; TooMany."""
    provider, code = _provider(request), request.query_params.get("code")
    if request.query_params.get("error") == "access_denied":
        raise Forbidden("sign_in_denied", "Sign-in was given up at the provider.")
    if not code:
        raise Forbidden("provider_refused", "The identity provider answered without a code.")
    with sign_in_at(request).throttle.trying(by_address(address_of(request))):
        identified = provider.finish(code, attempt.begun, _redirect_uri(request))
    return proven_by(identified, provider.profile.issuer), identified.id_token


def proven_by(identified: Identified, issuer: str) -> Proven:
    """Who somebody is, in our words. An address that the provider doesn't stand for counts as none."""
    claims = identified.claims
    siret = _text(claims, "siret").replace(" ", "")
    family = _text(claims, "usual_name") or _text(claims, "family_name")
    name = " ".join(filter(None, (_text(claims, "given_name"), family))) or _text(claims, "name")
    email: str | None = None
    if claims.get("email_verified", True) in {True, "true"}:
        try:
            email = checked_email(_text(claims, "email"))
        except Unprocessable:
            email = None
    return Proven(issuer, claims["sub"], name[:200], email, siret if siret_number.is_valid(siret) else None)


def _principal(request: Request[Any, Any, Any], proven: Proven) -> Principal | None:
    """Who somebody is here; None: nobody yet. Raises: Forbidden for who is suspended; Unavailable."""
    for name, own in sign_in_at(request).operators.items():
        if own == proven.subject or (proven.email is not None and own.lower() == proven.email.lower()):
            return Principal(name, "operator")
    known = account_of(request.app.state.engine, proven, datetime.now(UTC))
    if known is None:
        return None
    entry = TokenEntry(known.account, "account", known.tenant, known.account, None, None)
    return principal_of(entry, request.app.state.catalog.refresh())


async def _lead_to_access(request: Request[Any, Any, Any], proven: Proven) -> Response[Any]:
    """Lead who has no account to asking for one, with what the provider has proven."""
    if proven.email is None:
        raise Forbidden("identity_incomplete", "The identity provider says no address of mail.")
    person = msgspec.json.encode(Person(proven.name, proven.email, proven.siret)).decode()
    secret = await sync_to_thread(sign_in_at(request).keeper.keep, "person", person, PERSON_LIFE_S)
    answer = lead_to(request, ASK_ACCESS)
    answer.set_cookie(kept_cookie(request.app.state.settings, "person", secret))
    return answer


def _provider(request: Request[Any, Any, Any]) -> Provider:
    provider = sign_in_at(request).provider
    if provider is None:
        raise NotFound("no_provider", "Nobody signs in at a provider here.")
    return provider


def _redirect_uri(request: Request[Any, Any, Any]) -> str:
    return f"{request.app.state.settings.public_url.rstrip('/')}{CALLBACK}"


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value.strip() if isinstance(value, str) else ""


identified_router = Router("/", route_handlers=[begin, callback], request_max_body_size=BODY_BYTES_MAX)

"""Signing in and out: `/sign-in`, its forms, and `/sign-out`."""

from dataclasses import replace
from typing import Any

import structlog
from litestar import MediaType, Request, Response, Router, get, post
from litestar.concurrency import sync_to_thread
from litestar.response import Redirect

from metering.browsers import session_of, session_secret
from metering.catalog.sessions import Sessions
from metering.catalog.tokens import TOKEN_PREFIX, Doorkeeper
from metering.console.acting import form_of, lead_to
from metering.console.cookies import no_session_cookie, session_cookie
from metering.console.guards import recognise, require_form, require_own_page
from metering.console.returning import safe_path, sign_in_path
from metering.console.sign_in import SignIn
from metering.errors import JaugeError, Unauthorized
from metering.identity import Principal, Role
from metering.throttling import address_of, by_address, by_claim
from metering.visiting import Said, Session, Way
from reports.frame import SIGN_IN, SIGN_OUT, asked_language, frame_of, outcome_of, refusal_of
from reports.rendering import answer_error, html, render
from reports.wording import LANGUAGES, Language

BODY_BYTES_MAX = 16 * 1024
PAGE_ROLES: tuple[Role, ...] = ("operator", "manager", "member")
SAID = {
    "signed_out": Said("done", "signed_out"),
    "signed_out_everywhere": Said("done", "signed_out_everywhere"),
    "access_approved": Said("done", "ask_access.approved"),
    "access_waits": Said("done", "ask_access.waits"),
    "access_refused": Said("refused", "ask_access.refused"),
}
"""What the page may be asked to say, by the name its address has for it."""

log = structlog.get_logger(__name__)


@get(SIGN_IN, guards=[recognise], include_in_schema=False, media_type=MediaType.HTML)
async def sign_in_page(request: Request[Any, Any, Any]) -> Response[str]:
    said = SAID.get(request.query_params.get("said", ""))
    return answer_sign_in(request, safe_path(request.query_params.get("next")), said)


@post("/sign-in/token", guards=[require_own_page], include_in_schema=False, media_type=MediaType.HTML)
async def sign_in_with_token(request: Request[Any, Any, Any]) -> Response[Any]:
    form = await form_of(request)
    token, path = form.get("token", ""), safe_path(form.get("next"))
    try:
        who = await sync_to_thread(_admit, request, token)
    except JaugeError as error:
        return refuse_sign_in(request, "token", path, error)
    return await welcome(request, who, "token", path, token=token)


def _admit(request: Request[Any, Any, Any], token: str) -> Principal:
    """Who a token is of. Raises: JaugeError; TooMany for one attempt too many."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    tried = [by_address(address_of(request)), *([by_claim(token)] if token else [])]
    with sign_in_at(request).throttle.trying(*tried):
        return doorkeeper.admit(f"Bearer {token}", *PAGE_ROLES)


@post(SIGN_OUT, guards=[require_form], include_in_schema=False, media_type=MediaType.HTML)
async def sign_out(request: Request[Any, Any, Any]) -> Response[Any]:
    return await leave(request, everywhere=False)


@get(SIGN_OUT, include_in_schema=False)
async def signed_out(request: Request[Any, Any, Any]) -> Redirect:
    """Where the provider leads back to: its address is registered there, so it has no parameters of ours."""
    return lead_to(request, f"{SIGN_IN}?said=signed_out")


async def leave(request: Request[Any, Any, Any], *, everywhere: bool) -> Response[Any]:
    """End the session, or all that its reader has, and lead to the provider's sign-out if it began there."""
    sessions: Sessions = request.app.state.sessions
    session = session_of(request)
    assert session is not None
    id_token = await sync_to_thread(_end, sessions, session, everywhere=everywhere)
    log.info("signed_out", who=session.principal.actor.author, everywhere=everywhere)
    provider, url = sign_in_at(request).provider, None
    if provider is not None and id_token is not None:
        back = f"{request.app.state.settings.public_url.rstrip('/')}{SIGN_OUT}"
        url = await sync_to_thread(provider.end_session_url, id_token, back)
    answer: Response[Any]
    if provider is None or url is None:
        answer = lead_to(request, f"{SIGN_IN}?said={'signed_out_everywhere' if everywhere else 'signed_out'}")
    else:  # a form may lead to pages of ours only (Content-Security-Policy): the page leads on by itself
        language = asked_language(request)
        request.scope["state"] |= {"principal": None, "session": None}
        frame = frame_of(request, language, {})
        answer = html(render("signed_out.html", frame, url=url, provider=provider.profile.name), language)
    answer.set_cookie(no_session_cookie(request.app.state.settings))
    return answer


def _end(sessions: Sessions, session: Session, *, everywhere: bool) -> str | None:
    id_token = sessions.end(session)
    if everywhere:
        sessions.end_own(session.principal)
    return id_token


async def welcome(
    request: Request[Any, Any, Any],
    who: Principal,
    way: Way,
    path: str,
    *,
    token: str | None = None,
    id_token: str | None = None,
) -> Response[Any]:
    """Begin a session, and lead to the page that was wanted. Whatever session the browser had ends."""
    sessions: Sessions = request.app.state.sessions
    before = session_secret(request)
    secret = await sync_to_thread(sessions.open, who, way, token=token, id_token=id_token, instead_of=before)
    log.info("signed_in", way=way, who=who.actor.author)
    answer = lead_to(request, path)
    answer.set_cookie(session_cookie(request.app.state.settings, secret))
    return answer


def refuse_sign_in(request: Request[Any, Any, Any], way: Way, path: str, error: JaugeError) -> Response[str]:
    """The page that signs in again, with the reason. What was tried is neither shown nor logged."""
    log.warning("sign_in_refused", way=way, code=error.code, why=error.detail)
    answer = answer_sign_in(request, path, refusal_of(error), status=error.status)
    if error.retry_after_s is not None:
        answer.set_header("Retry-After", str(error.retry_after_s))
    return answer


def answer_sign_in(
    request: Request[Any, Any, Any], path: str, said: Said | None, *, status: int = 200
) -> Response[str]:
    """The page that signs in and then leads to a path, with what there is to say."""
    language, provider = asked_language(request), sign_in_at(request).provider
    frame = frame_of(request, language, _urls(path))
    if said is not None:
        frame = replace(frame, outcome=outcome_of(said, language))
    name = None if provider is None else provider.profile.name
    text = render("sign_in.html", frame, next=path, token_prefix=TOKEN_PREFIX, provider=name)
    return html(text, language, status=status)


def _urls(path: str) -> dict[Language, str]:
    """Of the page in each language: what was refused, or said, isn't said again."""
    return {language: f"{sign_in_path(path)}&lang={language}" for language in LANGUAGES}


def sign_in_at(request: Request[Any, Any, Any]) -> SignIn:
    """What signing in needs, of the application."""
    found = request.app.state.signing
    assert isinstance(found, SignIn)
    return found


def to_sign_in(request: Request[Any, Any, Any], _error: Unauthorized) -> Redirect:
    """For pages: who hasn't signed in is asked to, and then led back; a form's page is asked for anew."""
    wanted = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    path = sign_in_path(safe_path(wanted) if request.method == "GET" else "/")
    answer = lead_to(request, path)
    if session_secret(request) is not None:
        answer.set_cookie(no_session_cookie(request.app.state.settings))
    return answer


signing_router = Router(
    "/",
    route_handlers=[sign_in_page, sign_in_with_token, sign_out, signed_out],
    exception_handlers={Unauthorized: to_sign_in, JaugeError: answer_error},
    request_max_body_size=BODY_BYTES_MAX,
)

"""Asking for an account, `/access`: for who signed in at the provider and has none. What it has proven isn't asked."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import structlog
from litestar import MediaType, Request, Response, Router, get, post
from litestar.concurrency import sync_to_thread
from litestar.response import Redirect

from metering.catalog.access import Received, request_access
from metering.catalog.deciding import Asked
from metering.catalog.documents import Line, Paragraph
from metering.console.acting import Form, form_of, lead_to
from metering.console.cookies import kept_secret, no_kept_cookie
from metering.console.guards import require_own_page
from metering.console.returning import HOME
from metering.console.signing_in import BODY_BYTES_MAX, refuse_sign_in, sign_in_at
from metering.errors import Forbidden, JaugeError, Unauthorized, Unprocessable
from metering.visiting import Said
from reports.frame import SIGN_IN, asked_language, frame_of, outcome_of, refusal_of
from reports.rendering import answer_error, html, render

ASK_ACCESS = "/access"
PERSON_LIFE_S = 1800

log = structlog.get_logger(__name__)


class Person(msgspec.Struct, frozen=True):
    """Who the provider says somebody is. siret: of their administration; None: it proves none."""

    name: str
    email: str
    siret: str | None


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the form asks."""

    kind: Literal["individual", "partner"]
    organisation: Line
    motive: Annotated[Paragraph, msgspec.Meta(description="What the access is for.")]


@get(ASK_ACCESS, include_in_schema=False, media_type=MediaType.HTML)
async def access_page(request: Request[Any, Any, Any]) -> Response[str]:
    return _page(request, await sync_to_thread(_person, request), None)


@post(ASK_ACCESS, guards=[require_own_page], include_in_schema=False, media_type=MediaType.HTML)
async def ask_access(request: Request[Any, Any, Any]) -> Response[Any]:
    person, form = await sync_to_thread(_person, request), await form_of(request)
    try:
        received = await sync_to_thread(_ask, request, person, form)
    except JaugeError as error:
        log.info("action_refused", code=error.code)
        said = replace(refusal_of(error), entered=form)
        return _page(request, person, said, status=error.status)
    said_as = {"approved": "access_approved", "refused": "access_refused"}.get(received.state, "access_waits")
    answer = lead_to(request, f"{SIGN_IN}?said={said_as}")
    answer.set_cookie(no_kept_cookie(request.app.state.settings, "person"))
    return answer


def _person(request: Request[Any, Any, Any]) -> Person:
    """Who asks. Raises: Unauthorized for who must sign in at the provider first; Unavailable."""
    secret = kept_secret(request, "person")
    kept = None if secret is None else sign_in_at(request).keeper.look("person", secret)
    if kept is None:
        raise Unauthorized("session_over", "Nobody has signed in at the provider, or it is too long ago.")
    return msgspec.json.decode(kept, type=Person)


def _ask(request: Request[Any, Any, Any], person: Person, form: Form) -> Received:
    """Ask, once for what was proven once. Raises: JaugeError."""
    try:
        wanted = msgspec.convert(dict(form), Wanted)
    except msgspec.ValidationError:
        raise Unprocessable(
            "incomplete", "The form isn't complete.", expected="every field, in so many words"
        ) from None
    asked = Asked(
        wanted.kind, wanted.organisation, person.siret, person.name or person.email, person.email,
        asked_language(request), wanted.motive, None, siret_proven=person.siret is not None,
    )  # fmt: skip
    state = request.app.state
    received = request_access(state.engine, state.master_key, asked, datetime.now(UTC))
    sign_in_at(request).keeper.take("person", kept_secret(request, "person") or "")
    return received


def _page(request: Request[Any, Any, Any], person: Person, said: Said | None, *, status: int = 200) -> Response[str]:
    language = asked_language(request)
    frame = frame_of(request, language)
    if said is not None:
        frame = replace(frame, outcome=outcome_of(said, language))
    return html(render("ask_access.html", frame, person=person, path=ASK_ACCESS), language, status=status)


def _to_sign_in(request: Request[Any, Any, Any], _error: Unauthorized) -> Redirect:
    return lead_to(request, SIGN_IN)


def _away(request: Request[Any, Any, Any], error: JaugeError) -> Response[str]:
    return refuse_sign_in(request, "oidc", HOME, error)


asking_router = Router(
    "/",
    route_handlers=[access_page, ask_access],
    exception_handlers={Unauthorized: _to_sign_in, Forbidden: answer_error, JaugeError: _away},
    request_max_body_size=BODY_BYTES_MAX,
)

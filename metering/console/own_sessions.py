"""One's own sessions, `/sessions`: which browsers one is signed in on, and signing out on all of them."""

from typing import Any

from litestar import MediaType, Request, Response, Router, get, post
from litestar.concurrency import sync_to_thread

from metering.browsers import session_of
from metering.catalog.sessions import OwnSession, Sessions
from metering.console.guards import require_any_page, require_form
from metering.console.signing_in import BODY_BYTES_MAX, leave, to_sign_in
from metering.errors import JaugeError, Unauthorized
from reports.frame import SESSIONS, asked_language, frame_of
from reports.rendering import answer_error, html, render
from reports.selection import ZONE
from reports.wording import Language, moment, say


@get(SESSIONS, guards=[require_any_page], include_in_schema=False, media_type=MediaType.HTML)
async def sessions_page(request: Request[Any, Any, Any]) -> Response[str]:
    session = session_of(request)
    if session is None:
        raise Unauthorized("session_over", "Only who has signed in has sessions.")
    sessions: Sessions = request.app.state.sessions
    language = asked_language(request)
    own = await sync_to_thread(sessions.list_own, session.principal, session.secret)
    frame = frame_of(request, language)
    rows = [_row(one, language) for one in own]
    return html(render("sessions.html", frame, rows=rows, csrf=session.csrf), language)


@post(f"{SESSIONS}/end", guards=[require_form], include_in_schema=False, media_type=MediaType.HTML)
async def sign_out_everywhere(request: Request[Any, Any, Any]) -> Response[Any]:
    return await leave(request, everywhere=True)


def _row(one: OwnSession, language: Language) -> dict[str, object]:
    return {
        "way": say(language, f"sessions.way.{one.way}"),
        "began": moment(one.created_at, ZONE, language),
        "began_iso": one.created_at.isoformat(),
        "seen": moment(one.seen_at, ZONE, language),
        "seen_iso": one.seen_at.isoformat(),
        "is_this": one.is_this,
    }


own_sessions_router = Router(
    "/",
    route_handlers=[sessions_page, sign_out_everywhere],
    exception_handlers={Unauthorized: to_sign_in, JaugeError: answer_error},
    request_max_body_size=BODY_BYTES_MAX,
)

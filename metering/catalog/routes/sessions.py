"""One's own sessions of the pages, over HTTP."""

from typing import Any

from litestar import Request, Router, delete, get
from msgspec import Struct

from metering.browsers import session_secret
from metering.catalog.sessions import OwnSession, Sessions
from metering.web import BODY_BYTES_MAX, TOKEN_SECURITY, caller_of, require


class SessionList(Struct):
    """The caller's sessions, the newest first."""

    items: list[OwnSession]


@get("/v1/me/sessions", summary="Browsers that one is signed in on", sync_to_thread=True)
def get_sessions(request: Request[Any, Any, Any]) -> SessionList:
    sessions: Sessions = request.app.state.sessions
    return SessionList(sessions.list_own(caller_of(request), session_secret(request)))


@delete("/v1/me/sessions", summary="Sign out on every browser", sync_to_thread=True)
def delete_sessions(request: Request[Any, Any, Any]) -> None:
    sessions: Sessions = request.app.state.sessions
    sessions.end_own(caller_of(request))


sessions_router = Router(
    "/",
    route_handlers=[get_sessions, delete_sessions],
    guards=[require("operator", "manager", "member")],
    security=TOKEN_SECURITY,
    request_max_body_size=BODY_BYTES_MAX,
    tags=["me"],
)

"""Sessions at the door: the cookie of a browser, and what proves that a change comes from a page of ours."""

import hmac
from typing import Any

import anyio.to_thread
from litestar.connection import ASGIConnection

from metering.errors import Forbidden
from metering.identity import Role
from metering.settings import Settings
from metering.visiting import Session


async def admit_session(connection: ASGIConnection[Any, Any, Any, Any], secret: str, *roles: Role) -> Session:
    """The session of a cookie, which from here on is the request's. Raises: Unauthorized; Forbidden."""
    session: Session = await anyio.to_thread.run_sync(connection.app.state.sessions.find, secret)
    if session.principal.role not in roles:
        raise Forbidden("wrong_role", "The session has another role.", expected=" or ".join(roles))
    connection.scope["state"] |= {"principal": session.principal, "session": session}
    return session


def check_csrf(session: Session, sent: object) -> None:
    """Raises: Forbidden if a change doesn't come from a page of ours."""
    if not hmac.compare_digest(session.csrf.encode(), str(sent or "").encode(errors="replace")):
        raise Forbidden("csrf", "The change doesn't come from a page of this session.", expected="X-CSRF-Token")


def cookie_name(settings: Settings) -> str:
    """Name of the cookie of sessions: over https one that no other host and no plain connection can set."""
    return "__Host-jauge" if is_https(settings) else "jauge"


def is_https(settings: Settings) -> bool:
    """Whether people reach the pages over https."""
    return settings.public_url.startswith("https://")


def session_secret(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """What the cookie of a browser holds, if it sends one."""
    if "cookie" not in connection.headers:
        return None
    return connection.cookies.get(cookie_name(connection.app.state.settings)) or None


def session_of(request: ASGIConnection[Any, Any, Any, Any]) -> Session | None:
    """The session of a guarded request; None for one with a token, or where reading is open."""
    found = request.scope["state"].get("session")
    assert found is None or isinstance(found, Session)
    return found

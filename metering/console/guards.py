"""Who may open a page, and who may send its forms."""

from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import anyio.to_thread
import structlog
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from metering.browsers import admit_session, check_csrf, session_of, session_secret
from metering.errors import Forbidden, Unauthorized
from metering.identity import Principal, Role
from metering.visiting import CSRF_FIELD
from metering.web import Guard, require

log = structlog.get_logger(__name__)


def require_page(*roles: Role) -> Guard:
    """A guard of pages: as `require` for those who read, and what the last action came to is said on this page."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        is_open = connection.app.state.settings.read_access == "open" and "operator" in roles
        if is_open and session_secret(connection) is None:
            connection.scope["state"]["principal"] = Principal("everybody", "operator")
            return
        await require(*roles)(connection, handler)
        session = session_of(connection)
        if session is not None and session.said is not None:
            await anyio.to_thread.run_sync(connection.app.state.sessions.say, session, None)

    return guard


require_any_page = require_page("operator", "manager", "member")


async def recognise(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """A guard of pages for everybody: who has a session is known, and nobody needs one."""
    if session_secret(connection) is not None or connection.app.state.settings.read_access == "open":
        with suppress(Unauthorized, Forbidden):
            await require_any_page(connection, handler)


def require_form_of(*roles: Role) -> Guard:
    """A guard of forms: the sender has a session of one of these roles, and the form comes from a page of it.

    See `console.acting`.
    """

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        secret = session_secret(connection)
        if secret is None:
            raise Unauthorized("session_over", "The session is over.", field="Cookie")
        session = await admit_session(connection, secret, *roles)
        assert isinstance(connection, Request)
        check_csrf(session, (await connection.form()).get(CSRF_FIELD))

    return guard


require_form = require_form_of("operator", "manager", "member")


async def require_own_page(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """A guard of forms that nobody has a session for yet: another site's page can't send them.

    Browsers say where a form comes from; what says nothing of it is a program, which no other site can make ask.
    Raises: Forbidden.
    """
    site, origin = connection.headers.get("sec-fetch-site"), connection.headers.get("origin")
    if site is not None:
        is_own = site in {"same-origin", "none"}
    else:
        own = {urlsplit(connection.app.state.settings.public_url).netloc, connection.headers.get("host")}
        is_own = origin is None or urlsplit(origin).netloc in own
    if not is_own:
        log.warning("form_of_another_site", path=connection.scope.get("path_template"))
        raise Forbidden("csrf", "The form comes from a page of another site.", field="Origin")

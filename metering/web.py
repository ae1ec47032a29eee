"""What all routes share: who may call, and how errors leave."""

import re
import time
import traceback
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio.to_thread
import structlog
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from metering.browsers import admit_session, check_csrf, session_secret
from metering.catalog.tokens import Doorkeeper
from metering.errors import BadRequest, JaugeError, NotFound, Unauthorized
from metering.identity import Principal, Role, is_basic, secret_of
from metering.throttling import TOKENS_BY_ADDRESS, address_of, by_address

PROBLEM_JSON = "application/problem+json"
TOKEN_SECURITY = [{"token": list[str]()}]

UNROUTED = "(none)"
"""Path of a request that no route takes, in the log: such a path is the caller's own words."""

FRAMES_LOGGED = 12

READING = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""

BODY_BYTES_MAX = 64 * 1024
"""Of a request by an agent or a visitor; documents, files and events may be larger."""

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]

log = structlog.get_logger(__name__)


def require(*roles: Role) -> Guard:
    """A guard that lets holders of a token or a session of one of these roles through; `caller_of` tells who it is.

    What a browser sends by itself (its password, its cookie) reads, and changes nothing: any page that a person opens
    could make it send that. With a session a change needs what only pages of ours know, in `X-CSRF-Token`.
    """

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        doorkeeper: Doorkeeper = connection.app.state.doorkeeper
        authorization = connection.headers.get("authorization")
        if authorization is None and (secret := session_secret(connection)) is not None:
            session = await admit_session(connection, secret, *roles)
            if connection.scope.get("method") not in READING:
                check_csrf(session, connection.headers.get("x-csrf-token"))
            return
        if connection.scope.get("method") not in READING and is_basic(authorization):
            raise Unauthorized(
                "bearer_needed", "A change needs a token, not a browser's password.", field="Authorization",
                expected="Bearer TOKEN",
            )  # fmt: skip
        connection.scope["state"]["principal"] = (
            doorkeeper.admit(authorization, *roles)
            if doorkeeper.is_known(authorization)
            else await anyio.to_thread.run_sync(_try_token, connection, authorization, roles)
        )

    return guard


def _try_token(
    connection: ASGIConnection[Any, Any, Any, Any], authorization: str | None, roles: tuple[Role, ...]
) -> Principal:
    """Who a token is of that may be new, or guessed.

    Raises: as `Doorkeeper.admit`; TooMany for one attempt too many.
    """
    secret_of(authorization)  # who shows no token tries none
    state = connection.app.state
    tried = by_address(address_of(connection), "token", TOKENS_BY_ADDRESS)
    with state.throttle.trying(tried):
        principal: Principal = state.doorkeeper.admit(authorization, *roles)
    return principal


def caller_of(request: Request[Any, Any, Any]) -> Principal:
    """Who calls a guarded route."""
    principal = request.scope["state"]["principal"]
    assert isinstance(principal, Principal)
    return principal


def caller_within(request: Request[Any, Any, Any], tenant: str) -> Principal:
    """Who calls a route about an administration: an operator, or an agent of that very one.

    Raises: NotFound for anybody else, whether or not it exists: nobody learns of others.
    """
    principal = caller_of(request)
    known = request.app.state.catalog.current().tenants
    if principal.tenant != tenant and (principal.role != "operator" or tenant not in known):
        raise NotFound("unknown_tenant", "No such administration.", field="tenant")
    return principal


async def require_reader(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let operators read, and agents what is theirs; or everybody, where the settings open reading."""
    if connection.app.state.settings.read_access == "open" and session_secret(connection) is None:
        connection.scope["state"]["principal"] = Principal("everybody", "operator")
    else:
        await require("operator", "manager", "member")(connection, handler)


def problem_of_ours(request: Request[Any, Any, Any], error: JaugeError) -> Response[dict[str, object]]:
    """An error of ours as problem+json."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 416 and error.expected is not None:
        headers["Content-Range"] = error.expected
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="Jauge", charset="UTF-8"'
    return _problem(request, error.problem(), headers)


def problem_of_litestar(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, object]]:
    """An error of routing or of parameters as problem+json; what it quotes of the request is left out."""
    code = _CODES.get(error.status_code, "http_error")
    members: dict[str, object] = {
        "type": f"urn:jauge:error:{code}",
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "code": code,
    }
    if isinstance(error, ValidationException):
        members |= _place_of(error)
    return _problem(request, members, dict(error.headers or {}))


_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}
_missing = re.compile(r"Missing required \w+ parameter '(\w+)'")


BODY = "data"
"""What Litestar calls the body as a whole."""

_own_rule = re.compile(r"(\w+): expected (.+?)(?: - at `.*`)?")
"""How documents of ours say what is wrong; the framework's own sentences can quote the body, and are left out."""


def _place_of(error: ValidationException) -> dict[str, str]:
    """Field that an error is about, and what was expected there. Only names that we declare appear in either."""
    if missing := _missing.match(error.detail):
        return {"field": missing[1]}
    places = [place for place in error.extra if isinstance(place, dict)] if isinstance(error.extra, list) else []
    fields = [place["key"] for place in places if place.get("key", BODY) != BODY]
    rules = filter(None, (_own_rule.fullmatch(str(place.get("message"))) for place in places))
    if rule := next(rules, None):
        return {"field": ".".join([*fields[:1], rule[1]]), "expected": rule[2]}
    return {"field": ", ".join(fields)} if fields else {}


def problem_of_fault(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, object]]:
    """A fault of ours: logged by its type and place, never with values; the caller gets the request's id."""
    if isinstance(error, RecursionError):  # only a body can be that deep
        return problem_of_ours(request, BadRequest("malformed_json", "The body is nested too deeply."))
    log.error("fault", error=type(error).__name__, where=_frames_of(error))
    members: dict[str, object] = {
        "type": "urn:jauge:error:internal", "title": "Internal error", "status": 500, "code": "internal",
        "detail": "A fault of the service; its log has this request's id.",
    }  # fmt: skip
    return _problem(request, members, {})


def _frames_of(error: Exception) -> list[str]:
    """Where an error was raised, innermost last: no message and no variables, which can quote the request."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_LOGGED:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def _problem(
    request: Request[Any, Any, Any], members: dict[str, object], headers: dict[str, str]
) -> Response[dict[str, object]]:
    status = members["status"]
    assert isinstance(status, int)
    state = request.scope["state"]
    if "request_id" not in state:  # no route takes the request, so `request_log` hasn't seen it
        headers["X-Request-Id"] = state["request_id"] = uuid4().hex
        log.info("request", method=request.method, path=UNROUTED, status=status, request_id=state["request_id"])
    members["request_id"] = state["request_id"]
    return Response(members, status_code=status, media_type=PROBLEM_JSON, headers=headers)


def request_log(app: ASGIApp) -> ASGIApp:
    """Give every request an id and log one line about it: method, route, status, time. Never a query or a body."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        request_id = uuid4().hex
        scope["state"]["request_id"] = request_id
        started_ns = time.perf_counter_ns()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableScopeHeaders(message)["X-Request-Id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await app(scope, receive, answer)
            log.info(
                "request",
                method=scope["method"],
                path=scope.get("path_template", UNROUTED),
                status=status,
                duration_us=(time.perf_counter_ns() - started_ns) // 1000,
            )

    return handle


def knowing_changes(app: ASGIApp) -> ASGIApp:
    """Read what a request changed in the catalogue before it is answered: who has written finds it written."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                try:
                    await anyio.to_thread.run_sync(scope["litestar_app"].state.catalog.refresh)
                except JaugeError as error:  # it is written all the same, and read as soon as the database is back
                    log.warning("catalogue_not_read", code=error.code)
            await send(message)

        changes = scope["type"] == ScopeType.HTTP and scope["method"] not in READING
        await app(scope, receive, answer if changes else send)

    return handle

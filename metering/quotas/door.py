"""The short way of the gateway's question: what is asked thousands of times a second doesn't walk the whole house.

A question that is in order and admitted is answered here, from the same function as the route. Everything else (a
token or key that isn't known, a body that can't be read, a refusal, an error) takes the long way, which says it in
full: asking twice changes nothing.
"""

import os
import time
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog
from litestar import Litestar
from litestar.enums import ScopeType

from metering.catalog.snapshot import CatalogReader
from metering.catalog.tokens import Doorkeeper
from metering.errors import JaugeError
from metering.identity import Role
from metering.quotas.answers import QuotaAnswer, ReserveRequest, answer_reserve
from metering.quotas.service import QuotaService

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, ReceiveMessage, Scope, Send

PATH = "/v1/quota/reserve"
BODY_BYTES_MAX = 16 * 1024
ROLES: tuple[Role, ...] = ("gateway", "operator")

log = structlog.get_logger("metering.web")

_question = msgspec.json.Decoder(ReserveRequest)
_answer = msgspec.json.Encoder()


class _Desk(NamedTuple):
    """What answers are made from."""

    catalog: CatalogReader
    quotas: QuotaService


def with_door(app: Litestar) -> "ASGIApp":
    """An application with the short way in front of it."""
    state = app.state  # which looks names up under a lock: once is enough
    doorkeeper, desk = state.doorkeeper, _Desk(state.catalog, state.quotas)

    async def handle(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != ScopeType.HTTP or scope["path"] != PATH or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        started_ns = time.perf_counter_ns()
        first = await receive()
        answer = await _admitted(doorkeeper, desk, scope, first)
        if answer is None:
            await app(scope, _again(first, receive), send)
            return
        request_id = os.urandom(16).hex()
        body = _answer.encode(answer)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            *[(_on_the_wire(name), value.encode()) for name, value in answer.headers.items()],
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
        duration_us = (time.perf_counter_ns() - started_ns) // 1000
        log.info("request", method="POST", path=PATH, status=200, duration_us=duration_us, request_id=request_id)

    return handle


async def _admitted(
    doorkeeper: Doorkeeper, desk: _Desk, scope: "Scope", message: "ReceiveMessage"
) -> QuotaAnswer | None:
    """The answer to a question in order that is admitted; None for every other."""
    if message["type"] != "http.request" or message["more_body"] or len(message["body"]) > BODY_BYTES_MAX:
        return None
    headers = dict(scope["headers"])
    authorization = headers.get(b"authorization", b"").decode("latin-1")
    if not doorkeeper.knows(authorization, *ROLES) or b"content-encoding" in headers:
        return None
    try:
        answer = await answer_reserve(desk, _question.decode(message["body"]))
    except (JaugeError, msgspec.DecodeError):
        return None
    return answer if answer.allowed else None


@cache
def _on_the_wire(name: str) -> bytes:
    """A header's name; there are a dozen of them."""
    return name.lower().encode()


def _again(first: "ReceiveMessage", receive: "Receive") -> "Receive":
    """What was received already, and then what follows."""
    waiting = [first]

    async def received() -> "ReceiveMessage":
        return waiting.pop() if waiting else await receive()

    return received

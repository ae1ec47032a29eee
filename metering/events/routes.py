"""`POST /v1/events` and the quarantine, over HTTP."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
import msgspec
from litestar import Request, Response, Router, get, post
from litestar.datastructures import Headers
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody, Parameter

from metering.events.decoding import decode, decompress, framing_of
from metering.events.intake import Intake, IntakeAnswer, Pending, replay
from metering.events.openapi import EventsOperation
from metering.events.quarantine import Quarantined, dismiss, list_quarantined
from metering.events.room import Room
from metering.settings import Settings
from metering.web import TOKEN_SECURITY, caller_of, require

ROOM = Room(128 * 1024 * 1024)
"""Bytes of bodies under way in this process, as sent and decompressed; decoding needs several times as many."""

CHECKING_MAX = 1
"""Calls that are decoded and checked at a time: more would only take turns, and each would take longer."""

REASON_LENGTH_MAX = 500

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ReplayRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which quarantined events to offer again (all, unless numbers are given), with which fields changed."""

    numbers: Annotated[list[Number], msgspec.Meta(max_length=10_000)] | None = None
    changes: dict[str, str] = {}


class DismissalRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which quarantined events need no mending, and why."""

    numbers: Annotated[list[Number], msgspec.Meta(min_length=1, max_length=10_000)]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_LENGTH_MAX, pattern=r"\S")]


class Dismissal(msgspec.Struct):
    """How many of the events named still waited, and wait no longer."""

    dismissed: int


class QuarantinePage(msgspec.Struct):
    """Refused events, oldest first, and where the next page begins."""

    items: list[Quarantined]
    next_after: int | None


@post(
    "/v1/events",
    operation_class=EventsOperation,
    summary="Record usage events",
    description=(
        "One event, an array or CloudEvents batch, or NDJSON; gzip or zstd. The answer is per event: 200 when all are "
        "accepted or duplicate, 207 otherwise. An accepted event is durable before the answer leaves."
    ),
    guards=[require("gateway", "operator")],
    security=TOKEN_SECURITY,
    status_code=200,
    responses={207: ResponseSpec(IntakeAnswer, description="Some events were refused")},
)
async def post_events(request: Request[Any, Any, Any]) -> Response[IntakeAnswer]:
    state = request.app.state
    bytes_max: int = state.settings.intake_bytes_max
    stated = request.headers.get("content-length", "")
    with ROOM.hold(min(int(stated), bytes_max) if stated.isdecimal() else bytes_max):
        begin = partial(_begin, state.intake, state.settings, await request.body(), request.headers)
        pending = await anyio.to_thread.run_sync(begin, limiter=state.checking)
        if pending.written is not None:
            # Shielded: a caller who leaves doesn't take events back that are on their way.
            await asyncio.shield(asyncio.wrap_future(pending.written))
        answer = await anyio.to_thread.run_sync(state.intake.finish, pending)
    return Response(answer, status_code=200 if answer.is_whole else 207)


def _begin(intake: Intake, settings: Settings, body: bytes, headers: Headers) -> Pending:
    framing = framing_of(headers.get("content-type"))
    plain = decompress(body, headers.get("content-encoding"), settings.intake_bytes_max)
    with ROOM.hold(0 if plain is body else len(plain)):
        return intake.begin(decode(plain, framing, settings.intake_events_max), "http")


@get("/v1/quarantine", summary="List refused events", sync_to_thread=True)
def get_quarantine(
    request: Request[Any, Any, Any],
    after: Annotated[int, Parameter(ge=0, le=2**63 - 1, description="Number after which the page begins.")] = 0,
    limit: Annotated[int, Parameter(ge=1, le=1000, description="Events a page.")] = 100,
    replayed: Annotated[
        bool, Parameter(description="Also those that have entered the ledger since, or were dismissed.")
    ] = False,
) -> QuarantinePage:
    items = list_quarantined(request.app.state.engine, after=after, limit=limit, done=replayed)
    return QuarantinePage(items, items[-1].number if len(items) == limit else None)


@post("/v1/quarantine/replay", summary="Offer refused events again", status_code=200, sync_to_thread=True)
def post_replay(request: Request[Any, Any, Any], data: JSONBody[ReplayRequest]) -> IntakeAnswer:
    state = request.app.state
    return replay(state.intake, state.engine, data.numbers, data.changes)


@post(
    "/v1/quarantine/dismiss",
    summary="Decide that refused events need no mending",
    description=(
        "They are listed with `replayed=true` only, with who decided it, when and why, and aren't offered again. The "
        "same event sent again counts, and stays dismissed."
    ),
    status_code=200,
    sync_to_thread=True,
)
def post_dismissal(request: Request[Any, Any, Any], data: JSONBody[DismissalRequest]) -> Dismissal:
    author = caller_of(request).actor.author
    now = datetime.now(UTC)
    return Dismissal(dismiss(request.app.state.engine, data.numbers, why=data.reason.strip(), author=author, now=now))


events_router = Router(
    "/",
    route_handlers=[
        post_events,
        Router(
            "/",
            route_handlers=[get_quarantine, post_replay, post_dismissal],
            guards=[require("operator")],
            security=TOKEN_SECURITY,
        ),
    ],
    tags=["events"],
)

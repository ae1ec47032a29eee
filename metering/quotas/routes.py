"""The gateway's question and what follows it, over HTTP.

These routes are lean: bodies are read by msgspec, nothing waits for a thread unless counters have to be built.
"""

from collections.abc import Container
from typing import Annotated, Any

import msgspec
from litestar import Request as HttpRequest
from litestar import Response, Router, get, post
from litestar.params import FromQuery, JSONBody, QueryParameter

from metering.catalog.documents import Id, ModelName
from metering.catalog.models import look_up
from metering.catalog.routes.acting import PageLimit, clock
from metering.errors import Forbidden, NotFound, Unprocessable
from metering.identity import Principal
from metering.quotas.answers import (
    STATUSES,
    CheckRequest,
    CommitRequest,
    ExtendRequest,
    QuotaAnswer,
    ReleaseRequest,
    ReserveRequest,
    SettledAnswer,
    answer_check,
    answer_commit,
    answer_extend,
    answer_of,
    answer_release,
    answer_reserve,
)
from metering.quotas.reservations import POSITION_PATTERN, ReservationPage, read_position, written
from metering.quotas.service import Ask
from metering.rules.limits import Request
from metering.rules.quantities import Operation
from metering.web import PROBLEM_JSON, TOKEN_SECURITY, caller_of, require

DETAILS = {
    "limit_reached": "A limit is reached.",
    "envelope_used_up": "The envelope of the convention is used up.",
    "forbidden": "A limit of zero forbids it.",
    "unknown_price": "A limit is in euros, and this has no price in euros.",
    "unknown_carbon": "A limit is in grams of CO2e, and nobody knows what this emits.",
    "shed": "The platform is overloaded; this tier waits.",
    "store_away": "The counters are away.",
}
OPENAI_TYPES = {429: "rate_limit_error", 403: "permission_error", 503: "server_error"}


@post("/v1/quota/reserve", summary="May this request run? Hold what it may use", status_code=200)
async def post_reserve(request: HttpRequest[Any, Any, Any], data: JSONBody[ReserveRequest]) -> Response[QuotaAnswer]:
    answer = await answer_reserve(request.app.state, data)
    return Response(answer, headers=answer.headers) if answer.allowed else _refusal(request, answer, data.errors)


@post("/v1/quota/check", summary="Would it run? Holds nothing", status_code=200)
async def post_check(request: HttpRequest[Any, Any, Any], data: JSONBody[CheckRequest]) -> QuotaAnswer:
    return await answer_check(request.app.state, data)


@post("/v1/quota/extend", summary="A sign of life, and more output", status_code=200)
async def post_extend(request: HttpRequest[Any, Any, Any], data: JSONBody[ExtendRequest]) -> Response[QuotaAnswer]:
    answer = await answer_extend(request.app.state, data)
    return Response(answer) if answer.allowed else _refusal(request, answer, "problem")


@post("/v1/quota/commit", summary="Count what was used, before its event", status_code=200)
async def post_commit(request: HttpRequest[Any, Any, Any], data: JSONBody[CommitRequest]) -> SettledAnswer:
    return await answer_commit(request.app.state, data)


@post("/v1/quota/release", summary="Give back what is held", status_code=200)
async def post_release(request: HttpRequest[Any, Any, Any], data: JSONBody[ReleaseRequest]) -> SettledAnswer:
    return await answer_release(request.app.state, data)


@get("/v1/limits", summary="Every limit of a kind of request, and where it stands")
async def get_limits(
    request: HttpRequest[Any, Any, Any],
    model: FromQuery[ModelName],
    tenant: FromQuery[Id | None] = None,
    project: FromQuery[Id | None] = None,
    user: FromQuery[Id | None] = None,
    api_key: FromQuery[Id | None] = None,
    operation: Annotated[
        Operation | None, QueryParameter(description="What is asked of the model; the first that it offers, if unsaid.")
    ] = None,
) -> QuotaAnswer:
    offered = look_up(request.app.state.catalog.current(), model, clock()).model.operations
    operation = operation or next(iter(offered), None)
    asked = _of_caller(caller_of(request), Request(tenant or "", project, user, api_key, model, None, operation))
    return answer_of(
        request.app.state, asked, await request.app.state.quotas.reserve(Ask("", asked, 1), is_dry=True), None
    )


@get("/v1/reservations", summary="Open holds of an administration, the first to expire first")
async def get_reservations(
    request: HttpRequest[Any, Any, Any],
    tenant: FromQuery[Id | None] = None,
    after: Annotated[
        str | None, QueryParameter(pattern=POSITION_PATTERN, description="next_after of the page before.")
    ] = None,
    limit: PageLimit = 100,
) -> ReservationPage:
    whose, user = _whose_holds(caller_of(request), tenant, request.app.state.catalog.current().tenants)
    found, rest = await request.app.state.quotas.open_holds(whose, read_position(after or ""), limit, user=user)
    return ReservationPage(whose, found, None if rest is None else written(rest))


def _whose_holds(caller: Principal, tenant: str | None, known: Container[str]) -> tuple[str, str | None]:
    """Administration and user whose holds a caller may see; no user is all of them."""
    if caller.tenant is None:
        if tenant is None:
            raise Unprocessable("missing_tenant", "Whose holds?", field="tenant", expected="an administration")
        if tenant not in known:
            raise NotFound("unknown_tenant", "No such administration.", field="tenant")
        return tenant, None
    if tenant not in {None, caller.tenant}:
        raise Forbidden("not_yours", "That isn't yours to read.", field="tenant", expected="your own")
    return caller.tenant, caller.account if caller.role == "member" else None


def _of_caller(caller: Principal, asked: Request) -> Request:
    """What a caller may look at: agents their administration, members themselves."""
    if caller.tenant is None:
        if not asked.tenant:
            raise Unprocessable("missing_tenant", "Whose limits?", field="tenant", expected="an administration")
        return asked
    user = caller.account if caller.role == "member" else asked.user
    return Request(caller.tenant, asked.project, user, asked.key, asked.model, None, asked.operation)


def _refusal(request: HttpRequest[Any, Any, Any], answer: QuotaAnswer, shape: str) -> Response[Any]:
    """A refusal as problem+json with the limits, or in the shape that clients of OpenAI's API read."""
    status = STATUSES[answer.reason]
    problem: dict[str, Any] = {
        "type": f"urn:jauge:error:{answer.reason}",
        "title": DETAILS[answer.reason],
        "status": status,
        "detail": DETAILS[answer.reason],
        "code": answer.reason,
        "request_id": request.scope["state"]["request_id"],
        **msgspec.structs.asdict(answer),
    }
    if shape == "openai":
        error = {
            "message": DETAILS[answer.reason],
            "type": _openai_type(answer.reason),
            "param": None,
            "code": answer.reason,
        }
        return Response({"error": error}, status_code=status, headers=answer.headers)
    return Response(problem, status_code=status, headers=answer.headers, media_type=PROBLEM_JSON)


def _openai_type(reason: str) -> str:
    """What has run out for good isn't worth trying again."""
    return "insufficient_quota" if reason == "envelope_used_up" else OPENAI_TYPES[STATUSES[reason]]


quotas_router = Router(
    "/",
    route_handlers=[
        Router(
            "/",
            route_handlers=[post_reserve, post_check, post_extend, post_commit, post_release],
            guards=[require("gateway", "operator")],
        ),
        Router("/", route_handlers=[get_limits], guards=[require("operator", "manager", "member")]),
        Router("/", route_handlers=[get_reservations], guards=[require("gateway", "operator", "manager", "member")]),
    ],
    security=TOKEN_SECURITY,
    tags=["quotas"],
)

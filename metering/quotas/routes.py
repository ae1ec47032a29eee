"""The gateway's question and what follows it, over HTTP.

These routes are lean: bodies are read by msgspec, nothing waits for a thread unless counters have to be built.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import anyio.to_thread
import msgspec
from litestar import Request as HttpRequest
from litestar import Response, Router, get, post
from litestar.datastructures import State
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import Meta

from metering.catalog.documents import Count, Id, ModelName
from metering.catalog.keys import check_key
from metering.catalog.routes.models import retirement_headers
from metering.catalog.snapshot import CatalogReader, Snapshot
from metering.errors import Forbidden, Unprocessable
from metering.identity import Principal
from metering.quotas.calls import Figure
from metering.quotas.headers import headers_of, remaining
from metering.quotas.service import TTL_S_MAX, Ask, Decision
from metering.rules.counting import Estimate
from metering.rules.limits import UNITS, Request
from metering.rules.quantities import Operation
from metering.web import PROBLEM_JSON, TOKEN_SECURITY, caller_of, require

Reservation = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[!-~]+$")]
KeyDigest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of the API key, in hexadecimal.")]
Ttl = Annotated[int, Meta(ge=1, le=TTL_S_MAX, description="Seconds until the hold expires.")]

TTL_S = 120
STATUSES = {"limit_reached": 429, "forbidden": 403, "shed": 503, "store_away": 503}
DETAILS = {
    "limit_reached": "A limit is reached.",
    "forbidden": "A limit of zero forbids it.",
    "shed": "The platform is overloaded; this tier waits.",
    "store_away": "The counters are away.",
}
OPENAI_TYPES = {429: "rate_limit_error", 403: "permission_error", 503: "server_error"}


class Who(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Who asks for what: by the hash of an API key, or by ids that the gateway knows."""

    key_sha256: KeyDigest | None = None
    tenant: Id | None = None
    project: Id | None = None
    user: Id | None = None
    api_key: Id | None = None
    model: ModelName
    operation: Operation = "chat"


class Estimates(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is expected of a request. `prompt_bytes` stands for `prompt_tokens` where those aren't counted."""

    prompt_tokens: Count | None = None
    prompt_bytes: Count | None = None
    max_output_tokens: Count = 0
    min_output_tokens: Count = 1
    audio_ms: Count = 0
    inputs: Count = 0
    pages: Count = 0
    searches: Count = 0


class ReserveRequest(Who, forbid_unknown_fields=True, kw_only=True):
    """A request that is about to run. errors: the shape of a refusal."""

    reservation: Reservation
    ttl_s: Ttl = TTL_S
    batch: bool = False
    estimates: Estimates = msgspec.field(default_factory=Estimates)
    errors: Literal["problem", "openai"] = "problem"


class CheckRequest(Who, forbid_unknown_fields=True, kw_only=True):
    """A request that might run."""

    batch: bool = False
    estimates: Estimates = msgspec.field(default_factory=Estimates)


class ExtendRequest(Who, forbid_unknown_fields=True, kw_only=True):
    """A sign of life of a stream, and more output if it needs it."""

    reservation: Reservation
    ttl_s: Ttl = TTL_S
    more_output_tokens: Count = 0


class Quantities(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What was used, in base units; null where it isn't known, which then counts as it was held."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    audio_ms: Count | None = None
    embedding_inputs: Count | None = None
    pages: Count | None = None
    searches: Count | None = None


class CommitRequest(Who, forbid_unknown_fields=True, kw_only=True):
    """What a request that ran has used."""

    reservation: Reservation
    quantities: Quantities


class ReleaseRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A request that doesn't run."""

    reservation: Reservation
    key_sha256: KeyDigest | None = None
    tenant: Id | None = None


class LimitStanding(msgspec.Struct):
    """Where a limit stands, in the meter's unit. null: unlimited, or without a reset; over: a soft one is exceeded."""

    scope: str
    selector: str
    meter: str
    unit: str
    window: str
    mode: str
    source: str
    value: int | None
    used: int
    held: int
    remaining: int | None
    reset_at: datetime | None
    over: bool


class Granted(msgspec.Struct):
    """What the gateway sets upstream as the most."""

    max_output_tokens: int


class QuotaAnswer(msgspec.Struct):
    """Whether a request may run. headers: for the gateway to pass on to its client."""

    allowed: bool
    reason: str
    tenant: str
    project: str | None
    user: str | None
    api_key: str | None
    tier: str
    model: str | None
    category: str | None
    granted: Granted
    limits: list[LimitStanding]
    headers: dict[str, str]
    expires_at: datetime | None
    catalog_version: int


class SettledAnswer(msgspec.Struct):
    """ok; late: after its time, counted all the same; unknown: without a hold, counted; closed: nothing changes."""

    status: str


@post("/v1/quota/reserve", summary="May this request run? Hold what it may use", status_code=200)
async def post_reserve(request: HttpRequest[Any, Any, Any], data: JSONBody[ReserveRequest]) -> Response[QuotaAnswer]:
    answer = await answer_reserve(request.app.state, data)
    return Response(answer, headers=answer.headers) if answer.allowed else _refusal(request, answer, data.errors)


@post("/v1/quota/check", summary="Would it run? Holds nothing", status_code=200)
async def post_check(request: HttpRequest[Any, Any, Any], data: JSONBody[CheckRequest]) -> QuotaAnswer:
    asked = await _request_of(request.app.state, data)
    ask = Ask("", asked, 1, _estimate_of(data.estimates), data.batch)
    return _answer(request.app.state, asked, await request.app.state.quotas.reserve(ask, is_dry=True), None)


@post("/v1/quota/extend", summary="A sign of life, and more output", status_code=200)
async def post_extend(request: HttpRequest[Any, Any, Any], data: JSONBody[ExtendRequest]) -> Response[QuotaAnswer]:
    asked = await _request_of(request.app.state, data)
    decision = await request.app.state.quotas.extend(data.reservation, asked, data.ttl_s, data.more_output_tokens)
    answer = _answer(request.app.state, asked, decision, data.ttl_s)
    return Response(answer) if decision.is_allowed else _refusal(request, answer, "problem")


@post("/v1/quota/commit", summary="Count what was used, before its event", status_code=200)
async def post_commit(request: HttpRequest[Any, Any, Any], data: JSONBody[CommitRequest]) -> SettledAnswer:
    asked = await _request_of(request.app.state, data)
    settled = await request.app.state.quotas.commit(data.reservation, asked, msgspec.structs.asdict(data.quantities))
    return SettledAnswer(settled.status)


@post("/v1/quota/release", summary="Give back what is held", status_code=200)
async def post_release(request: HttpRequest[Any, Any, Any], data: JSONBody[ReleaseRequest]) -> SettledAnswer:
    tenant = await _tenant_of(request.app.state, data.key_sha256, data.tenant)
    settled = await request.app.state.quotas.release(tenant, data.reservation)
    return SettledAnswer(settled.status)


@get("/v1/limits", summary="Every limit of a kind of request, and where it stands")
async def get_limits(
    request: HttpRequest[Any, Any, Any],
    model: FromQuery[ModelName],
    tenant: FromQuery[Id | None] = None,
    project: FromQuery[Id | None] = None,
    user: FromQuery[Id | None] = None,
    api_key: FromQuery[Id | None] = None,
    operation: Annotated[Operation, QueryParameter(description="What is asked of the model.")] = "chat",
) -> QuotaAnswer:
    asked = _of_caller(caller_of(request), Request(tenant or "", project, user, api_key, model, None, operation))
    return _answer(
        request.app.state, asked, await request.app.state.quotas.reserve(Ask("", asked, 1), is_dry=True), None
    )


async def answer_reserve(state: State, data: ReserveRequest) -> QuotaAnswer:
    """Whether a request may run, and what it may use. Raises: JaugeError."""
    asked = await _request_of(state, data)
    ask = Ask(data.reservation, asked, data.ttl_s, _estimate_of(data.estimates), data.batch)
    return _answer(state, asked, await state.quotas.reserve(ask), data.ttl_s)


def _of_caller(caller: Principal, asked: Request) -> Request:
    """What a caller may look at: agents their administration, members themselves."""
    if caller.tenant is None:
        if not asked.tenant:
            raise Unprocessable("missing_tenant", "Whose limits?", field="tenant", expected="an administration")
        return asked
    user = caller.account if caller.role == "member" else asked.user
    return Request(caller.tenant, asked.project, user, asked.key, asked.model, None, asked.operation)


async def _tenant_of(state: State, key_sha256: str | None, tenant: str | None) -> str:
    if key_sha256 is not None:
        snapshot = await _knowing(state, key_sha256)
        if (found := snapshot.keys.get(bytes.fromhex(key_sha256))) is not None:
            return found.tenant
    elif tenant is not None:
        return tenant
    raise Unprocessable("missing_key", "Whose request?", field="key_sha256", expected="a known key, or a tenant")


async def _request_of(state: State, who: Who) -> Request:
    """Who asks for what; a key that may not be used is refused here."""
    if who.key_sha256 is not None:
        snapshot = await _knowing(state, who.key_sha256)
        key = check_key(snapshot, bytes.fromhex(who.key_sha256), datetime.now(UTC)).key
        return Request(key.tenant, key.project or who.project, key.account, key.id, who.model, None, who.operation)
    found = None if who.tenant is None else state.catalog.current().tenants.get(who.tenant)
    if found is None:
        raise Unprocessable("missing_key", "Whose request?", field="tenant", expected="a known one, or a key")
    if found.status != "active":
        raise Forbidden("tenant_suspended", "The administration is suspended.")
    return Request(found.id, who.project, who.user, who.api_key, who.model, None, who.operation)


async def _knowing(state: State, key_sha256: str) -> Snapshot:
    """The catalogue, read anew where it doesn't know a key: it may be a moment old."""
    catalog: CatalogReader = state.catalog
    snapshot = catalog.current()
    if bytes.fromhex(key_sha256) in snapshot.keys:
        return snapshot
    return await anyio.to_thread.run_sync(catalog.refresh)


def _estimate_of(given: Estimates) -> Estimate:
    return Estimate(**msgspec.structs.asdict(given))


def _answer(state: State, asked: Request, decision: Decision, ttl_s: int | None) -> QuotaAnswer:
    now = decision.now or datetime.now(UTC)
    headers = headers_of(decision, now)
    if decision.retirement is not None:
        headers |= retirement_headers(decision.retirement)
    model = None if decision.resolution is None else decision.resolution.model
    return QuotaAnswer(
        allowed=decision.is_allowed,
        reason=decision.reason,
        tenant=asked.tenant,
        project=asked.project,
        user=asked.user,
        api_key=asked.key,
        tier=decision.tier,
        model=None if model is None else model.id,
        category=None if model is None else model.category,
        granted=Granted(decision.granted_output_tokens),
        limits=[_standing(figure) for figure in decision.figures],
        headers=headers,
        expires_at=now + timedelta(seconds=ttl_s) if ttl_s and decision.is_allowed else None,
        catalog_version=state.catalog.current().version,
    )


def _standing(figure: Figure) -> LimitStanding:
    limit = figure.limit
    return LimitStanding(
        limit.scope, limit.selector, limit.meter, UNITS[limit.meter], limit.window, limit.mode, limit.source,
        limit.value, figure.used, figure.held, None if limit.value is None else remaining(figure), figure.reset_at,
        over=figure.flag == "over",
    )  # fmt: skip


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
        error = {"message": DETAILS[answer.reason], "type": OPENAI_TYPES[status], "param": None, "code": answer.reason}
        return Response({"error": error}, status_code=status, headers=answer.headers)
    return Response(problem, status_code=status, headers=answer.headers, media_type=PROBLEM_JSON)


quotas_router = Router(
    "/",
    route_handlers=[
        Router(
            "/",
            route_handlers=[post_reserve, post_check, post_extend, post_commit, post_release],
            guards=[require("gateway", "operator")],
        ),
        Router("/", route_handlers=[get_limits], guards=[require("operator", "manager", "member")]),
    ],
    security=TOKEN_SECURITY,
    tags=["quotas"],
)

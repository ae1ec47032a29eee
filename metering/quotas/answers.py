"""The gateway's question, what follows it, and their answers: the same over HTTP and without it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Protocol

import anyio.to_thread
import msgspec
from msgspec import Meta

from metering.catalog.documents import Count, Id, ModelName
from metering.catalog.keys import check_key
from metering.catalog.models import retirement_headers
from metering.catalog.snapshot import CatalogReader, Snapshot
from metering.errors import Forbidden, Unprocessable
from metering.quotas.calls import Figure
from metering.quotas.estimates import Estimated
from metering.quotas.headers import headers_of
from metering.quotas.service import TTL_S_MAX, Ask, Decision, QuotaService
from metering.rules.counting import Estimate
from metering.rules.limits import UNITS, Request
from metering.rules.quantities import Operation

Reservation = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[!-~]+$")]
KeyDigest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of the API key, in hexadecimal.")]
Ttl = Annotated[int, Meta(ge=1, le=TTL_S_MAX, description="Seconds until the hold expires.")]

TTL_S = 120
STATUSES = {
    "limit_reached": 429,
    "envelope_used_up": 429,
    "forbidden": 403,
    "unknown_price": 403,
    "unknown_carbon": 403,
    "shed": 503,
    "store_away": 503,
}


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
    """What is expected of a request, in the order of `Estimate`.

    `prompt_bytes` stands for `prompt_tokens` where those aren't counted.
    """

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
    """A sign of life of a stream, and more output if it needs it.

    output_tokens_total: the output that it is to have in all, with what was granted before; the same again holds
    nothing twice. Null: what it has.
    """

    reservation: Reservation
    ttl_s: Ttl = TTL_S
    output_tokens_total: Count | None = None


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
    """Whether a request may run. headers: for the gateway to pass on to its client.

    estimated: the most that it may cost and emit, about; null where it may not run, or nobody has looked.
    """

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
    estimated: Estimated | None = None


class SettledAnswer(msgspec.Struct):
    """ok; late: after its time, counted all the same; unknown: without a hold, counted; closed: nothing changes.

    estimated: what the request cost and emitted, about; null where nothing was used.
    """

    status: str
    estimated: Estimated | None = None


class Quotas(Protocol):
    """What answers are made from: the state of the application, or a gateway's own."""

    @property
    def catalog(self) -> CatalogReader: ...

    @property
    def quotas(self) -> QuotaService: ...


async def answer_reserve(state: Quotas, data: ReserveRequest) -> QuotaAnswer:
    """Whether a request may run, and what it may use. Raises: JaugeError."""
    asked = await _request_of(state, data)
    ask = Ask(data.reservation, asked, data.ttl_s, _estimate_of(data.estimates), data.batch)
    return answer_of(state, asked, await state.quotas.reserve(ask), data.ttl_s)


async def answer_check(state: Quotas, data: CheckRequest) -> QuotaAnswer:
    """Whether a request might run; holds nothing. Raises: JaugeError."""
    asked = await _request_of(state, data)
    ask = Ask("", asked, 1, _estimate_of(data.estimates), data.batch)
    return answer_of(state, asked, await state.quotas.reserve(ask, is_dry=True), None)


async def answer_extend(state: Quotas, data: ExtendRequest) -> QuotaAnswer:
    """More output for a hold, and a sign of life. Raises: JaugeError."""
    asked = await _request_of(state, data)
    decision = await state.quotas.extend(data.reservation, asked, data.ttl_s, data.output_tokens_total)
    return answer_of(state, asked, decision, data.ttl_s)


async def answer_commit(state: Quotas, data: CommitRequest) -> SettledAnswer:
    """Count what was used. Raises: JaugeError."""
    asked = await _request_of(state, data)
    settled = await state.quotas.commit(data.reservation, asked, msgspec.structs.asdict(data.quantities))
    return SettledAnswer(settled.status, settled.estimated)


async def answer_release(state: Quotas, data: ReleaseRequest) -> SettledAnswer:
    """Give back what is held. Raises: JaugeError."""
    tenant = await _tenant_of(state, data.key_sha256, data.tenant)
    settled = await state.quotas.release(tenant, data.reservation)
    return SettledAnswer(settled.status)


async def _tenant_of(state: Quotas, key_sha256: str | None, tenant: str | None) -> str:
    if key_sha256 is not None:
        snapshot = await _knowing(state, key_sha256)
        if (found := snapshot.keys.get(bytes.fromhex(key_sha256))) is not None:
            return found.tenant
    elif tenant is not None:
        return tenant
    raise Unprocessable("missing_key", "Whose request?", field="key_sha256", expected="a known key, or a tenant")


async def _request_of(state: Quotas, who: Who) -> Request:
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


async def _knowing(state: Quotas, key_sha256: str) -> Snapshot:
    """The catalogue, read anew where it doesn't know a key: it may be a moment old."""
    catalog: CatalogReader = state.catalog
    snapshot = catalog.current()
    if bytes.fromhex(key_sha256) in snapshot.keys:
        return snapshot
    return await anyio.to_thread.run_sync(catalog.refresh)


def _estimate_of(given: Estimates) -> Estimate:
    return Estimate._make(msgspec.structs.astuple(given))


def answer_of(state: Quotas, asked: Request, decision: Decision, ttl_s: int | None) -> QuotaAnswer:
    """A decision as gateways read it. ttl_s: of the hold; None where nothing is held."""
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
        estimated=decision.estimated if decision.is_allowed else None,
    )


def _standing(figure: Figure) -> LimitStanding:
    limit = figure.limit
    return LimitStanding(
        limit.scope, limit.selector, limit.meter, UNITS[limit.meter], limit.window, limit.mode, limit.source,
        limit.value, figure.used, figure.held, figure.remaining, figure.reset_at,
        over=figure.flag == "over",
    )  # fmt: skip

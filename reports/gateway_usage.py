"""Usage in the form of OpenGateLLM's `/v1/usage`, for tools that read that: days of UTC, of whoever asks.

Our own `/v1/usage` has the path, so it is served under `/opengatellm`: a tool is given that as its base address. The
form has no place for the unknown: a sum is of what is known, and `uncounted_requests` says of how many requests
something isn't. What has no price has no cost, and what isn't measured no impact: null, where OpenGateLLM says 0.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery, QueryParameter

from metering.database import transaction
from metering.errors import Unprocessable
from metering.identity import Principal
from reports.carbon import CarbonRow, read_carbon
from reports.organization import NANO, SECONDS_MAX, UTC_ZONE, SumCosts, summed_use
from reports.usage import UsageQuestion, UsageRow, for_reader, read_usage

DAY = timedelta(days=1)
DAYS_MAX = 3_660
"""Of a period: ten years."""
UJ_PER_KWH = 3_600 * 10**9
NG_PER_KG = 10**12

OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "/v1/audio/transcriptions": ("transcription",),
    "/v1/chat/completions": ("chat", "completion"),
    "/v1/embeddings": ("embedding",),
    "/v1/ocr": ("ocr",),
    "/v1/rerank": ("rerank",),
    "/v1/search": ("search",),
}
"""Endpoints as they name them, to operations."""

Endpoint = Literal[
    "/v1/audio/transcriptions", "/v1/chat/completions", "/v1/embeddings", "/v1/ocr", "/v1/rerank", "/v1/search"
]
Seconds = Annotated[int, QueryParameter(ge=0, le=SECONDS_MAX, description="Unix seconds.")]


class UsageImpacts(msgspec.Struct):
    """Energy of the building, and emissions of use and of making; null where nothing of them is known."""

    kWh: float | None  # noqa: N815 - their names
    kgCO2eq: float | None  # noqa: N815


class UsageBucket(msgspec.Struct):
    """What was used on one day. cost: indicative, in the currency of the prices."""

    start_time: int
    end_time: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float | None
    impacts: UsageImpacts
    uncounted_requests: int
    object: Literal["usage.bucket"] = "usage.bucket"


class UsageBuckets(msgspec.Struct):
    """Days with usage in order, from `offset` on; total: how many there are."""

    total: int
    offset: int
    limit: int
    data: list[UsageBucket]
    object: Literal["list"] = "list"


def _route(costs: SumCosts) -> HTTPRouteHandler:
    @get("/opengatellm/v1/usage", summary="Usage in the form of OpenGateLLM's, by UTC day", sync_to_thread=True)
    def get_usage_buckets(  # noqa: PLR0913 - the parameters of the route, for its OpenAPI document
        request: Request[Any, Any, Any],
        start_time: Seconds,
        end_time: Seconds,
        offset: Annotated[int, QueryParameter(ge=0, le=DAYS_MAX)] = 0,
        limit: Annotated[int, QueryParameter(ge=1, le=100)] = 10,
        endpoint: FromQuery[Endpoint | None] = None,
        models: FromQuery[list[str] | None] = None,
        key_id: FromQuery[str | None] = None,
    ) -> UsageBuckets:
        filters = {
            "operation": () if endpoint is None else OPERATIONS[endpoint],
            "model": tuple(models or ()),
            "api_key": () if key_id is None else (key_id,),
        }
        reader: Principal = request.scope["state"]["principal"]
        question = for_reader(_question(start_time, end_time, filters), reader)
        with transaction(request.app.state.engine, snapshot=True, actor=reader.actor) as connection:
            rows = read_usage(connection, question)
            carbon = read_carbon(connection, _by_day(question))
        spent = costs(request.app.state, [summed_use(row) for row in rows])
        nano = [None if cost is None else cost.nano for cost in spent]
        found = _buckets(rows, nano, carbon)
        return UsageBuckets(len(found), offset, limit, found[offset : offset + limit])

    return get_usage_buckets


def _question(start_s: int, end_s: int, filters: Mapping[str, tuple[str, ...]]) -> UsageQuestion:
    start, end = (datetime.fromtimestamp(seconds, UTC) for seconds in (start_s, end_s))
    if not start < end <= start + DAYS_MAX * DAY:
        raise Unprocessable("empty_period", "Not a period.", field="end_time", expected=f"after start, {DAYS_MAX} days")
    if any("\0" in value for values in filters.values() for value in values):
        raise Unprocessable("unknown_value", "Text holds no NUL.", field="models")
    asked = {name: values for name, values in filters.items() if values}
    return UsageQuestion(start, end, "day", UTC_ZONE, ("tenant", "model", "operation"), asked)


def _by_day(question: UsageQuestion) -> UsageQuestion:
    """The same for the ledger of carbon, which knows whole hours only."""
    hour = {"minute": 0, "second": 0, "microsecond": 0}
    start, end = question.start.replace(**hour), question.end.replace(**hour)  # type: ignore[arg-type]
    return UsageQuestion(start, max(end, start), "day", UTC_ZONE, (), question.filters)


def _buckets(rows: Sequence[UsageRow], nano: Sequence[int | None], carbon: Sequence[CarbonRow]) -> list[UsageBucket]:
    """Days with usage in order: what is known of each, added up."""
    by_day: dict[datetime, list[tuple[UsageRow, int | None]]] = {}
    for row, cost in zip(rows, nano, strict=True):
        assert row.bucket_start is not None
        by_day.setdefault(row.bucket_start, []).append((row, cost))
    impacts = {row.bucket_start: row for row in carbon}
    return [_bucket(day, used, impacts.get(day)) for day, used in sorted(by_day.items())]


def _bucket(day: datetime, used: Sequence[tuple[UsageRow, int | None]], carbon: CarbonRow | None) -> UsageBucket:
    def total(name: str) -> int:
        return sum(row.quantities[name] or 0 for row, _cost in used)

    known = [cost for _row, cost in used if cost is not None]
    energy_uj, total_ng = (None, None) if carbon is None else (carbon.sums["energy_uj"], carbon.total_ng[0])
    prompt, completion = total("input_tokens"), total("output_tokens")
    return UsageBucket(
        start_time=int(day.timestamp()),
        end_time=int((day + DAY).timestamp()),
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cost=sum(known) / NANO if known else None,
        impacts=UsageImpacts(
            None if energy_uj is None else energy_uj / UJ_PER_KWH, None if total_ng is None else total_ng / NG_PER_KG
        ),
        uncounted_requests=total("uncounted_requests"),
    )


def gateway_usage_router(costs: SumCosts, **options: Any) -> Router:
    """Routes in OpenGateLLM's form; options are Litestar's for a router (guards, security)."""
    return Router("/", route_handlers=[_route(costs)], tags=["compatibility"], **options)

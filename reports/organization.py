"""Usage and costs in the form of OpenAI's API for organizations, for tools that read that.

Buckets are UTC hours or days, from and to Unix seconds, paged by `next_page`. The form has no place for the unknown: a
sum is of what is known, and `uncounted_requests` says of how many requests something isn't.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from litestar import Request, Router, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, QueryParameter

from metering.database import transaction
from metering.errors import Unprocessable
from metering.identity import Principal
from reports.journal_api import Cost
from reports.usage import UsageQuestion, UsageRow, for_reader, read_usage

UTC_ZONE = ZoneInfo("UTC")
NANO = 10**9

Width = Literal["1h", "1d"]
WIDTHS: Mapping[str, timedelta] = {"1h": timedelta(hours=1), "1d": timedelta(days=1)}
BUCKETS: Mapping[str, tuple[int, int]] = {"1h": (24, 168), "1d": (7, 31)}
"""Buckets a page: so many unless asked for otherwise, and the most."""
COST_BUCKETS = (7, 180)

OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "completions": ("chat", "completion"),
    "embeddings": ("embedding",),
    "audio_transcriptions": ("transcription",),
}
"""Kind of usage to the operations that it is of."""

GROUPS: Mapping[str, str] = {
    "project_id": "project", "user_id": "user", "api_key_id": "api_key", "model": "model",
}  # fmt: skip
FILTERS: Mapping[str, str] = {
    "project_ids": "project", "user_ids": "user", "api_key_ids": "api_key", "models": "model",
}  # fmt: skip
"""Their names to ours."""
LINE_ITEM = ("model", "operation")

SECONDS_MAX = 253_402_300_799
MS = 1000


class SummedUse(NamedTuple):
    """Sums of one administration, model and operation from an instant on."""

    tenant: str
    model: str
    operation: str
    starts_at: datetime
    sums: Mapping[str, int | None]


SumCosts = Callable[[State, Sequence[SummedUse]], Sequence[Cost | None]]
"""Indicative costs of sums, in their order; None where something has no price."""


class Bucket(msgspec.Struct):
    """What was used from start_time to end_time, exclusive (Unix seconds), by group."""

    start_time: int
    end_time: int
    results: list[dict[str, Any]]
    object: Literal["bucket"] = "bucket"


class BucketPage(msgspec.Struct):
    """Buckets in order, and where the next page begins."""

    data: list[Bucket]
    has_more: bool
    next_page: str | None
    object: Literal["page"] = "page"


class _Asked(NamedTuple):
    """A page of buckets: their edges, what they are cut by, and where the next page begins."""

    edges: Sequence[tuple[datetime, datetime]]
    width: timedelta
    groups: tuple[str, ...]
    filters: Mapping[str, tuple[str, ...]]
    next_page: str | None


Seconds = Annotated[int, QueryParameter(ge=0, le=SECONDS_MAX, description="First instant, in Unix seconds.")]
EndSeconds = Annotated[
    int | None, QueryParameter(ge=0, le=SECONDS_MAX, description="Exclusive end, in Unix seconds; now if absent.")
]
Limit = Annotated[int | None, QueryParameter(ge=1, le=180, description="Buckets a page.")]
Cursor = Annotated[
    str | None, QueryParameter(pattern="^page_[0-9]{1,12}$", description="next_page of the page before.")
]
Names = Annotated[list[str] | None, QueryParameter(description="Also as `name[]`, as OpenAI's client sends them.")]


@get(
    "/v1/organization/usage/{kind:str}",
    summary="Usage in the form of OpenAI's: completions, embeddings, audio_transcriptions",
    sync_to_thread=True,
)
def get_organization_usage(  # noqa: PLR0913 - the parameters of the route, for its OpenAPI document
    request: Request[Any, Any, Any],
    kind: FromPath[Literal["completions", "embeddings", "audio_transcriptions"]],
    start_time: Seconds,
    end_time: EndSeconds = None,
    bucket_width: FromQuery[Width] = "1d",
    group_by: Names = None,
    project_ids: Names = None,
    user_ids: Names = None,
    api_key_ids: Names = None,
    models: Names = None,
    limit: Limit = None,
    page: Cursor = None,
) -> BucketPage:
    named = {
        "group_by": group_by, "project_ids": project_ids, "user_ids": user_ids, "api_key_ids": api_key_ids,
        "models": models,
    }  # fmt: skip
    cut_in = (WIDTHS[bucket_width], _size(limit, BUCKETS[bucket_width]))
    asked = _asked((start_time, end_time, page), cut_in, _names(request, named), GROUPS)
    filters = {**asked.filters, "operation": OPERATIONS[kind]}
    rows = _read(request, asked, tuple(GROUPS[name] for name in asked.groups), filters)
    return _page(asked, rows, lambda row: _used(kind, row, asked.groups))


def _used(kind: str, row: UsageRow, groups: Sequence[str]) -> dict[str, Any]:
    """A result of a kind of usage; groups that aren't asked for are null."""
    known = {name: value or 0 for name, value in row.quantities.items()}
    figures: Mapping[str, dict[str, int]] = {
        "completions": {
            "input_tokens": known["input_tokens"],
            "input_cached_tokens": known["cached_input_tokens"],
            "output_tokens": known["output_tokens"],
        },
        "embeddings": {"input_tokens": known["input_tokens"]},
        "audio_transcriptions": {"seconds": -(-known["audio_ms"] // MS)},
    }
    return {
        "object": f"organization.usage.{kind}.result",
        **figures[kind],
        "num_model_requests": known["requests"],
        **{name: row.group[ours] if name in groups else None for name, ours in GROUPS.items()},
        "uncounted_requests": known["uncounted_requests"],
    }


def organization_costs(costs: SumCosts) -> HTTPRouteHandler:
    """The route of costs. They are indicative: without free quantities, minima and caps, which belong to a month."""

    @get("/v1/organization/costs", summary="Indicative costs in the form of OpenAI's", sync_to_thread=True)
    def get_organization_costs(  # noqa: PLR0913 - as above
        request: Request[Any, Any, Any],
        start_time: Seconds,
        end_time: EndSeconds = None,
        bucket_width: FromQuery[Literal["1d"]] = "1d",
        group_by: Names = None,
        project_ids: Names = None,
        limit: Limit = None,
        page: Cursor = None,
    ) -> BucketPage:
        groups = {"project_id": "project", "line_item": "model", "api_key_id": "api_key", "user_id": "user"}
        cut_in = (WIDTHS[bucket_width], _size(limit, COST_BUCKETS))
        named = _names(request, {"group_by": group_by, "project_ids": project_ids})
        asked = _asked((start_time, end_time, page), cut_in, named, groups)
        cut = tuple(dict.fromkeys(("tenant", *LINE_ITEM, *(groups[name] for name in asked.groups))))
        rows = _read(request, asked, cut, asked.filters)
        return _costs(asked, rows, costs(request.app.state, [summed_use(row) for row in rows]), groups)

    return get_organization_costs


def summed_use(row: UsageRow) -> SummedUse:
    """A row that is cut by administration, model and operation."""
    assert row.bucket_start is not None
    group = row.group
    return SummedUse(
        group["tenant"] or "", group["model"] or "", group["operation"] or "", row.bucket_start, row.quantities
    )


def _costs(
    asked: _Asked, rows: Sequence[UsageRow], costs: Sequence[Cost | None], groups: Mapping[str, str]
) -> BucketPage:
    """Costs added up by bucket, group and currency; requests without a price are told, and cost nothing here."""
    totals: dict[tuple[Any, ...], list[int]] = {}
    for row, cost in zip(rows, costs, strict=True):
        label = {"line_item": f"{row.group['model']}, {row.group['operation']}"}
        key = tuple(
            label.get(name) or row.group[ours] if name in asked.groups else None for name, ours in groups.items()
        )
        place = (row.bucket_start, key, None if cost is None else cost.currency)
        total = totals.setdefault(place, [0, 0])
        total[0] += 0 if cost is None else cost.nano
        total[1] += (row.quantities["requests"] or 0) if cost is None else 0
    results: dict[datetime, list[dict[str, Any]]] = {}
    for (start, key, currency), (nano, unpriced) in totals.items():
        amount = None if currency is None else {"value": nano / NANO, "currency": currency.lower()}
        results.setdefault(start, []).append(
            {
                "object": "organization.costs.result",
                "amount": amount,
                **dict(zip(groups, key, strict=True)),
                "unpriced_requests": unpriced,
            }
        )
    return _paged(asked, results)


def _size(limit: int | None, bounds: tuple[int, int]) -> int:
    default, most = bounds
    if limit is not None and limit > most:
        raise Unprocessable("out_of_range", "Too many buckets.", field="limit", expected=f"1 to {most}")
    return default if limit is None else limit


def _asked(
    period: tuple[int, int | None, str | None],
    cut_in: tuple[timedelta, int],
    named: Mapping[str, Sequence[str]],
    groups: Mapping[str, str],
) -> _Asked:
    """The page that a request asks for: start, end, place of the page; width and number of buckets.

    Raises: Unprocessable.
    """
    (start_s, end_s, page), (width, size) = period, cut_in
    start = datetime.fromtimestamp(start_s, UTC)
    end = datetime.now(UTC) if end_s is None else datetime.fromtimestamp(end_s, UTC)
    at = start if page is None else max(start, datetime.fromtimestamp(int(page.removeprefix("page_")), UTC))
    if at >= end:
        raise Unprocessable("empty_period", "The period ends before it starts.", field="end_time")
    chosen = tuple(dict.fromkeys(named["group_by"]))
    if not set(chosen) <= set(groups):
        raise Unprocessable("unknown_value", "Not a group.", field="group_by", expected=", ".join(groups))
    edges: list[tuple[datetime, datetime]] = []
    while at < end and len(edges) < size:
        following = min(_floor(at, width) + width, end)
        edges.append((at, following))
        at = following
    filters = {ours: values for name, ours in FILTERS.items() if (values := tuple(named.get(name, ())))}
    return _Asked(edges, width, chosen, filters, f"page_{int(at.timestamp())}" if at < end else None)


def _names(request: Request[Any, Any, Any], given: Mapping[str, Sequence[str] | None]) -> dict[str, list[str]]:
    """Values of parameters under both of their names. Raises: Unprocessable for NUL, which can't be in anybody's."""
    found = {}
    for name, values in given.items():
        found[name] = [*filter(None, [*(values or ()), *(request.query_params.getall(f"{name}[]", []))])]
        if any("\0" in value for value in found[name]):
            raise Unprocessable("unknown_value", "Text holds no NUL.", field=name)
    return found


def _floor(instant: datetime, width: timedelta) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (instant - epoch) // width * width


def _read(
    request: Request[Any, Any, Any],
    asked: _Asked,
    groups: tuple[str, ...],
    filters: Mapping[str, tuple[str, ...]],
) -> list[UsageRow]:
    reader: Principal = request.scope["state"]["principal"]
    question = UsageQuestion(
        start=asked.edges[0][0],
        end=asked.edges[-1][1],
        bucket="hour" if asked.width == WIDTHS["1h"] else "day",
        zone=UTC_ZONE,
        group_by=groups,
        filters=filters,
    )
    with transaction(request.app.state.engine, snapshot=True, actor=reader.actor) as connection:
        return read_usage(connection, for_reader(question, reader))


def _page(asked: _Asked, rows: Sequence[UsageRow], shown: Callable[[UsageRow], dict[str, Any]]) -> BucketPage:
    results: dict[datetime, list[dict[str, Any]]] = {}
    for row in rows:
        assert row.bucket_start is not None
        results.setdefault(row.bucket_start, []).append(shown(row))
    return _paged(asked, results)


def _paged(asked: _Asked, results: Mapping[datetime, list[dict[str, Any]]]) -> BucketPage:
    """Buckets of a page with their results, by the start of the whole bucket that each is of."""
    data = [
        Bucket(int(start.timestamp()), int(end.timestamp()), results.get(_floor(start, asked.width), []))
        for start, end in asked.edges
    ]
    return BucketPage(data, asked.next_page is not None, asked.next_page)


def organization_router(costs: SumCosts, **options: Any) -> Router:
    """Routes in OpenAI's form; options are Litestar's for a router (guards, security)."""
    handlers = [get_organization_usage, organization_costs(costs)]
    return Router("/", route_handlers=handlers, tags=["compatibility"], **options)

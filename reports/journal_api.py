"""The journal over HTTP: requests by pages, as a CSV file of any length, and one with where its figures went."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from litestar import Request, Response, Router, get
from litestar.datastructures import State
from litestar.params import Parameter
from litestar.response import Stream

from metering.database import transaction
from metering.errors import Unprocessable
from metering.identity import Principal
from metering.rules.quantities import QUANTITIES, STATUSES
from reports.cells import neutral
from reports.journal import CURSOR_PATTERN, LoggedRequest, Place, read_cursor, read_journal, written
from reports.trail import Trail, TrailSources, read_trail
from reports.usage import UsageQuestion, for_reader, last_batch, parse_question

DEFAULT_SPAN = timedelta(days=30)
CSV_PAGE = 2_000
"""Requests that are read at a time for a file: each is a short transaction, and memory stays as it is."""

Status = Literal["ok", "error", "aborted", "refused"]


class Cost(NamedTuple):
    """What a request costs, about, in 10^-9 of a currency."""

    nano: int
    currency: str


Costs = Callable[[State, Sequence[LoggedRequest]], Sequence[Cost | None]]
"""Indicative costs of requests, in their order; None where something of one has no price, or isn't counted."""


class RequestShown(msgspec.Struct):
    """A request as it counts now. Quantities are integers in base units; null is unknown, 0 is a measurement.

    state: corrected and void ones count for what they do now. cost_nano: indicative, in 10^-9 of `currency`: without
    free quantities, minima and caps, which belong to a month. carbon_ng: mean of the requests of the same key, model
    and hour (ng CO2e); a request's own is at /v1/carbon/explain.
    """

    id: str
    source: str
    event: str
    started_at: datetime
    ended_at: datetime
    first_token_at: datetime | None
    tenant: str
    project: str | None
    user: str | None
    api_key: str | None
    application: str | None
    operation: str
    endpoint: str | None
    model: str
    model_requested: str
    deployment: str | None
    streamed: bool
    status: str
    http_status: int | None
    finish_reason: str | None
    error_code: str | None
    quantities: dict[str, int | None]
    uncounted: bool
    state: str
    batch: int
    cost_nano: int | None
    currency: str | None
    carbon_ng: int | None


class JournalAnswer(msgspec.Struct):
    """Requests, the newest first. as_of: the ledger's last batch when this page was read."""

    start: datetime
    end: datetime
    as_of: int
    items: list[RequestShown]
    next_cursor: str | None


Only = Annotated[list[str] | None, Parameter(description="Only these.")]


def journal_question(
    given: Mapping[str, Any], statuses: Sequence[str] | None, reader: Principal, now: datetime
) -> UsageQuestion:
    """The question of a reader; the last 30 days unless a period is given. Raises: Unprocessable, Forbidden."""
    period = dict(given)
    end = period.get("end") or (now + timedelta(seconds=1)).isoformat()
    start = period.get("start") or (_instant_of(end, given) - DEFAULT_SPAN).isoformat()
    asked = parse_question({**period, "start": start, "end": end})
    if not set(statuses or ()) <= set(STATUSES):
        raise Unprocessable("unknown_value", "Not a status.", field="status", expected=", ".join(STATUSES))
    filters = {**asked.filters, **({"status": tuple(statuses)} if statuses else {})}
    return for_reader(replace(asked, filters=filters), reader)


def _instant_of(end: str, given: Mapping[str, Any]) -> datetime:
    """The end of a period whose start isn't given."""
    return parse_question({"start": "1950-01-01", "end": end, "tz": given.get("tz")}).end


def shown_request(one: LoggedRequest, cost: Cost | None) -> RequestShown:
    """A request as it leaves."""
    own = {name: getattr(one, name) for name in RequestShown.__struct_fields__ if hasattr(one, name)}
    return RequestShown(
        **(own | {"quantities": dict(one.quantities)}),
        batch=one.place.batch,
        cost_nano=None if cost is None else cost.nano,
        currency=None if cost is None else cost.currency,
    )


class RequestTrail(msgspec.Struct):
    """A request, and where its figures went: event, batch, hour of the rollup, rated lines, documents."""

    request: RequestShown
    trail: Trail


def journal_api(costs: Costs, sources: TrailSources, **options: Any) -> Router:
    """Routes of the journal; options are Litestar's for a router (guards, security)."""

    @get(
        "/v1/requests",
        summary="Requests one by one, the newest first",
        description="A member's own; all of the administration's for a manager. Without any content.",
        sync_to_thread=True,
    )
    def get_requests(  # noqa: PLR0913 - the parameters of the route, for its OpenAPI document
        request: Request[Any, Any, Any],
        start: Annotated[str | None, Parameter(description="First instant; 30 days before the end.")] = None,
        end: Annotated[str | None, Parameter(description="Exclusive end; now.")] = None,
        tz: Annotated[str | None, Parameter(description="IANA time zone of dates; Europe/Paris.")] = None,
        tenant: Only = None,
        project: Only = None,
        user: Only = None,
        api_key: Only = None,
        model: Only = None,
        operation: Only = None,
        status: Annotated[list[Status] | None, Parameter(description="Only those that ended so.")] = None,
        format: Annotated[Literal["json", "csv"], Parameter(description="json or csv.")] = "json",  # noqa: A002
        limit: Annotated[int, Parameter(ge=1, le=1_000, description="Requests a page.")] = 100,
        cursor: Annotated[
            str | None, Parameter(pattern=CURSOR_PATTERN, description="next_cursor of the page before.")
        ] = None,
    ) -> Response[JournalAnswer] | Stream:
        given = {
            "start": start, "end": end, "tz": tz, "tenant": tenant, "project": project, "user": user,
            "api_key": api_key, "model": model, "operation": operation,
        }  # fmt: skip
        reader: Principal = request.scope["state"]["principal"]
        question = journal_question(given, status, reader, datetime.now(UTC))
        state = request.app.state
        if format == "csv":
            return csv_stream(state, question, reader, costs)
        with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
            batch = last_batch(connection)
            found = read_journal(connection, question, after=read_cursor(cursor), limit=limit + 1)
        shown, rest = found[:limit], found[limit:]
        return Response(
            JournalAnswer(
                start=question.start,
                end=question.end,
                as_of=batch[0] if batch else 0,
                items=[shown_request(one, cost) for one, cost in zip(shown, costs(state, shown), strict=True)],
                next_cursor=written(shown[-1].place) if rest else None,
            )
        )

    @get("/v1/requests/{id:str}", summary="A request, and where its figures went", sync_to_thread=True)
    def get_request(
        request: Request[Any, Any, Any],
        id: Annotated[str, Parameter(description="As the journal tells it: 32 hexadecimal digits.")],  # noqa: A002
    ) -> RequestTrail:
        reader: Principal = request.scope["state"]["principal"]
        found, trail = read_trail(request.app.state, reader, id, sources)
        (cost,) = costs(request.app.state, [found])
        return RequestTrail(shown_request(found, cost), trail)

    return Router("/", route_handlers=[get_requests, get_request], tags=["requests"], **options)


CSV_FIELDS = (
    "id", "source", "event", "started_at", "ended_at", "first_token_at", "tenant", "project", "user", "api_key",
    "application", "operation", "endpoint", "model", "model_requested", "deployment", "streamed", "status",
    "http_status", "finish_reason", "error_code", *QUANTITIES, "uncounted", "state", "batch", "cost_nano", "currency",
    "carbon_ng",
)  # fmt: skip


def csv_stream(state: State, question: UsageQuestion, reader: Principal, costs: Costs) -> Stream:
    """The whole period as a CSV file (RFC 4180), read and sent page by page. What isn't known is empty."""
    return Stream(
        _csv_pages(state, question, reader, costs),
        media_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="requests.csv"', "Cache-Control": "private, no-store"},
    )


def _csv_pages(state: State, question: UsageQuestion, reader: Principal, costs: Costs) -> Iterator[bytes]:
    yield _csv_lines([CSV_FIELDS])
    after: Place | None = None
    while True:
        with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
            found = read_journal(connection, question, after=after, limit=CSV_PAGE)
        if found:
            yield _csv_lines(
                _csv_row(shown_request(one, cost)) for one, cost in zip(found, costs(state, found), strict=True)
            )
            after = found[-1].place
        if len(found) < CSV_PAGE:
            return


def _csv_row(shown: RequestShown) -> list[object]:
    flat: dict[str, Any] = msgspec.structs.asdict(shown)
    flat |= flat.pop("quantities")
    return [_csv_value(flat[name]) for name in CSV_FIELDS]


def _csv_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    return neutral(value) if isinstance(value, str) else value


def _csv_lines(rows: Any) -> bytes:
    written_rows = io.StringIO()
    csv.writer(written_rows, lineterminator="\r\n").writerows(rows)
    return written_rows.getvalue().encode()

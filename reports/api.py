"""Usage over HTTP: JSON by pages, CSV whole."""

import csv
import io
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, get
from litestar.params import Parameter

from metering.database import transaction
from metering.identity import Principal
from reports.usage import (
    GROUPS,
    UsageQuestion,
    for_reader,
    last_batch,
    parse_question,
    read_usage,
    record_fields,
    to_record,
)


class UsageAnswer(msgspec.Struct):
    """Usage by bucket and group. Quantities are integers in base units; null is unknown, 0 is a measurement."""

    start: str
    end: str
    time_zone: str
    bucket: str | None
    group_by: tuple[str, ...]
    as_of: int
    items: list[dict[str, Any]]
    next_cursor: int | None


@get("/v1/usage", summary="Usage by period and group", tags=["usage"], sync_to_thread=True)
def get_usage(  # noqa: PLR0913 - the parameters of the route, for its OpenAPI document
    request: Request[Any, Any, Any],
    start: Annotated[str, Parameter(description="First instant: a date or RFC 3339.")],
    end: Annotated[str, Parameter(description="Exclusive end: a date or RFC 3339.")],
    bucket: Annotated[str | None, Parameter(description="hour, day or month; one sum if absent.")] = None,
    tz: Annotated[str | None, Parameter(description="IANA time zone of dates and buckets; Europe/Paris.")] = None,
    group_by: Annotated[list[str] | None, Parameter(description=f"Any of {', '.join(GROUPS)}.")] = None,
    tenant: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    project: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    user: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    api_key: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    model: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    operation: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
    as_of: Annotated[str | None, Parameter(description="As the ledger stood after this batch.")] = None,
    format: Annotated[str, Parameter(description="json or csv.", pattern="^(json|csv)$")] = "json",  # noqa: A002
    limit: Annotated[int, Parameter(ge=1, le=10_000, description="Rows a page.")] = 1_000,
    cursor: Annotated[int, Parameter(ge=0, le=2**53, description="next_cursor of the page before.")] = 0,
) -> Response[UsageAnswer] | Response[str]:
    given = {
        "start": start, "end": end, "bucket": bucket, "tz": tz, "group_by": group_by, "as_of": as_of, "tenant": tenant,
        "project": project, "user": user, "api_key": api_key, "model": model, "operation": operation,
    }  # fmt: skip
    reader: Principal = request.scope["state"]["principal"]
    question = for_reader(parse_question(given), reader)
    whole = format == "csv"
    with transaction(request.app.state.engine, snapshot=True, actor=reader.actor) as connection:
        batch = last_batch(connection)
        rows = read_usage(connection, question, offset=0 if whole else cursor, limit=None if whole else limit + 1)
    records = [to_record(row, question) for row in rows]
    if whole:
        return _csv(question, records)
    return Response(
        UsageAnswer(
            start=question.start.astimezone(question.zone).isoformat(),
            end=question.end.astimezone(question.zone).isoformat(),
            time_zone=question.zone.key,
            bucket=question.bucket,
            group_by=question.group_by,
            as_of=question.as_of if question.as_of is not None else batch[0] if batch else 0,
            items=records[:limit],
            next_cursor=cursor + limit if len(records) > limit else None,
        )
    )


def _csv(question: UsageQuestion, records: list[dict[str, Any]]) -> Response[str]:
    written = io.StringIO()
    writer = csv.DictWriter(written, record_fields(question), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(records)
    return Response(
        written.getvalue(),
        media_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="usage.csv"'},
    )


def usage_router(**options: Any) -> Router:
    """Routes of usage; options are Litestar's for a router (guards, security)."""
    return Router("/", route_handlers=[get_usage], **options)

"""Usage over HTTP: JSON by pages, CSV whole."""

import csv
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from io import TextIOWrapper
from tempfile import TemporaryFile
from typing import IO, Annotated, Any

import anyio
import msgspec
from litestar import Request, Response, Router, get
from litestar.di import NamedDependency
from litestar.params import Parameter
from litestar.response import Stream

from metering.database import transaction
from metering.identity import Principal
from reports.asked import CUT, UsageCut
from reports.usage import (
    for_reader,
    last_batch,
    parse_question,
    read_usage,
    record_fields,
    stream_usage,
    to_record,
)

PIECE_BYTES = 256 * 1024


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


@get("/v1/usage", summary="Usage by period and group", tags=["usage"], dependencies=CUT, sync_to_thread=True)
def get_usage(
    request: Request[Any, Any, Any],
    cut: NamedDependency[UsageCut],
    start: Annotated[str, Parameter(description="First instant: a date or RFC 3339.")],
    end: Annotated[str, Parameter(description="Exclusive end: a date or RFC 3339.")],
    format: Annotated[str, Parameter(description="json or csv.", pattern="^(json|csv)$")] = "json",  # noqa: A002
    limit: Annotated[int, Parameter(ge=1, le=10_000, description="Rows a page.")] = 1_000,
    cursor: Annotated[int, Parameter(ge=0, le=2**53, description="next_cursor of the page before.")] = 0,
) -> Response[UsageAnswer] | Stream:
    reader: Principal = request.scope["state"]["principal"]
    question = for_reader(parse_question({**cut.params(), "start": start, "end": end}), reader)
    with transaction(request.app.state.engine, snapshot=True, actor=reader.actor) as connection:
        if format == "csv":
            rows = stream_usage(connection, question)
            return csv_answer("usage", record_fields(question), (to_record(row, question) for row in rows))
        batch = last_batch(connection)
        page = read_usage(connection, question, offset=cursor, limit=limit + 1)
    records = [to_record(row, question) for row in page]
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


def csv_answer(name: str, fields: Sequence[str], records: Iterable[Mapping[str, Any]]) -> Stream:
    """Records as a CSV file (RFC 4180) with these columns; what a record doesn't have is empty.

    They are written to the disk before anything is sent: a few are in memory at a time, an error leaves no half of a
    file, and their transaction waits for nobody's network.
    """
    with ExitStack() as stack:
        file = stack.enter_context(TemporaryFile(mode="w+b"))
        text = TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.DictWriter(text, fields, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(records)
        text.detach()
        size = file.tell()
        file.seek(0)
        stack.pop_all()  # closed by who sends it
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Content-Length": str(size)}
    return Stream(_pieces_of(file), media_type="text/csv", headers=headers)


async def _pieces_of(file: IO[bytes]) -> AsyncIterator[bytes]:
    """A file piece by piece; it is gone when it is sent, or nobody takes it any longer."""
    async with anyio.wrap_file(file) as opened:
        while piece := await opened.read(PIECE_BYTES):
            yield piece


def usage_router(**options: Any) -> Router:
    """Routes of usage; options are Litestar's for a router (guards, security)."""
    return Router("/", route_handlers=[get_usage], **options)

"""Carbon over HTTP: JSON by pages, CSV whole; statements and BoAmps reports."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import MediaType, Request, Response, Router, get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import Parameter
from litestar.response import Stream

from metering.database import transaction
from metering.errors import Forbidden
from metering.identity import Principal
from reports.api import csv_answer
from reports.asked import CUT, UsageCut
from reports.boamps import BoampsReports, read_boamps
from reports.carbon import (
    UNITS,
    IdleView,
    carbon_fields,
    carbon_record,
    check_hours,
    check_idle,
    last_carbon_batch,
    per_unit,
    posted_until,
    pro_rata_idle,
    read_carbon,
    read_platform,
)
from reports.carbon_statement import CarbonStatement, read_statement
from reports.carbon_statement_text import statement_text
from reports.selection import language_of
from reports.usage import for_reader, parse_question


class PlatformPart(msgspec.Struct):
    """GPU energy of the period that no request is charged with, in µJ; for operators."""

    idle_uj: int
    unallocated_uj: int


class CarbonAnswer(msgspec.Struct):
    """Energy and emissions by bucket and group; null is unknown, 0 is a measurement.

    Energy is in µJ: of GPUs, then of the facility with its bounds. Emissions are in ng CO2e: location_ng by the grid,
    market_ng by contract, embodied_ng of making the machines, total_ng of use by the grid and of making. known_until:
    end of the last hour that is in the figures.
    """

    start: str
    end: str
    time_zone: str
    bucket: str | None
    group_by: tuple[str, ...]
    as_of: int
    known_until: str | None
    idle: str
    items: list[dict[str, Any]]
    platform: PlatformPart | None
    next_cursor: int | None


@get(
    "/v1/carbon",
    summary="Energy and emissions by period and group",
    tags=["carbon"],
    dependencies=CUT,
    sync_to_thread=True,
)
def get_carbon(  # noqa: PLR0913 - the parameters of the route, for its OpenAPI document
    request: Request[Any, Any, Any],
    cut: NamedDependency[UsageCut],
    start: Annotated[str, Parameter(description="First hour: a date or RFC 3339.")],
    end: Annotated[str, Parameter(description="Exclusive end: a date or RFC 3339.")],
    idle: Annotated[
        IdleView,
        Parameter(
            description="Who answers for waiting GPUs: platform and direct state it apart; pro_rata adds idle_share_uj "
            "to each row (operators)."
        ),
    ] = "platform",
    format: Annotated[str, Parameter(description="json or csv.", pattern="^(json|csv)$")] = "json",  # noqa: A002
    limit: Annotated[int, Parameter(ge=1, le=10_000, description="Rows a page.")] = 1_000,
    cursor: Annotated[int, Parameter(ge=0, le=2**53, description="next_cursor of the page before.")] = 0,
) -> Response[CarbonAnswer] | Stream:
    reader: Principal = request.scope["state"]["principal"]
    check_idle(idle, reader)
    question = check_hours(for_reader(parse_question({**cut.params(), "start": start, "end": end}), reader))
    whole = format == "csv"
    with transaction(request.app.state.engine, snapshot=True, actor=reader.actor) as connection:
        rows = read_carbon(connection, question, offset=0 if whole else cursor, limit=None if whole else limit + 1)
        units = per_unit(connection, question, rows)
        shares = pro_rata_idle(connection, question) if idle == "pro_rata" else None
        platform = read_platform(connection, question) if reader.role == "operator" else None
        until, batch = posted_until(connection), last_carbon_batch(connection)
    records = [carbon_record(row, question) | unit for row, unit in zip(rows, units, strict=True)]
    if shares is not None:
        for row, record in zip(rows, records, strict=True):
            record["idle_share_uj"] = shares.get(tuple(row.group.values()), 0)
    if whole:
        own = () if shares is None else ("idle_share_uj",)
        return csv_answer("carbon", [*carbon_fields(question), *UNITS, *own], records)
    return Response(
        CarbonAnswer(
            start=question.start.astimezone(question.zone).isoformat(),
            end=question.end.astimezone(question.zone).isoformat(),
            time_zone=question.zone.key,
            bucket=question.bucket,
            group_by=question.group_by,
            as_of=batch if question.as_of is None else question.as_of,
            known_until=None if until is None else until.astimezone(question.zone).isoformat(),
            idle=idle,
            items=records[:limit],
            platform=None if platform is None else PlatformPart(platform.idle_uj, platform.unallocated_uj),
            next_cursor=cursor + limit if len(records) > limit else None,
        )
    )


async def not_for_members(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """What is the administration's as a whole is for its managers and operators. Raises: Forbidden."""
    reader: Principal = connection.scope["state"]["principal"]
    if reader.role == "member":
        raise Forbidden("wrong_role", "The token has another role.", expected="operator or manager")


@get(
    "/v1/carbon/statement",
    summary="Carbon of an administration's month",
    tags=["carbon"],
    guards=[not_for_members],
    sync_to_thread=True,
)
def get_statement(
    request: Request[Any, Any, Any],
    tenant: Annotated[str, Parameter(description="The administration; a manager's own.")],
    month: Annotated[str, Parameter(description="A month of the books, as 2026-10.")],
    as_of: Annotated[int | None, Parameter(ge=0, le=2**53, description="As posted up to this batch of carbon.")] = None,
    format: Annotated[  # noqa: A002
        Literal["json", "text"], Parameter(description="text is for people, in the language that they accept.")
    ] = "json",
) -> Response[CarbonStatement] | Response[str]:
    reader: Principal = request.scope["state"]["principal"]
    if reader.tenant not in {None, tenant}:
        raise Forbidden("not_yours", "That isn't yours to read.", field="tenant", expected="your own")
    statement = read_statement(request.app.state.engine, tenant, month, as_of, actor=reader.actor)
    if format == "json":
        return Response(statement)
    language = language_of(None, request.headers.get("accept-language", ""), request.app.state.settings.language)
    return Response(statement_text(statement, language), media_type=MediaType.TEXT)


@get("/v1/carbon/boamps", summary="BoAmps reports, one a model", tags=["carbon"], sync_to_thread=True)
def get_boamps(
    request: Request[Any, Any, Any],
    start: Annotated[str, Parameter(description="First hour: a date or RFC 3339.")],
    end: Annotated[str, Parameter(description="Exclusive end: a date or RFC 3339.")],
    tz: Annotated[str | None, Parameter(description="IANA time zone of dates; Europe/Paris.")] = None,
    tenant: Annotated[list[str] | None, Parameter(description="Only these.")] = None,
) -> BoampsReports:
    reader: Principal = request.scope["state"]["principal"]
    asked = parse_question({"start": start, "end": end, "tz": tz, "tenant": tenant})
    question = check_hours(for_reader(asked, reader))
    return read_boamps(request.app.state.engine, question, _now(), actor=reader.actor)


def _now() -> datetime:
    return datetime.now(UTC)


def carbon_reports(**options: Any) -> Router:
    """Routes of reports on carbon; options are Litestar's for a router (guards, security)."""
    return Router("/", route_handlers=[get_carbon, get_statement, get_boamps], **options)

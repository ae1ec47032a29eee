"""Past usage of an OpenGateLLM as events: what its rows know, and what they only seem to know.

Only counts of chats and completions are taken over, as counted by the gateway's own tokenizer. In its other rows
(`prompt_tokens` of embeddings, rerank, OCR, audio, search) the releases of 2025 count a text to embed by its characters
(`for input in body["input"]` over a string), a rerank without its query, and what is no text not at all; and no column
tells from which release a row is. 0 is the default of every count there, so it is never a measurement: it is null here.
Costs, kWh and kgCO2eq are not taken over: they follow from those counts.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from metering.events.ahead import CallsAhead
from metering.events.decoding import Decoded
from metering.events.envelope import UsageData, UsageEvent
from metering.events.files import CALLS_AHEAD, PATIENCE_S, IngestSummary
from metering.events.intake import Intake, IntakeAnswer
from metering.imports.attribution import Attribution
from metering.imports.directory import utc
from metering.imports.names import (
    account_of_user,
    deployment_of_provider,
    endpoint_name,
    key_of_token,
    measured,
    model_name,
    operation_of_endpoint,
    whole,
)
from metering.imports.tables import Shape, reading
from metering.progress import Advance
from metering.rules.quantities import Operation, Status

SOURCE = "opengatellm:import"
"""Source of every event that was imported, which also marks it as such."""

PAGE_ROWS = 5_000
"""Rows read at a time: no transaction on the gateway's database lasts longer than a page."""

COUNTED: frozenset[Operation] = frozenset({"chat", "completion"})

_FAILED = 400


@dataclass(frozen=True, slots=True)
class Span:
    """Rows to take over: up to a number, and where that is stated only of what began before `until`."""

    last_row: int
    until: datetime | None = None


def import_usage(
    engine: sa.Engine, shape: Shape, span: Span, attribution: Attribution, intake: Intake, advance: Advance
) -> IngestSummary:
    """Offer rows to the ledger, in the order of their numbers; those that are there count as duplicate.

    Raises: Unavailable if either database is away; what is written then stays.
    """
    summary = IngestSummary()

    def written(_rows: int, answer: IntakeAnswer) -> None:
        for name in IngestSummary.__slots__:
            setattr(summary, name, getattr(summary, name) + getattr(answer, name))
        advance(len(answer.events))

    calls = CallsAhead(intake, "file", written, calls_max=CALLS_AHEAD, patience_s=PATIENCE_S)
    after = 0
    while rows := _page(engine, shape, span, after):
        events: Decoded = [to_event(row, attribution) for row in rows]
        calls.offer(len(rows), events)
        after = rows[-1].id
    calls.finish()
    return summary


def _page(engine: sa.Engine, shape: Shape, span: Span, after: int) -> list[sa.Row[Any]]:
    number, started_at = shape.column("usage", "id"), shape.column("usage", "started_at")
    query = shape.select("usage").where(number > after, number <= span.last_row).order_by(number).limit(PAGE_ROWS)
    if span.until is not None:
        query = query.where(started_at < span.until)
    with reading(engine) as connection:
        return list(connection.execute(query))


def to_event(row: sa.Row[Any], attribution: Attribution) -> UsageEvent:
    """A row of `usage` as an event; the same row is the same event at every import."""
    started_at = utc(row.started_at)
    assert started_at is not None
    ended_at = started_at + timedelta(milliseconds=whole(row.duration_ms) or 0)
    operation = operation_of_endpoint(row.endpoint)
    status = _status(row)
    model = model_name(row.model or row.answered)
    is_counted = operation in COUNTED
    input_tokens = measured(row.prompt_tokens) if is_counted else None
    output_tokens = measured(row.completion_tokens) if is_counted else None
    return UsageEvent(
        specversion="1.0",
        type="jauge.usage.v1",
        source=SOURCE,
        id=f"usage-{row.id}",
        time=ended_at,
        data=UsageData(
            tenant=attribution.tenant_of(row.user_id),
            user=None if row.user_id is None else account_of_user(row.user_id),
            api_key=None if row.token_id is None else key_of_token(row.token_id),
            operation=operation,
            endpoint=endpoint_name(row.endpoint),
            model_requested=model,
            model_served=model if status == "ok" and (row.model or row.answered) else None,
            deployment=None if row.provider_id is None else deployment_of_provider(row.provider_id),
            streamed=row.first_token_ms is not None,
            started_at=started_at,
            first_token_at=_first_token_at(row, started_at, ended_at),
            status=status,
            http_status=row.status if row.status is not None and 100 <= row.status <= 599 else None,
            error_code="outcome_unknown" if row.status is None and status == "error" else None,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            count_source=None if input_tokens is None and output_tokens is None else "gateway_tokenizer",
        ),
    )


def _status(row: sa.Row[Any]) -> Status:
    """How a request ended. A row without a status is of one that failed or was left; with counts, of one that ran."""
    if row.status is None:
        return "ok" if measured(row.completion_tokens) else "error"
    return "ok" if row.status < _FAILED else "error"


def _first_token_at(row: sa.Row[Any], started_at: datetime, ended_at: datetime) -> datetime | None:
    wait_ms = whole(row.first_token_ms)
    at = None if wait_ms is None else started_at + timedelta(milliseconds=wait_ms)
    return at if at is not None and at <= ended_at else None

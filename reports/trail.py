"""Where a request's figures went: its event, the batch that holds it, the hour or day it adds to, lines and documents.

Ratings and explanations are other rooms' to tell: they are given as functions.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

import msgspec
import sqlalchemy as sa
from litestar.datastructures import State

from metering.database import transaction
from metering.errors import NotFound
from metering.identity import Principal
from metering.rules.periods import PARIS, day_bounds
from metering.rules.quantities import QUANTITIES
from metering.tables import (
    DAILY_KEYS,
    HOURLY_KEYS,
    billing_document,
    ledger_batch,
    ledger_entry,
    ledger_identity,
    usage_daily,
    usage_hourly,
)
from reports.journal import HOUR, VOID, LoggedRequest, as_they_count, entries, named

_id = re.compile("[0-9a-f]{32}")


class BatchShown(msgspec.Struct):
    """The batch of the ledger's chain that an entry is in; hash commits to its rows and to all batches before."""

    seq: int
    recorded_at: datetime
    rows: int
    hash: str


class CorrectionShown(msgspec.Struct):
    """A later entry that changes what the event counts for, by these amounts. author: for the platform's staff."""

    id: str
    kind: Literal["correction", "void"]
    batch: int
    recorded_at: datetime
    quantities: dict[str, int]
    reason: str
    author: str | None


class SumShown(msgspec.Struct):
    """The sum that the request is a part of: of an hour, and for members the day of their own use."""

    kind: Literal["hour", "day"]
    starts_at: datetime
    ends_at: datetime
    quantities: dict[str, int | None]


class LineShown(msgspec.Struct):
    """A rated line of the month that the request is a part of; amounts are decimal numbers in the currency."""

    meter: str
    quantity: int
    unit: str
    unit_price: str
    per: int
    amount: str
    currency: str
    billing: str
    convention: str | None


class DocumentShown(msgspec.Struct):
    """A statement, invoice or credit note of the month."""

    kind: str
    number: str
    issued_on: date


class EmissionsShown(msgspec.Struct):
    """What the request answers for in an hour: energy of the building in µJ, emissions in ng CO2e, with bounds.

    tier: quality of the data, A to D; null is unknown. is_due: something new is known, which isn't posted yet.
    """

    hour: datetime
    batch: int | None
    is_due: bool
    tier: str | None
    energy_uj: int | None
    total_ng: int | None
    total_lower_ng: int | None
    total_upper_ng: int | None
    factors: list[str]


class Trail(msgspec.Struct):
    """From an event to documents. month: of the books. lines, documents: the administration's, so not for members."""

    batch: BatchShown
    corrections: list[CorrectionShown]
    sum: SumShown | None
    month: str
    lines: list[LineShown]
    documents: list[DocumentShown]
    emissions: list[EmissionsShown]


@dataclass(frozen=True, slots=True)
class TrailSources:
    """What other rooms tell of a request.

    lines: those of the month of the books that its use is in; emissions: hour by hour, none where it used no model.
    """

    lines: Callable[[State, Principal, LoggedRequest, str], Sequence[LineShown]]
    emissions: Callable[[State, Principal, LoggedRequest], Sequence[EmissionsShown]]


def read_trail(state: State, reader: Principal, request_id: str, sources: TrailSources) -> tuple[LoggedRequest, Trail]:
    """A request that a reader may see, and where its figures went. Raises: NotFound."""
    # Batches and identities are the platform's: the event is looked up as the reader's, and nobody else's is shown.
    is_own_only = reader.role == "member"
    with transaction(state.engine, snapshot=True) as connection:
        found = _find(connection, reader, request_id)
        month = found.started_at.astimezone(PARIS).strftime("%Y-%m")
        batch = _batch(connection, found.place.batch)
        corrections = _corrections(connection, found, is_staff=reader.tenant is None)
        added_up = _sum(connection, found, reader)
        documents = [] if is_own_only else _documents(connection, found.tenant, month)
    return found, Trail(
        batch=batch,
        corrections=corrections,
        sum=added_up,
        month=month,
        lines=[] if is_own_only else list(sources.lines(state, reader, found, month)),
        documents=documents,
        emissions=list(sources.emissions(state, reader, found)),
    )


def _find(connection: sa.Connection, reader: Principal, request_id: str) -> LoggedRequest:
    unknown = NotFound("unknown_request", "There is no such request.", field="id")
    if not _id.fullmatch(request_id):
        raise unknown
    batch = connection.scalar(sa.select(ledger_identity.c.batch_seq).where(ledger_identity.c.identity == request_id))
    query = entries().where(ledger_entry.c.batch_seq == batch, ledger_entry.c.identity == request_id)
    rows = [] if batch is None else connection.execute(query).mappings().all()
    if not rows:
        raise unknown
    (found,) = as_they_count(connection, named(connection, rows))
    is_others = reader.tenant not in {None, found.tenant} or (reader.role == "member" and found.user != reader.account)
    if is_others:
        raise unknown
    return found


def _batch(connection: sa.Connection, seq: int) -> BatchShown:
    row = connection.execute(sa.select(ledger_batch).where(ledger_batch.c.seq == seq)).one()
    return BatchShown(row.seq, row.recorded_at, row.row_count, row.hash.hex())


def _corrections(connection: sa.Connection, found: LoggedRequest, *, is_staff: bool) -> list[CorrectionShown]:
    query = (
        sa.select(ledger_entry, ledger_batch.c.recorded_at)
        .join(ledger_batch, ledger_batch.c.seq == ledger_entry.c.batch_seq)
        .where(ledger_entry.c.corrects == found.id, ledger_entry.c.occurred_at == found.started_at)
        .order_by(ledger_entry.c.batch_seq)
    )
    return [
        CorrectionShown(
            id=row.event_id,
            kind="void" if row.kind == VOID else "correction",
            batch=row.batch_seq,
            recorded_at=row.recorded_at,
            quantities={name: value for name in QUANTITIES if (value := row._mapping[name])},
            reason=row.reason,
            author=row.author if is_staff else None,
        )
        for row in connection.execute(query)
    ]


def _documents(connection: sa.Connection, tenant: str, month: str) -> list[DocumentShown]:
    columns = billing_document.c
    query = sa.select(columns.kind, columns.number, columns.issued_on).where(
        columns.tenant == tenant, columns.month == month
    )
    return [DocumentShown(*row) for row in connection.execute(query.order_by(columns.seq))]


def _sum(connection: sa.Connection, found: LoggedRequest, reader: Principal) -> SumShown | None:
    if reader.role == "member":
        day = found.started_at.astimezone(PARIS).date()
        return _sum_of(connection, usage_daily, (usage_daily.c.day == day,), DAILY_KEYS, found, day_bounds(day))
    hour = found.started_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return _sum_of(connection, usage_hourly, (usage_hourly.c.hour == hour,), HOURLY_KEYS, found, (hour, hour + HOUR))


def _sum_of(
    connection: sa.Connection,
    rollup: sa.Table,
    period: Sequence[sa.ColumnElement[bool]],
    keys: Sequence[str],
    found: LoggedRequest,
    bounds: tuple[datetime, datetime],
) -> SumShown | None:
    own = [rollup.c[name].is_not_distinct_from(getattr(found, name)) for name in keys]
    query = sa.select(*(rollup.c[name] for name in QUANTITIES)).where(*period, *own)
    sums = connection.execute(query).mappings().first()
    if sums is None:
        return None
    quantities = {name: None if sums[name] is None else int(sums[name]) for name in QUANTITIES}
    return SumShown("hour" if rollup is usage_hourly else "day", *bounds, quantities)

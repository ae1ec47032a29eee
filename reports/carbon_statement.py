"""The carbon statement of an administration's month: what was emitted, how well that is known, and what it rests on.

A statement is of one batch of carbon. Everything in it is read as of that batch, and quantities of usage as of the
batch of the ledger that it knew of: the same batch gives the same figures for ever.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from metering.database import Actor, transaction
from metering.errors import NotFound, Unprocessable
from metering.rules.carbon.apportioning import shared
from metering.rules.carbon.tiers import TIERS, Tier
from metering.rules.periods import BOOKS_ZONE, PARIS, month_bounds
from metering.tables import carbon_batch, tenant
from reports.carbon import (
    CarbonRow,
    FactorSource,
    describe_factors,
    factors_used,
    methods_used,
    per_unit,
    read_carbon,
)
from reports.usage import YEARS, UsageQuestion

MILLION = 1_000_000


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Energy (µJ, building included) and emissions (ng CO2e) with bounds; null is unknown.

    location_ng: of use by the grid, market_ng: by contract, embodied_ng: of making the machines, total_ng: of use by
    the grid and of making. requests_unknown: requests whose energy isn't known, and so isn't in any figure.
    """

    requests: int
    requests_unknown: int
    energy_uj: int | None
    energy_lower_uj: int | None
    energy_upper_uj: int | None
    location_ng: int | None
    location_lower_ng: int | None
    location_upper_ng: int | None
    market_ng: int | None
    embodied_ng: int | None
    embodied_lower_ng: int | None
    embodied_upper_ng: int | None
    total_ng: int | None
    total_lower_ng: int | None
    total_upper_ng: int | None


class TierPart(msgspec.Struct, frozen=True):
    """What data of one quality make of the energy, and their share in millionths."""

    tier: str
    energy_uj: int
    share_ppm: int


class ModelPart(msgspec.Struct, frozen=True):
    """A model's part of a statement; null: requests that name none."""

    model: str | None
    footprint: Footprint
    per_1000_tokens_ng: int | None


class AsOf(msgspec.Struct, frozen=True):
    """The batch that a statement is of; `hash` chains it to all batches before."""

    batch: int
    recorded_at: str
    hash: str


class CarbonStatement(msgspec.Struct, frozen=True):
    """Carbon of an administration's month of the books.

    is_complete: whether the whole month is posted; footprint: null while nothing is known; models: by falling
    emissions, those of which none are known last.
    """

    tenant: str
    name: str
    month: str
    start: str
    end: str
    time_zone: str
    known_until: str
    is_complete: bool
    as_of: AsOf
    methods: list[str]
    footprint: Footprint | None
    quality: list[TierPart]
    models: list[ModelPart]
    factors: list[FactorSource]


def month_of(text: str) -> tuple[datetime, datetime]:
    """Bounds (UTC) of a month of the books, written as 2026-10. Raises: Unprocessable."""
    year, dash, month = text.partition("-")
    is_month = dash and len(year) == 4 and len(month) == 2 and (year + month).isascii() and (year + month).isdecimal()
    if not (is_month and YEARS[0] <= int(year) <= YEARS[1] and 1 <= int(month) <= 12):
        raise Unprocessable("invalid_time", "Not a month.", field="month", expected="as 2026-10")
    return month_bounds(int(year), int(month))


def read_statement(
    engine: sa.Engine, tenant_id: str, month: str, as_of: int | None = None, *, actor: Actor | None = None
) -> CarbonStatement:
    """The statement of a month, as of a batch of carbon or of the newest; actor: on whose behalf its rows are read.

    Raises: NotFound for an administration or a batch that isn't there; Unprocessable.
    """
    start, end = month_of(month)
    # Batches and factors are the platform's, rows the administration's: as of one batch, both stay as they are.
    with transaction(engine) as connection:
        name = connection.scalar(sa.select(tenant.c.name).where(tenant.c.id == tenant_id))
        if name is None:
            raise NotFound("unknown_tenant", "No such administration.", field="tenant")
        batch = _batch(connection, as_of)
    question = UsageQuestion(start, end, filters={"tenant": (tenant_id,)}, as_of=batch.seq)
    with transaction(engine, snapshot=True, actor=actor) as connection:
        whole = read_carbon(connection, question)
        models = _models(connection, question, batch.ledger_seq)
        methods, numbers = methods_used(connection, question), factors_used(connection, question)
    with transaction(engine) as connection:
        factors = describe_factors(connection, numbers)
    return CarbonStatement(
        tenant=tenant_id,
        name=name,
        month=month,
        start=start.astimezone(PARIS).isoformat(),
        end=end.astimezone(PARIS).isoformat(),
        time_zone=BOOKS_ZONE,
        known_until=batch.known_until.astimezone(PARIS).isoformat(),
        is_complete=batch.known_until >= end,
        as_of=AsOf(batch.seq, batch.recorded_at.astimezone(PARIS).isoformat(), batch.hash.hex()),
        methods=methods,
        footprint=_footprint(whole[0]) if whole else None,
        quality=_quality(whole[0].tiers) if whole else [],
        models=models,
        factors=factors,
    )


class _Batch(NamedTuple):
    """A batch of carbon: what it knew of the ledger, and the end of the last hour posted by then."""

    seq: int
    recorded_at: datetime
    hash: bytes
    ledger_seq: int
    known_until: datetime


def _batch(connection: sa.Connection, as_of: int | None) -> _Batch:
    columns = carbon_batch.c
    query = sa.select(columns.seq, columns.recorded_at, columns.hash, columns.ledger_seq)
    query = query.where(columns.seq == as_of) if as_of is not None else query.order_by(columns.seq.desc()).limit(1)
    found = connection.execute(query).first()
    if found is None:
        raise NotFound("unknown_batch", "No such batch of carbon is posted.", field="as_of")
    last = connection.scalar(sa.select(sa.func.max(columns.hour)).where(columns.seq <= found.seq))
    return _Batch(found.seq, found.recorded_at, bytes(found.hash), found.ledger_seq, last + timedelta(hours=1))


def _models(connection: sa.Connection, question: UsageQuestion, ledger_seq: int) -> list[ModelPart]:
    by_model = replace(question, group_by=("model",))
    rows = read_carbon(connection, by_model)
    units = per_unit(connection, by_model, rows, ledger_as_of=ledger_seq)
    parts = [
        ModelPart(row.group["model"], _footprint(row), unit["per_1000_tokens_ng"])
        for row, unit in zip(rows, units, strict=True)
    ]

    def place(part: ModelPart) -> tuple[bool, int, str]:
        total = part.footprint.total_ng
        return total is None, -(total or 0), part.model or ""

    return sorted(parts, key=place)


def _footprint(row: CarbonRow) -> Footprint:
    return msgspec.convert({name: row.figures[name] for name in Footprint.__struct_fields__}, Footprint)


def _quality(tiers: Mapping[Tier, int]) -> list[TierPart]:
    """Shares sum to a million."""
    known = [tier for tier in TIERS if tiers.get(tier)]
    shares = shared(MILLION, [tiers[tier] for tier in known], known) if known else []
    return [TierPart(tier, tiers[tier], share) for tier, share in zip(known, shares, strict=True)]

"""The proof: what gateways counted, what the ledger has, both rollups, rated lines and documents, side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.dialects.postgresql import distinct_on

from metering.billing.prices import Tariffs
from metering.billing.rating import Period, Rating, rate_tenants
from metering.ledger.rows import EVENT
from metering.reconciliation.documented import KEYS, documented
from metering.rules.periods import BOOKS_ZONE, PARIS, day_bounds
from metering.rules.quantities import add
from metering.rules.reconciling import RECONCILED, Cells, Drift, Key, Sums, drifts, grouped, total
from metering.tables import gateway_total, ledger_batch, ledger_entry, ledger_series, tenant, usage_daily, usage_hourly

DRIFTS_SHOWN = 100
"""Differences that are named, a step; all are counted."""

TOKENS = ("input_tokens", "output_tokens")
TOKEN_METERS = frozenset({"input_tokens", "cached_input_tokens", "output_tokens", "total_tokens"})
"""Meters of which the used quantities, taken together, are the tokens of a month, each once."""


class DriftShown(Struct, frozen=True, kw_only=True):
    """One sum that differs, and where: names of the key's parts to their values."""

    where: dict[str, str]
    quantity: str
    expected: int | None
    found: int | None
    difference: int


class StepShown(Struct, frozen=True, kw_only=True):
    """Sums of one place against those of another. drifts: how many sums differ; named: the first of them."""

    name: str
    against: str
    covers: str
    expected: dict[str, int | None]
    found: dict[str, int | None]
    difference: dict[str, int]
    drifts: int
    named: list[DriftShown]


class Proof(Struct, frozen=True, kw_only=True):
    """The reconciliation of a month, or of one of its days."""

    period: str
    start: datetime
    end: datetime
    ledger_batch: int
    is_clean: bool
    steps: list[StepShown]


@dataclass(frozen=True, slots=True)
class _Books:
    """What the ledger has. entries: by day, tenant, model; events: as they were sent, by source, day, tenant, model."""

    entries: Cells
    events: Cells


def prove(connection: sa.Connection, tariffs: Tariffs, period: Period, day: date | None = None) -> Proof:
    """Compare every place for a month, or for one of its days; of a day nothing is rated.

    connection: in a transaction of one state (`snapshot=True`).
    """
    start, end = (period.start, period.end) if day is None else day_bounds(day)
    books = _books(connection, start, end)
    served, days = _gateways(connection, start, end)
    sent = {key: _stated(sums, served.get(key)) for key, sums in books.events.items() if key[:2] in days}
    keys = ("day", "tenant", "model")
    hourly, daily = _hourly(connection, start, end), _daily(connection, start, end)
    steps = [
        _step("ledger", "gateway", f"{len(days)} days of sources that were posted", ("source", *keys), served, sent),
        _step("hourly rollup", "ledger", "every entry, with corrections", keys, books.entries, hourly),
        _step("daily rollup", "ledger", "every entry, with corrections", keys, books.entries, daily),
    ]
    if day is None:
        ratings = rate_tenants(connection, tariffs, list(connection.scalars(sa.select(tenant.c.id))), period)
        steps.append(_rated(books.entries, ratings))
        steps += _documents(connection, period)
    last = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(ledger_batch.c.seq), 0))) or 0
    return Proof(
        period=period.month if day is None else day.isoformat(),
        start=start, end=end, ledger_batch=last, is_clean=not any(step.drifts for step in steps), steps=steps,
    )  # fmt: skip


def _step(
    name: str, against: str, covers: str, key_names: Sequence[str], expected: Cells, found: Cells,
    quantities: Sequence[str] = RECONCILED,
) -> StepShown:  # fmt: skip
    differing = drifts(expected, found, quantities)
    left, right = total(expected.values(), quantities), total(found.values(), quantities)
    return StepShown(
        name=name,
        against=against,
        covers=covers,
        expected=left,
        found=right,
        difference={one: (right[one] or 0) - (left[one] or 0) for one in quantities},
        drifts=len(differing),
        named=[_shown(one, key_names) for one in differing[:DRIFTS_SHOWN]],
    )


def _shown(drift: Drift, key_names: Sequence[str]) -> DriftShown:
    return DriftShown(
        where=dict(zip(key_names, drift.key, strict=True)),
        quantity=drift.quantity,
        expected=drift.expected,
        found=drift.found,
        difference=drift.difference,
    )


def _gateways(connection: sa.Connection, start: datetime, end: datetime) -> tuple[Cells, set[Key]]:
    """Newest totals by source, day, tenant and model; and the (source, day) that were posted."""
    columns = gateway_total.c
    query = (
        sa.select(columns.source, columns.day, columns.totals)
        .where(columns.day >= start.astimezone(PARIS).date(), columns.day < end.astimezone(PARIS).date())
        .ext(distinct_on(columns.source, columns.day))
        .order_by(columns.source, columns.day, columns.version.desc())
    )
    cells: dict[Key, Mapping[str, int | None]] = {}
    days: set[Key] = set()
    for source, day, totals in connection.execute(query):
        days.add((source, day.isoformat()))
        for one in totals:
            key = (source, day.isoformat(), one["tenant"], one["model"])
            cells[key] = {name: one[name] for name in RECONCILED}
    return cells, days


def _stated(sums: Sums, posted: Sums | None) -> Sums:
    """Sums of events without the quantities that the gateway doesn't count."""
    return sums if posted is None else {name: None if posted[name] is None else sums[name] for name in RECONCILED}


def _books(connection: sa.Connection, start: datetime, end: datetime) -> _Books:
    """One scan of the entries: events by source, and all by day, tenant and model."""
    entry, series = ledger_entry.c, ledger_series.c
    day = sa.cast(sa.func.timezone(BOOKS_ZONE, entry.occurred_at), sa.Date)
    model = sa.func.coalesce(series.model_served, series.model_requested)
    keys = (series.source, day, series.tenant, model, (entry.kind == EVENT))
    query = (
        sa.select(*keys, *(sa.func.sum(entry[name]) for name in RECONCILED))
        .join_from(ledger_entry, ledger_series, entry.series == series.number)
        .where(entry.occurred_at >= start, entry.occurred_at < end)
        .group_by(*(sa.literal_column(str(place)) for place in range(1, len(keys) + 1)))
    )
    events: dict[Key, Mapping[str, int | None]] = {}
    entries: dict[Key, dict[str, int | None]] = {}
    for source, on, tenant_id, name, is_event, *sums in connection.execute(query):
        known = dict(zip(RECONCILED, (None if one is None else int(one) for one in sums), strict=True))
        key = (on.isoformat(), tenant_id, name)
        if is_event:
            events[source, *key] = known
        before = entries.get(key, dict.fromkeys(RECONCILED))
        entries[key] = {one: add(before[one], known[one]) for one in RECONCILED}
    return _Books(entries, events)


def _hourly(connection: sa.Connection, start: datetime, end: datetime) -> Cells:
    columns = usage_hourly.c
    day = sa.cast(sa.func.timezone(BOOKS_ZONE, columns.hour), sa.Date)
    return _cells(connection, columns, day, (columns.hour >= start, columns.hour < end))


def _daily(connection: sa.Connection, start: datetime, end: datetime) -> Cells:
    columns = usage_daily.c
    within = (columns.day >= start.astimezone(PARIS).date(), columns.day < end.astimezone(PARIS).date())
    return _cells(connection, columns, columns.day, within)


def _cells(connection: sa.Connection, columns: Any, day: Any, within: Iterable[sa.ColumnElement[bool]]) -> Cells:
    query = (
        sa.select(day, columns.tenant, columns.model, *(sa.func.sum(columns[name]) for name in RECONCILED))
        .where(*within)
        .group_by(sa.literal_column("1"), columns.tenant, columns.model)
    )
    return {
        (on.isoformat(), tenant_id, model): dict(
            zip(RECONCILED, (None if one is None else int(one) for one in sums), strict=True)
        )
        for on, tenant_id, model, *sums in connection.execute(query)
    }


def _rated(entries: Cells, ratings: Sequence[Rating]) -> StepShown:
    """Tokens on lines and among gaps against those of the ledger, by administration and model.

    Only where tokens are all that is billed: a price by request or by input stands for the whole use, tokens or not.
    """
    lines: dict[Key, dict[str, int | None]] = {}
    others: set[Key] = set()
    for rating in ratings:
        for one in rating.month.lines:
            key = (rating.tenant, one.line.place.model or "")
            if one.line.price.meter not in TOKEN_METERS:
                others.add(key)
            else:
                lines[key] = {"tokens": add(lines.get(key, {}).get("tokens"), one.line.used)}
        for gap, quantity in rating.month.gaps:
            if gap.quantity in TOKENS:
                key = (rating.tenant, gap.place.model or "")
                lines[key] = {"tokens": add(lines.get(key, {}).get("tokens"), quantity)}
    expected = {
        key: {"tokens": add(sums["input_tokens"], sums["output_tokens"])}
        for key, sums in grouped(entries, (1, 2)).items()
        if key not in others
    }
    found = {key: sums for key, sums in lines.items() if key not in others}
    covers = "models that are billed by tokens alone, with what has no price"
    return _step("rated lines", "ledger", covers, ("tenant", "model"), expected, found, ("tokens",))


def _documents(connection: sa.Connection, period: Period) -> list[StepShown]:
    """Lines of documents against rated ones, once the month is closed; what came after the newest closing is apart."""
    found = documented(connection, period)
    if found is None:
        return []
    covers = f"net amounts of the month, with corrections up to the closing of {found.until}"
    return [_step("documents", "rated lines", covers, KEYS, found.rated, found.said, found.quantities)]

"""What was emitted, by period and group: sums of the ledger of carbon, each with its bounds and its quality.

Energy is integer µJ and carbon integer ng CO2e. A figure is None where nothing of it is known; `requests_unknown` says
how many requests a figure doesn't hold. Bounds are added as they are, so a sum's bounds hold whatever its parts share.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from metering.errors import Forbidden, Unprocessable
from metering.identity import Principal
from metering.rules.carbon.apportioning import rounded
from metering.rules.carbon.impacts import idle_views
from metering.rules.carbon.tiers import TIERS, Tier
from metering.tables import CARBON_SUMS, carbon_batch, carbon_entry, carbon_hour, emission_factor
from reports.usage import UsageQuestion, read_usage

IdleView = Literal["platform", "pro_rata", "direct"]
Part = Literal["use", "idle", "unallocated"]

UNITS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "per_1000_tokens_ng": (("input_tokens", "output_tokens"), 1_000),
    "per_audio_minute_ng": (("audio_ms",), 60_000),
    "per_page_ng": (("pages",), 1),
}
"""Figures for a unit of usage: the quantities that it is of, and how many of their base units make one."""


@dataclass(frozen=True, slots=True)
class CarbonRow:
    """Sums of one bucket and group: those of `tables.CARBON_SUMS`, those of `TOTALS`, energy in µJ by tier.

    requests_unknown: requests whose energy isn't known, and so isn't in any figure.
    """

    bucket_start: datetime | None
    group: Mapping[str, str | None]
    sums: Mapping[str, int | None]
    requests_unknown: int
    tiers: Mapping[Tier, int]

    @property
    def total_ng(self) -> tuple[int | None, int | None, int | None]:
        """Emissions of use by the grid and of making the machines, with bounds; None where one of both isn't known."""
        names = ("", "_lower", "_upper")
        return tuple(_sum(self.sums[f"location{name}_ng"], self.sums[f"embodied{name}_ng"]) for name in names)  # type: ignore[return-value]

    @property
    def figures(self) -> dict[str, int | None]:
        """All that is known of it by name: sums, totals with bounds, and requests that they don't hold."""
        total, lower, upper = self.total_ng
        totals = {"total_ng": total, "total_lower_ng": lower, "total_upper_ng": upper}
        return {**self.sums, **totals, "requests_unknown": self.requests_unknown}


@dataclass(frozen=True, slots=True)
class PlatformEnergy:
    """GPU energy (µJ) that no request is charged with: of waiting for any, and of what nobody known did."""

    idle_uj: int
    unallocated_uj: int


def check_hours(question: UsageQuestion) -> UsageQuestion:
    """A question whose edges are whole hours: carbon is known by the hour. Raises: Unprocessable."""
    for field, edge in (("start", question.start), ("end", question.end)):
        if edge.astimezone(UTC).replace(minute=0, second=0, microsecond=0) != edge:
            raise Unprocessable(
                "not_a_whole_hour", "Carbon is known by the hour.", field=field, expected="a whole hour"
            )
    return question


def read_carbon(
    connection: sa.Connection,
    question: UsageQuestion,
    *,
    part: Part = "use",
    offset: int = 0,
    limit: int | None = None,
) -> list[CarbonRow]:
    """Rows in the order of buckets, then groups (unknown last): all, or `limit` of them after the first `offset`.

    part: what requests used, or one of what is nobody's. `as_of` of the question is a batch of carbon.
    """
    columns = carbon_entry.c
    bucket = sa.func.date_trunc(question.bucket, columns.hour, question.zone.key) if question.bucket else None
    keys = [columns[name] for name in question.group_by]
    unknown = sa.func.coalesce(sa.func.sum(columns.requests).filter(columns.gpu_energy_uj.is_(None)), 0)
    query = sa.select(
        *([] if bucket is None else [bucket.label("bucket_start")]),
        *keys,
        *(sa.func.sum(columns[name]).label(name) for name in CARBON_SUMS),
        unknown.label("unknown"),
        *(sa.func.sum(columns.energy_uj).filter(columns.tier == tier).label(f"tier_{tier}") for tier in TIERS),
    ).where(columns.part == part, *_conditions(question))
    ordering = [*([] if bucket is None else [sa.literal_column("bucket_start")]), *keys]
    if ordering:
        query = query.group_by(*ordering).order_by(*(one.asc().nulls_last() for one in ordering))
    # What was posted and taken back leaves sums of nothing.
    query = query.having(sa.or_(sa.func.sum(columns.requests) != 0, sa.func.sum(columns.gpu_energy_uj) != 0))
    return [_row(row._mapping, question) for row in connection.execute(query.offset(offset).limit(limit))]


def read_platform(connection: sa.Connection, question: UsageQuestion) -> PlatformEnergy:
    """Energy of the period that no request is charged with, of the models that the question lets through."""
    columns = carbon_entry.c
    energy = sa.func.coalesce(sa.func.sum(columns.gpu_energy_uj), 0)
    query = sa.select(columns.part, energy).where(columns.part != "use", *_conditions(question, only=("model",)))
    found = {part: int(uj) for part, uj in connection.execute(query.group_by(columns.part))}
    return PlatformEnergy(found.get("idle", 0), found.get("unallocated", 0))


def pro_rata_idle(connection: sa.Connection, question: UsageQuestion) -> Mapping[tuple[str | None, ...], int]:
    """GPU energy of waiting (µJ) that each group answers for: each model's, shared as its requests used energy.

    Raises: Unprocessable for a question in buckets: shares are of the whole period.
    """
    if question.bucket is not None:
        raise Unprocessable(
            "bucket_with_idle", "Shares of waiting are of a whole period.", field="bucket", expected="no bucket"
        )
    columns = carbon_entry.c
    names = tuple(dict.fromkeys((*question.group_by, "model")))
    everyone = replace(question, group_by=names, filters={})
    idle = sa.select(columns.model, sa.func.sum(columns.gpu_energy_uj)).where(
        columns.part == "idle", *_conditions(everyone)
    )
    used: dict[str | None, dict[str, int]] = {}
    groups: dict[str, tuple[str | None, ...]] = {}
    for row in read_carbon(connection, everyone):
        group = tuple(row.group[name] for name in question.group_by)
        groups[repr(group)] = group
        of_model = used.setdefault(row.group["model"], {})
        of_model[repr(group)] = of_model.get(repr(group), 0) + (row.sums["gpu_energy_uj"] or 0)
    shares: dict[tuple[str | None, ...], int] = {}
    for model, idle_uj in connection.execute(idle.group_by(columns.model)):
        direct = used.get(model, {})
        accounts = idle_views(direct, int(idle_uj or 0), 0)["pro_rata"].accounts
        for name, borne_uj in accounts.items():
            shares[groups[name]] = shares.get(groups[name], 0) + borne_uj - direct[name]
    return shares


def per_unit(
    connection: sa.Connection, question: UsageQuestion, rows: Iterable[CarbonRow], *, ledger_as_of: int | None = None
) -> list[dict[str, int | None]]:
    """Figures for a unit of usage (UNITS), a row each: grams of use by the grid and of making, in ng.

    None where the group has no such quantity, or emissions that aren't known. Requests that failed have no quantity to
    be divided by, so the energy of as many may be unknown. ledger_as_of: batch of the ledger that usage is read as of.
    """
    usage = {
        (row.bucket_start, tuple(row.group.values())): row.quantities
        for row in read_usage(connection, replace(question, as_of=ledger_as_of))
    }
    found = []
    for row in rows:
        quantities = usage.get((row.bucket_start, tuple(row.group.values())), {})
        total_ng = row.total_ng[0] if row.requests_unknown <= (quantities.get("requests_error") or 0) else None
        found.append({name: _for_unit(total_ng, quantities, *of) for name, of in UNITS.items()})
    return found


def _for_unit(
    total_ng: int | None, quantities: Mapping[str, int | None], names: Iterable[str], base_units: int
) -> int | None:
    amount = sum(quantities.get(name) or 0 for name in names)
    return None if total_ng is None or amount <= 0 else rounded(total_ng * base_units, amount)


@dataclass(frozen=True, slots=True)
class FactorSource:
    """Emission factors of one origin that figures rest on: how many, and from when to when (exclusive)."""

    zone: str
    kind: Literal["location", "market"]
    source: str
    version: str
    is_last_resort: bool
    slots: int
    starts_at: datetime
    ends_at: datetime
    lowest_ugco2e_per_kwh: int
    highest_ugco2e_per_kwh: int


def factors_used(connection: sa.Connection, question: UsageQuestion) -> list[int]:
    """Numbers of the emission factors that a question's figures rest on."""
    columns = carbon_entry.c
    numbers = sa.select(sa.func.unnest(columns.factors).label("number")).where(
        columns.part == "use", *_conditions(question)
    )
    return sorted(connection.scalars(numbers.distinct()))


def describe_factors(connection: sa.Connection, numbers: Sequence[int]) -> list[FactorSource]:
    """Origins of emission factors; factors are the platform's, so an agent's connection sees none."""
    columns = emission_factor.c
    origin = (columns.zone, columns.kind, columns.source, columns.version, columns.is_last_resort)
    query = (
        sa.select(
            *origin,
            sa.func.count(),
            sa.func.min(columns.starts_at),
            sa.func.max(columns.ends_at),
            sa.func.min(columns.ugco2e_per_kwh),
            sa.func.max(columns.ugco2e_per_kwh),
        )
        .where(columns.number == sa.any_(sa.literal(list(numbers), sa.ARRAY(sa.BigInteger))))
        .group_by(*origin)
        .order_by(*origin)
    )
    return [FactorSource(*row) for row in connection.execute(query)]


def methods_used(connection: sa.Connection, question: UsageQuestion) -> list[str]:
    """Versions of the method that a question's figures were worked out with."""
    used = sa.select(carbon_entry.c.batch_seq).where(*_conditions(question))
    query = sa.select(carbon_batch.c.method).where(carbon_batch.c.seq.in_(used))
    return sorted(connection.scalars(query.distinct()))


def carbon_bounds(connection: sa.Connection, question: UsageQuestion) -> tuple[datetime, datetime] | None:
    """First and last hour (UTC) with use that passes a question's filters, whenever; None while there is none."""
    ever = replace(question, start=datetime.min.replace(tzinfo=UTC), end=datetime.max.replace(tzinfo=UTC))
    hour = carbon_entry.c.hour
    query = sa.select(sa.func.min(hour), sa.func.max(hour)).where(carbon_entry.c.part == "use", *_conditions(ever))
    first, last = connection.execute(query).one()
    return None if first is None else (first, last)


def posted_until(connection: sa.Connection) -> datetime | None:
    """End of the last hour that is posted; None while there is none."""
    last = connection.scalar(sa.select(sa.func.max(carbon_hour.c.hour)).where(carbon_hour.c.batch_seq.is_not(None)))
    return None if last is None else last + timedelta(hours=1)


def last_carbon_batch(connection: sa.Connection) -> int:
    """Number of the newest batch of carbon; 0 while there is none."""
    return connection.scalar(sa.select(sa.func.max(carbon_batch.c.seq))) or 0


def check_idle(view: IdleView, reader: Principal) -> None:
    """Raises: Forbidden where a reader asks for what the platform's other users take part in."""
    if view != "platform" and reader.role != "operator":
        raise Forbidden("not_yours", "Views of waiting are the platform's.", field="idle", expected="platform")


def _conditions(question: UsageQuestion, only: tuple[str, ...] | None = None) -> list[sa.ColumnElement[bool]]:
    columns = carbon_entry.c
    conditions = [columns.hour >= question.start, columns.hour < question.end]
    for name, values in question.filters.items():
        if only is None or name in only:
            conditions.append(columns[name].in_(values))
    if question.as_of is not None:
        conditions.append(columns.batch_seq <= question.as_of)
    return conditions


def _row(found: sa.RowMapping, question: UsageQuestion) -> CarbonRow:
    start: datetime | None = found["bucket_start"] if question.bucket else None
    return CarbonRow(
        bucket_start=start.astimezone(UTC) if start else None,
        group={name: found[name] for name in question.group_by},
        sums={name: None if found[name] is None else int(found[name]) for name in CARBON_SUMS},
        requests_unknown=int(found["unknown"]),
        tiers={tier: int(found[f"tier_{tier}"]) for tier in TIERS if found[f"tier_{tier}"]},
    )


def _sum(*values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def carbon_record(row: CarbonRow, question: UsageQuestion) -> dict[str, Any]:
    """A row as flat values for JSON, CSV and tables; the bucket's start is in the question's zone."""
    start = {} if row.bucket_start is None else {"bucket_start": row.bucket_start.astimezone(question.zone).isoformat()}
    tiers = {f"energy_tier_{tier.lower()}_uj": row.tiers.get(tier, 0) for tier in TIERS if tier != "U"}
    return {**start, **row.group, **row.figures, **tiers}


def carbon_fields(question: UsageQuestion) -> list[str]:
    """Columns of a record, in order."""
    nothing = CarbonRow(None, dict.fromkeys(question.group_by), dict.fromkeys(CARBON_SUMS), 0, {})
    return [*(["bucket_start"] if question.bucket else []), *carbon_record(nothing, question)]

"""Emission factors that are recorded: one by one, and the sets they came in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import msgspec
import sqlalchemy as sa

from metering.carbon.importing_files import UGCO2E_PER_G
from metering.rules.carbon.apportioning import rounded
from metering.rules.carbon.factors import FactorKind
from metering.tables import emission_factor

_columns = emission_factor.c


class ListedFactor(msgspec.Struct):
    """A factor from `starts_at` to `ends_at`, exclusive; in g as an exact decimal, and in µg.

    is_last_resort: it counts only where no other does. Of several that are valid the one with the highest number does.
    """

    number: int
    zone: str
    kind: FactorKind
    starts_at: datetime
    ends_at: datetime
    gco2e_per_kwh: str
    ugco2e_per_kwh: int
    source: str
    version: str
    is_last_resort: bool
    imported_at: datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """Which factors are asked for; None: any. start, end: those that are valid at some time in between."""

    zone: str | None = None
    kind: FactorKind | None = None
    start: datetime | None = None
    end: datetime | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """The same, for a query."""
        found = []
        if self.zone is not None:
            found.append(_columns.zone == self.zone)
        if self.kind is not None:
            found.append(_columns.kind == self.kind)
        if self.start is not None:
            found.append(_columns.ends_at > self.start)
        if self.end is not None:
            found.append(_columns.starts_at < self.end)
        return found


@dataclass(frozen=True, slots=True)
class FactorSet:
    """What was imported of one zone, kind, source and version. Values are in µg CO2e/kWh."""

    zone: str
    kind: FactorKind
    source: str
    version: str
    is_last_resort: bool
    slots: int
    starts_at: datetime
    ends_at: datetime
    lowest: int
    mean: int
    highest: int


def grams(ugco2e_per_kwh: int) -> str:
    """A value in g, exact and without zeros at its end: 21250000 is "21.25"."""
    text = f"{Decimal(ugco2e_per_kwh) / UGCO2E_PER_G:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def list_factors(connection: sa.Connection, asked: Asked, *, after: int, limit: int) -> list[ListedFactor]:
    """Factors in the order of their numbers, from the one after `after`."""
    names = [name for name in ListedFactor.__struct_fields__ if name != "gco2e_per_kwh"]
    query = sa.select(*(_columns[name] for name in names)).where(_columns.number > after, *asked.conditions())
    rows = connection.execute(query.order_by(_columns.number).limit(limit)).mappings()
    return [ListedFactor(gco2e_per_kwh=grams(row["ugco2e_per_kwh"]), **row) for row in rows]


def list_sets(connection: sa.Connection, asked: Asked) -> Sequence[FactorSet]:
    """Sets of factors by zone, the one imported last first. The mean is by slots, not by energy."""
    keys = [_columns[name] for name in ("zone", "kind", "source", "version", "is_last_resort")]
    value = _columns.ugco2e_per_kwh
    query = (
        sa.select(
            *keys,
            sa.func.count().label("slots"),
            sa.func.min(_columns.starts_at).label("starts_at"),
            sa.func.max(_columns.ends_at).label("ends_at"),
            sa.func.min(value).label("lowest"),
            sa.func.sum(value).label("mean"),
            sa.func.max(value).label("highest"),
        )
        .where(*asked.conditions())
        .group_by(*keys)
        .order_by(_columns.zone, sa.func.max(_columns.number).desc())
    )
    rows = connection.execute(query).mappings()
    return [FactorSet(**{**row, "mean": rounded(int(row["mean"]), row["slots"])}) for row in rows]

"""Emission factors on their way in: of a file all are recorded or none, and what is recorded already stays as it is."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from metering.errors import Conflict
from metering.rules.carbon.factors import FactorKind
from metering.tables import emission_factor

FACTOR_LOCK = 0x464143544F52  # "FACTOR": held while factors are written, so that their numbers commit in order

BATCH = 5_000
"""Factors written by one statement."""


class NewFactor(NamedTuple):
    """A factor as a source gives it. row: its line in the file it came from, for messages."""

    zone: str
    kind: FactorKind
    starts_at: datetime
    ends_at: datetime
    ugco2e_per_kwh: int
    source: str
    version: str
    is_last_resort: bool = False
    row: int = 0

    @property
    def edition(self) -> tuple[str, FactorKind, str, str]:
        """What a slot has one value in: zone, kind, source and version."""
        return self.zone, self.kind, self.source, self.version


class Recorded(NamedTuple):
    """How many factors were new, and how many were recorded before."""

    new: int
    known: int


def record_factors(
    connection: sa.Connection,
    factors: Sequence[NewFactor],
    *,
    author: str,
    advance: Callable[[int], None] = lambda _count: None,
    dry_run: bool = False,
) -> Recorded:
    """Record factors that aren't yet; with dry_run, only say what would be. Safe to repeat.

    Raises: Conflict where a slot is recorded with another value in the same version: factors are never changed.
    """
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(FACTOR_LOCK)))
    fresh = _unrecorded(connection, factors)
    if not dry_run:
        for first in range(0, len(fresh), BATCH):
            batch = fresh[first : first + BATCH]
            connection.execute(emission_factor.insert(), [_row_of(factor, author) for factor in batch])
            advance(len(batch))
    return Recorded(len(fresh), len(factors) - len(fresh))


def _unrecorded(connection: sa.Connection, factors: Iterable[NewFactor]) -> list[NewFactor]:
    """Factors whose slot isn't recorded. Raises: Conflict where it is, with another value."""
    by_edition: dict[tuple[str, FactorKind, str, str], list[NewFactor]] = defaultdict(list)
    for factor in factors:
        by_edition[factor.edition].append(factor)
    fresh: list[NewFactor] = []
    other: list[NewFactor] = []
    for several in by_edition.values():
        recorded = _recorded(connection, several)
        for factor in several:
            value = recorded.get((factor.starts_at, factor.ends_at))
            if value is None:
                fresh.append(factor)
            elif value != factor.ugco2e_per_kwh:
                other.append(factor)
    if other:
        raise Conflict(
            "factor_recorded",
            f"Slots that are recorded with another value: {len(other):,}, the first of them in row {other[0].row}.",
            field="version",
            expected="a new version: what is recorded is never changed",
        )
    return fresh


def _recorded(connection: sa.Connection, factors: Sequence[NewFactor]) -> Mapping[tuple[datetime, datetime], int]:
    """Values by slot of an edition, over the period that its factors span."""
    zone, kind, source, version = factors[0].edition
    columns = emission_factor.c
    query = sa.select(columns.starts_at, columns.ends_at, columns.ugco2e_per_kwh).where(
        columns.zone == zone,
        columns.kind == kind,
        columns.source == source,
        columns.version == version,
        columns.starts_at >= min(factor.starts_at for factor in factors),
        columns.starts_at <= max(factor.starts_at for factor in factors),
    )
    return {(starts_at, ends_at): value for starts_at, ends_at, value in connection.execute(query)}


def _row_of(factor: NewFactor, author: str) -> dict[str, object]:
    values = factor._asdict()
    del values["row"]
    return values | {"author": author}

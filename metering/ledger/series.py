"""Series: the distinct combinations of who, what and outcome, numbered once and for ever."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql import insert

from metering.database import transaction
from metering.rules.chain import canonical_series
from metering.tables import SERIES_FIELDS, ledger_series

REMEMBERED_MAX = 500_000
"""Series a process remembers; beyond it, it starts again from nothing (about 300 bytes each)."""


class Series(NamedTuple):
    """Attributes of a series; the fields of `tables.SERIES_FIELDS`, in that order. None is unknown."""

    source: str
    tenant: str
    project: str | None
    user: str | None
    api_key: str | None
    application: str | None
    operation: str
    endpoint: str | None
    model_requested: str
    model_served: str | None
    category: str | None
    deployment: str | None
    streamed: bool
    status: str
    http_status: int | None
    finish_reason: str | None
    error_code: str | None
    count_source: str | None

    @property
    def model(self) -> str:
        """The served model, or the requested one where the served is unknown."""
        return self.model_served or self.model_requested


assert Series._fields == SERIES_FIELDS


class SeriesRegistry:
    """Numbers of series, remembered by the process; the table is the truth."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._numbers: dict[tuple[object, ...], int] = {}
        self._series: dict[int, Series] = {}

    def remembered(self, wanted: Iterable[tuple[object, ...]]) -> list[int | None]:
        """Number of each series, by its attributes; None for one that this process hasn't met."""
        return list(map(self._numbers.get, wanted))

    def numbers(self, wanted: Iterable[Series]) -> dict[Series, int]:
        """Number of every series, giving new ones a number. Raises: Unavailable."""
        found = {series: number for series in wanted if (number := self._numbers.get(series)) is not None}
        missing = [series for series in dict.fromkeys(wanted) if series not in found]
        if missing:
            found.update(self._register(missing))
        return found

    def get(self, connection: sa.Connection, numbers: Sequence[int]) -> dict[int, Series]:
        """Series by number, in that order, read in the caller's transaction.

        A connection of its own could not be had while others hold them all and wait for the caller's lock.
        """
        found = {number: series for number in numbers if (series := self._series.get(number)) is not None}
        if missing := [number for number in numbers if number not in found]:
            rows = connection.execute(sa.select(ledger_series).where(_is_any(ledger_series.c.number, missing)))
            for row in rows:
                found[row.number] = Series(*(row._mapping[name] for name in SERIES_FIELDS))
                self._remember(row.number, found[row.number])
        return {number: found[number] for number in numbers}

    def _register(self, missing: list[Series]) -> dict[Series, int]:
        """Look first: an insert that meets an existing row uses up a number all the same, and numbers are finite."""
        by_digest = {hashlib.sha256(canonical_series(series)).digest(): series for series in missing}
        with transaction(self._engine) as connection:
            numbered = _numbered(connection, list(by_digest))
            # Sorted, so that two processes that register the same series never wait for each other in a circle.
            if new := sorted(by_digest.keys() - numbered.keys()):
                rows = [{"digest": digest, **by_digest[digest]._asdict()} for digest in new]
                connection.execute(insert(ledger_series).on_conflict_do_nothing(index_elements=["digest"]), rows)
                numbered |= _numbered(connection, new)
        found = {by_digest[digest]: number for digest, number in numbered.items()}
        for series, number in found.items():
            self._remember(number, series)
        return found

    def _remember(self, number: int, series: Series) -> None:
        if len(self._series) >= REMEMBERED_MAX:
            self._numbers, self._series = {}, {}
        self._numbers[series] = number
        self._series[number] = series


def _numbered(connection: sa.Connection, digests: list[bytes]) -> dict[bytes, int]:
    rows = connection.execute(
        sa.select(ledger_series.c.digest, ledger_series.c.number).where(_is_any(ledger_series.c.digest, digests))
    )
    return {bytes(digest): number for digest, number in rows}


def _is_any(column: sa.Column[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    """IN as one array: a query has at most 65,535 parameters."""
    return column == sa.any_(sa.literal(values, pg.ARRAY(column.type)))

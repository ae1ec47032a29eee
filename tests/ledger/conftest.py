"""A ledger of the test's own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from metering.database import engine_for
from metering.ledger.append import Ledger, Outcome
from metering.ledger.corrections import Corrections
from metering.ledger.series import SeriesRegistry
from metering.ledger.verify import Verification, verify
from tests.ledger.frames import Row, a_frame, a_series


@dataclass
class Book:
    """A ledger with its registry, whose series number 1 is `a_series()`."""

    url: str
    engine: sa.Engine
    registry: SeriesRegistry
    ledger: Ledger
    corrections: Corrections

    def append(self, *rows: Row) -> list[Outcome]:
        return self.ledger.append(a_frame(rows))

    def verify(self) -> Verification:
        return verify(self.engine)

    def sql(self, text: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(text), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def tamper(self, *texts: str) -> None:
        """What nobody may: change tables with their triggers off."""
        with self.engine.begin() as connection:
            connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
            for text in texts:
                assert connection.execute(sa.text(text)).rowcount != 0, text


def open_book(url: str) -> Book:
    engine = engine_for(url)
    registry = SeriesRegistry(engine)
    ledger = Ledger(engine, registry)
    assert registry.numbers([a_series()]) == {a_series(): 1}
    return Book(url, engine, registry, ledger, Corrections(engine, ledger))


@pytest.fixture
def book(database_url: str) -> Iterator[Book]:
    opened = open_book(database_url)
    yield opened
    opened.engine.dispose()

"""Databases of both generations of OpenGateLLM, and `jauge` on the test's own stores."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from metering import embedded
from metering.cli import main
from metering.database import engine_for, transaction
from metering.services import Services
from metering.settings import Settings, get_settings
from metering.tables import ledger_entry, ledger_series
from tests.conftest import copied_database
from tests.imports import gateways

_numbers = itertools.count(1)


@dataclass(frozen=True)
class GatewayDatabase:
    """A gateway's database, and how to change it."""

    url: str
    engine: sa.Engine

    def run(self, statement: str) -> None:
        with transaction(self.engine) as connection:
            connection.execute(sa.text(statement))


@pytest.fixture
def gateway_2025(servers: embedded.Servers) -> Iterator[GatewayDatabase]:
    """A database of v0.1.6."""
    with copied_database(servers, "template1", f"gateway_{next(_numbers)}") as url:
        with gateways.written(url, gateways.SCHEMA_2025, gateways.rows_2025()) as engine:
            yield GatewayDatabase(url, engine)


@pytest.fixture
def gateway_2026(servers: embedded.Servers) -> Iterator[GatewayDatabase]:
    """A database of September 2026."""
    with copied_database(servers, "template1", f"gateway_{next(_numbers)}") as url:
        with gateways.written(url, gateways.SCHEMA_2026, gateways.rows_2026()) as engine:
            yield GatewayDatabase(url, engine)


@pytest.fixture
def empty_url(servers: embedded.Servers) -> Iterator[str]:
    """A database without tables."""
    with copied_database(servers, "template1", f"gateway_{next(_numbers)}") as url:
        yield url


Import = Callable[..., Result]


@pytest.fixture
def take(services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Import]:
    """`jauge import opengatellm URL …` on the test's own stores."""
    for name in ("database_url", "redis_url", "secret_key"):
        monkeypatch.setenv(f"JAUGE_{name.upper()}", getattr(settings, name).get_secret_value())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metering.logs.configure_logs", lambda *_: None)
    get_settings.cache_clear()

    def run(url: str, *words: str, **more: Any) -> Result:
        return CliRunner().invoke(main, ["import", "opengatellm", "--database-url", url, *words], **more)

    yield run
    get_settings.cache_clear()


def entries(services: Services) -> dict[str, dict[str, Any]]:
    """Entries of the ledger by the id of their event."""
    query = sa.select(ledger_series, ledger_entry).join(ledger_series, ledger_series.c.number == ledger_entry.c.series)
    with transaction(services.engine) as connection:
        return {row["event_id"]: dict(row) for row in connection.execute(query).mappings()}


def everything(url: str) -> dict[str, list[Any]]:
    """Every row of a database, by table, in any order."""
    engine = engine_for(url)
    try:
        with transaction(engine) as connection:
            names = sa.inspect(connection).get_table_names()
            return {
                name: sorted(map(str, connection.execute(sa.text(f'SELECT t.*, t.ctid, t.xmin FROM "{name}" t'))))
                for name in names
            }
    finally:
        engine.dispose()

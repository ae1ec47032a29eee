"""A served platform, and a gateway that uses the client."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import uvicorn

from metering.catalog.tokens import add_token
from metering.client import AsyncJauge, Jauge
from metering.database import transaction
from metering.quotas.settling import Settler
from metering.services import Services
from metering.tables import api_key, ledger_entry, ledger_series
from tests.applications import application
from tests.people import add_agent
from tests.quotas.conftest import declare

CATALOGUE = """
categories:
- {id: chat, name: Chat}
models:
- {id: small, name: Small, category: chat, publisher: P, licence: MIT, operations: [chat]}
plans:
- id: wide
  name: Wide
  limits:
  - {scope: user, selector: "*", meter: total_tokens, window: day, value: 100000}
  - {scope: tenant, selector: "*", meter: output_tokens, window: month, value: 100000}
  - {scope: tenant, selector: "*", meter: requests, window: minute, value: 500}
  - {scope: tenant, selector: "*", meter: concurrent_requests, window: now, value: 60}
- id: tight
  name: Tight
  limits:
  - {scope: tenant, selector: "*", meter: concurrent_requests, window: now, value: 1}
tenants:
- {id: dinum, name: DINUM, plan: wide}
- {id: sante, name: Sante, plan: tight}
"""
DIGEST = hashlib.sha256(b"sk-secret").hexdigest()


class Server:
    """The application on a port of its own, that can go away and come back."""

    def __init__(self, services: Services) -> None:
        self._services = services
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._running: tuple[uvicorn.Server, threading.Thread] | None = None

    def start(self) -> None:
        config = uvicorn.Config(application(self._services), port=self._port, log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until(lambda: server.started)
        self._running = server, thread

    def stop(self) -> None:
        if self._running is not None:
            server, thread = self._running
            server.should_exit = True
            thread.join(timeout=20)
            self._running = None


@dataclass(frozen=True)
class Platform:
    """Where Jauge is, what is in its books, and a folder for the gateway's events."""

    url: str
    token: str
    spool: Path
    services: Services

    def options(self, **options: Any) -> dict[str, Any]:
        """A patient client's: on a busy machine an answer may take longer than a gateway would wait."""
        patient = {"url": self.url, "token": self.token, "source": "gw", "spool": self.spool, "timeout_s": 20}
        return patient | options

    def jauge(self, **options: Any) -> Jauge:
        return Jauge(**self.options(**options))

    def ajauge(self, **options: Any) -> AsyncJauge:
        return AsyncJauge(**self.options(**options))

    def entries(self) -> list[dict[str, Any]]:
        """Entries of the ledger, oldest first."""
        query = (
            sa.select(ledger_series, ledger_entry)
            .join(ledger_series, ledger_series.c.number == ledger_entry.c.series)
            .order_by(ledger_entry.c.ended_at)
        )
        with transaction(self.services.engine) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def standing(self, tenant: str = "dinum", user: str = "alice") -> dict[str, tuple[int, int]]:
        """Meter to what is used and held, once the ledger has settled."""
        settler = Settler(self.services.counters())
        while settler.round(datetime.now(UTC)):
            pass
        import httpx

        asked = {"tenant": tenant, "user": user, "model": "small"}
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.post(f"{self.url}/v1/quota/check", json=asked, headers=headers)
        return {limit["meter"]: (limit["used"], limit["held"]) for limit in answer.json()["limits"]}

    def spooled(self) -> list[Path]:
        return sorted(path for path in self.spool.iterdir() if path.suffix == ".ndjson")


@pytest.fixture
def server(services: Services) -> Iterator[Server]:
    made = Server(services)
    yield made
    made.stop()


@pytest.fixture
def platform(services: Services, server: Server, tmp_path: Path) -> Platform:
    declare(services, CATALOGUE)
    add_agent(services, "dinum", "member", "alice")
    with transaction(services.engine) as connection:
        connection.execute(
            api_key.insert().values(
                id="k-alice", tenant="dinum", account="alice", name="k", prefix="sk-", digest=bytes.fromhex(DIGEST)
            )
        )
    services.catalog.refresh()
    server.start()
    return Platform(server.url, add_token(services.engine, "gw", "gateway"), tmp_path / "spool", services)


def until(is_so: Callable[[], Any], *, seconds: float = 30) -> None:
    """Wait for something that another thread or process brings about."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it didn't come about"
        time.sleep(0.01)

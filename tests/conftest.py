"""Real stores for the tests: one PostgreSQL and one Valkey, started and stopped by the run itself."""

import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import sqlalchemy as sa
import uvicorn
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from litestar import Litestar

from metering import embedded, migrate
from metering.catalog.tenants import add_tenant
from metering.catalog.tokens import add_token
from metering.database import engine_for
from metering.services import Services, open_services
from metering.settings import Settings

TENANTS = ("dinum", "interieur", "education", "finances", "sante")

hypothesis_settings.register_profile(
    "jauge", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)
hypothesis_settings.load_profile("jauge")

_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def no_settings_from_outside() -> None:
    """Settings of the machine must not reach the tests."""
    for name in [name for name in os.environ if name.startswith("JAUGE_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Servers]:
    """The session's PostgreSQL and Valkey."""
    with embedded.running(tmp_path_factory.mktemp("stores")) as running:
        yield running


@pytest.fixture(scope="session")
def template(servers: embedded.Servers) -> str:
    """Name of a migrated, empty database to copy."""
    engine = engine_for(servers.database_url)
    migrate.upgrade(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Databases come and go with every test, and none outlives the run: nothing waits for the disk.
        connection.execute(sa.text("ALTER SYSTEM SET fsync = off"))
        connection.execute(sa.text("SELECT pg_reload_conf()"))
    engine.dispose()
    return "jauge"


@pytest.fixture(scope="session")
def databases(servers: embedded.Servers, template: str) -> Iterator["Databases"]:
    """Databases for tests, made before they are asked for."""
    with Databases(servers, template) as databases:
        yield databases


@pytest.fixture
def database_url(databases: "Databases") -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    name = databases.take()
    yield databases.url(name)
    databases.give_back(name)


class Databases:
    """Copies of a template. One is always made ahead and used ones are dropped behind, both beside the running test:
    either takes a tenth of a second, which a thousand tests would wait for."""

    def __init__(self, servers: embedded.Servers, template: str) -> None:
        self._servers, self._template = servers, template
        self._admin = engine_for(servers.database_url.replace("/jauge?", "/postgres?")).execution_options(
            isolation_level="AUTOCOMMIT"
        )
        self._making, self._dropping = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._next = self._making.submit(self._make)

    def __enter__(self) -> "Databases":
        return self

    def __exit__(self, *_: object) -> None:
        self._making.shutdown()
        self._dropping.shutdown(cancel_futures=True)  # what is left goes with the server
        self._admin.dispose()

    def take(self) -> str:
        """The name of a new database, which nobody else has."""
        made, self._next = self._next, self._making.submit(self._make)
        return made.result()

    def give_back(self, name: str) -> None:
        """Drop a database, some time soon."""
        self._dropping.submit(self._run, f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, name: str) -> str:
        """The address of a database."""
        return self._servers.database_url.replace("/jauge?", f"/{name}?")

    def _make(self) -> str:
        name = f"test_{next(_numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return name

    def _run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(sa.text(statement))


@contextmanager
def copied_database(servers: embedded.Servers, template: str, name: str) -> Iterator[str]:
    """Address of a copy of a database, which is there as long as the block runs."""
    admin = engine_for(servers.database_url.replace("/jauge?", "/postgres?")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield servers.database_url.replace("/jauge?", f"/{name}?")
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def redis_url(servers: embedded.Servers) -> str:
    """An empty Valkey."""
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushall()
    return servers.redis_url


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings that lead to the test's own stores."""
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        data=tmp_path / "unused",
        stream_claim_ms=500,
        secret_key="a key for tests, long enough to be one",
    )


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    """Services on empty stores with the five administrations registered."""
    with open_services(settings) as opened:
        for tenant_id in TENANTS:
            add_tenant(opened.engine, tenant_id)
        yield opened


@dataclass(frozen=True)
class Api:
    """A served application and tokens for it."""

    url: str
    gateway_token: str
    operator_token: str

    def client(self, token: str | None = None) -> httpx.Client:
        """A client with a token; the gateway's unless another is given."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {token or self.gateway_token}"}, timeout=60
        )


@pytest.fixture
def api(services: Services) -> Iterator[Api]:
    """The application, served on a free port of the loopback."""
    with served_application(services) as url:
        tokens = (add_token(services.engine, "gateway", "gateway"), add_token(services.engine, "operator", "operator"))
        yield Api(url, *tokens)


@contextmanager
def served_application(services: Services) -> Iterator[str]:
    """Address of the shared application on a free port of the loopback, as long as the block runs."""
    from tests.applications import application

    with served(application(services)) as url:
        yield url


@contextmanager
def served(app: Litestar) -> Iterator[str]:
    """Address of an application on a free port of the loopback, as long as the block runs."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    _wait_until_served(url)
    yield url
    server.should_exit = True
    thread.join(timeout=20)


def _wait_until_served(url: str) -> None:
    transport = httpx.HTTPTransport(retries=10)
    with httpx.Client(transport=transport) as client:
        assert client.get(f"{url}/healthz").status_code == 200


MakeEvent = Callable[..., dict[str, Any]]


@pytest.fixture
def make_event() -> MakeEvent:
    """A valid event, new at every call; fields of the envelope and of `data` can be set, None takes one away."""

    def make(**changes: Any) -> dict[str, Any]:
        number = next(_numbers)
        ended = datetime(2026, 10, 5, 8, tzinfo=UTC) + timedelta(seconds=number)
        event: dict[str, Any] = {
            "specversion": "1.0",
            "type": "jauge.usage.v1",
            "source": "test",
            "id": f"event-{number}",
            "time": ended.isoformat(),
            "data": {
                "tenant": "dinum",
                "project": "assistant",
                "user": "u-1",
                "api_key": "k-1",
                "operation": "chat",
                "model_requested": "albert-large",
                "model_served": "albert-large",
                "started_at": (ended - timedelta(seconds=2)).isoformat(),
                "status": "ok",
                "input_tokens": 100,
                "output_tokens": 20,
            },
        }
        for name, value in changes.items():
            place = (
                event if name in {"specversion", "type", "source", "id", "time", "datacontenttype"} else event["data"]
            )
            if value is None:
                place.pop(name, None)
            else:
                place[name] = value
        return event

    return make


def ndjson(events: list[dict[str, Any]]) -> bytes:
    """Events as NDJSON."""
    return b"\n".join(json.dumps(event).encode() for event in events)

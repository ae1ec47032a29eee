"""A metered gateway between clients and a provider, served once a module; each test has its own administration."""

import asyncio
import hashlib
import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest
import redis

from metering import embedded
from metering.catalog.tokens import add_token
from metering.client import AsyncJauge
from metering.database import transaction
from metering.gateways.asgi import JaugeMiddleware
from metering.services import Services, open_services
from metering.settings import Settings
from metering.tables import api_key
from tests.client.conftest import Platform, Server, until
from tests.conftest import copied_database
from tests.gateways.gateway import make_gateway
from tests.gateways.upstream import Upstream, serving
from tests.people import add_agent
from tests.quotas.conftest import declare

CATALOGUE = """
categories:
- {id: chat, name: Chat}
models:
- id: small
  name: Small
  category: chat
  publisher: P
  licence: MIT
  operations: [chat, completion, embedding, file_ingest, rerank, search, transcription]
plans:
- id: wide
  name: Wide
  limits:
  - {scope: user, selector: "*", meter: total_tokens, window: day, value: 100000}
  - {scope: tenant, selector: "*", meter: output_tokens, window: month, value: 100000}
  - {scope: tenant, selector: "*", meter: requests, window: minute, value: 500}
  - {scope: tenant, selector: "*", meter: concurrent_requests, window: now, value: 60}
"""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Ground:
    """What a module's tests share."""

    platform: Platform
    server: Server
    upstream: Upstream
    upstream_url: str
    url: str


@dataclass
class World:
    """An administration with one agent (`alice`) and one key, its clients, and what was recorded of it."""

    ground: Ground
    tenant: str
    key: str
    url: str = field(default="")

    def __post_init__(self) -> None:
        self.url = self.url or self.ground.url

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30)

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)

    def post(self, path: str, body: Any, behaviour: str = "") -> httpx.Response:
        with self.client() as client:
            return client.post(f"/v1/{path}", json=body, headers={"x-behaviour": behaviour})

    def stream(self, body: Any, behaviour: str = "") -> list[str]:
        """Data of the events of a streamed chat, and `(cut)` if the connection broke."""
        found = []
        try:
            with (
                self.client() as client,
                client.stream(
                    "POST", "/v1/chat/completions", json=body | {"stream": True}, headers={"x-behaviour": behaviour}
                ) as answer,
            ):
                found.extend(line.removeprefix("data: ") for line in answer.iter_lines() if line)
        except httpx.RemoteProtocolError:
            found.append("(cut)")
        return found

    def recorded(self, count: int) -> list[dict[str, Any]]:
        """The ledger's entries, once there are so many."""
        until(lambda: len(self._entries()) >= count)
        entries = self._entries()
        assert len(entries) == count
        return entries

    def used(self) -> Any:
        """As the provider itself counted it."""
        return self.ground.upstream.of("small", self.key)

    def asked(self) -> list[Any]:
        """What reached the provider."""
        return [asked for asked in self.ground.upstream.asked if asked.key == self.key]

    def standing(self) -> dict[str, tuple[int, int]]:
        """Meter to what is used and held, once the ledger has settled."""
        return self.ground.platform.standing(self.tenant, f"alice-{self.tenant}")

    def _entries(self) -> list[dict[str, Any]]:
        return [entry for entry in self.ground.platform.entries() if entry["tenant"] == self.tenant]

    @contextmanager
    def metered(self, app: Any = None, *, on_outage: str = "refuse", **options: Any) -> Iterator["World"]:
        """The same behind a gateway with other options, or around another application."""
        with metering(self.ground.platform, app or make_gateway(self.ground.upstream_url), on_outage, options) as url:
            yield World(self.ground, self.tenant, self.key, url)


@contextmanager
def metering(platform: Platform, app: Any, on_outage: str, options: dict[str, Any]) -> Iterator[str]:
    """Address of an application that is metered."""
    jauge: AsyncJauge = platform.ajauge(on_outage=on_outage)
    with serving(JaugeMiddleware(app, client=jauge, **options)) as url:
        yield url
    asyncio.run(jauge.aclose())


@pytest.fixture(scope="module")
def ground(servers: embedded.Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Jauge, a provider and a metered gateway."""
    folder = tmp_path_factory.mktemp("gateways")
    with ExitStack() as stack:
        with redis.Redis.from_url(servers.redis_url) as client:
            client.flushall()
        url = stack.enter_context(copied_database(servers, template, f"test_gateways_{next(_numbers)}"))
        settings = Settings(database_url=url, redis_url=servers.redis_url, data=folder, secret_key="k" * 40)
        services = stack.enter_context(open_services(settings))
        declare(services, CATALOGUE)
        server = Server(services)
        server.start()
        stack.callback(server.stop)
        platform = Platform(server.url, add_token(services.engine, "gw", "gateway"), folder / "spool", services)
        upstream = Upstream()
        upstream_url = stack.enter_context(serving(upstream))
        gateway_url = stack.enter_context(metering(platform, make_gateway(upstream_url), "refuse", {}))
        yield Ground(platform, server, upstream, upstream_url, gateway_url)


@pytest.fixture
def world(ground: Ground) -> World:
    """An administration that no other test has."""
    return add_administration(ground)


def add_administration(ground: Ground) -> World:
    """A new administration with an agent and a key."""
    tenant = f"t-{next(_numbers)}"
    made = World(ground, tenant, f"sk-{tenant}")
    services: Services = ground.platform.services
    declare(services, f"tenants:\n- {{id: {tenant}, name: {tenant}, plan: wide}}\n")
    add_agent(services, tenant, "member", f"alice-{tenant}")
    row = {"id": f"k-{tenant}", "tenant": tenant, "account": f"alice-{tenant}", "name": "k", "prefix": "sk-"}
    with transaction(services.engine) as connection:
        connection.execute(api_key.insert().values(digest=hashlib.sha256(made.key.encode()).digest(), **row))
    services.catalog.refresh()
    return made


def told(entry: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(entry[name] for name in names)

"""The service for Envoy, served in this process on a free port."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import redis

from metering import embedded
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.envoy.certificates import Certificates
from metering.envoy.service import RateLimits
from metering.envoy.serving import serving
from metering.quotas.service import Ask
from metering.rules.limits import Request
from metering.services import Services, open_services
from metering.settings import Settings
from metering.tables import api_key
from tests.conftest import copied_database
from tests.envoy.calls import Caller, connected
from tests.people import add_agent
from tests.quotas.conftest import declare

SECRET = "sk-secret"
WHO = {"authorization": f"Bearer {SECRET}", "model": "small"}
CATALOGUE = """
categories: [{id: chat, name: Chat}]
models:
- {id: small, name: Small, category: chat, publisher: P, licence: MIT, operations: [chat, ocr]}
- {id: large, name: Large, category: chat, publisher: P, licence: MIT, operations: [chat]}
plans:
- id: free
  name: Free
  limits:
  - {scope: user, selector: "model:*", meter: requests, window: minute, value: 5}
  - {scope: user, selector: "model:*", meter: total_tokens, window: day, value: 1000}
  - {scope: tenant, selector: "*", meter: total_tokens, window: month, value: 5000}
  - {scope: tenant, selector: "*", meter: concurrent_requests, window: now, value: 3}
tenants: [{id: dinum, name: DINUM, plan: free}]
"""


def add_key(services: Services, secret: str, tenant: str, account: str | None, key_id: str) -> None:
    digest = sha256(secret.encode()).digest()
    with transaction(services.engine) as connection:
        connection.execute(
            api_key.insert().values(id=key_id, tenant=tenant, account=account, name="k", prefix="sk-", digest=digest)
        )


@contextmanager
def answering(services: Services, certificates: Certificates | None = None) -> Iterator[int]:
    """Port of the service, in an event loop of its own thread."""
    loop = asyncio.new_event_loop()
    started, stop, ports = threading.Event(), asyncio.Event(), list[int]()

    async def run() -> None:
        quotas = services.quotas()
        limits = RateLimits(quotas, services.catalog)
        async with serving("127.0.0.1:0", limits, services.doorkeeper, certificates) as port:
            ports.append(port)
            started.set()
            await stop.wait()
        await quotas.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()
        loop.close()


@contextmanager
def opened(servers: embedded.Servers, template: str, name: str) -> Iterator[Services]:
    """Services on empty stores, for a module's tests together."""
    with copied_database(servers, template, name) as database_url:
        with redis.Redis.from_url(servers.redis_url) as client:
            client.flushall()
        settings = Settings(database_url=database_url, redis_url=servers.redis_url, data=Path("unused"))
        with open_services(settings) as services:
            yield services


@contextmanager
def asking(services: Services) -> Iterator[Caller]:
    """A gateway's connection; alice of dinum has the key SECRET."""
    declare(services, CATALOGUE)
    add_agent(services, "dinum", "member", "alice")
    add_key(services, SECRET, "dinum", "alice", "k-alice")
    token = add_token(services.engine, "envoy", "gateway")
    with answering(services) as port, connected(port, token) as caller:
        yield caller


@pytest.fixture
def envoy(services: Services) -> Iterator[Caller]:
    with asking(services) as caller:
        yield caller


def standing(services: Services, **changes: Any) -> dict[str, tuple[int, int]]:
    """Used and held of alice's limits on the model small, by scope, meter and window."""
    request = Request(**{"tenant": "dinum", "user": "alice", "key": "k-alice", "model": "small"} | changes)

    async def look() -> dict[str, tuple[int, int]]:
        quotas = services.quotas()
        decision = await quotas.reserve(Ask("", request, 1), is_dry=True)
        await quotas.close()
        return {f"{one.limit.meter}/{one.limit.window}": (one.used, one.held) for one in decision.figures}

    return asyncio.run(look())

"""A platform with a model and limits, and counters on a real Valkey."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from metering.catalog.apply import apply, read_file
from metering.database import transaction
from metering.quotas.building import CounterBuilder
from metering.quotas.service import QuotaService
from metering.quotas.store import AsyncCounterStore, CounterStore
from metering.services import Services

CATALOGUE = """
categories:
- {id: chat, name: Chat}
models:
- {id: small, name: Small, category: chat, publisher: P, licence: MIT, operations: [chat]}
- {id: large, name: Large, category: chat, publisher: P, licence: MIT, operations: [chat]}
plans:
- id: free
  name: Free
  limits:
  - {scope: user, selector: "model:*", meter: requests, window: minute, value: 5}
  - {scope: user, selector: "model:*", meter: total_tokens, window: day, value: 1000}
  - {scope: tenant, selector: "*", meter: total_tokens, window: month, value: 5000}
  - {scope: tenant, selector: "*", meter: concurrent_requests, window: now, value: 3}
tenants:
- {id: dinum, name: DINUM, plan: free}
"""


class Gate:
    """The service, called from a test that isn't a coroutine."""

    def __init__(self, services: Services, url: str, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.builder = CounterBuilder(services.engine, services.catalog, CounterStore(services.redis()))
        self.store = AsyncCounterStore(url)
        self.service = QuotaService(services.catalog, self.store, self.builder, **options)

    def run(self, call: Any) -> Any:
        return self.loop.run_until_complete(call)

    def close(self) -> None:
        self.run(self.store.close())
        self.loop.close()


def declare(services: Services, file: str) -> None:
    """Apply a catalogue file, and know of it."""
    with transaction(services.engine) as connection:
        apply(connection, read_file(file.encode()))
    services.catalog.refresh()


@pytest.fixture
def gate(services: Services) -> Iterator[Gate]:
    declare(services, CATALOGUE)
    opened = Gate(services, services.stores.redis_url)
    yield opened
    opened.close()

"""Many clients at once on one hard limit: it holds, and who is refused burns nothing elsewhere."""

import random
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait

import sqlalchemy as sa

from metering.quotas.building import COUNTERS_LOCK
from metering.quotas.store import CounterStore
from metering.services import Services, open_services
from metering.settings import Settings
from metering.valkey import connect
from tests.quotas.clocked import Desk
from tests.quotas.conftest import declare

LIMIT = 1_000
CLIENTS, PROCESSES, REQUESTS = 64, 2, 12
CATALOGUE = f"""
categories:
- {{id: chat, name: Chat}}
models:
- {{id: small, name: Small, category: chat, publisher: P, licence: MIT, operations: [chat]}}
plans:
- id: free
  name: Free
  limits:
  - {{scope: tenant, selector: "*", meter: total_tokens, window: month, value: {LIMIT}}}
  - {{scope: tenant, selector: "*", meter: requests, window: month, value: 1000000}}
  - {{scope: user, selector: "*", meter: input_tokens, window: day, value: 1000000}}
tenants:
- {{id: dinum, name: DINUM, plan: free}}
"""


def run_client(services: Services, number: int) -> tuple[int, int, int, int]:
    """Ask, and commit, release or keep; returns requests, tokens used, tokens held and the highest sum ever seen."""
    draw = random.Random(number)
    requests = used = held = highest = 0
    with connect(services.stores.redis_url) as client:
        desk = Desk(services, CounterStore(client))
        for turn in range(REQUESTS):
            reservation, tokens = f"{number}-{turn}", draw.randint(1, 175)
            reply, figures = desk.reserve(reservation, tokens)
            total = next(one for one in figures if one.limit.meter == "total_tokens")
            admitted = tokens if reply.status == "ok" else 0
            highest = max(highest, total.used + total.held + admitted)
            if not admitted:
                continue
            fate = draw.random()
            if fate < 0.5:
                less = draw.randint(0, tokens)
                desk.commit(reservation, input_tokens=less, output_tokens=0)
                requests, used = requests + 1, used + less
            elif fate < 0.8:
                desk.release(reservation)
            else:
                requests, held = requests + 1, held + tokens
    return requests, used, held, highest


def run_process(database_url: str, redis_url: str, first: int) -> list[tuple[int, int, int, int]]:
    settings = Settings(
        database_url=database_url, redis_url=redis_url, secret_key="a key for tests, long enough for one"
    )
    with open_services(settings) as services, ThreadPoolExecutor(CLIENTS // PROCESSES) as pool:
        numbers = range(first, first + CLIENTS // PROCESSES)
        return list(pool.map(lambda number: run_client(services, number), numbers))


def test_parallel_clients_never_have_more_than_the_limit(services: Services) -> None:
    from multiprocessing import get_context

    declare(services, CATALOGUE)
    stores = services.stores
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        firsts = range(0, CLIENTS, CLIENTS // PROCESSES)
        runs = [pool.submit(run_process, stores.database_url, stores.redis_url, first) for first in firsts]
        results = [one for run in runs for one in run.result(60)]
    requests, used, held = (sum(column) for column in list(zip(*results, strict=True))[:3])
    with connect(stores.redis_url) as client:
        stands = Desk(services, CounterStore(client)).standing()
    assert LIMIT - 175 < max(highest for *_rest, highest in results) <= LIMIT
    assert used + held <= LIMIT
    assert stands["tenant total_tokens/month"] == (used, held)
    assert stands["user input_tokens/day"] == (used, held)
    assert sum(stands["tenant requests/month"]) == requests
    with services.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT epoch FROM quota_epoch")) == 1  # of 64 clients, one built


def test_a_loss_that_many_threads_notice_at_once_leaves_the_builder_its_connections(services: Services) -> None:
    declare(services, CATALOGUE)
    noticed = services.engine.pool.size() + 4  # type: ignore[attr-defined]

    with connect(services.stores.redis_url) as client, ThreadPoolExecutor(noticed) as pool:
        asked = []
        with services.engine.begin() as another_process:
            another_process.execute(sa.select(sa.func.pg_advisory_xact_lock(COUNTERS_LOCK)))
            for number in range(noticed):
                desk = Desk(services, CounterStore(client))
                asked.append(pool.submit(desk.reserve, f"r-{number}"))
            assert not wait(asked, timeout=1).done
        assert {one.result(8)[0].status for one in asked} == {"ok"}

"""Stores that die, come back older, or go away in the middle of a call: nothing recorded is lost or counted twice."""

import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from metering import embedded
from metering.errors import Unavailable
from metering.events.decoding import decode
from metering.quotas import building
from metering.quotas.building import CounterBuilder
from metering.quotas.calls import Reply, keys_of
from metering.quotas.store import AsyncCounterStore, CounterStore
from metering.services import Services, open_services
from metering.settings import Settings
from metering.valkey import connect
from tests.integration.doors import until
from tests.quotas.clocked import Desk
from tests.quotas.conftest import CATALOGUE, declare
from tests.threads import run_threads

_numbers = itertools.count(1)
WIDE = CATALOGUE.replace("value: 5}", "value: 100000}").replace("value: 1000}", "value: 10000000}").replace(
    "value: 5000}", "value: 10000000}"
).replace("value: 3}", "value: 100000}")  # fmt: skip
OTHER_LIMITS = WIDE.replace(
    "tenants:", '  - {scope: tenant, selector: "*", meter: requests, window: month, value: 100000}\ntenants:'
)
MONTH = "tenant total_tokens/month"


def record(services: Services, *, count: int = 1, tokens: int = 10, **changes: Any) -> None:
    """Events, in one batch."""
    at = datetime.now(UTC).isoformat()
    lines = []
    for _ in range(count):
        number = next(_numbers)
        data = {"tenant": "dinum", "operation": "chat", "model_requested": "small", "model_served": "small",
                "user": f"u{number}" if count > 1 else "alice", "started_at": at, "status": "ok",
                "input_tokens": tokens, "output_tokens": 0, **changes}  # fmt: skip
        event = {"specversion": "1.0", "type": "jauge.usage.v1", "source": "t", "id": f"loss-{number}", "time": at,
                 "data": data}  # fmt: skip
        lines.append(json.dumps(event).encode())
    assert services.intake.take(decode(b"\n".join(lines), "ndjson", count), "http").is_whole


class Failing(CounterStore):
    """A store that goes away before a call of its choice, or loses its answer: the client asks again."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.client = client
        self.fails_at: int | None = None
        self.repeats = False
        self.calls: list[str] = []

    def call(self, tenant: str, operation: str, *given: Any) -> Reply:
        if self.fails_at is not None and len(self.calls) >= self.fails_at:
            self.fails_at = None
            raise Unavailable("counters_unavailable", "Away.")
        self.calls.append(operation)
        if self.repeats:
            super().call(tenant, operation, *given)
        return super().call(tenant, operation, *given)


@pytest.fixture
def desk(services: Services) -> Iterator[Desk]:
    declare(services, WIDE)
    with connect(services.stores.redis_url) as client:
        yield Desk(services, Failing(client))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "PIECE", 7)
    monkeypatch.setattr(building, "ENTRIES", 5)


def test_a_worker_that_dies_between_two_pieces_of_a_settle_counts_nothing_twice(desk: Desk, small_pieces: None) -> None:
    desk.standing()
    desk.store.repeats = True
    for _ in range(3):
        record(desk.services, count=23)
    record(desk.services, reservation="r1")
    expected = 3 * 230 + 10
    for fails_at in itertools.count():
        desk.store.calls, desk.store.fails_at = [], fails_at
        with suppress(Unavailable):
            desk.settle(0)
            break
        assert desk.standing()[MONTH][0] <= expected
    desk.store.fails_at = None
    assert fails_at > 10
    assert desk.standing()[MONTH] == (expected, 0)


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_building_that_is_interrupted_or_repeated_is_whole_or_not_there(
    desk: Desk, small_pieces: None, is_lost: bool
) -> None:
    desk.standing()
    record(desk.services, count=30)
    for number in range(20):
        desk.reserve(f"r{number}", 3)
    desk.commit("r0", input_tokens=4, output_tokens=0)
    record(desk.services, reservation="r1")  # recorded, not settled: its hold must not count beside it
    expected = (310, 0) if is_lost else (314, 18 * 3)
    desk.store.repeats = True
    limits = itertools.cycle([OTHER_LIMITS, WIDE])
    for fails_at in itertools.count():
        if is_lost:
            desk.store.client.flushall()
        else:
            declare(desk.services, next(limits))
        desk.store.calls, desk.store.fails_at = [], fails_at
        try:
            stands = desk.standing()
        except Unavailable:
            assert is_lost or desk.standing()[MONTH] == expected  # by whoever asks next
            continue
        if desk.store.fails_at is not None:
            break
    assert fails_at > 8
    assert stands[MONTH] == expected


def test_the_event_of_a_lost_hold_and_its_late_commit_count_once(desk: Desk) -> None:
    desk.reserve("r1", 10)
    record(desk.services, reservation="r1")
    desk.store.client.flushall()
    assert desk.commit("r1", input_tokens=10, output_tokens=0).status == "ok"
    assert desk.standing()[MONTH] == (10, 0)
    record(desk.services, reservation="unheard-of")
    desk.settle()
    assert desk.commit("unheard-of", input_tokens=10, output_tokens=0).status == "ok"
    assert desk.standing()[MONTH] == (20, 0)


def test_a_refused_request_that_is_recorded_burns_nothing(desk: Desk) -> None:
    desk.standing()
    record(desk.services, status="refused", tokens=0)
    desk.settle()
    assert desk.standing()["user requests/minute"] == (0, 0)
    desk.store.client.flushall()
    assert desk.standing()["user requests/minute"] == (0, 0)


def test_an_older_copy_is_found_by_who_knows_more_and_by_settling(desk: Desk) -> None:
    client = desk.store.client
    desk.reserve("r1", 5)
    copy = {key: client.dump(key) for key in keys_of("dinum")}
    record(desk.services)
    desk.settle()
    assert desk.standing()[MONTH] == (10, 5)
    restore(client, copy)
    assert desk.standing()[MONTH] == (10, 0)
    assert desk.builds[-1]  # lost, and said so
    record(desk.services)
    desk.settle()
    restore(client, copy)
    fresh = Desk(desk.services, desk.store)
    fresh.settled = desk.settled
    record(desk.services)
    fresh.settle()  # a worker that has just started finds that batches are missing in between
    assert fresh.standing()[MONTH] == (30, 0)
    assert fresh.epoch > desk.epoch


def test_two_processes_build_once(desk: Desk) -> None:
    record(desk.services, count=50)
    desks = [
        desk,
        *(Desk(desk.services, CounterStore(connect(desk.services.stores.redis_url))) for _ in range(5)),
    ]
    run_threads([one.standing for one in desks])
    with desk.services.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT epoch FROM quota_epoch")) == 1
    assert {one.standing()[MONTH] for one in desks} == {(500, 0)}


def test_a_builder_that_was_outrun_changes_nothing(desk: Desk) -> None:
    record(desk.services)
    desk.standing()
    desk.store.call("dinum", "begin", 5, 10**9, False)
    from metering.quotas.calls import Lost

    for late in (
        ("begin", 4, 10**9, True),
        ("build", 4, 1, [], []),
        ("adopt", 4, 2, 1, 0, 10),
        ("build", 5, 7, [], []),
    ):
        with pytest.raises(Lost):
            desk.store.call("dinum", *late)
    assert desk.standing()[MONTH] == (10, 0)


def test_counters_are_unavailable_while_the_ledger_is_away_and_never_half_built(desk: Desk, settings: Settings) -> None:
    record(desk.services, count=30)
    engine = sa.create_engine("postgresql+psycopg://nobody@/nothing?host=/nowhere")
    there = CounterBuilder(engine, desk.services.catalog, desk.store)
    with pytest.raises(Unavailable):
        there.settle(0, datetime.now(UTC))
    away = Desk(desk.services, desk.store)

    class Away:
        def refresh(self) -> None:
            return None

        def current(self) -> Any:
            return desk.services.catalog.current()

    away.builder = CounterBuilder(engine, Away(), desk.store)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        away.standing()
    assert not desk.store.client.exists(*keys_of("dinum"))
    assert desk.standing()[MONTH] == (300, 0)


def test_an_answer_of_a_server_that_cannot_write_is_an_outage(desk: Desk) -> None:
    import asyncio

    async def reserve_on_a_full_server() -> None:
        store = AsyncCounterStore(desk.services.stores.redis_url)
        try:
            with pytest.raises(Unavailable):
                await store.call("dinum", "settle", 0, 1, [], [])
        finally:
            await store.close()

    desk.standing()
    desk.store.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(Unavailable):
            desk.reserve("r1", 1)
        asyncio.run(reserve_on_a_full_server())
    finally:
        desk.store.client.config_set("maxmemory", 0)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[embedded.Servers]:
    """Stores of the test's own."""
    yield embedded.start(tmp_path / "d")
    embedded.stop(tmp_path / "d")


ENOUGH = 20
"""Requests of a load, however slow the machine is."""


@dataclass
class Load:
    """Work on counters while they come to harm."""

    services: Services
    instance: embedded.Servers
    stop: threading.Event = field(default_factory=threading.Event)
    recorded: list[str] = field(default_factory=list)

    def work(self, number: int) -> None:
        with redis.Redis.from_url(self.instance.redis_url) as client:
            desk = Desk(self.services, CounterStore(client))
            for turn in itertools.takewhile(lambda _: not self.stop.is_set(), itertools.count()):
                reservation = f"{number}-{turn}"
                record(self.services, reservation=reservation)  # first: then it counts, whatever becomes of the rest
                self.recorded.append(reservation)
                with suppress(Unavailable):
                    desk.reserve(reservation, 10)
                    desk.commit(reservation, input_tokens=10, output_tokens=0)
                with suppress(Unavailable):
                    desk.settle()

    def harm(self, comes_back: str) -> None:
        time.sleep(0.4)
        with redis.Redis.from_url(self.instance.redis_url) as client:
            copy = {key: client.dump(key) for key in keys_of("dinum")}
        time.sleep(0.3)
        if comes_back == "empty":
            for file in embedded.Layout(self.instance.data_dir).valkey.rglob("*.aof*"):
                file.unlink()
        os.kill(self.instance.valkey_pid, 9)  # its supervisor starts it again
        with redis.Redis.from_url(self.instance.redis_url) as client:
            until(lambda: is_there(client))
            if comes_back == "older":
                restore(client, copy)
        time.sleep(0.5)
        until(lambda: len(self.recorded) > ENOUGH)
        self.stop.set()


def is_there(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


def restore(client: redis.Redis, copy: dict[str, bytes | None]) -> None:
    client.flushall()
    for key, content in copy.items():
        if content is not None:
            client.restore(key, 0, content)


@pytest.mark.parametrize("comes_back", ["as it was", "empty", "older"])
def test_a_store_killed_under_load_loses_no_commit(
    instance: embedded.Servers, database_url: str, tmp_path: Path, comes_back: str
) -> None:
    settings = Settings(database_url=database_url, redis_url=instance.redis_url, data=tmp_path / "unused")
    with open_services(settings) as services:
        declare(services, WIDE)
        load = Load(services, instance)
        run_threads([*(partial(load.work, number) for number in range(3)), partial(load.harm, comes_back)])
        with redis.Redis.from_url(instance.redis_url) as client:
            desk = Desk(services, CounterStore(client))
            desk.settle(0)
            assert desk.standing()[MONTH] == (10 * len(load.recorded), 0)
        assert len(load.recorded) > ENOUGH

"""The connection to a server of counters, and what becomes of calls when it breaks."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from metering.errors import Unavailable
from metering.quotas.calls import Lost
from metering.quotas.line import Address, LineLost
from metering.quotas.nodes import Cluster, OneServer, servers_at
from metering.quotas.store import AsyncCounterStore
from metering.valkey import connect, is_cluster, outages, servers_of
from tests.quotas.valkeys import Valkey, free_port, one_valkey


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with one_valkey(tmp_path / "valkey") as server:
        yield server


def call(url: str, work: Callable[[AsyncCounterStore], Coroutine[Any, Any, Any]]) -> Any:
    """What comes of some calls of a store."""

    async def calls() -> Any:
        store = AsyncCounterStore(url)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(calls())


async def is_answered(store: AsyncCounterStore, tenant: str = "dinum") -> bool:
    """Whether the script says that there are no counters."""
    with suppress(Lost):
        await store.call(tenant, "look")
        raise AssertionError("there are counters")
    return True


def test_many_ask_at_once_and_each_gets_its_own_answer(valkey: Valkey) -> None:
    async def work(store: AsyncCounterStore) -> list[Any]:
        tenants = [f"t{number}" for number in range(300)]
        for tenant in tenants[::2]:
            await store.call(tenant, "begin", int(tenant[1:]) + 1, 0, True)
        return await asyncio.gather(*(store.call(tenant, "look") for tenant in tenants), return_exceptions=True)

    answers = call(valkey.url, work)
    assert [one.epoch if not isinstance(one, Lost) else None for one in answers] == [
        number + 1 if number % 2 == 0 else None for number in range(300)
    ]


def test_who_leaves_before_the_answer_takes_nobody_elses(valkey: Valkey) -> None:
    async def work(store: AsyncCounterStore) -> bool:
        asking = [asyncio.create_task(is_answered(store)) for _ in range(20)]
        await asyncio.sleep(0)
        for one in asking[::2]:
            one.cancel()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        return answers[1::2] == [True] * 10 and await is_answered(store)

    assert call(valkey.url, work)


def test_a_connection_that_was_cut_is_made_again(valkey: Valkey) -> None:
    async def work(store: AsyncCounterStore) -> None:
        assert await is_answered(store)
        with valkey.client() as client:
            for _ in range(5):
                asking = [asyncio.create_task(is_answered(store)) for _ in range(10)]
                client.client_kill_filter(_type="normal", skipme=True)
                assert await asyncio.gather(*asking) == [True] * 10

    call(valkey.url, work)


def test_a_server_that_was_restarted_learns_the_script_again(valkey: Valkey) -> None:
    async def work(store: AsyncCounterStore) -> None:
        assert await is_answered(store)
        valkey.kill()
        with pytest.raises(Unavailable):
            await is_answered(store)
        valkey.start()
        assert await asyncio.gather(*(is_answered(store) for _ in range(10))) == [True] * 10

    call(valkey.url, work)


def test_a_server_that_says_nothing_is_away_within_seconds(valkey: Valkey) -> None:
    async def work(store: AsyncCounterStore) -> float:
        assert await is_answered(store)
        assert valkey.process is not None
        os.kill(valkey.process.pid, signal.SIGSTOP)
        began_s = time.monotonic()
        answers = await asyncio.gather(*(is_answered(store) for _ in range(10)), return_exceptions=True)
        waited_s = time.monotonic() - began_s
        os.kill(valkey.process.pid, signal.SIGCONT)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert await is_answered(store)
        return waited_s

    assert 1 <= call(valkey.url, work) < 4  # two, and what a busy machine adds


def test_it_says_who_it_is(tmp_path: Path) -> None:
    socket = tmp_path / "sock"
    with one_valkey(tmp_path / "valkey", "--requirepass", "secret", "--unixsocket", str(socket)) as server:
        right = f"redis://:secret@127.0.0.1:{server.port}/3"
        for url in (right, f"unix://default:secret@{socket}?db=3"):
            assert call(url, lambda store: store.call("t", "begin", 1, 0, True)).status == "ok"
            with redis.Redis.from_url(right) as client:
                assert client.delete("jauge:{t}:counters") == 1
        for wrong in (right.replace("secret", "wrong"), server.url):
            with pytest.raises(Unavailable):
                call(wrong, lambda store: store.call("t", "look"))


def test_an_error_of_ours_is_no_outage(valkey: Valkey) -> None:
    with pytest.raises(Exception, match="nil value") as told:
        call(valkey.url, lambda store: store.call("t", "no_such_operation"))
    assert not isinstance(told.value, Unavailable)


def test_addresses_name_one_server_or_some_nodes() -> None:
    cluster = "rediss+cluster://me:a%40b@one:1,two:2"
    assert is_cluster(cluster)
    assert servers_of(cluster) == ["rediss://me:a%40b@one:1", "rediss://me:a%40b@two:2"]
    assert servers_of("redis://one:1/2") == ["redis://one:1/2"]
    assert not is_cluster("unix:///run/valkey.sock")
    secret = servers_at("rediss://me:a%40b@one:1")
    assert isinstance(secret, OneServer)
    address = secret.line_of("any").address
    assert (address.login, address.tls is not None) == (("me", "a@b"), True)
    with pytest.raises(ValueError, match="scheme"):
        servers_at("http://one:1")


def test_a_cluster_of_which_no_node_is_there_is_away() -> None:
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    client = connect(url)  # it is asked only when it is used
    with pytest.raises(outages()):
        client.ping()
    client.close()
    with pytest.raises(Unavailable):
        call(url, lambda store: store.call("t", "look"))

    async def learn() -> None:
        servers = Cluster([Address("127.0.0.1", free_port())])
        with pytest.raises(LineLost):
            await servers.learn()

    asyncio.run(learn())

"""The client beside the stores: it answers as the server does, and nothing that was used gets lost."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from metering.client import AsyncHold, Refused
from metering.client.protocol import Call
from metering.database import transaction
from metering.direct import ENTRY_BYTES_MAX, DirectJauge, Stream
from metering.services import Services, open_services
from metering.settings import Settings
from metering.tables import api_key
from tests.client.conftest import CATALOGUE, DIGEST, Platform, Server, platform, server, until  # noqa: F401
from tests.quotas.conftest import declare
from tests.quotas.valkeys import one_valkey
from tests.quotas.workers import consuming

ALICE = {"key_sha256": DIGEST, "model": "small", "prompt_tokens": 10, "max_output_tokens": 100}
SANTE = {"tenant": "sante", "user": "u-1", "model": "small"}
USED = {"input_tokens": 10, "output_tokens": 30}
NOBODY = "postgresql://nobody@/nothing?host=/nowhere"


def direct(services: Services, spool: Path, **given: Any) -> DirectJauge:
    stores = services.stores
    options = {"database_url": stores.database_url, "redis_url": stores.redis_url, "source": "gw", "timeout_s": 10}
    options |= given
    return DirectJauge(spool=spool, stream_name=services.settings.stream_name, **options)


def test_what_was_used_is_counted_at_once_and_in_the_ledger_soon(platform: Platform) -> None:  # noqa: F811
    async def gateway() -> None:
        async with direct(platform.services, platform.spool) as jauge, jauge.hold(**ALICE) as hold:
            assert hold.granted_output_tokens == 100
            assert int(hold.headers["x-ratelimit-remaining-tokens"]) == 99_890
            assert (await asyncio.to_thread(platform.standing))["total_tokens"] == (0, 110)
            assert await hold.extend(more_output_tokens=50) == 50
            await hold.commit(USED)
            assert (await asyncio.to_thread(platform.standing))["total_tokens"] == (40, 0)

    asyncio.run(gateway())
    assert platform.entries() == []
    with consuming(platform.services):
        until(platform.entries)
    (entry,) = platform.entries()
    assert (entry["api_key"], entry["category"], entry["output_tokens"]) == ("k-alice", "chat", 30)
    assert platform.standing() == {
        "total_tokens": (40, 0), "output_tokens": (30, 0), "requests": (1, 0), "concurrent_requests": (0, 0),
    }  # fmt: skip
    assert platform.services.redis().xlen(platform.services.settings.stream_name) == 0


def test_a_stream_that_is_cancelled_commits_what_was_streamed(platform: Platform) -> None:  # noqa: F811
    async def gateway() -> None:
        async with direct(platform.services, platform.spool) as jauge:
            begun = asyncio.Event()

            async def stream() -> None:
                async with jauge.hold(**ALICE) as hold:
                    hold.add(output_tokens=7)
                    begun.set()
                    await asyncio.sleep(60)

            streaming = asyncio.create_task(stream())
            await begun.wait()
            streaming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await streaming
            assert (await asyncio.to_thread(platform.standing))["total_tokens"] == (17, 0)

    asyncio.run(gateway())
    with consuming(platform.services):
        until(platform.entries)
    assert [(entry["status"], entry["output_tokens"]) for entry in platform.entries()] == [("aborted", 7)]


def test_what_does_not_run_is_given_back_and_a_refusal_tells_why(platform: Platform) -> None:  # noqa: F811
    async def gateway() -> Refused:
        async with direct(platform.services, platform.spool) as jauge:
            async with jauge.hold(**SANTE):
                with pytest.raises(Refused) as told:
                    async with jauge.hold(**SANTE):
                        raise AssertionError("it runs")
            async with jauge.hold(**SANTE):  # the first was given back
                return told.value

    refused = asyncio.run(gateway())
    assert (refused.status, refused.code) == (429, "limit_reached")
    assert [(limit["value"], limit["held"], limit["remaining"]) for limit in refused.limits] == [(1, 1, 0)]


QUESTIONS: list[tuple[dict[str, Any], int]] = [
    (ALICE, 200),
    (SANTE | {"max_output_tokens": 5}, 200),
    ({"key_sha256": "0" * 64, "model": "small"}, 401),
    ({"tenant": "unheard-of", "model": "small"}, 422),
    ({"tenant": "sante", "model": "unheard-of"}, 404),
]


def test_it_answers_as_the_server_does(platform: Platform) -> None:  # noqa: F811
    async def ask(jauge: Any) -> list[tuple[Any, ...]]:
        async with jauge:
            return [await answer(jauge, asked) for asked, _status in QUESTIONS]

    async def answer(jauge: Any, asked: dict[str, Any]) -> tuple[Any, ...]:
        try:
            async with jauge.hold(**asked) as hold:
                return told(hold, 200, hold.granted_output_tokens)
        except Refused as refused:
            return told(refused, refused.status, refused.code)

    def told(what: AsyncHold | Refused, *answer: Any) -> tuple[Any, ...]:
        return *answer, sorted(what.headers), what.limits

    over_http = asyncio.run(ask(platform.ajauge()))
    assert [one[0] for one in over_http] == [status for _asked, status in QUESTIONS]
    assert asyncio.run(ask(direct(platform.services, platform.spool))) == over_http


def test_while_the_counters_are_away_the_plan_decides_and_events_wait(
    database_url: str, services: Services, tmp_path: Path
) -> None:
    outages = {"Wide": "open", "Tight": "closed"}
    plans = CATALOGUE
    for name, outage in outages.items():
        plans = plans.replace(f"  name: {name}\n", f"  name: {name}\n  outage: {outage}\n")
    declare(services, plans)
    with one_valkey(tmp_path / "valkey") as valkey:
        settings = Settings(database_url=database_url, redis_url=valkey.url, stream_claim_ms=500)
        with open_services(settings) as there:

            async def gateway() -> None:
                async with direct(there, tmp_path / "spool") as jauge:
                    for _ in range(2):
                        async with jauge.hold(tenant="dinum", model="small", max_output_tokens=9) as hold:
                            assert hold.granted_output_tokens == 9
                            await hold.commit(USED)
                        valkey.kill()
                    with pytest.raises(Refused) as told:
                        async with jauge.hold(tenant="sante", model="small"):
                            raise AssertionError("it runs")
                    assert (told.value.status, told.value.code) == (503, "store_away")
                    valkey.start()

            asyncio.run(gateway())
            with consuming(there):
                until(lambda: len(Platform("", "", tmp_path, there).entries()) == 3)


def test_what_could_not_be_looked_at_is_attributed_later(platform: Platform) -> None:  # noqa: F811
    async def gateway(database_url: str) -> None:
        options = {"database_url": database_url, "on_outage": "allow"}
        async with direct(platform.services, platform.spool, **options) as jauge:
            async with jauge.hold(**ALICE) as hold:
                assert hold.is_held is (database_url != NOBODY)
                await hold.commit(USED)

    asyncio.run(gateway(NOBODY))
    assert platform.spooled()
    asyncio.run(gateway(platform.services.stores.database_url))
    with consuming(platform.services):
        until(lambda: len(platform.entries()) == 2)
    assert [(entry["tenant"], entry["user"]) for entry in platform.entries()] == [("dinum", "alice")] * 2


def test_a_key_that_is_revoked_is_refused_at_once(platform: Platform) -> None:  # noqa: F811
    async def gateway() -> None:
        async with direct(platform.services, platform.spool) as jauge:
            async with jauge.hold(**ALICE):
                pass
            with transaction(platform.services.engine) as connection:
                connection.execute(api_key.update().values(revoked_at="2026-01-01T00:00:00Z"))
            for _ in range(200):
                if await is_refused(jauge):
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("it still runs")

    async def is_refused(jauge: DirectJauge) -> bool:
        try:
            async with jauge.hold(**ALICE):
                return False
        except Refused as refused:
            return refused.status == 401

    asyncio.run(gateway())


def test_an_entry_is_never_larger_than_the_worker_reads(services: Services) -> None:
    stream = Stream(services.stores.redis_url, "s", services.catalog)
    line = b'{"a": 1}\n'
    assert stream.post(Call("/v1/events", line * (ENTRY_BYTES_MAX // len(line) + 1), 1)).status == 413
    assert len(stream.post(Call("/v1/events", line + line.strip(), 1)).body["events"]) == 2
    assert services.redis().xlen("s") == 1
    stream.close()

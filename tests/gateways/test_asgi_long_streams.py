"""Streams that last longer, or say more, than what was held for them."""

import asyncio
from typing import Any

import httpx
import pytest

from metering.client import AsyncJauge
from metering.client.clients import AsyncGateway
from metering.client.http import AsyncHttpCarrier, HttpCarrier
from metering.client.protocol import Answer, AsyncCarrier, Call
from metering.gateways.asgi import JaugeMiddleware
from tests.gateways.conftest import World, told
from tests.gateways.test_asgi_streams import Exchange, estimate
from tests.gateways.upstream import Upstream

HELD_TOKENS = 5
"""What is held of an answer without a bound."""


def metered(jauge: AsyncGateway) -> JaugeMiddleware:
    return JaugeMiddleware(Upstream(), client=jauge, default_output_tokens=HELD_TOKENS)


async def standing(world: World, meter: str) -> tuple[int, int]:
    """What is used and held."""
    return (await asyncio.to_thread(world.standing))[meter]


def test_a_stream_longer_than_its_holds_time_stays_held_and_is_committed(world: World) -> None:
    exchange = Exchange(world.key, words=1, behaviour="waits-400+answers-8")

    async def stream() -> None:
        async with world.ground.platform.ajauge(ttl_s=1) as jauge:
            streaming = asyncio.create_task(exchange.run(metered(jauge)))
            while exchange.tokens_sent < 6:  # 2.4 s
                await asyncio.sleep(0.02)
            assert await standing(world, "concurrent_requests") == (0, 1)
            await streaming

    asyncio.run(stream())
    (entry,) = world.recorded(1)
    assert told(entry, "status", "output_tokens", "count_source") == ("ok", 8, "provider")
    counted = world.standing()
    assert (counted["output_tokens"], counted["concurrent_requests"]) == ((8, 0), (0, 0))


def test_a_stream_that_passes_what_is_held_holds_more(world: World) -> None:
    exchange = Exchange(world.key, words=1, behaviour="waits-50+answers-40")
    held = []

    async def stream() -> None:
        async with world.ground.platform.ajauge() as jauge:
            streaming = asyncio.create_task(exchange.run(metered(jauge)))
            for tokens in (1, 12, 24, 36):
                while exchange.tokens_sent < tokens:
                    await asyncio.sleep(0.01)
                held.append((await standing(world, "output_tokens"))[1])
            await streaming

    asyncio.run(stream())
    first, *later = held
    assert first == HELD_TOKENS
    assert all(held >= tokens for held, tokens in zip(later, (12, 24, 36), strict=True))
    assert max(later) <= 40 + HELD_TOKENS  # and hardly more than what came
    assert world.standing()["output_tokens"] == (40, 0)


def test_where_there_is_no_room_for_more_the_stream_ends_in_full_and_counts_in_full(world: World) -> None:
    room = HELD_TOKENS + 3
    other = {"tenant": world.tenant, "user": f"alice-{world.tenant}", "model": "small"}
    exchange = Exchange(world.key, words=1, behaviour="waits-10+answers-40")
    late = Exchange(world.key, words=1)

    async def stream() -> None:
        async with world.ground.platform.ajauge() as jauge:
            everything = 100_000 - estimate(1) - room
            async with jauge.hold(**other, max_output_tokens=everything) as hold:
                await exchange.run(metered(jauge))
                assert await standing(world, "output_tokens") == (40, everything)
                await late.run(metered(jauge))
                await hold.give_back()

    asyncio.run(stream())
    assert exchange.tokens_sent == 40
    assert late.sent[0]["status"] == 429
    entries = {entry["http_status"]: told(entry, "status", "output_tokens") for entry in world.recorded(3)}
    assert entries == {200: ("ok", 40), 429: ("refused", None), None: ("error", None)}
    assert world.standing()["output_tokens"] == (40, 0)


class Slow:
    """Carries calls as another, but those for more output only when it is let to."""

    def __init__(self, carrier: AsyncCarrier) -> None:
        self._carrier = carrier
        self.extends = 0
        self.let = asyncio.Event()

    async def post(self, call: Call) -> Answer:
        if call.path == "/v1/quota/extend":
            self.extends += 1
            await self.let.wait()
        return await self._carrier.post(call)

    async def aclose(self) -> None:
        await self._carrier.aclose()


def test_no_piece_of_a_stream_waits_for_what_is_asked_beside_it(world: World) -> None:
    exchange = Exchange(world.key, words=1, behaviour="waits-1+answers-40")
    platform = world.ground.platform
    http = {"base_url": platform.url, "headers": {"Authorization": f"Bearer {platform.token}"}}

    async def stream() -> None:
        slow = Slow(AsyncHttpCarrier(httpx.AsyncClient(**http)))
        async with AsyncGateway(slow, HttpCarrier(httpx.Client(**http)), **options) as jauge:
            await exchange.run(metered(jauge))
        assert slow.extends == 1  # none at once with another

    options: Any = {"source": "gw", "spool": platform.spool, "timeout_s": 20}
    asyncio.run(stream())
    assert exchange.tokens_sent == 40
    assert world.recorded(1)[0]["output_tokens"] == 40
    assert world.standing()["output_tokens"] == (40, 0)


@pytest.mark.parametrize("on_outage", ["allow", "refuse"])
def test_a_stream_goes_on_while_nobody_can_be_asked_for_more(world: World, on_outage: str) -> None:
    exchange = Exchange(world.key, words=1, behaviour="waits-20+answers-40")

    async def stream() -> None:
        jauge: AsyncJauge
        async with platform.ajauge(on_outage=on_outage, timeout_s=1) as jauge:
            streaming = asyncio.create_task(exchange.run(metered(jauge)))
            while exchange.tokens_sent < 1:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(world.ground.server.stop)
            await streaming
            await asyncio.to_thread(world.ground.server.start)

    platform = world.ground.platform
    asyncio.run(stream())
    assert exchange.tokens_sent == 40
    assert world.recorded(1)[0]["output_tokens"] == 40
    assert world.standing()["output_tokens"] == (40, 0)

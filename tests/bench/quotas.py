"""What is measured of quotas: the gateway's question over HTTP, and the script beside it."""

import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import redis

from metering.catalog.apply import apply, read_file
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.direct import DirectJauge
from metering.quotas.calls import SCRIPT, SCRIPT_SHA, about_of, arguments, keys_of, limits_argument
from metering.quotas.places import fixed_of, limits_digest, places_of
from metering.rules.counting import Estimate
from metering.rules.limits import Request
from metering.services import Services
from tests.bench.measures import Line
from tests.bench.serving import application, served

CONNECTIONS = 32
TASKS = 64
WARM_S = 0.5
P99_MS_MAX = 8
_reservations = itertools.count(1)

CATALOGUE = """
categories: [{id: chat, name: Chat}]
models: [{id: small, name: Small, category: chat, publisher: P, licence: MIT, operations: [chat]}]
plans:
- id: bench
  name: Bench
  limits:
  - {scope: user, selector: "model:*", meter: requests, window: minute, value: 1_000_000_000}
  - {scope: user, selector: "model:*", meter: total_tokens, window: day, value: 1_000_000_000_000}
  - {scope: tenant, selector: "*", meter: total_tokens, window: month, value: 1_000_000_000_000}
  - {scope: key, selector: "*", meter: requests, window: day, value: 1_000_000_000}
tenants: [{id: bench, name: Bench, plan: bench}]
"""


def reserve(services: Services, seconds: float) -> list[Line]:
    """Requests a second of the whole check, beside a server that does nothing and a plain handler of the framework."""
    with transaction(services.engine) as connection:
        apply(connection, read_file(CATALOGUE.encode()))
    token = add_token(services.engine, "bench-gateway", "gateway")
    numbers = itertools.count(1)

    def question() -> bytes:
        return json.dumps(
            {
                "reservation": f"r-{next(numbers)}", "tenant": "bench", "user": f"u-{next(numbers) % 100}",
                "api_key": "k-1", "model": "small", "ttl_s": 600,
                "estimates": {"prompt_tokens": 100, "max_output_tokens": 50},
            }
        ).encode()  # fmt: skip

    limits = {name: _rate(url, "/", "", question, seconds)[0] for name, url in _bare()}
    with served(services) as url:
        rate, p99_ms = _rate(url, "/v1/quota/reserve", token, question, seconds)
    return [
        Line("HTTP reserve, 4 limits, 32 connections", rate, "/s", "bare ASGI echo", limits["echo"],
             rate / limits["echo"], "≥ 0.25"),
        Line("the same", rate, "/s", "plain Litestar handler", limits["plain"], rate / limits["plain"], "≥ 0.7"),
        Line("the same, 99th percentile", p99_ms, "ms", "budget", P99_MS_MAX, p99_ms / P99_MS_MAX, "≤ 1"),
    ]  # fmt: skip


def script(services: Services, calls: int) -> Line:
    """µs of the store's own time for a call of the script with 4 limits, beside a call that does nothing."""
    with redis.Redis.from_url(services.stores.redis_url) as client:
        script_us = _pipelined_us(client, _commands(services, client, calls))
        nothing_us = _pipelined_us(client, [("PING",)] * calls)
    return Line(
        "the script, 4 limits, pipelined", script_us, "µs", "PING, pipelined", nothing_us, script_us / nothing_us, ""
    )


def direct(services: Services, calls: int) -> Line:
    """Requests a second that the client beside the stores opens, beside the script alone with the same arguments."""
    with redis.Redis.from_url(services.stores.redis_url) as client:
        limit = 1e6 / _pipelined_us(client, _commands(services, client, calls))
    rate = asyncio.run(_opened(services, calls))
    return Line(
        f"reserve by the client beside the stores, 4 limits, {TASKS} tasks", rate, "/s",
        "raw pipelined EVALSHA", limit, rate / limit, "≥ 0.6",
    )  # fmt: skip


async def _opened(services: Services, calls: int) -> float:
    """Holds a second that tasks open; what they leave open is given back after the measure."""
    stores = services.stores
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as spool:
        options = {"source": "bench", "spool": Path(spool), "spool_bytes_max": 1 << 32, "ttl_s": 600, "timeout_s": 30}
        async with DirectJauge(stores.database_url, stores.redis_url, **options) as jauge, AsyncExitStack() as opened:

            async def open_some(some: int) -> None:
                for _ in range(some):
                    user = f"u-{next(numbers) % 100}"
                    hold = jauge.hold(
                        tenant="bench", user=user, api_key="k-1", model="small", prompt_tokens=100, max_output_tokens=50
                    )
                    await opened.enter_async_context(hold)

            await open_some(1)
            started = time.perf_counter()
            await asyncio.gather(*(open_some(calls // TASKS) for _ in range(TASKS)))
            return calls // TASKS * TASKS / (time.perf_counter() - started)


def _commands(services: Services, client: redis.Redis, calls: int) -> list[tuple[object, ...]]:
    """Calls of the script for new reservations, ready to be sent."""
    snapshot, now = services.catalog.refresh(), datetime.now(UTC)
    services.counters().build("bench", (0, 0, 0), now, is_reset=False)
    seen = (0, 0, limits_digest(snapshot, "bench", now))
    estimate = Estimate(prompt_tokens=100, max_output_tokens=50)
    client.script_load(SCRIPT)
    commands: list[tuple[object, ...]] = []
    for _ in range(calls):
        number = next(_reservations)
        request = Request("bench", None, f"u-{number % 100}", "k-1", "small", "chat", "chat")
        places = places_of(snapshot, request, now)
        limits, fixed = limits_argument(places), fixed_of(places, estimate, request.operation)
        given = (seen, f"s-{number}", "d" * 16, 600_000, 50, 1, False, False, limits, fixed, about_of(request))
        commands.append(("EVALSHA", SCRIPT_SHA, 3, *keys_of("bench"), *arguments("reserve", *given)))
    return commands


def _pipelined_us(client: redis.Redis, commands: list[tuple[object, ...]]) -> float:
    started = time.perf_counter()
    for at in range(0, len(commands), TASKS):
        pipeline = client.pipeline(transaction=False)
        for command in commands[at : at + TASKS]:
            pipeline.execute_command(*command)
        pipeline.execute()
    return (time.perf_counter() - started) / len(commands) * 1e6


def _bare() -> Iterator[tuple[str, str]]:
    for name in ("echo", "plain"):
        with application(f"tests.bench.bare:{name}") as url:
            yield name, url


def _rate(url: str, path: str, token: str, body: Callable[[], bytes], seconds: float) -> tuple[float, float]:
    """Requests a second and 99th percentile in ms; each connection asks again as soon as it is answered."""
    return asyncio.run(_load(url, path, token, body, seconds))


async def _load(url: str, path: str, token: str, body: Callable[[], bytes], seconds: float) -> tuple[float, float]:
    host = urlsplit(url)
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    times: list[float] = []
    begin = time.perf_counter() + WARM_S
    end = begin + seconds

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(host.hostname, host.port)
        while (started := time.perf_counter()) < end or len(times) < 2:  # a busy machine may need longer
            content = body()
            writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
            if started >= begin:
                times.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return len(times) / seconds, statistics.quantiles(times, n=100)[98] * 1000

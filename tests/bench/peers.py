"""Jauge's limits beside those of other limiters, under the same load: how fast, how exact, how large.

`race`: 64 clients in two processes ask at once for a user who has 1,000 tokens a minute. `burst`: the same clients,
about a minute after the user's first request, when windows turn. What is admitted beyond 1,000, and what refused
requests have counted all the same, are faults. `rate`: the same clients on limits that nobody reaches.
Run as a module this is one of the two processes: it reads orders, a line of JSON each, and writes their results.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import uvloop

from metering.catalog.apply import apply, read_file
from metering.database import transaction
from metering.logs import configure_logs
from metering.services import Services, open_services
from metering.settings import Settings
from tests.bench.limiters import LIMITERS, OURS, Bounds, Limiter, Scene, limiter
from tests.bench.measures import Line

PROCESSES, CLIENTS = 2, 32
TOKENS_MAX = 175
"""Requests are of 1 to so many tokens."""
ALLOWED_TOKENS = 1_000
BOUNDS = {
    "tight": Bounds(10_000, 100_000, ALLOWED_TOKENS, 1_000_000),
    "wide": Bounds(10**8, 10**10, 10**8, 10**10),
}
USERS = [f"u-{number}" for number in range(100)]
LAST = USERS[-1]
"""Whose limits the burst meets; the turns of the race meet the others'."""

ASKED = 4
"""Requests of each client in a turn of the race: together 20 times what the limit has room for."""
TURN_S = 0.3
BURST_S = 2.0
PAUSE_S = 0.05
START_S = 0.1
"""How long an order takes to reach both processes, amply."""


@dataclass(frozen=True, slots=True)
class Load:
    """How long it is measured: the rate so many seconds, round after round; the race so many turns.

    quiet_s: how long a user is quiet after the first request, before the burst.
    """

    seconds: float
    rounds: int
    turns: int
    quiet_s: float


FULL = Load(seconds=2, rounds=3, turns=10, quiet_s=60 - BURST_S / 2)
SMALL = Load(seconds=0.2, rounds=1, turns=1, quiet_s=0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a limiter: requests a second, by round; requests admitted in the race, and counted against users.

    tokens_max: the most that was admitted in 60 s. memory_bytes: of one user's four limits, one of them full.
    """

    rates: list[float]
    tokens_max: int
    admitted: int
    counted: int
    memory_bytes: float


def compare(services: Services, load: Load) -> list[Line]:
    """Every limiter on the same stores. Rates are measured in turn, so that what disturbs one disturbs all."""
    with transaction(services.engine) as connection:
        apply(connection, read_file(_catalogue().encode()))
    with ExitStack() as stack:
        team = [stack.enter_context(_worker(services)) for _ in range(PROCESSES)]
        bursts = _together(team, list(LIMITERS), "burst", load.quiet_s)
        rounds = [
            [sum(result[0] for result in _together(team, [name], "rate", load.seconds)) for name in LIMITERS]
            for _ in range(load.rounds)
        ]
        outcomes = {
            name: _outcome(
                team, services, name, load.turns,
                [answered[at] / load.seconds for answered in rounds], sum(burst[at] for burst in bursts),
            )
            for at, name in enumerate(LIMITERS)
        }  # fmt: skip
    return _lines(outcomes)


def _outcome(
    team: Sequence["_Worker"], services: Services, name: str, turns: int, rates: list[float], burst_tokens: int
) -> Outcome:
    races = [result[0] for result in _together(team, [name], "race", turns)]
    return Outcome(
        rates=rates,
        tokens_max=max(burst_tokens, *(sum(map(sum, turn)) for turn in zip(*races, strict=True))),
        admitted=sum(len(turn) for race in races for turn in race),
        counted=_together(team[:1], [name], "counted", turns)[0][0],
        memory_bytes=_memory_bytes(services, f"{name}-tight") / (turns + 1),
    )


def _lines(outcomes: dict[str, Outcome]) -> list[Line]:
    ours, script = (outcomes[name] for name in OURS)
    peers = {LIMITERS[name]: one for name, one in outcomes.items() if name not in OURS}
    fastest = max(peers, key=lambda title: median(peers[title].rates))
    work = f"4 limits, {PROCESSES * CLIENTS} clients in {PROCESSES} processes"
    lines = [_rate_line(work, ours, title, peer) for title, peer in peers.items()]
    lines.append(_rate_line("the same, the script alone", script, fastest, peers[fastest]))
    everybody = {LIMITERS["quotas"]: ours} | peers
    lines += [
        Line(f"most in 60 s: {title}", one.tokens_max, "tokens", "allowed", ALLOWED_TOKENS,
             one.tokens_max / ALLOWED_TOKENS, "≤ 1" if one is ours else "")
        for title, one in everybody.items()
    ]  # fmt: skip
    lines += [
        Line(f"counted against a user: {title}", one.counted, "requests", "admitted", one.admitted,
             one.counted / one.admitted, "≤ 1" if one is ours else "")
        for title, one in everybody.items()
    ]  # fmt: skip
    return lines + [
        Line("memory of 4 limits, one full", ours.memory_bytes, "bytes", title, peer.memory_bytes,
             ours.memory_bytes / peer.memory_bytes, "")
        for title, peer in peers.items()
    ]  # fmt: skip


def _rate_line(work: str, ours: Outcome, title: str, peer: Outcome) -> Line:
    ratio = median(mine / theirs for mine, theirs in zip(ours.rates, peer.rates, strict=True))
    return Line(work, median(ours.rates), "/s", title, median(peer.rates), ratio, "≥ 3")


def _memory_bytes(services: Services, prefix: str) -> int:
    """What the keys with a prefix take in the store."""
    with services.redis() as client:
        return sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter(f"*{prefix}*", count=1_000))


def _catalogue() -> str:
    """A plan of each width, and an administration on it for each of our ways."""
    plans = "".join(f"- {{id: {width}, name: P, limits: [{_limits(bounds)}]}}\n" for width, bounds in BOUNDS.items())
    tenants = "".join(f"- {{id: {way}-{width}, name: T, plan: {width}}}\n" for way in OURS for width in BOUNDS)
    return (
        "categories: [{id: chat, name: Chat}]\n"
        "models: [{id: small, name: Small, category: chat, publisher: P, licence: MIT, operations: [chat]}]\n"
        f"plans:\n{plans}tenants:\n{tenants}"
    )


def _limits(bounds: Bounds) -> str:
    values = (
        ("requests", "minute", bounds.requests_minute),
        ("requests", "day", bounds.requests_day),
        ("total_tokens", "minute", bounds.tokens_minute),
        ("total_tokens", "day", bounds.tokens_day),
    )
    return ", ".join(
        f'{{scope: user, selector: "model:*", meter: {meter}, window: {window}, value: {value}}}'
        for meter, window, value in values
    )


@dataclass(frozen=True, slots=True)
class _Worker:
    """One of the two processes, seen from the benchmark."""

    process: subprocess.Popen[str]

    def tell(self, order: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the worker has ended; it says why above"
        return json.loads(line)


@contextmanager
def _worker(services: Services) -> Iterator[_Worker]:
    stores = services.stores
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.peers", stores.database_url, stores.redis_url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    worker = _Worker(process)
    try:
        assert worker.result() == "ready"
        yield worker
    finally:
        process.communicate(timeout=30)  # the end of its orders ends it


def _together(team: Sequence[_Worker], names: list[str], work: str, size: float) -> list[Any]:
    """What each process says of each limiter; they begin at the same instant."""
    at = time.time() + START_S
    for worker in team:
        worker.tell({"names": names, "work": work, "at": at, "size": size})
    return [worker.result() for worker in team]


def main() -> None:
    """One of the processes that ask."""
    database_url, redis_url = sys.argv[1:]
    configure_logs("text", "error")
    with open_services(Settings(database_url=database_url, redis_url=redis_url)) as services:
        services.catalog.refresh()
        uvloop.run(_obey(services))


async def _obey(services: Services) -> None:
    """Do what is ordered until the orders end. Nothing else runs in between, so that reading may block."""
    known: dict[tuple[str, str], Limiter] = {}

    def limiter_of(name: str, width: str) -> Limiter:
        if (name, width) not in known:
            known[name, width] = limiter(name, Scene(f"{name}-{width}", USERS, BOUNDS[width]), services)
        return known[name, width]

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        width = "wide" if order["work"] == "rate" else "tight"
        asked = [limiter_of(name, width) for name in order["names"]]
        results = await asyncio.gather(*(_WORKS[order["work"]](one, order["at"], order["size"]) for one in asked))
        print(json.dumps(results), flush=True)


async def _race(asked: Limiter, at: float, turns: int) -> list[list[int]]:
    """Tokens of the requests admitted, by turn; each turn is about another user, whose limits are whole."""
    admitted: list[list[int]] = [[] for _ in range(turns)]

    async def client(turn: int) -> None:
        for _ in range(ASKED):
            tokens = random.randint(1, TOKENS_MAX)
            if await asked.admits(USERS[turn], tokens):
                admitted[turn].append(tokens)

    for turn in range(turns):
        await asyncio.sleep(at + turn * TURN_S - time.time())
        await asyncio.gather(*(client(turn) for _ in range(CLIENTS)))
    return admitted


async def _burst(asked: Limiter, at: float, quiet_s: float) -> int:
    """Tokens admitted within a few seconds, after one small request and a time without any."""
    begin = at + quiet_s
    admitted = 0

    async def client() -> None:
        nonlocal admitted
        while time.time() < begin + BURST_S:
            tokens = random.randint(1, TOKENS_MAX)
            if await asked.admits(LAST, tokens):
                admitted += tokens
            await asyncio.sleep(PAUSE_S)

    await asyncio.sleep(at - time.time())
    await asked.admits(LAST, 1)
    await asyncio.sleep(begin - time.time())
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return admitted


async def _counted(asked: Limiter, _at: float, turns: int) -> int:
    """Requests that the limit on requests has counted in the race."""
    return sum([await asked.counted(user) for user in USERS[:turns]])


async def _rate(asked: Limiter, at: float, seconds: float) -> int:
    """Requests answered within so many seconds, after a quarter of it to get warm."""
    begin = at + seconds / 4
    answered = 0

    async def client() -> None:
        nonlocal answered
        while (now := time.time()) < begin + seconds:
            assert await asked.admits(random.choice(USERS), random.randint(1, TOKENS_MAX))
            answered += begin <= now

    await asyncio.sleep(at - time.time())
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answered


_WORKS = {"race": _race, "burst": _burst, "counted": _counted, "rate": _rate}


if __name__ == "__main__":
    main()

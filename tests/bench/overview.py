"""The first page of a large platform, as its kinds of readers wait for it."""

import statistics
import time
from datetime import UTC, datetime

import httpx

from metering.catalog.tokens import add_token
from metering.demo import apply_catalogue
from metering.services import Services
from tests.bench.measures import Line
from tests.bench.serving import served
from tests.people import add_agent

MS = 1000
WANTED_MS = 300
"""What its first byte should take at most, at 10 million events."""


def first_byte(services: Services, rows: int, *, turns: int) -> list[Line]:
    """Of the overview, over HTTP, for each kind of readers: with the demo's plans, prices and conventions."""
    apply_catalogue(services.engine, datetime.now(UTC))
    tokens = {
        "operator": add_token(services.engine, "bench-operator", "operator"),
        "manager": add_agent(services, "dinum", "manager")[1],
        "member": add_agent(services, "dinum", "member")[1],
    }
    with served(services) as url:
        return [_line(role, rows, [_asked(url, token) for _ in range(turns + 1)][1:]) for role, token in tokens.items()]


def _asked(url: str, token: str) -> float:
    """Seconds to the first byte of the page, over a connection of its own."""
    started = time.perf_counter()
    with httpx.stream("GET", url, auth=("bench", token), timeout=60) as answer:
        elapsed = time.perf_counter() - started
        assert answer.status_code == httpx.codes.OK, answer.read()
        return elapsed


def _line(role: str, rows: int, times: list[float]) -> Line:
    first_byte_ms = statistics.median(times) * MS
    what = f"first byte of the overview, {role}, {rows:,} events"
    return Line(what, first_byte_ms, "ms", "wanted", WANTED_MS, first_byte_ms / WANTED_MS, "≤ 1")

"""Charts of a page: drawn by the worker, found among those drawn before, and how long the event loop stood still."""

import asyncio
import statistics
import time
from datetime import timedelta

from reports.choosing import drawings_of
from reports.drawing import Drawer, Drawing
from reports.usage_page import build_page
from tests.bench.measures import Line
from tests.pages.samples import TODAY, platform_rows, reading, selection

MS = 1000
TICK_S = 0.002
DRAWN_MS, FOUND_MS = 150, 10
"""What each should take at most, on a machine that does nothing else."""
IDLE_S = 1.0


def drawings(count: int) -> list[Line]:
    """Charts of 30 days and nine series, each of another month, one after the other."""
    drawn_ms, found_ms, stall_ms, idle_ms = asyncio.run(_measured([_chart(number) for number in range(count)]))
    held_up = "event loop held up while charts are drawn, the longest (≤ 50 ms)"
    return [
        _line("chart drawn, median", drawn_ms, DRAWN_MS),
        _line("chart found among those drawn, median", found_ms, FOUND_MS),
        Line(held_up, stall_ms, "ms", "the same loop, idle", idle_ms, stall_ms / idle_ms, ""),
    ]


def _chart(number: int) -> Drawing:
    days = timedelta(days=number)
    chosen = selection(quantity="total_tokens")
    chosen = selection(first=chosen.first - days, last=chosen.last - days, quantity="total_tokens")
    page = build_page(chosen, reading(list(platform_rows(chosen.question()))), today=TODAY)
    assert page.figure is not None
    return drawings_of(page.figure, "fr")[0]


async def _measured(charts: list[Drawing]) -> tuple[float, float, float, float]:
    """In ms: of drawing one and of finding one; longest wait of the loop meanwhile, and when it has nothing to do."""
    drawer, stalls, idle = Drawer(), [0.0], [0.0]
    async with drawer.running():
        await drawer.draw([Drawing(charts[0].spec, "warm", "chart")])
        ticking = asyncio.create_task(_tick(stalls))
        drawn = [await _timed(drawer, chart) for chart in charts]
        found = [await _timed(drawer, chart) for chart in charts]
        ticking.cancel()
        ticking = asyncio.create_task(_tick(idle))
        await asyncio.sleep(IDLE_S)
        ticking.cancel()
    return statistics.median(drawn), statistics.median(found), max(stalls), max(idle)


async def _timed(drawer: Drawer, chart: Drawing) -> float:
    started = time.perf_counter()
    await drawer.draw([chart])
    return (time.perf_counter() - started) * MS


async def _tick(stalls: list[float]) -> None:
    while True:
        started = time.perf_counter()
        await asyncio.sleep(TICK_S)
        stalls.append((time.perf_counter() - started - TICK_S) * MS)


def _line(work: str, figure: float, limit: float) -> Line:
    return Line(work, figure, "ms", "wanted", limit, figure / limit, "≤ 1")

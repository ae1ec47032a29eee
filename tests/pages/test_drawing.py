"""The drawing worker: what it draws is fit for a page, and it survives whatever happens to it."""

import asyncio
import os
import signal
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable
from datetime import date

import pytest

from metering.rules.periods import PARIS, bucket_starts
from reports.choosing import drawings_of
from reports.drawing import Drawer, Drawing, DrawingError, KeptDrawings, draw, inline
from reports.usage_page import build_page
from tests.pages.samples import reading, row, selection

SPEC = {
    "data": {"values": [{"x": 0, "y": 3, "said": "a & <b>\x01"}, {"x": 1, "y": 5, "said": "c"}]},
    "mark": {"type": "bar", "fill": "url(#fill-1)"},
    "encoding": {
        "x": {"field": "x", "type": "ordinal"},
        "y": {"field": "y", "type": "quantitative"},
        "description": {"field": "said"},
    },
}
DRAWING = Drawing(SPEC, "Deux barres", "chart")
ANOTHER = Drawing(SPEC, "Deux autres barres", "chart")
SVG = "{http://www.w3.org/2000/svg}"


def with_drawer(work: Callable[[Drawer], Awaitable[None]], *, timeout_s: float = 60) -> None:
    async def run() -> None:
        drawer = Drawer(timeout_s=timeout_s)
        async with drawer.running():
            await work(drawer)

    asyncio.run(run())


def worker_of(drawer: Drawer) -> asyncio.subprocess.Process:
    assert drawer._worker is not None
    return drawer._worker


def test_a_drawing_is_one_labelled_image_that_scales() -> None:
    root = ET.fromstring(draw(DRAWING))
    assert (root.get("role"), root.get("aria-label"), root.get("class")) == ("img", "Deux barres", "chart")
    assert root.get("viewBox")
    assert root.get("width") is None
    inside = [element for element in root.iter() if element is not root]
    assert not [element for element in inside if element.get("role") or element.get("aria-label")]


def test_a_drawing_needs_nothing_that_a_strict_policy_refuses() -> None:
    root = ET.fromstring(draw(DRAWING))
    assert not [element for element in root.iter() if element.get("style")]
    assert {element.tag for element in root.iter()} <= {
        f"{SVG}{name}" for name in ("svg", "g", "path", "rect", "line", "text", "title")
    }


def test_marks_say_what_they_are_on_hover() -> None:
    titles = [element.text for element in ET.fromstring(draw(DRAWING)).iter(f"{SVG}title")]
    assert titles == ["a & <b>\ufffd", "c"]


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
def test_days_on_which_clocks_change_have_as_many_bars_as_hours(day: date, hours: int) -> None:
    chosen = selection(first=day, last=day, bucket="hour", group="none")
    starts = bucket_starts(chosen.start, chosen.end, "hour", PARIS)
    page = build_page(chosen, reading([row(start, requests=7) for start in starts]), today=day)
    assert page.figure is not None
    root = ET.fromstring(draw(drawings_of(page.figure, "fr")[0]))
    said = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert len(said) == len(set(said)) == hours
    assert [text for text in said if "UTC+" in text] == ([one for one in said if ", 2\u00a0h (" in one])
    assert sum(", 2\u00a0h" in text for text in said) == hours - 23


def test_labels_are_escaped() -> None:
    svg = inline('<svg xmlns="http://www.w3.org/2000/svg"/>', label='"><script>', css_class="chart")
    assert "<script>" not in svg


def test_data_from_elsewhere_is_refused() -> None:
    elsewhere = {**SPEC, "data": {"url": "http://127.0.0.1:9/rows.json"}}

    async def work(drawer: Drawer) -> None:
        with pytest.raises(DrawingError, match="not allowed"):
            await drawer.draw([Drawing(elsewhere, "", "")])
        assert len(await drawer.draw([DRAWING])) == 1

    with_drawer(work)


def test_drawings_come_back_in_order_also_when_asked_for_at_once() -> None:
    async def work(drawer: Drawer) -> None:
        asked = [Drawing(SPEC, f"chart {number}", "chart") for number in range(6)]
        answers = await asyncio.gather(*(drawer.draw([drawing]) for drawing in asked))
        assert [ET.fromstring(svg).get("aria-label") for (svg,) in answers] == [drawing.label for drawing in asked]

    with_drawer(work)


def test_the_same_drawing_is_made_once_and_the_least_wanted_ones_are_forgotten() -> None:
    async def work(drawer: Drawer) -> None:
        (first,) = await drawer.draw([DRAWING])
        worker_of(drawer).kill()  # nobody needs it again
        assert await drawer.draw([DRAWING, DRAWING]) == [first, first]

    with_drawer(work)
    kept = KeptDrawings(characters_max=10)
    one, two, three = b"1", b"2", b"3"
    kept.keep(one, "1234")
    kept.keep(two, "5678")
    assert kept.find(one) == "1234"
    kept.keep(three, "90")
    kept.keep(three, "9012")
    assert (kept.find(one), kept.find(two), kept.find(three)) == ("1234", None, "9012")


def test_a_worker_that_dies_is_replaced() -> None:
    async def work(drawer: Drawer) -> None:
        await drawer.draw([DRAWING])
        first = worker_of(drawer)
        os.kill(first.pid, signal.SIGKILL)
        assert len(await drawer.draw([ANOTHER])) == 1
        assert worker_of(drawer).pid != first.pid

    with_drawer(work)


def test_a_drawing_that_takes_too_long_fails_and_costs_only_its_worker() -> None:
    async def work(drawer: Drawer) -> None:
        await drawer.draw([DRAWING])
        stuck = worker_of(drawer)
        os.kill(stuck.pid, signal.SIGSTOP)
        drawer._timeout_s = 0.3
        with pytest.raises(DrawingError, match="not drawn within"):
            await drawer.draw([ANOTHER])
        assert stuck.returncode == -signal.SIGKILL
        drawer._timeout_s = 60
        assert len(await drawer.draw([ANOTHER])) == 1

    with_drawer(work)


def test_a_reader_who_leaves_does_not_get_the_next_one_the_wrong_chart() -> None:
    async def work(drawer: Drawer) -> None:
        leaving = asyncio.create_task(drawer.draw([Drawing(SPEC, "left", "chart")]))
        await asyncio.sleep(0.05)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        (svg,) = await drawer.draw([Drawing(SPEC, "stayed", "chart")])
        assert ET.fromstring(svg).get("aria-label") == "stayed"

    with_drawer(work)


def test_closing_ends_the_worker_and_later_drawings_fail() -> None:
    async def run() -> None:
        drawer = Drawer()
        async with drawer.running():
            await drawer.draw([DRAWING])
            worker = worker_of(drawer)
        assert worker.returncode is not None
        with pytest.raises(DrawingError, match="closed"):
            await drawer.draw([ANOTHER])

    asyncio.run(run())


def test_the_worker_ends_with_its_input() -> None:
    async def run() -> None:
        drawer = Drawer()
        await drawer.draw([DRAWING])
        worker = worker_of(drawer)
        assert worker.stdin is not None
        worker.stdin.close()  # what the system does for a parent that was killed
        assert await asyncio.wait_for(worker.wait(), 20) == 0
        await drawer.close()

    asyncio.run(run())

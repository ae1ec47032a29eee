"""Draws charts: Vega-Lite specifications in, SVG out, in a process of its own.

Vega's engine holds the interpreter lock while it draws, and a process forked after a first drawing hangs. So one
worker, started fresh by the operating system (never forked from this process's memory), draws for everybody: it reads
requests from its standard input and ends with it, so it can't outlive its parent. It is warmed at start-up, replaced
when it dies, and killed when a drawing takes too long.

A message is four bytes of length (big-endian) and that many bytes of JSON, both ways.
"""

import asyncio
import hashlib
import json
import logging
import re
import signal
import struct
import sys
import xml.etree.ElementTree as ET
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

LOG = logging.getLogger("jauge.drawing")

Spec = Mapping[str, Any]
"""A Vega-Lite 6 specification as a plain dictionary, data included."""

DRAWING_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
KEPT_CHARACTERS_MAX = 16 * 1024 * 1024
_LENGTH = struct.Struct(">I")
_SVG = "http://www.w3.org/2000/svg"
_ACCESSIBILITY = ("role", "aria-label", "aria-roledescription", "aria-hidden")
# Names of models and projects may hold characters that XML 1.0 has no way to write.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WARMING: Spec = {"mark": "bar", "data": {"values": [{"x": 1}]}, "encoding": {"x": {"field": "x", "type": "ordinal"}}}


@dataclass(frozen=True, slots=True)
class Drawing:
    """One chart to draw: its specification, the label read to those who don't see it, and its CSS class."""

    spec: Spec
    label: str
    css_class: str


class DrawingError(Exception):
    """The chart could not be drawn: the worker refused it, died or took too long. Pages then show figures alone."""


class KeptDrawings:
    """The drawings that were asked for last: the same specification gives the same drawing."""

    def __init__(self, characters_max: int = KEPT_CHARACTERS_MAX) -> None:
        self._characters_max, self._characters = characters_max, 0
        self._svgs: OrderedDict[bytes, str] = OrderedDict()

    def find(self, asked: bytes) -> str | None:
        """A drawing made before, as it was asked of the worker, if it is still there."""
        key = hashlib.sha256(asked).digest()
        if key in self._svgs:
            self._svgs.move_to_end(key)
        return self._svgs.get(key)

    def keep(self, asked: bytes, svg: str) -> None:
        """Keep a drawing; those that nobody has asked for longest go."""
        key = hashlib.sha256(asked).digest()
        self._characters += len(svg) - len(self._svgs.pop(key, ""))
        self._svgs[key] = svg
        while self._characters > self._characters_max:
            _key_gone, gone = self._svgs.popitem(last=False)
            self._characters -= len(gone)


class Drawer:
    """The drawing worker and the queue in front of it. Belongs to the event loop that it was started in last."""

    def __init__(self, *, timeout_s: float = DRAWING_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._worker: asyncio.subprocess.Process | None = None
        self._warming: asyncio.Task[None] | None = None
        self._is_closed = False
        self._kept = KeptDrawings()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The worker for as long as the block lasts: an application's lifespan."""
        await self.start()
        try:
            yield
        finally:
            await self.close()

    async def start(self) -> None:
        """Start the worker and warm it in the background: nobody waits for the first drawing's half second."""
        self._turn, self._is_closed = asyncio.Lock(), False
        self._warming = asyncio.create_task(self._warm())
        await asyncio.sleep(0)  # it takes its turn before any drawing asked for from here on

    async def draw(self, drawings: Sequence[Drawing]) -> list[str]:
        """SVG elements, in order, ready to stand inline in a page.

        Raises: DrawingError. The time-out covers the wait for earlier drawings, so nobody waits long for a slow chart.
        """
        asked = [_asked(drawing) for drawing in drawings]
        known = [self._kept.find(one) for one in asked]
        if None not in known:
            return [svg for svg in known if svg is not None]
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._turn:
                    answer = await self._exchange_or_restart(_joined(asked))
        except TimeoutError as error:
            raise DrawingError(f"not drawn within {self._timeout_s} s") from error
        if "error" in answer:
            raise DrawingError(str(answer["error"]))
        svgs = [str(svg) for svg in answer["svgs"]]
        for one, svg in zip(asked, svgs, strict=True):
            self._kept.keep(one, svg)
        return svgs

    async def close(self) -> None:
        """End the worker; drawings fail until it is started again."""
        self._is_closed = True
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        async with self._turn:
            await self._end_worker()

    async def _warm(self) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_S), self._turn:
                await self._exchange(_joined([_asked(Drawing(_WARMING, "", ""))]))
        except (OSError, EOFError, TimeoutError):
            # Not fatal: the next drawing starts another worker, and says so if that fails too.
            LOG.warning("the drawing worker did not start", exc_info=True)

    async def _exchange_or_restart(self, request: bytes) -> dict[str, Any]:
        for attempt in (1, 2):
            try:
                return await self._exchange(request)
            except (OSError, EOFError) as error:
                if attempt == 2:
                    raise DrawingError("the drawing worker died twice") from error
                LOG.warning("the drawing worker died; starting another")
        raise AssertionError("unreachable")

    async def _exchange(self, request: bytes) -> dict[str, Any]:
        worker = await self._running_worker()
        assert worker.stdin is not None
        assert worker.stdout is not None
        is_complete = False
        try:
            worker.stdin.write(_packed(request))
            await worker.stdin.drain()
            (length,) = _LENGTH.unpack(await worker.stdout.readexactly(_LENGTH.size))
            answer: dict[str, Any] = json.loads(await worker.stdout.readexactly(length))
            is_complete = True
            return answer
        finally:
            # A worker left in the middle of an answer (time-out, cancelled request) would answer the wrong question.
            if not is_complete:
                await self._end_worker()

    async def _running_worker(self) -> asyncio.subprocess.Process:
        if self._is_closed:
            raise DrawingError("the drawer is closed")
        if self._worker is None or self._worker.returncode is not None:
            self._worker = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "reports.drawing",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MESSAGE_BYTES_MAX,
            )
        return self._worker

    async def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None and worker.returncode is None:
            worker.kill()
            await worker.wait()


def draw(drawing: Drawing) -> str:
    """Draw one chart here and now. It holds the interpreter lock: for the worker, tests and command-line use.

    Raises: ValueError when Vega refuses the specification, or it asks for data from elsewhere.
    """
    import vl_convert  # noqa: PLC0415 - the process that serves pages must never load Vega's engine

    # An empty list allows no address at all; None would allow every one.
    svg = vl_convert.vegalite_to_svg(dict(drawing.spec), allowed_base_urls=[])
    return inline(svg, label=drawing.label, css_class=drawing.css_class)


def inline(svg: str, *, label: str, css_class: str) -> str:
    """Vega's SVG made fit to stand inside a page.

    It scales with its box, is one labelled image to assistive technology, and shows each mark's description on hover.
    Raises: xml.etree.ElementTree.ParseError.
    """
    ET.register_namespace("", _SVG)
    root = ET.fromstring(_NOT_XML.sub("\ufffd", svg))  # noqa: S314 - our own worker wrote it
    for element in root.iter():
        description = element.get("aria-label")
        is_mark = element.get("role") == "graphics-symbol" and element.get("aria-roledescription") != "axis"
        for name in _ACCESSIBILITY:
            element.attrib.pop(name, None)
        if is_mark and description:
            ET.SubElement(element, f"{{{_SVG}}}title").text = description
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("class", css_class)
    root.set("role", "img")
    root.set("aria-label", label)
    return ET.tostring(root, encoding="unicode")


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The worker: answer every request until the input ends."""
    while len(header := requests.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(header)
        answers.write(_packed(json.dumps(_answer(json.loads(requests.read(length)))).encode()))
        answers.flush()


def _answer(request: Mapping[str, Any]) -> dict[str, object]:
    try:
        return {"svgs": [draw(Drawing(**drawing)) for drawing in request["drawings"]]}
    except Exception as error:
        # One bad chart must not cost the next reader a new worker.
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def _asked(drawing: Drawing) -> bytes:
    """A drawing as the worker is asked for it. Written once: a specification is large, and the event loop waits."""
    return json.dumps({"spec": drawing.spec, "label": drawing.label, "css_class": drawing.css_class}).encode()


def _joined(asked: Sequence[bytes]) -> bytes:
    return b'{"drawings": [' + b",".join(asked) + b"]}"


def _packed(body: bytes) -> bytes:
    assert len(body) <= MESSAGE_BYTES_MAX
    return _LENGTH.pack(len(body)) + body


if __name__ == "__main__":
    # Ctrl-C in a terminal reaches the whole group; the parent closes our input once it has answered its readers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer)

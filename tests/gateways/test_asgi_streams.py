"""Streams that end at any point, by any of the ways in which they end, driven call by call."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from metering.client import AsyncJauge
from metering.gateways.asgi import JaugeMiddleware
from tests.gateways.conftest import World, told
from tests.gateways.upstream import ANSWER_TOKENS, Upstream

WAYS = ("cancelled", "disconnected", "refused to be sent")


@dataclass
class Exchange:
    """One request as a server makes it, whose client leaves after so many chunks of the answer.

    words: of the prompt, by which its entry is found.
    """

    key: str
    words: int
    chunks: int = 1_000
    way: str = "cancelled"
    sent: list[dict[str, Any]] = field(default_factory=list)
    behaviour: str = ""

    async def run(self, app: Any) -> None:
        """Serve it."""
        self._left = asyncio.Event()
        self._is_asked = False
        headers = [
            (b"authorization", f"Bearer {self.key}".encode()), (b"content-type", b"application/json"),
            (b"x-behaviour", self.behaviour.encode()),
        ]  # fmt: skip
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
        self._task = asyncio.current_task()
        await app(scope, self._receive, self._send)

    @property
    def tokens_sent(self) -> int:
        return sum(b'"content"' in message.get("body", b"") for message in self.sent)

    async def _receive(self) -> dict[str, Any]:
        if not self._is_asked:
            self._is_asked = True
            prompt = " ".join(["mot"] * self.words)
            body = {"model": "small", "stream": True, "messages": [{"role": "user", "content": prompt}]}
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if self.tokens_sent >= self.chunks and not self._left.is_set():
            self._left.set()
            if self.way == "cancelled":
                assert self._task is not None
                self._task.cancel()
            elif self.way == "refused to be sent":
                raise OSError("the connection is closed")
        await asyncio.sleep(0)


def gateway_run(world: World, work: Callable[[AsyncJauge, Any], Awaitable[None]], app: Any = None) -> Upstream:
    upstream = Upstream()

    async def serve() -> None:
        async with world.ground.platform.ajauge() as jauge:
            await work(jauge, JaugeMiddleware(app or upstream, client=jauge))

    asyncio.run(serve())
    return upstream


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_leaves_at_any_point_pays_for_what_was_sent(world: World, way: str) -> None:
    exchanges = [
        Exchange(world.key, words=10 * (chunks + 1), chunks=chunks, way=way, behaviour="waits-5")
        for chunks in range(ANSWER_TOKENS)
    ]

    async def work(_jauge: AsyncJauge, app: Any) -> None:
        found = await asyncio.gather(*(exchange.run(app) for exchange in exchanges), return_exceptions=True)
        raised = {"cancelled": asyncio.CancelledError, "refused to be sent": OSError, "disconnected": type(None)}
        assert {type(one) for one in found} == {raised[way]}

    gateway_run(world, work)
    entries = world.recorded(len(exchanges))
    assert {entry["status"] for entry in entries} == {"aborted"}
    counted = {entry["input_tokens"]: entry["output_tokens"] for entry in entries}
    sent = {estimate(exchange.words): exchange.tokens_sent for exchange in exchanges if exchange.tokens_sent}
    assert counted == sent | {None: None}
    assert {entry["count_source"] for entry in entries if entry["output_tokens"]} == {"partial_stream"}
    assert world.standing()["output_tokens"] == (sum(sent.values()), 0)
    assert world.standing()["concurrent_requests"] == (0, 0)


def test_each_piece_of_the_answer_is_passed_on_before_the_next_is_made(world: World) -> None:
    exchange = Exchange(world.key, words=1)
    made = []

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: dict[str, Any]) -> None:
            await send(message)
            made.append((message, len(exchange.sent)))

        await upstream(scope, receive, note)

    upstream = Upstream()

    async def work(_jauge: AsyncJauge, app: Any) -> None:
        await exchange.run(app)

    gateway_run(world, work, noting)
    bodies = [(message["body"], passed) for message, passed in made[1:]]
    hidden = [place for place, (body, _passed) in enumerate(bodies) if b'"prompt_tokens"' in body]
    assert len(hidden) == 1  # the usage that the client didn't ask for
    shown = [body for place, (body, _passed) in enumerate(bodies) if place not in hidden]
    assert [message["body"] for message in exchange.sent[1:]] == shown
    assert [passed for _body, passed in bodies[: hidden[0]]] == list(range(2, hidden[0] + 2))
    (entry,) = world.recorded(1)
    assert told(entry, "status", "output_tokens", "count_source") == ("ok", ANSWER_TOKENS, "provider")


def answering(*messages: dict[str, Any]) -> Any:
    """An application that says just this."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)

    return app


def start(kind: str, **headers: str) -> dict[str, Any]:
    pairs = [(b"Content-Type", kind.encode())]
    pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": pairs}


def body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


USAGE = b'{"usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}'
EVENT = b'data: {"choices": [{"delta": {"content": "mot"}}]}\n\n'


ANSWERS: list[tuple[list[dict[str, Any]], tuple[Any, ...]]] = [
    ([], ("error", None, None)),
    ([start("application/json")], ("error", None, None)),
    ([start("application/json"), body(USAGE)], ("ok", 2, "provider")),
    ([start("application/json", content_encoding="gzip"), body(gzip.compress(USAGE))], ("ok", 2, "provider")),
    ([start("application/json", content_encoding="br"), body(b"?")], ("ok", None, "estimated")),
    ([start("text/plain"), body(b"?")], ("ok", None, "estimated")),
    ([start("text/event-stream", content_encoding="br"), body(b"?")], ("ok", None, "estimated")),
    ([start("text/event-stream"), body(EVENT, more=True)], ("error", 1, "partial_stream")),
    ([start("text/event-stream"), body(EVENT)], ("error", 1, "partial_stream")),
    ([start("text/event-stream"), body(EVENT + b"data: [DONE]\n\n")], ("ok", 1, "estimated")),
]


def test_whatever_a_gateway_answers_is_told(world: World) -> None:
    """One after another, as the entries are in order of time."""
    answers = iter([messages for messages, _expected in ANSWERS])
    exchanges = [Exchange(world.key, words=1) for _ in ANSWERS]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answering(*next(answers))(scope, receive, send)

    async def work(_jauge: AsyncJauge, metered: Any) -> None:
        for exchange in exchanges:
            await exchange.run(metered)

    gateway_run(world, work, app)
    entries = world.recorded(len(ANSWERS))
    found = [told(entry, "status", "output_tokens", "count_source") for entry in entries]
    assert found == [expected for _messages, expected in ANSWERS]
    for exchange, (messages, _expected) in zip(exchanges, ANSWERS, strict=True):
        assert [message.get("body") for message in exchange.sent] == [message.get("body") for message in messages]


def test_headers_of_jauge_take_the_place_of_a_providers_own(world: World) -> None:
    exchange = Exchange(world.key, words=1)

    async def work(_jauge: AsyncJauge, app: Any) -> None:
        await exchange.run(app)

    limits = {"X_RateLimit_Limit_Requests": "1", "x_other": "1"}
    gateway_run(world, work, answering(start("application/json", **limits), body(b"{}")))
    headers = [(name.decode(), value.decode()) for name, value in exchange.sent[0]["headers"]]
    assert [value for name, value in headers if name == "x-ratelimit-limit-requests"] == ["500"]
    assert ("x-other", "1") in headers


def test_what_was_used_is_told_before_the_gateways_background_tasks_end(world: World) -> None:
    told_meanwhile = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answering(start("application/json"), body(USAGE))(scope, receive, send)
        await asyncio.to_thread(lambda: told_meanwhile.extend(world.recorded(1)))

    async def work(_jauge: AsyncJauge, metered: Any) -> None:
        await Exchange(world.key, words=1).run(metered)

    gateway_run(world, work, app)
    assert told_meanwhile[0]["output_tokens"] == 2


def test_a_gateway_that_raises_is_heard_and_its_hold_given_back(world: World) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async def work(_jauge: AsyncJauge, metered: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            await Exchange(world.key, words=1).run(metered)
        assert (await asyncio.to_thread(world.standing))["concurrent_requests"] == (0, 0)

    gateway_run(world, work, app)
    assert [entry["status"] for entry in world.recorded(1)] == ["error"]


def estimate(words: int) -> int:
    """Tokens that a prompt of so many words is held to be."""
    return -(-(len("rolecontentuser") + 4 * words - 1) // 3)

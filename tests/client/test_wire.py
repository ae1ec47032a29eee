"""Connections of the client's own, against a server that says what a test wants it to."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from metering.client.protocol import NO_ANSWER, Answer, Call
from metering.client.wire import CONNECTIONS_MAX, WireCarrier, is_proxied

ASK = Call("/v1/quota/reserve", {"model": "small"}, 5.0)
YES = b'HTTP/1.1 200 OK\r\nLink: <a>\r\nlink: <b>\r\nContent-Length: 16\r\n\r\n{"allowed":true}'
Asked = list[tuple[int, bytes]]


class Told(asyncio.Protocol):
    """Answers each question with the next of what it is told; None answers nothing. asked: connection and question."""

    def __init__(self, answers: list[bytes | None], asked: Asked, places: list["Told"], is_closing: bool) -> None:
        self._answers, self._asked, self._is_closing = answers, asked, is_closing
        self._place = len(places)
        places.append(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._asked.append((self._place, data))
        answer = self._answers.pop(0)
        for at in range(len(answer or b"")):
            self.transport.write(answer[at : at + 1])
        if self._is_closing:
            self.transport.close()


def asking(
    work: Callable[[WireCarrier], Awaitable[Any]], *answers: bytes | None, is_closing: bool = False, path: str = ""
) -> tuple[Any, Asked]:
    """What comes of some work against a server, and what that was asked."""
    asked: Asked = []

    async def run() -> Any:
        places: list[Told] = []
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Told(list(answers), asked, places, is_closing), "127.0.0.1", 0)
        carrier = WireCarrier(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}", "secret")
        try:
            return await work(carrier)
        finally:
            await carrier.aclose()
            for place in places:
                place.transport.abort()
            server.close()

    return asyncio.run(run()), asked


def posting(*calls: Call) -> Callable[[WireCarrier], Awaitable[list[Answer]]]:
    async def post(carrier: WireCarrier) -> list[Answer]:
        return [await carrier.post(call) for call in calls]

    return post


def test_answers_come_over_one_connection_as_they_were_sent() -> None:
    head = b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n"
    chunked = head + b'5\r\n{"cod\r\n8\r\ne": "x"}\r\n0\r\n\r\n'
    early = b"HTTP/1.1 103 Early Hints\r\nLink: <c>\r\n\r\n" + YES
    page = b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\n<no>"
    found, asked = asking(posting(*[ASK] * 4), YES, chunked, early, page, path="/jauge/")
    assert found == [
        Answer(200, {"allowed": True}, {"link": "<a>, <b>", "content-length": "16"}),
        Answer(429, {"code": "x"}, {"transfer-encoding": "chunked", "retry-after": "7"}),
        Answer(200, {"allowed": True}, {"link": "<a>, <b>", "content-length": "16"}),
        Answer(502, {}, {"content-length": "4"}),
    ]
    assert found[1].retry_after_s == 7
    assert {place for place, _question in asked} == {0}
    head, _blank, body = asked[0][1].partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /jauge/v1/quota/reserve HTTP/1.1"
    assert {b"Authorization: Bearer secret", b"Content-Length: 17", b"Content-Type: application/json"} <= {
        *head.split(b"\r\n")
    }
    assert body == b'{"model":"small"}'


@pytest.mark.parametrize("answer", [None, b"?" * 20, YES[:-3], b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"])
def test_a_connection_that_fails_is_no_answer(answer: bytes | None) -> None:
    found, asked = asking(posting(ASK), answer, is_closing=True)
    assert found == [NO_ANSWER]
    assert len(asked) == 1


def test_a_connection_that_was_closed_while_it_was_idle_is_made_again() -> None:
    async def work(carrier: WireCarrier) -> list[Answer]:
        first = await carrier.post(ASK)
        await asyncio.sleep(0.01)  # the server has closed it meanwhile
        return [first, await carrier.post(ASK)]

    found, asked = asking(work, YES, is_closing=True)
    assert [answer.status for answer in found] == [200, 200]
    assert [place for place, _question in asked] == [0, 1]


def test_what_is_asked_again_is_asked_over_another_connection() -> None:
    again = Call(ASK.path, ASK.body, 5.0, tries=2)
    found, asked = asking(posting(again), None, is_closing=True)
    assert found == [NO_ANSWER]
    assert [place for place, _question in asked] == [0, 1]


def test_an_answer_that_nobody_waits_for_any_more_is_nobody_elses() -> None:
    async def work(carrier: WireCarrier) -> list[Answer]:
        late = await carrier.post(Call(ASK.path, ASK.body, 0.05))
        leaving = asyncio.create_task(carrier.post(ASK))
        await asyncio.sleep(0.02)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        return [late, *await asyncio.gather(*(carrier.post(Call(ASK.path, ASK.body, 0.05)) for _ in range(3)))]

    found, asked = asking(work, None)
    assert found == [NO_ANSWER] * 4
    assert sorted(place for place, _question in asked) == [0, 1, 2, 3, 4]


def test_calls_beyond_the_connections_wait_for_one() -> None:
    async def work(carrier: WireCarrier) -> list[Answer]:
        return await asyncio.gather(*(carrier.post(ASK) for _ in range(2 * CONNECTIONS_MAX)))

    found, asked = asking(work, YES, YES, YES, YES, YES, YES)
    assert {answer.status for answer in found} == {200}
    assert len({place for place, _question in asked}) <= CONNECTIONS_MAX


def test_proxies_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert not is_proxied("https://jauge.example")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert is_proxied("https://jauge.example")
    assert not is_proxied("http://jauge.example")
    monkeypatch.setenv("no_proxy", "jauge.example")
    assert not is_proxied("https://jauge.example")

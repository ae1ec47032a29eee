"""Calls over HTTP/1.1 for code that awaits, on connections of our own.

A gateway's client waits for the answer before its first token, and a call of httpx takes a millisecond of processor,
which is more than everything else that is done for the question. Through a proxy calls go by httpx (`http`).
"""

import asyncio
import ssl
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httptools
import httpx
import msgspec

from metering.client.http import answer_of
from metering.client.protocol import NO_ANSWER, Answer, Call

CONNECTIONS_MAX = 100
"""Calls under way at once; others wait, as long as their time allows."""

IDLE_S = 30.0
"""A connection that wasn't used for so long isn't used again: what lies between may have forgotten it."""


def is_proxied(url: str) -> bool:
    """Whether the environment names a proxy for an address."""
    parts = urlsplit(url)
    proxies = getproxies()
    return bool({parts.scheme, "all"} & proxies.keys()) and not proxy_bypass(parts.hostname or "")


class WireCarrier:
    """Carries calls over connections that are kept; for one event loop."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if is_tls else 80)
        self._tls: ssl.SSLContext | None = httpx.create_ssl_context() if is_tls else None
        self._prefix = parts.path.rstrip("/")
        host = parts.netloc.rpartition("@")[2]
        self._head = f" HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)
        self._idle: list[_Connection] = []

    async def post(self, call: Call) -> Answer:
        """The answer to a call; NO_ANSWER where none comes in time."""
        body = call.body if isinstance(call.body, bytes) else msgspec.json.encode(call.body)
        head = f"POST {self._prefix}{call.path}{self._head}Content-Length: {len(body)}\r\n\r\n"
        question = head.encode() + body
        try:
            async with asyncio.timeout(call.timeout_s), self._room:
                for _ in range(call.tries):
                    try:
                        return await self._exchange(question)
                    except OSError:  # an idle connection may have been closed under us
                        continue
        except TimeoutError:
            pass
        return NO_ANSWER

    async def aclose(self) -> None:
        """Leave no connection open; nobody may be waiting."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, question: bytes) -> Answer:
        """The answer to a question. Raises: OSError where the connection fails."""
        connection = self._kept() or await self._open()
        try:
            answer = await connection.ask(question)
        except BaseException:  # also where who asks has left: the answer would be the next one's
            connection.close()
            raise
        self._idle.append(connection)
        return answer

    def _kept(self) -> "_Connection | None":
        """The connection that was used last, if it is still good; those before it are older."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_good(IDLE_S):
                return connection
            connection.close()
        return None

    async def _open(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _transport, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return connection


class _Connection(asyncio.Protocol):
    """A connection, with one question at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._answered_s = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def is_good(self, idle_s_max: float) -> bool:
        """Whether it may be asked again."""
        return self._transport is not None and self._loop.time() - self._answered_s < idle_s_max

    async def ask(self, question: bytes) -> Answer:
        """Send a question and wait for its answer. Raises: OSError."""
        if self._transport is None:
            raise ConnectionResetError
        self._answer = self._loop.create_future()
        self._transport.write(question)
        return await self._answer

    def close(self) -> None:
        """End it; nobody may be waiting."""
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()
        self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """It is gone; who waits is told."""
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser has read a header."""
        found, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[found] = f"{self._headers[found]}, {text}" if found in self._headers else text

    def on_body(self, data: bytes) -> None:
        """The parser has read a part of the body."""
        self._body += data

    def on_message_complete(self) -> None:
        """The parser has read an answer; one of 100 to 199 only comes before it."""
        status, headers, body = self._parser.get_status_code(), self._headers, bytes(self._body)
        self._headers, self._body = {}, bytearray()
        if status < 200:
            return
        self._answered_s = self._loop.time()
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer_of(status, headers, body))

"""One answer on its way: passed on as it comes, read beside it, and told of when it ends, however that is."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from metering.client import AsyncHold, SpoolFull
from metering.client.holds import Outcome
from metering.events.envelope import NAME_LENGTH_MAX, CountSource
from metering.gateways.answers import BodyReader, OtherReader, Quantities, Reader, StreamReader
from metering.gateways.bodies import Body, FormBody, Message, Receive, Scope, Send, replayed
from metering.gateways.messages import MessageReader, MessageStreamReader
from metering.gateways.refusing import encoded
from metering.gateways.requests import MESSAGES, Reading
from metering.rules.quantities import Operation, Status

_GENERATED: frozenset[Operation] = frozenset({"chat", "completion"})
_LIMITS = b"anthropic-ratelimit-"
"""Headers of limits that a provider has with the gateway; OpenAI's have the names of ours."""

_READ: frozenset[Operation] = frozenset({"embedding", "rerank", "image", "other"})


@dataclass(slots=True)
class Incoming:
    """A request: what it asks for, and its body unless that passes unread.

    hides_usage: its stream is asked for a usage that its client doesn't expect.
    """

    endpoint: str
    reading: Reading
    body: Body | None
    hides_usage: bool = False

    def close(self) -> None:
        """Free what was kept of the body."""
        if self.body is not None:
            self.body.close()


class Passage:
    """A held request in the gateway's hands."""

    def __init__(self, hold: AsyncHold, incoming: Incoming, receive: Receive, send: Send) -> None:
        self._hold = hold
        self._incoming = incoming
        self._receive = receive
        self._send = send
        self._reader: Reader = OtherReader()
        self._http_status: int | None = None
        self._bytes_in = 0 if incoming.body is None else incoming.body.size
        self._bytes_out = 0
        self._is_whole = False  # the answer was passed on to its end
        self._is_gone = False  # the client left before that
        self._telling: asyncio.Task[None] | None = None

    async def run(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], scope: Scope) -> None:
        """Let the gateway serve the request, and tell what it used. Raises what the gateway raises."""
        body = self._incoming.body
        receive = self._listen if body is None else replayed(body, self._listen)
        try:
            await app(scope, receive, self._pass_on)
        except Exception:
            await self._tell(is_failed=True)
            raise
        await self._tell(is_failed=False)

    async def _listen(self) -> Message:
        """What the client sends, and that it leaves."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._is_gone |= not self._is_whole
        elif self._incoming.body is None:
            self._bytes_in += len(message.get("body", b""))
        return message

    async def _pass_on(self, message: Message) -> None:
        """A part of the answer, at once."""
        if message["type"] == "http.response.start":
            message = self._begin(message)
        elif message["type"] == "http.response.body":
            is_last = not message.get("more_body", False)
            piece = message.get("body", b"")
            passed_on = self._follow(piece, is_last=is_last)
            if piece and not passed_on and not is_last:
                return
            message = {**message, "body": passed_on}
        try:
            await self._send(message)
        except OSError:
            self._is_gone = True
            raise
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            # Beside what the gateway still does: its background tasks, and a cancellation once the client has it all.
            self._is_whole = True
            self._telling = asyncio.create_task(self._settle(is_failed=False))

    def _begin(self, message: Message) -> Message:
        """The answer's head, with where the limits stand; what the provider says of its own is left out."""
        self._http_status = message["status"]
        own = encoded(self._hold.headers)
        dropped = {name for name, _value in own}
        headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
        told = dict(headers)
        is_message = self._incoming.endpoint == MESSAGES
        kind, encoding = told.get(b"content-type", b""), told.get(b"content-encoding", b"identity")
        if self._http_status < 400 and kind.startswith(b"text/event-stream") and encoding == b"identity":
            hides_usage = self._incoming.hides_usage
            self._reader = MessageStreamReader() if is_message else StreamReader(hides_usage=hides_usage)
            dropped.add(b"content-length")
        elif self._http_status < 400 and b"json" in kind:
            self._reader = (MessageReader if is_message else BodyReader)(is_deflated=encoding != b"identity")
        kept = [(name, value) for name, value in headers if name not in dropped and not name.startswith(_LIMITS)]
        return {**message, "headers": kept + own}

    def _follow(self, data: bytes, *, is_last: bool) -> bytes:
        """Read a piece of the answer; what of it to pass on."""
        before = self._reader.counted or 0
        passed_on = self._reader.feed(data, is_last=is_last)
        self._bytes_out += len(passed_on)
        counted = (self._reader.counted or 0) - before
        if counted and isinstance(self._reader, StreamReader):
            self._hold.add(output_tokens=counted)
        return passed_on

    async def _tell(self, *, is_failed: bool) -> None:
        """Tell what was used, unless that is under way, and wait for it."""
        if self._telling is None:
            self._telling = asyncio.create_task(self._settle(is_failed=is_failed))
        await asyncio.wait({self._telling})
        error = self._telling.exception()
        if error is not None and not isinstance(error, SpoolFull):  # which the client has logged
            raise error

    async def _settle(self, *, is_failed: bool) -> None:
        status = self._status(is_failed=is_failed)
        outcome: Outcome = {"status": status, "http_status": self._http_status}
        has_run = status == "ok" or self._reader.usage is not None or bool(self._reader.counted)
        if not has_run:
            # The hold is given back at once, and the event says how it ended.
            await self._hold.give_back(**outcome)
            return
        quantities, outcome["count_source"] = self._quantities()
        reason = self._reader.finish_reason
        outcome["finish_reason"] = reason if reason is not None and len(reason) <= NAME_LENGTH_MAX else None
        await self._hold.commit(quantities, **outcome)

    def _status(self, *, is_failed: bool) -> Status:
        if self._is_gone and not self._is_whole:
            return "aborted"
        is_cut = isinstance(self._reader, StreamReader) and self._is_generated and not self._reader.is_complete
        is_failed |= self._reader.is_failed or not self._is_whole or is_cut
        return "error" if is_failed or (self._http_status or 500) >= 400 else "ok"

    @property
    def _is_generated(self) -> bool:
        return self._incoming.reading.operation in _GENERATED

    def _quantities(self) -> tuple[Quantities, CountSource | None]:
        """What was used and where the counts come from: the provider, or else what was seen here."""
        reading, body = self._incoming.reading, self._incoming.body
        is_partial = self._reader.is_failed or not self._reader.is_complete
        found: Quantities = {"bytes_in": self._bytes_in, "bytes_out": self._bytes_out}
        seen: Quantities = {
            "embedding_inputs": reading.inputs, "documents": reading.documents, "images": reading.images,
            "searches": int(reading.operation == "search"),
        }  # fmt: skip
        found |= {name: count for name, count in seen.items() if count}
        if isinstance(body, FormBody) and reading.operation == "transcription" and body.audio_ms is not None:
            found["audio_ms"] = body.audio_ms
        usage = self._reader.usage
        if usage is not None and not (is_partial and self._is_generated):
            return found | usage, "partial_stream" if is_partial else "provider"
        if self._is_generated:
            found |= {"input_tokens": reading.prompt_tokens, "output_tokens": self._reader.counted} | (usage or {})
            return found, "partial_stream" if is_partial else "estimated"
        if reading.operation in _READ:
            return found | {"input_tokens": reading.prompt_tokens}, "estimated"
        return found, "gateway_tokenizer" if len(found) > 2 else None

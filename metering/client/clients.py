"""The clients: one for code that awaits, whoever carries its calls, and one for code that doesn't."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Required, Self, TypedDict, Unpack

import httpx

from metering.client.holds import Asked, Desk, HoldState, Outcome, Usage
from metering.client.http import AsyncHttpCarrier, HttpCarrier
from metering.client.protocol import AsyncCarrier, Carrier, Flow, T, begun, run, run_async
from metering.client.sending import Sender
from metering.client.spool import EVENT_BYTES_MAX, Spool
from metering.client.wire import WireCarrier, is_proxied
from metering.events.envelope import is_source
from metering.events.providers import Provider

SPOOL_BYTES_MAX = 64 * 1024 * 1024
TTL_S = 120
TIMEOUT_S = 2.0

CLOSE_S = 5.0
"""How long closing waits for what is spooled to be sent."""

CANCEL_S = 1.0
"""How long a cancelled request may still take to tell what it used; its event is spooled before."""


class Options(TypedDict, total=False):
    """How a gateway uses Jauge.

    source: the gateway's name, the same at every start. spool: a folder that outlives the process; several may share
    it. on_outage: whether requests run while Jauge is away; `refuse` unless it is stated. spool_bytes_max: beyond, no
    request runs (SpoolFull). ttl_s: of a hold without a sign of life. timeout_s: how long an answer is waited for.
    """

    source: Required[str]
    spool: Required[Path]
    on_outage: Literal["allow", "refuse"]
    spool_bytes_max: int
    ttl_s: int
    timeout_s: float


class _Client:
    """What all clients have: a spool, and who sends it. A process that forks opens its client after that."""

    def __init__(self, events: Carrier, **options: Unpack[Options]) -> None:
        bytes_max = options.get("spool_bytes_max", SPOOL_BYTES_MAX)
        if bytes_max < EVENT_BYTES_MAX:
            raise ValueError(f"spool_bytes_max is at least {EVENT_BYTES_MAX}, the room of one event")
        if not is_source(options["source"]):
            raise ValueError("source isn't a name")
        spool = Spool(options["spool"], bytes_max=bytes_max)
        self._sender = Sender(spool, events)
        self._desk = Desk(
            source=options["source"],
            spool=spool,
            on_outage=options.get("on_outage", "refuse"),
            ttl_s=options.get("ttl_s", TTL_S),
            timeout_s=options.get("timeout_s", TIMEOUT_S),
            told=self._sender.wake,
        )


class Jauge(_Client):
    """The client for code that doesn't await; threads may share it."""

    def __init__(self, url: str, token: str, **options: Unpack[Options]) -> None:
        super().__init__(HttpCarrier(httpx.Client(**_address(url, token))), **options)
        self._carrier = HttpCarrier(httpx.Client(**_address(url, token)))

    def hold(self, **asked: Unpack[Asked]) -> "Hold":
        """A request about to run: `with client.hold(…) as hold:`."""
        return Hold(self, self._desk, asked)

    def close(self) -> None:
        """Send what is spooled, for a few seconds; the rest is sent by the next process on this folder."""
        self._sender.close(CLOSE_S)
        self._carrier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow of calls."""
        return run(flow, self._carrier.post)


class Hold(HoldState):
    """A request that may run, until the end of its block."""

    def __init__(self, client: Jauge, desk: Desk, asked: Asked) -> None:
        super().__init__(desk, asked)
        self._client = client

    def extend(self, *, more_output_tokens: int) -> int:
        """Hold more output; returns how much of it is granted. Raises: Refused."""
        return self._client.run(self._extending(more_output_tokens))

    def commit(self, usage: Usage, *, provider: Provider | None = None, **outcome: Unpack[Outcome]) -> None:
        """Tell what was used, in all. Raises: ValueError; SpoolFull if the disk is full."""
        self._client.run(self._telling(usage, provider, outcome))

    def give_back(self, **outcome: Unpack[Outcome]) -> None:
        """Tell that nothing was used: what is held is free again, and the event says how it ended (error)."""
        self._client.run(self._giving_back(outcome))

    def add(self, **counted: int) -> None:
        """Count what was streamed since the last time; also the sign of life of a stream that lasts."""
        super().add(**counted)
        if self._is_beat_due:
            self._client.run(self._beating())

    def __enter__(self) -> Self:
        self._client.run(self._opening())
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: TracebackType | None) -> None:
        self._client.run(self._leaving(error))


class AsyncGateway(_Client):
    """A client for code that awaits; for one event loop."""

    def __init__(self, carrier: AsyncCarrier, events: Carrier, **options: Unpack[Options]) -> None:
        super().__init__(events, **options)
        self._carrier = carrier
        self._last_words: set[asyncio.Task[None]] = set()

    def hold(self, **asked: Unpack[Asked]) -> "AsyncHold":
        """A request about to run: `async with client.hold(…) as hold:`."""
        return AsyncHold(self, self._desk, asked)

    async def aclose(self) -> None:
        """Send what is spooled, for a few seconds; the rest is sent by the next process on this folder."""
        if self._last_words:
            await asyncio.wait(self._last_words, timeout=CANCEL_S)
        await asyncio.to_thread(self._sender.close, CLOSE_S)
        await self._carrier.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Carry out a flow of calls."""
        return await run_async(flow, self._carrier.post)

    async def run_to_its_end(self, flow: Flow[None]) -> None:
        """Carry out a flow that no cancellation stops, for a moment at most."""
        task = asyncio.create_task(self._bounded(self.run(flow)))
        self._last_words.add(task)
        task.add_done_callback(self._last_words.discard)
        await asyncio.wait({task})

    async def _bounded(self, words: Coroutine[Any, Any, None]) -> None:
        with suppress(TimeoutError):  # the event says it
            await asyncio.wait_for(words, CANCEL_S)


class AsyncJauge(AsyncGateway):
    """The client for code that awaits, over HTTP."""

    def __init__(self, url: str, token: str, **options: Unpack[Options]) -> None:
        carrier: AsyncCarrier = WireCarrier(url, token)
        if is_proxied(url):
            carrier = AsyncHttpCarrier(httpx.AsyncClient(**_address(url, token)))
        super().__init__(carrier, HttpCarrier(httpx.Client(**_address(url, token))), **options)


class AsyncHold(HoldState):
    """A request that may run, until the end of its block.

    Its hold is kept alive, however long that lasts, and grows with what `add` counts beyond it.
    """

    def __init__(self, client: AsyncGateway, desk: Desk, asked: Asked) -> None:
        super().__init__(desk, asked)
        self._client = client
        self._next_beat: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None
        self._extension: asyncio.Task[None] | None = None

    async def extend(self, *, more_output_tokens: int) -> int:
        """Hold more output; returns how much of it is granted. Raises: Refused."""
        return await self._client.run(self._extending(more_output_tokens))

    async def commit(self, usage: Usage, *, provider: Provider | None = None, **outcome: Unpack[Outcome]) -> None:
        """Tell what was used, in all. Raises: ValueError; SpoolFull if the disk is full."""
        await self._client.run(self._telling(usage, provider, outcome))

    async def give_back(self, **outcome: Unpack[Outcome]) -> None:
        """Tell that nothing was used: what is held is free again, and the event says how it ended (error)."""
        await self._client.run(self._giving_back(outcome))

    def add(self, **counted: int) -> None:
        """Count what was streamed since the last time; output beyond what is held is asked for beside the stream."""
        super().add(**counted)
        if self._is_short and (self._extension is None or self._extension.done()):
            self._extension = asyncio.create_task(self._client.run(self._catching_up()))

    async def __aenter__(self) -> Self:
        await self._client.run(self._opening())
        if self.is_held:
            self._beat_later()
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: TracebackType | None) -> None:
        for under_way in (self._next_beat, self._beat, self._extension):
            if under_way is not None:
                under_way.cancel()
        if error is None or isinstance(error, Exception):
            await self._client.run(self._leaving(error))
        else:
            await self._client.run_to_its_end(begun(self._leaving(error)))

    def _beat_later(self) -> None:
        # A timer, because most requests are over before it: a task costs ten times as much.
        self._next_beat = asyncio.get_running_loop().call_later(self._beat_s, self._begin_beat)

    def _begin_beat(self) -> None:
        self._beat = asyncio.create_task(self._client.run(self._beating()))
        self._beat.add_done_callback(lambda _beat: None if self._is_over else self._beat_later())


def _address(url: str, token: str) -> dict[str, Any]:
    return {"base_url": url, "headers": {"Authorization": f"Bearer {token}"}}

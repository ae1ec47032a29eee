"""Readings that take long are made ahead, so that nobody waits for them; short ones are made when they are asked for.

What is kept says itself up to which entry of the ledger it goes, so that a reader sees how old it is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Generic, TypeVar

import structlog
from litestar.concurrency import sync_to_thread

log = structlog.get_logger(__name__)

LONG_S = 0.1
"""A reading that took longer is made ahead from then on."""
EVERY_S = 60.0
"""How often one is made ahead. It takes so many seconds of the database that a shorter time would burden others."""

T = TypeVar("T")


class Kept(Generic[T]):
    """The last reading of one question. Belongs to the event loop that `running` was entered in."""

    def __init__(self, *, long_s: float = LONG_S, every_s: float = EVERY_S) -> None:
        self._long_s, self._every_s = long_s, every_s
        self._value: T | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def running(self, read: Callable[[], T]) -> AsyncIterator[None]:
        """Read once, and again and again while it takes long, as long as the block lasts."""
        self._value, self._turn = None, asyncio.Lock()
        keeping = asyncio.create_task(self._keep(read))
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            self._value = None

    async def get(self, read: Callable[[], T]) -> T:
        """What was read ahead, or a reading made now. Raises: what `read` raises."""
        return await self._read(read) if self._value is None else self._value

    async def _keep(self, read: Callable[[], T]) -> None:
        while True:
            try:
                await self._read(read)
            except Exception as error:  # the next one who asks is told; here it is tried again
                self._value = None
                log.warning("not_read_ahead", error=type(error).__name__)
            await asyncio.sleep(self._every_s)

    async def _read(self, read: Callable[[], T]) -> T:
        async with self._turn:
            started = monotonic()
            value = await sync_to_thread(read)
            self._value = value if monotonic() - started > self._long_s else None
            return value

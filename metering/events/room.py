"""Room for calls under way: the bytes that their bodies may hold together, so that a flood is refused and not kept."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from metering.errors import Unavailable


class Room:
    """A number of bytes that threads share. The last to come may take more than is left: none is refused for ever."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = 0
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Keep bytes for the length of a block. Raises: Unavailable if all are taken."""
        with self._lock:
            if size_bytes and self._held >= self._bytes_max:
                raise Unavailable("intake_busy", "Too many bytes of calls are under way.", retry_after_s=1)
            self._held += size_bytes
        try:
            yield
        finally:
            with self._lock:
                self._held -= size_bytes

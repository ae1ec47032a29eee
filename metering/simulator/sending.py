"""The simulated gateway: it sends what `traffic` makes, tries again, repeats itself, and holds no more than its spool.

It behaves as a gateway should: an event stays with it until a door has taken it, and a batch whose answer was lost is
sent again, because the ledger knows its events.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random
from threading import Event
from time import monotonic
from typing import IO

from metering.errors import Unavailable
from metering.simulator.doors import ARRAY, LINES, Answer, Door, Framing, StoppedError
from metering.simulator.nodes import Nodes
from metering.simulator.traffic import CHUNK_EVENTS, history, live

CHUNK_BYTES_MAX = 8 * 1024 * 1024
LIVE_BATCH_EVENTS = 500
TICK_S = 0.5
RESENT_SHARE = 0.04
FRAMINGS = (LINES, ARRAY)
ENCODINGS = (None, None, "gzip", "zstd")

READINGS_S = 60
"""Seconds between readings of GPUs."""

Progress = Callable[[int, int], None]
"""Told (done, total) after each batch."""

Watch = Callable[[Sequence[bytes]], None]
"""Told of events that are sent: of requests that the gateway ran."""


@dataclass(slots=True)
class Tally:
    """What became of the events that were sent; a repeated one counts each time."""

    accepted: int = 0
    duplicate: int = 0
    conflict: int = 0
    rejected: int = 0
    streamed: int = 0
    """Left to the stream, which says nothing of them."""
    retries: int = 0
    lost: int = 0
    """Came when the spool was full."""
    spooled_max: int = 0
    """Most events that ever waited."""

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.accepted += answer.accepted
        self.duplicate += answer.duplicate
        self.conflict += answer.conflict
        self.rejected += answer.rejected
        self.streamed += answer.streamed


def _nobody(_events: Sequence[bytes]) -> None:
    """Nobody watches."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SimulatedGateway:
    """A gateway that sends each batch through one of its doors, by chance. Used by one thread."""

    def __init__(
        self,
        doors: Sequence[Door],
        *,
        spool_events_max: int = 20_000,
        seed: int = 1,
        clock: Callable[[], datetime] = _utc_now,
        watch: Watch = _nobody,
    ) -> None:
        self._doors = tuple(doors)
        self._watch = watch
        self._spool_events_max = spool_events_max
        self._seed = seed
        self._clock = clock
        self._draw = Random(seed)  # noqa: S311 - a simulation
        self.tally = Tally()

    def send_history(
        self, progress: Progress, *, days: int = 30, events: int = 150_000, stop: Event | None = None
    ) -> None:
        """Send the past up to now; told to stop, it leaves the rest. Progress is in events; the total is an estimate.

        Raises: SendError.
        """
        stop = stop or Event()
        chunks = history(self._clock(), days=days, events=events, seed=self._seed)
        done = 0
        for chunk in self._delivered(chunks, stop):
            done += len(chunk)
            self._watch(chunk)
            progress(done, max(done, events))
        if not stop.is_set():
            progress(done, done)

    def play_file(self, path: Path, progress: Progress, *, stop: Event | None = None) -> None:
        """Send a file of NDJSON; told to stop, it leaves the rest. Progress is in bytes. Raises: SendError, OSError.

        It goes as lines only: a broken one is refused by itself, and would break a whole array.
        """
        total = path.stat().st_size
        with path.open("rb") as file:
            for _ in self._delivered(_chunks_of(file), stop or Event(), framings=(LINES,)):
                progress(file.tell(), total)

    def run_live(self, stop: Event, *, rate_per_s: float = 4.0, admit: Callable[[bytes], bytes] = bytes) -> None:
        """Send events as they happen, until told to stop; `admit` makes of each what is sent. Raises: SendError."""
        spool: deque[bytes] = deque()
        retry_at = 0.0
        for made in live(self._clock, rate_per_s=rate_per_s, seed=self._seed):
            admitted = [admit(event) for event in made]
            self._watch(admitted)
            self._keep(spool, admitted)
            if monotonic() >= retry_at:
                try:
                    self._empty(spool, stop)
                except Unavailable as busy:
                    retry_at = monotonic() + self._retry_s(busy)
                except StoppedError:
                    return
            if stop.wait(TICK_S):
                return

    def send_readings(self, nodes: Nodes, stop: Event) -> None:
        """Send readings of GPUs, those of the past and then each minute, until told to stop. Raises: SendError."""
        while not stop.is_set():
            for _ in self._delivered(nodes.readings(self._clock()), stop):
                pass
            stop.wait(READINGS_S)

    def close(self) -> None:
        """Leave no connection open."""
        for door in self._doors:
            door.close()

    def _keep(self, spool: deque[bytes], made: Sequence[bytes]) -> None:
        """Put events in the spool while there is room; one that is full loses the newest, and counts them."""
        room = self._spool_events_max - len(spool)
        spool.extend(islice(made, room))
        self.tally.lost += max(0, len(made) - room)
        self.tally.spooled_max = max(self.tally.spooled_max, len(spool))
        assert len(spool) <= self._spool_events_max

    def _empty(self, spool: deque[bytes], stop: Event) -> None:
        """Send what is spooled; a batch leaves the spool once a door has taken it."""
        while spool and not stop.is_set():
            batch = list(islice(spool, LIVE_BATCH_EVENTS))
            self._send(batch, stop)
            for _ in batch:
                spool.popleft()

    def _delivered(
        self, chunks: Iterator[list[bytes]], stop: Event, framings: Sequence[Framing] = FRAMINGS
    ) -> Iterator[list[bytes]]:
        """Chunks, each once a door has taken it; the next one isn't made before."""
        for chunk in chunks:
            try:
                self._insist(chunk, stop, framings)
            except StoppedError:
                return
            yield chunk

    def _insist(self, batch: Sequence[bytes], stop: Event, framings: Sequence[Framing]) -> None:
        """Send until it is taken. Raises: SendError; StoppedError."""
        while not stop.is_set():
            try:
                self._send(batch, stop, framings)
            except Unavailable as busy:
                stop.wait(self._retry_s(busy))
            else:
                return
        raise StoppedError

    def _retry_s(self, busy: Unavailable) -> float:
        """How long to wait: what the ledger asked for, and a little by chance so that gateways don't come together."""
        self.tally.retries += 1
        return (busy.retry_after_s or 0) + self._draw.uniform(0.05, 0.3)

    def _send(self, batch: Sequence[bytes], stop: Event, framings: Sequence[Framing] = FRAMINGS) -> None:
        """Bring a batch to a door, and now and then again, as if its answer had been lost."""
        self._bring(batch, stop, framings)
        if self._draw.random() < RESENT_SHARE:
            self._bring(batch, stop, framings)

    def _bring(self, batch: Sequence[bytes], stop: Event, framings: Sequence[Framing]) -> None:
        door = self._draw.choice(self._doors)
        encoding = self._draw.choice(ENCODINGS)
        self.tally.add(door.send(batch, self._draw.choice(framings), encoding, stop))


def _chunks_of(file: IO[bytes]) -> Iterator[list[bytes]]:
    """Lines of a file in chunks that one call may hold; a longer line is cut, for the ledger to refuse."""
    chunk: list[bytes] = []
    size_bytes = 0
    while line := file.readline(CHUNK_BYTES_MAX):
        if chunk and (len(chunk) == CHUNK_EVENTS or size_bytes + len(line) > CHUNK_BYTES_MAX):
            yield chunk
            chunk, size_bytes = [], 0
        if event := line.strip():
            chunk.append(event)
            size_bytes += len(line)
    if chunk:
        yield chunk

"""Events that wait for the ledger, in files: nothing that was used is lost because Jauge, or this process, is away.

A folder may serve many processes. Each holds the lock of a file `NAME.lock` for its life and appends to segments
`NAME.NUMBER.ndjson`; the lock of a process that died is free, and whoever takes it makes its segments their own.
An event is on its way to the disk when `append` returns (no fsync: it outlives the process, not the machine).
"""

import fcntl
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

EVENT_BYTES_MAX = 4_096
"""Room kept for an event: its names have 128 characters at most, its counts 16 digits."""

SEGMENT_BYTES = 1024 * 1024
"""A segment isn't added to beyond this; it is deleted once all of it is answered."""

BATCH_EVENTS = 1_000
"""Events sent at a time."""

REJECTED = "rejected.ndjson"
"""Events that the ledger refused, each with the code; kept until somebody takes the file away."""


class NoRoom(Exception):
    """The spool is full: what waits in it is kept."""


class Rejection(msgspec.Struct, frozen=True):
    """An event that the ledger refused, and why. event: as it was written; a string if it isn't JSON."""

    code: str
    field: str | None
    event: msgspec.Raw


@dataclass(slots=True)
class _Segment:
    """A file of events. size: bytes of whole lines; sent: how many of them are answered."""

    path: Path
    size: int
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """The oldest events that wait."""

    lines: list[bytes]
    segment: _Segment
    end: int


class Spool:
    """The spool of one process. Raises OSError where the folder can't be written."""

    def __init__(self, folder: Path, *, bytes_max: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._bytes_max = bytes_max
        self._name, self._lock_fd = _own_lock(folder)
        self._mutex = threading.Lock()
        self._segments: deque[_Segment] = deque()
        self._active: tuple[_Segment, int] | None = None  # what is appended to, and its descriptor
        self._numbers = 0
        self._rooms = 0
        self._rejected_bytes = self._measure_rejected()

    def keep_room(self) -> None:
        """Keep room for an event that is to come. Raises: NoRoom."""
        with self._mutex:
            waiting = sum(segment.size for segment in self._segments)
            if waiting + self._rejected_bytes + (self._rooms + 1) * EVENT_BYTES_MAX > self._bytes_max:
                raise NoRoom
            self._rooms += 1

    def give_room(self) -> None:
        """Give back room that was kept: there is no event."""
        with self._mutex:
            assert self._rooms > 0
            self._rooms -= 1

    def append(self, event: bytes) -> None:
        """Write an event, a line of JSON, where room was kept for it. Raises: OSError if the disk takes no more."""
        assert len(event) < EVENT_BYTES_MAX
        with self._mutex:
            assert self._rooms > 0
            self._rooms -= 1
            if self._active is None or self._active[0].size >= SEGMENT_BYTES:
                self._begin_segment()
            assert self._active is not None
            segment, descriptor = self._active
            written = os.write(descriptor, event + b"\n")
            if written != len(event) + 1:
                os.ftruncate(descriptor, segment.size)  # nobody reads half an event
                raise OSError("the disk is full")
            segment.size += written

    def oldest(self) -> Batch | None:
        """The oldest events that wait, or None."""
        with self._mutex:
            segment = next((one for one in self._segments if one.sent < one.size), None)
            if segment is None:
                return None
            start, size = segment.sent, segment.size
        with segment.path.open("rb") as file:
            file.seek(start)
            lines = file.read(size - start).splitlines(keepends=True)[:BATCH_EVENTS]
        return Batch([line.strip() for line in lines if line.strip()], segment, start + sum(map(len, lines)))

    def answered(self, batch: Batch, rejected: Iterable[Rejection]) -> None:
        """Forget a batch of `oldest`; what the ledger refused of it is kept apart."""
        text = b"".join(msgspec.json.encode(one) + b"\n" for one in rejected)
        if text:
            _append(self._folder / REJECTED, text)
        with self._mutex:
            self._rejected_bytes = self._measure_rejected() if text else self._rejected_bytes
            segment = batch.segment
            segment.sent = batch.end
            if segment.sent < segment.size:
                return
            if self._active is not None and self._active[0] is segment:
                os.ftruncate(self._active[1], 0)
                segment.size = segment.sent = 0
            else:
                segment.path.unlink()
                self._segments.remove(segment)

    def adopt(self) -> None:
        """Take over what processes that died have left."""
        for lock_path in sorted(self._folder.glob("*.lock")):
            if lock_path.stem == self._name or (descriptor := _locked(lock_path, 0)) is None:
                continue
            for path in sorted(self._folder.glob(f"{lock_path.stem}.*.ndjson")):
                self._take_over(path)
            lock_path.unlink()
            os.close(descriptor)

    def close(self) -> None:
        """Leave what still waits to the next process."""
        with self._mutex:
            if self._active is not None:
                segment, descriptor = self._active
                os.close(descriptor)
                if segment.size == 0:
                    segment.path.unlink()
                    self._segments.remove(segment)
            if not self._segments:
                (self._folder / f"{self._name}.lock").unlink()
            os.close(self._lock_fd)

    def _begin_segment(self) -> None:
        path = self._next_path()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        if self._active is not None:
            os.close(self._active[1])
        self._active = (_Segment(path, 0), descriptor)
        self._segments.append(self._active[0])

    def _take_over(self, path: Path) -> None:
        """Cut what a process was writing when it was killed, and go on with the rest as our own."""
        content = path.read_bytes()
        size = content.rfind(b"\n") + 1
        if size == 0:
            path.unlink()
            return
        os.truncate(path, size)
        with self._mutex:
            segment = _Segment(self._next_path(), size)
            path.rename(segment.path)
            self._segments.appendleft(segment)

    def _next_path(self) -> Path:
        self._numbers += 1
        return self._folder / f"{self._name}.{self._numbers:08d}.ndjson"

    def _measure_rejected(self) -> int:
        path = self._folder / REJECTED
        return path.stat().st_size if path.exists() else 0


def _own_lock(folder: Path) -> tuple[str, int]:
    """A name in the folder that no other process has, and the descriptor of its lock."""
    while True:
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
        descriptor = _locked(folder / f"{name}.lock", os.O_CREAT | os.O_EXCL)
        if descriptor is not None:  # else taken for a dead one's, between its making and its locking
            return name, descriptor


def _locked(path: Path, flags: int) -> int | None:
    """Descriptor of a lock file whose lock is now ours; None if somebody else's, or gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(descriptor).st_ino:  # else its owner took it away meanwhile
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _append(path: Path, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)

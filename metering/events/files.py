"""Events from files: NDJSON, plain or compressed, and Parquet. Resumable: an event written twice counts once."""

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
import polars as pl
import zstandard

from metering.errors import BadRequest, TooLarge
from metering.events.ahead import CallsAhead
from metering.events.decoding import Decoded, decode, decode_one
from metering.events.envelope import UsageData, UsageEvent
from metering.events.intake import Intake, IntakeAnswer

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_EVENTS = 5_000
CHUNK_BYTES = 8 * 1024 * 1024
LINE_BYTES_MAX = 64 * 1024
"""An event of the closed schema is far shorter; a longer line is refused without being held whole."""
CALLS_AHEAD = 8
"""Chunks that are decoded while the ledger writes the one before."""
PATIENCE_S = 60
"""How long a chunk waits for a ledger that is away."""
ZSTD_PIECE_BYTES = 2048
"""Compressed bytes taken at a time: not even zeros come out as more than 64 MiB of them."""
ZSTD_WINDOW_BYTES_MAX = 128 * 1024 * 1024
"""What `zstd --long` needs."""

_ENVELOPE = tuple(name for name in UsageEvent.__struct_fields__ if name != "data")


@dataclass(slots=True)
class IngestSummary:
    """What became of the events of some files."""

    accepted: int = 0
    duplicate: int = 0
    conflict: int = 0
    rejected: int = 0


Advance = Callable[[int], None]


def size_of(paths: list[Path]) -> int | None:
    """Bytes of the files together; None if one is standard input."""
    return None if Path("-") in paths else sum(path.stat().st_size for path in paths)


def ingest(intake: Intake, path: Path, summary: IngestSummary, advance: Advance) -> None:
    """Write a file's events (`-` is standard input), adding to `summary`; `advance` is told bytes read of the file.

    Raises: BadRequest if the file can't be read; Unavailable if the ledger is away for longer than PATIENCE_S.
    """

    def written(bytes_read: int, answer: IntakeAnswer) -> None:
        for name in IngestSummary.__slots__:
            setattr(summary, name, getattr(summary, name) + getattr(answer, name))
        advance(bytes_read)

    calls = CallsAhead(intake, "file", written, calls_max=CALLS_AHEAD, patience_s=PATIENCE_S)
    for decoded, bytes_read in _chunks(path):
        calls.offer(bytes_read, decoded)
    calls.finish()


def _chunks(path: Path) -> Iterator[tuple[Decoded, int]]:
    if path.suffix == ".parquet":
        yield from _parquet_chunks(path)
        return
    with _plain(path) as (lines, position):
        before = 0
        for chunk in _line_chunks(lines):
            yield _decoded(chunk), position() - before
            before = position()


@contextmanager
def _plain(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
    """Decompressed bytes of a file, and how far it has been read."""
    try:
        with sys.stdin.buffer if path == Path("-") else path.open("rb") as file:
            position = file.tell if file.seekable() else (lambda: 0)
            match path.suffix:
                case ".gz":
                    yield io.BufferedReader(gzip.GzipFile(fileobj=file)), position
                case ".zst":
                    yield io.BufferedReader(_ZstdReader(file)), position
                case _:
                    yield file, position
    except (gzip.BadGzipFile, zlib.error, EOFError, zstandard.ZstdError) as error:
        raise BadRequest("broken_compression", f"{path} can't be decompressed.", field=str(path)) from error
    except OSError as error:
        raise BadRequest("unreadable_file", f"{path} can't be read: {error.strerror}.", field=str(path)) from error


class _ZstdReader(io.RawIOBase):
    """Decompressed bytes of zstd frames. The library's own reader takes a file that was cut off for one that ends."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        while not self._plain and self._decompress():
            pass
        wanted = memoryview(buffer)[: len(self._plain)]
        wanted[:] = self._plain[: len(wanted)]
        self._plain = self._plain[len(wanted) :]
        return len(wanted)

    def _decompress(self) -> bool:
        """Take the next piece; False at the end. Raises: EOFError inside a frame; ZstdError."""
        piece = self._compressed or self._file.read(ZSTD_PIECE_BYTES)
        if not piece:
            if self._frame is not None:
                raise EOFError
            return False
        if self._frame is None:
            self._frame = self._decompressor.decompressobj()
        self._plain = memoryview(self._frame.decompress(piece))
        self._compressed = self._frame.unused_data if self._frame.eof else b""
        self._frame = None if self._frame.eof else self._frame
        return True


def _decoded(lines: list[bytes]) -> Decoded:
    """Events of some lines; lines that no call could hold are read one by one, so that only they are refused."""
    try:
        return decode(b"".join(lines), "ndjson", CHUNK_EVENTS)
    except TooLarge:
        return [decode_one(line) for line in lines]


def _line_chunks(lines: IO[bytes]) -> Iterator[list[bytes]]:
    """Some thousand lines at a time, and some megabytes. A line longer than any event is cut, so that it is refused."""
    chunk: list[bytes] = []
    size = 0
    while line := lines.readline(LINE_BYTES_MAX):
        if not line.endswith(b"\n"):
            while (rest := lines.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                pass
            line += b"\n"
        if line.strip():
            chunk.append(line)
            size += len(line)
        if len(chunk) == CHUNK_EVENTS or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _parquet_chunks(path: Path) -> Iterator[tuple[Decoded, int]]:
    """Rows of a Parquet file with one column a field of the event, of its envelope or of its data alike."""
    try:
        rows = pl.scan_parquet(path)
        total = rows.select(pl.len()).collect().item()
        bytes_in_all = path.stat().st_size
        for start in range(0, total, CHUNK_EVENTS):
            piece = rows.slice(start, CHUNK_EVENTS).collect()
            lines = [msgspec.json.encode(_nested(row)) for row in piece.to_dicts()]
            yield decode(b"\n".join(lines), "ndjson", CHUNK_EVENTS), bytes_in_all * piece.height // total
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadRequest("unreadable_file", f"{path} can't be read as Parquet.", field=str(path)) from error


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    known = _known(row)
    event = {name: known.pop(name) for name in _ENVELOPE if name in known}
    inner = known.get("data")
    data = _known(inner) if set(known) <= {"data"} and isinstance(inner, dict) else known
    return {"specversion": "1.0", "type": "jauge.usage.v1", **event, "data": data}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    """A column says null where a line of JSON would leave the field out."""
    return {name: value for name, value in fields.items() if value is not None}


assert not set(_ENVELOPE) & set(UsageData.__struct_fields__), "a flat column must name one field"

"""Events from files: NDJSON, plain or compressed, and Parquet. Resumable, because writing an event twice counts once."""

import gzip
import io
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import polars as pl
import zstandard

from metering.errors import BadRequest
from metering.events.decoding import Decoded, decode
from metering.events.envelope import UsageData, UsageEvent
from metering.events.intake import Intake, Pending

CHUNK_EVENTS = 5_000
LINE_BYTES_MAX = 64 * 1024
"""An event of the closed schema is far shorter; a longer line is refused without being held whole."""
CALLS_AHEAD = 3
"""Chunks that are decoded while the ledger writes the one before."""

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

    Raises: BadRequest if the file can't be read; Unavailable.
    """
    ahead: deque[tuple[Pending, int]] = deque()

    def finish_oldest() -> None:
        pending, bytes_read = ahead.popleft()
        answer = intake.finish(pending)
        for name in IngestSummary.__slots__:
            setattr(summary, name, getattr(summary, name) + getattr(answer, name))
        advance(bytes_read)

    for decoded, bytes_read in _chunks(path):
        ahead.append((intake.begin(decoded, "file"), bytes_read))
        if len(ahead) > CALLS_AHEAD:
            finish_oldest()
    while ahead:
        finish_oldest()


def _chunks(path: Path) -> Iterator[tuple[Decoded, int]]:
    if path.suffix == ".parquet":
        yield from _parquet_chunks(path)
        return
    with _plain(path) as (lines, position):
        before = 0
        for chunk in _line_chunks(lines):
            yield decode(chunk, "ndjson", CHUNK_EVENTS), position() - before
            before = position()


@contextmanager
def _plain(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
    """Decompressed bytes of a file, and how far it has been read."""
    try:
        with sys.stdin.buffer if path == Path("-") else path.open("rb") as file:
            position = file.tell if file.seekable() else (lambda: 0)
            match path.suffix:
                case ".gz":
                    yield io.BufferedReader(gzip.GzipFile(fileobj=file)), position  # type: ignore[type-var]
                case ".zst":
                    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
                    yield io.BufferedReader(reader), position  # type: ignore[type-var]
                case _:
                    yield file, position
    except (gzip.BadGzipFile, EOFError, zstandard.ZstdError) as error:
        raise BadRequest("broken_compression", f"{path} can't be decompressed.", field=str(path)) from error
    except OSError as error:
        raise BadRequest("unreadable_file", f"{path} can't be read: {error.strerror}.", field=str(path)) from error


def _line_chunks(lines: IO[bytes]) -> Iterator[bytes]:
    """Some thousand lines at a time. A line longer than any event is cut, so that it is refused."""
    chunk: list[bytes] = []
    while line := lines.readline(LINE_BYTES_MAX):
        if not line.endswith(b"\n"):
            while (rest := lines.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                pass
            line += b"\n"
        if line.strip():
            chunk.append(line)
        if len(chunk) == CHUNK_EVENTS:
            yield b"".join(chunk)
            chunk = []
    if chunk:
        yield b"".join(chunk)


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
    known = {name: value for name, value in row.items() if value is not None}
    event = {name: known.pop(name) for name in _ENVELOPE if name in known}
    data = known.pop("data", {}) if set(known) <= {"data"} else known
    return {"specversion": "1.0", "type": "jauge.usage.v1", **event, "data": data}


assert not set(_ENVELOPE) & set(UsageData.__struct_fields__), "a flat column must name one field"

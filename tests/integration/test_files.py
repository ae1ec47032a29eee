"""Files of every kind: read piece by piece, whole or told to be broken, and safe to read again."""

import gzip
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest
import zstandard

from metering.errors import BadRequest, Unavailable
from metering.events import files
from metering.events.files import IngestSummary, ingest
from metering.ledger.append import Ledger
from tests.conftest import ndjson
from tests.integration.doors import assert_exact, jauge
from tests.integration.trace import ROOT, Trace, a_trace

TRACE = a_trace(7_000)

BIG = """
import resource, sys
from pathlib import Path
from metering.events.files import IngestSummary, ingest
from metering.services import open_services
from metering.settings import Settings
with open_services(Settings()) as services:
    summary, before = IngestSummary(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ingest(services.intake, Path(sys.argv[1]), summary, lambda _: None)
    print(summary.accepted, summary.rejected, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def take(services, path: Path) -> IngestSummary:
    summary = IngestSummary()
    ingest(services.intake, path, summary, lambda _: None)
    return summary


def zstd_in_frames(data: bytes) -> bytes:
    """Several frames, the last with content of a size nobody tells."""
    middle = len(data) // 2
    return zstandard.compress(data[:middle]) + zstandard.ZstdCompressor(write_content_size=False).compress(
        data[middle:]
    )


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("e.ndjson", bytes),
        ("e.ndjson.gz", gzip.compress),
        ("e.two.gz", lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:])),
        ("e.ndjson.zst", zstandard.compress),
        ("e.two.zst", zstd_in_frames),
        ("e.crlf", lambda data: data.replace(b"\n", b"\r\n\r\n")),
        ("e.no-end", bytes.rstrip),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_is_read_to_its_end_and_again_without_counting_twice(services, database_url, tmp_path, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(b"\n".join(TRACE.lines) + b"\n"))
    seen: list[int] = []
    summary = IngestSummary()
    ingest(services.intake, path, summary, seen.append)
    assert summary == IngestSummary(accepted=7_000)
    assert 0 < sum(seen) <= path.stat().st_size
    assert take(services, path) == IngestSummary(duplicate=7_000)
    assert_exact(database_url, TRACE.totals, len(TRACE.lines))


def test_standard_input_is_read(environment, database_url):
    process = jauge(environment, "ingest", "--json", "-")
    out, err = process.communicate(b"\n".join(TRACE.lines), timeout=60)
    assert (process.returncode, json.loads(out)["accepted"]) == (0, 7_000), err
    assert_exact(database_url, TRACE.totals, len(TRACE.lines))


@pytest.mark.parametrize("shape", ["nested", "flat", "small row groups"])
def test_parquet_is_read_with_one_column_a_field(services, database_url, tmp_path, shape):
    events = TRACE.events
    events[0]["data"]["pages"] = 3  # a field that most rows leave null
    if shape != "nested":
        events = [{name: value for name, value in event.items() if name != "data"} | event["data"] for event in events]
    path = tmp_path / "e.parquet"
    frame = pl.DataFrame(events, infer_schema_length=None)
    if shape == "flat":
        frame = frame.with_columns(pl.col("time", "started_at").str.to_datetime(time_unit="us", time_zone="UTC"))
    frame.write_parquet(path, row_group_size=100 if shape == "small row groups" else None)
    assert take(services, path) == IngestSummary(accepted=7_000)
    assert take(services, path) == IngestSummary(duplicate=7_000)
    assert_exact(database_url, TRACE.totals, len(TRACE.lines))


@pytest.mark.parametrize(
    ("name", "damage", "code"),
    [
        ("e.gz", lambda data: gzip.compress(data)[:-200], "broken_compression"),
        ("e.gz", lambda data: data, "broken_compression"),
        ("e.gz", lambda data: gzip.compress(data)[:2000] + b"\xff" * 50 + gzip.compress(data)[2050:],
         "broken_compression"),
        ("e.zst", lambda data: zstandard.compress(data)[:-200], "broken_compression"),
        ("e.zst", lambda data: data, "broken_compression"),
        ("e.parquet", lambda data: data, "unreadable_file"),
        ("e.parquet", lambda _data: b"", "unreadable_file"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_never_taken_for_a_whole_one(services, database_url, tmp_path, name, damage, code):
    data = b"\n".join(TRACE.lines)
    path = tmp_path / name
    path.write_bytes(damage(data))
    with pytest.raises(BadRequest) as refused:
        take(services, path)
    assert refused.value.code == code
    whole = TRACE.file(tmp_path / "whole.ndjson")
    summary = take(services, whole)
    assert summary.accepted + summary.duplicate == 7_000
    assert_exact(database_url, TRACE.totals, len(TRACE.lines))


def test_an_empty_file_holds_nothing(services, tmp_path):
    for name, content in (("e", b""), ("lines", b"\n\n \n"), ("e.gz", gzip.compress(b"")), ("e.zst", b"")):
        (tmp_path / name).write_bytes(content)
        assert take(services, tmp_path / name) == IngestSummary()


def test_bad_lines_are_refused_one_by_one(services, database_url, tmp_path):
    lines = [*TRACE.lines]
    for place in (0, 10, 6_999):
        lines[place:place] = [b"{", b"," * 60_000, b"," * 200_000, b"\xff\xfe", b'{"id": "x"}', b"[]", b"0" * 70_000]
    path = Trace(lines, {}).file(tmp_path / "e.ndjson")
    assert take(services, path) == IngestSummary(accepted=7_000, rejected=21)
    assert_exact(database_url, TRACE.totals, len(TRACE.lines))


def test_lines_of_commas_only_do_not_end_the_file(services, database_url, tmp_path):
    path = Trace([*[b"," * 60_000] * 100, *TRACE.lines], {}).file(tmp_path / "e.ndjson")
    assert take(services, path) == IngestSummary(accepted=7_000, rejected=100)
    assert_exact(database_url, TRACE.totals, len(TRACE.lines))


def grown_kb(environment: dict[str, str], path: Path) -> tuple[int, int, int]:
    """Accepted, rejected, and how much more memory the process took, in KiB."""
    out = subprocess.run([sys.executable, "-c", BIG, str(path)], cwd=ROOT, env=environment, check=True,
                         capture_output=True, timeout=120).stdout  # fmt: skip
    accepted, rejected, grown = map(int, out.split())
    return accepted, rejected, grown


def test_one_line_of_100_mb_is_refused_without_being_held(environment, tmp_path):
    path = tmp_path / "e.ndjson"
    with path.open("wb") as file:
        file.write(b'{"id": "')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + TRACE.lines[0])
    accepted, rejected, grown = grown_kb(environment, path)
    assert (accepted, rejected) == (1, 1)
    assert grown < 50 << 10


@pytest.mark.parametrize("kind", ["long lines", "zst of zeros"])
def test_memory_does_not_grow_with_the_file(environment, tmp_path, kind):
    if kind == "long lines":
        path = tmp_path / "e.ndjson"
        with path.open("wb") as file:
            for _ in range(4_000):
                file.write(b'{"x": "' + b"y" * 60_000 + b'"}\n')
    else:
        path = tmp_path / "e.zst"
        line = b" " * 1000 + b"\n"
        with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as packed:
            for _ in range(400):
                packed.write(line * 1000)
    accepted, rejected, grown = grown_kb(environment, path)
    assert (accepted, rejected) == (0, 4_000 if kind == "long lines" else 0)
    assert grown < 200 << 10


def test_a_big_file_takes_no_more_memory_than_a_small_one(environment, tmp_path):
    small = grown_kb(environment, a_trace(20_000, "small").file(tmp_path / "small.ndjson"))
    big = grown_kb(environment, a_trace(60_000, "big").file(tmp_path / "big.ndjson"))
    assert (small[0], big[0]) == (20_000, 60_000)
    assert big[2] < small[2] + (80 << 10)


class Failing(Ledger):
    """A ledger that is away at every other write."""

    turn = 0

    def write(self, prepared):
        self.turn += 1
        if self.turn % 2:
            raise Unavailable("database_unavailable", "away", retry_after_s=1)
        return super().write(prepared)


def test_a_file_waits_out_a_ledger_that_is_away_even_on_standard_input(services, database_url, tmp_path, monkeypatch):
    monkeypatch.setattr(services.committer, "_ledger", Failing(services.engine, services.intake._series))
    monkeypatch.setattr("metering.events.ahead.RETRY_S_MAX", 0.01)
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(os.fdopen(read, "rb")))

    def feed() -> None:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(b"\n".join(TRACE.lines))

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert take(services, Path("-")) == IngestSummary(accepted=7_000)
    feeder.join()
    assert_exact(database_url, TRACE.totals, len(TRACE.lines))


def test_a_file_gives_up_on_a_ledger_that_stays_away(services, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE_S", 0.3)
    monkeypatch.setattr("metering.events.ahead.RETRY_S_MAX", 0.05)

    def away(_prepared):
        raise Unavailable("database_unavailable", "away", retry_after_s=1)

    monkeypatch.setattr(services.committer._ledger, "write", away)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        take(services, TRACE.file(tmp_path / "e.ndjson"))
    assert 0.3 <= time.monotonic() - began < 5


def test_refused_events_make_the_command_exit_with_1(environment, tmp_path, make_event):
    path = tmp_path / "e.ndjson"
    path.write_bytes(ndjson([make_event(), make_event(prompt="words that are never kept")]))
    process = jauge(environment, "ingest", "--json", str(path))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(out) == {"accepted": 1, "duplicate": 0, "conflict": 0, "rejected": 1}
    assert b"never kept" not in out + err

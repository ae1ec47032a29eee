"""What is measured, each with its limit."""

import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import polars as pl
import sqlalchemy as sa

from metering.catalog.tenants import add_tenant
from metering.catalog.tokens import add_token
from metering.database import raw, transaction
from metering.events.decoding import decode
from metering.events.envelope import UsageEvent
from metering.events.intake import Pending
from metering.ledger.append import Outcome, prepare
from metering.ledger.committer import GroupCommitter
from metering.ledger.rows import COPY_HEADER, COPY_TRAILER, ENTRY_COLUMNS, row_prefix
from metering.ledger.series import SeriesRegistry
from metering.ledger.verify import verify
from metering.services import Services
from reports.usage import parse_question, read_usage
from tests.bench.load import DAYS, MONTH, TENANTS, bodies, frames

ROUNDS = 3
BATCH_ROWS = 10_000
CALL_EVENTS = 1_000
CONNECTIONS = 8
CALLS_AHEAD = 8
FRAMES_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: what, its figure, the limit beside it, their ratio, and what the ratio should be."""

    work: str
    figure: float
    unit: str
    limit: str
    limit_figure: float
    ratio: float
    wanted: str


def registered(services: Services) -> dict[str, int]:
    """Numbers of the benchmark's administrations."""
    return {tenant_id: add_tenant(services.engine, tenant_id).number for tenant_id in TENANTS}


def copy_limit(services: Services, made: Sequence[pl.DataFrame]) -> float:
    """Rows a second of prebuilt binary COPY into a table without index, one durable transaction a frame."""
    prefix = row_prefix(1)
    payloads = [COPY_HEADER + b"".join(prefix + row for row in prepare(frame).rows) + COPY_TRAILER for frame in made]
    with transaction(services.engine) as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS bench_limit"))
        connection.execute(sa.text("CREATE TABLE bench_limit (LIKE ledger_entry)"))
    columns = ", ".join(ENTRY_COLUMNS)
    started = time.perf_counter()
    for payload in payloads:
        with transaction(services.engine) as connection:
            with raw(connection).cursor().copy(f"COPY bench_limit ({columns}) FROM STDIN (FORMAT binary)") as copy:
                copy.write(payload)
    return sum(frame.height for frame in made) / (time.perf_counter() - started)


def ledger_append(services: Services, batches: int) -> Line:
    """Frames to durable entries, with dedupe, rollups and chain."""
    registry, tenants = SeriesRegistry(services.engine), registered(services)
    rates, limits = [], []
    for turn in range(ROUNDS):
        made = list(frames(registry, tenants, rows=BATCH_ROWS, count=batches, seed=turn))
        limits.append(copy_limit(services, made))
        rates.append(_append_rate(services.committer, made))
    held = _rows(services)
    return _line(
        f"ledger append, {BATCH_ROWS:,} a batch, {held:,} rows held", rates, limits, "raw COPY", "≥ 0.25, aim 0.4"
    )


def _append_rate(committer: GroupCommitter, made: Sequence[pl.DataFrame]) -> float:
    """Rows a second, with some frames always on their way, as concurrent callers would have them."""
    started = time.perf_counter()
    ahead: deque[Future[list[Outcome]]] = deque()
    for frame in made:
        ahead.append(committer.submit(frame))
        if len(ahead) > FRAMES_AHEAD:
            ahead.popleft().result()
    for answer in ahead:
        answer.result()
    return sum(frame.height for frame in made) / (time.perf_counter() - started)


def preload(services: Services, rows: int, say: Callable[[str], None], *, hours: int, first: datetime = MONTH) -> None:
    """Fill the ledger up to `rows` rows; every 20,000 of them spread over `hours` hours, one stretch after another.

    first: where the 30 days begin that they are of.
    """
    registry, tenants = SeriesRegistry(services.engine), registered(services)
    turn = 0
    while (missing := rows - _rows(services)) > 0:
        turn += 1
        count = min(missing // 20_000 + 1, 36)
        made = frames(registry, tenants, rows=20_000, count=count, hours=hours, seed=1000 + turn, first=first)
        _append_rate(services.committer, list(made))
        say(f"{_rows(services):,} rows held")


def http_ingest(services: Services, url: str, calls: int) -> Line:
    """Calls of 1,000 events over 8 connections to their durable answer."""
    token = add_token(services.engine, f"bench-{os.urandom(4).hex()}", "gateway")
    registry, tenants = SeriesRegistry(services.engine), registered(services)
    rates, limits = [], []
    for turn in range(ROUNDS):
        limits.append(copy_limit(services, list(frames(registry, tenants, rows=BATCH_ROWS, count=5, seed=50 + turn))))
        made = bodies(events=CALL_EVENTS, count=calls)
        started = time.perf_counter()
        _send(url, token, made)
        rates.append(calls * CALL_EVENTS / (time.perf_counter() - started))
    what = f"HTTP ingest, {CALL_EVENTS:,} a call, {CONNECTIONS} connections"
    return _line(what, rates, limits, "raw COPY", "≥ 0.15, aim 0.25")


def _send(url: str, token: str, made: list[bytes]) -> None:
    waiting = list(made)
    failed: list[int] = []

    def sender() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        while True:
            try:
                body = waiting.pop()
            except IndexError:
                return
            connection.request("POST", "/v1/events", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed.append(answer.status)

    threads = [threading.Thread(target=sender) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def http_decode(calls: int) -> Line:
    """A call's bytes to events, as the route does it, against msgspec on the same bytes."""
    made = bodies(events=CALL_EVENTS, count=calls)
    decoder = msgspec.json.Decoder(list[UsageEvent])
    rates, limits = [], []
    for _ in range(ROUNDS):
        limits.append(_rate(lambda: [decoder.decode(body) for body in made], calls * CALL_EVENTS))
        rates.append(_rate(lambda: [decode(body, "json", 10_000) for body in made], calls * CALL_EVENTS))
    return _line("HTTP decode of a call", rates, limits, "msgspec alone", "≥ 0.5")


def file_ingest(services: Services, calls: int) -> Line:
    """NDJSON bytes to durable entries, as `jauge ingest` does it."""
    registry, tenants = SeriesRegistry(services.engine), registered(services)
    rates, limits = [], []
    for turn in range(ROUNDS):
        limits.append(copy_limit(services, list(frames(registry, tenants, rows=BATCH_ROWS, count=5, seed=80 + turn))))
        made = bodies(events=5_000, count=calls)
        started = time.perf_counter()
        ahead: deque[Pending] = deque()
        for body in made:
            ahead.append(services.intake.begin(decode(body, "json", 10_000), "file"))
            if len(ahead) > CALLS_AHEAD:
                services.intake.finish(ahead.popleft())
        assert all(services.intake.finish(pending).is_whole for pending in ahead)
        rates.append(calls * 5_000 / (time.perf_counter() - started))
    return _line("JSON bytes to durable entries, one process", rates, limits, "raw COPY", "")


def days_ago(days: int) -> datetime:
    """Midnight in UTC so many days ago."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)


def chart(services: Services, first: datetime) -> float:
    """Seconds to read one administration's 30 days by hour and model."""
    start, end = first.date(), first.date() + timedelta(days=DAYS)
    question = parse_question(
        {"start": f"{start}", "end": f"{end}", "bucket": "hour", "group_by": "model", "tenant": "dinum"}
    )
    times = []
    for _ in range(15):
        started = time.perf_counter()
        with transaction(services.engine) as connection:
            rows = read_usage(connection, question)
        times.append(time.perf_counter() - started)
    assert rows
    return statistics.median(times)


def chart_line(few: float, few_rows: int, many: float, many_rows: int) -> Line:
    """The same chart at two sizes of the ledger."""
    return Line(
        f"chart, one administration, 30 days, {many_rows:,} events",
        many * 1000, "ms", f"the same at {few_rows:,}", few * 1000, many / few, "≤ 1.3",
    )  # fmt: skip


def verification(services: Services) -> Line:
    """Verification of the whole ledger, against reading its rows."""
    started = time.perf_counter()
    result = verify(services.engine)
    rate = result.rows / (time.perf_counter() - started)
    assert result.clean, result.differences
    _rows_read, limit = copied_out(services)
    return Line("verify the whole ledger", rate, "rows/s", "COPY of its rows out", limit, rate / limit, "")


def copied_out(services: Services) -> tuple[int, float]:
    """Rows of the ledger, and how many a second PostgreSQL gives out."""
    query = f"COPY (SELECT {', '.join(ENTRY_COLUMNS)} FROM ledger_entry) TO STDOUT (FORMAT binary)"
    started = time.perf_counter()
    with transaction(services.engine) as connection, raw(connection).cursor().copy(query) as copy:
        for _ in copy:
            pass
    seconds = time.perf_counter() - started
    rows = _rows(services)
    return rows, rows / seconds


def cold_start() -> Line:
    """From `jauge demo` in an empty folder to the console's first answer, in seconds."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _demo(Path(folder)) as url:
        started = time.perf_counter()
        while time.perf_counter() - started < 60:
            try:
                with urllib.request.urlopen(url + "/healthz", timeout=1):
                    break
            except OSError:
                time.sleep(0.05)
        seconds = time.perf_counter() - started
    return Line("cold start of the demo", seconds, "s", "budget", 15, seconds / 15, "≤ 1")


@contextmanager
def _demo(folder: Path) -> Iterator[str]:
    port = 18_321
    demo = subprocess.Popen(
        [sys.executable, "-m", "metering", "demo", "--port", str(port)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(60)


def _rows(services: Services) -> int:
    with transaction(services.engine) as connection:
        return connection.scalar(sa.text("SELECT COALESCE(sum(row_count), 0) FROM ledger_batch")) or 0


def _rate(work: Callable[[], object], events: int) -> float:
    started = time.perf_counter()
    work()
    return events / (time.perf_counter() - started)


def _line(work: str, rates: list[float], limits: list[float], limit: str, wanted: str) -> Line:
    ratios = [rate / limit_rate for rate, limit_rate in zip(rates, limits, strict=True)]
    median = statistics.median
    return Line(work, median(rates), "events/s", limit, median(limits), median(ratios), wanted)

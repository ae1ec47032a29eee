"""The ways in, as tests use them: commands, entries of the stream, calls; and the check of what came of it."""

import gzip
import subprocess
import sys
import time
from collections.abc import Callable

import zstandard

from metering.database import engine_for
from metering.ledger.verify import verify
from tests.integration.trace import ROOT, Totals, recorded_totals

STREAM = "jauge:events"
NDJSON = {"Content-Type": "application/x-ndjson"}


def jauge(environment: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
    """Start a command."""
    return subprocess.Popen(
        [sys.executable, "-m", "metering", *words], cwd=ROOT, env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def entry(lines: list[bytes], encoding: str | None = None) -> dict[bytes | str, bytes]:
    """Fields of an entry of the stream."""
    body = b"\n".join(lines)
    if encoding == "gzip":
        return {"body": gzip.compress(body), "encoding": b"gzip"}
    if encoding == "zstd":
        return {"body": zstandard.compress(body), "encoding": b"zstd"}
    return {"body": body}


def until(condition: Callable[[], object], limit_s: float = 30) -> None:
    """Wait for a condition."""
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def assert_exact(database_url: str, totals: Totals, rows: int) -> None:
    """Both rollups have exactly these totals, and the ledger is sound and has so many rows."""
    assert recorded_totals(database_url) == totals
    assert recorded_totals(database_url, "usage_daily") == totals
    engine = engine_for(database_url)
    result = verify(engine)
    engine.dispose()
    assert (result.differences, result.rows) == ([], rows)

"""A close that is killed again and again, as are its connections: what comes out is what an undisturbed one makes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from metering import embedded
from metering.catalog.tenants import add_tenant
from metering.database import engine_for, transaction
from metering.events.decoding import decode
from metering.services import open_services
from metering.settings import Settings
from metering.tables import billing_document, month_closed
from tests.billing.conftest import CATALOGUE, write_file
from tests.billing.test_closing import BILLED
from tests.conftest import TENANTS, copied_database, ndjson

KILLS = 50
ADMINISTRATIONS = 20

CLOSING = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from metering.billing.closing import Closer
from metering.billing.documents import canonical
from metering.database import engine_for

def files_of(document):
    content = canonical(document)
    return {"json": content, "pdf": content * 50}

def close():
    closer = Closer(engine_for(sys.argv[1]), Path(sys.argv[2]), files_of, 3)
    closer.finalise("2026-10", author="test", now=datetime(2026, 11, 5, 9, tzinfo=UTC))

for _line in sys.stdin:  # each line asks for one attempt, by a process of its own
    child = os.fork()
    if child == 0:
        try:
            close()
        except BaseException as error:
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Attempts:
    """Attempts to close a month, each a process that can be killed."""

    def __init__(self, url: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLOSING, url, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def begin(self) -> int:
        """Number of the new process."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        return self._read()

    def end(self) -> int:
        """How it ended, as `os.waitpid` says it."""
        return self._read()

    def _read(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def months(servers: embedded.Servers, template: str) -> Iterator[tuple[str, str]]:
    """Two databases with the same usage of many administrations, to the last hash."""
    with ExitStack() as stack:
        first = stack.enter_context(copied_database(servers, template, "killed_1"))
        with open_services(Settings(database_url=first, redis_url=servers.redis_url, data=Path("unused"))) as services:
            names = [*TENANTS, *(f"t{number:03}" for number in range(ADMINISTRATIONS))]
            for name in names:
                add_tenant(services.engine, name)
            write_file(services, CATALOGUE)
            write_file(services, BILLED)
            events = [event(name) for name in names]
            assert services.intake.take(decode(ndjson(events), "ndjson", len(events)), "http").is_whole
        second = stack.enter_context(copied_database(servers, "killed_1", "killed_2"))
        yield first, second


def event(tenant: str) -> dict[str, Any]:
    at = "2026-10-05T08:30:00Z"
    data = {
        "tenant": tenant, "operation": "chat", "model_requested": "albert-large", "status": "ok", "started_at": at,
        "input_tokens": 100, "output_tokens": 20,
    }  # fmt: skip
    return {
        "specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": f"e-{tenant}", "time": at, "data": data,
    }  # fmt: skip


def outcome(url: str, folder: Path) -> tuple[list[tuple[object, ...]], dict[str, bytes]]:
    """Rows of documents, and every file below the folder."""
    engine = engine_for(url)
    columns = [one for one in billing_document.c if one.name not in {"recorded_at", "hash"}]
    with transaction(engine) as connection:
        rows = [tuple(row) for row in connection.execute(sa.select(*columns).order_by(billing_document.c.seq))]
        assert connection.scalar(sa.select(month_closed.c.documents)) == len(rows)
    engine.dispose()
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return rows, files


def test_a_close_that_is_killed_gives_what_an_undisturbed_one_gives(months: tuple[str, str], tmp_path: Path) -> None:
    first, second = months
    quiet = Attempts(second, tmp_path / "quiet")
    quiet.begin()
    assert quiet.end() == 0
    quiet.close()

    folder = tmp_path / "killed"
    draw = Random(7)
    admin = engine_for(first.replace("/killed_1?", "/postgres?")).execution_options(isolation_level="AUTOCOMMIT")
    attempts, killed = Attempts(first, folder), 0
    for number in range(KILLS):
        process = attempts.begin()
        _wait_for(folder, draw.randrange(3))
        time.sleep(draw.random() * 0.004)
        if number % 5 == 4:  # the server ends its connections, wherever they are
            with admin.connect() as connection:
                ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'killed_1'"
                connection.execute(sa.text(ended))
        with suppress(ProcessLookupError):  # it may have ended by itself, with its connections
            os.kill(process, signal.SIGKILL)
        killed += attempts.end() != 0
    attempts.begin()
    assert attempts.end() == 0
    attempts.close()
    admin.dispose()
    assert killed > KILLS // 2
    rows, files = outcome(first, folder)
    expected_rows, expected_files = outcome(second, tmp_path / "quiet")
    assert rows == expected_rows
    assert files == expected_files
    assert len(files) > 2 * ADMINISTRATIONS
    serials: dict[object, list[int]] = {}
    for row in rows:
        serials.setdefault(row[2], []).append(int(str(row[4])))
    assert all(found == list(range(1, len(found) + 1)) for found in serials.values())


def _wait_for(folder: Path, more: int) -> None:
    """Wait until so many more files are there than now, and no longer than an attempt may take."""
    place = folder / "documents" / "2026-10"
    known, deadline = len(list(place.glob("*"))), time.monotonic() + 0.5
    while time.monotonic() < deadline and len(list(place.glob("*"))) < known + more:
        time.sleep(0.0005)

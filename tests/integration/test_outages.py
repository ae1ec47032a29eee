"""Stores that go away under load, and a disk that fills: callers are told, and nothing accepted is lost."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from metering import embedded, migrate
from metering.catalog.tenants import add_tenant
from metering.catalog.tokens import add_token
from metering.database import engine_for
from metering.ledger.verify import verify
from tests.conftest import TENANTS
from tests.integration.doors import NDJSON, STREAM, assert_exact, entry, until
from tests.integration.trace import ROOT, Trace, a_trace
from tests.threads import run_threads

AWAY_S = 4
CALL_EVENTS = 50


@dataclass
class Client:
    """A caller that offers a trace call by call, and again until it is accepted."""

    url: str
    token: str
    trace: Trace
    pause_s: float = 0.0
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    retry_after: set[str | None] = field(default_factory=set)
    accepted: list[bytes] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}", **NDJSON}) as client:
            for start in range(0, len(self.trace.lines), CALL_EVENTS):
                lines = self.trace.lines[start : start + CALL_EVENTS]
                while not self.stop.is_set() and not self.offer(client, lines):
                    time.sleep(0.1)
                time.sleep(self.pause_s)

    def offer(self, client: httpx.Client, lines: list[bytes]) -> bool:
        answer = client.post("/v1/events", content=b"\n".join(lines), timeout=30)
        self.answers[answer.status_code, answer.json().get("code", "")] += 1
        if answer.status_code == 503:
            self.retry_after.add(answer.headers.get("Retry-After"))
            return False
        assert answer.status_code == 200, answer.text
        self.accepted += lines
        return True


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def prepared(database_url: str) -> str:
    """Bring a database to the current version, register the administrations, and return a gateway's token."""
    engine = engine_for(database_url)
    migrate.upgrade(engine)
    for tenant in TENANTS:
        add_tenant(engine, tenant)
    token = add_token(engine, "gateway", "gateway")
    engine.dispose()
    return token


@contextmanager
def running(*command: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        try:
            assert process.wait(30) in {0, -15}, log.read_text()[-3000:]
        finally:
            process.kill()


def answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz").status_code == 200
    return False


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[embedded.Servers]:
    """Stores of the test's own, to be stopped at will."""
    yield embedded.start(tmp_path / "d")
    embedded.stop(tmp_path / "d")


def test_stores_that_stop_and_come_back_lose_and_double_nothing(instance, tmp_path):
    token, port = prepared(instance.database_url), free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {"JAUGE_DATABASE_URL": instance.database_url, "JAUGE_REDIS_URL": instance.redis_url,
                   "JAUGE_STREAM_CLAIM_MS": "500", "JAUGE_DATA": str(tmp_path / "unused")}  # fmt: skip
    clients = [Client(url, token, a_trace(3_000 + number, f"http-{number}"), pause_s=0.08) for number in range(2)]
    streamed = a_trace(3_002, "stream")
    command = (sys.executable, "-m", "metering")

    def stream() -> None:
        with redis.Redis.from_url(instance.redis_url) as client:
            for start in range(0, len(streamed.lines), CALL_EVENTS):
                while True:
                    try:
                        client.xadd(STREAM, entry(streamed.lines[start : start + CALL_EVENTS]))
                        break
                    except redis.RedisError:
                        time.sleep(0.1)
                time.sleep(0.08)

    def harm() -> None:
        time.sleep(1)
        assert embedded.stop(instance.data_dir)
        time.sleep(AWAY_S)
        again = embedded.start(instance.data_dir)
        assert (again.database_url, again.redis_url) == (instance.database_url, instance.redis_url)
        time.sleep(1)
        os.kill(again.postgres_pid, 9)  # and once without warning; its supervisor starts it again
        os.kill(again.valkey_pid, 9)

    with (
        running(*command, "serve", "--port", str(port), environment=environment, log=tmp_path / "serve.log") as server,
        running(*command, "worker", environment=environment, log=tmp_path / "worker.log") as worker,
    ):
        until(lambda: answers(url))
        run_threads([*(client.run for client in clients), stream, harm])
        with redis.Redis.from_url(instance.redis_url) as client:
            until(lambda: client.ping() and client.xlen(STREAM) == 0)
        until(lambda: answers(url))
        assert server.poll() is worker.poll() is None
    for one in clients:
        assert {status for status, _ in one.answers} == {200, 503}
        assert {code for status, code in one.answers if status == 503} <= {"database_unavailable", "intake_busy"}
        assert all(after and int(after) > 0 for after in one.retry_after)
        assert one.accepted == one.trace.lines
    traces = [streamed, *(one.trace for one in clients)]
    totals = {
        key: tuple(map(sum, zip(*(trace.totals[key] for trace in traces), strict=True))) for key in streamed.totals
    }
    assert_exact(instance.database_url, totals, sum(len(trace.lines) for trace in traces))


# A full disk

MOUNT = 'mount -t tmpfs -o size=160m,mode=0755 tmpfs "$1" && shift && exec "$@"'
KEEP = """
import json, dataclasses, sys
from pathlib import Path
from metering import embedded
with embedded.running(Path(sys.argv[1])) as servers:
    print(json.dumps(dataclasses.asdict(servers), default=str), flush=True)
    sys.stdin.read()
"""


def unshare() -> list[str] | None:
    """The command that gives a process mounts of its own, if the system lets us."""
    for prefix in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        probe = [*prefix, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return prefix
    return None


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[embedded.Servers, Path]]:
    """Stores whose data lie on 160 MB; yields them, and their disk as we can reach it."""
    prefix = unshare()
    if prefix is None:
        pytest.skip("this system lets us mount nothing")
    (folder / "disk").mkdir()
    process = subprocess.Popen(
        [*prefix, "sh", "-c", MOUNT, "sh", folder / "disk", sys.executable, "-c", KEEP, folder / "disk" / "d"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        fields = json.loads(process.stdout.readline())
        inside = Path(f"/proc/{process.pid}/root")
        sockets = str(folder / "disk" / "d" / "run")
        for name in ("database_url", "redis_url"):
            fields[name] = fields[name].replace(sockets, str(inside / sockets.lstrip("/")))
        yield embedded.Servers(**{**fields, "data_dir": Path(fields["data_dir"])}), inside / str(folder / "disk")[1:]
    finally:
        process.communicate()


def fill(disk: Path, left_bytes: int) -> Path:
    """Fill a disk but for some bytes; the file to remove."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_bsize - left_bytes)
    return ballast


def wait_for_answer(client: Client, told: Callable[[tuple[int, str]], bool], limit_s: float = 40) -> None:
    until(lambda: any(told(answer) for answer in list(client.answers)), limit_s)


def test_a_full_disk_is_told_to_callers_and_passes(tmp_path):
    # A path of PostgreSQL's socket has 107 bytes at most, and pytest's folders leave too few of them.
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)) as (servers, disk):
        token, port = prepared(servers.database_url), free_port()
        url = f"http://127.0.0.1:{port}"
        environment = {"JAUGE_DATABASE_URL": servers.database_url, "JAUGE_REDIS_URL": servers.redis_url,
                       "JAUGE_DATA": str(tmp_path / "unused")}  # fmt: skip
        caller = Client(url, token, a_trace(60_000))
        thread = threading.Thread(target=caller.run)
        with running(
            sys.executable, "-m", "metering", "serve", "--port", str(port), environment=environment,
            log=tmp_path / "serve.log",
        ):  # fmt: skip
            until(lambda: answers(url))
            thread.start()
            wait_for_answer(caller, lambda answer: answer[0] == 200)
            ballast = fill(disk, left_bytes=3 << 20)
            wait_for_answer(caller, lambda answer: answer[0] == 503)
            time.sleep(2)
            accepted_when_full = len(caller.accepted)
            told = {code for status, code in caller.answers if status == 503}
            assert told <= {"storage_full", "database_unavailable"}
            assert all(after and int(after) > 0 for after in caller.retry_after)
            ballast.unlink()
            until(lambda: len(caller.accepted) > accepted_when_full + 500, 60)
            caller.stop.set()
            thread.join(30)
        with psycopg.connect(servers.database_url) as link:
            rows = link.execute("SELECT count(*) FROM ledger_entry").fetchone()
        assert rows is not None
        assert rows[0] >= len(caller.accepted)
        engine = engine_for(servers.database_url)
        result = verify(engine)
        with engine.connect() as connection:
            ids = set(connection.exec_driver_sql("SELECT event_id FROM ledger_entry").scalars())
        engine.dispose()
        assert (result.differences, result.rows) == ([], rows[0])
        assert {json.loads(line)["id"] for line in caller.accepted} <= ids

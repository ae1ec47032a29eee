"""The agent and the service: what is read arrives once, whatever is away or dies."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from metering.agent.dcgm import ENERGY_MJ, POWER_W
from metering.agent.reading import Reader
from metering.agent.running import Agent
from metering.agent.troubles import Seldom, Troubles
from metering.catalog.tokens import add_token
from metering.cli import main
from metering.client.http import HttpCarrier
from metering.client.spool import EVENT_BYTES_MAX
from metering.database import transaction
from metering.tables import energy_reading
from tests.agent.doubles import Card, FakeTime, dcgm_page, exporting
from tests.carbon.hours import HOUR, a_request, post_all, record, sums
from tests.client.conftest import Server, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(services):
    made = Server(services)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def token(services):
    return add_token(services.engine, "node-1", "gateway")


@pytest.fixture
def exporter():
    with exporting() as one:
        yield one


def carrier(server, token):
    import httpx

    return HttpCarrier(httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}))


def recorded(services):
    """Readings in the ledger, oldest first."""
    with transaction(services.engine) as connection:
        query = sa.select(energy_reading).order_by(energy_reading.c.at, energy_reading.c.gpu)
        return connection.execute(query).mappings().all()


def energies(services):
    return [row["energy_mj"] for row in recorded(services)]


def spooled(folder):
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob("*.*.ndjson"))


class Node:
    """An agent on a card whose time is set by the test."""

    def __init__(self, make_reader, folder, server, token, **options):
        self.card, self.time, self.folder = Card(), FakeTime(), folder
        self.time.now = HOUR
        self._make = lambda memory: make_reader(self.card, time=self.time, memory=memory, **options)
        self._place = (server, token)
        self.open()

    def open(self):
        from metering.agent.memory import load

        troubles = Troubles()
        reader: Reader = self._make(load(self.folder, troubles))
        self.agent = Agent(reader, self.folder, carrier(*self._place), troubles)

    def read(self, count=1):
        for _ in range(count):
            self.agent.read()
            self.card.run()
            self.time.pass_s(30)


@pytest.fixture
def node(make_reader, tmp_path, server, token):
    return Node(make_reader, tmp_path / "spool", server, token, stated={"albert-large-0": ["0"]})


def test_readings_become_energy_of_requests(node, services):
    record(services, [a_request(1, HOUR, seconds=60)])
    node.read(125)
    assert node.agent.close()
    post_all(services)
    meter_uj = 412_345 * 3600 * 1_000
    assert sum(row[1] for row in sums(services, "part", hour=HOUR).values()) == meter_uj
    assert sums(services, "tier", part="use").keys() == {("A",)}
    assert sums(services, "tenant", part="use").keys() == {("dinum",)}


def test_an_outage_loses_nothing_and_repeats_nothing(node, services, server):
    node.read(2)
    until(lambda: len(recorded(services)) == 2)
    server.stop()
    node.read(3)
    server.start()
    until(lambda: len(recorded(services)) == 5)
    node.read(1)
    assert node.agent.close()
    step_mj = 30 * 412_345
    assert energies(services) == [1_000_000 + at * step_mj for at in range(6)]
    assert {row["epoch"] for row in recorded(services)} == {"b00700000000-0-0"}


def test_what_one_agent_could_not_send_the_next_one_does(node, services, server, monkeypatch):
    monkeypatch.setattr("metering.agent.running.CLOSE_S", 0.5)
    server.stop()
    node.read(3)
    assert not node.agent.close()
    server.start()
    node.open()
    node.read(2)
    assert node.agent.close()
    assert len(set(energies(services))) == len(energies(services)) == 5
    assert {row["epoch"] for row in recorded(services)} == {"b00700000000-0-0"}
    assert spooled(node.folder) == 0


def test_a_change_of_deployment_is_read_at_once(make_reader, tmp_path, services, server, token, monkeypatch):
    monkeypatch.setattr("metering.agent.running.LOOK_S", 0.05)
    file = tmp_path / "deployments.yaml"
    file.write_text("deployments: {large: [0]}")
    node = Node(make_reader, tmp_path / "spool", server, token, file=file)
    stop = threading.Event()
    node.agent.read()
    running = threading.Thread(target=node.agent.run, args=(stop, 300))
    running.start()
    node.time.pass_s(10)
    file.write_text("deployments: {small: [0]}")
    until(lambda: len(recorded(services)) == 2)
    node.time.pass_s(5)
    stop.set()
    running.join(10)
    assert node.agent.close()
    assert [(row["deployment"], row["at"] - HOUR) for row in recorded(services)] == [
        ("large", timedelta()), ("small", timedelta(seconds=10)), ("small", timedelta(seconds=15)),
    ]  # fmt: skip


def test_a_full_spool_keeps_what_it_has_and_says_so_once(node, services, server, told, monkeypatch):
    server.stop()
    monkeypatch.setattr(node.agent._spool, "_bytes_max", 2 * EVENT_BYTES_MAX)
    node.read(20)
    kept = spooled(node.folder)
    assert 1 < kept < 20
    assert told == ["spool_full"]
    server.start()
    until(lambda: len(recorded(services)) == kept)
    until(lambda: spooled(node.folder) == 0)  # what is recorded leaves the spool a moment later
    node.read(1)
    assert node.agent.close()
    assert told == ["spool_full", "spool_full over"]
    assert len(set(energies(services))) == kept + 1


def test_a_disk_that_takes_no_more_is_told_and_the_next_reading_goes_on(node, services, told, monkeypatch):
    write = os.write

    def write_half(descriptor, content):
        return write(descriptor, content[: len(content) // 2])

    monkeypatch.setattr("metering.client.spool.os.write", write_half)
    node.read(2)
    monkeypatch.undo()
    node.read(1)
    assert node.agent.close()
    assert told[:1] == ["spool_unwritable"]
    assert len(recorded(services)) == 1


def test_without_a_gpu_it_says_so_once_and_looks_again(make_reader, tmp_path, services, server, token, told):
    from metering.agent.nvml import LocalGpus
    from tests.agent.doubles import gpus_of

    cards: list[Card] = []
    source = LocalGpus(Troubles(), lambda: gpus_of(*cards))
    agent = Agent(make_reader(source=source), tmp_path / "spool", carrier(server, token), Troubles())
    assert [agent.read() for _ in range(3)] == [0, 0, 0]
    cards.append(Card())
    assert agent.read() == 1
    assert agent.close()
    assert told == ["no_gpu", "no_gpu over"]
    assert len(recorded(services)) == 1


def start(server, token, folder, exporter, *words):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("JAUGE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "metering", "agent", "--url", server.url, "--dcgm", exporter.url, "--spool", str(folder),
         "--node", "gpu-node-7", *words],
        cwd=ROOT, env=variables | {"JAUGE_TOKEN": token}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_process_that_is_killed_during_an_outage_loses_nothing_and_repeats_nothing(
    services, server, token, exporter, tmp_path
):
    """SIGKILL, then another process, the service back, and SIGTERM."""
    folder = tmp_path / "spool"
    exporter.next_page = lambda: dcgm_page((ENERGY_MJ, "0", 10**9 + 400_000 * exporter.served), (POWER_W, "0", 400))
    server.stop()
    first = start(server, token, folder, exporter, "--interval", "1")
    until(lambda: exporter.served >= 2 and spooled(folder) == exporter.served, seconds=30)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = start(server, token, folder, exporter, "--interval", "1", "--deployment", "large=0")
    before = exporter.served
    until(lambda: exporter.served >= before + 2, seconds=30)
    server.start()
    until(lambda: len(recorded(services)) >= before + 2, seconds=30)
    second.send_signal(signal.SIGTERM)
    _out, log = second.communicate(timeout=30)
    assert second.returncode == 0, log
    assert energies(services) == [10**9 + 400_000 * at for at in range(exporter.served)]
    rows = recorded(services)
    assert len({row["epoch"] for row in rows}) == 1
    assert {row["deployment"] for row in rows[before:]} == {"large"}
    assert [row["monotonic_us"] for row in rows] == sorted({row["monotonic_us"] for row in rows})
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["event"] for line in lines if line["logger"].startswith("metering.client")] == [
        "usage events wait: no_answer"
    ]
    assert token not in log
    assert spooled(folder) == 0


def test_once_reads_sends_and_stops_by_what_came_of_it(services, server, token, exporter, tmp_path):
    (tmp_path / "token").write_text(f"{token}\n")
    words = ["agent", "--url", server.url, "--dcgm", exporter.url, "--spool", str(tmp_path / "spool"), "--once",
             "--token-file", str(tmp_path / "token")]  # fmt: skip

    def once(*more):
        return subprocess.run(
            [sys.executable, "-m", "metering", *words, *more], cwd=ROOT, capture_output=True, text=True, check=False
        )

    none = once()
    assert none.returncode == 1
    assert [json.loads(line)["event"] for line in none.stderr.splitlines()] == ["no_gpu"]
    exporter.page = dcgm_page((ENERGY_MJ, "0", 5))
    assert once().returncode == 0
    assert energies(services) == [5]
    assert once("--url", "http://127.0.0.1:9").returncode == 75
    assert once().returncode == 0
    assert len(recorded(services)) == 3


def test_a_dry_run_prints_events_and_leaves_nothing(exporter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metering.cli.agent._configure_logs", lambda: None)
    words = ["agent", "--dry-run", "--dcgm", exporter.url, "--deployment", "large=0"]
    told = CliRunner().invoke(main, words)
    assert (told.exit_code, told.stdout, told.stderr) == (0, "", "no GPU found: nothing would be sent\n")
    exporter.page = dcgm_page((ENERGY_MJ, "0", 5), (ENERGY_MJ, "1", 6))
    events = [json.loads(line) for line in CliRunner().invoke(main, words).stdout.splitlines()]
    assert [(event["data"]["energy_mj"], event["data"]["deployment"]) for event in events] == [(5, "large"), (6, None)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Say where Jauge is"),
        (["--url", "http://127.0.0.1:9"], "A token is needed"),
        (["--deployment", "large"], "expected NAME=GPU"),
        (["--deployment", "a=0", "--deployment", "b=0"], "a GPU serves one deployment"),
        (["--deployment", "a b=0"], "a deployment's name is"),
        (["--node", "a b"], "names of node, source and site"),
        (["--url", "http://127.0.0.1:9", "--interval", "301"], "301"),
        (["--url", "http://127.0.0.1:9", "--token-file", "file"], "A token is needed"),
        (["--url", "jauge.example", "--token-file", "token"], "isn't one: expected https://HOST"),
        (["--url", "http://a:b", "--token-file", "token"], "isn't one: expected https://HOST"),
        (["--url", "http://127.0.0.1:9", "--token-file", "token", "--spool", "file/spool"], "can't be used"),
    ],
)
def test_a_call_that_lacks_something_says_what(words, told, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "token").write_text("secret")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metering.cli.agent._configure_logs", lambda: None)
    answer = CliRunner().invoke(main, ["agent", "--once", "--dcgm", "http://127.0.0.1:9", *words])
    assert answer.exit_code == 2
    assert told in " ".join(answer.stderr.split())


def test_the_same_line_of_a_sender_is_told_once_an_hour(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr("metering.agent.troubles.time.monotonic", lambda: now_s)
    seldom = Seldom()

    def passes(text):
        return seldom.filter(logging.LogRecord("x", logging.WARNING, "", 0, "waits: %s", (text,), None))

    assert [passes("away"), passes("away"), passes("busy")] == [True, False, True]
    now_s = 3600.0
    assert [passes("away"), passes("away")] == [True, False]


def test_the_agent_imports_nothing_of_the_service():
    heavy = {"litestar", "sqlalchemy", "polars", "psycopg", "redis", "uvicorn", "alembic"}
    code = "import sys, metering.agent.assembly, metering.agent.running; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert not heavy & {name.partition(".")[0] for name in modules}
    ours = {name.split(".")[1] for name in modules if name.startswith("metering.")}
    assert ours == {"agent", "client", "events", "rules"}

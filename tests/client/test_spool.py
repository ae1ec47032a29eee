"""No event gets lost, whatever dies: the gateway's process, Jauge, or the disk's patience."""

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec
import pytest

from metering.client import Jauge, Refused, SpoolFull
from metering.client.http import HttpCarrier
from metering.client.sending import Sender
from metering.client.spool import EVENT_BYTES_MAX, NoRoom, Spool
from tests.client.conftest import DIGEST, Platform, Server, until

ROOT = Path(__file__).parents[2]
ALICE = {"key_sha256": DIGEST, "model": "small"}
USED = {"input_tokens": 1, "output_tokens": 2}

RUN = """
import os, signal, sys
from pathlib import Path
from metering.client import Jauge
url, token, spool, count, end = sys.argv[1:]
jauge = Jauge(url, token, source="gw", spool=Path(spool), on_outage="allow")
for _ in range(int(count)):
    with jauge.hold(key_sha256="DIGEST", model="small") as hold:
        hold.commit({"input_tokens": 1, "output_tokens": 2})
os.kill(os.getpid(), signal.SIGKILL) if end == "killed" else jauge.close()
""".replace("DIGEST", DIGEST)


def process(url: str, token: str, spool: Path, count: int, end: str) -> subprocess.Popen:
    """A gateway of its own that runs so many requests, and is then killed or closes."""
    return subprocess.Popen([sys.executable, "-c", RUN, url, token, str(spool), str(count), end], cwd=ROOT)


def run_killed(spool: Path, count: int = 3) -> None:
    """Leave events of a process that was killed while nobody answered."""
    assert process("http://127.0.0.1:9", "t", spool, count, "killed").wait() == -9


def run_requests(jauge: Jauge, count: int) -> None:
    for _ in range(count):
        with jauge.hold(**ALICE) as hold:
            hold.commit(USED)


def outputs(platform: Platform) -> Sequence[int]:
    return [entry["output_tokens"] for entry in platform.entries()]


def test_what_a_killed_process_left_is_sent_by_the_next(platform: Platform) -> None:
    run_killed(platform.spool)
    assert len(platform.spooled()) == 1
    with platform.jauge():
        until(lambda: len(platform.entries()) == 3)
    assert {(entry["tenant"], entry["user"], entry["api_key"]) for entry in platform.entries()} == {
        ("dinum", "alice", "k-alice")
    }
    assert platform.standing()["output_tokens"] == (6, 0)
    assert list(platform.spool.iterdir()) == []


def test_half_an_event_is_cut_and_the_others_are_sent(platform: Platform) -> None:
    run_killed(platform.spool)
    (segment,) = platform.spooled()
    whole = segment.read_bytes()
    segment.write_bytes(whole + whole[: len(whole) // 6])
    with platform.jauge():
        pass
    assert outputs(platform) == [2, 2, 2]
    assert list(platform.spool.iterdir()) == []


def test_a_line_that_is_broken_is_kept_apart_and_the_others_are_sent(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    run_killed(platform.spool)
    (segment,) = platform.spooled()
    first, second, third = segment.read_bytes().splitlines()
    segment.write_bytes(first + b"\n" + second[:50] + b"\n" + b"\x00\xff\n" + third + b"\n")
    with caplog.at_level(logging.ERROR), platform.jauge():
        pass
    assert outputs(platform) == [2, 2]
    rejected = (platform.spool / "rejected.ndjson").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["code"] for line in rejected] == ["malformed_json"] * 2
    assert [record.getMessage().strip() for record in caplog.records] == ["usage event refused: malformed_json"] * 2


def test_a_batch_that_is_sent_again_counts_once(platform: Platform, server: Server) -> None:
    """A process that dies between the answer and its note of it."""
    run_killed(platform.spool)
    (segment,) = platform.spooled()
    (lock,) = platform.spool.glob("*.lock")
    content = segment.read_bytes()
    for _ in range(2):
        lock.touch()
        segment.write_bytes(content)
        with platform.jauge():
            pass
        assert list(platform.spool.iterdir()) == []
    assert outputs(platform) == [2, 2, 2]
    assert platform.standing()["output_tokens"] == (6, 0)


def test_what_came_during_an_outage_is_sent_when_it_is_over(platform: Platform, server: Server) -> None:
    with platform.jauge(on_outage="allow") as jauge:
        run_requests(jauge, 1)
        server.stop()
        run_requests(jauge, 3)
        server.start()
        until(lambda: len(platform.entries()) == 4)
        run_requests(jauge, 1)
    assert outputs(platform) == [2] * 5
    assert platform.standing() == {
        "total_tokens": (15, 0), "output_tokens": (10, 0), "requests": (5, 0), "concurrent_requests": (0, 0),
    }  # fmt: skip


def test_processes_share_a_folder(platform: Platform) -> None:
    address = (platform.url, platform.token, platform.spool)
    run_killed(platform.spool, 4)
    running = [process(*address, 15, "closed") for _ in range(2)]
    assert [one.wait() for one in running] == [0, 0]
    with platform.jauge():
        pass
    assert outputs(platform) == [2] * 34
    assert list(platform.spool.iterdir()) == []


def test_a_full_spool_keeps_what_it_has_and_lets_nothing_run(platform: Platform, server: Server) -> None:
    server.stop()
    with platform.jauge(on_outage="allow", spool_bytes_max=2 * EVENT_BYTES_MAX) as jauge:
        with jauge.hold(**ALICE) as first, jauge.hold(**ALICE) as second:
            with pytest.raises(SpoolFull) as told, jauge.hold(**ALICE):
                raise AssertionError("it runs")
            first.commit(USED)
            second.commit(USED)
        assert (told.value.status, told.value.code, told.value.retry_after_s) == (503, "spool_full", 5)
        run_requests(jauge, 4)  # an event takes less than the room that is kept for it
        with pytest.raises(SpoolFull):
            run_requests(jauge, 20)
        server.start()
        until(lambda: not any(path.stat().st_size for path in platform.spooled()))
        run_requests(jauge, 1)
    sent = outputs(platform)
    assert len(sent) > 6
    assert set(sent) == {2}


def test_room_is_given_back_by_what_does_not_run(platform: Platform) -> None:
    with platform.jauge(spool_bytes_max=2 * EVENT_BYTES_MAX) as jauge:
        for _ in range(3):
            with pytest.raises(Refused), jauge.hold(key_sha256="0" * 64, model="small"):
                pass
        run_requests(jauge, 1)
    assert outputs(platform) == [2]


def test_a_disk_that_is_full_is_told(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_half(descriptor: int, content: bytes) -> int:
        return write(descriptor, content[: len(content) // 2])

    write = os.write
    with platform.jauge() as jauge:
        monkeypatch.setattr("metering.client.spool.os.write", write_half)
        with pytest.raises(SpoolFull), jauge.hold(**ALICE) as hold:
            hold.commit(USED)
        monkeypatch.undo()
        run_requests(jauge, 1)
    assert outputs(platform) == [2]
    assert not (platform.spool / "rejected.ndjson").exists()


def test_a_segment_is_deleted_once_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metering.client.spool.SEGMENT_BYTES", 100)
    spool = Spool(tmp_path, bytes_max=10 * EVENT_BYTES_MAX)
    events = [b'{"number": %d, "padding": "%s"}' % (number, b"x" * 50) for number in range(5)]
    for event in events:
        spool.keep_room()
        spool.append(event)
    assert len(list(tmp_path.glob("*.ndjson"))) == 3
    sent = []
    while (batch := spool.oldest()) is not None:
        sent += batch.lines
        spool.answered(batch, [])
    assert sent == events
    assert [path.stat().st_size for path in tmp_path.glob("*.ndjson")] == [0]
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_is_too_large_is_sent_in_parts(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        lines = request.content.splitlines()
        calls.append(len(lines))
        if len(lines) > 2:
            return httpx.Response(413, json={"code": "too_many_events"})
        if b'{"number":4}' in lines:
            return httpx.Response(400, json={"code": "malformed_json"})
        return httpx.Response(200, json={"events": [{"index": at, "status": "accepted"} for at in range(len(lines))]})

    calls: list[int] = []
    spool = Spool(tmp_path, bytes_max=10 * EVENT_BYTES_MAX)
    for number in range(5):
        spool.keep_room()
        spool.append(b'{"number":%d}' % number)
    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://jauge")
    Sender(spool, HttpCarrier(http)).close(5)
    assert calls == [5, 2, 3, 1, 2, 1, 1]
    rejected = {"code": "malformed_json", "field": None, "event": {"number": 4}}
    assert msgspec.json.decode((tmp_path / "rejected.ndjson").read_bytes()) == rejected
    assert [path.name for path in tmp_path.iterdir()] == ["rejected.ndjson"]


def test_a_living_process_keeps_its_events(tmp_path: Path) -> None:
    living, other = (Spool(tmp_path, bytes_max=2 * EVENT_BYTES_MAX) for _ in range(2))
    living.keep_room()
    living.append(b"{}")
    other.adopt()
    assert other.oldest() is None
    living.close()
    other.adopt()
    batch = other.oldest()
    assert batch is not None
    assert batch.lines == [b"{}"]
    other.keep_room()
    with pytest.raises(NoRoom):
        other.keep_room()
    other.close()


def test_the_client_imports_little() -> None:
    heavy = {"litestar", "sqlalchemy", "polars", "numpy", "pydantic", "structlog", "redis", "uvicorn"}
    code = "import sys, metering.client; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
    ours = "import sys, metering.client; print(*(name for name in sys.modules if name.startswith('metering.')))"
    done = subprocess.run([sys.executable, "-c", ours], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.split(".")[1] for name in done.stdout.split()} == {"client", "events", "rules"}

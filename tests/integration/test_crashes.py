"""Processes that are killed at any moment: every event counts, and counts once."""

import gzip
import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import redis
import zstandard

from metering.database import engine_for
from metering.events.files import IngestSummary, ingest
from metering.events.intake import Intake
from metering.events.stream import GROUP, StreamConsumer
from metering.ledger.append import Ledger
from metering.ledger.committer import GroupCommitter
from metering.ledger.series import SeriesRegistry
from metering.services import Services
from tests.conftest import Api
from tests.integration.doors import NDJSON, STREAM, assert_exact, entry, jauge, until
from tests.integration.trace import Trace, a_trace, the_trace
from tests.threads import run_threads

KILLS = 3


def test_an_ingest_that_is_killed_at_any_moment_ends_exact_when_run_again(environment, database_url, tmp_path):
    rng = random.Random()
    trace = the_trace(repeat=2)
    path = trace.file(tmp_path / "events.ndjson")
    engine = engine_for(database_url)
    written = [0]
    for _ in range(KILLS):
        process = jauge(environment, "ingest", str(path))
        batches_before = written[-1]
        while process.poll() is None and written[-1] == batches_before:
            time.sleep(0.002)
            with engine.connect() as connection:
                written.append(connection.exec_driver_sql("SELECT count(*) FROM ledger_batch").scalar_one())
        time.sleep(rng.random() * 0.1)
        process.kill()
        process.communicate()
    assert written[-1] > 0, "killed too early to test anything"
    engine.dispose()
    process = jauge(environment, "ingest", "--json", str(path))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    counts = json.loads(out)
    assert counts["accepted"] + counts["duplicate"] == len(trace.lines)
    assert counts["conflict"] == counts["rejected"] == 0
    assert_exact(database_url, trace.totals, len(trace.lines))


# All doors at once


@contextmanager
def consuming(services: Services, *clients: redis.Redis) -> Iterator[list[StreamConsumer]]:
    """Consumers in threads, until the block ends."""
    stop = threading.Event()
    consumers = [a_consumer(services, client) for client in clients]
    threads = [threading.Thread(target=consumer.run, args=(stop,)) for consumer in consumers]
    for thread in threads:
        thread.start()
    try:
        yield consumers
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def a_consumer(services: Services, client: redis.Redis) -> StreamConsumer:
    return StreamConsumer(client, services.intake, stream=STREAM, claim_ms=500, events_max=10_000)


def shuffled(trace: Trace, seed: int, share_twice: float) -> list[bytes]:
    """The trace's lines in another order, a share of them twice."""
    rng = random.Random(seed)
    lines = trace.lines + rng.sample(trace.lines, int(len(trace.lines) * share_twice))
    rng.shuffle(lines)
    return lines


def by_file(services: Services, lines: list[bytes], path: Path) -> None:
    summary = IngestSummary()
    ingest(services.intake, Trace(lines, {}).file(path), summary, lambda _: None)
    assert summary.accepted + summary.duplicate == len(lines)


def by_http(api: Api, lines: list[bytes]) -> None:
    with api.client() as client:
        for start in range(0, len(lines), 700):
            while (answer := client.post("/v1/events", content=b"\n".join(lines[start : start + 700]),
                                         headers=NDJSON)).status_code == 503:  # fmt: skip
                time.sleep(0.2)
            assert answer.status_code == 200, answer.text


def by_stream(redis_url: str, lines: list[bytes]) -> None:
    with redis.Redis.from_url(redis_url) as client:
        for number, start in enumerate(range(0, len(lines), 130)):
            fields = entry(lines[start : start + 130], (None, "gzip", "zstd")[number % 3])
            client.xadd(STREAM, fields)


def test_the_same_trace_by_file_http_and_stream_at_once_counts_once(services, api, database_url, redis_url, tmp_path):
    trace = the_trace()
    with redis.Redis.from_url(redis_url) as client, consuming(services, services.redis(), services.redis()):
        run_threads(
            [
                lambda: by_file(services, shuffled(trace, 1, 0.3), tmp_path / "events.ndjson"),
                lambda: by_http(api, shuffled(trace, 2, 0.1)),
                lambda: by_http(api, shuffled(trace, 3, 0.1)),
                lambda: by_stream(redis_url, shuffled(trace, 4, 0.2)),
            ]
        )
        until(lambda: client.xlen(STREAM) == 0)
        assert client.xpending(STREAM, GROUP)["pending"] == 0
    assert_exact(database_url, trace.totals, len(trace.lines))


# Between commit and acknowledgement


class Deaf(redis.Redis):
    """A client whose acknowledgements never arrive."""

    failures = 0

    def pipeline(self, *_: object, **__: object):
        self.failures += 1
        raise redis.ConnectionError


def test_events_written_and_not_acknowledged_are_taken_over_and_count_once(services, database_url, redis_url):
    trace = a_trace(500)
    with redis.Redis.from_url(redis_url) as client:
        for start in range(0, 500, 50):
            client.xadd(STREAM, entry(trace.lines[start : start + 50]))
        deaf = Deaf.from_url(redis_url)
        with consuming(services, deaf):
            until(lambda: deaf.failures > 0)
        assert_exact(database_url, trace.totals, len(trace.lines))
        assert client.xlen(STREAM) == 10
        assert client.xpending(STREAM, GROUP)["pending"] == 10
        time.sleep(0.6)
        with consuming(services, services.redis()):
            until(lambda: client.xlen(STREAM) == 0)
        assert client.xpending(STREAM, GROUP)["pending"] == 0
    assert_exact(database_url, trace.totals, len(trace.lines))


def test_workers_that_are_killed_lose_and_double_nothing(environment, database_url, redis_url):
    rng = random.Random()
    trace = a_trace(8_000)
    with redis.Redis.from_url(redis_url) as client:
        for start in range(0, len(trace.lines), 4):
            client.xadd(STREAM, entry(trace.lines[start : start + 4]))
        for _ in range(2):
            worker = jauge(environment | {"JAUGE_GROUP_EVENTS_MAX": "40"}, "worker")  # slow enough to be killed
            left = client.xlen(STREAM)
            until(lambda left=left: client.xlen(STREAM) < left)
            time.sleep(rng.random() * 0.05)
            worker.kill()
            worker.communicate()
        assert client.xpending(STREAM, GROUP)["pending"] > 0, "killed too late to test anything"
        worker = jauge(environment, "worker")
        client.xadd(STREAM, entry(trace.lines[:1]))
        until(lambda: client.xlen(STREAM) == 0)
        worker.send_signal(signal.SIGTERM)
        _, err = worker.communicate(timeout=20)
        assert worker.returncode == 0, err.decode()
        assert client.xpending(STREAM, GROUP)["pending"] == 0
    assert_exact(database_url, trace.totals, len(trace.lines))


# What the stream may hold


def test_poison_is_quarantined_and_acknowledged_and_the_rest_counts(services, database_url, redis_url):
    trace = a_trace(100)
    good = zstandard.compress(b"\n".join(trace.lines))
    broken_deflate = bytearray(gzip.compress(b"x" * 1000))
    broken_deflate[12:16] = b"\xff\xff\xff\xff"
    poison: list[dict[str, bytes]] = [
        {"nothing": b"here"},
        {"body": b""},
        {"body": b"not json"},
        {"body": b"\xff\xfe\xfd"},
        {"body": b"[" * 100_000},
        {"body": b"[]"},
        {"body": b" " * (2 << 20)},
        {"body": gzip.compress(b" " * (64 << 20)), "encoding": b"gzip"},
        {"body": zstandard.compress(b" " * (64 << 20)), "encoding": b"zstd"},
        {"body": b"no gzip", "encoding": b"gzip"},
        {"body": bytes(broken_deflate), "encoding": b"gzip"},
        {"body": gzip.compress(b"x" * 1000)[:-12], "encoding": b"gzip"},
        {"body": good[:-20], "encoding": b"zstd"},
        {"body": good, "encoding": b"zstd"[::-1]},
        {"body": good, "encoding": b"\xff"},
    ]
    with redis.Redis.from_url(redis_url) as client:
        for number, fields in enumerate(poison):
            client.xadd(STREAM, fields)
            client.xadd(STREAM, entry(trace.lines[number * 5 : number * 5 + 5]))
        client.xadd(STREAM, entry(trace.lines[len(poison) * 5 :]))
        with consuming(services, services.redis()):
            until(lambda: client.xlen(STREAM) == 0)
        assert client.xpending(STREAM, GROUP)["pending"] == 0
    assert_exact(database_url, trace.totals, len(trace.lines))
    with services.engine.connect() as connection:
        held = connection.exec_driver_sql("SELECT sum(occurrences) FROM quarantine WHERE channel = 'stream'")
        assert held.scalar_one() >= len(poison) - 1  # an empty array holds no event


def test_consumers_survive_that_the_stream_is_wiped(services, database_url, redis_url):
    trace = a_trace(300)
    with redis.Redis.from_url(redis_url) as client, consuming(services, services.redis(), services.redis()):
        client.xadd(STREAM, entry(trace.lines[:100]))
        until(lambda: client.xlen(STREAM) == 0)
        client.flushall()
        client.xadd(STREAM, entry(trace.lines[100:200]))
        until(lambda: client.exists(STREAM) and client.xlen(STREAM) == 0)
        client.delete(STREAM)
        client.set(STREAM, "not a stream")
        time.sleep(0.3)
        client.delete(STREAM)
        client.xadd(STREAM, entry(trace.lines[200:]))
        until(lambda: client.exists(STREAM) and client.xlen(STREAM) == 0)
    assert_exact(database_url, trace.totals, len(trace.lines))


def test_a_fault_of_ours_leaves_its_entry_in_the_stream_and_the_rest_goes_on(
    services, database_url, redis_url, monkeypatch
):
    trace = a_trace(40)
    begin = services.intake.begin
    broken = [True]

    def faulty(decoded, channel):
        if broken[0] and any(getattr(event, "id", "") == "trace-17" for event in decoded):
            raise ZeroDivisionError
        return begin(decoded, channel)

    monkeypatch.setattr(services.intake, "begin", faulty)
    with redis.Redis.from_url(redis_url) as client, consuming(services, services.redis()):
        for line in trace.lines:
            client.xadd(STREAM, entry([line]))
        until(lambda: client.xlen(STREAM) == 1)
        broken[0] = False
        until(lambda: client.xlen(STREAM) == 0)
    assert_exact(database_url, trace.totals, len(trace.lines))


def test_more_entries_than_the_queue_holds_are_all_written(settings, services, database_url, redis_url):
    """A queue that is full of a consumer's own entries must not make it begin all over again for ever."""
    trace = a_trace(6_000)
    registry = SeriesRegistry(services.engine)
    committer = GroupCommitter(Ledger(services.engine, registry), queue_events_max=150, group_events_max=100)
    narrow = StreamConsumer(
        services.redis(), Intake(services.engine, registry, committer), stream=STREAM, claim_ms=500, events_max=10_000
    )
    stop = threading.Event()
    thread = threading.Thread(target=narrow.run, args=(stop,))
    with redis.Redis.from_url(redis_url) as client:
        for start in range(0, len(trace.lines), 100):
            client.xadd(STREAM, entry(trace.lines[start : start + 100]))
        thread.start()
        until(lambda: client.xlen(STREAM) == 0)
    stop.set()
    thread.join(10)
    committer.close()
    assert_exact(database_url, trace.totals, len(trace.lines))


def test_an_answer_that_never_arrives_is_repeated_safely(services, api, database_url):
    trace = a_trace(200)
    for timeout_s in (0.001, 0.01, 0.03, 60):
        with api.client() as client:
            client.timeout = httpx.Timeout(timeout_s)
            try:
                answer = client.post("/v1/events", content=b"\n".join(trace.lines), headers=NDJSON)
            except httpx.TransportError:
                continue
            assert answer.status_code == 200
    assert_exact(database_url, trace.totals, len(trace.lines))

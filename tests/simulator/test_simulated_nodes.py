"""The simulated nodes: counters that never fall or jump, follow the requests, and go on where a run before stopped."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from typing import Any

import msgspec
import pytest

from metering.catalog.apply import read_file
from metering.demo import apply_catalogue, last_counters
from metering.events.decoding import decode, decode_one
from metering.events.energy import check_reading
from metering.events.envelope import EnergyEvent
from metering.rules.carbon import integration
from metering.rules.carbon.integration import integrate
from metering.services import Services
from metering.simulator import Counter, Nodes, history
from metering.simulator.nodes import GPUS, KNOWN_AFTER, POWER_LIMIT_MW, SITE
from tests.simulator.test_demo_catalogue import FILE

NOW = datetime(2026, 1, 22, 13, 0, 30, tzinfo=UTC)
DAYS, EVENTS = 3, 3_000


def events_of(chunks: Iterable[list[bytes]]) -> list[EnergyEvent]:
    found = [decode_one(event) for event in chain.from_iterable(chunks)]
    assert all(isinstance(event, EnergyEvent) for event in found)
    return found  # type: ignore[return-value]


def ran(now: datetime, since: dict[str, Counter] | None = None) -> list[EnergyEvent]:
    """Readings of nodes that saw some days of requests."""
    nodes = Nodes(since or {})
    for chunk in history(now, days=DAYS, events=EVENTS):
        nodes.watch(chunk)
    return events_of(nodes.readings(now))


def counters_of(events: Iterable[EnergyEvent]) -> dict[str, Counter]:
    """Where counters stood at the last of some readings."""
    return {
        event.data.gpu: Counter(event.time, event.data.energy_mj or 0, event.data.host_energy_mj) for event in events
    }


def stood_at(at: datetime) -> dict[str, Counter]:
    """Counters as they may have stood."""
    return {gpu.uuid: Counter(at, 10**12, 10**12 if gpu.has_host_counter else None) for gpu in GPUS}


@pytest.fixture(scope="module")
def readings() -> list[EnergyEvent]:
    """Of two days."""
    return ran(NOW, stood_at(NOW.replace(second=0) - timedelta(days=2)))


def test_every_reading_passes_the_ledgers_own_checks_and_has_an_id_of_its_own(readings: list[EnergyEvent]) -> None:
    assert all(check_reading(event, NOW) is None for event in readings)
    assert len({event.id for event in readings}) == len(readings)
    assert max(event.time for event in readings) <= NOW - KNOWN_AFTER


def test_a_month_is_read_every_ten_minutes_and_the_last_day_by_the_minute() -> None:
    times: dict[datetime, int] = {}
    for chunk in Nodes({}).readings(NOW):
        for event in map(msgspec.json.decode, chunk):
            at = datetime.fromisoformat(event["time"])
            times[at] = times.get(at, 0) + 1
    assert set(times.values()) == {len(GPUS)}
    assert NOW - timedelta(days=30, minutes=10) < min(times) < NOW - timedelta(days=29, hours=23)
    gaps = [later - earlier for earlier, later in pairwise(sorted(times))]
    assert (min(gaps), max(gaps)) == (timedelta(minutes=1), timedelta(minutes=10))
    assert max(gaps[-1_440:]) == timedelta(minutes=1)
    assert 45_000 < sum(times.values()) < 60_000


def test_counters_are_believed_and_powers_are_a_gpus(readings: list[EnergyEvent]) -> None:
    for gpu in GPUS:
        own = [event.data for event in readings if event.data.gpu == gpu.uuid]
        given = [
            integration.Reading(
                data.epoch, int(event.time.timestamp() * 1e6), data.monotonic_us, (data.energy_mj or 0) * 1_000,
                data.power_mw,
            )
            for event, data in ((event, event.data) for event in readings if event.data.gpu == gpu.uuid)
        ]  # fmt: skip
        end = NOW.replace(hour=12, minute=0, second=0)
        start = end - timedelta(hours=30)
        windows = integrate(
            integration.Gpu(gpu.uuid, POWER_LIMIT_MW), given, int(start.timestamp() * 1e6), int(end.timestamp() * 1e6)
        )
        assert {flag for window in windows for flag in window.flags} <= {"gap"}
        assert {window.tier for window in windows[-60:]} == {"A"}
        assert all(85_000 < (data.power_mw or 0) <= POWER_LIMIT_MW for data in own)


def test_power_follows_the_requests_of_the_replica() -> None:
    quiet, busy, once = (Nodes(stood_at(NOW - timedelta(hours=1))) for _ in range(3))
    at = NOW - timedelta(minutes=20)
    request = {
        "id": "r-1", "time": at + timedelta(seconds=90),
        "data": {"deployment": "albert-small-1", "status": "ok", "started_at": at, "input_tokens": 900},
    }  # fmt: skip
    told = msgspec.json.encode(request)
    busy.watch([told, told])  # a repeat is no second request
    refused = request | {"id": "r-2", "data": {"deployment": "albert-small-2", "status": "refused", "started_at": at}}
    busy.watch([msgspec.json.encode(refused)])
    once.watch([told])
    energy = {}
    for name, nodes in (("quiet", quiet), ("busy", busy), ("once", once)):
        energy[name] = {gpu: one.energy_mj for gpu, one in counters_of(events_of(nodes.readings(NOW))).items()}
    more = {gpu.uuid: energy["busy"][gpu.uuid] - energy["quiet"][gpu.uuid] for gpu in GPUS}
    assert {gpu.deployment for gpu in GPUS if more[gpu.uuid]} == {"albert-small-1"}
    assert 90 * 60_000 < sum(more.values()) < 90 * 400_000  # mJ, of a minute and a half
    assert energy["once"] == energy["busy"]


def test_a_demo_that_starts_again_goes_on_with_its_counters(readings: list[EnergyEvent]) -> None:
    later = NOW + timedelta(days=1, hours=3)
    again = ran(later, counters_of(readings))
    assert not {event.id for event in again} & {event.id for event in readings}
    assert min(event.time for event in again) > max(event.time for event in readings)
    stood = counters_of(readings)
    for event in again:
        assert (event.data.energy_mj or 0) > stood[event.data.gpu].energy_mj
    assert {event.data.epoch for event in again} == {event.data.epoch for event in readings}
    assert ran(NOW, stood) == []


def test_after_a_long_pause_a_month_is_read_and_the_time_before_was_idle(readings: list[EnergyEvent]) -> None:
    later = NOW + timedelta(days=100)
    again = ran(later, counters_of(readings))
    first = min(event.time for event in again)
    assert later - first < timedelta(days=30, minutes=15)
    stood = counters_of(readings)
    for gpu in GPUS:
        energy_mj = next(event.data.energy_mj for event in again if event.data.gpu == gpu.uuid) or 0
        seconds = (first - stood[gpu.uuid].at).total_seconds()
        assert energy_mj - stood[gpu.uuid].energy_mj == pytest.approx(gpu.idle_w * 1_000 * seconds, rel=0.01)


def test_the_same_day_has_the_same_readings(readings: list[EnergyEvent]) -> None:
    assert ran(NOW, stood_at(NOW.replace(second=0) - timedelta(days=2))) == readings


def test_the_ledger_takes_them_once_and_tells_where_counters_stand(services: Services) -> None:
    apply_catalogue(services.engine, NOW)
    (chunk,) = Nodes(stood_at(NOW - timedelta(hours=1))).readings(NOW)
    for status in ("accepted", "duplicate"):
        taken = services.intake.take(decode(b"[" + b",".join(chunk) + b"]", "json", 10_000), "http")
        assert getattr(taken, status) == len(chunk)
    assert last_counters(services.engine) == counters_of(events_of([chunk]))


def test_the_catalogue_says_what_the_nodes_serve_and_where() -> None:
    documents: dict[str, list[Any]] = {}
    for kind, document in read_file(FILE).documents:
        documents.setdefault(kind.name, []).append(document)
    assert [site.id for site in documents["sites"]] == [SITE]
    said = {one.id: one.accelerators for one in documents["deployments"]}
    for deployment in {gpu.deployment for gpu in GPUS}:
        assert said[deployment] == sum(gpu.deployment == deployment for gpu in GPUS)

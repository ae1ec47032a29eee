"""From samples to events: names, epochs, clocks, deployments."""

import time as clocks
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from metering.agent.dcgm import ENERGY_MJ, parse
from metering.agent.epochs import boot_id
from metering.agent.memory import Memory, load, save
from metering.agent.nvml import LocalGpus
from metering.agent.reading import Clock
from metering.agent.sources import GpuSample
from metering.agent.troubles import Troubles
from metering.events.energy import check_reading
from metering.events.envelope import NAME_LENGTH_MAX
from tests.agent.doubles import NOON, Card, FakeTime, dcgm_page, gpus_of


class Listed:
    """A source that says what it is told to."""

    def __init__(self, *samples: GpuSample, is_local: bool = True) -> None:
        self.samples = samples
        self.is_local = is_local

    def read(self):
        return self.samples


def test_a_reading_says_what_the_schema_asks(make_reader):
    (event,) = make_reader(Card(), stated={"albert-large-0": ["0"]}).events()
    assert (event.type, event.source, event.time) == ("jauge.energy.v1", "node-1", NOON)
    assert event.id == f"{Card().uuid}.b00700000000-0-0.1000000000"
    assert msgspec.to_builtins(event.data) == {
        "node": "node-1", "gpu": Card().uuid, "epoch": "b00700000000-0-0", "monotonic_us": 1_000_000_000,
        "energy_mj": 1_000_000, "power_mw": 412_345, "power_limit_mw": 700_000, "gpu_model": "H100-SXM",
        "deployment": "albert-large-0", "site": "dc-paris", "host_energy_mj": None, "host_source": None,
    }  # fmt: skip
    assert check_reading(event, NOON) is None


def test_ids_stay_unique_and_time_goes_on_when_the_wall_clock_is_set_back(make_reader):
    card, time = Card(), FakeTime()
    reader = make_reader(card, time=time)
    events = []
    for step_s in (0, 0, -3600, 0, 7200, 0):
        events += reader.events()
        card.run()
        time.pass_s(30)
        time.now += timedelta(seconds=step_s)
    assert len({event.id for event in events}) == 6
    assert {event.data.epoch for event in events} == {"b00700000000-0-0"}
    assert [event.data.monotonic_us - 1_000_000_000 for event in events] == [at * 30_000_000 for at in range(6)]
    assert events[3].time < events[2].time


def test_a_counter_that_begins_anew_has_another_epoch_and_the_others_keep_theirs(make_reader):
    cards = [Card(uuid="GPU-a"), Card(uuid="GPU-b")]
    reader = make_reader(*cards)
    before = [event.data.epoch for event in reader.events()]
    cards[0].energy_mj = 5
    after = [event.data.epoch for event in reader.events()]
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)
    assert [event.data.epoch for event in reader.events()] == after


def test_an_epoch_outlives_the_agent_and_a_reset_meanwhile_is_seen(make_reader, tmp_path):
    card = Card()
    reader = make_reader(card)
    (before,) = reader.events()
    save(tmp_path, reader.memory, Troubles())
    card.run()
    (after,) = make_reader(card, memory=load(tmp_path, Troubles())).events()
    assert after.data.epoch == before.data.epoch
    card.energy_mj = 5
    (reset,) = make_reader(card, memory=load(tmp_path, Troubles())).events()
    assert reset.data.epoch != before.data.epoch


def test_a_boot_and_another_driver_begin_an_epoch_whatever_the_counter_says(make_reader):
    memory = Memory()
    (before,) = make_reader(Card(), memory=memory).events()
    (booted,) = make_reader(Card(energy_mj=2_000_000), memory=memory, boot="b00800000000").events()
    sample = GpuSample(Card().uuid, 0, None, None, "580.65", 3_000_000, None, None)
    (updated,) = make_reader(memory=memory, boot="b00800000000", source=Listed(sample)).events()
    assert len({before.data.epoch, booted.data.epoch, updated.data.epoch}) == 3


def test_a_counter_that_is_not_told_for_once_begins_no_epoch(make_reader):
    card = Card()
    reader = make_reader(card)
    (before,) = reader.events()
    card.energy_mj = None
    (silent,) = reader.events()
    card.energy_mj = 2_000_000
    (after,) = reader.events()
    assert {before.data.epoch, silent.data.epoch, after.data.epoch} == {before.data.epoch}


def test_of_another_machine_neither_boot_nor_clock_nor_processors_are_told(make_reader):
    samples = list(parse(dcgm_page((ENERGY_MJ, "0", 10**9)), is_local=False))
    time = FakeTime()
    reader = make_reader(source=Listed(*samples, is_local=False), time=time)
    (event,) = reader.events()
    assert (event.data.node, event.source) == ("gpu-node-7", "node-1")
    assert (event.data.epoch, event.data.monotonic_us) == ("remote-535.129.03-0", None)
    time.pass_s(30)
    assert reader.events()[0].id != event.id


def test_names_of_any_length_and_form_make_events_that_are_taken(make_reader):
    sample = GpuSample("G" * 200, 0, "m" * 64, None, "9" * 300, 1, None, None)
    odd = sample._replace(uuid="% &", driver="")
    for event in make_reader(source=Listed(sample, odd)).events():
        assert check_reading(event, NOON) is None
        assert len(event.id) <= NAME_LENGTH_MAX


def test_a_memory_that_can_not_be_read_or_written_is_told_and_stops_nothing(tmp_path, told):
    (tmp_path / "memory.json").write_text('{"gpus": 7}')
    troubles = Troubles()
    assert load(tmp_path, troubles) == Memory()
    save(tmp_path / "absent", Memory(), troubles)
    save(tmp_path, Memory(), troubles)
    assert told == ["memory_unreadable", "memory_unwritable", "memory_unwritable over"]


def test_deployments_follow_the_file(make_reader, tmp_path, told):
    file = tmp_path / "deployments.yaml"
    cards = [Card(uuid="GPU-a"), Card(uuid="GPU-b")]
    reader = make_reader(*cards, file=file)

    def served():
        return [event.data.deployment for event in reader.events()]

    assert served() == [None, None]
    file.write_text("deployments:\n  albert-large-0: [0, GPU-b]\n")
    assert served() == ["albert-large-0", "albert-large-0"]
    for broken in ("deployments: [", "deployments: {a b: [0]}", "deployments: {a: [0], b: [0]}", "other: {}", "", "7"):
        file.write_text(broken)
        assert served() == ["albert-large-0", "albert-large-0"]
    file.write_text("deployments: {small-1: [GPU-a]}")
    assert served() == ["small-1", None]
    file.unlink()
    assert served() == ["small-1", None]
    assert told == ["deployments_unreadable", "deployments_unreadable over"] * 2 + ["deployments_unreadable"]


def test_the_real_clocks_are_those_of_the_machine():
    clock = Clock()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
    before_us = clocks.clock_gettime_ns(clocks.CLOCK_BOOTTIME) // 1_000
    assert 0 <= clock.monotonic_us() - before_us < 5_000_000
    assert len(boot_id()) == 12
    assert boot_id() == boot_id()


@pytest.mark.parametrize("count", [8])
def test_a_reading_of_a_node_is_of_one_moment(make_reader, count):
    cards = [Card(uuid=f"GPU-{number}") for number in range(count)]
    events = make_reader(source=LocalGpus(Troubles(), lambda: gpus_of(*cards))).events()
    assert len({(event.time, event.data.monotonic_us) for event in events}) == 1
    assert len({event.id for event in events}) == count

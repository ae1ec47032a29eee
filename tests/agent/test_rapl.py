"""Energy of processors and memory: what is counted, what goes round, what is missing."""

import pytest
from codecarbon.core.rapl import RAPLFile
from codecarbon.core.units import Energy, Time

from metering.agent.memory import Memory
from metering.agent.rapl import WRAP_US_MAX, Rapl
from metering.agent.troubles import Troubles
from tests.agent.doubles import Card, FakeTime, Powercap

JOULES_UJ = 10**6
BOOT = "b00700000000"
HALF_A_MINUTE_US = 30_000_000


class Machine:
    """Counters of a machine, read twice a minute."""

    def __init__(self, root):
        self.powercap = Powercap(root)
        self.root = root
        self.memory = Memory()
        self.boot = BOOT
        self.monotonic_us = 0

    def put(self, **joules):
        """Where counters stand: `package_0`, `dram_0`, `package_1`…, in J."""
        for name, standing in joules.items():
            kind, number = name.rsplit("_", 1)
            domain = f"intel-rapl:{number}" + (":0" if kind == "dram" else ":1" if kind == "core" else "")
            self.powercap.put(domain, f"package-{number}" if kind == "package" else kind, int(standing * JOULES_UJ))

    def read(self, after_us=HALF_A_MINUTE_US):
        self.monotonic_us += after_us
        return Rapl(Troubles(), self.root).total_mj(self.memory, self.boot, self.monotonic_us)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "powercap")


def test_packages_and_their_memory_are_counted_and_parts_of_packages_are_not(machine):
    machine.put(package_0=100, dram_0=10, core_0=60, package_1=500, dram_1=50)
    assert machine.read() == 0
    machine.put(package_0=103, dram_0=11, core_0=62, package_1=505, dram_1=50.5)
    assert machine.read() == 9_500
    machine.put(package_0=104)
    assert machine.read() == 10_500


def test_a_counter_that_goes_round_goes_on(machine):
    top = machine.powercap.RANGE_UJ / JOULES_UJ
    machine.put(package_0=top - 2)
    machine.read()
    machine.put(package_0=5)
    assert machine.read() == 7_000


def test_the_same_counts_give_the_same_energy_as_codecarbon(machine):
    standings = [100, 250.5, 262_000, 40, 41.000001]
    machine.put(package_0=standings[0])
    domain = machine.root / "intel-rapl:0"
    theirs = RAPLFile("package-0", str(domain / "energy_uj"), str(domain / "max_energy_range_uj"))
    machine.read()
    total_kwh = 0.0
    for standing in standings[1:]:
        machine.put(package_0=standing)
        ours_mj = machine.read()
        theirs.delta(Time.from_seconds(30))
        total_kwh += theirs.energy_delta.kWh
    assert ours_mj == pytest.approx(total_kwh / Energy.JOULES_TO_KWH * 1_000, abs=1)


def test_dies_that_show_one_counter_count_once_and_packages_that_met_by_chance_count_twice(machine):
    machine.put(package_0=100, package_1=100.1, package_2=300)
    machine.read()
    machine.put(package_0=110, package_1=110.1, package_2=302)
    assert machine.read() == 12_000
    machine.put(package_0=120, package_1=150, package_2=302)
    assert machine.read() == 12_000 + 10_000 + 39_900


def test_a_short_stop_of_the_agent_loses_nothing(machine):
    machine.put(package_0=100)
    machine.read()
    machine.put(package_0=400)
    assert machine.read(WRAP_US_MAX) == 300_000


@pytest.mark.parametrize("what", ["pause", "boot", "another domain"])
def test_where_the_count_is_not_known_the_total_falls(machine, what):
    """A total that falls says so to the service, which takes its prior for that hour."""
    machine.put(package_0=100)
    machine.read()
    machine.put(package_0=400)
    assert machine.read() == 300_000
    machine.put(package_0=500)
    if what == "boot":
        machine.boot = "b00800000000"
    if what == "another domain":
        machine.put(package_1=5)
    assert machine.read(WRAP_US_MAX + 1 if what == "pause" else HALF_A_MINUTE_US) == 0


def test_readings_too_far_apart_never_say_that_nothing_was_used(machine):
    """As by `--once` every ten minutes."""
    machine.put(package_0=100)
    totals = []
    for standing in (100, 200, 300):
        machine.put(package_0=standing)
        totals.append(machine.read(2 * WRAP_US_MAX))
    assert totals == [0, None, None]


def test_nothing_measured_is_nothing_told(machine, told):
    assert machine.read() is None
    machine.powercap.put("intel-rapl:0", "psys", 5)
    assert machine.read() is None
    assert told == []


def test_counters_that_can_not_be_read_are_told_once(machine, told, monkeypatch):
    machine.put(package_0=100)
    rapl = Rapl(Troubles(), machine.root)
    (machine.root / "intel-rapl:0" / "energy_uj").unlink()
    assert [rapl.total_mj(machine.memory, BOOT, at) for at in (1, 2)] == [None, None]
    machine.put(package_0=100)
    assert rapl.total_mj(machine.memory, BOOT, 3) == 0
    assert told == ["rapl_unreadable", "rapl_unreadable over"]


def test_a_reading_carries_what_its_node_used(make_reader, tmp_path):
    powercap, time = Powercap(tmp_path / "powercap"), FakeTime()
    reader = make_reader(Card(uuid="GPU-a"), Card(uuid="GPU-b"), time=time)
    powercap.put("intel-rapl:0", "package-0", 0)
    reader.events()
    time.pass_s(30)
    powercap.put("intel-rapl:0", "package-0", 6_000 * JOULES_UJ)
    assert [(event.data.host_energy_mj, event.data.host_source) for event in reader.events()] == [
        (6_000_000, "rapl")
    ] * 2

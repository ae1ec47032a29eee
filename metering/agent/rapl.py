"""Energy of the processors and memory of this machine, by the counters that Linux shows (powercap, RAPL).

codecarbon's own reader leaves the memory of servers out, and counts in floats of kWh; of it we take how counters that
mirror each other are told.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from metering.agent.memory import HostMemory, Memory
from metering.agent.troubles import Troubles

POWERCAP = Path("/sys/class/powercap")

WRAP_US_MAX = 300_000_000
"""A counter goes round after 262 kJ, so in 5 minutes at 870 W a package: beyond it isn't told how often it did."""

MIRROR_TOLERANCE_UJ = 1_000_000
"""What a package uses between the reading of one file and of the next."""


class _Counter(NamedTuple):
    """A domain's counter: where it stands, and where it goes round, in µJ."""

    energy_uj: int
    range_uj: int


class Rapl:
    """The counters of a machine's processor packages and, where they are apart from them, of its memory."""

    def __init__(self, troubles: Troubles, root: Path = POWERCAP) -> None:
        self._troubles = troubles
        self._root = root

    def total_mj(self, memory: Memory, boot: str, monotonic_us: int) -> int | None:
        """Energy counted in all, in mJ; None where nothing is measured.

        What passed while nobody read is counted if the counters can't have gone round twice meanwhile. Otherwise the
        total begins anew, from 0: a total that falls says that something is missing.
        """
        counters = self._counters()
        if not counters:
            return None
        before = memory.host
        mirrored = _mirrored(counters)
        if before is None or not _goes_on(before, counters, boot, monotonic_us):
            total_uj = 0
        else:
            total_uj = before.total_uj + _used_uj(before, counters, mirrored)
        standing = {name: counter.energy_uj for name, counter in counters.items()}
        memory.host = HostMemory(boot, monotonic_us, standing, sorted(mirrored), total_uj)
        # After another 0 a 0 would say that nothing was used in between.
        return None if before is not None and total_uj == before.total_uj == 0 else total_uj // 1_000

    def _counters(self) -> Mapping[str, _Counter]:
        """Counters of packages, with those of memory beside them; none where there are none, or they can't be read.

        The platform's domain (psys) is left out: what it covers depends on the maker.
        """
        try:
            named = {path.name: (path / "name").read_text().strip() for path in self._root.glob("intel-rapl:*")}
            wanted = [name for name, kind in named.items() if kind.startswith("package") or kind == "dram"]
            counters = {name: self._counter(self._root / name) for name in sorted(wanted)}
        except (OSError, ValueError) as error:
            self._troubles.begin("rapl_unreadable", error=type(error).__name__)
            return {}
        self._troubles.end("rapl_unreadable")
        return counters if any(named[name].startswith("package") for name in counters) else {}

    @staticmethod
    def _counter(domain: Path) -> _Counter:
        return _Counter(int((domain / "energy_uj").read_text()), int((domain / "max_energy_range_uj").read_text()))


def _goes_on(before: HostMemory, counters: Mapping[str, _Counter], boot: str, monotonic_us: int) -> bool:
    is_recent = 0 <= monotonic_us - before.monotonic_us <= WRAP_US_MAX
    return before.boot == boot and is_recent and before.counters_uj.keys() == counters.keys()


def _used_uj(before: HostMemory, counters: Mapping[str, _Counter], mirrored: set[str]) -> int:
    """Energy since the reading before, by domains that don't mirror another, then and now."""
    return sum(
        counter.energy_uj
        - before.counters_uj[name]
        + (counter.range_uj if counter.energy_uj < before.counters_uj[name] else 0)
        for name, counter in counters.items()
        if name not in mirrored or name not in before.mirrored
    )


def _mirrored(counters: Mapping[str, _Counter]) -> set[str]:
    """Packages whose counter shows another's: some processors have one counter, and show it once a die."""
    from codecarbon.core.rapl import find_mirrored_counters  # noqa: PLC0415 - only where there are counters

    packages = [(name, counter.energy_uj) for name, counter in counters.items() if name.count(":") == 1]
    return set(find_mirrored_counters(packages, MIRROR_TOLERANCE_UJ))

"""The energy of nodes beside their GPUs: measured where a node says so, else by the stated prior."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from metering.carbon.meters import MeteredGpu
from metering.carbon.readings import HostSource, Reading
from metering.ledger.append import microseconds
from metering.rules.carbon.apportioning import rounded, shared
from metering.rules.carbon.impacts import Bounded, HostEnergy, host_energy

HOUR_US = 3_600_000_000


def host_energies(gpus: Sequence[MeteredGpu], hour: datetime) -> Mapping[tuple[str, str], Bounded]:
    """Each GPU's equal part of its node's energy beside the GPUs over an hour, in µJ, by node and GPU."""
    by_node: dict[str, list[MeteredGpu]] = defaultdict(list)
    for one in gpus:
        by_node[one.node].append(one)
    found: dict[tuple[str, str], Bounded] = {}
    for node, own in by_node.items():
        energy = _of_node(own, hour).energy
        names = [one.gpu for one in own]
        parts = [shared(bound, [1] * len(own), names) for bound in (energy.value, energy.lower, energy.upper)]
        for name, part in zip(names, zip(*parts, strict=True), strict=True):
            found[node, name] = Bounded(*part)
    return found


def _of_node(gpus: Sequence[MeteredGpu], hour: datetime) -> HostEnergy:
    known = [window.energy_uj for one in gpus for window in one.windows if window.energy_uj is not None]
    return host_energy(
        sum(known),
        wall_uj=_counted(gpus, hour, "wall"),
        rapl_uj=_counted(gpus, hour, "rapl"),
        gpus=len(gpus),
        duration_us=HOUR_US,
    )


def _counted(gpus: Sequence[MeteredGpu], hour: datetime, source: HostSource) -> int | None:
    """What a node's own counter says of the hour, from whichever GPU's readings carry it; None if it doesn't."""
    for one in gpus:
        carrying = [reading for reading in one.readings if reading.host_source == source]
        counted = _difference(carrying, microseconds(hour), microseconds(hour + timedelta(hours=1)))
        if counted is not None:
            return counted
    return None


def _difference(readings: Sequence[Reading], starts_us: int, ends_us: int) -> int | None:
    """Energy between two instants (µJ) by a node's counter, straight between readings; None if it can't be told.

    readings: by time. A counter that went back, or no reading on either side, leaves the hour to the prior.
    """
    usable = [(one.at_us, one.epoch, one.host_energy_mj) for one in readings if one.host_energy_mj is not None]
    if not usable or usable[0][0] > starts_us or usable[-1][0] < ends_us:
        return None
    energy_uj = 0
    for (at, epoch, before_mj), (until, next_epoch, after_mj) in pairwise(usable):
        inside_us = min(until, ends_us) - max(at, starts_us)
        if inside_us <= 0 or until == at:
            continue
        if epoch != next_epoch or after_mj < before_mj:
            return None
        energy_uj += rounded((after_mj - before_mj) * 1_000 * inside_us, until - at)
    return energy_uj

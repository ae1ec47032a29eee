"""Epochs: names of the spans in which a counter only rises."""

from pathlib import Path

from metering.agent.memory import GpuMemory, Memory
from metering.agent.models import as_name
from metering.agent.sources import GpuSample

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DRIVER_LENGTH_MAX = 24


def boot_id(path: Path = BOOT_ID) -> str:
    """What the kernel calls this start of the machine, in 12 characters."""
    return path.read_text().strip().replace("-", "")[:12]


def epoch_of(sample: GpuSample, boot: str, memory: Memory) -> str:
    """The epoch of a GPU's counter; the count is remembered for the next one.

    Counters begin anew with the driver, which a boot or another version tells of. A driver that was loaded again, or a
    GPU that was reset, is told by a count that is below the last one.
    """
    driver = (as_name(sample.driver) or "0")[:DRIVER_LENGTH_MAX]
    driver_epoch = f"{boot}-{driver}"
    last = memory.gpus.get(sample.uuid)
    if last is None or last.driver_epoch != driver_epoch:
        last = memory.gpus[sample.uuid] = GpuMemory(driver_epoch, 0, 0)
    if sample.energy_mj is not None:
        last.generation += sample.energy_mj < last.energy_mj
        last.energy_mj = sample.energy_mj
    return f"{driver_epoch}-{last.generation}"

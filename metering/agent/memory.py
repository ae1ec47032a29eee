"""What an agent knows of the readings before, so that it goes on where it, or the one before it, stopped."""

import os
from pathlib import Path

import msgspec

from metering.agent.troubles import Troubles

FILE = "memory.json"


class GpuMemory(msgspec.Struct):
    """The last count of a GPU, and how often it began anew in an epoch of the driver."""

    driver_epoch: str
    generation: int
    energy_mj: int


class HostMemory(msgspec.Struct):
    """Counters of the processors as they last stood (µJ, by domain), when, and what was counted in all (µJ)."""

    boot: str
    monotonic_us: int
    counters_uj: dict[str, int]
    mirrored: list[str]
    total_uj: int


class Memory(msgspec.Struct):
    """The memory of a node."""

    gpus: dict[str, GpuMemory] = {}
    host: HostMemory | None = None


def load(folder: Path, troubles: Troubles) -> Memory:
    """The memory in a folder; a new one where there is none, or none that can be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Memory)
    except FileNotFoundError:
        return Memory()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        troubles.begin("memory_unreadable")
        return Memory()


def save(folder: Path, memory: Memory, troubles: Troubles) -> None:
    """Write the memory, whole or not at all."""
    fresh = folder / f"{FILE}.new"
    try:
        fresh.write_bytes(msgspec.json.encode(memory))
        os.replace(fresh, folder / FILE)  # noqa: PTH105 - of the two names, the one that says what it does
    except OSError:
        troubles.begin("memory_unwritable")
    else:
        troubles.end("memory_unwritable")

"""From what a source says to events."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from metering.agent.deployments import Deployments
from metering.agent.epochs import epoch_of
from metering.agent.memory import Memory
from metering.agent.models import as_name
from metering.agent.rapl import Rapl
from metering.agent.sources import GpuSample, Source
from metering.events.envelope import EnergyData, EnergyEvent


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks of a machine: one that people set, and one that only runs, in µs since the boot."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic_us: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000


@dataclass(frozen=True, slots=True)
class Node:
    """Whose readings these are. boot: id of the machine's start."""

    name: str
    source: str
    site: str | None
    boot: str


class Reader:
    """Reads the GPUs of a source into events."""

    def __init__(
        self,
        node: Node,
        source: Source,
        deployments: Deployments,
        rapl: Rapl,
        memory: Memory,
        clock: Clock | None = None,
    ) -> None:
        self._node = node
        self._source = source
        self.deployments = deployments
        self._rapl = rapl
        self.memory = memory
        self._clock = clock or Clock()

    def events(self) -> list[EnergyEvent]:
        """One event a GPU, all of one moment; none where no GPU is found."""
        self.deployments.refresh()
        samples = self._source.read()
        at, monotonic_us = self._clock.now(), self._clock.monotonic_us()
        if not samples:
            return []
        host_mj = self._rapl.total_mj(self.memory, self._node.boot, monotonic_us) if self._source.is_local else None
        return [self._event(sample, at, monotonic_us, host_mj) for sample in samples]

    def _event(self, sample: GpuSample, at: datetime, monotonic_us: int, host_mj: int | None) -> EnergyEvent:
        """A GPU's reading. Its id is one for ever: of a counter's epoch no moment comes twice.

        Of another machine neither the boot nor the clock is known: its epoch is told by driver and counter alone, and
        the moment is by the wall clock.
        """
        is_local = self._source.is_local
        gpu = as_name(sample.uuid) or "unnamed"
        epoch = epoch_of(sample, self._node.boot if is_local else "remote", self.memory)
        moment_us = monotonic_us if is_local else int(at.timestamp() * 1_000_000)
        return EnergyEvent(
            specversion="1.0",
            type="jauge.energy.v1",
            source=self._node.source,
            id=f"{gpu}.{epoch}.{moment_us}",
            time=at,
            data=EnergyData(
                node=sample.node or self._node.name,
                gpu=gpu,
                epoch=epoch,
                monotonic_us=monotonic_us if is_local else None,
                energy_mj=sample.energy_mj,
                power_mw=sample.power_mw,
                power_limit_mw=sample.power_limit_mw,
                gpu_model=sample.model,
                deployment=self.deployments.of(sample),
                site=self._node.site,
                host_energy_mj=host_mj,
                host_source=None if host_mj is None else "rapl",
            ),
        )

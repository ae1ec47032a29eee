"""A node whose GPUs, clocks and counters are doubles, and what its agent logs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from metering.agent.deployments import Deployments, by_gpu
from metering.agent.memory import Memory
from metering.agent.nvml import LocalGpus
from metering.agent.rapl import Rapl
from metering.agent.reading import Node, Reader
from metering.agent.sources import Source
from metering.agent.troubles import Troubles
from tests.agent.doubles import Card, FakeTime, gpus_of


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines that are logged of troubles: what begins, and what is over."""
    lines: list[str] = []
    monkeypatch.setattr("metering.agent.troubles.log.warning", lambda code, **_: lines.append(code))
    monkeypatch.setattr(
        "metering.agent.troubles.log.info", lambda code, **one: lines.append(f"{one['trouble']} {code}")
    )
    return lines


MakeReader = Callable[..., Reader]


@pytest.fixture
def make_reader(tmp_path: Path) -> MakeReader:
    """A reader of cards; a memory, a time and a source of one's own can be given."""

    def make(
        *cards: Card,
        time: FakeTime | None = None,
        memory: Memory | None = None,
        source: Source | None = None,
        boot: str = "b00700000000",
        file: Path | None = None,
        stated: dict[str, list[str]] | None = None,
    ) -> Reader:
        troubles = Troubles()
        deployments = Deployments(by_gpu((stated or {}).items()), file, troubles)
        gpus = source or LocalGpus(troubles, lambda: gpus_of(*cards))
        node = Node("node-1", "node-1", "dc-paris", boot)
        rapl = Rapl(troubles, tmp_path / "powercap")
        return Reader(node, gpus, deployments, rapl, memory or Memory(), (time or FakeTime()).clock())

    return make

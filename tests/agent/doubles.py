"""Doubles of what is outside: GPUs as codecarbon's devices, a DCGM exporter, clocks, counters of processors."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from codecarbon.core.gpu_device import GPUDevice

from metering.agent.reading import Clock

NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)


@dataclass
class Card:
    """A GPU as its driver sees it; None: not supported."""

    uuid: str = "GPU-5e3a9c1e-0000-4000-8000-000000000001"
    name: str = "NVIDIA H100 80GB HBM3"
    energy_mj: int | None = 1_000_000
    power_w: float | None = 412.345
    limit_w: float | None = 700.0
    is_lost: bool = False

    def run(self, seconds: float = 30) -> None:
        """Use energy for some time."""
        assert self.energy_mj is not None
        self.energy_mj += int(seconds * (self.power_w or 0) * 1_000)


class FakeGpu(GPUDevice):  # type: ignore[misc]
    """A device of codecarbon on a card."""

    def _get_total_energy_consumption(self) -> int | None:
        return None if self.handle.is_lost else self.handle.energy_mj

    def _get_power_usage(self) -> float:
        if self.handle.is_lost or self.handle.power_w is None:
            raise RuntimeError("NVMLError_GpuIsLost")
        return float(self.handle.power_w)

    def _get_power_limit(self) -> float | None:
        return self.handle.limit_w  # type: ignore[no-any-return]

    def _get_gpu_name(self) -> str:
        return self.handle.name  # type: ignore[no-any-return]

    def _get_uuid(self) -> str:
        return self.handle.uuid  # type: ignore[no-any-return]

    def _get_memory_info(self) -> Any:
        return SimpleNamespace(total=80 * 2**30)


def gpus_of(*cards: Card) -> list[FakeGpu]:
    return [FakeGpu(handle=card, gpu_index=place) for place, card in enumerate(cards)]


class FakeTime:
    """A machine's two clocks."""

    def __init__(self) -> None:
        self.now = NOON
        self.monotonic_us = 1_000_000_000

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.monotonic_us += int(seconds * 1_000_000)

    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.monotonic_us)


class Exporter:
    """A DCGM exporter on the loopback: serves a page, and counts how often."""

    def __init__(self) -> None:
        self.page = ""
        self.status = 200
        self.served = 0
        self.url = ""

    def next_page(self) -> str:
        """What is served next; a test may put something else here."""
        return self.page


@contextmanager
def exporting() -> Iterator[Exporter]:
    """An exporter as long as the block runs."""
    exporter = Exporter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exporter.next_page().encode()
            self.send_response(exporter.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            exporter.served += 1

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    exporter.url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
    yield exporter
    server.shutdown()
    thread.join()
    server.server_close()


def dcgm_page(*lines: tuple[str, str, float], **labels: str) -> str:
    """A page of the exporter: (metric, GPU's number, value), each with labels besides."""
    shown = []
    for name, number, value in lines:
        pairs = {
            "gpu": number, "UUID": f"GPU-{number}", "pci_bus_id": "00000000:37:00.0", "device": f"nvidia{number}",
            "modelName": "NVIDIA H100 80GB HBM3", "Hostname": "gpu-node-7", "DCGM_FI_DRIVER_VERSION": "535.129.03",
        } | labels  # fmt: skip
        listed = ",".join(f'{key}="{text}"' for key, text in pairs.items())
        shown.append(f"{name}{{{listed}}} {value:.6f}")
    kind = "# HELP DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION Total energy consumption since boot (in mJ).\n"
    return kind + "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter\n" + "\n".join(shown) + "\n"


class Powercap:
    """A tree of RAPL counters: domain to its name and count, in µJ."""

    RANGE_UJ = 262_143_328_850

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, domain: str, name: str, energy_uj: int) -> None:
        folder = self.root / domain
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text(f"{energy_uj}\n")
        (folder / "max_energy_range_uj").write_text(f"{self.RANGE_UJ}\n")

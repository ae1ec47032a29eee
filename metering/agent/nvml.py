"""GPUs of this machine by their driver's library, found and read by codecarbon (NVIDIA by NVML, AMD by amdsmi)."""

import importlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from metering.agent.models import gpu_model
from metering.agent.sources import GpuSample
from metering.agent.troubles import Troubles

DRIVER_VERSION = Path("/proc/driver/nvidia/version")

_version = re.compile(r"\b\d+\.\d+(\.\d+)?\b")


class Device(Protocol):
    """A GPU of codecarbon (`codecarbon.core.gpu_device.GPUDevice`), as far as it is asked."""

    gpu_index: int

    def get_static_details(self) -> dict[str, Any]:
        """Name, UUID and power limit (W), among others."""

    def _get_total_energy_consumption(self) -> float | None:
        """In mJ."""

    def _get_power_usage(self) -> float:
        """In W."""


class LocalGpus:
    """GPUs of this machine. One that can't be read is looked for anew at the next reading."""

    is_local = True

    def __init__(self, troubles: Troubles, find: Callable[[], Sequence[Device]] | None = None) -> None:
        self._troubles = troubles
        self._find = find or find_devices
        self._devices: Sequence[Device] = ()

    def read(self) -> Sequence[GpuSample]:
        if not self._devices:
            self._devices = self._find()
        driver = driver_version()
        samples = [self._sample(device, driver) for device in self._devices]
        if None in samples and (found := self._find()):
            self._devices = found
        return [sample for sample in samples if sample is not None]

    def _sample(self, device: Device, driver: str) -> GpuSample | None:
        """What a GPU says; None for one that is lost, or whose driver was loaded anew."""
        static = device.get_static_details()
        uuid = str(static["uuid"])
        # The library's own summary of a GPU asks for ten things more and fails as a whole where one isn't offered, as
        # the utilisation of a GPU in MIG mode.
        energy_mj = _told(device._get_total_energy_consumption)
        power_w = _told(device._get_power_usage)
        if energy_mj is None and power_w is None:
            self._troubles.begin("gpu_unreadable", uuid)
            return None
        self._troubles.end("gpu_unreadable", uuid)
        return GpuSample(
            uuid=uuid,
            place=device.gpu_index,
            model=gpu_model(str(static["name"])),
            node=None,
            driver=driver,
            energy_mj=None if energy_mj is None else round(energy_mj),
            power_mw=None if power_w is None else round(power_w * 1_000),
            power_limit_mw=None if static["power_limit"] is None else round(static["power_limit"] * 1_000),
        )


def _told(ask: Callable[[], Any]) -> Any:
    """A driver's answer; None where it has none, which its libraries tell by errors of many kinds."""
    try:
        return ask()
    except Exception:
        return None


def find_devices() -> Sequence[Device]:
    """The GPUs that a driver knows; none where there is none, or it can't be asked."""
    os.environ.setdefault("CODECARBON_LOG_LEVEL", "CRITICAL")  # read when it is imported; troubles are told here
    from codecarbon.core import gpu, gpu_amd, gpu_nvidia  # noqa: PLC0415 - a second that other sources don't need

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    if not gpu.is_gpu_details_available():
        # It looks for a driver once, when it is imported; one may have been loaded since.
        for module in (gpu_nvidia, gpu_amd, gpu):
            importlib.reload(module)
    devices: Sequence[Device] = _told(lambda: gpu.AllGPUDevices().devices) or ()
    return devices


def driver_version(path: Path = DRIVER_VERSION) -> str:
    """Version of NVIDIA's kernel module, `0` where there is none."""
    try:
        found = _version.search(path.read_text())
    except OSError:
        found = None
    return found[0] if found else "0"

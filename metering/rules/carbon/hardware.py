"""Data sheets of GPUs: what a model of GPU can do, draws and took to make, where telemetry names it.

FLOP/s are dense, at 16 bits; bandwidth is of the GPU's own memory; both, and the power limit, from the makers' data
sheets. Manufacture: 273 kg CO2e a GPU and 5,700 kg a server of eight without them, over 3 years, as EcoLogits 0.11
takes them (Boavizta's server, a GPU scaled by die and memory); makers' own reports for single products are lower.
"""

from dataclasses import dataclass

from metering.rules.carbon.impacts import Hardware
from metering.rules.carbon.weights import GpuSheet

HOURS_PER_YEAR = 8_760
LIFETIME_YEARS, LIFETIME_YEARS_MAX, LIFETIME_YEARS_MIN = 3, 6, 2
"""Service life that is assumed, and that of the lower and of the upper bound."""


@dataclass(frozen=True, slots=True)
class GpuModel:
    """A model of GPU: what it can do, and the most it draws (mW) unless its driver says another limit."""

    id: str
    sheet: GpuSheet
    power_limit_mw: int


def _gpu(name: str, tera_flops: int, gigabytes_per_s: int, watts: int) -> GpuModel:
    return GpuModel(name, GpuSheet(tera_flops * 10**12, gigabytes_per_s * 10**9), watts * 1_000)


GPU_MODELS = {
    gpu.id: gpu
    for gpu in (
        _gpu("A10", 125, 600, 150),
        _gpu("A100-SXM-40GB", 312, 1_555, 400),
        _gpu("A100-SXM-80GB", 312, 2_039, 400),
        _gpu("A100-PCIe-80GB", 312, 1_935, 300),
        _gpu("B200", 2_250, 8_000, 1_000),
        _gpu("GH200", 989, 4_000, 900),
        _gpu("H100-NVL", 835, 3_938, 400),
        _gpu("H100-PCIe", 756, 2_000, 350),
        _gpu("H100-SXM", 989, 3_350, 700),
        _gpu("H200", 989, 4_800, 700),
        _gpu("L4", 121, 300, 72),
        _gpu("L40S", 362, 864, 350),
        _gpu("MI300X", 1_307, 5_300, 750),
        _gpu("V100-SXM", 125, 900, 300),
    )
}

UNKNOWN_POWER_LIMIT_MW = max(gpu.power_limit_mw for gpu in GPU_MODELS.values())
"""Of a GPU whose model and limit aren't known: the highest of all, so that no true reading is taken for a fault."""


def manufacture(lifetime_years: int) -> Hardware:
    """Manufacture of a GPU and its part of a server, over a service life."""
    return Hardware(gpu_g=273_000, server_g=5_700_000, gpus=8, lifetime_hours=lifetime_years * HOURS_PER_YEAR)

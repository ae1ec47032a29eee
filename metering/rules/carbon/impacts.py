"""From energy at the GPU to grams: host, facility, grid and manufacture, each figure with its bounds.

Figures are rounded once, half up; lower bounds down and upper bounds up. Two kinds of error go different ways in a sum.
A sensor's is its own GPU's: over N alike GPUs it grows with √N only. PUE, factors and κ are the same for all: what they
may be off by adds up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Final, Literal

from metering.rules.carbon.apportioning import rounded, rounded_up, shared
from metering.rules.carbon.integration import SENSOR_PERCENT

UJ_PER_KWH = 3_600_000_000_000
US_PER_HOUR = 3_600_000_000
MILLION = 1_000_000
NG_PER_UG = 1_000
NG_PER_G = 1_000_000_000

HostSource = Literal["wall", "rapl", "prior"]


@dataclass(frozen=True, slots=True)
class Bounded:
    """A figure and its bounds, all in one unit. independent: the part of each margin that is a GPU's own sensor's."""

    value: int
    lower: int
    upper: int
    independent: int = 0

    def times(self, factor: "Bounded", divisor: int) -> "Bounded":
        """The figure times another, over a divisor; what is independent stays so."""
        return Bounded(
            rounded(self.value * factor.value, divisor),
            self.lower * factor.lower // divisor,
            rounded_up(self.upper * factor.upper, divisor),
            self.independent * factor.value // divisor,
        )


@dataclass(frozen=True, slots=True)
class Factor(Bounded):
    """Emission factor in µg CO2e/kWh with its bounds."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """Manufacture in g CO2e of a GPU and of its server without GPUs; GPUs a server; service life in hours."""

    gpu_g: int
    server_g: int
    gpus: int
    lifetime_hours: int


@dataclass(frozen=True, slots=True)
class HostEnergy:
    """Energy of a node beside its GPUs, in µJ, and how it is known."""

    energy: Bounded
    source: HostSource


HOST_PRIOR_MW: Final = Bounded(150_000, 75_000, 350_000)
"""Draw of a server for each of its GPUs, beside them, where nobody measures it.

1.2 kW for a server of eight, as EcoLogits takes it (0.11, `SERVER_POWER`); upper bound from an HGX H100 node that drew
8.4 kW at its peak, of which GPUs can have had 5.6 (Latif et al. 2024, arXiv:2412.08602); lower bound: half.
"""


def metered(energy_uj: int, lower_uj: int, upper_uj: int) -> Bounded:
    """Energy of one GPU with bounds that hold its sensor's margin, which is independent of other GPUs'."""
    return Bounded(energy_uj, lower_uj, upper_uj, energy_uj * SENSOR_PERCENT // 100)


def total(parts: Iterable[tuple[str, Bounded]]) -> Bounded:
    """Sum of (GPU, figure).

    Margins of one GPU add up, and so do common ones; what is independent adds in squares between GPUs.
    """
    value = common_below = common_above = 0
    independent: dict[str, int] = {}
    for gpu, part in parts:
        value += part.value
        common_below += part.value - part.lower - part.independent
        common_above += part.upper - part.value - part.independent
        independent[gpu] = independent.get(gpu, 0) + part.independent
    squares = sum(margin * margin for margin in independent.values())
    margin = isqrt(squares - 1) + 1 if squares else 0
    return Bounded(value, value - common_below - margin, value + common_above + margin, margin)


def host_energy(gpu_uj: int, *, wall_uj: int | None, rapl_uj: int | None, gpus: int, duration_us: int) -> HostEnergy:
    """Energy of a node beside its GPUs, over one duration for all that is given.

    The plug tells all but GPUs. RAPL tells processors and memory; fans, disks, network and the power supply's losses
    come on top, so it is the lower bound, and half as much again the upper one.
    """
    if wall_uj is not None:
        host_uj = max(wall_uj - gpu_uj, 0)
        return HostEnergy(Bounded(host_uj, host_uj, host_uj), "wall")
    if rapl_uj is not None:
        return HostEnergy(Bounded(rapl_uj, rapl_uj, rounded_up(3 * rapl_uj, 2)), "rapl")
    return HostEnergy(HOST_PRIOR_MW.times(Bounded(*[gpus * duration_us] * 3), 1_000), "prior")


def facility_energy(it: Bounded, pue_millionths: Bounded) -> Bounded:
    """Energy of the building for that of the machines, in µJ: IT energy × PUE (ISO/IEC 30134-2)."""
    return it.times(pue_millionths, MILLION)


def carbon_ng(facility_uj: Bounded, factor: Bounded) -> Bounded:
    """Emissions of energy at a factor in µg/kWh, in ng CO2e.

    The same for the grid's factor (location-based) and the contract's (market-based): GHG Protocol, Scope 2 Guidance.
    """
    thousandfold = Bounded(*(NG_PER_UG * one for one in (factor.value, factor.lower, factor.upper)))
    return facility_uj.times(thousandfold, UJ_PER_KWH)


def embodied_ng(gpu_us: int, hardware: Hardware) -> int:
    """Part of manufacture that so many µs of one GPU answer for, in ng CO2e: t·(I_gpu + I_server/N)/lifetime."""
    grams_of_server = hardware.gpus * hardware.gpu_g + hardware.server_g
    return rounded(gpu_us * grams_of_server * NG_PER_G, hardware.gpus * hardware.lifetime_hours * US_PER_HOUR)


@dataclass(frozen=True, slots=True)
class IdleView:
    """Energy (µJ) by account, the platform's own, and what is stated apart from all accounts."""

    accounts: Mapping[str, int]
    platform_uj: int
    apart_uj: int

    @property
    def total_uj(self) -> int:
        """The same in every view."""
        return sum(self.accounts.values()) + self.platform_uj + self.apart_uj


def idle_views(direct: Mapping[str, int], idle_uj: int, unallocated_uj: int) -> Mapping[str, IdleView]:
    """Who answers for waiting: what a model's requests used by account, and its idle and unallocated energy, in µJ.

    platform: the platform does. pro_rata: the model's users do, as they used it (the platform, where nobody did).
    direct: nobody; it is stated apart. Unallocated energy is no user's in any view.
    """
    accounts = sorted(direct)
    weights = [direct[account] for account in accounts]
    parts = shared(idle_uj, weights, accounts) if any(weights) else [0] * len(accounts)
    borne = {account: direct[account] + part for account, part in zip(accounts, parts, strict=True)}
    return {
        "platform": IdleView(direct, idle_uj + unallocated_uj, 0),
        "pro_rata": IdleView(borne, idle_uj - sum(parts) + unallocated_uj, 0),
        "direct": IdleView(direct, 0, idle_uj + unallocated_uj),
    }

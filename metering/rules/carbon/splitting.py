"""What a GPU's energy was for: work, being ready while requests were there, and being ready for none.

With a model loaded and no request, a GPU draws a floor power P0. Above the floor energy is dynamic: the work of
requests. Below it, the time when requests were in flight is theirs too, and the rest is idle.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from metering.rules.carbon.integration import MINUTE_US, WindowEnergy

IDLE_PERCENTILE = 10
"""Windows without a request still have some work (health checks, a request's end): the lower ones tell the floor."""


@dataclass(frozen=True, slots=True)
class Split:
    """Energy of a GPU in a window, in µJ: four parts that sum to it. unallocated: work that no known request did."""

    dynamic_uj: int
    busy_uj: int
    idle_uj: int
    unallocated_uj: int


def split(energy_uj: int, idle_power_mw: int | None, *, covered_us: int, window_us: int, busy_us: int) -> Split:
    """Split of a window's energy on a GPU with a model loaded.

    E_dyn = max(0, E − P0·Δt); E_busy = min(E, P0·Δt)·T_busy/Δt; idle is the rest. covered_us: time that the energy is
    of; busy_us: time with a request in flight, of the window's window_us. Where P0 is unknown, nothing tells a floor
    apart, and all is dynamic.
    """
    floor_uj = min(energy_uj, (idle_power_mw or 0) * covered_us // 1_000)
    busy_uj = floor_uj * busy_us // window_us
    above_uj = energy_uj - floor_uj
    dynamic_uj, unallocated_uj = (above_uj, 0) if busy_us else (0, above_uj)
    return Split(dynamic_uj, busy_uj, floor_uj - busy_uj, unallocated_uj)


def mean_power_mw(window: WindowEnergy) -> int | None:
    """Mean power over a window that may tell the floor: a minute that is wholly known, at once. None: it can't."""
    if window.energy_uj is None or window.covered_us != MINUTE_US or window.tier != "A":
        return None
    return window.energy_uj * 1_000 // MINUTE_US


def idle_power_mw(powers_mw: Iterable[int]) -> int | None:
    """P0: the 10th percentile, by nearest rank, of `mean_power_mw` over windows without a request; None of none.

    Of one GPU with one model loaded.
    """
    ordered = sorted(powers_mw)
    return ordered[-(-IDLE_PERCENTILE * len(ordered) // 100) - 1] if ordered else None

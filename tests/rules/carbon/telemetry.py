"""Readings of a GPU whose energy is known, and the faults that befall them."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from metering.rules.carbon.integration import Gpu, Reading

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
GPU = Gpu("GPU-1", 700_000)
NOON_US = 1_791_201_600 * SECOND_US
"""5 October 2026, 12:00 UTC."""
BOOT_US = 40_000 * SECOND_US
"""Monotonic time at noon."""


class Trace:
    """A GPU's power, constant within each second (mW), and what its sensor makes of it (per mille)."""

    def __init__(self, seed: int, starts_us: int, seconds: int, gain_per_mille: int = 1_000) -> None:
        draw = Random(seed)
        self.starts_us = starts_us
        self.gain_per_mille = gain_per_mille
        levels = [draw.choice([70_000, 90_000, 350_000, 690_000]) for _ in range(seconds // 20 + 1)]
        self.powers_mw = [levels[at // 20] + draw.randrange(-5_000, 5_000) for at in range(seconds)]
        self._sums_uj = [0]
        for power in self.powers_mw:
            self._sums_uj.append(self._sums_uj[-1] + power * 1_000)

    def energy_uj(self, starts_us: int, ends_us: int) -> int:
        """What the GPU used between two whole seconds."""
        return self._sums_uj[self._second(ends_us)] - self._sums_uj[self._second(starts_us)]

    def readings(self, every_s: int = 10, counter_start_uj: int = 10**12) -> list[Reading]:
        """What a node reads of it."""
        return [
            Reading(
                "boot-1",
                self.starts_us + at * SECOND_US,
                self.starts_us + at * SECOND_US - NOON_US + BOOT_US,
                counter_start_uj + self._sums_uj[at] * self.gain_per_mille // 1_000,
                self.powers_mw[min(at, len(self.powers_mw) - 1)] * self.gain_per_mille // 1_000,
            )
            for at in range(0, len(self.powers_mw) + 1, every_s)
        ]

    def _second(self, at_us: int) -> int:
        return (at_us - self.starts_us) // SECOND_US


def changed(
    readings: list[Reading], starts_us: int, ends_us: int, change: Callable[[Reading], Reading | None]
) -> list[Reading]:
    """Readings with those of a time changed, or left out where the change gives none."""
    kept = [change(one) if starts_us <= one.wall_us < ends_us else one for one in readings]
    return [one for one in kept if one is not None]


def reset(readings: list[Reading], at_us: int) -> list[Reading]:
    """A driver that is loaded anew: the counter begins at 0, under the same epoch."""
    base = next(one.energy_uj for one in readings if one.wall_us >= at_us) or 0
    return changed(readings, at_us, 2**62, lambda one: replace(one, energy_uj=(one.energy_uj or 0) - base))


def without_counter(one: Reading) -> Reading:
    return replace(one, energy_uj=None)

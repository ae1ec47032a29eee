"""Comparing what was counted in several places: each pair of sums that should be one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from metering.rules.quantities import add

RECONCILED: tuple[str, ...] = ("requests", "input_tokens", "output_tokens")
"""Quantities that a gateway counts as well."""

Key = tuple[str, ...]
Sums = Mapping[str, int | None]
Cells = Mapping[Key, Sums]


@dataclass(frozen=True, slots=True)
class Drift:
    """A sum that isn't what it should be. expected, found: None where nothing is known or counted."""

    key: Key
    quantity: str
    expected: int | None
    found: int | None

    @property
    def difference(self) -> int:
        """How much more was found than expected; the unknown counts for nothing."""
        return (self.found or 0) - (self.expected or 0)


def drifts(expected: Cells, found: Cells, quantities: Sequence[str] = RECONCILED) -> list[Drift]:
    """Every sum that differs, by key and quantity in their order; a key that one side lacks counts for nothing there.

    The differences add up to that of the totals: nothing cancels out unseen.
    """
    none: Sums = dict.fromkeys(quantities)
    pairs = ((key, expected.get(key, none), found.get(key, none)) for key in sorted(expected.keys() | found.keys()))
    every = (Drift(key, name, left.get(name), right.get(name)) for key, left, right in pairs for name in quantities)
    return [one for one in every if one.difference]


def total(cells: Iterable[Sums], quantities: Sequence[str] = RECONCILED) -> dict[str, int | None]:
    """Sum of cells; None where no cell knows the quantity."""
    summed: dict[str, int | None] = dict.fromkeys(quantities)
    for cell in cells:
        for name in quantities:
            summed[name] = add(summed[name], cell.get(name))
    return summed


def grouped(cells: Cells, places: Sequence[int]) -> dict[Key, dict[str, int | None]]:
    """Cells summed by some parts of their keys."""
    found: dict[Key, dict[str, int | None]] = {}
    for key, sums in cells.items():
        short = tuple(key[place] for place in places)
        before = found.get(short, dict.fromkeys(sums))
        found[short] = {name: add(before[name], value) for name, value in sums.items()}
    return found

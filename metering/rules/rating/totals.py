"""Totals of lines, and VAT: once for each category, on the sum of its lines."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from metering.rules.carbon.apportioning import rounded

VatRegime = Literal["rate", "exempt", "out_of_scope"]

BASIS_POINTS = 10_000
"""A rate of VAT is in hundredths of a percent."""


@dataclass(frozen=True, slots=True)
class VatCategory:
    """How lines are taxed; reason: the code (VATEX) that says why they aren't."""

    regime: VatRegime
    rate_bp: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class VatPart:
    """Tax on the lines of one category."""

    category: VatCategory
    base_cents: int
    vat_cents: int


@dataclass(frozen=True, slots=True)
class Total:
    """Lines of one currency: without tax, tax by category, with tax."""

    net_cents: int
    vat: tuple[VatPart, ...]

    @property
    def vat_cents(self) -> int:
        """Tax in all."""
        return sum(part.vat_cents for part in self.vat)

    @property
    def gross_cents(self) -> int:
        """What is to be paid."""
        return self.net_cents + self.vat_cents


def total_of(lines: Iterable[tuple[VatCategory, int]]) -> Total:
    """The total of lines, each with its category and cents."""
    bases: dict[VatCategory, int] = {}
    for category, cents in lines:
        bases[category] = bases.get(category, 0) + cents
    parts = tuple(
        VatPart(category, base, rounded(base * category.rate_bp, BASIS_POINTS))
        for category, base in sorted(
            bases.items(), key=lambda one: (one[0].regime, one[0].rate_bp, one[0].reason or "")
        )
    )
    return Total(sum(bases.values()), parts)

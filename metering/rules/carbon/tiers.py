"""How good a figure is: its tier, and the tiers of a sum."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Tier = Literal["A", "B", "C", "D", "U"]
"""A: energy counter. B: gaps bridged, power integrated. C: model with live concurrency. D: model with defaults.
U: unknown."""

TIERS: tuple[Tier, ...] = get_args(Tier)
"""Best first."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Tier of a sum: its worst part's, and U where a part is unknown. amounts: what each tier adds to it."""

    worst: Tier
    amounts: Mapping[Tier, int]


def worst_tier(tiers: Iterable[Tier]) -> Tier:
    """The worst of some tiers; U of none: nothing is known of nothing."""
    return TIERS[max((TIERS.index(tier) for tier in tiers), default=len(TIERS) - 1)]


def quality(parts: Iterable[tuple[Tier, int | None]]) -> Quality:
    """Quality of a sum of (tier, amount). An amount of None is unknown whatever tier it is said to have."""
    known = [("U" if amount is None else tier, amount or 0) for tier, amount in parts]
    amounts: dict[Tier, int] = {}
    for tier, amount in known:
        if tier != "U" or amount:
            amounts[tier] = amounts.get(tier, 0) + amount
    return Quality(
        worst_tier(tier for tier, _amount in known), {tier: amounts[tier] for tier in TIERS if tier in amounts}
    )

"""What changed from one month to the next, and what of it somebody should look at before documents are final."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Anomaly = Literal["appeared", "vanished", "rose", "fell"]

LEAST_CENTS = 1_000
"""Differences below are nobody's concern, be they billed or valued."""
FACTOR = 3
"""Three times as much as the month before, or a third of it, is told."""


class Kind(NamedTuple):
    """What is compared: an administration's use of a meter, in one currency."""

    tenant: str
    meter: str
    currency: str


@dataclass(frozen=True, slots=True)
class Measure:
    """Base units that were used, and what they come to; nothing at all is 0 of both."""

    used: int = 0
    cents: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """A month beside the one before it."""

    kind: Kind
    before: Measure
    now: Measure
    anomaly: Anomaly | None


def differences(before: Mapping[Kind, Measure], now: Mapping[Kind, Measure]) -> list[Difference]:
    """Every use of either month, in the order of administrations and meters."""
    nothing = Measure()
    found = []
    for kind in sorted({*before, *now}):
        old, new = before.get(kind, nothing), now.get(kind, nothing)
        found.append(Difference(kind, old, new, _anomaly(old.cents, new.cents)))
    return found


def _anomaly(before: int, now: int) -> Anomaly | None:
    """Whether the difference is both large in money and large beside the smaller of the two."""
    if abs(now - before) < LEAST_CENTS:
        return None
    if now > before:
        return "appeared" if before <= 0 else "rose" if now >= FACTOR * before else None
    return "vanished" if now <= 0 else "fell" if before >= FACTOR * now else None

"""A month under one price version, as lines: each quantity × price ÷ base, rounded once.

Tiers, free quantities, minimum and cap hold for an administration's month as a whole: all that one version takes, in
every project. The month's quantity is cut where its price changes, and each cut is shared among projects and models in
proportion to what they used, in whole base units (largest remainder). So every line is linear, whatever the tiers, and
what lines used adds up to the usage.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Literal, NamedTuple

from metering.rules.carbon.apportioning import rounded, rounded_up, shared
from metering.rules.rating.prices import NANO, NANO_PER_CENT, Price

LineKind = Literal["use", "free", "minimum", "cap"]


class Place(NamedTuple):
    """Whose use it is: a project (None: of no project) and the model as the ledger names it."""

    project: str | None
    model: str | None


MONTH = Place(None, None)
"""What concerns a month under a price version as a whole."""


class Line(NamedTuple):
    """quantity × nano ÷ per, in 10^-9 of the currency.

    used: the part of the usage that it is for; quantity: what is charged for it, more where packages are begun. Lines
    of kind minimum and cap are for no usage: one of the difference, negative for a cap.
    """

    place: Place
    price: Price
    kind: LineKind
    used: int
    quantity: int
    nano: int
    per: int

    @property
    def exact(self) -> Fraction:
        """The amount before rounding, in the currency."""
        return Fraction(self.quantity * self.nano, self.per * NANO)

    @property
    def cents(self) -> int:
        """The amount rounded half up."""
        return rounded(self.quantity * self.nano, self.per * NANO_PER_CENT)


class Cut(NamedTuple):
    """A part of a month's quantity with one price: `quantity`, in whole steps, is charged for what was used."""

    used: int
    quantity: int
    nano: int
    kind: LineKind = "use"
    step: int = 1


def month_lines(price: Price, used: Mapping[Place, int]) -> list[Line]:
    """Lines of what was used in a month under a price version, in the order of places; none for no use."""
    places = sorted((place for place, quantity in used.items() if quantity), key=_order)
    left = [used[place] for place in places]
    assert min(left, default=1) > 0  # corrections are of the hour that they correct
    lines: list[Line] = []
    for cut in cuts(price, sum(left)):
        parts = shared(cut.used, left, range(len(left)))
        steps = shared(cut.quantity // cut.step, parts, range(len(parts)))
        for at, (part, count) in enumerate(zip(parts, steps, strict=True)):
            left[at] -= part
            if part:
                lines.append(Line(places[at], price, cut.kind, part, count * cut.step, cut.nano, price.per))
    assert not any(left)
    return lines + list(_bounds(price, lines)) if lines else []


def cuts(price: Price, quantity: int) -> Iterator[Cut]:
    """A month's quantity by price: what is used of the cuts adds up to it."""
    free = min(quantity, price.free)
    if free:
        yield Cut(free, free, 0, "free")
    rest = quantity - free
    if not rest:
        return
    if price.pricing == "graduated":
        yield from _graduated(price, rest)
    elif price.pricing == "package":
        begun = rounded_up(rest, price.per) * price.per
        yield Cut(rest, begun, price.tiers[0].nano, step=price.per)
    else:
        yield Cut(rest, rest, next(one.nano for one in price.tiers if one.up_to is None or rest <= one.up_to))


def _graduated(price: Price, quantity: int) -> Iterator[Cut]:
    below = 0
    for tier in price.tiers:
        end = quantity if tier.up_to is None else min(quantity, tier.up_to)
        if end > below:
            yield Cut(end - below, end - below, tier.nano)
        below = max(below, end)


def _bounds(price: Price, lines: list[Line]) -> Iterator[Line]:
    """The line that brings a month up to the minimum or down to the cap: of what is on the lines, to the cent."""
    if price.minimum_cents is None and price.cap_cents is None:
        return
    cents = sum(line.cents for line in lines)
    if price.minimum_cents is not None and cents < price.minimum_cents:
        yield Line(MONTH, price, "minimum", 0, 1, (price.minimum_cents - cents) * NANO_PER_CENT, 1)
    if price.cap_cents is not None and cents > price.cap_cents:
        yield Line(MONTH, price, "cap", 0, 1, (price.cap_cents - cents) * NANO_PER_CENT, 1)


def _order(place: Place) -> tuple[str, str]:
    return place.project or "", place.model or ""

"""Price versions, and which of them takes a use at an instant.

Prices that an administration agreed for itself go before those of the book, whatever they are for; then the most
specific selector wins: a model, then a category, an operation, everything. A version holds until its end, or until
the next for the same selector and meter begins.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal, NamedTuple

from metering.rules.quantities import EXPECTED
from metering.rules.rating.meters import (
    ALTERNATIVES,
    METER_OPERATIONS,
    PARTS_OF_TOKENS,
    PriceMeter,
    Sums,
    billable_requests,
)

EVERYTHING = "*"
SELECTOR_KINDS = ("model", "category", "operation")
"""From the most specific to the least; everything comes last."""

Pricing = Literal["unit", "graduated", "volume", "package"]

NANO = 10**9
"""Prices are in 10^-9 of the currency."""

NANO_PER_CENT = 10**7

BY_CALL: frozenset[PriceMeter] = frozenset({"embedding_requests", "embedding_inputs"})
"""What embeddings may be billed by instead of tokens."""

ALWAYS = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PriceTier:
    """Up to so many base units a month, inclusive (None: without end): the price of `per` of them."""

    up_to: int | None
    nano: int


@dataclass(frozen=True, slots=True)
class Price:
    """A price version: tiers for `per` base units of a meter, from `valid_from` to `valid_to`, exclusive.

    pricing: unit, the one tier's price; package, the same for each package of `per` that is begun; graduated, each
    part of a month's quantity at the price of the tier it is in; volume, all of it at the price of the tier it ends
    in. Of each month `free` base units cost nothing, and are no part of the tiers. minimum_cents and cap_cents bound
    what a month with any use comes to.
    """

    id: str
    selector: str
    meter: PriceMeter
    per: int
    tiers: tuple[PriceTier, ...]
    pricing: Pricing = "unit"
    free: int = 0
    minimum_cents: int | None = None
    cap_cents: int | None = None
    valid_from: datetime = ALWAYS
    valid_to: datetime | None = None

    def __hash__(self) -> int:
        """Of its id, which no other has: prices are keys of large sums."""
        return hash(self.id)


class Use(NamedTuple):
    """What a price is chosen by. model and category are those of the catalogue; None: none of it is known."""

    operation: str
    model: str | None
    category: str | None

    @property
    def selectors(self) -> tuple[str, ...]:
        """Those that take it, the most specific first."""
        named = [f"{kind}:{name}" for kind in SELECTOR_KINDS if (name := getattr(self, kind)) is not None]
        return (*named, EVERYTHING)


def is_selector(text: str) -> bool:
    """Whether a text is everything, or names a model, a category or an operation."""
    kind, colon, name = text.partition(":")
    return text == EVERYTHING or bool(colon and kind in SELECTOR_KINDS and name not in {"", EVERYTHING})


def superseded(prices: Iterable[Price]) -> list[Price]:
    """Prices with the ends that they have: the next one's beginning ends the one before."""
    ended = []
    for _place, versions in _by_place(prices):
        ended += [
            replace(one, valid_to=_earlier(one.valid_to, after.valid_from)) for one, after in pairwise(versions)
        ] + versions[-1:]
    return ended


def overlaps(prices: Sequence[Price]) -> Iterator[tuple[Price, Price]]:
    """Pairs of which an instant can't tell which holds.

    Either a version with an end of its own in which another for the same begins, or all tokens and a part of them for
    the same selector at one time.
    """
    for _place, versions in _by_place(prices):
        for one, after in pairwise(versions):
            if one.valid_from == after.valid_from or (one.valid_to is not None and after.valid_from < one.valid_to):
                yield one, after
    ended = superseded(prices)
    for whole in (one for one in ended if one.meter == "total_tokens"):
        for part in ended:
            if part.meter in PARTS_OF_TOKENS and part.selector == whole.selector and _meet(whole, part):
                yield whole, part


_Rank = tuple[int, int]
"""Whose price it is (own prices before the book's), and how specific: the lowest goes before."""


class Tariff:
    """All that an administration may have to pay by: its own prices, then those of the book, each with its end."""

    __slots__ = ("_by_selector", "_chosen", "book", "cuts", "own")

    def __init__(self, own: Sequence[Price], book: Sequence[Price]) -> None:
        self.own, self.book = tuple(own), tuple(book)
        edges = {edge for one in (*own, *book) for edge in (one.valid_from, one.valid_to) if edge is not None}
        self.cuts = sorted(edges)
        """Instants at which a price begins or ends."""
        self._by_selector = [_by_selector(part) for part in (self.own, self.book)]
        self._chosen: dict[tuple[int, Use], Mapping[PriceMeter, Price]] = {}

    def chosen(self, use: Use, at: datetime) -> Mapping[PriceMeter, Price]:
        """The prices by which a use is billed at an instant, by meter.

        They are the same between two cuts, and kept: there are few kinds of use, and many hours.
        """
        key = bisect_right(self.cuts, at), use
        found = self._chosen.get(key)
        if found is None:
            found = self._chosen[key] = _without_doubles(self._ranked(use, at))
        return found

    def in_force(self, at: datetime) -> tuple[list[Price], list[Price]]:
        """Its own prices that hold at an instant, and the book's."""
        own, book = ([one for one in part if _holds(one, at)] for part in (self.own, self.book))
        return own, book

    def _ranked(self, use: Use, at: datetime) -> dict[PriceMeter, tuple[_Rank, Price]]:
        best: dict[PriceMeter, tuple[_Rank, Price]] = {}
        for source, prices in enumerate(self._by_selector):
            for specific, selector in enumerate(use.selectors):
                for price in prices.get(selector, ()):
                    if _holds(price, at) and use.operation in METER_OPERATIONS.get(price.meter, (use.operation,)):
                        best.setdefault(price.meter, ((source, specific), price))
        return best


def unpriced_quantities(sums: Sums, operation: str, prices: Mapping[PriceMeter, Price]) -> dict[str, int]:
    """Quantities above 0 that an operation is billed by and that none of its prices takes.

    Total tokens take both kinds. A price by request that names what it is for stands for the whole use, and so does any
    price by request or input of embeddings for those. An operation that nothing is expected of is billed by whatever
    has a price, or by its requests.
    """
    by_request = prices.get("requests")
    if by_request is not None and by_request.selector != EVERYTHING:
        return {}
    if operation == "embedding" and not BY_CALL.isdisjoint(prices):
        return {}
    wanted = EXPECTED[operation]
    if not wanted:
        requests = billable_requests(sums) or 0
        return {"requests": requests} if requests and not prices else {}
    return {
        name: quantity
        for name in wanted
        if (quantity := sums[name])
        and name not in prices
        and not (name in PARTS_OF_TOKENS and "total_tokens" in prices)
    }


def _without_doubles(best: dict[PriceMeter, tuple[_Rank, Price]]) -> dict[PriceMeter, Price]:
    """Of a meter and its parts the more specific; among equals the parts. So nothing is billed twice."""
    dropped: set[PriceMeter] = set()
    for whole, parts in ALTERNATIVES.items():
        known = [best[part][0] for part in parts if part in best]
        if whole not in best:
            continue
        if known and min(known) <= best[whole][0]:
            dropped.add(whole)
        else:
            dropped |= PARTS_OF_TOKENS if whole == "total_tokens" else {*parts}
    return {meter: price for meter, (_rank, price) in best.items() if meter not in dropped}


def _holds(price: Price, at: datetime) -> bool:
    return price.valid_from <= at and (price.valid_to is None or at < price.valid_to)


def _by_selector(prices: Iterable[Price]) -> dict[str, list[Price]]:
    found: dict[str, list[Price]] = {}
    for price in prices:
        found.setdefault(price.selector, []).append(price)
    return found


def _by_place(prices: Iterable[Price]) -> Iterator[tuple[tuple[str, PriceMeter], list[Price]]]:
    """Versions for the same selector and meter, from the first to begin to the last."""
    places: dict[tuple[str, PriceMeter], list[Price]] = {}
    for price in prices:
        places.setdefault((price.selector, price.meter), []).append(price)
    for place, versions in places.items():
        yield place, sorted(versions, key=lambda one: one.valid_from)


def _earlier(end: datetime | None, beginning: datetime) -> datetime:
    return beginning if end is None else min(end, beginning)


def _meet(one: Price, other: Price) -> bool:
    return (other.valid_to is None or one.valid_from < other.valid_to) and (
        one.valid_to is None or other.valid_from < one.valid_to
    )

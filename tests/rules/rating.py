"""Prices and usage for tests of rating, and strategies that make any of them."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from metering.rules.rating.lines import Place
from metering.rules.rating.meters import CARBON_NG, CARBON_UNKNOWN, COUNTED_SUMS
from metering.rules.rating.months import Account, Terms, Usage
from metering.rules.rating.prices import Price, PriceTier, Tariff
from metering.rules.rating.totals import VatCategory

NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)
TAXED = VatCategory("rate", 2_000)
BILLED = Account("2026-7", "billed", "book", "EUR", TAXED)
CHAT = Place("assistant", "large")
NAMES = {"large": ("large", "big"), "small": ("small", "little"), "vector": ("vector", "vectors")}


def a_price(selector: str = "*", meter: Any = "input_tokens", nano: int = 10**9, **more: Any) -> Price:
    """A price of 1 EUR for one token, unless said otherwise."""
    tiers = more.pop("tiers", ((None, nano),))
    named = {"id": f"{selector} {meter} {more.get('valid_from', '')}", "per": 1} | more
    return Price(selector=selector, meter=meter, tiers=tuple(PriceTier(*tier) for tier in tiers), **named)


def some_sums(**known: int | None) -> dict[str, int | None]:
    """Sums of a rollup: one request unless said otherwise, and what else is known."""
    carbon = {CARBON_NG: None, CARBON_UNKNOWN: 0}
    return dict.fromkeys(COUNTED_SUMS) | carbon | {"requests": 1, "uncounted_requests": 0} | known


def a_use(
    *prices: Price, place: Place = CHAT, operation: str = "chat", account: Account = BILLED, **sums: Any
) -> Usage:
    """Usage under the prices of a book."""
    return Usage(place, operation, Terms(account, Tariff((), prices)), NOON, some_sums(**sums))


amounts = st.integers(0, 10**12)
quantities = st.integers(0, 10**10)
bases = st.sampled_from([1, 7, 1_000, 60_000, 1_000_000, 730_000_000_000])


@st.composite
def tiers(draw: st.DrawFn) -> tuple[tuple[int | None, int], ...]:
    """Tiers that rise, the last without end."""
    ends = sorted(draw(st.sets(st.integers(1, 10**10), max_size=4)))
    return tuple((end, draw(amounts)) for end in [*ends, None])


@st.composite
def prices(draw: st.DrawFn, meter: str = "input_tokens") -> Price:
    """Any price of a meter."""
    pricing = draw(st.sampled_from(["unit", "package", "graduated", "volume"]))
    bounds = sorted(draw(st.lists(st.integers(0, 10**7), min_size=2, max_size=2)))
    minimum, cap = (draw(st.sampled_from([None, bound])) for bound in bounds)
    chosen = draw(tiers()) if pricing in {"graduated", "volume"} else ((None, draw(amounts)),)
    free = draw(st.one_of(st.just(0), quantities))
    return a_price(
        meter=meter, tiers=chosen, per=draw(bases), pricing=pricing, free=free, minimum_cents=minimum, cap_cents=cap
    )


places = st.builds(Place, st.sampled_from([None, "assistant", "code"]), st.sampled_from(["large", "small"]))
usages = st.dictionaries(places, quantities, min_size=1)

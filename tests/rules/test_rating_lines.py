"""A month under one price: tiers, packages, allowance, minimum, cap."""

from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.rating.lines import MONTH, Line, Place, cuts, month_lines
from metering.rules.rating.prices import Price
from tests.rules.rating import CHAT, a_price, amounts, bases, prices, quantities, tiers, usages

EUR = 10**9
TIERS = ((100, 2 * EUR), (200, 1 * EUR), (None, EUR // 2))


def lines_of(price: Price, used: int) -> list[tuple[str, int, int]]:
    return [(line.kind, line.quantity, line.cents) for line in month_lines(price, {CHAT: used})]


def exact(price: Price, used: int) -> Fraction:
    """What a month comes to before rounding, minimum and cap apart."""
    return sum((Fraction(cut.quantity * cut.nano, price.per * EUR) for cut in cuts(price, used)), Fraction())


def test_an_amount_is_quantity_times_price_by_base() -> None:
    assert lines_of(a_price(nano=EUR // 5, per=1_000_000), 12_345_678) == [("use", 12_345_678, 247)]


def test_half_a_cent_is_rounded_up_and_less_down() -> None:
    price = a_price(nano=EUR, per=1_000)
    assert [lines_of(price, used)[0][2] for used in (4, 5, 14, 15, 16)] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (1, [("use", 1, 200)]),
        (100, [("use", 100, 20_000)]),
        (101, [("use", 100, 20_000), ("use", 1, 100)]),
        (250, [("use", 100, 20_000), ("use", 100, 10_000), ("use", 50, 2_500)]),
    ],
)
def test_graduated_tiers_price_each_part_by_the_tier_it_is_in(used, expected) -> None:
    assert lines_of(a_price(tiers=TIERS, pricing="graduated"), used) == expected


@pytest.mark.parametrize(("used", "cents"), [(100, 20_000), (101, 10_100), (200, 20_000), (201, 10_050)])
def test_volume_tiers_price_all_by_the_tier_it_ends_in(used, cents) -> None:
    assert lines_of(a_price(tiers=TIERS, pricing="volume"), used) == [("use", used, cents)]


@pytest.mark.parametrize(("used", "quantity", "cents"), [(1, 1_000, 500), (1_000, 1_000, 500), (1_001, 2_000, 1_000)])
def test_a_package_that_is_begun_is_paid_whole(used, quantity, cents) -> None:
    assert lines_of(a_price(nano=5 * EUR, per=1_000, pricing="package"), used) == [("use", quantity, cents)]


def test_packages_of_a_month_are_shared_whole() -> None:
    price = a_price(nano=5 * EUR, per=1_000, pricing="package")
    lines = month_lines(price, {Place("a", "m"): 400, Place("b", "m"): 400, Place("c", "m"): 300})
    assert [(line.place.project, line.used, line.quantity, line.cents) for line in lines] == [
        ("a", 400, 1_000, 500),
        ("b", 400, 1_000, 500),
        ("c", 300, 0, 0),
    ]


def test_what_is_free_is_no_part_of_the_tiers() -> None:
    price = a_price(tiers=TIERS, pricing="graduated", free=50)
    assert lines_of(price, 50) == [("free", 50, 0)]
    assert lines_of(price, 160) == [("free", 50, 0), ("use", 100, 20_000), ("use", 10, 1_000)]


def test_a_minimum_is_due_for_any_use_and_for_none_nothing() -> None:
    price = a_price(nano=EUR, free=5, minimum_cents=1_000)
    assert month_lines(price, {CHAT: 0}) == month_lines(price, {}) == []
    assert lines_of(price, 3) == [("free", 3, 0), ("minimum", 1, 1_000)]
    assert lines_of(price, 12) == [("free", 5, 0), ("use", 7, 700), ("minimum", 1, 300)]
    assert lines_of(price, 15) == [("free", 5, 0), ("use", 10, 1_000)]


def test_a_cap_takes_back_what_is_beyond_it() -> None:
    price = a_price(nano=EUR, cap_cents=1_000)
    assert lines_of(price, 10) == [("use", 10, 1_000)]
    assert lines_of(price, 12) == [("use", 12, 1_200), ("cap", 1, -200)]
    (*_uses, bound) = month_lines(price, {CHAT: 12})
    assert (bound.place, bound.used, bound.exact) == (MONTH, 0, Fraction(-2))


def test_tiers_are_of_all_projects_together_and_shared_in_proportion() -> None:
    price = a_price(tiers=((100, 2 * EUR), (None, EUR)), pricing="graduated")
    lines = month_lines(price, {Place("b", "m"): 50, Place("a", "m"): 150})
    assert [(line.place.project, line.quantity, line.nano // EUR) for line in lines] == [
        ("a", 75, 2),
        ("b", 25, 2),
        ("a", 75, 1),
        ("b", 25, 1),
    ]


# For any price and usage


@given(prices(), usages)
def test_lines_hold_all_that_was_used_and_nothing_else(price: Price, used: dict[Place, int]) -> None:
    lines = month_lines(price, used)
    for place, quantity in used.items():
        assert sum(line.used for line in lines if line.place == place) == quantity
    assert all(line.used > 0 for line in lines if line.kind in {"use", "free"})
    assert sum(line.used for line in lines) == sum(used.values())


@given(prices(), usages)
def test_every_line_is_its_quantity_times_its_price_rounded_once(price: Price, used: dict[Place, int]) -> None:
    for line in month_lines(price, used):
        assert line.cents == decimal_cents(line)
        assert abs(line.exact * 100 - line.cents) <= Fraction(1, 2)


def decimal_cents(line: Line) -> int:
    """The same in Decimal, divided last."""
    with localcontext() as context:
        context.prec = 100
        euros = Decimal(line.quantity) * Decimal(line.nano).scaleb(-9) / line.per
        return int(euros.quantize(Decimal("0.01"), ROUND_HALF_UP).scaleb(2))


@given(prices(), usages)
def test_a_month_is_never_below_its_minimum_nor_above_its_cap(price: Price, used: dict[Place, int]) -> None:
    total = sum(line.cents for line in month_lines(price, used))
    if any(used.values()):
        assert price.minimum_cents is None or total >= price.minimum_cents
    assert price.cap_cents is None or total <= price.cap_cents


@given(prices(), usages)
def test_before_rounding_it_matters_not_who_used_it(price: Price, used: dict[Place, int]) -> None:
    whole = sum(used.values())
    uses = [line for line in month_lines(price, used) if line.kind in {"use", "free"}]
    assert sum((line.exact for line in uses), Fraction()) == exact(price, whole)


@given(tiers(), bases, quantities, st.integers(0, 1_000))
def test_graduated_amounts_rise_without_a_jump(rising, per: int, used: int, more: int) -> None:
    price = a_price(tiers=rising, per=per, pricing="graduated")
    steepest = Fraction(max(nano for _end, nano in rising), per * EUR)
    assert 0 <= exact(price, used + more) - exact(price, used) <= more * steepest


@given(st.integers(1, 10**9), amounts, amounts, bases)
def test_volume_amounts_jump_where_a_tier_ends(end: int, low: int, high: int, per: int) -> None:
    price = a_price(tiers=((end, low), (None, high)), per=per, pricing="volume")
    jump = exact(price, end + 1) - exact(price, end) - Fraction(high, per * EUR)
    assert jump == Fraction(end * (high - low), per * EUR)

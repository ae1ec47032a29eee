"""A month of many uses: lines, totals, VAT, and what has no amount."""

from collections import Counter
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.rating.lines import Place
from metering.rules.rating.meters import CARBON_NG, CARBON_UNKNOWN
from metering.rules.rating.months import Account, Month, Terms, Usage, rate_month
from metering.rules.rating.prices import Tariff
from metering.rules.rating.totals import VatCategory, total_of
from tests.rules.rating import BILLED, CHAT, NAMES, NOON, TAXED, a_price, a_use, places, prices, quantities, some_sums

FREE = Account(None, "free", "book", "EUR", TAXED)
EUR = 10**9


def amounts_of(month: Month) -> list[tuple[str | None, str | None, str, int, int]]:
    return [(*one.line.place, one.line.price.meter, one.line.used, one.line.cents) for one in month.lines]


def gaps_of(month: Month) -> list[tuple[str, str, int]]:
    return [(gap.reason, gap.quantity, amount) for gap, amount in month.gaps]


@st.composite
def months(draw: st.DrawFn) -> list[Usage]:
    """Usage under any prices of three meters, in many parts."""
    tariff = Tariff((), [draw(prices(meter)) for meter in ("input_tokens", "output_tokens", "requests")])
    accounts = [Terms(account, tariff) for account in (BILLED, FREE)]
    parts = draw(st.lists(st.tuples(places, st.sampled_from(accounts), quantities, quantities), max_size=12))
    return [
        Usage(place, "chat", terms, NOON, some_sums(input_tokens=given_in, output_tokens=given_out))
        for place, terms, given_in, given_out in parts
    ]


@given(months())
def test_totals_are_the_sums_of_lines_to_the_cent(usage: list[Usage]) -> None:
    month = rate_month(usage, NAMES)
    for (billing, currency), total in month.totals().items():
        lines = [one.line.cents for one in month.lines if one.account.billing == billing]
        assert (currency, total.net_cents) == ("EUR", sum(lines))
        assert total.gross_cents == total.net_cents + total.vat_cents
    assert {one.account.billing for one in month.lines} == {billing for billing, _currency in month.totals()}


@given(months(), st.data())
def test_splitting_a_months_usage_into_parts_changes_nothing(usage: list[Usage], data: Any) -> None:
    split = []
    for one in usage:
        cut = data.draw(st.integers(0, one.sums["input_tokens"] or 0))
        for sums in ({"input_tokens": cut, "output_tokens": None, "requests": 0},
                     {"input_tokens": (one.sums["input_tokens"] or 0) - cut}):  # fmt: skip
            split.append(one._replace(sums={**one.sums, **sums}))
    assert rate_month(data.draw(st.permutations(split)), NAMES) == rate_month(usage, NAMES)


@given(months())
def test_rating_twice_gives_the_same_in_the_same_order(usage: list[Usage]) -> None:
    assert rate_month(usage, NAMES) == rate_month(list(usage), NAMES)


@given(months())
def test_all_that_was_used_is_on_lines(usage: list[Usage]) -> None:
    used: Counter[tuple[Account, str]] = Counter()
    for one in usage:
        used[one.terms.account, "input_tokens"] += one.sums["input_tokens"] or 0
    found: Counter[tuple[Account, str]] = Counter()
    for one in rate_month(usage, NAMES).lines:
        found[one.account, one.line.price.meter] += one.line.used
    assert all(found[key] == quantity for key, quantity in used.items())


def test_hours_are_summed_before_they_meet_a_price() -> None:
    price = a_price(nano=EUR, per=1_000)
    hours = [a_use(price, input_tokens=4) for _ in range(10)]  # 0.4 of a cent each
    assert amounts_of(rate_month(hours, NAMES)) == [("assistant", "large", "input_tokens", 40, 4)]


def test_lines_are_by_project_meter_model_and_price_version() -> None:
    before, after = a_price(nano=EUR, id="1"), a_price(nano=2 * EUR, id="2")
    usage = [
        a_use(before, input_tokens=1),
        a_use(after, input_tokens=1),
        a_use(before, input_tokens=1, operation="completion"),
        a_use(before, input_tokens=5, place=Place("code", "large")),
        a_use(before, input_tokens=7, place=Place(None, "small")),
    ]
    assert amounts_of(rate_month(usage, NAMES)) == [
        (None, "small", "input_tokens", 7, 700),
        ("assistant", "large", "input_tokens", 2, 200),
        ("code", "large", "input_tokens", 5, 500),
        ("assistant", "large", "input_tokens", 1, 200),
    ]


def test_a_price_for_requests_and_one_for_tokens_are_both_billed() -> None:
    usage = [a_use(a_price(), a_price(meter="output_tokens"), a_price(meter="requests"), input_tokens=1)]
    assert {line[2] for line in amounts_of(rate_month(usage, NAMES))} == {"input_tokens", "requests"}


# What is billed


@pytest.mark.parametrize(
    ("settlement", "billing"), [("billed", "billed"), ("prepaid", "valued"), ("envelope", "valued"), ("free", "valued")]
)
def test_what_a_convention_says_decides_whether_it_is_billed(settlement, billing) -> None:
    account = BILLED._replace(settlement=settlement)
    month = rate_month([a_use(a_price(), account=account, input_tokens=10)], NAMES)
    ((key, total),) = month.totals().items()
    assert key == (billing, "EUR")
    assert (total.net_cents, total.vat_cents) == (1_000, 200 if billing == "billed" else 0)


def test_vat_is_reckoned_once_on_the_sum_of_a_category() -> None:
    # 20 % of 3 cents is 0.6; of each cent, rounded, it would be 0.
    assert total_of([(TAXED, 1)] * 3).vat_cents == 1
    low, none = VatCategory("rate", 550), VatCategory("out_of_scope", reason="VATEX-EU-O")
    total = total_of([(low, 1_000), (TAXED, 1_000), (none, 1_000), (low, 1_000)])
    assert [(part.category, part.base_cents, part.vat_cents) for part in total.vat] == [
        (none, 1_000, 0),
        (low, 2_000, 110),
        (TAXED, 1_000, 200),
    ]
    assert (total.net_cents, total.gross_cents) == (4_000, 4_310)


def test_currencies_have_totals_of_their_own() -> None:
    francs = BILLED._replace(currency="CHF", book="swiss")
    usage = [a_use(a_price(), account=account, input_tokens=1) for account in (BILLED, francs)]
    assert set(rate_month(usage, NAMES).totals()) == {("billed", "EUR"), ("billed", "CHF")}


# What has no amount


def test_usage_without_a_price_is_named_and_not_zero() -> None:
    month = rate_month([a_use(a_price(), input_tokens=5, output_tokens=7)], NAMES)
    assert gaps_of(month) == [("no_price", "output_tokens", 7)]
    assert amounts_of(month) == [("assistant", "large", "input_tokens", 5, 500)]


def test_a_price_of_zero_is_a_price() -> None:
    free = a_price(meter="output_tokens", nano=0)
    month = rate_month([a_use(a_price(), free, input_tokens=5, output_tokens=7)], NAMES)
    assert gaps_of(month) == []
    assert amounts_of(month)[1] == ("assistant", "large", "output_tokens", 7, 0)


def test_an_unknown_model_has_no_price_even_where_everything_has() -> None:
    unknown = a_use(a_price(), a_price(meter="output_tokens"), place=Place("assistant", "mystery"), input_tokens=5)
    month = rate_month([unknown], NAMES)
    assert (amounts_of(month), gaps_of(month)) == ([], [("unknown_model", "input_tokens", 5)])


def test_a_service_without_a_model_needs_none() -> None:
    price = a_price("operation:web_search", "web_searches")
    search = a_use(price, place=Place("assistant", "web-index"), operation="web_search", web_searches=3)
    assert amounts_of(rate_month([search], NAMES)) == [("assistant", "web-index", "web_searches", 3, 300)]


def test_a_category_that_was_named_is_priced_as_such() -> None:
    price = a_price("category:big")
    usage = [a_use(price, place=Place("assistant", "big"), input_tokens=3, output_tokens=0)]
    assert rate_month(usage, NAMES | {"big": (None, "big")}).lines[0].line.cents == 300


def test_requests_without_a_count_are_named() -> None:
    month = rate_month([a_use(a_price(), input_tokens=5, requests=9, uncounted_requests=2)], NAMES)
    assert gaps_of(month) == [("uncounted", "requests", 2)]


def test_without_a_price_book_nothing_has_an_amount() -> None:
    terms = Terms(BILLED._replace(book=None, currency=None, vat=None), None)
    month = rate_month([Usage(CHAT, "chat", terms, NOON, some_sums(input_tokens=5, output_tokens=7))], NAMES)
    assert gaps_of(month) == [("no_price_book", "input_tokens", 5), ("no_price_book", "output_tokens", 7)]
    assert month.totals() == {}


def test_carbon_is_priced_by_the_microgram_and_rounded_once() -> None:
    price = a_price("*", "carbon_ugco2e", nano=EUR, per=10**3)
    hours = [a_use(price, operation="other", **{CARBON_NG: 1_400, CARBON_UNKNOWN: 0}) for _ in range(10)]
    assert amounts_of(rate_month(hours, NAMES)) == [("assistant", "large", "carbon_ugco2e", 14, 1)]


def test_carbon_that_is_not_known_is_named_where_it_has_a_price() -> None:
    unknown = {CARBON_NG: None, CARBON_UNKNOWN: 4}
    priced = a_use(a_price("*", "carbon_ugco2e"), operation="other", **unknown)
    assert gaps_of(rate_month([priced], NAMES)) == [("unknown_carbon", "requests", 4)]
    assert gaps_of(rate_month([a_use(a_price(meter="requests"), operation="other", **unknown)], NAMES)) == []


@given(months())
def test_lines_come_by_account_and_price(usage: list[Usage]) -> None:
    keys = [(one.account, one.line.price.id) for one in rate_month(usage, NAMES).lines]
    assert len([key for key, _ in groupby(keys)]) == len(set(keys))

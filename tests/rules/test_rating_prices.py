"""Which price takes a use."""

from datetime import timedelta
from itertools import permutations

import pytest

from metering.rules.rating.meters import PRICE_METERS, metered, unit_name
from metering.rules.rating.prices import Tariff, Use, is_selector, overlaps, superseded, unpriced_quantities
from tests.rules.rating import NOON, a_price, some_sums

CHAT = Use("chat", "large", "big")
HOUR = timedelta(hours=1)


def chosen(tariff: Tariff, use: Use = CHAT, at=NOON) -> dict[str, str]:
    return {meter: price.selector for meter, price in tariff.chosen(use, at).items()}


SELECTORS = ["model:large", "category:big", "operation:chat", "*"]


@pytest.mark.parametrize("first", range(4))
def test_the_most_specific_selector_wins_in_whatever_order_prices_come(first: int) -> None:
    for order in permutations(a_price(selector) for selector in SELECTORS[first:]):
        assert chosen(Tariff((), order)) == {"input_tokens": SELECTORS[first]}


def test_a_price_for_something_else_takes_nothing() -> None:
    others = [a_price(one) for one in ("model:small", "category:little", "operation:ocr")]
    assert chosen(Tariff((), others)) == {}


def test_what_was_agreed_goes_before_the_book_however_wide_it_is() -> None:
    assert chosen(Tariff([a_price("*")], [a_price("model:large"), a_price("*", "output_tokens")])) == {
        "input_tokens": "*",
        "output_tokens": "*",
    }


def test_a_version_holds_from_its_hour_until_the_next_begins() -> None:
    versions = [a_price(nano=number, valid_from=NOON + number * HOUR) for number in range(3)]
    ends = {one.tiers[0].nano: one.valid_to for one in superseded(reversed(versions))}
    assert ends == {0: NOON + HOUR, 1: NOON + 2 * HOUR, 2: None}
    tariff = Tariff((), superseded(versions))
    for before, number in ((timedelta(microseconds=1), 0), (timedelta(), 1)):
        found = tariff.chosen(CHAT, NOON + HOUR - before)["input_tokens"]
        assert found.tiers[0].nano == number
    assert chosen(tariff, at=NOON - HOUR) == {}


def test_after_the_end_that_a_version_states_the_next_less_specific_holds() -> None:
    ending = a_price("model:large", valid_from=NOON, valid_to=NOON + HOUR)
    tariff = Tariff((), superseded([ending, a_price("*")]))
    assert [chosen(tariff, at=at)["input_tokens"] for at in (NOON - HOUR, NOON, NOON + HOUR)] == [
        "*",
        "model:large",
        "*",
    ]


def test_prices_that_an_instant_could_not_tell_apart_are_found() -> None:
    open_end = a_price(valid_from=NOON)
    ending = a_price(valid_from=NOON, valid_to=NOON + 2 * HOUR)
    later = a_price(valid_from=NOON + HOUR)
    assert not list(overlaps([open_end, later, a_price("model:large"), a_price(meter="output_tokens")]))
    assert list(overlaps([later, ending])) == [(ending, later)]
    assert list(overlaps([open_end, ending]))


def test_all_tokens_beside_a_part_of_them_for_the_same_are_found() -> None:
    whole = a_price(meter="total_tokens", valid_from=NOON, valid_to=NOON + HOUR)
    for part in ("input_tokens", "cached_input_tokens", "output_tokens"):
        assert list(overlaps([whole, a_price(meter=part)]))
        assert not list(overlaps([whole, a_price("model:large", part)]))
        assert not list(overlaps([whole, a_price(meter=part, valid_from=NOON + HOUR)]))


@pytest.mark.parametrize(
    ("whole", "parts", "billed"),
    [
        ("*", {"input_tokens": "model:large", "output_tokens": "*"}, {"input_tokens", "output_tokens"}),
        ("model:large", {"input_tokens": "category:big", "cached_input_tokens": "*"}, {"total_tokens"}),
        # A price of cached input alone can't stand for the rest.
        ("*", {"cached_input_tokens": "model:large"}, {"total_tokens"}),
    ],
)
def test_of_all_tokens_and_their_parts_the_more_specific_is_billed(whole, parts, billed) -> None:
    listed = [a_price(whole, "total_tokens"), *(a_price(selector, meter) for meter, selector in parts.items())]
    assert set(Tariff((), listed).chosen(CHAT, NOON)) == billed


def test_embedding_requests_are_requests_of_embeddings_only_and_billed_once() -> None:
    tariff = Tariff((), [a_price("*", "requests"), a_price("*", "embedding_requests")])
    assert set(tariff.chosen(CHAT, NOON)) == {"requests"}
    assert set(tariff.chosen(Use("embedding", "vector", "vectors"), NOON)) == {"embedding_requests"}


def test_requests_that_failed_or_were_refused_are_not_billed() -> None:
    sums = some_sums(requests=10, requests_error=3, requests_refused=2)
    assert metered("requests", sums, ()) == 5
    assert metered("requests", some_sums(requests=None), ()) is None


def test_cached_input_is_billed_once() -> None:
    sums = some_sums(input_tokens=100, cached_input_tokens=30, output_tokens=None)
    assert metered("input_tokens", sums, {"input_tokens"}) == 100
    assert metered("input_tokens", sums, {"input_tokens", "cached_input_tokens"}) == 70
    assert metered("cached_input_tokens", sums, {"input_tokens", "cached_input_tokens"}) == 30
    assert metered("total_tokens", sums, {"total_tokens"}) == 100
    # Sums of events that know their cached part only.
    assert metered("input_tokens", sums | {"cached_input_tokens": 200}, {"input_tokens", "cached_input_tokens"}) == 0


@pytest.mark.parametrize(
    ("operation", "priced", "unpriced"),
    [
        ("chat", {"input_tokens": "*"}, {"output_tokens": 5}),
        ("chat", {"total_tokens": "*"}, {}),
        ("chat", {"requests": "*"}, {"input_tokens": 7, "output_tokens": 5}),
        ("chat", {"requests": "operation:chat"}, {}),
        ("embedding", {}, {"input_tokens": 7}),
        ("embedding", {"embedding_requests": "*"}, {}),
        ("embedding", {"embedding_inputs": "*"}, {}),
        ("transcription", {"input_tokens": "*"}, {"audio_ms": 9}),
        ("other", {}, {"requests": 2}),
        ("other", {"input_tokens": "*"}, {}),
    ],
)
def test_what_no_price_takes_is_named(operation, priced, unpriced) -> None:
    sums = some_sums(requests=2, input_tokens=7, output_tokens=5, audio_ms=9)
    prices = {meter: a_price(selector, meter) for meter, selector in priced.items()}
    assert unpriced_quantities(sums, operation, prices) == unpriced


def test_requests_that_used_nothing_need_no_price() -> None:
    refused = some_sums(requests=3, requests_refused=3)
    assert unpriced_quantities(refused, "other", {}) == unpriced_quantities(refused, "chat", {}) == {}


@pytest.mark.parametrize("text", ["", "model", "model:", "model:*", "user:x", ":x", "**"])
def test_what_is_no_selector(text: str) -> None:
    assert not is_selector(text)
    assert all(map(is_selector, SELECTORS))


def test_units_have_names() -> None:
    assert unit_name("input_tokens", 1_000_000) == "1,000,000 tokens"
    assert unit_name("audio_ms", 60_000) == "min"
    assert unit_name("storage_byte_hours", 730_000_000_000) == "GB-month"
    assert unit_name("web_searches", 1_000) == "1,000 searches"
    assert all(unit_name(meter, 1) for meter in PRICE_METERS)

"""What a request counts for: nothing unknown becomes a zero, and counters have names of their own."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.counting import METER_NUMBER, Estimate, field_of, held_amounts, used_amounts
from metering.rules.limits import METERS, SCOPES, WINDOWS, Limit, Request
from metering.rules.quantities import OPERATIONS, QUANTITIES, QUANTITY_MAX

amounts = st.integers(0, QUANTITY_MAX)
names = st.text(min_size=1, max_size=8)
estimates = st.builds(
    Estimate, st.none() | amounts, st.none() | amounts, amounts, amounts, amounts, amounts, amounts, amounts
)


@given(estimates, st.sampled_from([None, *OPERATIONS]))
def test_what_is_held_is_never_negative_and_tokens_count_twice(estimate: Estimate, operation: str | None) -> None:
    held = held_amounts(estimate, operation)
    assert all(isinstance(amount, int) and amount >= 0 for amount in held.values())
    assert held["requests"] == held["concurrent_requests"] == 1
    assert held["total_tokens"] == held["input_tokens"] == estimate.input_tokens
    assert "output_tokens" not in held  # it is held as it is granted
    assert held["embedding_requests"] == (operation == "embedding")


@given(estimates)
def test_the_least_output_is_within_the_most(estimate: Estimate) -> None:
    assert 0 <= estimate.least_output_tokens <= estimate.max_output_tokens
    assert (estimate.least_output_tokens == 0) == (0 in {estimate.min_output_tokens, estimate.max_output_tokens})


@given(amounts)
def test_bytes_are_rounded_up_to_tokens(size: int) -> None:
    tokens = Estimate(prompt_bytes=size).input_tokens
    assert 3 * (tokens - 1) < size <= 3 * tokens
    assert Estimate(prompt_tokens=7, prompt_bytes=size).input_tokens == 7


@given(st.dictionaries(st.sampled_from(QUANTITIES), st.none() | amounts), st.sampled_from(OPERATIONS))
def test_what_is_unknown_is_absent_and_what_is_known_counts(quantities: dict[str, int | None], operation: str) -> None:
    used = used_amounts(quantities, operation)
    assert used[METER_NUMBER["concurrent_requests"]] == 0
    for name in ("requests", "input_tokens", "output_tokens", "audio_ms", "embedding_inputs", "pages", "searches"):
        assert used.get(METER_NUMBER[name]) == quantities.get(name)
    tokens = [quantities.get(name) for name in ("input_tokens", "output_tokens")]
    known = [one for one in tokens if one is not None]
    assert used.get(METER_NUMBER["total_tokens"]) == (sum(known) if known else None)
    embeddings = quantities.get("requests") if operation == "embedding" else 0
    assert used.get(METER_NUMBER["embedding_requests"]) == embeddings
    assert not {METER_NUMBER["cost_neur"], METER_NUMBER["carbon_ugco2e"]} & set(used)


@given(
    st.sets(names, min_size=2, max_size=4), st.sets(names.filter(lambda name: "|" not in name), min_size=1, max_size=3)
)
def test_two_counters_never_share_a_name(subjects: set[str], models: set[str]) -> None:
    selectors = ["*", *(f"model:{name}" for name in models)]
    found: dict[str, tuple[str, ...]] = {}
    for scope, subject, selector, meter, window in itertools.product(SCOPES, subjects, selectors, METERS[:3], WINDOWS):
        request = Request("t", subject, subject, subject)
        name = field_of(Limit(scope, selector, meter, window, 1, "hard"), request)
        what = (scope, "" if scope == "tenant" else subject, selector, meter, window)
        assert found.setdefault(name, what) == what


@pytest.mark.parametrize("meter", METERS)
def test_every_meter_has_a_number_of_its_own_that_stays(meter: str) -> None:
    assert METER_NUMBER[meter] == METERS.index(meter)
    assert len(set(METER_NUMBER.values())) == len(METERS)

"""Sums in which the unknown stays unknown, and corrections that lead exactly to what is wanted."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.quantities import (
    EXPECTED,
    OPERATIONS,
    QUANTITIES,
    QUANTITY_MAX,
    STATUSES,
    SUBSETS,
    add,
    correction_delta,
    expected_quantities,
    net,
    subset_violation,
)

amounts = st.integers(0, QUANTITY_MAX)
signed = st.none() | st.integers(-QUANTITY_MAX, QUANTITY_MAX)
rows = st.fixed_dictionaries(dict.fromkeys(QUANTITIES, signed))
known = st.fixed_dictionaries({name: st.none() | amounts for name in QUANTITIES})
wanted = st.dictionaries(st.sampled_from(QUANTITIES), amounts, min_size=1)


@given(signed, signed, signed)
def test_adding_is_associative_and_commutative(a, b, c):
    assert add(a, b) == add(b, a)
    assert add(add(a, b), c) == add(a, add(b, c))


@given(signed)
def test_the_unknown_adds_nothing_and_zero_is_not_unknown(value):
    assert add(value, None) == value
    assert add(None, 0) == 0
    assert add(None, None) is None


@given(st.lists(rows, max_size=6))
def test_net_is_the_sum_of_the_rows_quantity_by_quantity(several):
    assert net(several) == {name: reduce(add, (row[name] for row in several), None) for name in QUANTITIES}


@given(known, wanted)
def test_applying_the_delta_gives_what_is_wanted_and_leaves_the_rest(current, wanted):
    delta = correction_delta(current, wanted)
    assert net([current, delta]) == {**current, **wanted}
    assert set(delta) <= set(wanted)
    assert all(-QUANTITY_MAX <= value <= QUANTITY_MAX for value in delta.values())


@given(known, wanted)
def test_what_is_as_wanted_needs_no_delta(current, wanted):
    assert correction_delta({**current, **wanted}, wanted) == {}


def test_a_quantity_that_becomes_known_as_zero_is_a_change():
    current = dict.fromkeys(QUANTITIES)
    assert correction_delta(current, {"pages": 0}) == {"pages": 0}


@given(known)
def test_a_part_is_never_more_than_a_known_whole(values):
    found = subset_violation(values)
    over = [
        (part, whole)
        for part, whole in SUBSETS.items()
        if values[part] is not None and values[whole] is not None and values[part] > values[whole]
    ]
    assert found == (over[0] if over else None)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", STATUSES)
def test_only_requests_that_were_answered_are_held_to_a_count(operation, status):
    expected = EXPECTED[operation] if status in {"ok", "aborted"} else ()
    assert expected_quantities(operation, status) == expected
    assert set(expected) <= set(QUANTITIES)

"""The rule that compares sums of two places."""

from hypothesis import given
from hypothesis import strategies as st

from metering.rules.reconciling import RECONCILED, drifts, grouped, total

amounts = st.none() | st.integers(-(2**53), 2**70)
sums = st.fixed_dictionaries(dict.fromkeys(RECONCILED, amounts))
cells = st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), sums, max_size=6)


@given(cells, cells)
def test_differences_add_up_to_that_of_the_totals(expected, found) -> None:
    named = drifts(expected, found)
    left, right = total(expected.values()), total(found.values())
    for name in RECONCILED:
        assert sum(one.difference for one in named if one.quantity == name) == (right[name] or 0) - (left[name] or 0)


@given(cells, cells)
def test_what_is_named_is_what_differs_and_nothing_else(expected, found) -> None:
    named = {(one.key, one.quantity) for one in drifts(expected, found)}
    for key in expected.keys() | found.keys():
        for name in RECONCILED:
            left, right = (side.get(key, {}).get(name) or 0 for side in (expected, found))
            assert ((key, name) in named) == (left != right)
    assert drifts(expected, expected) == []
    assert [(one.key, one.difference) for one in drifts(found, expected)] == [
        (one.key, -one.difference) for one in drifts(expected, found)
    ]


@given(cells)
def test_grouping_changes_no_total(one) -> None:
    assert total(grouped(one, (1,)).values()) == total(one.values())

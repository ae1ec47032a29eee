"""The hash chain against answers written down once: a change here makes every stored ledger unverifiable."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from metering.rules.chain import GENESIS, canonical_series, identity_of, link, rows_digest


def test_known_identity():
    assert identity_of("gateway", "event-1").hex() == "61423ddccf4478e7c35b4e32f887cb2f"


def test_known_series():
    fields = ["a", "dinum", None, True, 200, "é\u2028"]
    assert canonical_series(fields) == b'["a","dinum",null,true,200,"\\u00e9\\u2028"]'


def test_known_rows_digest():
    expected = hashlib.sha256(b'7 ["a"]\n12 ["b"]\nrow-1row-2').digest()
    assert rows_digest([(7, b'["a"]'), (12, b'["b"]')], [b"row-1", b"row-2"]) == expected


def test_known_link():
    header = f"jauge-batch-1\n1\n1790000000000000\n2\n3,,0,-4,{2**70}\n{bytes(32).hex()}\n".encode()
    found = link(GENESIS, 1, 1_790_000_000_000_000, 2, [3, None, 0, -4, 2**70], bytes(32))
    assert found == hashlib.sha256(bytes(32) + header).digest()
    assert found.hex() == "470f68e75a9efe880e12851776fefbdd404dbb3da884d6c151d57189c460e3b6"


@given(st.text(), st.text(), st.text(), st.text())
def test_different_events_have_different_identities(source, event_id, other_source, other_id):
    names = [text.replace("\0", "") for text in (source, event_id, other_source, other_id)]
    names = [text.encode(errors="ignore").decode() for text in names]
    assert (identity_of(*names[:2]) == identity_of(*names[2:])) == (names[:2] == names[2:])


links = st.tuples(
    st.binary(min_size=32, max_size=32),
    st.integers(1, 2**62),
    st.integers(0, 2**60),
    st.integers(1, 2**31 - 1),
    st.lists(st.none() | st.integers(-(2**100), 2**100), min_size=15, max_size=15).map(tuple),
    st.binary(min_size=32, max_size=32),
)


@given(links, links)
def test_a_link_depends_on_all_of_the_header(one, other):
    assert (link(*one) == link(*other)) == (one == other)


@given(links, st.integers(0, 5), st.data())
def test_a_link_changes_with_any_one_field(one, place, data):
    other = (*one[:place], data.draw(links)[place], *one[place + 1 :])
    assert (link(*one) == link(*other)) == (one == other)

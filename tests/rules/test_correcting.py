"""Corrections of documents: over all documents of a month its lines are those of the month as it is rated now."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from metering.rules.billing.correcting import corrections, signed_lines, taken_back
from metering.rules.billing.documents import DocumentLine
from metering.rules.billing.numbering import is_number, number_of
from metering.rules.rating.totals import total_of
from tests.exports.samples import document_of, line_of


@st.composite
def month_lines(draw: st.DrawFn) -> list[DocumentLine]:
    """Lines of a rated month, as few places and quantities have them: equal ones are frequent."""
    found = []
    for number in range(1, draw(st.integers(0, 6)) + 1):
        project = draw(st.sampled_from(["a", "b", None]))
        kind = draw(st.sampled_from(["use", "use", "free", "minimum", "cap"]))
        if kind in {"minimum", "cap"}:
            cents = draw(st.integers(1, 3)) * (-1 if kind == "cap" else 1)
            quantity = -1 if kind == "cap" else 1
            place = {"project": None, "model": None, "used": 0, "quantity": quantity, "net_cents": cents}
            found.append(line_of(number, kind=kind, unit_price_nano=abs(cents) * 10**7, per=1, **place))
        else:
            quantity = draw(st.integers(1, 3)) * 1_000_000
            price = 0 if kind == "free" else 400_000_000
            found.append(
                line_of(number, kind=kind, project=project, used=quantity, quantity=quantity, unit_price_nano=price)
            )
    return found


def standing(lines: Iterable[DocumentLine]) -> Counter[DocumentLine]:
    """How often each line stands: once more for saying it, once less for taking it back."""
    found: Counter[DocumentLine] = Counter()
    for line in lines:
        plain = replace(line, number=0)
        is_said = (line.used or line.quantity) * (-1 if line.kind == "cap" else 1) > 0
        found[plain if is_said else taken_back(plain)] += 1 if is_said else -1
    return +found


@given(st.lists(month_lines(), min_size=1, max_size=4))
def test_documents_of_a_month_add_up_to_it_however_often_it_is_corrected(ratings: list[list[DocumentLine]]) -> None:
    documented: list[DocumentLine] = []
    for rated in ratings:
        documented += corrections(documented, rated)
        assert standing(documented) == standing(rated)
        assert sum(line.net_cents for line in documented) == sum(line.net_cents for line in rated)
        assert corrections(documented, rated) == []


@given(month_lines(), month_lines())
def test_a_credit_note_says_a_correction_the_other_way_round(
    before: list[DocumentLine], now: list[DocumentLine]
) -> None:
    changed = corrections(before, now)
    note = document_of([taken_back(line) for line in changed], "credit_note")
    assert list(signed_lines(note)) == changed
    assert note.net_cents == sum(line.net_cents for line in before) - sum(line.net_cents for line in now)
    assert note.vat_cents == total_of((line.vat, -line.net_cents) for line in changed).vat_cents


@given(st.integers(1, 10**7), st.integers(2000, 8999))
def test_numbers_are_short_plain_and_sort_as_they_count(serial: int, year: int) -> None:
    number = number_of("invoice", year, serial)
    assert is_number(number)
    assert len(number) <= 35
    if serial < 999_999:
        assert number < number_of("invoice", year, serial + 1)

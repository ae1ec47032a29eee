"""Corrections and voids: new entries that make an event count for what it should, whoever asks, and however often."""

import threading
from datetime import date

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.errors import Conflict, JaugeError, NotFound, Unprocessable
from metering.ledger import rollups
from metering.rules.periods import day_bounds
from metering.rules.quantities import QUANTITIES, QUANTITY_MAX, subset_violation
from reports.usage import UsageQuestion, read_usage
from tests.ledger.conftest import Book
from tests.ledger.frames import NOON, a_row, a_series, stored_cells
from tests.threads import run_threads

WHY = {"reason": "provider's invoice", "author": "operator"}


def counted(book: Book) -> dict[str, int | None]:
    """The one hourly cell of the test's tenant."""
    (cell,) = stored_cells(book.engine, "dinum")[0].values()
    return cell


def test_a_correction_sets_what_it_names_and_leaves_the_rest(book):
    book.append(a_row("a", input_tokens=10, output_tokens=4))
    done = book.corrections.correct("test", "a", {"output_tokens": 1, "pages": 2}, **WHY)
    assert done.quantities == {"output_tokens": -3, "pages": 2}
    cell = counted(book)
    assert (cell["requests"], cell["input_tokens"], cell["output_tokens"], cell["pages"]) == (1, 10, 1, 2)
    ((kind, reason, author, occurred_at),) = book.sql(
        "SELECT kind, reason, author, occurred_at FROM ledger_entry WHERE corrects IS NOT NULL"
    )
    assert (kind, reason, author, occurred_at) == (1, WHY["reason"], WHY["author"], NOON)
    assert book.verify().clean


def test_corrections_add_up_and_a_void_takes_all_of_it_back(book):
    book.append(a_row("a", input_tokens=10), a_row("b", input_tokens=7))
    book.corrections.correct("test", "a", {"input_tokens": 25}, **WHY)
    book.corrections.correct("test", "a", {"input_tokens": 0}, **WHY)
    book.corrections.correct("test", "a", {"input_tokens": QUANTITY_MAX}, **WHY)
    assert counted(book)["input_tokens"] == 7 + QUANTITY_MAX
    book.corrections.void("test", "a", **WHY)
    assert (counted(book)["input_tokens"], counted(book)["requests"]) == (7, 1)
    assert book.verify().clean


def test_a_void_event_can_neither_be_voided_nor_corrected_again(book):
    book.append(a_row("a"))
    book.corrections.void("test", "a", **WHY)
    for again in (
        lambda: book.corrections.void("test", "a", **WHY),
        lambda: book.corrections.correct("test", "a", {"pages": 1}, **WHY),
    ):
        with pytest.raises(Conflict) as refused:
            again()
        assert refused.value.code == "event_is_void"
    assert book.append(a_row("a"))[0] == "duplicate"


def test_failed_requests_are_taken_out_of_their_own_count(book):
    (number,) = book.registry.numbers([a_series(status="error")]).values()
    book.append(a_row("a", series=number), a_row("b", series=number))
    book.corrections.void("test", "a", **WHY)
    assert (counted(book)["requests"], counted(book)["requests_error"]) == (1, 1)


def test_a_request_is_uncounted_until_its_count_is_given(book):
    book.append(a_row("a", uncounted_requests=1, input_tokens=5), a_row("b", input_tokens=1, output_tokens=1))
    book.corrections.correct("test", "a", {"input_tokens": 6}, **WHY)
    assert counted(book)["uncounted_requests"] == 1
    book.corrections.correct("test", "a", {"output_tokens": 0}, **WHY)
    assert counted(book)["uncounted_requests"] == 0
    book.corrections.void("test", "a", **WHY)
    assert counted(book)["uncounted_requests"] == 0
    book.append(a_row("c", uncounted_requests=1))
    book.corrections.void("test", "c", **WHY)
    assert counted(book)["uncounted_requests"] == 0
    assert book.verify().clean


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda c: c.correct("test", "a", {"input_tokens": 10}, **WHY), "nothing_to_correct"),
        (lambda c: c.correct("test", "a", {}, **WHY), "nothing_to_correct"),
        (lambda c: c.correct("test", "a", {"cached_input_tokens": 11}, **WHY), "part_exceeds_whole"),
        (lambda c: c.correct("test", "a", {"tokens": 1}, **WHY), "unknown_field"),
        (lambda c: c.correct("test", "a", {"pages": -1}, **WHY), "out_of_range"),
        (lambda c: c.correct("test", "a", {"pages": QUANTITY_MAX + 1}, **WHY), "out_of_range"),
        (lambda c: c.correct("test", "a", {"pages": 1}, reason=" ", author="x"), "missing_field"),
        (lambda c: c.void("test", "a", reason="x", author=""), "missing_field"),
        (lambda c: c.void("test", "a", reason="x" * 501, author="y"), "missing_field"),
        (lambda c: c.void("test", "a", reason="nul \0", author="y"), "invalid_name"),
        (lambda c: c.void("test", "a", reason="x", author="half \ud800"), "invalid_name"),
        (lambda c: c.void("te\0st", "a", **WHY), "invalid_name"),
        (lambda c: c.void("test", "\udcff", **WHY), "invalid_name"),
        (lambda c: c.void("test", "a", **WHY, id=""), "missing_field"),
        (lambda c: c.void("test", "a", **WHY, id="x" * 129), "missing_field"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_records_nothing(book, ask, code):
    book.append(a_row("a", input_tokens=10))
    with pytest.raises(Unprocessable) as refused:
        ask(book.corrections)
    assert refused.value.code == code
    assert book.verify().batches == 1


def test_only_events_can_be_corrected(book):
    book.append(a_row("a"))
    done = book.corrections.correct("test", "a", {"pages": 1}, **WHY, id="c")
    for source, name in (("test", "b"), ("other", "a"), ("jauge:corrections", done.id)):
        with pytest.raises(NotFound):
            book.corrections.void(source, name, **WHY)


def test_the_same_correction_under_the_same_id_is_recorded_once(book):
    book.append(a_row("a", input_tokens=10))
    first = book.corrections.correct("test", "a", {"input_tokens": 4, "pages": 1}, **WHY, id="c1")
    book.corrections.correct("test", "a", {"input_tokens": 5}, **WHY, id="c2")
    assert book.corrections.correct("test", "a", {"input_tokens": 4, "pages": 1}, **WHY, id="c1") == first
    void = book.corrections.void("test", "a", **WHY, id="v")
    assert book.corrections.void("test", "a", **WHY, id="v") == void
    assert book.corrections.correct("test", "a", {"input_tokens": 4, "pages": 1}, **WHY, id="c1") == first
    assert book.verify().batches == 4


def test_an_id_that_is_taken_by_another_change_is_a_conflict(book):
    book.append(a_row("a", input_tokens=10), a_row("b", input_tokens=10), a_row("x", source="jauge:corrections"))
    book.corrections.correct("test", "a", {"input_tokens": 4}, **WHY, id="c1")
    for again in (
        lambda: book.corrections.correct("test", "a", {"input_tokens": 5}, **WHY, id="c1"),
        lambda: book.corrections.correct("test", "a", {"input_tokens": 4, "pages": 1}, **WHY, id="c1"),
        lambda: book.corrections.void("test", "a", **WHY, id="c1"),
        lambda: book.corrections.correct("test", "b", {"input_tokens": 4}, **WHY, id="c1"),
        lambda: book.corrections.void("test", "b", **WHY, id="x"),
    ):
        with pytest.raises(Conflict) as refused:
            again()
        assert refused.value.code == "correction_exists"
    assert book.verify().batches == 2


changes = st.lists(
    st.dictionaries(st.sampled_from(QUANTITIES[:5]), st.integers(0, 20) | st.just(QUANTITY_MAX), min_size=1), max_size=6
)


@settings(max_examples=30)
@given(changes, st.booleans())
def test_any_run_of_corrections_ends_at_what_was_last_asked_for(book, run, voided):
    (seq,) = book.sql("SELECT coalesce(max(seq), 0) FROM ledger_batch")[0]
    row = a_row(series=book.registry.numbers([a_series(tenant=f"t{seq}")])[a_series(tenant=f"t{seq}")])
    book.append(row)
    state = {name: row[name] for name in QUANTITIES}
    for wanted in run:
        after = {**state, **wanted}
        try:
            book.corrections.correct("test", row["event_id"], wanted, **WHY)
        except Unprocessable as refused:
            assert refused.code in {"nothing_to_correct", "part_exceeds_whole"}  # noqa: PT017
            assert after == state or subset_violation(after)
        else:
            state = after
    if voided:
        book.corrections.void("test", row["event_id"], **WHY)
        state = {name: None if value is None else 0 for name, value in state.items()}
    (cell,) = stored_cells(book.engine, f"t{seq}")[0].values()
    assert {name: cell[name] for name in QUANTITIES} == state
    assert book.verify().clean


def test_many_at_once_on_one_event_each_see_what_the_one_before_wrote(book):
    """More callers than connections: none may wait for a second one while it holds the first."""
    book.append(a_row("a", input_tokens=0), a_row("b"))
    refused: list[str] = []
    lock = threading.Lock()

    def correct(value: int) -> None:
        try:
            if value % 8:
                book.corrections.correct("test", "a", {"input_tokens": value}, **WHY)
            else:
                book.corrections.void("test", "b", **WHY)
        except JaugeError as error:
            with lock:
                refused.append(error.code)

    run_threads([lambda value=value: correct(value) for value in range(1, 33)])
    assert refused == ["event_is_void"] * 3
    assert counted(book)["requests"] == 1
    last = book.sql("SELECT sum(input_tokens) FROM ledger_entry")[0][0]
    assert counted(book)["input_tokens"] == last
    assert 1 <= last <= 32
    assert book.verify().clean


def test_the_same_id_at_once_is_recorded_once(book):
    book.append(a_row("a", input_tokens=0))
    answers = []
    run_threads([lambda: answers.append(book.corrections.correct("test", "a", {"pages": 3}, **WHY, id="c"))] * 12)
    assert len({answer.id for answer in answers}) == 1
    assert [answer.quantities for answer in answers] == [{"pages": 3}] * 12
    assert book.verify().batches == 2


def test_usage_as_of_a_batch_is_what_it_was_then(book):
    start, end = day_bounds(date(2026, 10, 5))
    book.append(a_row("a", input_tokens=10))
    book.append(a_row("b", input_tokens=5))
    book.corrections.correct("test", "a", {"input_tokens": 1}, **WHY)
    book.corrections.void("test", "b", **WHY)

    def usage(as_of: int | None) -> tuple[int | None, int | None]:
        with book.engine.connect() as connection:
            (row,) = read_usage(connection, UsageQuestion(start, end, as_of=as_of))
        return row.quantities["requests"], row.quantities["input_tokens"]

    assert [usage(seq) for seq in (1, 2, 3, 4, None)] == [(1, 10), (2, 15), (2, 6), (1, 1), (1, 1)]


def test_a_correction_that_fails_half_way_leaves_nothing(book, monkeypatch):
    book.append(a_row("a"))

    def fail(*_: object) -> None:
        raise sa.exc.InvalidRequestError

    monkeypatch.setattr(rollups, "add_to_rollups", fail)
    with pytest.raises(sa.exc.InvalidRequestError):
        book.corrections.void("test", "a", **WHY)
    monkeypatch.undo()
    result = book.verify()
    assert (result.clean, result.rows) == (True, 1)
    book.corrections.void("test", "a", **WHY)
    assert counted(book)["requests"] == 0

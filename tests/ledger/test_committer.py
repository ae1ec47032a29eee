"""Group commit: concurrent callers share batches, faults stay with their caller, and closing loses nothing."""

import threading
import time
from concurrent.futures import Future

import polars as pl
import pytest

from metering.errors import Unavailable
from metering.ledger.append import Ledger, Outcome
from metering.ledger.committer import GroupCommitter
from tests.ledger.conftest import Book
from tests.ledger.frames import a_frame, a_row
from tests.threads import run_threads

WAIT_S = 20


class GatedLedger(Ledger):
    """A ledger that writes when it is let, and counts."""

    def __init__(self, book: Book) -> None:
        super().__init__(book.engine, book.registry)
        self.gate = threading.Event()
        self.writes = 0
        self.faults: list[Exception] = []

    def write(self, prepared):
        self.writes += 1
        assert self.gate.wait(WAIT_S)
        if self.faults:
            raise self.faults.pop(0)
        return super().write(prepared)


@pytest.fixture
def gated(book: Book):
    ledger = GatedLedger(book)
    committer = GroupCommitter(ledger, queue_events_max=10, group_events_max=6)
    yield ledger, committer
    ledger.gate.set()
    committer.close()


def test_callers_share_batches_and_each_gets_its_own_answers(book):
    committer = GroupCommitter(book.ledger, queue_events_max=10_000, group_events_max=500)
    shared = a_row("shared")
    outcomes: list[Outcome] = []

    def call(number: int) -> None:
        for turn in range(10):
            rows = [a_row(f"e{number}-{turn}-{place}") for place in range(3)]
            answer = committer.submit(a_frame([*rows, shared, rows[0]])).result(WAIT_S)
            assert answer[:3] == [Outcome.ACCEPTED] * 3
            assert answer[4] == Outcome.DUPLICATE
            outcomes.append(answer[3])

    run_threads([lambda number=number: call(number) for number in range(8)])
    committer.close()
    assert outcomes.count(Outcome.ACCEPTED) == 1
    assert outcomes.count(Outcome.DUPLICATE) == 79
    result = book.verify()
    assert (result.clean, result.rows) == (True, 241)
    assert result.batches < 80


def test_beyond_its_bound_it_refuses_instead_of_growing(gated):
    ledger, committer = gated
    accepted: list[Future[list[Outcome]]] = []

    def flood() -> None:
        for _ in range(100):
            accepted.append(committer.submit(a_frame([a_row() for _ in range(5)])))
            time.sleep(0.01)

    with pytest.raises(Unavailable) as refused:
        flood()
    assert refused.value.code == "intake_busy"
    assert refused.value.retry_after_s
    assert committer.waiting_events <= 10
    assert len(accepted) <= 6  # written, ready, being prepared, and 10 events that wait
    ledger.gate.set()
    assert [answer.result(WAIT_S) for answer in accepted] == [[Outcome.ACCEPTED] * 5] * len(accepted)
    assert committer.waiting_events == 0


def test_one_frame_larger_than_the_bounds_is_written_when_nothing_waits(gated):
    ledger, committer = gated
    ledger.gate.set()
    assert committer.submit(a_frame([a_row() for _ in range(50)])).result(WAIT_S) == [Outcome.ACCEPTED] * 50


def test_closing_writes_what_waits_and_refuses_what_comes(gated, book):
    ledger, committer = gated
    waiting = [committer.submit(a_frame([a_row()])) for _ in range(8)]
    closing = threading.Thread(target=committer.close)
    closing.start()
    time.sleep(0.05)
    with pytest.raises(Unavailable) as refused:
        committer.submit(a_frame([a_row()]))
    assert refused.value.code == "stopping"
    assert not any(answer.done() for answer in waiting)
    ledger.gate.set()
    closing.join(WAIT_S)
    assert [answer.result(0) for answer in waiting] == [[Outcome.ACCEPTED]] * 8
    committer.close()
    assert book.verify().rows == 8


def test_an_outage_reaches_every_caller_of_the_group_and_the_next_is_written(gated):
    ledger, committer = gated
    ledger.faults = [Unavailable("database_unavailable", "away")]
    first = committer.submit(a_frame([a_row()]))
    ledger.gate.set()
    with pytest.raises(Unavailable):
        first.result(WAIT_S)
    assert committer.submit(a_frame([a_row()])).result(WAIT_S) == [Outcome.ACCEPTED]


@pytest.mark.parametrize(
    "broken",
    [
        pl.DataFrame({"identity": [b"x" * 16]}),
        a_frame([a_row(identity=b"short")]),
        a_frame([a_row(event_id="nul \0")]),
        a_frame([a_row(series=999_999)]),
    ],
    ids=["another schema", "short identity", "text that PostgreSQL refuses", "unknown series"],
)
def test_a_fault_stays_with_the_frame_that_has_it(gated, book, broken):
    ledger, committer = gated
    block = committer.submit(a_frame([a_row()]))
    while not ledger.writes:
        time.sleep(0.001)
    good = [committer.submit(a_frame([a_row()])) for _ in range(2)]
    bad = committer.submit(broken)
    good.append(committer.submit(a_frame([a_row()])))
    ledger.gate.set()
    with pytest.raises(Exception) as fault:  # noqa: PT011 - whatever it is, the caller learns of it
        bad.result(WAIT_S)
    assert not isinstance(fault.value, TimeoutError | Unavailable)
    assert [answer.result(WAIT_S) for answer in (block, *good)] == [[Outcome.ACCEPTED]] * 4
    result = book.verify()
    assert (result.clean, result.rows) == (True, 4)


def test_a_caller_that_gives_up_harms_nobody(gated, book):
    ledger, committer = gated
    block = committer.submit(a_frame([a_row()]))
    given_up = [committer.submit(a_frame([a_row()])) for _ in range(5)]
    for answer in given_up:
        answer.cancel()
    ledger.gate.set()
    assert block.result(WAIT_S) == [Outcome.ACCEPTED]
    assert committer.submit(a_frame([a_row()])).result(WAIT_S) == [Outcome.ACCEPTED]

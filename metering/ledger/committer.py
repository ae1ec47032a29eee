"""Group commit: concurrent callers share one transaction.

Two threads, so that one group is encoded while PostgreSQL writes the one before. What waits is bounded: when the
database is slow callers are told to come back, and memory stays as it is.
"""

import queue
import sys
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

import polars as pl

from metering.errors import JaugeError, Unavailable
from metering.ledger.append import Ledger, Outcome, Prepared, prepare
from metering.metrics import BATCH_ROWS, BATCH_SECONDS

SWITCH_S = 0.0005
"""How long a thread that computes keeps the others waiting. The writer comes back from PostgreSQL some ten times a
batch; at Python's 5 ms it would wait longer for its turn each time than for the answer."""

AHEAD_EVENTS_MIN = 10_000
"""Events that must wait before a group is prepared while another is written. A batch costs some milliseconds whatever
its size, so fewer wait for the writer, and share its next transaction with those that come meanwhile."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A caller's frame and the answer it waits for."""

    frame: pl.DataFrame
    answer: "Future[list[Outcome]]"


class GroupCommitter:
    """Writes frames of many callers to one ledger, in groups."""

    def __init__(self, ledger: Ledger, *, queue_events_max: int, group_events_max: int) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._ledger = ledger
        self._queue_events_max = queue_events_max
        self._group_events_max = group_events_max
        self._waiting: deque[Submission] = deque()
        self._waiting_events = 0
        self._under_way = 0
        self._closed = False
        self._changed = threading.Condition()
        self._ready: queue.Queue[tuple[list[Submission], Prepared] | None] = queue.Queue(maxsize=1)
        self._threads = [
            threading.Thread(target=self._prepare_groups, name="ledger-prepare", daemon=True),
            threading.Thread(target=self._write_groups, name="ledger-write", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_events(self) -> int:
        """Events that wait for a transaction."""
        return self._waiting_events

    def submit(self, frame: pl.DataFrame) -> "Future[list[Outcome]]":
        """Queue a frame; the future holds each row's outcome once it is durable, or Unavailable.

        Raises: Unavailable if too much waits already.
        """
        submission = Submission(frame, Future())
        with self._changed:
            if self._closed:
                raise Unavailable("stopping", "The service is stopping.", retry_after_s=5)
            if self._waiting and self._waiting_events + frame.height > self._queue_events_max:
                raise Unavailable("intake_busy", "Too many events wait for the ledger.", retry_after_s=1)
            self._waiting.append(submission)
            self._waiting_events += frame.height
            self._changed.notify()
        return submission.answer

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        for thread in self._threads:
            thread.join()

    def _prepare_groups(self) -> None:
        while group := self._next_group():
            try:
                self._hand_over(group, prepare(pl.concat([submission.frame for submission in group])))
            except Exception as error:  # a fault of ours must reach the callers, not end the thread
                self._prepare_alone(group, error)
        self._ready.put(None)

    def _prepare_alone(self, group: list[Submission], error: Exception) -> None:
        """One frame broke its group: prepare each alone, so that the fault stays with the frame that has it."""
        if len(group) == 1:
            _fail(group, error)
            return
        for submission in group:
            try:
                self._hand_over([submission], prepare(submission.frame))
            except Exception as own_error:
                _fail([submission], own_error)

    def _hand_over(self, group: list[Submission], prepared: Prepared) -> None:
        with self._changed:
            self._under_way += 1
        self._ready.put((group, prepared))

    def _is_due(self) -> bool:
        """Whether a group should be prepared now: the writer has nothing, or enough waits to prepare it ahead."""
        ahead = self._under_way == 1 and self._waiting_events >= AHEAD_EVENTS_MIN
        return self._closed or (bool(self._waiting) and (self._under_way == 0 or ahead))

    def _next_group(self) -> list[Submission]:
        """The oldest submissions, up to a group's size; empty once closed and drained."""
        with self._changed:
            self._changed.wait_for(self._is_due)
            group: list[Submission] = []
            events = 0
            while self._waiting and (not group or events + self._waiting[0].frame.height <= self._group_events_max):
                group.append(self._waiting.popleft())
                group[-1].answer.set_running_or_notify_cancel()  # from now on nobody can cancel it
                events += group[-1].frame.height
            self._waiting_events -= events
            return group

    def _write_groups(self) -> None:
        while (ready := self._ready.get()) is not None:
            group, prepared = ready
            try:
                with BATCH_SECONDS.time():
                    outcomes = self._ledger.write(prepared)
            except JaugeError as error:
                _fail(group, error)
            except Exception as error:
                self._write_alone(group, error)
            else:
                BATCH_ROWS.observe(len(outcomes))
                _answer(group, outcomes)
            with self._changed:
                self._under_way -= 1
                self._changed.notify()

    def _write_alone(self, group: list[Submission], error: Exception) -> None:
        """One frame broke its group: write each alone, so that the fault stays with the frame that has it."""
        if len(group) == 1:
            _fail(group, error)
            return
        for submission in group:
            try:
                outcomes = self._ledger.append(submission.frame)
            except Exception as own_error:
                _fail([submission], own_error)
            else:
                _answer([submission], outcomes)


def _answer(group: list[Submission], outcomes: list[Outcome]) -> None:
    start = 0
    for submission in group:
        end = start + submission.frame.height
        if not submission.answer.cancelled():
            submission.answer.set_result(outcomes[start:end])
        start = end


def _fail(group: list[Submission], error: Exception) -> None:
    for submission in group:
        if not submission.answer.cancelled():
            submission.answer.set_exception(error)

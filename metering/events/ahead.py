"""Calls to the intake that overlap: the next are checked while the ledger writes those before."""

import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from metering.errors import Unavailable
from metering.events.decoding import Decoded
from metering.events.intake import Intake, IntakeAnswer, Pending
from metering.events.quarantine import Channel

T = TypeVar("T")
Tag = TypeVar("Tag")

RETRY_S_MAX = 5

log = structlog.get_logger(__name__)


class CallsAhead(Generic[Tag]):
    """Calls that are begun and not finished, at most `calls_max`; `answered` is told each tag and answer, in order.

    patience_s: how long one call waits for a ledger that is away, before Unavailable is raised. A call is offered
    again then, which is safe: what is written already counts as duplicate.
    """

    def __init__(
        self,
        intake: Intake,
        channel: Channel,
        answered: Callable[[Tag, IntakeAnswer], None],
        *,
        calls_max: int,
        patience_s: float = 0,
    ) -> None:
        self._intake = intake
        self._channel = channel
        self._answered = answered
        self._calls_max = calls_max
        self._patience_s = patience_s
        self._begun: deque[tuple[Tag, Pending]] = deque()

    def offer(self, tag: Tag, decoded: Decoded) -> None:
        """Begin a call, finishing older ones first where they must make room. Raises: Unavailable."""
        pending = self._patiently(lambda: self._begin(decoded))
        self._begun.append((tag, pending))
        if len(self._begun) > self._calls_max:
            self._finish_oldest()

    def finish(self) -> None:
        """Finish every call. Raises: Unavailable."""
        while self._begun:
            self._finish_oldest()

    def _begin(self, decoded: Decoded) -> Pending:
        """A queue that is full of our own calls empties as they finish."""
        while True:
            try:
                return self._intake.begin(decoded, self._channel)
            except Unavailable:
                if not self._begun:
                    raise
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        tag, pending = self._begun.popleft()
        try:
            answer = self._intake.finish(pending)
        except Unavailable:
            if not self._patience_s:
                raise
            answer = self._patiently(lambda: self._intake.take(pending.decoded, self._channel))
        self._answered(tag, answer)

    def _patiently(self, act: Callable[[], T]) -> T:
        patient_until = time.monotonic() + self._patience_s
        while True:
            try:
                return act()
            except Unavailable as error:
                if time.monotonic() >= patient_until:
                    raise
                log.warning("ledger_unavailable", code=error.code)
                time.sleep(min(error.retry_after_s or 1, RETRY_S_MAX))

"""What is spooled goes to the ledger, in batches, from a thread of its own."""

import logging
import random
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from metering.client.protocol import Answer, Call, Carrier
from metering.client.spool import Rejection, Spool

SEND_S_MAX = 30.0
"""How long an answer is waited for: the ledger answers when the events are on its disk."""

LINGER_S = 0.05
"""Events that come within this time travel together."""

ADOPT_S = 5.0
"""How often the folder is looked through for what other processes have left."""

BACKOFF_S = (0.25, 30.0)
"""First and longest pause while nobody answers; Jauge itself may ask for up to the longest."""

EVENTS, RESOLVE = "/v1/events", "/v1/gateway/resolve"

log = logging.getLogger(__name__)


class _Result(msgspec.Struct):
    index: int
    status: str
    code: str | None = None
    field: str | None = None


class _Results(msgspec.Struct):
    events: list[_Result]


class Unattributed(msgspec.Struct):
    """An event of which only the key is known: whose it is, is asked before it is sent."""

    key_sha256: str
    event: dict[str, Any]


class _Later(Exception):
    """Not now: Jauge is away, or doesn't take the token."""

    def __init__(self, why: str, retry_after_s: int | None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Sender:
    """Sends a spool's events until it is closed. A batch that isn't answered is sent again, unchanged."""

    def __init__(self, spool: Spool, carrier: Carrier) -> None:
        self._spool = spool
        self._carrier = carrier
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._pause_s = 0.0
        self._thread = threading.Thread(target=self._run, name="jauge-sender", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something to send."""
        self._woken.set()

    def close(self, patience_s: float) -> None:
        """Send what waits, if that is possible within this time; the rest is left to the next process."""
        self._stopped.set()
        self._woken.set()
        self._thread.join(patience_s)
        if not self._thread.is_alive():
            self._carrier.close()
            self._spool.close()

    def _run(self) -> None:
        while True:
            is_last = self._stopped.is_set()
            pause_s = self._round()
            if is_last:
                return
            if pause_s:
                self._stopped.wait(pause_s)
            elif self._woken.wait(ADOPT_S):
                self._stopped.wait(LINGER_S)
                self._woken.clear()

    def _round(self) -> float:
        """Send all that waits. Returns how long to leave Jauge alone, in seconds: 0 if all is sent."""
        try:
            self._spool.adopt()
            while (batch := self._spool.oldest()) is not None:
                self._spool.answered(batch, self._delivered(batch.lines))
                self._pause_s = 0.0
        except _Later as later:
            first_s, longest_s = BACKOFF_S
            self._pause_s = min(self._pause_s * 2 or first_s, longest_s)
            log.warning("usage events wait: %s", later)
            jittered_s = self._pause_s * (0.5 + random.random() / 2)  # noqa: S311 - to spread senders
            return max(jittered_s, min(later.retry_after_s or 0, longest_s))
        except OSError as error:
            log.error("usage events wait: the spool can't be read or written (%s)", error.strerror)
            return BACKOFF_S[1]
        return 0.0

    def _delivered(self, lines: Sequence[bytes]) -> list[Rejection]:
        """Send events; what was refused of them. Raises: _Later."""
        sent: list[bytes] = []
        rejected: list[Rejection] = []
        owners: dict[tuple[str, str], Answer] = {}
        for line in lines:
            event = self._attributed(line, owners) if line.startswith(b'{"key_sha256"') else line
            if isinstance(event, Rejection):
                rejected.append(event)
            else:
                sent.append(event)
        rejected += self._sent(sent) if sent else []
        for one in rejected:
            log.error("usage event refused: %s %s", one.code, one.field or "")
        return rejected

    def _attributed(self, line: bytes, owners: dict[tuple[str, str], Answer]) -> bytes | Rejection:
        """An event with whose it is, as the key tells. owners: answers so far, by key and model. Raises: _Later."""
        try:
            waiting = msgspec.json.decode(line, type=Unattributed)
            data = waiting.event["data"]
            asked = (waiting.key_sha256, data["model_requested"])
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
            return _rejection("malformed_json", None, line)
        if asked not in owners:
            question = {"key_sha256": asked[0], "model": asked[1]}
            owners[asked] = self._carrier.post(Call(RESOLVE, question, SEND_S_MAX))
        answer = owners[asked]
        if answer.is_away:
            raise _Later(answer.code, answer.retry_after_s)
        if answer.status != 200:
            return _rejection(answer.code, "key_sha256", line)
        known = {name: answer.body.get(name) for name in ("tenant", "project", "user", "api_key", "category")}
        data |= {name: value for name, value in known.items() if value is not None}
        return msgspec.json.encode(waiting.event)

    def _sent(self, lines: Sequence[bytes]) -> list[Rejection]:
        """Send lines as one call; halves of it if it is refused as a whole. Raises: _Later."""
        answer = self._carrier.post(Call(EVENTS, b"\n".join(lines), SEND_S_MAX))
        if answer.is_away:
            raise _Later(answer.code, answer.retry_after_s)
        if answer.status in {200, 207}:
            return _refused(answer, lines)
        if answer.status not in {400, 413, 422}:
            raise _Later(answer.code, answer.retry_after_s)
        if len(lines) == 1:
            return [_rejection(answer.code, None, lines[0])]
        half = len(lines) // 2
        return self._sent(lines[:half]) + self._sent(lines[half:])


def _refused(answer: Answer, lines: Sequence[bytes]) -> list[Rejection]:
    """What the ledger didn't take. Raises: _Later if the answer isn't the ledger's."""
    try:
        results = msgspec.convert(answer.body, _Results).events
    except msgspec.ValidationError:
        results = []
    if [result.index for result in results] != list(range(len(lines))):
        raise _Later("the answer isn't the ledger's", None)
    return [
        _rejection(result.code or result.status, result.field, lines[result.index])
        for result in results
        if result.status not in {"accepted", "duplicate"}
    ]


def _rejection(code: str, field: str | None, line: bytes) -> Rejection:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        line = msgspec.json.encode(line.decode(errors="replace"))
    return Rejection(code, field, msgspec.Raw(line))

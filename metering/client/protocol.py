"""Calls to Jauge and its answers, as values: the same for a gateway that waits and one that doesn't.

A flow is a generator that yields calls and is sent their answers. What flows decide is written once; only who carries
a call differs (`Carrier`, `AsyncCarrier`).
"""

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

T = TypeVar("T")

NOT_OF_THE_REQUEST = frozenset({"missing_token", "invalid_token", "wrong_role", "not_found", "method_not_allowed"})
"""Errors of the gateway's own token or address: its clients can't help it, so Jauge counts as away."""

PASSED_ON = ("Retry-After", "Deprecation", "Sunset", "Link")
"""Headers of an error that the gateway's client should see."""


@dataclass(frozen=True, slots=True)
class Call:
    """A POST: JSON of `body`, or lines of events as they are. tries: how often it may be made if nobody answers."""

    path: str
    body: Mapping[str, Any] | bytes
    timeout_s: float
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; status 0 if nothing did."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """Code of an error, for programs."""
        return str(self.body.get("code") or ("no_answer" if self.status == 0 else f"http_{self.status}"))

    @property
    def is_away(self) -> bool:
        """Whether Jauge said nothing of the request itself, be it for the gateway's own fault."""
        if self.status in {200, 207} or "allowed" in self.body:
            return False
        return (
            self.status in {408, 429} or self.status >= 500 or self.body.get("code", "not_found") in NOT_OF_THE_REQUEST
        )

    @property
    def retry_after_s(self) -> int | None:
        """When to come again, if it says so."""
        text = self.headers.get("retry-after", "")
        return int(text) if text.isdecimal() else None


NO_ANSWER = Answer(0)
Flow = Generator[Call, Answer, T]


class Carrier(Protocol):
    """Who brings calls to Jauge and answers back, for code that doesn't await."""

    def post(self, call: Call) -> Answer:
        """Make a call; NO_ANSWER where nobody answers."""

    def close(self) -> None:
        """Leave no connection open."""


class AsyncCarrier(Protocol):
    """Who brings calls to Jauge and answers back, for code that awaits."""

    async def post(self, call: Call) -> Answer:
        """Make a call; NO_ANSWER where nobody answers."""

    async def aclose(self) -> None:
        """Leave no connection open."""


class Estimated(msgspec.Struct, frozen=True):
    """What a request costs (nEUR, without tax) and emits (µg CO2e, with bounds), about; None is unknown.

    Indicative: what is owed and what was emitted is known later.
    """

    cost_neur: int | None = None
    carbon_ugco2e: int | None = None
    carbon_lower_ugco2e: int | None = None
    carbon_upper_ugco2e: int | None = None


class Refused(Exception):
    """A request that may not run: what the gateway answers its client.

    status: of HTTP; code: for programs; headers: to pass on; limits: where each stands, as Jauge tells it (empty unless
    it was a limit that refused); retry_after_s: when there may be room, if known.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.status = answer.status
        self.code = answer.code
        passed_on = {name: answer.headers[name.lower()] for name in PASSED_ON if name.lower() in answer.headers}
        self.headers: dict[str, str] = passed_on | dict(answer.body.get("headers", {}))
        self.limits: list[dict[str, Any]] = list(answer.body.get("limits", ()))
        self.retry_after_s = answer.retry_after_s


class SpoolFull(Refused):
    """A request that may not run because its use could not be kept: too many events wait for the ledger."""


def refusal(status: int, code: str, retry_after_s: int | None = None) -> Answer:
    """A refusal of the client's own."""
    return Answer(status, {"code": code}, {} if retry_after_s is None else {"retry-after": str(retry_after_s)})


def run(flow: Flow[T], perform: Callable[[Call], Answer]) -> T:
    """Carry out a flow's calls; what it returns."""
    try:
        call = next(flow)
        while True:
            call = flow.send(perform(call))
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()


async def run_async(flow: Flow[T], perform: Callable[[Call], Awaitable[Answer]]) -> T:
    """Carry out a flow's calls; what it returns."""
    try:
        call = next(flow)
        while True:
            call = flow.send(await perform(call))
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()


def begun(flow: Flow[T]) -> Flow[T]:
    """A flow that has done what comes before its first call, whatever happens to the rest."""
    try:
        call = next(flow)
    except StopIteration as stop:
        return _ended(stop.value)
    return _going_on(flow, call)


def _ended(value: T) -> Flow[T]:
    yield from ()
    return value


def _going_on(flow: Flow[T], call: Call) -> Flow[T]:
    try:
        while True:
            call = flow.send((yield call))
    except StopIteration as stop:
        value: T = stop.value
        return value

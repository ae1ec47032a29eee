"""A request under way: what it may use is held before, and what it used is told after.

Everything is decided here, as flows of calls; `clients` carries them out.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, TypedDict, TypeVar
from uuid import uuid4

import msgspec

from metering.client.protocol import Answer, Call, Estimated, Flow, Refused, SpoolFull, refusal
from metering.client.sending import Unattributed
from metering.client.spool import NoRoom, Spool
from metering.events.envelope import (
    PEOPLE,
    CountSource,
    UsageData,
    UsageEvent,
    is_address,
    is_name,
    is_source,
    names_of,
)
from metering.events.providers import Provider, UnusableUsage, normalise_usage
from metering.rules.quantities import QUANTITIES, SUBSETS, Operation, Status, subset_violation

AWAY_RETRY_S = 5
"""When a client may come again while Jauge is away."""

BEATS = 3
"""Signs of life within a hold's time, so that one of them may get lost."""

S = TypeVar("S", bound=msgspec.Struct)

log = logging.getLogger(__name__)

_IDENTITY = ("tenant", "project", "user", "api_key")
_ESTIMATES = (
    "prompt_tokens", "prompt_bytes", "max_output_tokens", "min_output_tokens", "audio_ms", "inputs", "pages",
    "searches",
)  # fmt: skip
_ABOUT = ("application", "endpoint", "deployment", "parent", "attempt", "queue_ms", "streamed")
_COMMITTED = ("input_tokens", "output_tokens", "audio_ms", "embedding_inputs", "pages", "searches")
_STREAMED = frozenset(QUANTITIES) - SUBSETS.keys() - {"requests"}
_NAMES = names_of(UsageData)


class _Asked(TypedDict):
    model: str


class Asked(_Asked, total=False):
    """Who asks for what, by the SHA-256 of an API key or by names; what is expected; what the event says besides.

    `prompt_bytes` stands for `prompt_tokens` where those aren't counted; what isn't known is left out.
    """

    key_sha256: str | None
    tenant: str | None
    project: str | None
    user: str | None
    api_key: str | None
    operation: Operation
    batch: bool
    prompt_tokens: int
    prompt_bytes: int
    max_output_tokens: int
    min_output_tokens: int
    audio_ms: int
    inputs: int
    pages: int
    searches: int
    application: str | None
    endpoint: str | None
    deployment: str | None
    parent: str | None
    attempt: int | None
    queue_ms: int | None
    streamed: bool


class Outcome(TypedDict, total=False):
    """How a request ended; ok unless it is stated. deployment: the replica that answered, once that is known."""

    status: Status
    deployment: str | None
    http_status: int | None
    finish_reason: str | None
    error_code: str | None
    count_source: CountSource | None


Usage = Mapping[str, Any]
"""Quantities by name, or a provider's usage object."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What all holds of a client share. told: called when an event is spooled."""

    source: str
    spool: Spool
    on_outage: Literal["allow", "refuse"]
    ttl_s: int
    timeout_s: float
    told: Callable[[], None]


class _Granted(msgspec.Struct):
    max_output_tokens: int


class _Extended(msgspec.Struct):
    granted: _Granted


class _Known(msgspec.Struct, kw_only=True):
    """What every decision tells of a request."""

    tenant: str
    project: str | None = None
    user: str | None = None
    api_key: str | None = None
    model: str | None = None
    category: str | None = None


class _Held(_Known, kw_only=True):
    granted: _Granted
    headers: dict[str, str] = {}
    limits: list[dict[str, Any]] = []
    estimated: Estimated | None = None


class _Settled(msgspec.Struct):
    estimated: Estimated | None = None


class HoldState:
    """One request, from its hold to its event.

    reservation: its id, also of its event. granted_output_tokens: what the gateway sets upstream as the most. headers:
    for the gateway to pass on. limits: where each stands. estimated: the most that it may cost and emit, and after its
    commit what it did; None where Jauge hasn't said. is_held: False where Jauge was away and it runs all the same.
    """

    def __init__(self, desk: Desk, asked: Asked) -> None:
        self.reservation = uuid4().hex
        self.granted_output_tokens = 0
        self.headers: dict[str, str] = {}
        self.limits: list[dict[str, Any]] = []
        self.estimated: Estimated | None = None
        self.is_held = False
        self._desk = desk
        self._asked: dict[str, Any] = {"operation": "chat", "batch": False, **asked}
        if unknown := self._asked.keys() - Asked.__annotations__.keys():
            raise TypeError(f"Not known: {', '.join(sorted(unknown))}")
        names = ("key_sha256", *_IDENTITY)
        self._who = {name: self._asked[name] for name in names if self._asked.get(name) is not None}
        self._about: dict[str, Any] = {}
        self._counted: dict[str, int] = {}
        self._sought_output_tokens = 0
        self._first_token_at: datetime | None = None
        if not self._who.keys() & {"key_sha256", "tenant"}:
            raise TypeError("Whose request is it? A key_sha256 or a tenant is needed.")
        self._is_known = "key_sha256" not in self._who
        self._has_room = False
        self._is_over = False
        self._started_at = datetime.now(UTC)
        self._started_s = self._beaten_s = time.monotonic()

    def add(self, **counted: int) -> None:
        """Count what was streamed since the last time, by quantity: `add(output_tokens=3)`.

        The first call is the first token, unless `first_token` was told.
        """
        for name, count in counted.items():
            if name not in _STREAMED or count < 0:
                raise ValueError(f"{name} can't be counted as it comes, or is below 0")
            self._counted[name] = self._counted.get(name, 0) + count
        if self._first_token_at is None:
            self.first_token()

    def first_token(self) -> None:
        """Say that the answer has begun."""
        self._first_token_at = self._now()
        self._about["streamed"] = True

    def _now(self) -> datetime:
        """Now, by a clock that no correction of the time moves backwards."""
        return self._started_at + timedelta(seconds=time.monotonic() - self._started_s)

    def _opening(self) -> Flow[None]:
        """Hold. Raises: Refused, SpoolFull; ValueError for a name that no event can carry."""
        if not is_name(self._asked["model"]) or len(self._asked["model"]) > 128:
            raise Refused(refusal(404, "unknown_model"))
        self._event({"input_tokens": self._asked.get("prompt_tokens")}, {"status": "ok"})
        try:
            self._desk.spool.keep_room()
        except NoRoom:
            log.error("no request may run: the spool of usage events is full")
            raise SpoolFull(refusal(503, "spool_full", AWAY_RETRY_S)) from None
        self._has_room = True
        try:
            yield from self._asking()
        except BaseException:  # also where the gateway's client leaves meanwhile
            if self._has_room:
                self._desk.spool.give_room()
            raise

    def _asking(self) -> Flow[None]:
        estimates = {name: self._asked[name] for name in _ESTIMATES if name in self._asked}
        body = self._named() | {"ttl_s": self._desk.ttl_s, "estimates": estimates}
        answer = yield Call("/v1/quota/reserve", body | {"batch": self._asked["batch"]}, self._desk.timeout_s, tries=2)
        self._restart_clock()
        if (held := _read(answer, _Held)) is not None:
            self._learn(held)
            self.granted_output_tokens = held.granted.max_output_tokens
            self.headers, self.limits, self.estimated = held.headers, held.limits, held.estimated
            self.is_held = True
        elif answer.is_away or answer.status == 200:
            self._go_without(answer.code)
        else:
            if "allowed" in answer.body:  # a decision on somebody's request; other refusals are about nobody's use
                self._learn(msgspec.convert(answer.body, _Known))
                self._tell_refusal(answer.status, answer.code)
            raise Refused(answer)

    def _restart_clock(self) -> None:
        """A request begins when it is admitted."""
        self._started_at = datetime.now(UTC)
        self._started_s = self._beaten_s = time.monotonic()

    def _learn(self, known: "_Known") -> None:
        """Whose request it is, and which model answers."""
        names = {name: getattr(known, name) for name in _IDENTITY}
        self._who = {name: value for name, value in names.items() if value is not None}
        self._about |= {"model_served": known.model, "category": known.category}
        self._is_known = True

    def _go_without(self, code: str) -> None:
        """Jauge is away: what the gateway has chosen for this."""
        log.warning("jauge is away (%s): %s", code, self._desk.on_outage)
        if self._desk.on_outage == "refuse":
            if self._is_known:  # a key that nobody looked at may be anybody's invention, and must not fill the spool
                self._tell_refusal(503, "quota_unavailable")
            raise Refused(refusal(503, "quota_unavailable", AWAY_RETRY_S))
        self.granted_output_tokens = self._asked.get("max_output_tokens", 0)

    def _tell_refusal(self, status: int, code: str) -> None:
        self._is_over = True
        self._spool(self._event({}, {"status": "refused", "http_status": status, "error_code": code}))

    def _extending(self, more_output_tokens: int) -> Flow[int]:
        """More output, or with 0 a sign of life. What was granted of it. Raises: Refused."""
        self._beaten_s = time.monotonic()
        if not self.is_held:
            self.granted_output_tokens += more_output_tokens
            return more_output_tokens
        before = self.granted_output_tokens
        total = before + more_output_tokens if more_output_tokens else None
        body = self._named() | {"ttl_s": self._desk.ttl_s, "output_tokens_total": total}
        # The same total holds nothing twice, so it may be asked for again.
        answer = yield Call("/v1/quota/extend", body, self._desk.timeout_s, tries=2)
        if (extended := _read(answer, _Extended)) is not None:
            granted = max(extended.granted.max_output_tokens - before, 0)
        elif not answer.is_away:
            raise Refused(answer)
        elif self._desk.on_outage == "refuse":
            raise Refused(refusal(503, "quota_unavailable", AWAY_RETRY_S))
        else:
            granted = more_output_tokens
        self.granted_output_tokens = max(self.granted_output_tokens, before + granted)
        return granted

    def _beating(self) -> Flow[None]:
        """A sign of life; if nobody hears it, the next one may be heard, and what was used is told in the end."""
        if self._is_over:
            return
        try:
            yield from self._extending(0)
        except Refused as refused:
            log.warning("the hold %s isn't kept alive: %s", self.reservation, refused.code)

    @property
    def _beat_s(self) -> float:
        return self._desk.ttl_s / BEATS

    @property
    def _is_beat_due(self) -> bool:
        return self.is_held and time.monotonic() - self._beaten_s > self._beat_s

    @property
    def _is_short(self) -> bool:
        """Whether more output has come than is held, or was asked for meanwhile."""
        come = self._counted.get("output_tokens", 0)
        return self.is_held and come > max(self.granted_output_tokens, self._sought_output_tokens)

    def _catching_up(self) -> Flow[None]:
        """Hold what has come beyond what is held, and as much again as was expected at first.

        Where there is no room, the answer goes on all the same: in the end all of it counts, beyond the limit as well.
        """
        come = self._counted["output_tokens"]
        self._sought_output_tokens = come + self._asked.get("max_output_tokens", 0)
        try:
            yield from self._extending(self._sought_output_tokens - self.granted_output_tokens)
        except Refused as refused:
            log.info("the hold %s isn't extended: %s", self.reservation, refused.code)

    def _telling(self, usage: Usage, provider: Provider | None, outcome: Outcome) -> Flow[None]:
        """Tell what was used. Raises: ValueError for quantities that can't be; SpoolFull if the disk is full."""
        if self._is_over:
            raise ValueError("This request is over: what it used was told.")
        quantities, source = self._quantities(usage, provider)
        about = {"status": "ok", "count_source": source, **outcome}
        for name in ("finish_reason", "error_code"):
            if about.get(name) is not None and not is_name(str(about[name])):
                log.warning("%s isn't a name, and is left out", name)
                about[name] = None
        yield from self._settling(quantities, about)

    def _giving_back(self, outcome: Outcome) -> Flow[None]:
        """Tell that nothing was used. Raises: ValueError if what was used has been told; SpoolFull."""
        if self._is_over:
            raise ValueError("This request is over: what it used was told.")
        yield from self._settling({}, {"status": "error", **outcome}, is_run=False)

    def _quantities(self, usage: Usage, provider: Provider | None) -> tuple[dict[str, int | None], CountSource | None]:
        """Quantities and where they come from. A provider's object that can't be read is what was counted so far."""
        if provider is None and usage.keys() <= set(QUANTITIES):
            return dict(usage), None
        try:
            return normalise_usage(usage, provider=provider), "provider"
        except UnusableUsage as unusable:
            log.warning("a provider's usage can't be read: %s %s", unusable.field, unusable.code)
            return {**self._counted}, "gateway_tokenizer" if self._counted else None

    def _leaving(self, error: BaseException | None) -> Flow[None]:
        """The end of a block whose use wasn't told."""
        if self._is_over:
            return
        if error is None:
            about: dict[str, Any] = {"status": "ok", "count_source": "gateway_tokenizer"}
        else:
            status = "error" if isinstance(error, Exception) else "aborted"
            about = {"status": status, "count_source": "partial_stream"}
        if not any(self._counted.values()):
            yield from self._settling({}, about | {"count_source": None}, is_run=False, is_masked=error is not None)
            return
        quantities: dict[str, int | None] = {**self._counted}
        if (prompt_tokens := self._asked.get("prompt_tokens")) is not None:
            quantities.setdefault("input_tokens", prompt_tokens)
        yield from self._settling(quantities, about, is_masked=error is not None)

    def _settling(
        self, quantities: Mapping[str, int | None], about: Mapping[str, Any], *, is_run: bool = True,
        is_masked: bool = False,
    ) -> Flow[None]:  # fmt: skip
        """Spool the event, then tell the counters, which would learn it from the event all the same.

        is_run: False gives back what is held. is_masked: another error is on its way, and goes first.
        """
        event = self._event(quantities, about)
        self._is_over = True
        lost = self._spool(event)
        if self.is_held:
            path = "/v1/quota/commit" if is_run else "/v1/quota/release"
            body = {"reservation": self.reservation, "tenant": self._who["tenant"]}
            if is_run:
                body = self._named() | {"quantities": {name: quantities.get(name) for name in _COMMITTED}}
            answer = yield Call(path, body, self._desk.timeout_s)
            settled = _read(answer, _Settled)
            self.estimated = None if settled is None else settled.estimated
            if answer.status != 200:
                log.info("the hold %s is left to its event: %s", self.reservation, answer.code)
        if lost is not None and not is_masked:
            raise SpoolFull(refusal(503, "spool_full", AWAY_RETRY_S)) from lost

    def _named(self) -> dict[str, Any]:
        """This request, by names once they are known: its key may be revoked meanwhile."""
        return {
            **self._who, "reservation": self.reservation, "model": self._asked["model"],
            "operation": self._asked["operation"],
        }  # fmt: skip

    def _spool(self, event: bytes) -> OSError | None:
        """Write the event; why it can't be."""
        self._has_room = False
        try:
            self._desk.spool.append(event)
        except OSError as error:
            log.critical("the usage event %s is lost: %s", self.reservation, error.strerror or error)
            return error
        self._desk.told()
        return None

    def _event(self, quantities: Mapping[str, int | None], about: Mapping[str, Any]) -> bytes:
        """The event's line. Raises: ValueError if the ledger couldn't take it."""
        data: dict[str, Any] = {name: self._asked[name] for name in _ABOUT if self._asked.get(name) is not None}
        data |= {"operation": self._asked["operation"], "model_requested": self._asked["model"]}
        names = {name: self._who.get(name) for name in _IDENTITY}
        data |= {**names, **self._about, **about, **quantities, "reservation": self.reservation}
        data |= {"started_at": self._started_at, "first_token_at": self._first_token_at}
        data = {name: value for name, value in data.items() if value is not None}
        event = {
            "specversion": "1.0", "type": "jauge.usage.v1", "source": self._desk.source, "id": self.reservation,
            "time": self._now(), "data": data,
        }  # fmt: skip
        check(event | {"data": {"tenant": "unknown"} | data})
        if self._is_known:
            return msgspec.json.encode(event)
        return msgspec.json.encode(Unattributed(self._who["key_sha256"], event))


def _read(answer: Answer, kind: type[S]) -> S | None:
    """The body of an answer that is Jauge's yes; None for any other."""
    try:
        return msgspec.convert(answer.body, kind) if answer.status == 200 else None
    except msgspec.ValidationError:
        return None


def check(event: Mapping[str, Any]) -> None:
    """Raises ValueError if the ledger would refuse an event for its form."""
    try:
        whole = msgspec.convert(event, UsageEvent)
    except msgspec.ValidationError as error:
        raise ValueError(f"No event can carry this: {error}") from None
    if not is_source(whole.source):
        raise ValueError("source isn't a name")
    for name in _NAMES:
        value = getattr(whole.data, name)
        if value is not None and (fault := _fault_of(name, value)):
            raise ValueError(f"{name} {fault}")
    if violation := subset_violation({name: getattr(whole.data, name) for name in QUANTITIES}):
        raise ValueError(f"{violation[0]} is a part of {violation[1]}")


@lru_cache(maxsize=10_000)
def _fault_of(name: str, value: str) -> str | None:
    """What is wrong with a name of an event; most come again with every request of somebody."""
    if not (is_source if name == "endpoint" else is_name)(value):
        return "isn't a name"
    return "is an internet address" if name in PEOPLE and is_address(value) else None

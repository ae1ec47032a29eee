"""The counters on a clock that tests move, and a desk that asks them as the service does."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from metering.errors import Unavailable
from metering.quotas.building import CounterBuilder, last_batch
from metering.quotas.calls import (
    SCRIPT,
    ClockMoved,
    Lost,
    OtherLimits,
    Place,
    Reply,
    about_of,
    arguments,
    figures_of,
    keys_of,
    limits_argument,
    read_reply,
)
from metering.quotas.places import counted_request, fixed_of, limits_digest, places_of
from metering.quotas.rates import rates_of
from metering.quotas.reservations import BEGINNING, OpenReservation, read_holds
from metering.quotas.store import CounterStore
from metering.rules.counting import Estimate, committed_amounts
from metering.rules.limits import Request
from metering.rules.periods import PARIS
from metering.services import Services

TIME_LINE = "local time = redis.call('TIME')\n"
assert SCRIPT.count(TIME_LINE) == 1
CLOCKED = SCRIPT.replace(TIME_LINE, "local time = {ARGV[3], ARGV[4]}\n")
CLOCKED_SHA = hashlib.sha1(CLOCKED.encode()).hexdigest()

LOOK = Estimate(prompt_tokens=0, max_output_tokens=0)


class ClockedStore(CounterStore):
    """The store, whose script is told the time."""

    def __init__(self, client: redis.Redis, now: datetime) -> None:
        super().__init__(client)
        self.client = client
        self.set(now)

    def set(self, now: datetime) -> None:
        self.now = now

    def move(self, **by: float) -> None:
        self.set(self.now + timedelta(**by))

    def call(self, tenant: str, operation: str, *given: Any) -> Reply:
        clock = divmod(round(self.now.timestamp() * 1_000_000), 1_000_000)
        command = (3, *keys_of(tenant), *arguments(operation, *given), *clock)
        try:
            answer = self.client.execute_command("EVALSHA", CLOCKED_SHA, *command)
        except redis.exceptions.NoScriptError:
            answer = self.client.execute_command("EVAL", CLOCKED, *command)
        return read_reply(answer)


@dataclass
class Desk:
    """One process that asks the counters of an administration."""

    services: Services
    store: Any
    tenant: str = "dinum"
    epoch: int = 0
    operations: int = 0
    settled: int = 0
    builds: list[bool] = field(default_factory=list)
    """Whether the holds were believed no more, of each building that this desk asked for."""

    def __post_init__(self) -> None:
        self.builder = CounterBuilder(self.services.engine, self.services.catalog, self.store)

    @property
    def now(self) -> datetime:
        return getattr(self.store, "now", None) or datetime.now(UTC)

    def request(self, user: str = "alice", model: str = "small") -> Request:
        snapshot = self.services.catalog.current()
        return counted_request(snapshot, Request(self.tenant, user=user, model=model, operation="chat"), self.now)

    def call(self, operation: str, *given: Any, request: Request | None = None, estimate: Estimate | None = None,
             output_only: bool = False, last: Sequence[Any] = ()) -> tuple[Reply, list[Place]]:  # fmt: skip
        at = self.now
        for _attempt in range(5):
            snapshot = self.services.catalog.current()
            seen = (self.epoch, self.operations, limits_digest(snapshot, self.tenant, at))
            places = [] if request is None else places_of(snapshot, request, at)
            places = [place for place in places if place.per_output or not output_only]
            limits: list[Any] = [] if request is None else [limits_argument(places)]
            if request is not None and estimate is not None:
                rates = rates_of(snapshot, request, at.astimezone(PARIS).date())
                limits.append(fixed_of(places, estimate, request.operation, rates))
            try:
                reply = self.store.call(self.tenant, operation, seen, *given, *limits, *last)
            except (Lost, OtherLimits) as trouble:
                self.builds.append(isinstance(trouble, Lost))
                self.builder.build(self.tenant, seen, at, is_reset=isinstance(trouble, Lost))
            except ClockMoved as moved:
                at = moved.now
            else:
                fresh = reply.epoch > self.epoch
                self.epoch, self.operations = (
                    reply.epoch,
                    reply.operations if fresh else max(self.operations, reply.operations),
                )
                return reply, places
        raise Unavailable("counters_unavailable", "Never built.")

    def reserve(self, reservation: str, prompt: int = 1, output: int = 0, *, user: str = "alice", model: str = "small",
                ttl_s: int = 60, is_dry: bool = False) -> tuple[Reply, list]:  # fmt: skip
        estimate = Estimate(prompt_tokens=prompt, max_output_tokens=output)
        digest = f"{user} {model} {prompt} {output} {ttl_s}"
        request = self.request(user, model)
        reply, places = self.call(
            "reserve", reservation, digest, ttl_s * 1000, output, estimate.least_output_tokens, is_dry, False,
            request=request, estimate=estimate, last=[about_of(request)],
        )  # fmt: skip
        return reply, figures_of(reply, places) if reply.figures else []

    def extend(
        self, reservation: str, total: int, *, user: str = "alice", model: str = "small", ttl_s: int = 60
    ) -> Reply:
        return self.call(
            "extend", reservation, ttl_s * 1000, total, request=self.request(user, model), output_only=True
        )[0]

    def commit(self, reservation: str, *, user: str = "alice", model: str = "small", **used: int | None) -> Reply:
        request = self.request(user, model)
        rates = rates_of(self.services.catalog.current(), request, self.now.astimezone(PARIS).date())
        amounts = committed_amounts(used, "chat", rates)
        return self.call("commit", reservation, amounts, request=request)[0]

    def release(self, reservation: str) -> Reply:
        return self.call("release", reservation)[0]

    def open_holds(self, some: int = 2) -> list[OpenReservation]:
        """All that are open, in looks at some of them."""
        found, position, has_more = [], BEGINNING, 1
        while has_more:
            reply = self.call("holds", *position, some)[0]
            holds, position = read_holds(reply)
            found += holds
            has_more = reply.granted
        return found

    def settle(self, after: int | None = None) -> None:
        """Everything that the ledger has, from the last batch on or an older one."""
        with self.services.engine.connect() as connection:
            last = last_batch(connection)
        at = self.settled if after is None else after
        while at < last:
            at = self.builder.settle(at, self.now)
        self.settled = last

    def standing(self, user: str = "alice", model: str = "small") -> dict[str, tuple[int, int]]:
        """`meter/window` and scope to used and held, as a dry run tells them."""
        _reply, figures = self.reserve("", 0, user=user, model=model, is_dry=True)
        return {f"{it.limit.scope} {it.limit.meter}/{it.limit.window}": (it.used, it.held) for it in figures}

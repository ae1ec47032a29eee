"""The counters on a clock that tests move, and a desk that asks them as the service does."""

import hashlib
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
    arguments,
    figures_of,
    keys_of,
    limits_argument,
    read_reply,
)
from metering.quotas.places import NOTHING, counted_request, limits_digest, places_of
from metering.quotas.store import CounterStore
from metering.rules.counting import METER_NUMBER, Estimate, used_amounts
from metering.rules.limits import Request
from metering.services import Services

CLOCK_KEY = "test:clock"
TIME_LINE = "local time = redis.call('TIME')\n"
assert SCRIPT.count(TIME_LINE) == 1
CLOCKED = SCRIPT.replace(TIME_LINE, f"local time = redis.call('LRANGE', '{CLOCK_KEY}', 0, 1)\n")
CLOCKED_SHA = hashlib.sha1(CLOCKED.encode()).hexdigest()

LOOK = Estimate(prompt_tokens=0, max_output_tokens=0)


class ClockedStore(CounterStore):
    """The store, whose script reads the time from a key."""

    def __init__(self, client: redis.Redis, now: datetime) -> None:
        super().__init__(client)
        self.client = client
        self.set(now)

    def set(self, now: datetime) -> None:
        self.now = now
        micros = round(now.timestamp() * 1_000_000)
        with self.client.pipeline() as pipeline:
            pipeline.delete(CLOCK_KEY).rpush(CLOCK_KEY, micros // 1_000_000, micros % 1_000_000).execute()

    def move(self, **by: float) -> None:
        self.set(self.now + timedelta(**by))

    def call(self, tenant: str, operation: str, *given: Any) -> Reply:
        command = (3, *keys_of(tenant), *arguments(operation, *given))
        try:
            answer = self._execute("EVALSHA", CLOCKED_SHA, *command)
        except redis.exceptions.NoScriptError:
            answer = self._execute("EVAL", CLOCKED, *command)
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

    def call(self, operation: str, *given: Any, request: Request | None = None, estimate: Estimate = NOTHING,
             output_only: bool = False) -> tuple[Reply, list[Place]]:  # fmt: skip
        at = self.now
        for _attempt in range(5):
            snapshot = self.services.catalog.current()
            seen = (self.epoch, self.operations, limits_digest(snapshot, self.tenant, at))
            places = [] if request is None else places_of(snapshot, request, at, estimate)
            places = [place for place in places if place.per_output or not output_only]
            limits = [] if request is None else [limits_argument(places, METER_NUMBER)]
            try:
                reply = self.store.call(self.tenant, operation, seen, *given, *limits)
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
        reply, places = self.call(
            "reserve", reservation, digest, ttl_s * 1000, output, estimate.least_output_tokens, is_dry,
            request=self.request(user, model), estimate=estimate,
        )  # fmt: skip
        return reply, figures_of(reply, places) if reply.figures else []

    def extend(
        self, reservation: str, more: int, *, user: str = "alice", model: str = "small", ttl_s: int = 60
    ) -> Reply:
        estimate = Estimate(prompt_tokens=0, max_output_tokens=more)
        return self.call(
            "extend", reservation, ttl_s * 1000, more, request=self.request(user, model), estimate=estimate,
            output_only=True,
        )[0]  # fmt: skip

    def commit(self, reservation: str, *, user: str = "alice", model: str = "small", **used: int | None) -> Reply:
        amounts = used_amounts({"requests": 1, **used}, "chat")
        return self.call("commit", reservation, amounts, request=self.request(user, model))[0]

    def release(self, reservation: str) -> Reply:
        return self.call("release", reservation)[0]

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

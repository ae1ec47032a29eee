"""May this request run: one question to the catalogue in memory and one call to the counters."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import anyio.to_thread
import msgspec
import structlog
import xxhash

from metering.catalog.conventions import TermsOfUse, terms_of_use
from metering.catalog.documents import Retirement, Tier
from metering.catalog.models import Resolution, resolve
from metering.catalog.snapshot import CatalogReader, Snapshot
from metering.errors import Conflict, NotFound, Unavailable
from metering.quotas.building import CounterBuilder
from metering.quotas.calls import ClockMoved, Figure, Lost, OtherLimits, Place, Reply, Seen, figures_of, limits_argument
from metering.quotas.places import NOTHING, counted_request, limits_digest, places_of
from metering.quotas.store import AsyncCounterStore
from metering.rules.counting import METER_NUMBER, Estimate, used_amounts
from metering.rules.limits import Request

TTL_S_MAX = 3_600
"""Longest life of a hold without a sign of life."""

ATTEMPTS = 4
"""Calls that meet lost counters, other limits or another clock are made again, so often at most."""

AWAY_RETRY_S = 5

LOCAL_S_MAX = 60
LOCAL_REQUESTS_MAX = 20
"""While the store is away an administration on the outage policy `local` may make so many requests, for so long."""

SHED: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "batch": frozenset({"batch"}),
    "free": frozenset({"batch", "free"}),
    "soft": frozenset({"batch", "free", "soft"}),
    "guaranteed": frozenset({"batch", "free", "soft", "guaranteed"}),
}
"""Overload level to what is shed."""

SHED_RETRY_S = (10, 30)
"""Shed callers come back within this span, and not all at once."""

log = structlog.get_logger(__name__)

Reason = Literal["within_limits", "limit_reached", "forbidden", "shed", "store_away", "store_away_unlimited"]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that a gateway is about to run; the names are those of the catalogue."""

    reservation: str
    request: Request
    ttl_s: int
    estimate: Estimate = NOTHING
    is_batch: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it may run. granted_output_tokens: what the gateway sets upstream as the most.

    figures: where each limit stands, with what is held for this request. retry_after_s: when there may be room.
    """

    is_allowed: bool
    reason: Reason
    tier: Tier
    granted_output_tokens: int = 0
    figures: Sequence[Figure] = ()
    retry_after_s: int | None = None
    resolution: Resolution | None = None
    now: datetime | None = None

    @property
    def retirement(self) -> Retirement | None:
        """The end of what was asked for, if it is announced."""
        return None if self.resolution is None else self.resolution.retirement


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of a hold.

    status: ok; late: its time was over; unknown: no such hold, counted all the same; closed: it was released before,
    and nothing changes.
    """

    status: str


@dataclass(slots=True)
class _Known:
    """What this process knows of an administration's counters."""

    epoch: int = 0
    operations: int = 0
    building: asyncio.Lock = field(default_factory=asyncio.Lock)
    away_since: float | None = None
    local_requests: int = 0
    doubtful_until: float = 0.0

    def learn(self, reply: Reply) -> None:
        """Remember the newest state seen: an older one is then a loss."""
        if reply.epoch > self.epoch:
            self.epoch, self.operations = reply.epoch, reply.operations
        elif reply.epoch == self.epoch:
            self.operations = max(self.operations, reply.operations)


Call = Callable[[Snapshot, Seen, datetime], Awaitable[tuple[Reply, list[Place]]]]


class QuotaService:
    """Asks the counters, builds them when they are lost, and does what each plan says while they are away."""

    def __init__(
        self, catalog: CatalogReader, store: AsyncCounterStore, builder: CounterBuilder,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._catalog = catalog
        self._store = store
        self._builder = builder
        self._now = now
        self._known: dict[str, _Known] = {}

    async def reserve(self, ask: Ask, *, is_dry: bool = False) -> Decision:
        """Hold what a request may use, or say why it may not run.

        Raises: NotFound, Gone, Forbidden for its model; Conflict if the reservation is another request's.
        """
        now, snapshot = self._now(), self._catalog.current()
        tenant = ask.request.tenant
        resolution = resolve(snapshot, ask.request.model or "", tenant=tenant, now=now)
        terms = terms_of_use(snapshot, tenant, now)
        if _is_shed(snapshot, terms.tier, is_batch=ask.is_batch):
            wait_s = random.randint(*SHED_RETRY_S)  # noqa: S311 - to spread callers, not to keep a secret
            return Decision(False, "shed", terms.tier, retry_after_s=wait_s, resolution=resolution)
        request = counted_request(snapshot, ask.request, now)

        async def call(snapshot: Snapshot, seen: Seen, at: datetime) -> tuple[Reply, list[Place]]:
            places = places_of(snapshot, request, at, ask.estimate)
            reply = await self._store.call(
                tenant, "reserve", seen, ask.reservation, digest_of(ask), ask.ttl_s * 1000,
                ask.estimate.max_output_tokens, ask.estimate.least_output_tokens, is_dry,
                limits_argument(places, METER_NUMBER),
            )  # fmt: skip
            return reply, places

        known = self._known.setdefault(tenant, _Known())
        if terms.outage == "closed" and time.monotonic() < known.doubtful_until:
            return Decision(False, "store_away", terms.tier, retry_after_s=30, resolution=resolution)
        try:
            reply, places = await self._call(tenant, now, call)
        except Unavailable:
            return self._while_away(known, terms, ask, resolution)
        known.away_since = None
        if reply.status == "conflict":
            raise Conflict("reservation_conflict", "The reservation is of another request.", field="reservation")
        figures = figures_of(reply, places)
        if reply.status == "ok" and not is_dry:
            figures = [
                replace(figure, held=figure.held + place.fixed + place.per_output * reply.granted)
                for figure, place in zip(figures, places, strict=True)
            ]
        return _decision(reply, figures, terms.tier, resolution)

    async def commit(self, reservation: str, request: Request, quantities: Mapping[str, int | None]) -> Settled:
        """Count what was really used; the event says it again, and for good. Raises: Unavailable."""
        now, snapshot, tenant = self._now(), self._catalog.current(), request.tenant
        counted = counted_request(snapshot, request, now)
        amounts = used_amounts({"requests": 1, **quantities}, request.operation)

        async def call(snapshot: Snapshot, seen: Seen, at: datetime) -> tuple[Reply, list[Place]]:
            places = places_of(snapshot, counted, at)
            limits = limits_argument(places, METER_NUMBER)
            return await self._store.call(tenant, "commit", seen, reservation, amounts, limits), places

        reply, _places = await self._call(tenant, now, call)
        return Settled(reply.status)

    async def extend(self, reservation: str, request: Request, ttl_s: int, more_output_tokens: int) -> Decision:
        """A sign of life of a stream, and more output if there is room for it. Raises: NotFound, Unavailable."""
        now, snapshot, tenant = self._now(), self._catalog.current(), request.tenant
        counted = counted_request(snapshot, request, now)
        estimate = Estimate(prompt_tokens=0, max_output_tokens=more_output_tokens)

        async def call(snapshot: Snapshot, seen: Seen, at: datetime) -> tuple[Reply, list[Place]]:
            places = [place for place in places_of(snapshot, counted, at, estimate) if place.per_output]
            limits = limits_argument(places, METER_NUMBER)
            return await self._store.call(
                tenant, "extend", seen, reservation, ttl_s * 1000, more_output_tokens, limits
            ), places

        reply, places = await self._call(tenant, now, call)
        if reply.status in {"unknown", "closed"}:
            raise NotFound("unknown_reservation", "No such reservation is open.", field="reservation")
        tier = terms_of_use(snapshot, tenant, now).tier
        return _decision(reply, figures_of(reply, places), tier, None)

    async def release(self, tenant: str, reservation: str) -> Settled:
        """Give back what is held of a request that doesn't run. Raises: NotFound, Unavailable."""

        async def call(_snapshot: Snapshot, seen: Seen, _at: datetime) -> tuple[Reply, list[Place]]:
            return await self._store.call(tenant, "release", seen, reservation), []

        reply, _places = await self._call(tenant, self._now(), call)
        if reply.status == "unknown":
            raise NotFound("unknown_reservation", "No such reservation is known.", field="reservation")
        return Settled(reply.status)

    async def close(self) -> None:
        """Close the connection to the store."""
        await self._store.close()

    async def _call(self, tenant: str, now: datetime, call: Call) -> tuple[Reply, list[Place]]:
        """A call on counters that are there, whole and of the limits in force; built first where they aren't."""
        known = self._known.setdefault(tenant, _Known())
        at = now
        for _attempt in range(ATTEMPTS):
            snapshot = self._catalog.current()  # building may have read a newer one
            seen = (known.epoch, known.operations, limits_digest(snapshot, tenant, at))
            try:
                reply, places = await call(snapshot, seen, at)
            except (Lost, OtherLimits) as trouble:
                await self._build(tenant, known, seen, at, is_reset=isinstance(trouble, Lost))
            except ClockMoved as moved:
                at = moved.now
            else:
                known.learn(reply)
                return reply, places
        raise Unavailable("counters_unavailable", "The counters are being built.", retry_after_s=1)

    async def _build(self, tenant: str, known: _Known, seen: Seen, now: datetime, *, is_reset: bool) -> None:
        async with known.building:
            if known.epoch > seen[0]:  # built while this call waited
                return
            if is_reset and seen[0]:
                # Requests may be under way that nobody knows of any more, until their holds would have expired.
                known.doubtful_until = time.monotonic() + TTL_S_MAX
                log.warning("counters_lost", tenant=tenant)
            await anyio.to_thread.run_sync(partial(self._builder.build, tenant, seen, now, is_reset=is_reset))

    def _while_away(self, known: _Known, terms: TermsOfUse, ask: Ask, resolution: Resolution) -> Decision:
        """What the plan or convention says while the store is away: a little, everything, or nothing."""
        now = time.monotonic()
        if known.away_since is None:
            known.away_since, known.local_requests = now, 0
        if terms.outage == "open":
            log.warning("admitted_uncounted", tenant=ask.request.tenant, reservation=ask.reservation)
        elif terms.outage == "local" and now - known.away_since < LOCAL_S_MAX:
            known.local_requests += 1
            if known.local_requests > LOCAL_REQUESTS_MAX:
                return Decision(False, "store_away", terms.tier, retry_after_s=AWAY_RETRY_S, resolution=resolution)
        else:
            return Decision(False, "store_away", terms.tier, retry_after_s=AWAY_RETRY_S, resolution=resolution)
        granted = ask.estimate.max_output_tokens
        return Decision(True, "store_away_unlimited", terms.tier, granted, resolution=resolution)


def digest_of(ask: Ask) -> str:
    """Tells a repeat from another request under the same reservation."""
    return xxhash.xxh3_64_hexdigest(msgspec.msgpack.encode((ask.request, ask.estimate, ask.ttl_s)))


def _is_shed(snapshot: Snapshot, tier: Tier, *, is_batch: bool) -> bool:
    shed = SHED[snapshot.platform.overload]
    return tier in shed or (is_batch and "batch" in shed)


def _decision(reply: Reply, figures: Sequence[Figure], tier: Tier, resolution: Resolution | None) -> Decision:
    if reply.status == "ok":
        return Decision(True, "within_limits", tier, reply.granted, figures, None, resolution, reply.now)
    is_forbidden = any(figure.flag == "forbidden" for figure in figures)
    waits_ms = [figure.wait_ms for figure in figures if figure.flag == "refused"]
    retry_after_s = None if is_forbidden or not all(waits_ms) else -(-max(waits_ms) // 1000)
    reason: Reason = "forbidden" if is_forbidden else "limit_reached"
    return Decision(False, reason, tier, 0, figures, retry_after_s, resolution, reply.now)

"""May this request run: one question to the catalogue in memory and one call to the counters."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import anyio.to_thread
import msgspec
import structlog
import xxhash

from metering.catalog.conventions import TermsOfUse, terms_of_use
from metering.catalog.documents import Retirement, Tier
from metering.catalog.models import Resolution
from metering.catalog.snapshot import CatalogReader, Snapshot
from metering.errors import Conflict, NotFound, Unavailable
from metering.quotas.building import CounterBuilder
from metering.quotas.calls import ClockMoved, Figure, Lost, OtherLimits, Place, Reply, Seen, figures_of, limits_argument
from metering.quotas.estimates import Estimated, estimated_hold, estimated_use
from metering.quotas.places import (
    Met,
    counted_request,
    fallen_back,
    fixed_of,
    limits_digest,
    met_by,
    places_of,
)
from metering.quotas.rates import rates_of
from metering.quotas.reservations import OpenReservation, Position, position_of, read_holds
from metering.quotas.store import AsyncCounterStore, CounterStore
from metering.rules.counting import Estimate, committed_amounts
from metering.rules.limits import Meter, Request, is_envelope
from metering.rules.periods import PARIS

TTL_S_MAX = 3_600
"""Longest life of a hold without a sign of life."""

ATTEMPTS = 4
"""Calls that meet lost counters, other limits or another clock are made again, so often at most."""

AWAY_RETRY_S = 5
CLOSED_RETRY_S = 30

LOCAL_S_MAX = 60
LOCAL_REQUESTS_MAX = 20
"""While the store is away an administration on the outage policy `local` may make so many requests, for so long."""

NOTHING = Estimate()

LOOKED_AT = 500
"""Holds that one call of the script looks at: others wait while it runs."""
LOOKS_MAX = 20
"""Such calls for one page."""

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

Reason = Literal[
    "within_limits", "limit_reached", "forbidden", "shed", "store_away", "store_away_unlimited", "envelope_used_up",
    "unknown_price", "unknown_carbon",
]  # fmt: skip
UNRATED_REASONS: Mapping[Meter, Reason] = {"cost_neur": "unknown_price", "carbon_ugco2e": "unknown_carbon"}


class Ask(NamedTuple):
    """A request that a gateway is about to run; the names are those of the catalogue."""

    reservation: str
    request: Request
    ttl_s: int
    estimate: Estimate = NOTHING
    is_batch: bool = False


class Decision(NamedTuple):
    """Whether it may run. granted_output_tokens: what the gateway sets upstream as the most.

    figures: where each limit stands, with what is held for this request. retry_after_s: when there may be room.
    estimated: what it costs and emits at most, about.
    """

    is_allowed: bool
    reason: Reason
    tier: Tier
    granted_output_tokens: int = 0
    figures: Sequence[Figure] = ()
    retry_after_s: int | None = None
    resolution: Resolution | None = None
    now: datetime | None = None
    estimated: Estimated | None = None

    @property
    def retirement(self) -> Retirement | None:
        """The end of what was asked for, if it is announced."""
        return None if self.resolution is None else self.resolution.retirement


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of a hold.

    status: ok; late: its time was over; unknown: no such hold, counted all the same; closed: it was released before,
    and nothing changes. estimated: what it costs and emits, about.
    """

    status: str
    estimated: Estimated | None = None


@dataclass(slots=True)
class _Known:
    """What this process knows of an administration's counters."""

    epoch: int = 0
    operations: int = 0
    building: asyncio.Lock = field(default_factory=asyncio.Lock)
    away_since: float | None = None
    local_requests: int = 0

    def learn(self, reply: Reply) -> None:
        """Remember the newest state seen: an older one is then a loss."""
        if reply.epoch > self.epoch:
            self.epoch, self.operations = reply.epoch, reply.operations
        elif reply.epoch == self.epoch:
            self.operations = max(self.operations, reply.operations)


T = TypeVar("T")
Call = Callable[[Snapshot, Seen, datetime], Awaitable[tuple[Reply, T]]]
"""A call of the script on what is known of the counters, at an instant; with what its figures are read by."""


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

        Raises: NotFound, Gone, Forbidden for its model, Unprocessable for an operation that the model doesn't offer;
        Conflict if the reservation is another request's.
        """
        now, snapshot = self._now(), self._catalog.current()
        met = met_by(snapshot, ask.request, now)
        if _is_shed(snapshot, met.terms.tier, is_batch=ask.is_batch):
            return _shed(met.terms.tier, met.resolution)
        decision = await self._reserve(ask, met, now, is_dry=is_dry, is_free=False)
        if decision.reason != "envelope_used_up" or not _is_throttled(met.terms):
            return decision
        tier = met.terms.plan.tier  # what is left is what others have for nothing
        if _is_shed(snapshot, tier, is_batch=ask.is_batch):
            return _shed(tier, met.resolution)
        return (await self._reserve(ask, met, now, is_dry=is_dry, is_free=True))._replace(tier=tier)

    async def _reserve(self, ask: Ask, met: Met, now: datetime, *, is_dry: bool, is_free: bool) -> Decision:
        """is_free: as free access has it, whatever the convention allows."""
        tenant, terms, resolution = ask.request.tenant, met.terms, met.resolution
        known = self._known.setdefault(tenant, _Known())
        unrated = None if is_free else met.unrated

        async def call(
            snapshot: Snapshot, seen: Seen, at: datetime
        ) -> tuple[Reply, tuple[Sequence[Place], Sequence[int]]]:
            met = met_by(snapshot, ask.request, at)
            places, limits = met.places, met.limits
            fixed = fixed_of(places, ask.estimate, met.request.operation, met.rates if met.is_rated else None)
            if is_free:
                places = fallen_back(snapshot, met.request, places, at)
                limits = limits_argument(places)
            reply = await self._store.call(
                tenant, "reserve", seen, ask.reservation, digest_of(ask), ask.ttl_s * 1000,
                ask.estimate.max_output_tokens, ask.estimate.least_output_tokens,
                is_dry or unrated is not None, terms.outage == "closed", limits, fixed, met.about,
            )  # fmt: skip
            return reply, (places, fixed)

        try:
            reply, (places, fixed) = await self._call(tenant, now, call)
        except Unavailable:
            return self._while_away(known, terms, ask, resolution)
        known.away_since = None
        if reply.status == "conflict":
            raise Conflict("reservation_conflict", "The reservation is of another request.", field="reservation")
        if reply.status == "doubtful":
            figures = figures_of(reply, places)
            return Decision(False, "store_away", terms.tier, 0, figures, CLOSED_RETRY_S, resolution, reply.now)
        if unrated is not None:
            figures = figures_of(reply, places)
            return Decision(False, UNRATED_REASONS[unrated], terms.tier, 0, figures, None, resolution, reply.now)
        is_held = reply.status == "ok" and not is_dry
        figures = figures_of(reply, places, fixed if is_held else None)
        decision = _decision(reply, figures, terms.tier, resolution)
        return decision._replace(estimated=estimated_hold(met, ask.estimate, decision.granted_output_tokens))

    async def commit(self, reservation: str, request: Request, quantities: Mapping[str, int | None]) -> Settled:
        """Count what was really used; the event says it again, and for good. Raises: Unavailable."""
        now, snapshot, tenant = self._now(), self._catalog.current(), request.tenant
        counted = counted_request(snapshot, request, now)
        rates = rates_of(snapshot, counted, now.astimezone(PARIS).date())
        amounts = committed_amounts(quantities, request.operation, rates)

        async def call(snapshot: Snapshot, seen: Seen, at: datetime) -> tuple[Reply, Sequence[Place]]:
            places = places_of(snapshot, counted, at)
            limits = limits_argument(places)
            return await self._store.call(tenant, "commit", seen, reservation, amounts, limits), places

        reply, _places = await self._call(tenant, now, call)
        return Settled(reply.status, estimated_use(rates, quantities, request.operation))

    async def extend(self, reservation: str, request: Request, ttl_s: int, output_tokens_total: int | None) -> Decision:
        """A sign of life of a stream, and more output if there is room for it. Raises: NotFound, Unavailable.

        output_tokens_total: what the stream is to have in all, so that who says it twice holds it once; None: what it
        has. What is granted is the total as well, also where nothing more is.
        """
        now, snapshot, tenant = self._now(), self._catalog.current(), request.tenant
        counted = counted_request(snapshot, request, now)
        terms = terms_of_use(snapshot, tenant, now)

        async def call(
            snapshot: Snapshot, seen: Seen, at: datetime, *, is_free: bool = False
        ) -> tuple[Reply, Sequence[Place]]:
            places = places_of(snapshot, counted, at)
            if is_free:
                places = fallen_back(snapshot, counted, places, at)
            places = [place for place in places if output_tokens_total is not None and place.per_output]
            limits = limits_argument(places)
            return await self._store.call(
                tenant, "extend", seen, reservation, ttl_s * 1000, output_tokens_total or 0, limits
            ), places

        reply, places = await self._call(tenant, now, call)
        if reply.status in {"unknown", "closed"}:
            raise NotFound("unknown_reservation", "No such reservation is open.", field="reservation")
        decision = _decision(reply, figures_of(reply, places), terms.tier, None)
        if decision.reason == "envelope_used_up" and _is_throttled(terms):
            reply, places = await self._call(tenant, now, partial(call, is_free=True))
            decision = _decision(reply, figures_of(reply, places), terms.plan.tier, None)
        return decision._replace(granted_output_tokens=reply.granted)

    async def release(self, tenant: str, reservation: str) -> Settled:
        """Give back what is held of a request that doesn't run. Raises: NotFound, Unavailable."""

        async def call(_snapshot: Snapshot, seen: Seen, _at: datetime) -> tuple[Reply, Sequence[Place]]:
            return await self._store.call(tenant, "release", seen, reservation), []

        reply, _places = await self._call(tenant, self._now(), call)
        if reply.status == "unknown":
            raise NotFound("unknown_reservation", "No such reservation is known.", field="reservation")
        return Settled(reply.status)

    async def open_holds(
        self, tenant: str, after: Position, limit: int, *, user: str | None = None
    ) -> tuple[list[OpenReservation], Position | None]:
        """Open holds after a position, the first to expire first; and where the next begin, None at the end.

        user: this one's only. There may be fewer than `limit` before the end: a page looks at a bounded number of
        holds, and those that ended an hour ago or less are among them. Raises: Unavailable.
        """
        found: list[OpenReservation] = []
        for _ in range(LOOKS_MAX):
            reply = await self._look_at_holds(tenant, after)
            holds, after = read_holds(reply)
            found += [hold for hold in holds if user in {None, hold.user}]
            if len(found) >= limit:
                return found[:limit], position_of(found[limit - 1])
            if not reply.granted:
                return found, None
        return found, after

    async def _look_at_holds(self, tenant: str, after: Position) -> Reply:
        async def call(_snapshot: Snapshot, seen: Seen, _at: datetime) -> tuple[Reply, Sequence[Place]]:
            return await self._store.call(tenant, "holds", seen, *after, LOOKED_AT), []

        return (await self._call(tenant, self._now(), call))[0]

    @property
    def counters(self) -> CounterStore:
        """The store, for threads."""
        return self._builder.store

    async def close(self) -> None:
        """Close the connection to the store."""
        await self._store.close()

    async def _call(self, tenant: str, now: datetime, call: Call[T]) -> tuple[Reply, T]:
        """A call on counters that are there, whole and of the limits in force; built first where they aren't."""
        known = self._known.setdefault(tenant, _Known())
        at = now
        for _attempt in range(ATTEMPTS):
            snapshot = self._catalog.current()  # building may have read a newer one
            seen = (known.epoch, known.operations, limits_digest(snapshot, tenant, at))
            try:
                reply, read_by = await call(snapshot, seen, at)
            except (Lost, OtherLimits) as trouble:
                await self._build(tenant, known, seen, at, is_reset=isinstance(trouble, Lost))
            except ClockMoved as moved:
                at = moved.now
            else:
                known.learn(reply)
                return reply, read_by
        raise Unavailable("counters_unavailable", "The counters are being built.", retry_after_s=1)

    async def _build(self, tenant: str, known: _Known, seen: Seen, now: datetime, *, is_reset: bool) -> None:
        async with known.building:
            if known.epoch > seen[0]:  # built while this call waited
                return
            if is_reset and seen[0]:
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


def _is_throttled(terms: TermsOfUse) -> bool:
    """Whether free access goes on once the envelope is used up."""
    return terms.convention is not None and terms.convention.overage == "throttle"


def _shed(tier: Tier, resolution: Resolution) -> Decision:
    wait_s = random.randint(*SHED_RETRY_S)  # noqa: S311 - to spread callers, not to keep a secret
    return Decision(False, "shed", tier, retry_after_s=wait_s, resolution=resolution)


def _decision(reply: Reply, figures: Sequence[Figure], tier: Tier, resolution: Resolution | None) -> Decision:
    if reply.status == "ok":
        return Decision(True, "within_limits", tier, reply.granted, figures, None, resolution, reply.now)
    refusing = [figure for figure in figures if figure.flag in {"refused", "forbidden"}]
    if any(is_envelope(figure.limit) for figure in refusing):
        return Decision(False, "envelope_used_up", tier, 0, figures, None, resolution, reply.now)
    is_forbidden = any(figure.flag == "forbidden" for figure in refusing)
    waits_ms = [figure.wait_ms for figure in refusing if figure.flag == "refused"]
    retry_after_s = None if is_forbidden or not all(waits_ms) else -(-max(waits_ms) // 1000)
    reason: Reason = "forbidden" if is_forbidden else "limit_reached"
    return Decision(False, reason, tier, 0, figures, retry_after_s, resolution, reply.now)

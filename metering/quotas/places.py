"""Which counters a request meets: its limits, in the windows of an instant. From the catalogue in memory only."""

from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache

import xxhash

from metering.catalog.conventions import convention_in_force
from metering.catalog.limits import limits_for_request, limits_of
from metering.catalog.models import look_up
from metering.catalog.snapshot import Snapshot
from metering.errors import NotFound
from metering.quotas.calls import Place
from metering.rules.counting import OUTPUT_METERS, UNMEASURED, Estimate, field_of, held_amount
from metering.rules.limits import Limit, Request, Window
from metering.rules.periods import PARIS, day_bounds, month_bounds

NOTHING = Estimate()


def counted_request(snapshot: Snapshot, asked: Request, now: datetime) -> Request:
    """A request under the names that counters have: the model that answers, and its category of the catalogue."""
    try:
        answering = look_up(snapshot, asked.model or "", now).model
    except NotFound:
        return asked
    return Request(
        asked.tenant, asked.project, asked.user, asked.key, answering.id, answering.category, asked.operation
    )


def places_of(
    snapshot: Snapshot,
    request: Request,
    now: datetime,
    estimate: Estimate = NOTHING,
    moment: datetime | None = None,
) -> list[Place]:
    """Counters that a request meets under the limits of now, and what an estimate holds of each.

    moment: when the request was made, if not now: usage counts in the windows of its own time.
    """
    day = (moment or now).astimezone(PARIS).date()
    term = term_of(snapshot, request.tenant, day)
    return [
        _place(limit, request, bounds_ms(limit.window, day, term), estimate)
        for limit in limits_for_request(snapshot, request, now)
        if limit.meter not in UNMEASURED
    ]


def limits_digest(snapshot: Snapshot, tenant: str, now: datetime) -> int:
    """Tells one set of counters from another, in 32 bits: what is limited in which term, and what categories hold.

    Values don't count: another value needs no other counter.
    """
    global _digests  # noqa: PLW0603 - one name, replaced whole: threads see the one or the other
    if _digests[0] is not snapshot:  # the digests of an older snapshot would keep all of it in memory
        _digests = (snapshot, {})
    by_tenant = _digests[1]
    limits = limits_of(snapshot, tenant, now)
    known = by_tenant.get(tenant)
    if known is not None and known[0] is limits:
        return known[1]
    term = term_of(snapshot, tenant, now.astimezone(PARIS).date())
    lines = sorted({f"{one.scope} {one.selector} {one.meter} {one.window}" for one in limits})
    lines += [str(term), *(f"{model.id} {model.category}" for model in snapshot.models.values())]
    digest = xxhash.xxh32_intdigest("\n".join(lines).encode())
    by_tenant[tenant] = (limits, digest)
    return digest


_digests: tuple[Snapshot | None, dict[str, tuple[Sequence[Limit], int]]] = (None, {})
"""Of one snapshot and by administration, for the limits that were in force last."""


def term_of(snapshot: Snapshot, tenant: str, day: date) -> tuple[date, date] | None:
    """First and last day of the convention in force on a day; None without one."""
    convention = convention_in_force(snapshot, tenant, day)
    return None if convention is None else (convention.starts_on, convention.ends_on)


@lru_cache(maxsize=10_000)
def bounds_ms(window: Window, day: date, term: tuple[date, date] | None) -> tuple[int, int]:
    """Start and end of the window that a day of the books is in, in ms of the epoch; (0, 0) for one without bounds."""
    if window == "day":
        start, end = day_bounds(day)
    elif window == "month":
        start, end = month_bounds(day.year, day.month)
    elif window == "term" and term is not None:
        start, end = day_bounds(term[0])[0], day_bounds(term[1])[1]
    else:
        return 0, 0
    return round(start.timestamp() * 1000), round(end.timestamp() * 1000)


def _place(limit: Limit, request: Request, bounds: tuple[int, int], estimate: Estimate) -> Place:
    return Place(
        field_of(limit, request),
        limit,
        *bounds,
        held_amount(limit.meter, estimate, request.operation),
        int(limit.meter in OUTPUT_METERS and estimate.max_output_tokens > 0),
    )

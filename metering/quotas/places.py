"""Which counters a request meets: its limits, in the windows of an instant. From the catalogue in memory only."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec
import xxhash

from metering.catalog.conventions import TermsOfUse, convention_in_force, terms_of_use
from metering.catalog.limits import limits_for_request, limits_of
from metering.catalog.models import Resolution, check_operation, look_up, resolve
from metering.catalog.snapshot import Snapshot
from metering.errors import NotFound
from metering.quotas.calls import Place, about_of, limits_argument
from metering.quotas.rates import rates_digest, rates_of
from metering.rules.counting import RATED_METERS, UNRATED, Estimate, Rates, field_of, held_amounts, per_output
from metering.rules.limits import Limit, Meter, Request, Window, is_envelope, limits_for
from metering.rules.periods import PARIS, day_bounds, month_bounds


class Met(NamedTuple):
    """What a request meets in the catalogue: who answers, under which terms, and its counters, with nothing held.

    limits, about: as the script takes them. is_rated: whether some counter follows from rates. unrated: a rated meter
    of which nobody knows the rates, and that has a hard limit, other than an envelope.
    """

    resolution: Resolution
    terms: TermsOfUse
    request: Request
    places: Sequence[Place]
    limits: msgspec.Raw
    about: str
    rates: Rates
    is_rated: bool
    unrated: Meter | None


class _Moment(NamedTuple):
    """What is known of one snapshot in one second; the next begins anew."""

    snapshot: Snapshot | None
    second: int
    met: dict[Request, Met]


_moment = _Moment(None, 0, {})


def met_by(snapshot: Snapshot, asked: Request, now: datetime) -> Met:
    """What a request meets now; it is looked up once a second, since instants of the catalogue are of whole seconds.

    Raises: NotFound, Gone, Forbidden for its model; Unprocessable for an operation that the model doesn't offer.
    """
    global _moment  # noqa: PLW0603 - one name, replaced whole: threads see the one or the other
    moment, second = _moment, int(now.timestamp())
    if moment.second != second or moment.snapshot is not snapshot:
        moment = _moment = _Moment(snapshot, second, {})
    met = moment.met.get(asked)
    if met is None:
        met = moment.met[asked] = _meet(snapshot, asked, now)
    return met


def _meet(snapshot: Snapshot, asked: Request, now: datetime) -> Met:
    resolution = resolve(snapshot, asked.model or "", tenant=asked.tenant, now=now)
    check_operation(resolution.model, asked.operation)
    request = counted_request(snapshot, asked, now)
    terms, places = terms_of_use(snapshot, asked.tenant, now), places_of(snapshot, request, now)
    rates = rates_of(snapshot, request, now.astimezone(PARIS).date())
    return Met(
        resolution, terms, request, places, limits_argument(places), about_of(request), rates,
        any(map(is_rated, places)), _unrated(places, rates),
    )  # fmt: skip


def _unrated(places: Sequence[Place], rates: Rates) -> Meter | None:
    """A limit can't be held of what nobody knows; an envelope is what a convention funds, and not there to forbid."""
    return next(
        (
            one.limit.meter
            for one in places
            if one.limit.meter in RATED_METERS
            and one.limit.mode == "hard"
            and one.limit.value is not None
            and rates.of(one.limit.meter) is None
            and not is_envelope(one.limit)
        ),
        None,
    )


def fixed_of(
    places: Sequence[Place], estimate: Estimate, operation: str | None, rates: Rates | None = None
) -> list[int]:
    """What an estimate holds of each counter, apart from the output. rates: where some counter follows from them."""
    held = held_amounts(estimate, operation, rates)
    return [held.get(place.limit.meter, 0) for place in places]


def counted_request(snapshot: Snapshot, asked: Request, now: datetime) -> Request:
    """A request under the names that counters have: the model that answers, and its category of the catalogue."""
    try:
        answering = look_up(snapshot, asked.model or "", now).model
    except NotFound:
        return asked
    return Request(
        asked.tenant, asked.project, asked.user, asked.key, answering.id, answering.category, asked.operation
    )


def places_of(snapshot: Snapshot, request: Request, now: datetime, moment: datetime | None = None) -> list[Place]:
    """Counters that a request meets under the limits of now.

    moment: when the request was made, if not now: usage counts in the windows of its own time.
    """
    day = (moment or now).astimezone(PARIS).date()
    term = term_of(snapshot, request.tenant, day)
    limits = limits_for_request(snapshot, request, now)
    has_rated = any(limit.meter in RATED_METERS for limit in limits)
    rates = rates_of(snapshot, request, day) if has_rated else UNRATED
    return [
        Place(field_of(limit, request), limit, *bounds_ms(limit.window, day, term), per_output(limit.meter, rates))
        for limit in limits
    ]


def is_rated(place: Place) -> bool:
    """Whether a counter follows from quantities by rates."""
    return place.limit.meter in RATED_METERS


def fallen_back(snapshot: Snapshot, request: Request, places: Sequence[Place], now: datetime) -> list[Place]:
    """Counters as free access has them, for those whose envelope is used up: what the convention allows isn't.

    They are the same ones, so that nothing has to be built: what only the convention limits is counted on.
    """
    own = [limit for limit in limits_of(snapshot, request.tenant, now) if limit.source != "convention"]
    free = {(one.scope, one.selector, one.meter, one.window): one for one in limits_for(request, own)}
    return [
        one._replace(
            limit=free.get(
                (one.limit.scope, one.limit.selector, one.limit.meter, one.limit.window),
                replace(one.limit, value=one.limit.value if is_envelope(one.limit) else None, mode="soft"),
            )
        )
        if one.limit.source == "convention"
        else one
        for one in places
    ]


def limits_digest(snapshot: Snapshot, tenant: str, now: datetime) -> int:
    """Tells one set of counters from another, in 32 bits: what is limited in which term, and what names mean.

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
    if any(one.meter in RATED_METERS for one in limits):
        lines.append(rates_digest(snapshot, tenant))
    lines += [str(term), *(f"{model.id} {model.category}" for model in snapshot.models.values())]
    lines += [f"{category.id} {category.model}" for category in snapshot.categories.values()]
    lines += [f"{alias.id} {alias.model or alias.category}" for alias in snapshot.aliases.values()]
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

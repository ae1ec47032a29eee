"""Limits in force, from the catalogue in memory: what the counters are held to.

The hot path asks for the same few answers over and over, so they are kept until the catalogue changes or the next
instant at which an override or a day begins or ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from metering.catalog.conventions import term_bounds, terms_of_use
from metering.catalog.documents import EUR_DECIMALS, GRAM_DECIMALS, Convention
from metering.catalog.snapshot import OverrideEntry, Snapshot
from metering.rules.limits import Limit, Meter, Mode, Request, Window, envelope, limits_for
from metering.rules.periods import PARIS, day_bounds, month_bounds
from metering.rules.quantities import QUANTITY_MAX

SHAPES_MAX = 10_000
"""Kinds of requests of one administration whose limits are kept."""

_Shape = tuple[str | bool | None, ...]


@dataclass(frozen=True, slots=True)
class _InForce:
    """Limits of an administration from `start` to `end`, exclusive; `chosen`: of those, by shape of the request."""

    start: datetime
    end: datetime
    limits: tuple[Limit, ...]
    subjects: frozenset[str]
    chosen: dict[_Shape, tuple[Limit, ...]] = field(default_factory=dict)


class _Memory:
    """What is known of one snapshot; the next begins anew."""

    __slots__ = ("by_tenant", "snapshot")

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self.by_tenant: dict[str, _InForce] = {}


_memory = _Memory(None)


def limits_of(snapshot: Snapshot, tenant: str, now: datetime) -> tuple[Limit, ...]:
    """Every limit of the plan, of the convention and of live overrides; which goes before which is `rules.limits`'.

    Of live overrides of the same, the one that started last holds alone, and gives way to the one before at its end.
    A limit of the convention's term holds only while there is a convention.
    """
    return _in_force(snapshot, tenant, now).limits


def limits_for_request(snapshot: Snapshot, request: Request, now: datetime) -> tuple[Limit, ...]:
    """The limits that a request must pass. Names of models and categories are resolved by the caller."""
    known = _in_force(snapshot, request.tenant, now)
    shape = _shape(request, known.subjects)
    chosen = known.chosen.get(shape)
    if chosen is None:
        if len(known.chosen) >= SHAPES_MAX:
            known.chosen.clear()
        chosen = known.chosen[shape] = tuple(limits_for(request, known.limits))
    return chosen


def window_bounds(window: Window, convention: Convention | None, now: datetime) -> tuple[datetime, datetime] | None:
    """Start and end, in UTC, of the window that an instant falls in; None for windows without bounds.

    Days and months are those of the books; the term is the convention's.
    """
    today = now.astimezone(PARIS).date()
    if window == "day":
        return day_bounds(today)
    if window == "month":
        return month_bounds(today.year, today.month)
    return term_bounds(convention) if window == "term" and convention is not None else None


def _shape(request: Request, subjects: frozenset[str]) -> _Shape:
    """What of a request its limits depend on: who asks matters only where somebody has a limit of their own."""
    project, user, key = request.project, request.user, request.key
    return (
        project if project in subjects else project is not None,
        user if user in subjects else user is not None,
        key if key in subjects else key is not None,
        request.model,
        request.category,
        request.operation,
    )


def _in_force(snapshot: Snapshot, tenant: str, now: datetime) -> _InForce:
    global _memory  # noqa: PLW0603 - one name, replaced whole: threads see the one or the other
    memory = _memory
    if memory.snapshot is not snapshot:
        memory = _memory = _Memory(snapshot)
    known = memory.by_tenant.get(tenant)
    if known is None or not known.start <= now < known.end:
        known = memory.by_tenant[tenant] = _read(snapshot, tenant, now)
    return known


def _read(snapshot: Snapshot, tenant: str, now: datetime) -> _InForce:
    overrides = snapshot.overrides.get(tenant, ())
    # Conventions and windows begin and end with days of the books.
    bounds = [*day_bounds(now.astimezone(PARIS).date()), *_instants(overrides)]
    limits = tuple(_limits(snapshot, tenant, now))
    return _InForce(
        start=max(bound for bound in bounds if bound <= now),
        end=min(bound for bound in bounds if bound > now),
        limits=limits,
        subjects=frozenset(limit.subject for limit in limits if limit.subject is not None),
    )


def _instants(overrides: Sequence[OverrideEntry]) -> Iterator[datetime]:
    for override in overrides:
        yield override.starts_at
        if override.ends_at is not None:
            yield override.ends_at


def _limits(snapshot: Snapshot, tenant: str, now: datetime) -> Iterator[Limit]:
    terms = terms_of_use(snapshot, tenant, now)
    declared = [document.rule(source="plan") for document in terms.plan.limits]
    if terms.convention is not None:
        declared += [document.rule(source="convention") for document in terms.convention.limits]
        declared += envelopes_of(terms.convention)
    declared += [override.limit for override in live_overrides(snapshot, tenant, now)]
    return (limit for limit in declared if limit.window != "term" or terms.convention is not None)


def envelopes_of(convention: Convention) -> list[Limit]:
    """Limits that hold what a convention has for its term: soft where what goes beyond it is billed."""
    mode: Mode = "soft" if convention.overage == "bill" else "hard"
    amounts: list[tuple[Meter, Decimal | None, int]] = [
        ("cost_neur", convention.envelope_eur, EUR_DECIMALS),
        ("carbon_ugco2e", convention.envelope_gco2e, GRAM_DECIMALS),
    ]
    return [
        envelope(meter, min(int(amount.scaleb(decimals)), QUANTITY_MAX), mode)
        for meter, amount, decimals in amounts
        if amount is not None
    ]


def live_overrides(snapshot: Snapshot, tenant: str, now: datetime) -> list[OverrideEntry]:
    """Overrides that hold: one for each scope, selector, meter, window and subject."""
    latest: dict[tuple[str | None, ...], OverrideEntry] = {}
    live = [one for one in snapshot.overrides.get(tenant, ()) if is_live(one.starts_at, one.ends_at, now)]
    # The order of creation decides among those that started together: sorting keeps it.
    for override in sorted(live, key=lambda one: one.starts_at):
        limit = override.limit
        latest[limit.scope, limit.selector, limit.meter, limit.window, limit.subject] = override
    return list(latest.values())


def is_live(starts_at: datetime, ends_at: datetime | None, now: datetime) -> bool:
    """Whether an instant is within a period; None: without end."""
    return starts_at <= now and (ends_at is None or now < ends_at)

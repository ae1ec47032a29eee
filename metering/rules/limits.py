"""Limits: what they say, and which of them hold for a request.

A limit bounds one meter, in one window, for each subject of a scope, over the requests that its selector takes. At one
scope and for one (selector, meter, window) a dated override goes before the convention, and the convention before the
plan. A limit that names a model, category or operation goes before the one for each of them (`model:*`), whatever
their sources: who opens all models wider doesn't mean the scarce one. One subject's own limit goes before every
one's of the same source. Where two still say different things, the lower value holds, then the stricter mode, so that
the order in which limits come never matters.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from metering.rules.quantities import QUANTITY_MAX

Scope = Literal["tenant", "project", "user", "key"]
Meter = Literal[
    "requests",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "audio_ms",
    "embedding_requests",
    "embedding_inputs",
    "pages",
    "searches",
    "cost_neur",
    "carbon_ugco2e",
    "concurrent_requests",
]
Window = Literal["minute", "day", "month", "term", "credit", "now"]
"""`term` is the convention's; `credit` never starts anew; `now` is for what is under way (concurrent requests)."""
Mode = Literal["hard", "soft", "shadow"]
Source = Literal["override", "convention", "plan"]
Kind = Literal["model", "category", "operation"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
METERS: tuple[Meter, ...] = get_args(Meter)
WINDOWS: tuple[Window, ...] = get_args(Window)
MODES: tuple[Mode, ...] = get_args(Mode)
KINDS: tuple[Kind, ...] = get_args(Kind)
SOURCES: tuple[Source, ...] = get_args(Source)
"""First who goes before."""

UNITS: Mapping[Meter, str] = MappingProxyType(
    {
        "requests": "request",
        "input_tokens": "token",
        "output_tokens": "token",
        "total_tokens": "token",
        "audio_ms": "ms",
        "embedding_requests": "request",
        "embedding_inputs": "input",
        "pages": "page",
        "searches": "search",
        "cost_neur": "nEUR",
        "carbon_ugco2e": "µgCO2e",
        "concurrent_requests": "request",
    }
)
"""Base unit of each meter."""

EVERYTHING = "*"
EACH = "*"

ENVELOPE_METERS: frozenset[Meter] = frozenset({"cost_neur", "carbon_ugco2e"})
"""What a convention's envelope may be of."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. value is in the meter's base unit: None is unlimited, 0 forbids.

    selector: `*` (all requests together), `model:NAME`, `category:NAME`, `operation:NAME`, or `model:*`: each model
    apart. subject: the project, user or key it is of; None: every one of the scope.
    """

    scope: Scope
    selector: str
    meter: Meter
    window: Window
    value: int | None
    mode: Mode
    subject: str | None = None
    source: Source = "plan"


class Request(NamedTuple):
    """What a limit is chosen by: who asks for what. None is unknown, or absent.

    Its attributes are named as the scopes and as the kinds of selectors.
    """

    tenant: str
    project: str | None = None
    user: str | None = None
    key: str | None = None
    model: str | None = None
    category: str | None = None
    operation: str | None = None


def faults_of(limit: Limit) -> list[tuple[str, str]]:
    """What makes no sense in a limit: (field, what was expected)."""
    faults = []
    kind, colon, name = limit.selector.partition(":")
    if limit.selector != EVERYTHING and not (colon and kind in KINDS and name):
        faults.append(("selector", "*, or model:, category: or operation: and a name or *"))
    if limit.value is not None and not 0 <= limit.value <= QUANTITY_MAX:
        faults.append(("value", f"null or 0 to {QUANTITY_MAX}"))
    if (limit.meter == "concurrent_requests") != (limit.window == "now"):
        faults.append(("window", "`now` for concurrent_requests, and for nothing else"))
    return faults


def envelope(meter: Meter, value: int, mode: Mode) -> Limit:
    """The limit that holds a convention's envelope, over its term; value in the meter's base unit."""
    return Limit("tenant", EVERYTHING, meter, "term", value, mode, source="convention")


def is_envelope(limit: Limit) -> bool:
    """Whether a limit is of all that an administration's convention has for its term, in money or carbon."""
    return limit.meter in ENVELOPE_METERS and limit == envelope(limit.meter, limit.value or 0, limit.mode)


def limits_for(request: Request, limits: Iterable[Limit]) -> list[Limit]:
    """The limits that a request must pass, one for each (scope, selector, meter, window) that takes it.

    `model:*` and the like come out under the request's own model: its counter is that model's. A limit of what the
    request doesn't have (a project, a category) doesn't take it.
    """
    return _chosen(request, limits, open_ends=False)


def limits_about(request: Request, limits: Iterable[Limit]) -> list[Limit]:
    """The limits in force for any request that this one could become: what it leaves unknown stands for anything.

    Of a request with nothing unknown they are `limits_for`.
    """
    return _chosen(request, limits, open_ends=True)


def present_limit(wanted: Limit, limits: Iterable[Limit]) -> Limit | None:
    """The limit in force where another is wanted: for its scope, selector, meter, window and subject; None without."""
    each = f"{wanted.selector.partition(':')[0]}:{EACH}"
    fitting = [
        limit
        for limit in limits
        if (limit.scope, limit.meter, limit.window) == (wanted.scope, wanted.meter, wanted.window)
        and limit.selector in {wanted.selector, each}
        and limit.subject in {None, wanted.subject}
    ]
    return min(fitting, key=lambda limit: _rank(limit, wanted.selector), default=None)


def is_raise(value: int | None, present: Limit) -> bool:
    """Whether a value allows more than a limit does."""
    return present.value is not None and (value is None or value > present.value)


_Place = tuple[Scope, str, Meter, Window, str | None]
"""Scope, selector, meter, window and subject: where only one limit holds."""


def _chosen(request: Request, limits: Iterable[Limit], *, open_ends: bool) -> list[Limit]:
    chosen: dict[_Place, Limit] = {}
    for limit in limits:
        place = _place(request, limit, open_ends=open_ends)
        if place is None:
            continue
        rival = chosen.get(place)
        if rival is None or _rank(limit, place[1]) < _rank(rival, place[1]):
            chosen[place] = limit
    return [_under(place[1], chosen[place]) for place in sorted(chosen, key=_order)]


def _place(request: Request, limit: Limit, *, open_ends: bool) -> _Place | None:
    """Where a limit holds for a request; None where it doesn't."""
    subject: str | None = getattr(request, limit.scope)
    if subject is None:
        if not open_ends:
            return None
        subject = limit.subject
    elif limit.subject is not None and limit.subject != subject:
        return None
    selector = limit.selector
    if selector != EVERYTHING:
        kind, _, name = selector.partition(":")
        named: str | None = getattr(request, kind)
        if named is None:
            if not open_ends:
                return None
        elif name == EACH:
            selector = f"{kind}:{named}"
        elif name != named:
            return None
    return limit.scope, selector, limit.meter, limit.window, subject


def _rank(limit: Limit, selector: str) -> tuple[bool, int, bool, int, int]:
    """Lowest goes before, among limits of one place."""
    value = QUANTITY_MAX + 1 if limit.value is None else limit.value
    return (
        limit.selector != selector,
        SOURCES.index(limit.source),
        limit.subject is None,
        value,
        MODES.index(limit.mode),
    )


def _order(place: _Place) -> tuple[int, str, str, str, str]:
    scope, selector, meter, window, subject = place
    return SCOPES.index(scope), selector, meter, window, subject or ""


def _under(selector: str, limit: Limit) -> Limit:
    """The limit under the selector that its counter has."""
    return limit if limit.selector == selector else replace(limit, selector=selector)

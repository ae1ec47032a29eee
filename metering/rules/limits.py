"""Limits: what they say, and which of them hold for a request.

A limit bounds one meter, in one window, for each subject of a scope, over the requests that its selector takes. At one
scope and for one (selector, meter, window) a dated override goes before the convention, and the convention before the
plan. A limit that names a model, category or operation goes before the one for each of them (`model:*`), whatever
their sources: who opens all models wider doesn't mean the scarce one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

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

EVERYTHING = "*"
EACH = "*"
VALUE_MAX = 2**53 - 1


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


@dataclass(frozen=True, slots=True)
class Request:
    """What a limit is chosen by: who asks for what. None is unknown, or absent."""

    tenant: str
    project: str | None = None
    user: str | None = None
    key: str | None = None
    model: str | None = None
    category: str | None = None
    operation: str | None = None

    def subject(self, scope: Scope) -> str | None:
        """Whom a scope means here."""
        return {"tenant": self.tenant, "project": self.project, "user": self.user, "key": self.key}[scope]

    def named(self, kind: Kind) -> str | None:
        """What a kind of selector means here."""
        return {"model": self.model, "category": self.category, "operation": self.operation}[kind]


def faults_of(limit: Limit) -> list[tuple[str, str]]:
    """What makes no sense in a limit: (field, what was expected)."""
    faults = []
    kind, colon, name = limit.selector.partition(":")
    if limit.selector != EVERYTHING and not (colon and kind in KINDS and name):
        faults.append(("selector", "*, or model:, category: or operation: and a name or *"))
    if limit.value is not None and not 0 <= limit.value <= VALUE_MAX:
        faults.append(("value", f"null or 0 to {VALUE_MAX}"))
    if (limit.meter == "concurrent_requests") != (limit.window == "now"):
        faults.append(("window", "`now` for concurrent_requests, and for nothing else"))
    return faults


def limits_for(request: Request, limits: Iterable[Limit]) -> list[Limit]:
    """The limits that a request must pass, one for each (scope, selector, meter, window) that takes it.

    `model:*` and the like come out under the request's own model: its counter is that model's.
    """
    chosen: dict[tuple[str, str, str, str], tuple[tuple[int, int, int], Limit]] = {}
    for limit in limits:
        selector = _selector_for(request, limit)
        if selector is None:
            continue
        place = (limit.scope, selector, limit.meter, limit.window)
        # Own subject before every one's, among limits of one source.
        rank = (int(limit.selector != selector), SOURCES.index(limit.source), int(limit.subject is None))
        if place not in chosen or rank < chosen[place][0]:
            chosen[place] = (rank, limit)
    order = sorted(chosen, key=lambda place: (SCOPES.index(place[0]), *place[1:]))
    return [_at(chosen[place][1], place[1]) for place in order]


def _selector_for(request: Request, limit: Limit) -> str | None:
    """The selector under which a limit takes a request; None where it doesn't."""
    subject = request.subject(limit.scope)
    if subject is None or limit.subject not in {None, subject}:
        return None
    if limit.selector == EVERYTHING:
        return EVERYTHING
    kind, _, name = limit.selector.partition(":")
    named = request.named(kind)  # type: ignore[arg-type]
    return f"{kind}:{named}" if named is not None and name in {EACH, named} else None


def _at(limit: Limit, selector: str) -> Limit:
    return Limit(limit.scope, selector, limit.meter, limit.window, limit.value, limit.mode, limit.subject, limit.source)

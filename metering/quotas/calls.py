"""Calls of the script: its arguments from limits and requests, and its answers read."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Literal

import msgspec

from metering.rules.limits import Limit, Meter

SCRIPT = (files("metering.quotas") / "counters.lua").read_text()
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode()).hexdigest()  # noqa: S324 - how Valkey names a script


NO_LIMIT = -1
_FLAGS: Sequence[Literal["ok", "refused", "forbidden", "over"]] = ("ok", "refused", "forbidden", "over")


class Lost(Exception):
    """The counters are gone, or older than what is known of them; with the store's clock."""

    def __init__(self, now: datetime) -> None:
        super().__init__()
        self.now = now


class OtherLimits(Exception):
    """The counters were built for other limits than those in force."""


class ClockMoved(Exception):
    """The windows of a call are not those of the store's clock, which is told."""

    def __init__(self, now: datetime) -> None:
        super().__init__(now.isoformat())
        self.now = now


Seen = tuple[int, int, int]
"""What a caller has seen of an administration's counters: their epoch, how often written, for which limits."""


@dataclass(frozen=True, slots=True)
class Place:
    """A counter that a request meets: its field, the window it is in (ms of the epoch; 0: without end), its limit."""

    field: str
    limit: Limit
    start_ms: int
    end_ms: int
    fixed: int
    per_output: int

    @property
    def is_minute(self) -> bool:
        return self.limit.window == "minute"


@dataclass(frozen=True, slots=True)
class Figure:
    """Where a counter stands after a call, in the meter's base unit; `wait_ms`: until there may be room."""

    limit: Limit
    used: int
    held: int
    flag: Literal["ok", "refused", "forbidden", "over"]
    wait_ms: int
    reset_at: datetime | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call came to. `epoch` and `operations` tell this state of the counters from others."""

    status: str
    now: datetime
    epoch: int
    operations: int
    granted: int
    figures: Sequence[int]


def keys_of(tenant: str) -> tuple[str, str, str]:
    """Keys of an administration, in one slot of a cluster."""
    return (f"jauge:{{{tenant}}}:counters", f"jauge:{{{tenant}}}:holds", f"jauge:{{{tenant}}}:expiries")


def arguments(operation: str, *given: Any) -> tuple[str, bytes]:
    """ARGV of the script."""
    return operation, msgspec.msgpack.encode(given)


def limits_argument(places: Sequence[Place], meters: Mapping[Meter, int]) -> list[tuple[Any, ...]]:
    """Limits as the script takes them."""
    return [
        (
            place.field, place.is_minute, place.start_ms, place.end_ms, meters[place.limit.meter],
            NO_LIMIT if place.limit.value is None else place.limit.value,
            place.limit.mode == "hard", place.fixed, place.per_output,
        )
        for place in places
    ]  # fmt: skip


def read_reply(answer: Sequence[Any]) -> Reply:
    """An answer of the script. Raises: Lost, OtherLimits, ClockMoved."""
    status = answer[0].decode()
    now = datetime.fromtimestamp(answer[1] / 1000, UTC)
    if status == "lost":
        raise Lost(now)
    if status == "clock":
        raise ClockMoved(now)
    if status == "other_limits":
        raise OtherLimits
    epoch, operations, granted = answer[2:5]
    return Reply("ok" if status == "written" else status, now, epoch, operations, granted, answer[5:])


def figures_of(reply: Reply, places: Sequence[Place]) -> list[Figure]:
    """Figures of a reply by limit."""
    figures = []
    for place, (used, held, flag, wait_ms) in zip(places, _by_limit(reply.figures), strict=True):
        reset_at = datetime.fromtimestamp(place.end_ms / 1000, UTC) if place.end_ms else None
        figures.append(Figure(place.limit, used, held, _FLAGS[flag], wait_ms, reset_at))
    return figures


def _by_limit(figures: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Figures of each limit: used, held, flag, wait."""
    return zip(*[iter(figures)] * 4, strict=True)

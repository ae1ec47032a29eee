"""Calls of the script: its arguments from limits and requests, and its answers read."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import msgspec

from metering.rules.counting import COUNTED_PER_UNIT, METER_NUMBER, counted_value, in_units
from metering.rules.limits import Limit, Request

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


class Place(NamedTuple):
    """A counter that a request meets: its field, the window it is in (ms of the epoch; 0: without end), its limit.

    per_output: what a token of output counts for.
    """

    field: str
    limit: Limit
    start_ms: int
    end_ms: int
    per_output: int

    @property
    def is_minute(self) -> bool:
        return self.limit.window == "minute"


class Figure(NamedTuple):
    """Where a counter stands after a call, in the meter's base unit; `wait_ms`: until there may be room.

    remaining: what is left of the limit, never below 0; None where it has no value.
    """

    limit: Limit
    used: int
    held: int
    remaining: int | None
    flag: Literal["ok", "refused", "forbidden", "over"]
    wait_ms: int
    reset_at: datetime | None


class Reply(NamedTuple):
    """What a call came to. `epoch` and `operations` tell this state of the counters from others.

    figures: what follows, as the operation of the script says.
    """

    status: str
    now: datetime
    epoch: int
    operations: int
    granted: int
    figures: Sequence[Any]


def keys_of(tenant: str) -> tuple[str, str, str]:
    """Keys of an administration, in one slot of a cluster."""
    return (f"jauge:{{{tenant}}}:counters", f"jauge:{{{tenant}}}:holds", f"jauge:{{{tenant}}}:expiries")


def arguments(operation: str, *given: Any) -> tuple[str, bytes]:
    """ARGV of the script."""
    return operation, msgspec.msgpack.encode(given)


def limits_argument(places: Sequence[Place]) -> msgspec.Raw:
    """Limits as the script takes them, packed: the same for all requests that meet the same places."""
    limits = [
        (
            place.field, place.is_minute, place.start_ms, place.end_ms, METER_NUMBER[place.limit.meter],
            NO_LIMIT if (value := counted_value(place.limit)) is None else value,
            place.limit.mode == "hard", place.per_output,
        )
        for place in places
    ]  # fmt: skip
    return msgspec.Raw(msgspec.msgpack.encode(limits))


def about_of(request: Request) -> str:
    """Whose request it is and for what, as a hold keeps it."""
    about = (request.project, request.user, request.key, request.model, request.operation)
    return msgspec.json.encode(about).decode()


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
    epoch, operations, granted, *more = answer[2:]
    figures = msgspec.msgpack.decode(more[0]) if len(more) == 1 else more
    return Reply("ok" if status == "written" else status, now, epoch, operations, granted, figures)


def figures_of(reply: Reply, places: Sequence[Place], fixed: Sequence[int] | None = None) -> list[Figure]:
    """Figures of a reply by limit.

    fixed: what has been held since of each, apart from the output that was granted, and is in them as well; None:
    nothing has.
    """
    figures = []
    numbers = zip(*[iter(reply.figures)] * 4, strict=True)
    for at, (place, (used, held, flag, wait_ms)) in enumerate(zip(places, numbers, strict=True)):
        limit = place.limit
        if fixed is not None:
            held += fixed[at] + place.per_output * reply.granted  # noqa: PLW2901
        if limit.meter in COUNTED_PER_UNIT:
            used, held = in_units(limit.meter, used), in_units(limit.meter, held)  # noqa: PLW2901
        remaining = None if limit.value is None else max(limit.value - used - held, 0)
        figures.append(Figure(limit, used, held, remaining, _FLAGS[flag], wait_ms, _reset_at(place.end_ms)))
    return figures


@lru_cache(maxsize=10_000)
def _reset_at(end_ms: int) -> datetime | None:
    return datetime.fromtimestamp(end_ms / 1000, UTC) if end_ms else None

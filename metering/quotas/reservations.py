"""Open holds as people see them: whose request it is, what it holds of which limit, and until when."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from metering.catalog.documents import Instant
from metering.errors import Unprocessable
from metering.quotas.calls import Reply
from metering.quotas.fields import read_field
from metering.rules.counting import in_units
from metering.rules.limits import UNITS

POSITION_PATTERN = "^[0-9]{1,13}:[!-~]{1,128}$"

Position = tuple[int, str]
"""A place in the order of holds: when one ends (ms of the epoch), and its reservation."""
BEGINNING: Position = (0, "")
"""Before all holds."""

_position = re.compile(POSITION_PATTERN)


class HeldOf(msgspec.Struct):
    """What is held of a limit, in the meter's unit. subject: whose it is; null: the administration's."""

    scope: str
    subject: str | None
    selector: str
    meter: str
    unit: str
    window: str
    held: int


class OpenReservation(msgspec.Struct):
    """A request under way. granted_output_tokens: in all, with what it was extended by."""

    reservation: str
    state: Literal["open"]
    project: str | None
    user: str | None
    api_key: str | None
    model: str | None
    operation: str | None
    granted_output_tokens: int
    held: list[HeldOf]
    opened_at: Instant
    expires_at: Instant


class ReservationPage(msgspec.Struct):
    """Open holds of an administration, the first to expire first; `next_after` is null at the end."""

    tenant: str
    items: list[OpenReservation]
    next_after: Annotated[str | None, msgspec.Meta(description="Where the next page begins; this one may be short.")]


def read_holds(reply: Reply) -> tuple[list[OpenReservation], Position]:
    """Open holds of an answer of the script, and the place of the last one that it looked at."""
    *found, last_end, last_id = reply.figures
    threes = zip(*[iter(found)] * 3, strict=True)
    holds = [_hold(int(ends_at), name.decode(), packed) for ends_at, name, packed in threes]
    return holds, (int(last_end or 0), last_id.decode())


def position_of(hold: OpenReservation) -> Position:
    """Where a hold is in the order."""
    return round(hold.expires_at.timestamp() * 1000), hold.reservation


def written(position: Position) -> str:
    """A position as `next_after` tells it."""
    return f"{position[0]}:{position[1]}"


def read_position(text: str) -> Position:
    """A position that `written` wrote; an empty text is the beginning. Raises: Unprocessable."""
    if not text:
        return BEGINNING
    if not _position.fullmatch(text):
        raise Unprocessable("invalid_position", "No page begins there.", field="after", expected="next_after of a page")
    ends_at, _colon, reservation = text.partition(":")
    return int(ends_at), reservation


def _hold(ends_at_ms: int, reservation: str, packed: bytes) -> OpenReservation:
    hold: Sequence[Any] = msgspec.msgpack.decode(packed)
    _state, _digest, granted, entries, _figures, about, opened_ms, *extended = hold
    project, user, key, model, operation = msgspec.json.decode(about)
    return OpenReservation(
        reservation=reservation,
        state="open",
        project=project,
        user=user,
        api_key=key,
        model=model,
        operation=operation,
        granted_output_tokens=extended[0] if extended else granted,
        held=[_held(field, amount) for field, *_window, amount in entries],
        opened_at=_instant(opened_ms),
        expires_at=_instant(ends_at_ms),
    )


def _held(field: str, amount: int) -> HeldOf:
    scope, subject, selector, meter, window = read_field(field)
    return HeldOf(scope, subject, selector, meter, UNITS[meter], window, in_units(meter, amount))


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)

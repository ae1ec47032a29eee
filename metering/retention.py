"""How long data is kept that nothing is owed by: each kind as its setting says, and for ever where that isn't set.

| kind | what goes | when |
|---|---|---|
| `quarantine` | refused events, whole | so long after they were replayed or dismissed; those that wait stay |
| `messages` | what sent mails and calls said | so long after they were sent; that they were stays: each is told once |

Sessions and exports have settings too, and end where they are used. Nothing else is ever taken away.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import sqlalchemy as sa
import structlog

from metering.database import transaction
from metering.tables import outbox, quarantine

Kind = Literal["quarantine", "messages"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long each kind is kept; None is for ever."""

    quarantine: timedelta | None
    messages: timedelta | None


class Due(NamedTuple):
    """What goes of a kind: `rows` of before an instant; None, and no row, where the kind is kept for ever."""

    kind: Kind
    before: datetime | None
    rows: int


def due_now(engine: sa.Engine, keeping: Keeping, now: datetime) -> list[Due]:
    """What retention would take away, of every kind. Raises: Unavailable."""
    with transaction(engine) as connection:
        return [
            Due(kind, before, 0 if before is None else connection.scalar(_count(kind, before)) or 0)
            for kind, before in _edges(keeping, now)
        ]


def retain(engine: sa.Engine, keeping: Keeping, now: datetime) -> list[Due]:
    """Take away what is kept no longer, and return what that was; safe to repeat. Raises: Unavailable."""
    with transaction(engine) as connection:
        done = [
            Due(kind, before, 0 if before is None else connection.execute(_ending(kind, before)).rowcount)
            for kind, before in _edges(keeping, now)
        ]
    for one in done:
        if one.rows:
            log.info("retention_applied", kind=one.kind, before=str(one.before), rows=one.rows)
    return done


def _edges(keeping: Keeping, now: datetime) -> Iterator[tuple[Kind, datetime | None]]:
    kinds: tuple[tuple[Kind, timedelta | None], ...] = (
        ("quarantine", keeping.quarantine),
        ("messages", keeping.messages),
    )
    for kind, kept in kinds:
        yield kind, None if kept is None else now - kept


def _is_over(kind: Kind, before: datetime) -> sa.ColumnElement[bool]:
    if kind == "quarantine":
        return sa.func.greatest(quarantine.c.replayed_at, quarantine.c.dismissed_at) < before
    # Those that weren't sent can still be tried again, which takes what they say.
    return sa.and_(outbox.c.state == "sent", outbox.c.done_at < before, outbox.c.payload != {})


def _count(kind: Kind, before: datetime) -> sa.Select[int]:
    table = quarantine if kind == "quarantine" else outbox
    return sa.select(sa.func.count()).select_from(table).where(_is_over(kind, before))


def _ending(kind: Kind, before: datetime) -> sa.Delete | sa.Update:
    if kind == "quarantine":
        return quarantine.delete().where(_is_over(kind, before))
    return outbox.update().where(_is_over(kind, before)).values(payload={})

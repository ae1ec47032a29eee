"""Telling how much of a limit is used, once for each limit, window and threshold.

Whoever settles or builds counters looks where they stand then, and records what is to be told in the same transaction:
what isn't committed is settled, looked at and told again. It is the standing that is looked at and not its change, so
nothing is missed where counters are built; and the outbox remembers what was told, so nothing is told twice.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.outbox.queue import enqueue_event, enqueue_mail
from metering.quotas.calls import Place
from metering.quotas.fields import read_field
from metering.rules.counting import in_units
from metering.rules.limits import UNITS, is_envelope
from metering.rules.thresholds import THRESHOLDS, is_told_of, threshold_reached
from metering.tables import account, api_key, outbox

EVENT, MAIL = "limit.threshold", "limit_threshold"


class Reached(NamedTuple):
    """A counter that is at a threshold. counter: its limit and window, for the outbox."""

    place: Place
    used: int
    threshold: int
    counter: str


def is_watched(place: Place, now: datetime) -> bool:
    """Whether somebody is told of a counter: of a limit that holds, in a window that isn't over."""
    return is_told_of(place.limit) and (not place.end_ms or now.timestamp() * 1000 < place.end_ms)


def announce_thresholds(connection: sa.Connection, tenant_id: str, standings: Sequence[tuple[Place, int]]) -> int:
    """Tell of watched counters and what is used of them; returns how many are told of.

    Only the highest threshold is told: who uses a month's limit at once isn't told three times. A limit that is given
    another value is another limit.
    """
    reached = [one for place, used in standings if (one := _reached(place, used)) is not None]
    told = _told(connection, tenant_id, reached)
    new = [one for one in reached if told.get(one.counter, 0) < one.threshold]
    if new:
        holders = _holders(connection, tenant_id, new)
        for one in new:
            _announce(connection, tenant_id, one, holders)
    return len(new)


def _reached(place: Place, used: int) -> Reached | None:
    assert place.limit.value
    used = in_units(place.limit.meter, used)
    threshold = threshold_reached(used, place.limit.value)
    if threshold is None:
        return None
    return Reached(place, used, threshold, f"{place.field}/{place.start_ms}/{place.limit.value}")


def _told(connection: sa.Connection, tenant_id: str, reached: Sequence[Reached]) -> Mapping[str, int]:
    """The highest threshold of which each counter was told; most were. Keys are those of `queue.enqueue_event`."""
    counters = {_event_key(tenant_id, one, threshold): one.counter for one in reached for threshold in THRESHOLDS}
    if not counters:
        return {}
    known = connection.scalars(sa.select(outbox.c.key).where(_is_one_of(outbox.c.key, counters)))
    told: dict[str, int] = {}
    for key in known:
        threshold = int(key.rpartition("/")[2])
        told[counters[key]] = max(threshold, told.get(counters[key], 0))
    return told


def _event_key(tenant_id: str, one: Reached, threshold: int) -> str:
    return f"{EVENT}/webhooks:{tenant_id}/{one.counter}/{threshold}"


def _holders(connection: sa.Connection, tenant_id: str, new: Sequence[Reached]) -> Mapping[tuple[str, str], str]:
    """(scope, subject) of users and keys to the account that is told of them besides the managers.

    What an event calls its user need not be an account, and must not be another administration's.
    """
    fields = [read_field(one.place.field) for one in new]
    subjects = {scope: {one.subject for one in fields if one.scope == scope} for scope in ("user", "key")}
    is_told = sa.and_(account.c.tenant == tenant_id, account.c.status == "active", account.c.role != "manager")
    users = sa.select(sa.literal("user"), account.c.id, account.c.id).where(
        is_told, _is_one_of(account.c.id, subjects["user"])
    )
    keys = (
        sa.select(sa.literal("key"), api_key.c.id, account.c.id)
        .join(account, account.c.id == api_key.c.account)
        .where(is_told, api_key.c.tenant == tenant_id, _is_one_of(api_key.c.id, subjects["key"]))
    )
    return {(scope, subject): holder for scope, subject, holder in connection.execute(users.union_all(keys))}


def _is_one_of(column: sa.Column[str], values: Collection[str | None]) -> sa.ColumnElement[bool]:
    return column == sa.any_(sa.cast(list(values), pg.ARRAY(sa.Text)))


def _announce(connection: sa.Connection, tenant_id: str, one: Reached, holders: Mapping[tuple[str, str], str]) -> None:
    scope, subject, selector, meter, window = read_field(one.place.field)
    rule = {"scope": scope, "selector": selector, "meter": meter, "window": window}
    ends_at = _instant(one.place.end_ms)
    known: dict[str, Any] = {
        "threshold": one.threshold, "value": one.place.limit.value, "used": one.used, "mode": one.place.limit.mode,
        "subject": subject,
    }  # fmt: skip
    key = f"{one.counter}/{one.threshold}"
    enqueue_event(
        connection, EVENT, tenant=tenant_id, key=key,
        payload=rule | known | {
            "unit": UNITS[meter], "window_start": _instant(one.place.start_ms), "window_end": ends_at,
        },
    )  # fmt: skip
    holder = holders.get((scope, subject or ""))
    others = [f"account:{holder}"] if holder else ["operators"] if is_envelope(one.place.limit) else []
    for recipient in (f"managers:{tenant_id}", *others):
        enqueue_mail(
            connection, key, recipient=recipient, subject=MAIL, tenant=tenant_id,
            payload=known | {"rule": rule, "ends_at": ends_at},
        )  # fmt: skip


def _instant(ms: int) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None

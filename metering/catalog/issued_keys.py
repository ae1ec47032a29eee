"""API keys: made, listed, changed, revoked, and announced before they end.

A secret is shown once and kept as its SHA-256 alone.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.catalog.changes import hold_catalog
from metering.catalog.snapshot import digest_of
from metering.catalog.terms import check_accepted
from metering.database import Actor, transaction
from metering.errors import Conflict, Forbidden, NotFound, Unprocessable
from metering.identity import Principal
from metering.outbox.queue import enqueue_event, enqueue_mail
from metering.rules.access import STEPS_DAYS, expiry_step
from metering.tables import account, api_key, project, tenant, usage_daily

KeyStatus = Literal["active", "expired", "revoked", "suspended"]

SECRET_PREFIX = "sk-jauge-"  # noqa: S105 - what a key begins with, so that scanners of secrets recognise one
SHOWN_CHARACTERS = 12
LIFE = timedelta(days=365)
LIFE_MAX = timedelta(days=731)
"""Two years: a secret that is never changed is known to ever more people."""
KEYS_MAX = 100
"""Keys of one account, or of an administration's programs, that are in use or were made within a day; not counting a
gateway's own. Every process remembers every key, so nobody makes and revokes them without end."""

ANNOUNCER = Actor("jauge:keys")


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. last_used_on: the latest day of the books on which usage was recorded."""

    id: str
    name: str
    prefix: str
    project: str | None
    account: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    status: KeyStatus
    last_used_on: date | None


@dataclass(frozen=True, slots=True)
class NewKey(Key):
    """A key that was just made, with its secret, for the only time."""

    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyAsked:
    """A key to be made, for the caller or for a program."""

    name: str
    project: str | None
    expires_at: datetime | None
    for_program: bool


def list_keys(
    connection: sa.Connection, tenant_id: str, caller: Principal, *, now: datetime, after: str = "", limit: int = 100
) -> list[Key]:  # fmt: skip
    """Keys after an id that the caller may see, in the order of ids: a member their own."""
    query = _keys(tenant_id, caller).where(api_key.c.id > after).order_by(api_key.c.id).limit(limit)
    rows = connection.execute(query).all()
    last_days = _last_days(connection, tenant_id, [row.id for row in rows])
    return [_key(row, last_days, now) for row in rows]


def find_key(connection: sa.Connection, tenant_id: str, caller: Principal, key_id: str, *, now: datetime) -> Key:
    """A key that the caller may see. Raises: NotFound."""
    row = connection.execute(_keys(tenant_id, caller).where(api_key.c.id == key_id)).first()
    if row is None:
        raise NotFound("unknown_key", "There is no such key.", field="key")
    return _key(row, _last_days(connection, tenant_id, [key_id]), now)


def create_key(
    connection: sa.Connection, tenant_id: str, caller: Principal, asked: KeyAsked, *, now: datetime
) -> NewKey:
    """Make a key of the caller's, or of a program in the administration.

    An operator makes those of programs only, and accepts nothing for them: such a key works once a manager has.
    Raises: Forbidden unless the caller has accepted the terms in force, or for a program by a member; Unprocessable
    for another end than `LIFE_MAX` allows, a project that isn't open, or one key too many.
    """
    assert caller.tenant == tenant_id or (caller.role == "operator" and asked.for_program)
    if asked.for_program and caller.role == "member":
        raise Forbidden("wrong_role", "Managers make the keys of programs.", field="for_program", expected="manager")
    hold_catalog(connection)
    if caller.role != "operator":
        check_accepted(connection, caller, now)
    expires_at = _checked_end(asked.expires_at or now + LIFE, now)
    owner = None if asked.for_program else caller.account
    _check_project(connection, tenant_id, asked.project)
    _check_room(connection, tenant_id, owner, now)
    key_id, secret = f"k-{secrets.token_hex(8)}", SECRET_PREFIX + secrets.token_urlsafe(32)
    connection.execute(
        api_key.insert().values(
            id=key_id, tenant=tenant_id, project=asked.project, account=owner, name=asked.name,
            prefix=secret[:SHOWN_CHARACTERS], digest=digest_of(secret), expires_at=expires_at, created_at=now,
        )
    )  # fmt: skip
    enqueue_event(
        connection, "key.created", tenant=tenant_id, key=key_id,
        payload={"key": key_id, "project": asked.project, "account": owner, "expires_at": expires_at},
    )  # fmt: skip
    made = find_key(connection, tenant_id, caller, key_id, now=now)
    return NewKey(**asdict(made), secret=secret)


def change_key(
    connection: sa.Connection, tenant_id: str, caller: Principal, key_id: str, changes: Mapping[str, Any], *,
    now: datetime,
) -> Key:  # fmt: skip
    """Change the name or the end of a key. Raises: NotFound; Conflict for a revoked one; Unprocessable."""
    found = find_key(connection, tenant_id, caller, key_id, now=now)
    if found.revoked_at is not None:
        raise Conflict("key_revoked", "The key is revoked, for good.", field="key")
    if "expires_at" in changes:
        _checked_end(changes["expires_at"], now)
    if changes:
        connection.execute(api_key.update().where(api_key.c.id == key_id).values(dict(changes)))
    return find_key(connection, tenant_id, caller, key_id, now=now)


def revoke_key(connection: sa.Connection, tenant_id: str, caller: Principal, key_id: str, *, now: datetime) -> None:
    """Refuse a key for good, and tell its holder; again changes nothing. Raises: NotFound."""
    find_key(connection, tenant_id, caller, key_id, now=now)
    for row in revoke_keys(connection, tenant_id, api_key.c.id == key_id, now=now):
        enqueue_mail(
            connection, row.id, recipient=_holder(row), subject="key_revoked", tenant=tenant_id,
            payload={"name": row.name, "prefix": row.prefix},
        )  # fmt: skip


def revoke_keys(
    connection: sa.Connection, tenant_id: str, which: sa.ColumnElement[bool], *, now: datetime
) -> Sequence[sa.Row[Any]]:
    """Revoke keys of an administration that aren't yet; returns them."""
    revoked = connection.execute(
        api_key.update()
        .where(api_key.c.tenant == tenant_id, api_key.c.revoked_at.is_(None), which)
        .values(revoked_at=now)
        .returning(api_key.c.id, api_key.c.tenant, api_key.c.account, api_key.c.name, api_key.c.prefix)
    ).all()
    for row in revoked:
        payload = {"key": row.id, "account": row.account}
        enqueue_event(connection, "key.revoked", tenant=tenant_id, key=row.id, payload=payload)
    return revoked


def announce_expiring_keys(engine: sa.Engine, now: datetime) -> int:
    """Tell holders of keys, 30, 7 and 1 days before, once each, that they end; return how many were told.

    Raises: Unavailable.
    """
    ends_soon = sa.and_(api_key.c.expires_at > now, api_key.c.expires_at <= now + timedelta(days=max(STEPS_DAYS)))
    query = (
        sa.select(api_key)
        .join(tenant, tenant.c.id == api_key.c.tenant)
        .outerjoin(account, account.c.id == api_key.c.account)
        .where(ends_soon, api_key.c.revoked_at.is_(None), tenant.c.status == "active")
        .where(sa.func.coalesce(account.c.status, "active") == "active")
        .order_by(api_key.c.id)
    )
    with transaction(engine, actor=ANNOUNCER) as connection:
        return sum(_announce(connection, row, now) for row in connection.execute(query).all())


def _announce(connection: sa.Connection, row: sa.Row[Any], now: datetime) -> bool:
    step = expiry_step(row.expires_at, now)
    key = f"{row.id}/{row.expires_at.isoformat()}/{step}"
    enqueue_event(
        connection, "key.expiring", tenant=row.tenant, key=key,
        payload={"key": row.id, "account": row.account, "expires_at": row.expires_at, "days": step},
    )  # fmt: skip
    return enqueue_mail(
        connection, key, recipient=_holder(row), subject="key_expiring", tenant=row.tenant,
        payload={"name": row.name, "prefix": row.prefix, "expires_at": row.expires_at},
    )  # fmt: skip


def _holder(row: sa.Row[Any]) -> str:
    """Who is told of a key; of a program's, the managers."""
    return f"managers:{row.tenant}" if row.account is None else f"account:{row.account}"


def _keys(tenant_id: str, caller: Principal) -> sa.Select[Any]:
    query = (
        sa.select(api_key, account.c.status.label("account_status"), tenant.c.status.label("tenant_status"))
        .join(tenant, tenant.c.id == api_key.c.tenant)
        .outerjoin(account, account.c.id == api_key.c.account)
        .where(api_key.c.tenant == tenant_id)
    )
    return query.where(api_key.c.account == caller.account) if caller.role == "member" else query


def _key(row: sa.Row[Any], last_days: Mapping[str, date], now: datetime) -> Key:
    own = {name: getattr(row, name) for name in Key.__dataclass_fields__ if name not in {"status", "last_used_on"}}
    return Key(**own, status=_status(row, now), last_used_on=last_days.get(row.id))


def _status(row: sa.Row[Any], now: datetime) -> KeyStatus:
    if row.revoked_at is not None:
        return "revoked"
    if row.expires_at is not None and row.expires_at <= now:
        return "expired"
    return "suspended" if "suspended" in {row.account_status, row.tenant_status} else "active"


def _last_days(connection: sa.Connection, tenant_id: str, key_ids: Sequence[str]) -> dict[str, date]:
    """Latest day of use of each key that was ever used, from the rollup."""
    used = usage_daily.c
    query = (
        sa.select(used.api_key, sa.func.max(used.day).label("last_day"))
        .where(used.tenant == tenant_id, used.api_key == sa.any_(sa.cast(list(key_ids), pg.ARRAY(sa.Text))))
        .group_by(used.api_key)
    )
    return {row.api_key: row.last_day for row in connection.execute(query)}


def _checked_end(expires_at: datetime, now: datetime) -> datetime:
    if not now < expires_at <= now + LIFE_MAX:
        raise Unprocessable(
            "out_of_range", "A key can't end then.", field="expires_at", expected="an instant within two years"
        )
    return expires_at


def _check_project(connection: sa.Connection, tenant_id: str, project_id: str | None) -> None:
    query = sa.select(project.c.status).where(project.c.tenant == tenant_id, project.c.id == project_id)
    if project_id is not None and connection.scalar(query) != "active":
        raise Unprocessable("unknown_project", "There is no such open project.", field="project")


def _check_room(connection: sa.Connection, tenant_id: str, owner: str | None, now: datetime) -> None:
    """Raises: Unprocessable if the account, or the administration's programs, have as many keys as may be."""
    is_in_use = sa.and_(api_key.c.revoked_at.is_(None), api_key.c.expires_at > now)
    counted = connection.scalar(
        sa.select(sa.func.count()).where(
            api_key.c.tenant == tenant_id, api_key.c.account.is_not_distinct_from(owner), ~api_key.c.imported,
            sa.or_(is_in_use, api_key.c.created_at > now - timedelta(days=1)),
        )
    )  # fmt: skip
    if (counted or 0) >= KEYS_MAX:
        raise Unprocessable(
            "too_many_keys", "There are too many keys.", expected=f"at most {KEYS_MAX} in use or made within a day"
        )

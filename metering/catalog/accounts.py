"""Accounts of an administration: who manages, who may work, who is gone.

An account is a pseudonym; who it is stands in `person` alone, and is erased with the account. The ledger keeps the
pseudonym, so its sums never change.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.catalog.changes import hold_catalog
from metering.catalog.issued_keys import revoke_keys
from metering.errors import Conflict, Forbidden, NotFound
from metering.identity import Principal
from metering.outbox.queue import enqueue_event, enqueue_mail
from metering.tables import account, api_key, person, tenant, token

Role = Literal["manager", "member"]
Status = Literal["active", "suspended", "deleted"]


@dataclass(frozen=True, slots=True)
class Account:
    """An account with who it is; name, email and language are None once it is erased."""

    id: str
    role: Role
    status: Status
    status_reason: str | None
    suspended_by: str | None
    created_at: datetime
    name: str | None = field(repr=False)
    email: str | None = field(repr=False)
    language: str | None


@dataclass(frozen=True, slots=True)
class Administration:
    """An administration, as its agents see it."""

    id: str
    name: str
    siret: str | None
    status: Status


def list_accounts(connection: sa.Connection, tenant_id: str, *, after: str = "", limit: int = 100) -> list[Account]:
    """Accounts after an id, in the order of ids."""
    query = _accounts().where(account.c.tenant == tenant_id, account.c.id > after)
    return [Account(*row) for row in connection.execute(query.order_by(account.c.id).limit(limit))]


def find_account(connection: sa.Connection, tenant_id: str, account_id: str) -> Account:
    """An account of an administration. Raises: NotFound for one that isn't there, or is deleted."""
    query = _accounts().where(account.c.tenant == tenant_id, account.c.id == account_id, account.c.status != "deleted")
    if (row := connection.execute(query).first()) is None:
        raise NotFound("unknown_account", "There is no such account.", field="account")
    return Account(*row)


def administration_of(connection: sa.Connection, tenant_id: str) -> Administration:
    """The administration that an account belongs to."""
    columns = (tenant.c.id, tenant.c.name, tenant.c.siret, tenant.c.status)
    return Administration(*connection.execute(sa.select(*columns).where(tenant.c.id == tenant_id)).one())


def set_role(connection: sa.Connection, caller: Principal, tenant_id: str, account_id: str, role: Role) -> Account:
    """Make an account a manager or a member. Raises: NotFound; Conflict for the last manager; Forbidden."""
    found = _held(connection, caller, tenant_id, account_id)
    if found.role == "manager" and role == "member":
        _keep_a_manager(connection, tenant_id, found, stays=True)
    connection.execute(account.update().where(account.c.id == account_id).values(role=role))
    return find_account(connection, tenant_id, account_id)


def suspend_account(
    connection: sa.Connection, caller: Principal, tenant_id: str, account_id: str, reason: str, *, now: datetime
) -> Account:  # fmt: skip
    """Refuse an account's keys and tokens until `restore_account`. What an operator suspended stays so.

    Raises: NotFound; Conflict for the last manager, unless an operator does it; Forbidden.
    """
    found = _held(connection, caller, tenant_id, account_id)
    if caller.role != "operator":
        _keep_a_manager(connection, tenant_id, found, stays=True)
    by = "operator" if caller.role == "operator" else "manager"
    connection.execute(
        account.update()
        .where(account.c.id == account_id)
        .values(status="suspended", status_reason=reason, suspended_by=by)
    )
    key = f"{account_id}/{now.isoformat()}"
    recipient, told = f"account:{account_id}", {"reason": reason}
    enqueue_mail(connection, key, recipient=recipient, subject="account_suspended", payload=told, tenant=tenant_id)
    payload = {"account": account_id, "by": by}
    enqueue_event(connection, "account.suspended", tenant=tenant_id, key=key, payload=payload)
    return find_account(connection, tenant_id, account_id)


def restore_account(connection: sa.Connection, caller: Principal, tenant_id: str, account_id: str) -> None:
    """End a suspension; of an active account, nothing. Raises: NotFound; Forbidden where an operator suspended it."""
    _held(connection, caller, tenant_id, account_id)
    restored = {"status": "active", "status_reason": None, "suspended_by": None}
    connection.execute(account.update().where(account.c.id == account_id).values(restored))


def delete_account(
    connection: sa.Connection, caller: Principal, tenant_id: str, account_id: str, *, now: datetime
) -> None:
    """Delete an account, one's own or, as a manager or operator, another one's.

    Raises: NotFound; Conflict for the last manager of others, unless an operator does it; Forbidden.
    """
    found = _held(connection, caller, tenant_id, account_id, if_own=True)
    if caller.role != "operator":
        _keep_a_manager(connection, tenant_id, found, stays=False)
    close_accounts(connection, tenant_id, [account_id], now=now)


def close_accounts(connection: sa.Connection, tenant_id: str, account_ids: Iterable[str], *, now: datetime) -> None:
    """Delete accounts with their keys and tokens.

    The mail that tells of it is the last use of an address: who carries it erases the person with it.
    """
    ids = list(account_ids)
    among = sa.any_(sa.cast(ids, pg.ARRAY(sa.Text)))  # one parameter, however many there are
    revoke_keys(connection, tenant_id, api_key.c.account == among, now=now)
    connection.execute(
        token.update().where(token.c.account == among, token.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    closed = {"status": "deleted", "status_reason": None, "suspended_by": None}
    connection.execute(account.update().where(account.c.id == among).values(closed))
    for one in ids:
        recipient = f"account:{one}"
        enqueue_mail(connection, one, recipient=recipient, subject="account_deleted", payload={}, tenant=tenant_id)
        enqueue_event(connection, "account.deleted", tenant=tenant_id, key=one, payload={"account": one})


def describe_person(
    connection: sa.Connection, tenant_id: str, account_id: str, changes: dict[str, Any]
) -> Account:  # fmt: skip
    """Change the name or language of who an account is. Raises: NotFound."""
    found = find_account(connection, tenant_id, account_id)
    if not changes:
        return found
    connection.execute(person.update().where(person.c.account == account_id).values(changes))
    return find_account(connection, tenant_id, account_id)


def _accounts() -> sa.Select[Any]:
    alive = sa.and_(person.c.account == account.c.id, account.c.status != "deleted")
    own = (account.c[name] for name in ("id", "role", "status", "status_reason", "suspended_by", "created_at"))
    return sa.select(*own, person.c.name, person.c.email, person.c.language).outerjoin_from(account, person, alive)


def _held(
    connection: sa.Connection, caller: Principal, tenant_id: str, account_id: str, *, if_own: bool = False
) -> Account:
    """An account that the caller may change, while nobody else changes any. if_own: also as a member, one's own.

    Raises: NotFound; Forbidden for a caller who was deleted, suspended or made a member since the token was checked,
    and where an operator has suspended the account.
    """
    hold_catalog(connection)
    if caller.role != "operator":
        assert caller.account is not None
        query = sa.select(account.c.role).where(account.c.id == caller.account, account.c.status == "active")
        role = connection.scalar(query)
        is_own = if_own and account_id == caller.account
        if role is None or not (is_own or role == "manager"):
            raise Forbidden("not_a_manager", "The caller doesn't manage the administration any more.")
    found = find_account(connection, tenant_id, account_id)
    if found.suspended_by == "operator" and caller.role != "operator":
        # Nor deleted, to invite the same person again.
        raise Forbidden("suspended_by_operator", "An operator has suspended the account.", field="account")
    return found


def _keep_a_manager(connection: sa.Connection, tenant_id: str, leaving: Account, *, stays: bool) -> None:
    """Raises: Conflict if nobody would manage those who remain. stays: as a member, or suspended."""
    if leaving.role != "manager":
        return
    others = sa.select(account.c.role, account.c.status).where(
        account.c.tenant == tenant_id, account.c.id != leaving.id, account.c.status != "deleted"
    )
    remaining = connection.execute(others).all()
    if (remaining or stays) and not any(row.role == "manager" and row.status == "active" for row in remaining):
        raise Conflict(
            "last_manager", "Somebody must manage the administration; name another manager first.", field="account"
        )

"""Activation: who shows the code that was mailed owns the address, and gets an account with a first token."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from metering.catalog.access import ERASED, VISITOR
from metering.catalog.changes import hold_catalog
from metering.catalog.own_tokens import issue_own_token
from metering.database import transaction
from metering.errors import Forbidden, Gone, NotFound
from metering.outbox.queue import enqueue_event
from metering.outbox.secrets import code_digest
from metering.tables import access_request, account, person, tenant

TOKEN_LIFE = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Activation:
    """An account and a token for it, which is shown this once."""

    account: str
    tenant: str
    role: str
    token: str = field(repr=False)
    expires_at: datetime


def activate(engine: sa.Engine, code: str, now: datetime) -> Activation:
    """Open the account that a code stands for; who has one there already gets a new token for it.

    Raises: NotFound for a code that was never sent; Gone for one that was used or has expired; Forbidden where the
    account or administration is suspended; Unavailable.
    """
    with transaction(engine, actor=VISITOR) as connection:
        wanted = sa.select(access_request).where(access_request.c.code_digest == code_digest(code))
        if connection.execute(wanted).first() is None:  # before the lock: a wrong code holds nobody up
            raise NotFound("unknown_code", "There is no such code.", field="code")
        hold_catalog(connection)
        request = connection.execute(wanted).one()
        _check_usable(connection, request, now)
        account_id = _account_of(connection, request) or _open_account(connection, request)
        connection.execute(
            access_request.update()
            .where(access_request.c.id == request.id)
            .values(state="activated", account=account_id, **ERASED)
        )
        role = connection.scalar(sa.select(account.c.role).where(account.c.id == account_id))
        expires_at = now + TOKEN_LIFE
        name = f"activation-{secrets.token_hex(4)}"
        token = issue_own_token(connection, request.tenant, account_id, name, expires_at=expires_at)
    assert role is not None
    return Activation(account_id, request.tenant, role, token, expires_at)


def _check_usable(connection: sa.Connection, request: sa.Row[Any], now: datetime) -> None:
    if request.state == "activated":
        raise Gone("code_used", "The code has been used.", field="code")
    status = connection.scalar(sa.select(tenant.c.status).where(tenant.c.id == request.tenant))
    is_over = request.state != "approved" or request.code_expires_at <= now or status == "deleted"
    if is_over or not _is_backed(connection, request):
        raise Gone("code_expired", "The code has expired; access can be asked for again.", field="code")
    if status == "suspended":
        raise Forbidden("tenant_suspended", "The administration is suspended.")


def _is_backed(connection: sa.Connection, request: sa.Row[Any]) -> bool:
    """Whether who invited still may: a manager who is out leaves no way back in. What operators decide stays."""
    role, _, author = request.decided_by.partition(":")
    if role != "manager":
        return True
    manages = sa.exists().where(
        account.c.tenant == request.tenant, account.c.id == author, account.c.role == "manager",
        account.c.status == "active",
    )  # fmt: skip
    return bool(connection.scalar(sa.select(manages)))


def _account_of(connection: sa.Connection, request: sa.Row[Any]) -> str | None:
    """The account that the address has in the administration. Raises: Forbidden if it is suspended."""
    found = connection.execute(
        sa.select(account.c.id, account.c.status)
        .join(person, person.c.account == account.c.id)
        .where(
            account.c.tenant == request.tenant,
            account.c.status != "deleted",
            sa.func.lower(person.c.email) == request.email.lower(),
        )
    ).first()
    if found is not None and found.status == "suspended":
        raise Forbidden("account_suspended", "The account is suspended.")
    return None if found is None else str(found.id)


def _open_account(connection: sa.Connection, request: sa.Row[Any]) -> str:
    """Create an account under a pseudonym that says nothing of who it is."""
    account_id = f"u-{secrets.token_hex(6)}"
    connection.execute(account.insert().values(id=account_id, tenant=request.tenant, role=request.role))
    connection.execute(
        person.insert().values(
            account=account_id, tenant=request.tenant, name=request.name, email=request.email,
            language=request.language,
        )
    )  # fmt: skip
    payload = {"account": account_id, "role": request.role, "request": request.id}
    enqueue_event(connection, "account.activated", tenant=request.tenant, key=account_id, payload=payload)
    return account_id

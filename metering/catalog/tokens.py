"""Tokens of services, operators and accounts, and the door that checks them.

A token is shown once, when it is made; only its SHA-256 is kept.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa

from metering.catalog.changes import hold_catalog
from metering.catalog.snapshot import CatalogReader, Snapshot, TokenEntry, digest_of
from metering.database import Actor, transaction
from metering.errors import Conflict, Forbidden, NotFound, Unauthorized
from metering.identity import Principal, Role, secret_of
from metering.tables import token

TokenRole = Literal["gateway", "operator", "account"]

TOKEN_PREFIX = "jauge_"  # noqa: S105 - what a token begins with, so that scanners of secrets recognise one


@dataclass(frozen=True, slots=True)
class Token:
    """A token, without its secret."""

    name: str
    role: TokenRole
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    tenant: str | None
    account: str | None


def add_token(engine: sa.Engine, name: str, role: TokenRole, actor: Actor | None = None) -> str:
    """Make a service's token and return its secret, for the only time. Raises: Conflict if the name is taken."""
    with transaction(engine, actor=actor) as connection:
        hold_catalog(connection)
        if connection.scalar(sa.select(token.c.name).where(token.c.name == name)) is not None:
            raise Conflict("token_exists", f"A token named {name} exists.", field="name")
        return issue_token(connection, name, role)


def issue_token(
    connection: sa.Connection,
    name: str,
    role: TokenRole,
    *,
    tenant: str | None = None,
    account: str | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Make a token in the caller's transaction and return its secret, for the only time."""
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    connection.execute(
        token.insert().values(
            name=name, role=role, digest=digest_of(secret), tenant=tenant, account=account, expires_at=expires_at
        )
    )
    return secret


def revoke_token(engine: sa.Engine, name: str, actor: Actor | None = None) -> None:
    """Refuse a token from now on. Raises: NotFound."""
    with transaction(engine, actor=actor) as connection:
        revoked = connection.execute(
            token.update()
            .where(token.c.name == name)
            .values(revoked_at=sa.func.coalesce(token.c.revoked_at, sa.func.now()))
        )
        if revoked.rowcount == 0:
            raise NotFound("unknown_token", f"No token is named {name}.", field="name")


def list_tokens(engine: sa.Engine, actor: Actor | None = None) -> list[Token]:
    """Every token that the actor may see, by name."""
    with transaction(engine, actor=actor) as connection:
        columns = (token.c[name] for name in Token.__dataclass_fields__)
        return [Token(*row) for row in connection.execute(sa.select(*columns).order_by(token.c.name))]


class Doorkeeper:
    """Checks tokens against the process's catalogue."""

    def __init__(self, reader: CatalogReader, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._reader = reader
        self._now = now

    def is_known(self, authorization: str | None) -> bool:
        """Whether `admit` can answer from memory, without waiting for the database."""
        catalog = self._reader.loaded
        return catalog is not None and digest_of((authorization or "").removeprefix("Bearer ")) in catalog.tokens

    def knows(self, authorization: str, *roles: Role) -> bool:
        """Whether `admit` is sure to let a caller in, by what is in memory."""
        catalog = self._reader.loaded
        found = None if catalog is None else catalog.tokens.get(digest_of(authorization.removeprefix("Bearer ")))
        return found is not None and found.role in roles and is_valid(found, self._now())

    def admit(self, authorization: str | None, *roles: Role) -> Principal:
        """Who an Authorization header says is calling.

        Raises: Unauthorized without a valid token; Forbidden if its role is not among `roles`, or its account or
        administration is suspended; Unavailable.
        """
        found = self._reader.find_token(digest_of(secret_of(authorization)))
        if found is None or not is_valid(found, self._now()):
            raise Unauthorized("invalid_token", "The token is unknown, revoked or expired.", field="Authorization")
        caller = principal_of(found, self._reader.current())
        if caller.role not in roles:
            raise Forbidden("wrong_role", "The token has another role.", expected=" or ".join(roles))
        return caller


def is_valid(found: TokenEntry, now: datetime) -> bool:
    """Whether a token is neither revoked nor expired."""
    return found.revoked_at is None and (found.expires_at is None or found.expires_at > now)


def principal_of(found: TokenEntry, catalog: Snapshot) -> Principal:
    """Who a token speaks for, as things stand.

    Raises: Unauthorized if its account or administration is deleted; Forbidden if one of them is suspended.
    """
    if found.tenant is None or found.account is None:
        return Principal(found.name, "operator" if found.role == "operator" else "gateway")
    tenant, account = catalog.tenants.get(found.tenant), catalog.accounts.get(found.account)
    if tenant is None or account is None or "deleted" in {tenant.status, account.status}:
        raise Unauthorized("invalid_token", "The token's account is deleted.", field="Authorization")
    if tenant.status == "suspended":
        raise Forbidden("tenant_suspended", "The administration is suspended.")
    if account.status == "suspended":
        raise Forbidden("account_suspended", "The account is suspended.")
    return Principal(found.name, "manager" if account.role == "manager" else "member", tenant.id, account.id)

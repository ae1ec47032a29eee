"""Tokens of an account, for its own agent: each has a name that is the agent's own choice."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from metering.catalog.changes import hold_catalog
from metering.catalog.tokens import issue_token
from metering.errors import Conflict, NotFound, Unprocessable
from metering.tables import token

TOKENS_MAX = 20
"""Tokens of one account that are in use or were made within a day: every process remembers every token."""

_SEPARATOR = ":"
"""Between the account's id and the name: names of tokens are unique in the whole catalogue."""


@dataclass(frozen=True, slots=True)
class OwnToken:
    """A token of an account, without its secret."""

    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_usable(self, now: datetime) -> bool:
        """Whether it is accepted at an instant."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def add_own_token(
    connection: sa.Connection, tenant_id: str, account_id: str, name: str, *, expires_at: datetime, now: datetime
) -> str:  # fmt: skip
    """Make a token and return its secret, for the only time.

    Raises: Conflict if the account has, or had, one of this name; Unprocessable for one too many.
    """
    hold_catalog(connection)
    own = list_own_tokens(connection, account_id)
    if name in {one.name for one in own}:
        raise Conflict("token_exists", "The account has, or had, a token of this name.", field="name")
    if sum(one.is_usable(now) or one.created_at > now - timedelta(days=1) for one in own) >= TOKENS_MAX:
        raise Unprocessable(
            "too_many_tokens", "The account has too many tokens.", field="name",
            expected=f"at most {TOKENS_MAX} in use or made within a day",
        )  # fmt: skip
    return issue_own_token(connection, tenant_id, account_id, name, expires_at=expires_at)


def issue_own_token(
    connection: sa.Connection, tenant_id: str, account_id: str, name: str, *, expires_at: datetime
) -> str:
    """Make a token under a new name, however many there are, and return its secret, for the only time."""
    full_name = account_id + _SEPARATOR + name
    return issue_token(connection, full_name, "account", tenant=tenant_id, account=account_id, expires_at=expires_at)


def list_own_tokens(connection: sa.Connection, account_id: str) -> list[OwnToken]:
    """Tokens of an account, oldest first; also those revoked."""
    columns = (token.c.name, token.c.created_at, token.c.expires_at, token.c.revoked_at)
    query = sa.select(*columns).where(token.c.account == account_id).order_by(token.c.created_at, token.c.name)
    return [OwnToken(own_name(account_id, name), *rest) for name, *rest in connection.execute(query)]


def revoke_own_token(connection: sa.Connection, account_id: str, name: str, *, now: datetime) -> None:
    """Refuse a token from now on; again changes nothing. Raises: NotFound."""
    revoked = connection.execute(
        token.update()
        .where(token.c.account == account_id, token.c.name == account_id + _SEPARATOR + name)
        .values(revoked_at=sa.func.coalesce(token.c.revoked_at, now))
    )
    if revoked.rowcount == 0:
        raise NotFound("unknown_token", "The account has no token of this name.", field="name")


def own_name(account_id: str, full_name: str) -> str:
    """The name of a token within its account."""
    return full_name.removeprefix(account_id + _SEPARATOR)

"""Who calls: service tokens and what their role allows.

A token is shown once, when it is made; only its SHA-256 is kept. Tokens hold 256 random bits, so a plain hash is
enough: there is nothing to guess.
"""

import base64
import binascii
import hashlib
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from metering.database import transaction
from metering.errors import Conflict, Forbidden, NotFound, Unauthorized
from metering.tables import token

Role = Literal["gateway", "operator"]

TOKEN_PREFIX = "jauge_"  # noqa: S105 - what a token begins with, so that scanners of secrets recognise one
REMEMBERED_S = 10


@dataclass(frozen=True, slots=True)
class Token:
    """A service token, without its secret."""

    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


def add_token(engine: sa.Engine, name: str, role: Role) -> str:
    """Make a token and return its secret, for the only time. Raises: Conflict if the name is taken."""
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    with transaction(engine) as connection:
        if connection.scalar(sa.select(token.c.name).where(token.c.name == name)) is not None:
            raise Conflict("token_exists", f"A token named {name} exists.", field="name")
        connection.execute(token.insert().values(name=name, role=role, digest=_digest(secret)))
    return secret


def revoke_token(engine: sa.Engine, name: str) -> None:
    """Refuse a token from now on (within seconds, where it is remembered). Raises: NotFound."""
    with transaction(engine) as connection:
        revoked = connection.execute(
            token.update()
            .where(token.c.name == name)
            .values(revoked_at=sa.func.coalesce(token.c.revoked_at, sa.func.now()))
        )
        if revoked.rowcount == 0:
            raise NotFound("unknown_token", f"No token is named {name}.", field="name")


def list_tokens(engine: sa.Engine) -> list[Token]:
    """Every token, by name."""
    with transaction(engine) as connection:
        rows = connection.execute(sa.select(token).order_by(token.c.name))
        return [Token(row.name, row.role, row.created_at, row.revoked_at) for row in rows]


class Doorkeeper:
    """Checks tokens against the table, remembering answers for some seconds."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._remembered: dict[bytes, tuple[float, Token | None]] = {}

    def admit(self, authorization: str | None, *roles: Role) -> Token:
        """The token of an Authorization header: `Bearer TOKEN`, or `Basic` with the token as password (browsers).

        Raises: Unauthorized without a valid token; Forbidden if its role is not among `roles`; Unavailable.
        """
        found = self._find(_digest(_secret_of(authorization)))
        if found is None or found.revoked_at is not None:
            raise Unauthorized("invalid_token", "The token is unknown or revoked.", field="Authorization")
        if found.role not in roles:
            raise Forbidden("wrong_role", "The token has another role.", expected=" or ".join(roles))
        return found

    def _find(self, digest: bytes) -> Token | None:
        now = time.monotonic()
        at, found = self._remembered.get(digest, (now - REMEMBERED_S, None))
        if now - at < REMEMBERED_S:
            return found
        with transaction(self._engine) as connection:
            row = connection.execute(sa.select(token).where(token.c.digest == digest)).first()
        found = None if row is None else Token(row.name, row.role, row.created_at, row.revoked_at)
        if len(self._remembered) > 10_000:  # a flood of wrong tokens
            self._remembered.clear()
        self._remembered[digest] = (now, found)
        return found


def _secret_of(authorization: str | None) -> str:
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            credentials = ""
    if scheme.lower() != "bearer" or not credentials:
        raise Unauthorized(
            "missing_token", "A service token is needed.", field="Authorization", expected="Bearer TOKEN"
        )
    return credentials.strip()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()

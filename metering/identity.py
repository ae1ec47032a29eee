"""Who calls, and on whose behalf: what every route and report knows of a caller."""

import base64
import binascii
from dataclasses import dataclass
from typing import Literal

from metering.database import Actor
from metering.errors import Unauthorized

Role = Literal["gateway", "operator", "manager", "member"]
"""gateway and operator are of the platform; manager and member are agents of one administration."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose token is valid. tenant and account are those of a manager or member."""

    name: str
    role: Role
    tenant: str | None = None
    account: str | None = None

    @property
    def actor(self) -> Actor:
        """On whose behalf the database acts: an administration's agents see its rows only."""
        return Actor(f"{self.role}:{self.account or self.name}", self.tenant)


def is_basic(authorization: str | None) -> bool:
    """Whether an Authorization header is of a browser's kind, which it sends unasked, even for another site's page."""
    return (authorization or "").partition(" ")[0].lower() == "basic"


def secret_of(authorization: str | None) -> str:
    """The secret of an Authorization header: `Bearer TOKEN`, or `Basic` with the token as password (browsers).

    Raises: Unauthorized.
    """
    scheme, _, credentials = (authorization or "").partition(" ")
    if is_basic(authorization):
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            credentials = ""
    if scheme.lower() != "bearer" or not credentials:
        raise Unauthorized("missing_token", "A token is needed.", field="Authorization", expected="Bearer TOKEN")
    return credentials.strip()

"""Which account somebody has whom the identity provider has identified.

The SIRET that the provider proves gives the administration. In it the account is the one that this identity was first
seen with; the first time, the one whose address is the same, which a mailed code has proven. From then on the identity
counts, so that an address that is given to somebody else opens nothing. A provider that proves no SIRET leaves it to
the identity, or the address, where only one account has it.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.database import transaction
from metering.errors import Forbidden
from metering.tables import account, console_identity, person, tenant


@dataclass(frozen=True, slots=True)
class Proven:
    """What the provider says of somebody. email: None where it says none, or doesn't stand for it; siret: 14 digits."""

    issuer: str
    subject: str = field(repr=False)
    name: str = field(repr=False)
    email: str | None = field(repr=False)
    siret: str | None

    @property
    def digest(self) -> bytes:
        """What is kept of the identity."""
        return hashlib.sha256(f"{self.issuer}\0{self.subject}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Known:
    """An account of somebody who was identified, whatever its status."""

    tenant: str
    account: str


def account_of(engine: sa.Engine, proven: Proven, now: datetime) -> Known | None:
    """The account of who was identified; None: there is none.

    Raises: Forbidden if there are several, or the address is that of an account of another identity; Unavailable.
    """
    with transaction(engine) as connection:
        found = _only(connection, _accounts(proven).where(console_identity.c.digest == proven.digest))
        if found is not None or proven.email is None:
            return found
        found = _only(connection, _accounts(proven).where(sa.func.lower(person.c.email) == proven.email.lower()))
        if found is not None:
            _remember(connection, proven, found, now)
        return found


def _accounts(proven: Proven) -> sa.Select[tuple[str, str]]:
    """Accounts of the proven administration, or of all where none is proven, with address and identity."""
    query = (
        sa.select(account.c.tenant, account.c.id)
        .join(tenant, tenant.c.id == account.c.tenant)
        .outerjoin(person, person.c.account == account.c.id)
        .outerjoin(console_identity, console_identity.c.account == account.c.id)
        .where(account.c.status != "deleted", tenant.c.status != "deleted")
        .limit(2)
    )
    return query if proven.siret is None else query.where(tenant.c.siret == proven.siret)


def _only(connection: sa.Connection, query: sa.Select[tuple[str, str]]) -> Known | None:
    rows = connection.execute(query).all()
    if len(rows) > 1:
        raise Forbidden("identity_ambiguous", "More than one account has this address, and no SIRET tells which.")
    return Known(rows[0].tenant, rows[0].id) if rows else None


def _remember(connection: sa.Connection, proven: Proven, found: Known, now: datetime) -> None:
    """Keep the identity with the account. Raises: Forbidden if the account has another one."""
    taken = sa.exists().where(console_identity.c.account == found.account)
    if connection.scalar(sa.select(taken)):
        raise Forbidden("identity_conflict", "The account of this address belongs to another identity.")
    connection.execute(
        pg.insert(console_identity)
        .values(digest=proven.digest, tenant=found.tenant, account=found.account, created_at=now)
        .on_conflict_do_nothing()  # signed in twice at once
    )

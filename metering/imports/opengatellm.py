"""The catalogue of an OpenGateLLM, taken over: shown first, then written, all of it or nothing.

Nothing is ever written to the gateway's database. Repeating the import adds what is new there, and changes nothing else
but the limits of its roles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from metering.catalog.apply import Change, apply, compare
from metering.catalog.changes import hold_catalog
from metering.imports.attribution import Attribution, TenantMap, attribute
from metering.imports.directory import Directory, User, read_directory
from metering.imports.people import (
    Keys,
    OwnLimit,
    add_accounts,
    add_keys,
    add_own_limits,
    find_keys,
    known_accounts,
    own_limits,
)
from metering.imports.tables import Shape, read_shape, reading
from metering.imports.wanted import WantedCatalogue, wanted_catalogue


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway's database as it was read. shape: of its tables."""

    shape: Shape
    directory: Directory


@dataclass(frozen=True, slots=True)
class Prepared:
    """What taking over would write. users: without an account; own_limits and keys: those that are new."""

    attribution: Attribution
    catalogue: WantedCatalogue
    changes: Sequence[Change]
    users: Sequence[User]
    own_limits: Sequence[OwnLimit]
    keys: Keys

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return not (self.changes or self.users or self.own_limits or self.keys.new)

    @property
    def counts(self) -> Mapping[str, int]:
        """How much of what would be written, for people."""
        return {
            "documents": len(self.changes),
            "accounts": len(self.users),
            "limits of single users": len(self.own_limits),
            "keys": sum(map(len, self.keys.new.values())),
        }


def read_gateway(engine: sa.Engine) -> Gateway:
    """Read everything but the usage. Raises: Unavailable, Forbidden, Unprocessable for another kind of database."""
    with reading(engine) as connection:
        shape = read_shape(connection)
        return Gateway(shape, read_directory(connection, shape))


def prepare(
    connection: sa.Connection, directory: Directory, tenants: TenantMap, secret: bytes | None
) -> Prepared:  # fmt: skip
    """Compare a gateway's directory with the catalogue. Raises: Unprocessable for a map that doesn't fit."""
    known = known_accounts(connection, directory)
    attribution = attribute(directory, tenants, known)
    catalogue = wanted_catalogue(connection, directory, attribution)
    return Prepared(
        attribution=attribution,
        catalogue=catalogue,
        changes=compare(connection, catalogue.wanted),
        users=[user for user in directory.users.values() if user.id not in known],
        own_limits=own_limits(connection, directory, attribution),
        keys=find_keys(connection, directory, attribution, secret),
    )


def take_over(
    connection: sa.Connection, directory: Directory, tenants: TenantMap, secret: bytes | None, *, author: str,
    now: datetime,
) -> Prepared:  # fmt: skip
    """Write what differs, in the caller's transaction; returns what that was. Raises: Conflict, Unprocessable."""
    hold_catalog(connection)
    prepared = prepare(connection, directory, tenants, secret)
    apply(connection, prepared.catalogue.wanted)
    add_accounts(connection, prepared.users, prepared.attribution, now)
    add_own_limits(connection, prepared.own_limits, author, now)
    add_keys(connection, prepared.keys)
    return prepared

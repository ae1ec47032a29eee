"""The record of changes: who changed what, and when. Triggers write it, one transaction at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from metering.tables import catalog_change

CATALOG_LOCK = 0x4A415543
"""The lock that every change of the catalogue takes, see the migration."""


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A change of the catalogue. `before` and `after` are rows without hashes, names of people and addresses."""

    number: int
    changed_at: datetime
    author: str
    entity: str
    key: str
    tenant: str | None
    action: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


def hold_catalog(connection: sa.Connection) -> None:
    """Be the only one to change the catalogue until the transaction ends: what is read from here on stays true."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CATALOG_LOCK)))


def list_changes(
    connection: sa.Connection, *, tenant: str | None, entity: str | None, before: int | None, limit: int
) -> list[RecordedChange]:
    """Changes with a number below `before`, newest first; of one administration, or of one table."""
    query = sa.select(*(catalog_change.c[name] for name in RecordedChange.__dataclass_fields__))
    if tenant is not None:
        query = query.where(catalog_change.c.tenant == tenant)
    if entity is not None:
        query = query.where(catalog_change.c.entity == entity)
    if before is not None:
        query = query.where(catalog_change.c.number < before)
    rows = connection.execute(query.order_by(catalog_change.c.number.desc()).limit(limit))
    return [RecordedChange(*row) for row in rows]

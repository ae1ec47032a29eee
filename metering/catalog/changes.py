"""The record of changes, as read: who changed what, and when. Triggers write it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from metering.tables import catalog_change


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

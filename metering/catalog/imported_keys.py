"""API keys that a gateway has issued: they go on working."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.dialects import postgresql as pg

from metering.catalog.changes import hold_catalog
from metering.catalog.documents import Document, Id, Instant, Line
from metering.errors import Conflict, Unprocessable
from metering.tables import account, api_key, project

PLACES_TOLD_MAX = 20


class ImportedKey(Document, frozen=True, kw_only=True):
    """A key that a gateway has issued; sha256 is of its secret. Without an account it is a program's."""

    id: Id
    name: Line
    prefix: Annotated[str, Meta(min_length=1, max_length=20)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    project: Id | None = None
    account: Id | None = None
    expires_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """How many keys were new, and how many were known already."""

    added: int
    known: int


def import_keys(connection: sa.Connection, tenant_id: str, imported: Sequence[ImportedKey]) -> Imported:
    """Take over keys that a gateway has issued, all of them or none; known ones stay as they are, even if revoked.

    Raises: Conflict, naming the places, where an id or a digest is another key's; Unprocessable for an unknown project
    or account.
    """
    hold_catalog(connection)
    _check_references(connection, tenant_id, imported)
    identities, owners = _known_keys(connection, imported)
    added, conflicts = [], []
    for place, one in enumerate(imported):
        identity = (tenant_id, one.sha256, one.project, one.account)
        if identities.get(one.id, identity) != identity or owners.get(one.sha256, one.id) != one.id:
            conflicts.append(place)
        elif one.id not in identities:
            added.append(one)
        identities.setdefault(one.id, identity)
        owners.setdefault(one.sha256, one.id)
    if conflicts:
        raise Conflict(
            "key_exists", "The id or the digest is that of another key.", field=_places(conflicts), expected="other ids"
        )
    if added:
        connection.execute(api_key.insert(), [_imported_row(tenant_id, one) for one in added])
    return Imported(len(added), len(imported) - len(added))


def _check_references(connection: sa.Connection, tenant_id: str, imported: Sequence[ImportedKey]) -> None:
    """Raises: Unprocessable, naming the places, for what isn't the administration's own."""
    for name, table in (("project", project), ("account", account)):
        known = {None, *connection.scalars(sa.select(table.c.id).where(table.c.tenant == tenant_id))}
        if unknown := [place for place, one in enumerate(imported) if getattr(one, name) not in known]:
            raise Unprocessable(
                "unknown_reference", f"The administration has no such {name}.", field=_places(unknown),
                expected=f"a known {name}",
            )  # fmt: skip


def _known_keys(
    connection: sa.Connection, imported: Sequence[ImportedKey]
) -> tuple[dict[str, tuple[Any, ...]], dict[str, str]]:
    """What is known under these ids or digests: id to identity, and digest to id."""
    ids = sa.cast([one.id for one in imported], pg.ARRAY(sa.Text))
    digests = sa.cast([bytes.fromhex(one.sha256) for one in imported], pg.ARRAY(sa.LargeBinary))
    rows = connection.execute(
        sa.select(api_key).where(sa.or_(api_key.c.id == sa.any_(ids), api_key.c.digest == sa.any_(digests)))
    ).all()
    identities = {row.id: (row.tenant, bytes(row.digest).hex(), row.project, row.account) for row in rows}
    return identities, {bytes(row.digest).hex(): row.id for row in rows}


def _imported_row(tenant_id: str, one: ImportedKey) -> dict[str, Any]:
    kept = {name: getattr(one, name) for name in ("id", "name", "prefix", "project", "account", "expires_at")}
    return {**kept, "tenant": tenant_id, "digest": bytes.fromhex(one.sha256), "imported": True}


def _places(indexes: Sequence[int]) -> str:
    """Places in the caller's list, the first of many."""
    told = ", ".join(f"keys[{index}]" for index in indexes[:PLACES_TOLD_MAX])
    return f"{told}, …" if len(indexes) > PLACES_TOLD_MAX else told

"""Administrations (tenants): whose usage is accepted."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.database import transaction
from metering.errors import Conflict, Unprocessable
from metering.tables import tenant


@dataclass(frozen=True, slots=True)
class Tenant:
    """An administration: its number in the ledger, its id in events, its name for people."""

    number: int
    id: str
    name: str
    created_at: datetime


def add_tenant(engine: sa.Engine, tenant_id: str, name: str | None = None) -> Tenant:
    """Register an administration; again with the same name changes nothing.

    Raises: Unprocessable for an id that no event could carry; Conflict if the id has another name.
    """
    if not tenant_id.replace("-", "").replace("_", "").isalnum() or not tenant_id.isascii() or len(tenant_id) > 64:
        raise Unprocessable(
            "invalid_tenant_id", "The id of an administration is opaque.", field="id",
            expected="1 to 64 letters, digits, - and _",
        )  # fmt: skip
    with transaction(engine) as connection:
        connection.execute(insert(tenant).values(id=tenant_id, name=name or tenant_id).on_conflict_do_nothing())
        row = connection.execute(sa.select(tenant).where(tenant.c.id == tenant_id)).one()
    if name is not None and row.name != name:
        raise Conflict("tenant_exists", f"The administration {tenant_id} is registered under another name.", field="id")
    return Tenant(row.number, row.id, row.name, row.created_at)


def list_tenants(engine: sa.Engine) -> list[Tenant]:
    """Every administration, by id."""
    with transaction(engine) as connection:
        rows = connection.execute(sa.select(tenant).order_by(tenant.c.id))
        return [Tenant(row.number, row.id, row.name, row.created_at) for row in rows]


class TenantDirectory:
    """Numbers of administrations, remembered by the process. A number never changes, so only news are looked up."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._numbers: dict[str, int] = {}

    def numbers(self, ids: Iterable[str]) -> dict[str, int]:
        """Numbers of the administrations that are registered; the others are absent. Raises: Unavailable."""
        wanted = set(ids)
        if missing := wanted - self._numbers.keys():
            with transaction(self._engine) as connection:
                rows = connection.execute(sa.select(tenant.c.id, tenant.c.number).where(tenant.c.id.in_(missing)))
                self._numbers |= {row.id: row.number for row in rows}
        return {tenant_id: self._numbers[tenant_id] for tenant_id in wanted if tenant_id in self._numbers}

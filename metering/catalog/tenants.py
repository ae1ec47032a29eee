"""Administrations (tenants): whose usage is accepted."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.catalog import documents
from metering.catalog.access import withdraw_requests
from metering.catalog.accounts import close_accounts
from metering.catalog.changes import hold_catalog
from metering.catalog.issued_keys import revoke_keys
from metering.database import transaction
from metering.errors import Conflict, NotFound, Unprocessable
from metering.outbox.queue import enqueue_event, enqueue_mail
from metering.tables import account, tenant


@dataclass(frozen=True, slots=True)
class Tenant:
    """An administration: its number in the ledger, its id in events, its name for people."""

    number: int
    id: str
    name: str
    created_at: datetime


def add_tenant(engine: sa.Engine, tenant_id: str, name: str | None = None, siret: str | None = None) -> Tenant:
    """Register an administration; again with the same name and SIRET changes nothing.

    Raises: Unprocessable for an id that no event could carry, or a SIRET that isn't one; Conflict if the id has another
    name or SIRET, or the SIRET another id.
    """
    if not tenant_id.replace("-", "").replace("_", "").isalnum() or not tenant_id.isascii() or len(tenant_id) > 64:
        raise Unprocessable(
            "invalid_tenant_id", "The id of an administration is opaque.", field="id",
            expected="1 to 64 letters, digits, - and _",
        )  # fmt: skip
    _check_siret(tenant_id, siret)
    with transaction(engine) as connection:
        values = {"id": tenant_id, "name": name or tenant_id, "siret": siret}
        connection.execute(insert(tenant).values(values).on_conflict_do_nothing())
        row = connection.execute(sa.select(tenant).where(tenant.c.id == tenant_id)).first()
    if row is None or (siret is not None and row.siret != siret):
        raise Conflict("siret_taken", "Another administration has the SIRET, or this one has another.", field="siret")
    if name is not None and row.name != name:
        raise Conflict("tenant_exists", f"The administration {tenant_id} is registered under another name.", field="id")
    return Tenant(row.number, row.id, row.name, row.created_at)


def _check_siret(tenant_id: str, siret: str | None) -> None:
    try:
        msgspec.convert({"id": tenant_id, "name": tenant_id, "siret": siret}, documents.Tenant)
    except msgspec.ValidationError as error:
        raise Unprocessable(
            "invalid_siret", "This is no SIRET.", field="siret", expected="14 digits, with a valid check digit"
        ) from error


def suspend_tenant(connection: sa.Connection, tenant_id: str, reason: str, *, now: datetime) -> None:
    """Refuse the keys and tokens of an administration until `restore_tenant`. Raises: NotFound; Conflict if deleted."""
    _check_not_deleted(connection, tenant_id)
    connection.execute(tenant.update().where(tenant.c.id == tenant_id).values(status="suspended", status_reason=reason))
    key = f"{tenant_id}/{now.isoformat()}"
    recipient, told = f"accounts:{tenant_id}", {"reason": reason}
    enqueue_mail(connection, key, recipient=recipient, subject="account_suspended", payload=told, tenant=tenant_id)
    enqueue_event(connection, "tenant.suspended", tenant=tenant_id, key=key, payload={"tenant": tenant_id})


def restore_tenant(connection: sa.Connection, tenant_id: str) -> None:
    """End a suspension; of an active administration, nothing. Raises: NotFound; Conflict if deleted."""
    _check_not_deleted(connection, tenant_id)
    connection.execute(tenant.update().where(tenant.c.id == tenant_id).values(status="active", status_reason=None))


def delete_tenant(connection: sa.Connection, tenant_id: str, reason: str, *, now: datetime) -> None:
    """Delete an administration with its people, keys and tokens. What it used stays in the ledger, as it was.

    Again changes nothing. Raises: NotFound.
    """
    hold_catalog(connection)
    if _status(connection, tenant_id) == "deleted":
        return
    alive = sa.select(account.c.id).where(account.c.tenant == tenant_id, account.c.status != "deleted")
    close_accounts(connection, tenant_id, connection.scalars(alive).all(), now=now)
    revoke_keys(connection, tenant_id, sa.true(), now=now)
    withdraw_requests(connection, tenant_id)
    connection.execute(tenant.update().where(tenant.c.id == tenant_id).values(status="deleted", status_reason=reason))


def _check_not_deleted(connection: sa.Connection, tenant_id: str) -> None:
    hold_catalog(connection)
    if _status(connection, tenant_id) == "deleted":
        raise Conflict("tenant_deleted", "The administration is deleted, for good.", field="tenant")


def _status(connection: sa.Connection, tenant_id: str) -> str:
    status: str | None = connection.scalar(sa.select(tenant.c.status).where(tenant.c.id == tenant_id))
    if status is None:
        raise NotFound("unknown_tenant", "No such administration.", field="tenant")
    return status


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

"""Dated exceptions to the limits of an administration: granted, listed, ended; none is ever taken away."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from metering.catalog.documents import YEAR_MAX, Limit, is_bounded
from metering.catalog.snapshot import Snapshot
from metering.errors import NotFound, Unprocessable
from metering.rules.limits import EACH, EVERYTHING
from metering.rules.quantities import OPERATIONS
from metering.tables import account, api_key, limit_override, project


@dataclass(frozen=True, slots=True)
class Override:
    """An exception from starts_at to ends_at, exclusive; subject None: of every one of the limit's scope."""

    id: str
    tenant: str
    subject: str | None
    limit: Limit
    starts_at: datetime
    ends_at: datetime | None
    motive: str
    approver: str
    raise_request: str | None
    created_at: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Override":
        """From a row of the table."""
        values = dict(row)
        return cls(limit=msgspec.convert(values.pop("rule"), Limit), **values)


@dataclass(frozen=True, slots=True)
class Grant:
    """What is granted, to whom, why and by whom. starts_at None: now."""

    tenant: str
    limit: Limit
    subject: str | None
    starts_at: datetime | None
    ends_at: datetime | None
    motive: str
    approver: str
    raise_request: str | None = None


def add_override(connection: sa.Connection, grant: Grant, now: datetime) -> Override:
    """Record an exception. Raises: Unprocessable for a period that begins in the past or is empty."""
    starts_at = grant.starts_at or now
    if starts_at < now:
        raise Unprocessable("invalid_period", "What was in force stays so.", field="starts_at", expected="now or later")
    if grant.ends_at is not None and grant.ends_at <= starts_at:
        raise Unprocessable("invalid_period", "The period is empty.", field="ends_at", expected="after starts_at")
    if not all(is_bounded(end) for end in (starts_at, grant.ends_at) if end is not None):
        raise Unprocessable("invalid_period", "The period is too long.", field="ends_at", expected=f"by {YEAR_MAX}")
    values = {
        "id": f"override_{secrets.token_hex(8)}",
        "tenant": grant.tenant,
        "subject": grant.subject,
        "rule": msgspec.to_builtins(grant.limit),
        "starts_at": starts_at,
        "ends_at": grant.ends_at,
        "motive": grant.motive,
        "approver": grant.approver,
        "raise_request": grant.raise_request,
    }
    row = connection.execute(limit_override.insert().values(values).returning(limit_override)).mappings().one()
    return Override.of(row)  # type: ignore[arg-type]


def list_overrides(
    connection: sa.Connection, tenant: str, *, after: str | None = None, limit: int = 100
) -> list[Override]:
    """Exceptions of an administration after one of them, oldest first; also those that are over."""
    query = sa.select(limit_override).where(limit_override.c.tenant == tenant, *following(limit_override, after))
    rows = connection.execute(query.order_by(limit_override.c.created_at, limit_override.c.id).limit(limit))
    return [Override.of(row) for row in rows.mappings()]  # type: ignore[arg-type]


def end_override(connection: sa.Connection, tenant: str, override_id: str, now: datetime) -> None:
    """End an exception now, or before it begins; one that is over stays as it was. Raises: NotFound."""
    column = limit_override.c
    condition = sa.and_(column.tenant == tenant, column.id == override_id)
    if connection.scalar(sa.select(column.id).where(condition)) is None:
        raise NotFound("unknown_override", "There is no such override.", field="override")
    over = sa.func.greatest(column.starts_at, now)
    connection.execute(limit_override.update().where(condition).values(ends_at=sa.func.least(column.ends_at, over)))


def following(table: sa.Table, after: str | None) -> list[sa.ColumnElement[bool]]:
    """Conditions for the rows after one, in the order of creation; after an unknown one there is none."""
    if not after:
        return []
    created = sa.select(table.c.created_at).where(table.c.id == after).scalar_subquery()
    return [sa.tuple_(table.c.created_at, table.c.id) > sa.tuple_(created, after)]


def check_place(connection: sa.Connection, snapshot: Snapshot, tenant: str, limit: Limit, subject: str | None) -> None:
    """Check that a limit is about something there is. Raises: Unprocessable."""
    kind, _, name = limit.selector.partition(":")
    known = {"model": snapshot.models, "category": snapshot.categories, "operation": OPERATIONS}
    if limit.selector != EVERYTHING and name != EACH and name not in known[kind]:
        raise Unprocessable(
            "unknown_reference", "The selector names what isn't there.", field="limit.selector",
            expected=f"a known {kind}",
        )  # fmt: skip
    if subject is not None and not _is_there(connection, tenant, limit.scope, subject):
        raise Unprocessable(
            "unknown_subject", "The subject isn't there, or isn't one of the limit's scope.", field="subject",
            expected="null" if limit.scope == "tenant" else f"a {limit.scope} of the administration, or null",
        )  # fmt: skip


_SUBJECTS = {"project": project, "user": account, "key": api_key}


def _is_there(connection: sa.Connection, tenant: str, scope: str, subject: str) -> bool:
    if (table := _SUBJECTS.get(scope)) is None:
        return False
    conditions = [table.c.tenant == tenant, table.c.id == subject]
    if table is account:
        conditions.append(account.c.status != "deleted")
    return connection.scalar(sa.select(table.c.id).where(*conditions)) is not None

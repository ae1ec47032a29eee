"""Asking for an export, looking at what came of it, and calling it off.

What is asked is pinned to the ledger as it stands: whoever makes the file, and however often, makes the same rows.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.errors import Conflict, Gone, NotFound, TooMany, Unprocessable
from metering.identity import Principal, Role
from metering.tables import export_job
from reports.asked import UsageCut
from reports.exports.focus import FocusVersion
from reports.exports.making import Export, ExportKind, parse_export
from reports.exports.sheets import Form
from reports.exports.usage_sheet import last_batch_of
from reports.wording import Language

JobState = Literal["waiting", "running", "ready", "failed", "cancelled", "expired"]
UNDER_WAY: tuple[JobState, ...] = ("waiting", "running")
RETRY_AFTER_S = 60
NUL = rb"\u0000"
"""As JSON writes the one character that the database has no place for."""


class ExportAsked(UsageCut, kw_only=True, forbid_unknown_fields=True):
    """An export to make. month and focus_version are of focus and accounting, start and end of usage."""

    kind: ExportKind = "usage"
    format: Form = "csv"
    language: Language = "en"
    month: str | None = None
    focus_version: FocusVersion = "1.2"
    start: str | None = None
    end: str | None = None
    amounts: bool = False

    def params(self) -> dict[str, Any]:
        """As `making.parse_export` takes it."""
        return {**super().params(), "amounts": "true" if self.amounts else None}


@dataclass(frozen=True, slots=True)
class Job:
    """An export that was asked for. Fields are those of the table `export_job`."""

    number: int
    id: str
    tenant: str | None
    account: str | None
    role: Role
    name: str
    author: str
    repeat_key: str | None
    asked: dict[str, Any]
    as_of: int
    state: JobState
    attempts: int
    due_at: datetime
    rows_done: int
    rows_total: int | None
    error: str | None
    manifest: dict[str, Any] | None
    created_at: datetime
    ended_at: datetime | None
    expires_at: datetime | None

    @classmethod
    def of(cls, row: sa.Row[Any]) -> "Job":
        """From a row of all columns."""
        return cls(**row._mapping)

    @property
    def reader(self) -> Principal:
        """Who asked; the export shows what they may see."""
        return Principal(self.name, self.role, self.tenant, self.account)

    def export(self) -> Export:
        """What is to be made, of the ledger as it stood when it was asked. Raises: Unprocessable, Forbidden."""
        asked = msgspec.convert(self.asked, ExportAsked)
        pinned = {"as_of": str(self.as_of)} if asked.kind == "usage" else {}
        return parse_export(asked.params() | pinned, self.reader)


def ask_export(
    connection: sa.Connection, asked: ExportAsked, reader: Principal, *, repeat_key: str | None, waiting_max: int,
    now: datetime,
) -> Job:  # fmt: skip
    """Record an export to be made; the same key again is the same export.

    waiting_max: exports of one administration, or of the platform, that may be under way.
    Raises: Unprocessable, Forbidden; Conflict for a key with another question; TooMany.
    """
    parse_export(asked.params(), reader)
    if NUL in msgspec.json.encode(asked):
        raise Unprocessable("invalid_text", "A text can't be stored.", expected="text without NUL")
    given = msgspec.to_builtins(asked)
    as_of = int(asked.as_of) if asked.kind == "usage" and asked.as_of is not None else None
    # One after the other for each administration, so that together they stay within the limit.
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"export/{reader.tenant}", 0))))
    if repeat_key is not None and (known := _repeated(connection, reader, repeat_key)) is not None:
        if known.asked != given:
            raise Conflict("key_reused", "The key was used for another export.", field="Idempotency-Key")
        return known
    _check_room(connection, reader, waiting_max)
    row = connection.execute(
        insert(export_job)
        .values(
            id=f"export_{secrets.token_hex(16)}",
            tenant=reader.tenant,
            account=reader.account,
            role=reader.role,
            name=reader.name,
            author=reader.actor.author,
            repeat_key=repeat_key,
            asked=given,
            as_of=last_batch_of(connection, as_of),
            due_at=now,
            created_at=now,
        )
        .returning(export_job)
    ).one()
    return Job.of(row)


def list_exports(connection: sa.Connection, reader: Principal, *, after: str, limit: int) -> list[Job]:
    """Exports that a reader may see, newest first, after one of them. Raises: NotFound."""
    query = sa.select(export_job).where(*_visible(reader)).order_by(export_job.c.number.desc()).limit(limit)
    if after:
        query = query.where(export_job.c.number < find_export(connection, reader, after).number)
    return [Job.of(row) for row in connection.execute(query)]


def find_export(connection: sa.Connection, reader: Principal, export_id: str) -> Job:
    """An export that a reader may see. Raises: NotFound."""
    row = connection.execute(sa.select(export_job).where(export_job.c.id == export_id, *_visible(reader))).first()
    if row is None:
        raise NotFound("unknown_export", "No such export.", field="export")
    return Job.of(row)


def find_file(connection: sa.Connection, reader: Principal, export_id: str) -> Job:
    """An export whose file can be fetched. Raises: NotFound while there is none, Gone where there is none any more."""
    job = find_export(connection, reader, export_id)
    if job.state in UNDER_WAY:
        raise NotFound("export_not_ready", "The file isn't made yet.", field="export", retry_after_s=5)
    if job.state != "ready":
        raise Gone(f"export_{job.state}", "The export has no file.", field="export", expected="an export that is ready")
    return job


def cancel_export(connection: sa.Connection, reader: Principal, export_id: str, *, now: datetime) -> Job:
    """Call an export off, or its file if it is made; what has ended otherwise stays as it is. Raises: NotFound."""
    job = find_export(connection, reader, export_id)
    connection.execute(
        export_job.update()
        .where(export_job.c.id == job.id, export_job.c.state.in_([*UNDER_WAY, "ready"]))
        .values(state="cancelled", ended_at=now)
    )
    return job


def _visible(reader: Principal) -> list[sa.ColumnElement[bool]]:
    """Operators see all, managers the administration's, members their own, and none that they made as managers."""
    if reader.role == "operator":
        return []
    of_tenant = [export_job.c.tenant == reader.tenant]
    if reader.role == "manager":
        return of_tenant
    return [*of_tenant, export_job.c.account == reader.account, export_job.c.role == reader.role]


def _repeated(connection: sa.Connection, reader: Principal, repeat_key: str) -> Job | None:
    columns = export_job.c
    query = sa.select(export_job).where(columns.author == reader.actor.author, columns.repeat_key == repeat_key)
    row = connection.execute(query).first()
    return None if row is None else Job.of(row)


def _check_room(connection: sa.Connection, reader: Principal, waiting_max: int) -> None:
    under_way = connection.scalar(
        sa.select(sa.func.count()).where(
            export_job.c.state.in_(UNDER_WAY), export_job.c.tenant.is_not_distinct_from(reader.tenant)
        )
    )
    if (under_way or 0) >= waiting_max:
        raise TooMany(
            "too_many_exports", "Exports are waiting already.", expected=f"at most {waiting_max} under way",
            retry_after_s=RETRY_AFTER_S,
        )  # fmt: skip

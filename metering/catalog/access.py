"""Requests for an account: asked by anybody, judged by rule, decided by an operator, proven by a mailed code.

What is answered follows from the request and the platform's state only, never from who has an account.
"""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from email_validator import EmailNotValidError, validate_email

from metering.catalog import documents
from metering.catalog.changes import hold_catalog
from metering.catalog.deciding import RULE, Asked, Role, approve, code_values, refuse, settle, verdict
from metering.database import Actor, transaction
from metering.errors import Conflict, NotFound, TooMany, Unprocessable
from metering.outbox.queue import enqueue_event, enqueue_mail
from metering.outbox.secrets import MasterKey
from metering.tables import access_request, account, tenant

RequestState = Literal["pending", "delayed", "approved", "refused", "activated", "expired"]

VISITOR = Actor("visitor")

KEPT = timedelta(days=30)
"""How long name and address stay after a refusal, or a code that nobody used."""
UNDECIDED = timedelta(days=365)
"""How long a request may wait for a decision."""
REQUESTS_A_DAY_MAX = 5
"""Requests for one address within a day, whatever became of them: each sends it a mail."""


@dataclass(frozen=True, slots=True)
class Invited:
    """Whom a manager or operator invites to an administration; `email` as `checked_email` returns it."""

    name: str = field(repr=False)
    email: str = field(repr=False)
    role: Role
    language: documents.Language


@dataclass(frozen=True, slots=True)
class Received:
    """What somebody who asks is told at once."""

    id: str
    state: RequestState
    reason: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A request, as an operator sees it. name, email and motive are gone some time after the decision."""

    id: str
    kind: str
    organisation: str
    siret: str | None
    name: str | None = field(repr=False)
    email: str | None = field(repr=False)
    language: str
    motive: str = field(repr=False)
    experiment: str | None
    state: RequestState
    state_reason: str | None
    tenant: str | None
    role: Role
    decided_by: str | None
    decided_at: datetime | None
    code_expires_at: datetime | None
    account: str | None
    created_at: datetime
    siret_proven: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What an operator decides. tenant: needed to approve. role: by default, a partner's first account manages."""

    approved: bool
    reason: str | None = None
    tenant: str | None = None
    role: Role | None = None


def checked_email(text: str) -> str:
    """An address in its normal form. Raises: Unprocessable for one that no mail could go to; nobody is asked."""
    try:
        parsed = validate_email(text, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError:
        raise Unprocessable(
            "invalid_email", "No mail can go to this address.", field="email", expected="an address of mail"
        ) from None
    assert parsed.ascii_email is not None
    return parsed.ascii_email


def request_access(engine: sa.Engine, master_key: MasterKey, asked: Asked, now: datetime) -> Received:
    """Record a request and tell who asks, by mail, what becomes of it.

    Raises: Unprocessable for an unknown experiment; TooMany for an address that was used too often; Unavailable.
    """
    with transaction(engine, actor=VISITOR) as connection:
        hold_catalog(connection)
        _check_not_flooded(connection, asked.email, now)
        judged = verdict(connection, asked, now)
        request_id = _new_id(now)
        values = {name: getattr(asked, name) for name in Asked.__dataclass_fields__}
        connection.execute(access_request.insert().values(id=request_id, state="pending", created_at=now, **values))
        enqueue_event(
            connection, "access.requested", tenant=None, key=request_id,
            payload={"request": request_id, "kind": asked.kind, "state": judged.state},
        )  # fmt: skip
        reason = settle(connection, master_key, request_id, judged, now)
    return Received(request_id, judged.state, reason, now)


def invite(
    engine: sa.Engine, master_key: MasterKey, tenant_id: str, invited: Invited, *, actor: Actor, now: datetime
) -> Received:  # fmt: skip
    """Invite somebody to an administration by mail. Raises: Conflict if it isn't active; TooMany; Unavailable."""
    with transaction(engine, actor=actor) as connection:
        hold_catalog(connection)
        _check_not_flooded(connection, invited.email, now, tenant_id)
        found = connection.execute(sa.select(tenant).where(tenant.c.id == tenant_id)).one()
        if found.status != "active":
            raise Conflict("tenant_not_active", "The administration is not active.", field="tenant")
        request_id = _new_id(now)
        connection.execute(
            access_request.insert().values(
                id=request_id, kind="invitation", organisation=found.name, siret=found.siret, name=invited.name,
                email=invited.email, language=invited.language, motive="", role=invited.role, tenant=tenant_id,
                state="approved", decided_by=actor.author, decided_at=now, created_at=now,
                **code_values(master_key, request_id, now),
            )
        )  # fmt: skip
        enqueue_mail(
            connection, request_id, recipient=f"access_request:{request_id}", subject="invitation", tenant=tenant_id,
            payload={"request": request_id, "tenant_name": found.name},
        )  # fmt: skip
        enqueue_event(
            connection, "access.requested", tenant=tenant_id, key=request_id,
            payload={"request": request_id, "kind": "invitation", "state": "approved"},
        )  # fmt: skip
    return Received(request_id, "approved", None, now)


def list_requests(
    connection: sa.Connection, *, state: RequestState | None = None, after: str = "", limit: int = 100
) -> list[AccessRequest]:
    """Requests after an id, oldest first."""
    columns = (access_request.c[name] for name in AccessRequest.__dataclass_fields__)
    query = sa.select(*columns).where(access_request.c.id > after).order_by(access_request.c.id).limit(limit)
    if state is not None:
        query = query.where(access_request.c.state == state)
    return [AccessRequest(*row) for row in connection.execute(query)]


def decide(
    connection: sa.Connection, master_key: MasterKey, request_id: str, decision: Decision, *, author: str, now: datetime
) -> AccessRequest:  # fmt: skip
    """Approve or refuse a request that waits, and tell who asked.

    Raises: NotFound; Conflict if it is decided; Unprocessable without an active administration to join.
    """
    hold_catalog(connection)
    found = connection.execute(sa.select(access_request).where(access_request.c.id == request_id)).first()
    if found is None:
        raise NotFound("unknown_request", "There is no such request.", field="id")
    if found.state not in {"pending", "delayed"}:
        raise Conflict("request_decided", "The request has been decided.", field="id")
    if decision.approved:
        role = decision.role or _first_role(connection, found.kind, decision.tenant)
        approve(connection, master_key, request_id, decision.tenant, role, author=author, now=now)
    else:
        refuse(connection, request_id, decision.reason, author=author, now=now)
    columns = (access_request.c[name] for name in AccessRequest.__dataclass_fields__)
    return AccessRequest(*connection.execute(sa.select(*columns).where(access_request.c.id == request_id)).one())


def release_delayed(engine: sa.Engine, master_key: MasterKey, now: datetime) -> int:
    """Judge again what an overload has delayed; return how many requests moved on. Raises: Unavailable."""
    moved = 0
    with transaction(engine, actor=RULE) as connection:
        hold_catalog(connection)
        delayed = sa.select(access_request).where(access_request.c.state == "delayed").order_by(access_request.c.id)
        for row in connection.execute(delayed).all():
            judged = verdict(connection, row, now)
            if judged.state != "delayed":
                settle(connection, master_key, row.id, judged, now)
                moved += 1
    return moved


def expire_requests(engine: sa.Engine, now: datetime) -> int:
    """End codes that nobody used, and requests that nobody decided, in time; erase who was refused or never came.

    Returns how many changed. Raises: Unavailable.
    """
    request = access_request.c
    with transaction(engine, actor=RULE) as connection:
        expired = connection.execute(
            access_request.update()
            .where(
                sa.or_(
                    sa.and_(request.state == "approved", request.code_expires_at <= now),
                    sa.and_(request.state.in_(["pending", "delayed"]), request.created_at <= now - UNDECIDED),
                )
            )
            .values(state="expired", decided_at=sa.func.coalesce(request.decided_at, now))
        )
        erased = connection.execute(
            access_request.update()
            .where(
                request.state.in_(["refused", "expired"]),
                request.email.is_not(None),
                sa.func.coalesce(request.code_expires_at, request.decided_at) <= now - KEPT,
            )
            .values(ERASED)
        )
    return expired.rowcount + erased.rowcount


def withdraw_requests(connection: sa.Connection, tenant_id: str) -> None:
    """End what was approved for an administration, and erase who asked."""
    of_tenant = access_request.c.tenant == tenant_id
    unused = sa.case((access_request.c.state == "approved", "expired"), else_=access_request.c.state)
    connection.execute(access_request.update().where(of_tenant).values(state=unused, **ERASED))


ERASED = {"name": None, "email": None, "motive": "", "state_reason": None}
"""What is left of who asked. The motive and the answer to it are words about a person, and served the decision."""


def _new_id(now: datetime) -> str:
    """An id that can't be guessed, in the order of arrival."""
    return f"r-{int(now.timestamp() * 1000):012x}{secrets.token_hex(8)}"


def _check_not_flooded(connection: sa.Connection, email: str, now: datetime, tenant_id: str | None = None) -> None:
    """Raises: TooMany. Invitations count apart: what visitors are answered mustn't tell of them."""
    request = access_request.c
    same_door = request.kind != "invitation" if tenant_id is None else request.kind == "invitation"
    recent = connection.scalar(
        sa.select(sa.func.count()).where(
            sa.func.lower(request.email) == email.lower(),
            request.created_at > now - timedelta(days=1),
            same_door,
            *([] if tenant_id is None else [request.tenant == tenant_id]),
        )
    )
    if (recent or 0) >= REQUESTS_A_DAY_MAX:
        raise TooMany(
            "too_many_requests", "There were too many requests for this address within a day.", field="email",
            expected=f"at most {REQUESTS_A_DAY_MAX} a day", retry_after_s=86_400,
        )  # fmt: skip


def _first_role(connection: sa.Connection, kind: str, tenant_id: str | None) -> Role:
    """A partner's first account manages its administration; others don't, unless it is said."""
    manages = sa.exists().where(
        account.c.tenant == tenant_id, account.c.role == "manager", account.c.status != "deleted"
    )
    return "manager" if kind == "partner" and not connection.scalar(sa.select(manages)) else "member"

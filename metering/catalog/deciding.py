"""What is decided on a request for an account, by rule or by an operator, and how who asked is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from metering.catalog import documents
from metering.catalog.kinds import KINDS, load
from metering.database import Actor
from metering.errors import Unprocessable
from metering.outbox.queue import enqueue_event, enqueue_mail
from metering.outbox.secrets import MasterKey, code_digest
from metering.rules import access as rules
from metering.rules.access import Reason, Verdict
from metering.tables import access_request, experiment, platform, tenant

Role = Literal["manager", "member"]

RULE = Actor("jauge:access")
"""Author of what is decided by rule."""

CODE_LIFE = timedelta(days=7)

REASONS: dict[Reason, dict[documents.Language, str]] = {
    "overload": {
        "fr": "La plateforme est surchargée.",
        "en": "The platform is overloaded.",
    },
    "not_begun": {
        "fr": "L’expérimentation n’a pas commencé.",
        "en": "The experiment hasn't begun.",
    },
    "restricted": {
        "fr": "L’expérimentation est réservée aux administrations désignées.",
        "en": "The experiment is for listed administrations only.",
    },
    "closing": {
        "fr": "L’expérimentation se termine et n’accueille plus personne.",
        "en": "The experiment is closing and takes nobody in any more.",
    },
    "over": {
        "fr": "L’expérimentation est terminée.",
        "en": "The experiment is over.",
    },
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as somebody states it; `email` as `checked_email` returns it."""

    kind: rules.Kind
    organisation: str
    siret: str | None
    name: str = field(repr=False)
    email: str = field(repr=False)
    language: documents.Language
    motive: str = field(repr=False)
    experiment: str | None
    siret_proven: bool = False


def verdict(connection: sa.Connection, asked: Asked | sa.Row[Any], now: datetime) -> Verdict:
    """What becomes of a request as the platform stands."""
    state = connection.execute(sa.select(platform)).one()
    takes_in = connection.scalar(sa.select(tenant.c.status).where(tenant.c.id == state.house_tenant)) == "active"
    house = rules.House(frozenset(state.house_sirets), frozenset(state.house_domains if takes_in else ()))
    mail_domain = asked.email.rpartition("@")[2].lower()
    request = rules.Request(asked.kind, asked.siret, mail_domain, asked.siret_proven and takes_in)
    phases = None if asked.experiment is None else _phases(connection, asked.experiment, asked.siret)
    return rules.judge(request, house, state.overload, phases, now)


def _phases(connection: sa.Connection, experiment_id: str, siret: str | None) -> Sequence[rules.Phase]:
    """Phases of an experiment, as an administration meets them. Raises: Unprocessable."""
    found = load(connection, KINDS["experiments"], experiment.c.id == experiment_id)
    if not found:
        raise Unprocessable("unknown_experiment", "There is no such experiment.", field="experiment")
    own = connection.scalar(sa.select(tenant.c.id).where(tenant.c.siret == siret, tenant.c.status == "active"))
    document = found[(experiment_id,)]
    assert isinstance(document, documents.Experiment)
    return [rules.Phase(one.phase, one.starts_at, one.ends_at, own in one.tenants) for one in document.phases]


def settle(
    connection: sa.Connection, master_key: MasterKey, request_id: str, verdict: Verdict, now: datetime
) -> str | None:
    """Do what a verdict says, and return the reason to tell, if there is one."""
    reason = _reason(connection, request_id, verdict)
    if verdict.state == "approved":
        house = connection.scalar(sa.select(platform.c.house_tenant))
        approve(connection, master_key, request_id, house, "member", author=RULE.author, now=now)
    elif verdict.state == "refused":
        refuse(connection, request_id, reason, author=RULE.author, now=now)
    else:
        _keep_waiting(connection, request_id, verdict, reason)
    return reason


def _reason(connection: sa.Connection, request_id: str, verdict: Verdict) -> str | None:
    """The reason in the language of who asks; of an overload, as the operator puts it."""
    if verdict.reason is None:
        return None
    language: documents.Language | None = connection.scalar(
        sa.select(access_request.c.language).where(access_request.c.id == request_id)
    )
    told = connection.scalar(sa.select(platform.c.overload_reason)) if verdict.reason == "overload" else None
    return told or REASONS[verdict.reason][language or "fr"]


def _keep_waiting(connection: sa.Connection, request_id: str, verdict: Verdict, reason: str | None) -> None:
    row = connection.execute(
        access_request.update()
        .where(access_request.c.id == request_id)
        .values(state=verdict.state, state_reason=reason)
        .returning(access_request.c.kind)
    ).one()
    recipient = f"access_request:{request_id}"
    if verdict.state == "delayed":
        payload = {"request": request_id, "reason": reason}
        enqueue_mail(connection, request_id, recipient=recipient, subject="access_delayed", payload=payload)
        return
    payload = {"request": request_id}
    enqueue_mail(connection, request_id, recipient=recipient, subject="access_received", payload=payload)
    for_staff = {"request": request_id, "kind": row.kind}
    enqueue_mail(connection, request_id, recipient="operators", subject="access_to_validate", payload=for_staff)


def approve(
    connection: sa.Connection, master_key: MasterKey, request_id: str, tenant_id: str | None, role: Role, *,
    author: str, now: datetime,
) -> None:  # fmt: skip
    """Approve a request and mail the code. Raises: Unprocessable without an active administration to join."""
    status = connection.scalar(sa.select(tenant.c.status).where(tenant.c.id == tenant_id))
    if status != "active":
        raise Unprocessable(
            "unknown_tenant", "An approval needs an administration.", field="tenant", expected="an active one"
        )
    connection.execute(
        access_request.update()
        .where(access_request.c.id == request_id)
        .values(
            state="approved", state_reason=None, tenant=tenant_id, role=role, decided_by=author, decided_at=now,
            **code_values(master_key, request_id, now),
        )
    )  # fmt: skip
    enqueue_mail(
        connection, request_id, recipient=f"access_request:{request_id}", subject="access_approved",
        payload={"request": request_id}, tenant=tenant_id,
    )  # fmt: skip
    _tell_decision(connection, request_id, "approved", tenant_id)


def refuse(connection: sa.Connection, request_id: str, reason: str | None, *, author: str, now: datetime) -> None:
    """Refuse a request, and mail the reason if there is one."""
    connection.execute(
        access_request.update()
        .where(access_request.c.id == request_id)
        .values(state="refused", state_reason=reason, decided_by=author, decided_at=now)
    )
    enqueue_mail(
        connection, request_id, recipient=f"access_request:{request_id}", subject="access_refused",
        payload={"request": request_id, "reason": reason},
    )  # fmt: skip
    _tell_decision(connection, request_id, "refused", None)


def _tell_decision(connection: sa.Connection, request_id: str, state: str, tenant_id: str | None) -> None:
    payload = {"request": request_id, "state": state, "tenant": tenant_id}
    enqueue_event(connection, "access.decided", tenant=tenant_id, key=request_id, payload=payload)


def code_values(master_key: MasterKey, request_id: str, now: datetime) -> dict[str, Any]:
    """What is stored of a code: the code itself is computed again when the mail is sent."""
    expires_at = now + CODE_LIFE
    code = master_key.activation_code(request_id, expires_at)
    return {"code_digest": code_digest(code), "code_expires_at": expires_at}

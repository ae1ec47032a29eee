"""Requests for a higher limit: asked for with a study of the use made, decided by an operator.

An approval is a dated override, written with the decision; the request stays as it was asked and decided. Who asked may
take it back until then.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from metering.catalog.documents import Limit
from metering.catalog.limits import limits_of
from metering.catalog.overrides import Grant, add_override, check_place, following
from metering.catalog.snapshot import Snapshot
from metering.catalog.studies import read_study
from metering.database import transaction
from metering.errors import Conflict, Forbidden, NotFound, Unprocessable
from metering.identity import Principal
from metering.outbox.queue import enqueue_event, enqueue_mail
from metering.rules import limits as rules
from metering.rules.limits import is_raise, present_limit
from metering.rules.studies import Study
from metering.tables import limit_override, raise_request

RAISES_LOCK = 0x524149534553  # "RAISES": who asks sees what was asked before

RaiseState = Literal["pending", "approved", "refused", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Granted:
    """What came of an approval: the override, and the value it grants."""

    override: str
    value: int | None
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class RaiseRequest:
    """A request for a higher limit; subject None: for every one of the limit's scope."""

    id: str
    tenant: str
    account: str
    subject: str | None
    limit: Limit
    motive: str
    study: Study
    state: RaiseState
    decided_by: str | None
    decided_at: datetime | None
    decision_reason: str | None
    created_at: datetime
    granted: Granted | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for, and why. The limit's mode is that of the present one, whatever it says."""

    limit: Limit
    subject: str | None
    motive: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What an operator decides. value: the one asked for, unless another is granted. starts_at None: now."""

    approved: bool
    reason: str
    value: int | UnsetType | None = UNSET
    starts_at: datetime | None = None
    ends_at: datetime | None = None


def ask_raise(engine: sa.Engine, snapshot: Snapshot, caller: Principal, asked: Asked, now: datetime) -> RaiseRequest:
    """Record a request with its study, and tell the operators.

    Raises: Forbidden for a member who asks for others; Unprocessable for what isn't there or no raise; Conflict while
    the same is pending.
    """
    assert caller.tenant is not None
    asked = _own(caller, asked)
    study = study_raise(engine, snapshot, caller, asked, now)
    rule = msgspec.to_builtins(asked.limit) | {"mode": study.present_mode}
    with transaction(engine, actor=caller.actor) as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(RAISES_LOCK)))
        _check_not_pending(connection, caller.tenant, asked.subject, rule)
        request_id = f"raise_{secrets.token_hex(8)}"
        connection.execute(
            raise_request.insert().values(
                id=request_id,
                tenant=caller.tenant,
                account=caller.account,
                subject=asked.subject,
                rule=rule,
                motive=asked.motive,
                study=msgspec.to_builtins(study),
            )
        )
        request = find_raise(connection, request_id)
        _tell_operators(connection, request)
        return request


def study_raise(engine: sa.Engine, snapshot: Snapshot, caller: Principal, asked: Asked, now: datetime) -> Study:
    """The study that a request would carry; nothing is recorded. Raises: as `ask_raise`, but for what is pending."""
    assert caller.tenant is not None
    asked = _own(caller, asked)
    with transaction(engine, snapshot=True, actor=caller.actor) as connection:
        check_place(connection, snapshot, caller.tenant, asked.limit, asked.subject)
        wanted = asked.limit.rule(asked.subject)
        present = _present(snapshot, caller.tenant, wanted, now)
        return read_study(connection, snapshot, caller.tenant, wanted, present, now)


def decide_raise(
    engine: sa.Engine, snapshot: Snapshot, caller: Principal, request_id: str, decision: Decision, now: datetime
) -> RaiseRequest:
    """Approve a request, which creates the override, or refuse it; who asked is told.

    Raises: NotFound; Conflict if it is decided; Unprocessable for a grant that is no raise, or its period.
    """
    with transaction(engine, actor=caller.actor) as connection:
        request = find_raise(connection, request_id, lock=True)
        if request.state != "pending":
            raise Conflict("already_decided", "The request is decided.")
        if decision.approved:
            _grant(connection, snapshot, caller, request, decision, now)
        elif (decision.value, decision.starts_at, decision.ends_at) != (UNSET, None, None):
            raise Unprocessable("nothing_granted", "A refusal grants nothing.", field="value", expected="none")
        connection.execute(
            raise_request.update()
            .where(raise_request.c.id == request_id)
            .values(
                state="approved" if decision.approved else "refused",
                decided_by=caller.actor.author,
                decided_at=now,
                decision_reason=decision.reason,
            )
        )
        decided = find_raise(connection, request_id)
        _tell_asker(connection, decided)
        return decided


def withdraw_raise(engine: sa.Engine, caller: Principal, request_id: str, now: datetime) -> None:
    """Take back one's own request, which stays listed; operators find it no longer.

    Raises: NotFound, for those of others too; Conflict if it is decided or withdrawn.
    """
    assert caller.tenant is not None
    with transaction(engine, actor=caller.actor) as connection:
        request = find_raise(connection, request_id, tenant=caller.tenant, account=caller.account)
        changed = connection.execute(
            raise_request.update()
            .where(raise_request.c.id == request_id, raise_request.c.state == "pending")
            .values(state="withdrawn", decided_by=caller.actor.author, decided_at=now)
        )
        if changed.rowcount == 0:
            raise Conflict("already_decided", "The request is decided.")
        _tell_webhooks(connection, request, {"state": "withdrawn", "value": request.limit.value, "ends_at": None})


def list_raises(
    connection: sa.Connection, *, tenant: str | None = None, account: str | None = None,
    state: RaiseState | None = None, after: str | None = None, limit: int = 100,
) -> list[RaiseRequest]:  # fmt: skip
    """Requests after one of them, oldest first: all, or those of an administration, an account, a state."""
    chosen = {"tenant": tenant, "account": account, "state": state}
    conditions = [raise_request.c[name] == value for name, value in chosen.items() if value is not None]
    query = _requests().where(*conditions, *following(raise_request, after))
    rows = connection.execute(query.order_by(raise_request.c.created_at, raise_request.c.id).limit(limit))
    return [_request(row._mapping) for row in rows]


def find_raise(
    connection: sa.Connection, request_id: str, *, tenant: str | None = None, account: str | None = None,
    lock: bool = False,
) -> RaiseRequest:  # fmt: skip
    """One request, of an administration and an account if given. Raises: NotFound."""
    chosen = {"id": request_id, "tenant": tenant, "account": account}
    query = _requests().where(*(raise_request.c[name] == value for name, value in chosen.items() if value is not None))
    row = connection.execute(query.with_for_update(of=raise_request) if lock else query).first()
    if row is None:
        raise NotFound("unknown_limit_request", "There is no such request.", field="request")
    return _request(row._mapping)


def _own(caller: Principal, asked: Asked) -> Asked:
    if caller.role == "manager":
        return asked
    if asked.limit.scope != "user" or asked.subject not in {None, caller.account}:
        raise Forbidden(
            "not_yours", "That isn't yours to ask for.", field="subject", expected="your own account, scope user"
        )
    return Asked(asked.limit, caller.account, asked.motive)


def _present(snapshot: Snapshot, tenant: str, wanted: rules.Limit, now: datetime) -> rules.Limit:
    """The limit that a higher one is wanted for. Raises: Unprocessable where there is none, or it isn't higher."""
    present = present_limit(wanted, limits_of(snapshot, tenant, now))
    if present is None or not is_raise(wanted.value, present):
        expected = "a limit that is in force" if present is None else "more than the limit in force"
        raise Unprocessable("not_a_raise", "The limit in force allows as much.", field="limit.value", expected=expected)
    return present


def _check_not_pending(connection: sa.Connection, tenant: str, subject: str | None, rule: Mapping[str, Any]) -> None:
    place = {name: rule[name] for name in ("scope", "selector", "meter", "window")}
    pending = sa.select(raise_request.c.id).where(
        raise_request.c.tenant == tenant,
        raise_request.c.state == "pending",
        raise_request.c.subject.is_not_distinct_from(subject),
        raise_request.c.rule.contains(place),
    )
    if connection.execute(pending).first() is not None:
        raise Conflict("already_pending", "A raise of this limit is waiting for a decision.", field="limit")


def _grant(
    connection: sa.Connection, snapshot: Snapshot, caller: Principal, request: RaiseRequest, decision: Decision,
    now: datetime,
) -> None:  # fmt: skip
    granted = request.limit
    if decision.value is not UNSET:
        granted = msgspec.structs.replace(granted, value=decision.value)
    check_place(connection, snapshot, request.tenant, granted, request.subject)
    _present(snapshot, request.tenant, granted.rule(request.subject), now)
    add_override(
        connection,
        Grant(
            tenant=request.tenant,
            limit=granted,
            subject=request.subject,
            starts_at=decision.starts_at,
            ends_at=decision.ends_at,
            motive=decision.reason,
            approver=caller.actor.author,
            raise_request=request.id,
        ),
        now,
    )


def _tell_operators(connection: sa.Connection, request: RaiseRequest) -> None:
    told = {"request": request.id, "tenant": request.tenant}
    enqueue_mail(
        connection, request.id, recipient="operators", subject="raise_received", payload=told, tenant=request.tenant
    )
    payload = told | {"account": request.account, "subject": request.subject, "limit": request.limit}
    enqueue_event(connection, "raise.requested", tenant=request.tenant, key=request.id, payload=payload)


def _tell_asker(connection: sa.Connection, request: RaiseRequest) -> None:
    granted = request.granted
    result = {
        "state": request.state,
        "value": request.limit.value if granted is None else granted.value,
        "ends_at": None if granted is None else granted.ends_at,
    }
    enqueue_mail(
        connection,
        request.id,
        recipient=f"account:{request.account}",
        subject="raise_decided",
        payload=result | {"rule": request.limit, "reason": request.decision_reason},
        tenant=request.tenant,
    )
    _tell_webhooks(connection, request, result)


def _tell_webhooks(connection: sa.Connection, request: RaiseRequest, result: Mapping[str, Any]) -> None:
    payload = {
        **result,
        "request": request.id,
        "tenant": request.tenant,
        "account": request.account,
        "subject": request.subject,
        "limit": request.limit,
    }
    enqueue_event(connection, "raise.decided", tenant=request.tenant, key=request.id, payload=payload)


def _requests() -> sa.Select[Any]:
    override = limit_override.c
    granted = (
        override.id.label("override"),
        override.rule.label("granted_rule"),
        override.starts_at.label("granted_starts_at"),
        override.ends_at.label("granted_ends_at"),
    )
    joined = raise_request.outerjoin(limit_override, override.raise_request == raise_request.c.id)
    return sa.select(raise_request, *granted).select_from(joined)


def _request(row: Mapping[Any, Any]) -> RaiseRequest:
    values = dict(row)
    override, rule = values.pop("override"), values.pop("granted_rule")
    period = values.pop("granted_starts_at"), values.pop("granted_ends_at")
    return RaiseRequest(
        limit=msgspec.convert(values.pop("rule"), Limit),
        study=msgspec.convert(values.pop("study"), Study),
        granted=None if override is None else Granted(override, rule["value"], *period),
        **values,
    )

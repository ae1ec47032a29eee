"""Messages are recorded in the transaction of what they tell of: both are there, or neither.

Recipients are named, never addressed; the address is looked up when a message is sent:

| recipient | who |
|---|---|
| `account:ID` | the person behind an account |
| `access_request:ID` | who asked for access |
| `operators` | the address of the setting `operator_mail` |
| `managers:TENANT`, `accounts:TENANT`, `accounts` | active managers or accounts of an administration, or of all |
| `webhook:ID` | a webhook |
| `webhooks:TENANT`, `webhooks` | who subscribed to an event, see `enqueue_event` |

The last two lines are groups. An administration can't see the operator's webhooks, so a group is one row, which the
worker turns into one row for each member when its turn comes.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.errors import Conflict, NotFound
from metering.outbox.messages import Channel, Message, State
from metering.outbox.wording import MAIL_FIELDS
from metering.tables import account, outbox, tenant, webhook

EVENT_TYPES: Final = (
    "access.requested",
    "access.decided",
    "account.activated",
    "account.suspended",
    "account.deleted",
    "key.created",
    "key.revoked",
    "key.expiring",
    "limit.threshold",
    "raise.requested",
    "raise.decided",
    "convention.published",
    "envelope.running_out",
    "model.retiring",
    "notice.published",
    "terms.published",
    "tenant.suspended",
)
"""Events that a webhook can be told of."""

PUBLIC_EVENT_TYPES: Final = frozenset({"model.retiring", "notice.published", "terms.published"})
"""Events that, when they concern no administration in particular, concern all of them."""

SINGLE_RECIPIENTS: Final = frozenset({"account", "access_request", "operators"})
GROUPS: Final = frozenset({"managers", "accounts", "webhooks"})


def enqueue_mail(
    connection: sa.Connection, key: str, *, recipient: str, subject: str, payload: Mapping[str, Any],
    tenant: str | None = None,
) -> bool:  # fmt: skip
    """Record a mail, and return whether it is new: for one subject and recipient, a key is told once.

    subject: one of `MAIL_FIELDS`; payload: exactly its fields, without a name of a person, an address or a secret.
    tenant: whom it concerns; required where the transaction acts for an administration.
    """
    kind = recipient.partition(":")[0]
    if kind not in SINGLE_RECIPIENTS | GROUPS - {"webhooks"}:
        raise ValueError(f"no recipient of mails: {kind}")
    if set(payload) != set(MAIL_FIELDS[subject]):
        raise ValueError(f"{subject} takes {', '.join(MAIL_FIELDS[subject])}")
    return _record(connection, "mail", key, tenant=tenant, recipient=recipient, subject=subject, payload=payload)


def enqueue_event(
    connection: sa.Connection, event_type: str, *, tenant: str | None, key: str, payload: Mapping[str, Any]
) -> bool:
    """Record an event for webhooks, and return whether it is new: for one type and administration, a key is told once.

    Told are the webhooks of the administration and the operator's that subscribe to the type. Without an
    administration: the operator's only, or, for a type of `PUBLIC_EVENT_TYPES`, everybody's.
    payload: `data` of the call, without a name of a person, an address or a secret.
    """
    if event_type not in EVENT_TYPES:
        raise ValueError(f"no type of event: {event_type}")
    recipient = "webhooks" if tenant is None else f"webhooks:{tenant}"
    return _record(connection, "webhook", key, tenant=tenant, recipient=recipient, subject=event_type, payload=payload)


def _record(
    connection: sa.Connection, channel: Channel, key: str, *, tenant: str | None, recipient: str, subject: str,
    payload: Mapping[str, Any],
) -> bool:  # fmt: skip
    """Insert a row without reading one: an administration may add to the outbox, but not look into it."""
    recorded = connection.execute(
        insert(outbox)
        .values(
            key=f"{subject}/{recipient}/{key}",
            channel=channel,
            tenant=tenant,
            recipient=recipient,
            subject=subject,
            payload=msgspec.to_builtins(payload),
        )
        .on_conflict_do_nothing()
        .inline()
        .execution_options(preserve_rowcount=True)
    )
    return recorded.rowcount == 1


def is_group(recipient: str) -> bool:
    """Whether a recipient stands for several."""
    return recipient.partition(":")[0] in GROUPS


def fan_out(connection: sa.Connection, message: Message, now: datetime) -> int:
    """Record one message for each member of a group, due at once; return how many are new. Safe to repeat."""
    members = list(connection.scalars(_members(message)))
    if not members:
        return 0
    recorded = connection.execute(
        insert(outbox)
        .values(
            [
                {
                    "key": f"{message.key}>{member}",
                    "channel": message.channel,
                    "tenant": message.tenant,
                    "recipient": member,
                    "subject": message.subject,
                    "payload": message.payload,
                    "created_at": message.created_at,
                    "due_at": now,
                }
                for member in members
            ]
        )
        .on_conflict_do_nothing()
        .inline()
        .execution_options(preserve_rowcount=True)
    )
    return recorded.rowcount


def _members(message: Message) -> sa.Select[tuple[str]]:
    kind, of_one, tenant_id = message.recipient.partition(":")
    if kind == "webhooks":
        return _subscribers(message)
    members = sa.select("account:" + account.c.id).where(account.c.status == "active").order_by(account.c.id)
    if of_one:
        members = members.where(account.c.tenant == tenant_id)
    return members.where(account.c.role == "manager") if kind == "managers" else members


def _subscribers(message: Message) -> sa.Select[tuple[str]]:
    to_all_types = webhook.c.events == sa.cast([], webhook.c.events.type)
    subscribed = sa.or_(to_all_types, sa.literal(message.subject) == sa.any_(webhook.c.events))
    has_left = sa.exists().where(tenant.c.id == webhook.c.tenant, tenant.c.status == "deleted")
    subscribers = sa.select("webhook:" + webhook.c.id).where(webhook.c.disabled_at.is_(None), subscribed, ~has_left)
    if message.tenant is None and message.subject in PUBLIC_EVENT_TYPES:
        return subscribers
    return subscribers.where(sa.or_(webhook.c.tenant.is_(None), webhook.c.tenant == message.tenant))


def list_messages(
    connection: sa.Connection, *, state: State | None = None, after: int = 0, limit: int = 100
) -> list[Message]:
    """Messages after a number, oldest first."""
    query = sa.select(outbox).where(outbox.c.number > after).order_by(outbox.c.number).limit(limit)
    if state is not None:
        query = query.where(outbox.c.state == state)
    return [Message.of(row) for row in connection.execute(query)]


def retry_message(connection: sa.Connection, number: int, *, now: datetime) -> None:
    """Send a message that failed or was dropped again, from the first attempt on.

    Raises: NotFound; Conflict if it was sent or is still being tried.
    """
    retried = connection.execute(
        outbox.update()
        .where(outbox.c.number == number, outbox.c.state.in_(["failed", "dropped"]))
        .values(state="waiting", attempts=0, due_at=now, done_at=None)
    )
    if retried.rowcount:
        return
    if connection.scalar(sa.select(outbox.c.number).where(outbox.c.number == number)) is None:
        raise NotFound("unknown_message", f"No message has the number {number}.", field="number")
    raise Conflict("message_not_given_up", f"Message {number} was sent, or is still being tried.", field="number")

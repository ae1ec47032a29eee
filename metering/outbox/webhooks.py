"""Webhooks: who is told of events, with secrets that are shown once and derived ever after."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from metering.errors import Conflict, NotFound, Unprocessable
from metering.outbox.addresses import CheckedUrl, check_url
from metering.outbox.queue import EVENT_TYPES
from metering.outbox.secrets import MasterKey
from metering.tables import webhook

__all__ = ["Webhook", "add_webhook", "check_url", "disable_webhook", "list_webhooks", "rotate_webhook"]

WEBHOOKS_MAX = 20
"""Webhooks of one administration that are in use or were added within a day."""
ROTATION = timedelta(hours=24)
"""How long the old secret signs as well."""
SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is told of events; `tenant` None is the operator's, `events` empty is every type."""

    id: str
    tenant: str | None
    url: str
    events: Sequence[str]
    old_secret_until: datetime | None
    disabled_at: datetime | None
    created_at: datetime


def add_webhook(
    connection: sa.Connection, keys: MasterKey, *, tenant: str | None, url: CheckedUrl, events: Sequence[str]
) -> tuple[Webhook, str]:
    """Register a webhook and return it with its secret, for the only time.

    Raises: Unprocessable for an unknown type of event, or one webhook too many; Unavailable without a master key.
    """
    if not set(events) <= set(EVENT_TYPES):
        raise Unprocessable(
            "unknown_event_type", "There is no such type of event.", field="events", expected=", ".join(EVENT_TYPES)
        )
    of_tenant = webhook.c.tenant.is_not_distinct_from(tenant)
    is_new = webhook.c.created_at > sa.func.now() - timedelta(days=1)
    counted = connection.scalar(
        sa.select(sa.func.count()).where(of_tenant, sa.or_(webhook.c.disabled_at.is_(None), is_new))
    )
    if (counted or 0) >= WEBHOOKS_MAX:
        raise Unprocessable(
            "too_many_webhooks", "There are too many webhooks.",
            expected=f"at most {WEBHOOKS_MAX} in use or added within a day",
        )  # fmt: skip
    webhook_id, salt = f"wh_{secrets.token_hex(8)}", secrets.token_bytes(SALT_BYTES)
    row = connection.execute(
        webhook.insert()
        .values(id=webhook_id, tenant=tenant, url=url, events=list(dict.fromkeys(events)), salt=salt)
        .returning(*_SHOWN)
    ).one()
    return Webhook(*row), keys.webhook_secret(webhook_id, salt)


def list_webhooks(connection: sa.Connection, tenant: str | None) -> list[Webhook]:
    """Webhooks of an administration, or with None the operator's, oldest first; also those disabled."""
    of_tenant = webhook.c.tenant.is_not_distinct_from(tenant)
    rows = connection.execute(sa.select(*_SHOWN).where(of_tenant).order_by(webhook.c.created_at, webhook.c.id))
    return [Webhook(*row) for row in rows]


def rotate_webhook(
    connection: sa.Connection, keys: MasterKey, webhook_id: str, *, tenant: str | None, now: datetime
) -> str:
    """Give a webhook a new secret and return it, for the only time; for a day the old one signs as well.

    Raises: NotFound; Conflict if it is disabled; Unavailable without a master key.
    """
    found = _find(connection, webhook_id, tenant)
    if found.disabled_at is not None:
        raise Conflict("webhook_disabled", "The webhook is disabled.")
    salt = secrets.token_bytes(SALT_BYTES)
    connection.execute(
        webhook.update()
        .where(webhook.c.id == webhook_id)
        .values(old_salt=webhook.c.salt, old_salt_until=now + ROTATION, salt=salt)
    )
    return keys.webhook_secret(webhook_id, salt)


def disable_webhook(connection: sa.Connection, webhook_id: str, *, tenant: str | None, now: datetime) -> None:
    """Tell a webhook nothing more; again changes nothing. Raises: NotFound."""
    if _find(connection, webhook_id, tenant).disabled_at is None:
        connection.execute(webhook.update().where(webhook.c.id == webhook_id).values(disabled_at=now))


def _find(connection: sa.Connection, webhook_id: str, tenant: str | None) -> Webhook:
    query = sa.select(*_SHOWN).where(webhook.c.id == webhook_id, webhook.c.tenant.is_not_distinct_from(tenant))
    if (row := connection.execute(query.with_for_update()).first()) is None:
        raise NotFound("unknown_webhook", "There is no such webhook.")
    return Webhook(*row)


_SHOWN = (
    webhook.c.id, webhook.c.tenant, webhook.c.url, webhook.c.events, webhook.c.old_salt_until, webhook.c.disabled_at,
    webhook.c.created_at,
)  # fmt: skip

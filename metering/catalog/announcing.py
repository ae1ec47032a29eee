"""Telling those concerned: retirements, notices and new versions of the terms.

Jobs of the worker, safe to run as often as one likes: what was told is a row of the outbox, whose key holds what is
told, and of when. A retirement whose date moved is told again.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql import insert

from metering.catalog.documents import Notice, Retirement, Terms
from metering.catalog.kinds import KINDS, load
from metering.database import transaction
from metering.outbox.queue import enqueue_event, enqueue_mail
from metering.rules.periods import PARIS
from metering.rules.retirement import USED_DAYS, step_due
from metering.tables import account, api_key, ledger_series, model, model_alias, outbox, usage_daily

RETIRING = "model_retiring"
DAY = timedelta(days=1)


class User(NamedTuple):
    """Who used something: an administration, and the account where it is known."""

    tenant: str
    account: str | None


def announce_retirements(engine: sa.Engine, now: datetime) -> int:
    """Tell users of what retires, once at each step that has begun; returns how many messages are new.

    Told are the agents who used it within USED_DAYS, all managers of their administrations, and the webhooks.
    """
    with transaction(engine) as connection:
        due = [
            (one, step)
            for one in load(connection, KINDS["retirements"]).values()
            if isinstance(one, Retirement) and (step := step_due(one.announced_at, one.retires_at, now)) is not None
        ]
        return sum(_announce(connection, retirement, step, now) for retirement, step in due)


def _announce(connection: sa.Connection, retirement: Retirement, step: int, now: datetime) -> int:
    users = _users_of(connection, retirement, now - USED_DAYS * DAY)
    key = f"{retirement.kind}:{retirement.subject}/{retirement.retires_at.isoformat()}/{step}"
    payload = {
        "kind": retirement.kind,
        "name": retirement.subject,
        "successor": retirement.successor,
        "retires_at": retirement.retires_at.isoformat(),
        "days": -((now - retirement.retires_at) // DAY),  # rounded up
    }
    told = _mail_users(connection, users, key, payload)
    for tenant in sorted({user.tenant for user in users}):
        told += enqueue_event(connection, "model.retiring", tenant=tenant, key=key, payload=payload)
    return told


def _users_of(connection: sa.Connection, retirement: Retirement, since: datetime) -> list[User]:
    """Who used a model or category from the day of `since` on; calls that failed or were refused count as well."""
    target = model_alias.c.model if retirement.kind == "model" else model_alias.c.category
    names = [retirement.subject, *connection.scalars(sa.select(model_alias.c.id).where(target == retirement.subject))]
    uses_it: sa.ColumnElement[bool] = usage_daily.c.model.in_(names)
    if retirement.kind == "category":
        members = sa.select(model.c.id).where(model.c.category == retirement.subject)
        uses_it = sa.or_(uses_it, usage_daily.c.model.in_(members), _is_of_category(retirement.subject, names))
    # A call with an agent's own key is the agent's, whether or not the gateway said so.
    who = sa.func.coalesce(usage_daily.c.user, api_key.c.account)
    keys = sa.and_(api_key.c.id == usage_daily.c.api_key, api_key.c.tenant == usage_daily.c.tenant)
    found = connection.execute(
        sa.select(usage_daily.c.tenant, who)
        .select_from(usage_daily.outerjoin(api_key, keys))
        .where(usage_daily.c.day >= since.astimezone(PARIS).date(), uses_it)
        .distinct()
    )
    return [User(*row) for row in found]


def _is_of_category(category: str, names: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether a row of daily usage has events of a category: rollups don't know it, the series of their events do."""
    asked = sa.or_(ledger_series.c.category == category, ledger_series.c.model_requested.in_(names))
    answered = sa.func.coalesce(ledger_series.c.model_served, ledger_series.c.model_requested)
    return sa.tuple_(*_who(usage_daily), usage_daily.c.model).in_(
        sa.select(*_who(ledger_series), answered).where(asked).distinct()
    )


def _who(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """Keys of daily usage but the model, without nulls: a null equals nothing, not even another."""
    absent = (sa.func.coalesce(table.c[name], "") for name in ("project", "user", "api_key"))
    return [table.c.tenant, table.c.operation, *absent]


def _mail_users(connection: sa.Connection, users: Sequence[User], key: str, payload: dict[str, Any]) -> int:
    """A mail to each of the users who has an active account, and to all managers of theirs; returns how many are new.

    One statement however many they are; keys are those of `queue.enqueue_mail`.
    """
    tenants, accounts = [user.tenant for user in users], [user.account for user in users]
    texts = pg.ARRAY(sa.Text)
    pairs = sa.func.unnest(sa.cast(tenants, texts), sa.cast(accounts, texts))
    used = pairs.table_valued("tenant", "account").render_derived(name="used")
    recipient = "account:" + account.c.id
    row = {
        "key": f"{RETIRING}/" + recipient + f"/{key}",
        "channel": sa.literal("mail"),
        "tenant": account.c.tenant,
        "recipient": recipient,
        "subject": sa.literal(RETIRING),
        "payload": sa.literal(payload, pg.JSONB),
    }
    is_told = sa.exists().where(outbox.c.key == row["key"])
    concerned = sa.select(*row.values()).where(
        account.c.status == "active",
        sa.exists().where(
            used.c.tenant == account.c.tenant, sa.or_(account.c.role == "manager", used.c.account == account.c.id)
        ),
        ~is_told,  # most are, every minute: no number is spent on them
    )
    statement = insert(outbox).from_select(list(row), concerned).on_conflict_do_nothing().inline()
    return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount


def announce_notices(engine: sa.Engine, now: datetime) -> int:
    """Tell the agents concerned of each notice that isn't over, once; returns how many messages are new."""
    with transaction(engine) as connection:
        notices = [one for one in load(connection, KINDS["notices"]).values() if isinstance(one, Notice)]
        current = [one for one in notices if one.ends_at is None or now < one.ends_at]
        return sum(
            _tell_all(connection, "notice", one.id, tenant, _notice_payload(one))
            for one in current
            for tenant in (one.tenants or (None,))
        )


def _notice_payload(notice: Notice) -> dict[str, Any]:
    return {
        "title_fr": notice.title_fr,
        "title_en": notice.title_en,
        "text_fr": notice.text_fr,
        "text_en": notice.text_en,
        "starts_at": notice.starts_at.isoformat(),
        "ends_at": notice.ends_at and notice.ends_at.isoformat(),
    }


def announce_terms(engine: sa.Engine, now: datetime) -> int:
    """Tell all agents of each version of the terms that holds or will, once; returns how many messages are new."""
    with transaction(engine) as connection:
        versions = [one for one in load(connection, KINDS["terms"]).values() if isinstance(one, Terms)]
        return sum(
            _tell_all(connection, "terms", f"{one.document}/{one.version}", None, _terms_payload(one))
            for one in versions
            if not any(_replaces(other, one, now) for other in versions)
        )


def _replaces(other: Terms, one: Terms, now: datetime) -> bool:
    return other.document == one.document and one.effective_at < other.effective_at <= now


def _terms_payload(terms: Terms) -> dict[str, Any]:
    return {
        "document": terms.document,
        "version": terms.version,
        "effective_at": terms.effective_at.isoformat(),
        "enforced_at": terms.enforced_at.isoformat(),
    }


def _tell_all(connection: sa.Connection, what: str, key: str, tenant: str | None, payload: dict[str, Any]) -> int:
    """A mail to all active accounts, or those of an administration, and the event; returns how many are new."""
    everybody = "accounts" if tenant is None else f"accounts:{tenant}"
    mail = enqueue_mail(
        connection, key, recipient=everybody, subject=f"{what}_published", payload=payload, tenant=tenant
    )
    event = enqueue_event(connection, f"{what}.published", tenant=tenant, key=key, payload=payload)
    return int(mail) + int(event)

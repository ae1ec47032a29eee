"""What a reader of the page is told: notices that are live or to come, and the ends of models and categories they use.

Who used something is decided as it is for the mails that tell of an end (`metering.catalog.announcing`): whoever got
such a mail finds the same here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from metering.identity import Principal
from metering.rules.periods import PARIS, day_bounds
from metering.rules.retirement import USED_DAYS, Retiring
from metering.tables import (
    api_key,
    ledger_series,
    model,
    model_alias,
    notice,
    retirement,
    usage_daily,
    usage_hourly,
)
from reports import wording
from reports.selection import ZONE
from reports.shown import Announcement
from reports.wording import Language, say


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice as it was written, in both languages; `ends_at` is exclusive, None: until further notice."""

    kind: Literal["maintenance", "incident", "information"]
    title_fr: str
    title_en: str
    text_fr: str
    text_en: str
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Retirement:
    """The announced end of a model or category, refused from `retires_at` on."""

    kind: Retiring
    subject: str
    successor: str | None
    retires_at: datetime


@dataclass(frozen=True, slots=True)
class News:
    """What a reader is told at an instant: notices by their beginning, then ends by their date."""

    at: datetime
    notices: Sequence[Notice] = ()
    retirements: Sequence[Retirement] = ()


def read_news(connection: sa.Connection, reader: Principal, now: datetime) -> News:
    """What a reader is told: an administration's agents of what concerns it, the platform's staff of everything."""
    return News(now, _notices(connection, reader, now), _retirements(connection, reader, now))


def _notices(connection: sa.Connection, reader: Principal, now: datetime) -> list[Notice]:
    query = (
        sa.select(*(notice.c[name] for name in Notice.__dataclass_fields__))
        .where(sa.or_(notice.c.ends_at.is_(None), notice.c.ends_at > now))
        .order_by(notice.c.starts_at, notice.c.id)
    )
    if reader.tenant is not None:
        listed = notice.c.tenants
        query = query.where(sa.or_(sa.func.cardinality(listed) == 0, sa.literal(reader.tenant) == sa.any_(listed)))
    return [Notice(*row) for row in connection.execute(query)]


def _retirements(connection: sa.Connection, reader: Principal, now: datetime) -> list[Retirement]:
    query = (
        sa.select(*(retirement.c[name] for name in Retirement.__dataclass_fields__))
        .where(retirement.c.announced_at <= now, retirement.c.retires_at > now)
        .order_by(retirement.c.retires_at, retirement.c.id)
    )
    announced = [Retirement(*row) for row in connection.execute(query)]
    if reader.tenant is None:
        return announced
    return [one for one in announced if connection.scalar(sa.select(_was_used(one, reader, now)))]


def _was_used(one: Retirement, reader: Principal, now: datetime) -> sa.ColumnElement[bool]:
    """Whether a member used something in the last USED_DAYS, or anybody of a manager's administration."""
    since = (now - timedelta(days=USED_DAYS)).astimezone(PARIS).date()
    if reader.role != "member":
        # Hours without people are fewer rows by far than days with them.
        hour = usage_hourly.c.hour >= day_bounds(since)[0]
        return sa.exists().where(usage_hourly.c.tenant == reader.tenant, hour, _is_use(usage_hourly, one))
    days = sa.and_(usage_daily.c.tenant == reader.tenant, usage_daily.c.day >= since, _is_use(usage_daily, one))
    # A call with an agent's own key is the agent's, whether or not the gateway said so. Two questions, because each
    # finds its rows by the rollup's key, and both in one wouldn't.
    keys = sa.select(api_key.c.id).where(api_key.c.tenant == reader.tenant, api_key.c.account == reader.account)
    return sa.or_(
        sa.exists().where(days, usage_daily.c.user == reader.account),
        sa.exists().where(days, usage_daily.c.user.is_(None), usage_daily.c.api_key.in_(keys)),
    )


def _is_use(rollup: sa.Table, one: Retirement) -> sa.ColumnElement[bool]:
    """Whether a row of a rollup is use of a model or category, under any of its names."""
    aliases = sa.select(model_alias.c.id).where(model_alias.c[one.kind] == one.subject)

    def is_named(column: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        return sa.or_(column == one.subject, column.in_(aliases))

    if one.kind == "model":
        return is_named(rollup.c.model)
    members = sa.select(model.c.id).where(model.c.category == one.subject)
    # Rollups don't know of categories; the series of their events do.
    asked = sa.or_(ledger_series.c.category == one.subject, is_named(ledger_series.c.model_requested))
    answered = sa.func.coalesce(ledger_series.c.model_served, ledger_series.c.model_requested)
    names = [name for name in ("tenant", "operation", "project", "user", "api_key") if name in rollup.c]
    of_category = sa.tuple_(*_present(rollup, names), rollup.c.model).in_(
        sa.select(*_present(ledger_series, names), answered).where(asked)
    )
    return sa.or_(is_named(rollup.c.model), rollup.c.model.in_(members), of_category)


def _present(table: sa.Table, names: Sequence[str]) -> list[sa.ColumnElement[str]]:
    """Columns without nulls: a null equals nothing, not even another."""
    return [sa.func.coalesce(table.c[name], "") for name in names]


def announcements(news: News, language: Language) -> tuple[Announcement, ...]:
    """What the page says of the news. Pure."""
    return (
        *(_of_notice(one, news.at, language) for one in news.notices),
        *(_of_retirement(one, language) for one in news.retirements),
    )


def _of_notice(one: Notice, now: datetime, language: Language) -> Announcement:
    start = wording.moment(one.starts_at, ZONE, language)
    if one.ends_at is not None:
        end = wording.moment(one.ends_at, ZONE, language)
        when = say(language, "notice.from_to", start=start, end=end, zone=ZONE.key)
    else:
        key = "notice.coming_open" if now < one.starts_at else "notice.since"
        when = say(language, key, start=start, zone=ZONE.key)
    return Announcement(
        kind=one.kind,
        label=say(language, f"notice.{one.kind}"),
        state=say(language, "notice.coming" if now < one.starts_at else "notice.live"),
        title=one.title_fr if language == "fr" else one.title_en,
        when=when,
        text=one.text_fr if language == "fr" else one.text_en,
    )


def _of_retirement(one: Retirement, language: Language) -> Announcement:
    end = wording.moment(one.retires_at, ZONE, language)
    instead = (
        say(language, "retirement.no_successor")
        if one.successor is None
        else say(language, "retirement.successor", successor=one.successor)
    )
    return Announcement(
        kind="retirement",
        label=say(language, "retirement"),
        state=say(language, "notice.coming"),
        title=say(language, f"retirement.{one.kind}", name=one.subject),
        when=say(language, "retirement.from", start=end, zone=ZONE.key),
        text=instead,
    )

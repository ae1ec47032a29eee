"""When a month is due to be looked at: a job of the worker, safe to run as often as one likes."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from metering.billing.closing import Closer
from metering.billing.periods import Closing, final_closings, month_after, month_before, month_of
from metering.billing.rating import read_month
from metering.database import transaction
from metering.tables import month_closing, platform

AUTHOR = "worker"


def draft_due(closer: Closer, now: datetime) -> Closing | None:
    """Draft the month whose days of grace are over, once, where somebody sells; operators are told by mail."""
    with transaction(closer.engine) as connection:
        if connection.scalar(sa.select(platform.c.issuer)) is None:
            return None
        finals = final_closings(connection)
        month = month_after(finals[-1].month) if finals else month_before(month_of(now))
        due_at = read_month(month).end + timedelta(days=closer.grace_days)
        row = month_closing.c
        is_drafted = sa.select(sa.exists().where(row.month == month, row.started_at >= due_at))
        if now < due_at or connection.scalar(is_drafted):
            return None
    return closer.draft(month, author=AUTHOR, now=now, tells_operators=True)[0]

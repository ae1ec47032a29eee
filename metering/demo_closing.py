"""The demo closes the month before, so that there are documents to look at."""

import threading
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
import structlog

from metering.billing.periods import is_closed, month_before, month_of
from metering.billing.rating import Period, read_month
from metering.database import transaction
from metering.errors import JaugeError, Unavailable
from metering.services import Services
from metering.tables import carbon_batch, usage_hourly

LOOK_EVERY_S = 5
AUTHOR = "demo"

log = structlog.get_logger(__name__)


def close_month_before(services: Services, stop: threading.Event) -> None:
    """Close it as soon as the carbon of its usage is posted; where it can't be closed, leave it as it is."""
    while not close_if_complete(services, datetime.now(UTC)) and not stop.wait(LOOK_EVERY_S):
        pass


def close_if_complete(services: Services, now: datetime) -> bool:
    """Whether nothing is left to do: the month before is closed, was never used, or isn't open to be closed."""
    closer, month = services.closer(), month_before(month_of(now))
    period = read_month(month)
    if now < period.end + timedelta(days=closer.grace_days):
        return True
    try:
        with transaction(services.engine) as connection:
            if is_closed(connection, month):
                return True
            used, awaited = _hours(connection, period)
        if used and not awaited:
            closer.finalise(month, author=AUTHOR, now=now)
        return not awaited
    except Unavailable:  # somebody else is closing it, or a store is restarting
        return False
    except JaugeError as error:
        log.warning("month_not_closed", month=month, code=error.code)
        return True


def _hours(connection: sa.Connection, period: Period) -> tuple[int, int]:
    """Hours of a month with usage, and those of them whose carbon isn't posted yet."""
    hours = (
        sa.select(usage_hourly.c.hour)
        .where(usage_hourly.c.hour >= period.start, usage_hourly.c.hour < period.end)
        .distinct()
        .subquery()
    )
    is_posted = sa.exists().where(carbon_batch.c.hour == hours.c.hour)
    awaited = sa.func.count().filter(~is_posted)
    used, waiting = connection.execute(sa.select(sa.func.count(), awaited).select_from(hours)).one()
    return used, waiting

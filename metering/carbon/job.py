"""The job that posts hours: one worker at a time, oldest first; after a stop it goes on where it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy as sa
import structlog

from metering.carbon.due import due_hours, mark_due
from metering.carbon.hours import compute_hour
from metering.carbon.posting import CARBON_LOCK, post
from metering.database import transaction
from metering.tables import carbon_hour

Progress = Callable[[int, int | None], None]

log = structlog.get_logger(__name__)


def post_due(engine: sa.Engine, now: datetime, progress: Progress = lambda _amount, _total: None) -> int:
    """Post every hour that is due; `progress` is told each, and how many in all. Returns how many were changed.

    Each hour is a transaction of its own, so a stop in between loses nothing. While another worker does it, nothing is
    done here. Raises: Unavailable.
    """
    with _leading(engine) as leader:
        if leader is None:
            return 0
        with transaction(engine) as connection:
            mark_due(connection)
            waiting = due_hours(connection, now)
        changed = 0
        for hour in waiting:
            changed += _post_hour(engine, hour)
            # The database ends a transaction that idles for a minute, and the lock with it.
            leader.execute(sa.select(sa.literal(1)))
            progress(1, len(waiting))
    return changed


def _post_hour(engine: sa.Engine, hour: datetime) -> bool:
    """Post an hour from what one state of the database knows; returns whether that changed anything."""
    with transaction(engine, snapshot=True) as connection:
        marks = mark_due(connection)
        connection.execute(carbon_hour.update().where(carbon_hour.c.hour == hour).values(is_due=False))
        computed = compute_hour(connection, hour)
        seq = post(connection, hour, computed.entries, computed.meters, marks)
    if seq is not None:
        log.info("carbon_posted", hour=hour.isoformat(), batch=seq, entries=len(computed.entries))
    return seq is not None


@contextmanager
def _leading(engine: sa.Engine) -> Iterator[sa.Connection | None]:
    """The connection that makes this worker the one that posts, for as long as the block runs; None if another is.

    The lock is a transaction's of its own: those that post begin once it is held, and see what was posted before.
    """
    with transaction(engine) as connection:
        is_leader = connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(CARBON_LOCK)))
        yield connection if is_leader else None

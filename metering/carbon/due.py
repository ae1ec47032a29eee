"""Which hours are to be posted: those about which the ledger, the readings or the factors say something new."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.carbon.posting import Marks
from metering.tables import carbon_cursor, carbon_hour, emission_factor, energy_batch, ledger_batch

WATERMARK = timedelta(minutes=10)
"""An hour is posted so long after its end: most of what is late is there by then, and the rest restates it."""

REQUEST_MAX = timedelta(hours=6)
"""A request that runs longer is charged for its first hours: nothing in an hour is older than this."""

_HOURS_OF_ENTRIES = sa.text("""
    SELECT DISTINCT generate_series(
        date_trunc('hour', occurred_at), least(ended_at, occurred_at + :longest), interval '1 hour'
    )
    FROM ledger_entry WHERE batch_seq > :after AND batch_seq <= :last
""")

# What is known of the time around a reading depends on the readings before and after it, to which it reaches.
_HOURS_OF_READINGS = sa.text("""
    SELECT DISTINCT generate_series(
        date_trunc('hour', coalesce(
            (SELECT max(b.at) FROM energy_reading b WHERE b.node = r.node AND b.gpu = r.gpu AND b.at < r.at), r.at)),
        coalesce(
            (SELECT min(a.at) FROM energy_reading a WHERE a.node = r.node AND a.gpu = r.gpu AND a.at > r.at), r.at)
        - interval '1 microsecond',
        interval '1 hour'
    )
    FROM energy_reading r WHERE batch_seq > :after AND batch_seq <= :last
""")


def mark_due(connection: sa.Connection) -> Marks:
    """Mark hours that something new is known of, and say how far that is; the caller holds CARBON_LOCK."""
    before = _cursor(connection)
    now = _newest(connection)
    marks = {"after": before.ledger_seq, "last": now.ledger_seq}
    hours = set(connection.scalars(_HOURS_OF_ENTRIES, marks | {"longest": REQUEST_MAX}))
    hours |= set(connection.scalars(_HOURS_OF_READINGS, {"after": before.energy_seq, "last": now.energy_seq}))
    hours |= _hours_of_factors(connection, before.factor_number, now.factor_number)
    _mark(connection, sorted(hours))
    values = {"ledger_seq": now.ledger_seq, "energy_seq": now.energy_seq, "factor_number": now.factor_number}
    cursor = insert(carbon_cursor).values(values)
    connection.execute(cursor.on_conflict_do_update(index_elements=["id"], set_=values))
    return now


def due_hours(connection: sa.Connection, now: datetime) -> Sequence[datetime]:
    """The hours to be posted whose watermark has passed, oldest first."""
    return connection.scalars(
        sa.select(carbon_hour.c.hour)
        .where(carbon_hour.c.is_due, carbon_hour.c.hour <= now - WATERMARK - timedelta(hours=1))
        .order_by(carbon_hour.c.hour)
    ).all()


def mark_again(connection: sa.Connection, starts_at: datetime, ends_at: datetime) -> int:
    """Mark posted hours of a period as due, after a change that nothing else tells of; returns how many."""
    hours = carbon_hour.c.hour
    return connection.execute(
        carbon_hour.update().where(hours >= starts_at, hours < ends_at).values(is_due=True)
    ).rowcount


def _cursor(connection: sa.Connection) -> Marks:
    row = connection.execute(
        sa.select(carbon_cursor.c.ledger_seq, carbon_cursor.c.energy_seq, carbon_cursor.c.factor_number)
    ).first()
    return Marks(0, 0, 0) if row is None else Marks(*row)


def _newest(connection: sa.Connection) -> Marks:
    newest = (sa.func.max(ledger_batch.c.seq), sa.func.max(energy_batch.c.seq), sa.func.max(emission_factor.c.number))
    return Marks(*(connection.scalar(sa.select(one)) or 0 for one in newest))


def _hours_of_factors(connection: sa.Connection, after: int, last: int) -> set[datetime]:
    """Posted hours that new factors are of."""
    new = sa.and_(emission_factor.c.number > after, emission_factor.c.number <= last)
    within = sa.and_(
        emission_factor.c.ends_at > carbon_hour.c.hour,
        emission_factor.c.starts_at < carbon_hour.c.hour + timedelta(hours=1),
    )
    return set(connection.scalars(sa.select(carbon_hour.c.hour).where(sa.exists().where(new, within))))


def _mark(connection: sa.Connection, hours: Sequence[datetime]) -> None:
    if hours:
        marked = insert(carbon_hour).values([{"hour": hour, "is_due": True} for hour in hours])
        connection.execute(marked.on_conflict_do_update(index_elements=["hour"], set_={"is_due": True}))

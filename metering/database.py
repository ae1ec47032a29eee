"""Connections and transactions. The only place that commits."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from metering.errors import Unavailable

RETRY_AFTER_S = 5


def engine_for(url: str, *, connections_max: int = 10) -> sa.Engine:
    """Engine for a libpq URL (`postgresql://…`); connections are checked before use, so a restart goes unnoticed."""
    return sa.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "options": "-c timezone=UTC"},
    )


@contextmanager
def transaction(engine: sa.Engine, *, snapshot: bool = False) -> Iterator[sa.Connection]:
    """A transaction that commits when the block ends and rolls back when it raises.

    snapshot: every statement of the block sees the database as it was at the first (REPEATABLE READ).
    Raises: Unavailable when the database is away, full or shutting down.
    """
    chosen = engine.execution_options(isolation_level="REPEATABLE READ") if snapshot else engine
    try:
        with chosen.begin() as connection:
            yield connection
    except (DBAPIError, sa.exc.TimeoutError, psycopg.Error) as error:
        if (outage := outage_of(error)) is None:
            raise
        raise outage from error


def raw(connection: sa.Connection) -> psycopg.Connection:
    """The psycopg connection below, for COPY."""
    below = connection.connection.driver_connection
    assert isinstance(below, psycopg.Connection)
    return below


def outage_of(error: Exception) -> Unavailable | None:
    """The outage that a database error tells of, or None when it is a fault of ours."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, psycopg.errors.DiskFull | psycopg.errors.IoError):
        return Unavailable("storage_full", "The ledger can't write to its disk.", retry_after_s=60)
    away = isinstance(error, sa.exc.TimeoutError) or (
        # Class 57 is operator intervention, 53 a lack of resources; no code at all is a lost connection.
        isinstance(cause, psycopg.OperationalError) and (cause.sqlstate or "57")[:2] in {"57", "53", "08"}
    )
    if away or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return Unavailable("database_unavailable", "The ledger's database is away.", retry_after_s=RETRY_AFTER_S)
    return None

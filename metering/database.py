"""Connections and transactions. The only place that commits."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from metering.errors import Unavailable, Unprocessable

RETRY_AFTER_S = 5

SESSION = "-c timezone=UTC -c lock_timeout=60s -c idle_in_transaction_session_timeout=60s"
"""A process that freezes inside a transaction holds the ledger's lock: after a minute the others go on without it."""

PEER_CHECKS = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""A server that vanished from the network is noticed within a minute, not by the kernel's two hours."""

_AWAY = ("08", "53", "57", "25006", "25P03", "25P04")
"""SQLSTATE begins: connection exception, insufficient resources, operator intervention; a standby that is read-only;
transactions that idled or lasted too long, and were ended by the server."""

_BUSY = ("40", "55P03")
"""SQLSTATE begins: rolled back for others' sake (deadlock, serialization); a lock not had in time."""


TENANT_ROLE = "jauge_tenant"
"""Role that sees the rows of one administration, see the migration of the catalogue."""


@dataclass(frozen=True, slots=True)
class Actor:
    """On whose behalf a transaction runs.

    author: who the record of changes names. tenant: the one administration whose rows can be seen or written; None is
    the platform's own staff, who see all.
    """

    author: str
    tenant: str | None = None


def engine_for(url: str, *, connections_max: int = 10) -> sa.Engine:
    """Engine for a libpq URL (`postgresql://…`); connections are checked before use, so a restart goes unnoticed."""
    return sa.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=True,
        hide_parameters=True,  # what a statement was given can be a name or an address
        connect_args={**PEER_CHECKS, "options": SESSION},
    )


@contextmanager
def transaction(engine: sa.Engine, *, snapshot: bool = False, actor: Actor | None = None) -> Iterator[sa.Connection]:
    """A transaction that commits when the block ends and rolls back when it raises.

    snapshot: every statement of the block sees the database as it was at the first (REPEATABLE READ).
    actor: who acts; the database itself then keeps an administration to its own rows.
    Raises: Unavailable when the database is away, full, busy or shutting down: what was written is then not known;
    Unprocessable for a text that can't be stored.
    """
    chosen = engine.execution_options(isolation_level="REPEATABLE READ") if snapshot else engine
    try:
        with chosen.begin() as connection:
            if actor is not None:
                _act_for(connection, actor)
            yield connection
    except (DBAPIError, sa.exc.TimeoutError, psycopg.Error) as error:
        if _is_unstorable(error):
            raise Unprocessable("invalid_text", "A text can't be stored.", expected="text without NUL") from error
        if (outage := outage_of(error)) is None:
            raise
        raise outage from error


@contextmanager
def alone(engine: sa.Engine, lock: int) -> Iterator[bool]:
    """Hold a lock of the database while the block runs; False where another process, or thread, has it.

    The server lets go of it when the connection ends, however it ends. Raises: Unavailable.
    """
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except (DBAPIError, sa.exc.TimeoutError) as error:
        if (outage := outage_of(error)) is None:
            raise
        raise outage from error
    try:
        yield connection.scalar(sa.select(sa.func.pg_try_advisory_lock(lock))) is True
    finally:
        # Let go at once; where that fails, the connection must not go back to the others with a lock.
        with suppress(DBAPIError):
            connection.execute(sa.select(sa.func.pg_advisory_unlock(lock)))
        connection.invalidate()
        connection.close()


def _act_for(connection: sa.Connection, actor: Actor) -> None:
    """Both settings end with the transaction."""
    connection.execute(
        sa.select(
            sa.func.set_config("jauge.author", actor.author, True),
            sa.func.set_config("jauge.tenant", actor.tenant or "", True),
        )
    )
    if actor.tenant is not None:
        connection.execute(sa.text(f"SET LOCAL ROLE {TENANT_ROLE}"))


def raw(connection: sa.Connection) -> psycopg.Connection:
    """The psycopg connection below, for COPY."""
    below = connection.connection.driver_connection
    assert isinstance(below, psycopg.Connection)
    return below


def _is_unstorable(error: Exception) -> bool:
    """Whether a text has a character that PostgreSQL has no place for; its driver says so without asking it."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, psycopg.DataError) and cause.sqlstate is None


def outage_of(error: Exception) -> Unavailable | None:
    """The outage that a database error tells of, or None when it is a fault of ours."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = (cause.sqlstate or "") if isinstance(cause, psycopg.Error) else ""
    if isinstance(cause, psycopg.errors.DiskFull | psycopg.errors.IoError):
        return Unavailable("storage_full", "The ledger can't write to its disk.", retry_after_s=60)
    if state.startswith(_BUSY):
        return Unavailable("database_busy", "The ledger's database is busy.", retry_after_s=RETRY_AFTER_S)
    lost = isinstance(cause, psycopg.OperationalError) and not state
    if (
        lost
        or state.startswith(_AWAY)
        or isinstance(error, sa.exc.TimeoutError)
        or (isinstance(error, DBAPIError) and error.connection_invalidated)
    ):
        return Unavailable("database_unavailable", "The ledger's database is away.", retry_after_s=RETRY_AFTER_S)
    return None

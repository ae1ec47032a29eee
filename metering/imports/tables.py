"""The tables of an OpenGateLLM's database, of whichever release: what each column is called there.

Two generations are told apart by their columns. That of 2025 (from v0.1.6 on) names models in `usage` and `limit`; that
of 2026 has routers. Releases between them mix both, so each column is looked for by itself. Source: the SQLAlchemy
models of the gateway, `app/sql/models.py` (July 2025), `api/sql/models.py` and `api/infrastructure/postgres/models.py`
(September 2026).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import psycopg
import sqlalchemy as sa

from metering.database import engine_for, transaction
from metering.errors import BadRequest, Forbidden, Unavailable, Unprocessable

Generation = Literal["2025", "2026"]

_SCHEMES = ("postgresql://", "postgres://", "postgresql+asyncpg://", "postgresql+psycopg://", "postgresql+psycopg2://")

REQUIRED: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "usage": {
            "id": ("id",),
            "started_at": ("created", "datetime"),
            "user_id": ("user_id",),
            "endpoint": ("endpoint",),
            "model": ("router_name", "request_model"),
            "prompt_tokens": ("prompt_tokens",),
            "completion_tokens": ("completion_tokens",),
            "status": ("status",),
        },
        "user": {"id": ("id",), "name": ("name",), "role_id": ("role_id",), "expires_at": ("expires", "expires_at")},
        "role": {"id": ("id",), "name": ("name",)},
        "limit": {"role_id": ("role_id",), "type": ("type",), "value": ("value",), "model": ("router_id", "model")},
        "permission": {"role_id": ("role_id",), "permission": ("permission",)},
        "token": {
            "id": ("id",),
            "user_id": ("user_id",),
            "name": ("name",),
            "shown": ("token",),
            "expires_at": ("expires", "expires_at"),
        },
    }
)
"""Table to our name of a column to its names, of which the first that is there is read."""

OPTIONAL: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "usage": {
            "duration_ms": ("latency", "duration"),
            "first_token_ms": ("ttft", "time_to_first_token"),
            "token_id": ("token_id",),
            "provider_id": ("provider_id",),
            "answered": ("model",),
        },
        "user": {"email": ("email",), "organisation_id": ("organization_id",), "budget": ("budget",)},
        "token": {"revoked": ("revoked",)},
        "organization": {"id": ("id",), "name": ("name",)},
        "router": {"id": ("id",), "name": ("name",), "type": ("type",)},
        "router_alias": {"model": ("router_id",), "alias": ("value",)},
        "model": {"name": ("name",), "type": ("type",)},
        "model_alias": {"model": ("model_router_name",), "alias": ("alias",)},
    }
)
"""The same for what some releases don't have: a column that isn't there is null, a table has no rows."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the tables of one database look like.

    columns: table to our name of a column to its own, None if it isn't there; sources: the tables themselves.
    """

    columns: Mapping[str, Mapping[str, str | None]]
    sources: Mapping[str, sa.TableClause]

    @property
    def generation(self) -> Generation:
        """Which of the two this release belongs to."""
        return "2026" if self.has("router") else "2025"

    def has(self, table: str) -> bool:
        """Whether this release has a table."""
        return table in self.columns

    def select(self, table: str) -> sa.Select[Any]:
        """Everything we read of a table, under our names."""
        return sa.select(*(self.column(table, name) for name in self.columns[table])).select_from(self.sources[table])

    def column(self, table: str, name: str) -> sa.ColumnElement[Any]:
        """A column under our name; null where it isn't there."""
        own = self.columns[table][name]
        return sa.null().label(name) if own is None else self.sources[table].c[own].label(name)


@contextmanager
def gateway_engine(url: str) -> Iterator[sa.Engine]:
    """The gateway's database, by its URL. Raises: BadRequest, which never echoes it."""
    scheme = next((one for one in _SCHEMES if url.startswith(one)), None)
    try:
        if scheme is None:
            raise ValueError
        engine = engine_for(f"postgresql://{url.removeprefix(scheme)}", connections_max=1)
    except (sa.exc.ArgumentError, ValueError):
        raise BadRequest(
            "invalid_database_url", "This isn't the URL of a PostgreSQL database.", field="--database-url",
            expected="postgresql://USER:PASSWORD@HOST:PORT/NAME",
        ) from None  # fmt: skip
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One state of the gateway's database, which nothing can be written to.

    Raises: Unavailable if it can't be reached; Forbidden for a table that its user may not read.
    """
    try:
        with transaction(engine, snapshot=True) as connection:
            connection.execute(sa.text("SET TRANSACTION READ ONLY"))
            yield connection
    except Unavailable as error:
        raise Unavailable(
            "gateway_database_unavailable", "The gateway's database can't be reached.", field="--database-url",
            expected="a server that is up, and takes this user and password",
        ) from error  # fmt: skip
    except sa.exc.ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise Forbidden(
                "gateway_table_unreadable", "The user of the gateway's database may not read all of its tables.",
                field="--database-url", expected=f"SELECT on {', '.join(REQUIRED)}",
            ) from error  # fmt: skip
        raise


def read_shape(connection: sa.Connection) -> Shape:
    """What this release's tables look like.

    Raises: Unprocessable for a database that isn't an OpenGateLLM's, or lacks a column that is needed.
    """
    rows = connection.execute(
        sa.text(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = ANY (current_schemas(false))"
        )
    )
    there: dict[str, set[str]] = {}
    for table, column in rows:
        there.setdefault(table, set()).add(column)
    for table, needed in REQUIRED.items():
        _check_table(table, needed, there.get(table, set()))
    columns = {
        table: {name: _first(names, there[table]) for name, names in _fields(table).items()}
        for table in {**REQUIRED, **OPTIONAL}
        if table in there
    }
    return Shape(columns, {table: sa.table(table, *map(sa.column, there[table])) for table in columns})


def _fields(table: str) -> dict[str, tuple[str, ...]]:
    return {**REQUIRED.get(table, {}), **OPTIONAL.get(table, {})}


def _check_table(table: str, needed: Mapping[str, tuple[str, ...]], there: set[str]) -> None:
    if not there:
        raise Unprocessable(
            "unknown_gateway_schema", "This isn't the database of an OpenGateLLM, or its user may not read it.",
            field=table, expected=f"tables {', '.join(REQUIRED)}",
        )  # fmt: skip
    for names in needed.values():
        if _first(names, there) is None:
            raise Unprocessable(
                "missing_gateway_column", "This release of OpenGateLLM isn't known: a column is missing.",
                field=f"{table}.{names[0]}", expected=" or ".join(names),
            )  # fmt: skip


def _first(names: tuple[str, ...], there: set[str]) -> str | None:
    return next((name for name in names if name in there), None)

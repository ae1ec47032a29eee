"""Who and what an OpenGateLLM knows: read whole, in one state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from metering.imports.tables import Generation, Shape


@dataclass(frozen=True, slots=True)
class User:
    """A user. expires_at: from then on, the gateway refuses them."""

    id: int
    name: str | None = field(repr=False)
    email: str | None = field(repr=False)
    role_id: int
    organisation_id: int | None
    expires_at: datetime | None
    has_budget: bool


@dataclass(frozen=True, slots=True)
class RoleLimit:
    """A limit of a role for one model. kind: rpm, rpd, tpm or tpd; value None is unlimited, 0 forbids."""

    model: str
    kind: str
    value: int | None


@dataclass(frozen=True, slots=True)
class Role:
    """What users of it may use. An administrator of the gateway is held to no limit."""

    id: int
    name: str
    is_admin: bool
    limits: Sequence[RoleLimit]


@dataclass(frozen=True, slots=True)
class Token:
    """An API key. shown: its first and last 8 characters, which is all that the gateway keeps of it."""

    id: int
    user_id: int
    name: str | None
    shown: str | None
    expires_at: datetime | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class Directory:
    """Everything but the usage. organisations: id to name; models: name to type; aliases: other name to model.

    last_row: the last row of usage then; who makes a later one may not be in here.
    """

    generation: Generation
    organisations: Mapping[int, str]
    users: Mapping[int, User]
    roles: Mapping[int, Role]
    tokens: Sequence[Token]
    models: Mapping[str, str]
    aliases: Mapping[str, str]
    usage_rows: int
    last_row: int
    has_unattributed: bool


def read_directory(connection: sa.Connection, shape: Shape) -> Directory:
    """The directory of a database. Raises what reading raises."""
    models = _models(connection, shape)
    names: dict[int | str, str] = {**models.by_router, **{name: name for name in models.types}}
    roles = _roles(connection, shape, names if shape.generation == "2026" else {})
    users = {user.id: user for user in map(_user, connection.execute(shape.select("user")))}
    usage_rows, last_row, gone_rows = _usage_size(connection, shape)
    return Directory(
        generation=shape.generation,
        organisations=_pairs(connection, shape, "organization"),
        users=users,
        roles=roles,
        tokens=[_token(row) for row in connection.execute(shape.select("token").order_by(sa.text("id")))],
        models=models.types or {limit.model: "" for role in roles.values() for limit in role.limits},
        aliases=_aliases(connection, shape, names),
        usage_rows=usage_rows,
        last_row=last_row,
        has_unattributed=gone_rows > 0 or any(user.organisation_id is None for user in users.values()),
    )


@dataclass(frozen=True, slots=True)
class _Models:
    types: dict[str, str]
    by_router: dict[int | str, str]


def _models(connection: sa.Connection, shape: Shape) -> _Models:
    """Models with their types; the first releases have them in a file, and none here."""
    if shape.has("router"):
        rows = connection.execute(shape.select("router")).all()
        return _Models({row.name: _type(row.type) for row in rows}, {row.id: row.name for row in rows})
    if shape.has("model"):
        return _Models({row.name: _type(row.type) for row in connection.execute(shape.select("model"))}, {})
    return _Models({}, {})


def _type(text: object) -> str:
    """`TEXT_GENERATION` (a name of an enum) and `text-generation` (its value) are the same."""
    return str(text).lower().replace("_", "-")


def _aliases(connection: sa.Connection, shape: Shape, names: Mapping[int | str, str]) -> dict[str, str]:
    table = "router_alias" if shape.has("router_alias") else "model_alias"
    rows = connection.execute(shape.select(table)) if shape.has(table) else ()
    return {row.alias: names[row.model] for row in rows if row.model in names}


def _roles(connection: sa.Connection, shape: Shape, by_router: Mapping[int | str, str]) -> dict[int, Role]:
    limits: dict[int, list[RoleLimit]] = {}
    for row in connection.execute(shape.select("limit")):
        name = by_router.get(row.model, str(row.model))
        limits.setdefault(row.role_id, []).append(RoleLimit(name, str(row.type).lower(), row.value))
    granted = connection.execute(shape.select("permission"))
    admins = {row.role_id for row in granted if str(row.permission).lower() in {"admin", "master"}}
    return {
        row.id: Role(row.id, row.name, row.id in admins, limits.get(row.id, []))
        for row in connection.execute(shape.select("role"))
    }


def _pairs(connection: sa.Connection, shape: Shape, table: str) -> dict[int, str]:
    if not shape.has(table):
        return {}
    return {row.id: row.name for row in connection.execute(shape.select(table))}


def _user(row: sa.Row[Any]) -> User:
    # The first releases have an address as the name of many users, and no other.
    email = row.email or (row.name if row.name and "@" in row.name else None)
    return User(row.id, row.name, email, row.role_id, row.organisation_id, utc(row.expires_at), row.budget is not None)


def _token(row: sa.Row[Any]) -> Token:
    return Token(row.id, row.user_id, row.name, row.shown, utc(row.expires_at), bool(row.revoked))


def _usage_size(connection: sa.Connection, shape: Shape) -> tuple[int, int, int]:
    """Rows of usage, the last row's number, and how many rows are of a user who is gone."""
    number, user_id = shape.column("usage", "id"), shape.column("usage", "user_id")
    is_gone = sa.or_(user_id.is_(None), user_id.not_in(sa.select(shape.column("user", "id"))))
    columns = (sa.func.count(), sa.func.coalesce(sa.func.max(number), 0), sa.func.count().filter(is_gone))
    rows, last, gone = connection.execute(sa.select(*columns).select_from(shape.sources["usage"])).one()
    return rows, last, gone


def utc(instant: datetime | None) -> datetime | None:
    """An instant with its zone: what has none was written by a gateway whose clock is UTC, as its images' are."""
    return instant.replace(tzinfo=UTC) if instant is not None and instant.tzinfo is None else instant

"""Users, their keys, and the limits by which they differ from the others of their administration."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.catalog.access import checked_email
from metering.catalog.documents import Limit, Tenant
from metering.catalog.imported_keys import ImportedKey, import_keys
from metering.catalog.kinds import KINDS, load
from metering.catalog.overrides import Grant, add_override
from metering.errors import Unprocessable
from metering.imports.attribution import Attribution
from metering.imports.directory import Directory, Token, User
from metering.imports.names import account_of_user, key_of_token, plan_of_role
from metering.imports.secrets import PREFIX_CHARACTERS, digest_of_token
from metering.imports.wanted import differing_limits, line, role_of_tenants
from metering.tables import account, api_key, limit_override, person


@dataclass(frozen=True, slots=True)
class OwnLimit:
    """A limit of one user's role, where their administration's plan says something else."""

    tenant: str
    user: User
    limit: Limit


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of users who are there. new: those to take over, by administration; the others are counted.

    known: an id or a digest that the catalogue has; revoked: in the gateway; unrecognised: no secret was given, or
    this secret didn't sign it.
    """

    new: Mapping[str, Sequence[ImportedKey]]
    known: int
    revoked: int
    unrecognised: int


def known_accounts(connection: sa.Connection, directory: Directory) -> dict[int, str]:
    """Users who have an account, and its administration."""
    ids = {account_of_user(number): number for number in directory.users}
    rows = connection.execute(sa.select(account.c.id, account.c.tenant).where(account.c.id == _any(ids)))
    return {ids[row.id]: row.tenant for row in rows}


def add_accounts(
    connection: sa.Connection, users: Sequence[User], attribution: Attribution, now: datetime
) -> None:  # fmt: skip
    """Open accounts of members; who has expired in the gateway is suspended."""
    if not users:
        return
    connection.execute(account.insert(), [_account(user, attribution, now) for user in users])
    if people := [known for user in users for known in _person(user, attribution)]:
        connection.execute(person.insert(), people)


def _account(user: User, attribution: Attribution, now: datetime) -> dict[str, Any]:
    is_expired = user.expires_at is not None and user.expires_at <= now
    return {
        "id": account_of_user(user.id),
        "tenant": attribution.tenant_of(user.id),
        "role": "member",
        "status": "suspended" if is_expired else "active",
        "status_reason": "Expired in OpenGateLLM." if is_expired else None,
        "suspended_by": "operator" if is_expired else None,
    }


def _person(user: User, attribution: Attribution) -> Iterator[dict[str, Any]]:
    """Who a user is, if a mail can go there; of others only the pseudonym is kept."""
    try:
        email = checked_email((user.email or "").strip())
    except Unprocessable:
        return
    own = {"account": account_of_user(user.id), "tenant": attribution.tenant_of(user.id)}
    yield {**own, "name": line(user.name, email), "email": email}


def own_limits(connection: sa.Connection, directory: Directory, attribution: Attribution) -> list[OwnLimit]:
    """Limits to grant: of users whose role isn't the one that became their administration's plan.

    An administration on any other plan was put there by an operator: its users are held to that plan. A user who has
    an exception for the same already keeps it.
    """
    roles = _roles_of_plans(connection, directory, attribution)
    found = [
        OwnLimit(tenant, user, limit)
        for user in directory.users.values()
        if (common := roles.get(tenant := attribution.tenant_of(user.id))) is not None and user.role_id != common
        for limit in differing_limits(directory.roles[user.role_id], directory.roles[common], directory)
    ]
    subjects = {account_of_user(one.user.id) for one in found}
    rows = connection.execute(
        sa.select(limit_override.c.subject, limit_override.c.rule).where(limit_override.c.subject == _any(subjects))
    )
    there = {(row.subject, *(row.rule[name] for name in ("selector", "meter", "window"))) for row in rows}
    return [one for one in found if _place(one) not in there]


def _place(one: OwnLimit) -> tuple[str, ...]:
    return account_of_user(one.user.id), one.limit.selector, one.limit.meter, one.limit.window


def _roles_of_plans(connection: sa.Connection, directory: Directory, attribution: Attribution) -> dict[str, int]:
    """Role whose limits are an administration's plan, for those on such a plan."""
    plans = {plan_of_role(role_id): role_id for role_id in directory.roles}
    known = {one.id: one.plan for one in load(connection, KINDS["tenants"]).values() if isinstance(one, Tenant)}
    wanted = role_of_tenants(directory, attribution)
    found = {tenant: plans.get(plan or "") for tenant, plan in known.items()}
    return {tenant: role_id for tenant, role_id in (wanted | found).items() if role_id is not None}


def add_own_limits(connection: sa.Connection, limits: Sequence[OwnLimit], author: str, now: datetime) -> None:
    """Grant limits of users until further notice."""
    for one in limits:
        motive = f"Role {one.user.role_id} of OpenGateLLM."
        grant = Grant(one.tenant, one.limit, account_of_user(one.user.id), None, None, motive, author)
        add_override(connection, grant, now)


def find_keys(
    connection: sa.Connection, directory: Directory, attribution: Attribution, secret: bytes | None
) -> Keys:  # fmt: skip
    """Keys that can be recognised by their digest, made again with the gateway's secret."""
    living = [token for token in directory.tokens if token.user_id in directory.users]
    revoked = sum(token.revoked for token in living)
    made = {
        key_of_token(token.id): (token, digest)
        for token in living
        if not token.revoked and secret is not None and (digest := digest_of_token(token, secret)) is not None
    }
    digests = [bytes.fromhex(digest) for _token, digest in made.values()]
    is_known = sa.or_(api_key.c.id == _any(made), api_key.c.digest == sa.any_(sa.cast(digests, pg.ARRAY(pg.BYTEA))))
    rows = connection.execute(sa.select(api_key.c.id, api_key.c.digest).where(is_known)).all()
    known_ids, known_digests = {row.id for row in rows}, {bytes(row.digest).hex() for row in rows}
    new: dict[str, list[ImportedKey]] = {}
    for key_id, (token, digest) in made.items():
        if key_id not in known_ids and digest not in known_digests:
            new.setdefault(attribution.tenant_of(token.user_id), []).append(_key(key_id, token, digest))
    known = len(made) - sum(map(len, new.values()))
    return Keys(new, known, revoked, len(living) - revoked - len(made))


def _key(key_id: str, token: Token, digest: str) -> ImportedKey:
    assert token.shown is not None
    return ImportedKey(
        id=key_id, name=line(token.name, key_id), prefix=token.shown[:PREFIX_CHARACTERS], sha256=digest,
        account=account_of_user(token.user_id), expires_at=token.expires_at,
    )  # fmt: skip


def add_keys(connection: sa.Connection, keys: Keys) -> None:
    """Take over the new keys. Raises: Conflict."""
    for tenant, found in keys.new.items():
        import_keys(connection, tenant, found)


def _any(values: Any) -> sa.ColumnElement[Any]:
    """One parameter, however many values there are."""
    return sa.any_(sa.cast(list(values), pg.ARRAY(sa.Text)))

"""Sessions of the pages: a browser that somebody signed in on.

The browser's cookie holds a secret, the database its SHA-256, so that neither a copy of the database nor its log opens
a session. Who a session is of is looked up at every request: it ends with the account, the administration or the token
that it came from, at once, and changes with the account's role.
"""

import hashlib
import secrets
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from metering.catalog.snapshot import CatalogReader, TokenEntry, digest_of
from metering.catalog.tokens import is_valid, principal_of
from metering.database import transaction
from metering.errors import Unauthorized
from metering.hiding import hide, shown
from metering.identity import Principal
from metering.tables import console_session
from metering.visiting import Said, Session, Way

SECRET_BYTES = 32
NOTED = timedelta(minutes=1)
"""How exactly the last use is known: a row is written once a minute at most."""


@dataclass(frozen=True, slots=True)
class Lives:
    """How long a session lasts: without being used, and at most."""

    idle: timedelta
    most: timedelta


@dataclass(frozen=True, slots=True)
class OwnSession:
    """One of somebody's sessions, as they may see it. seen_at: of the last use, to the minute."""

    way: Way
    created_at: datetime
    seen_at: datetime
    is_this: bool


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(
        self,
        engine: sa.Engine,
        reader: CatalogReader,
        lives: Lives,
        operators: Collection[str] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """operators: names of those that the settings let in by the identity provider."""
        self._engine = engine
        self._reader = reader
        self._lives = lives
        self._operators = operators
        self._now = now

    def open(
        self,
        who: Principal,
        way: Way,
        *,
        token: str | None = None,
        id_token: str | None = None,
        instead_of: str | None = None,
    ) -> str:
        """Begin a session and return its secret. token: that it ends with; instead_of: a session that ends here.

        id_token: what signing out at the identity provider will take.
        A browser never keeps a secret that it had before somebody signed in: whoever planted one knows nothing.
        """
        secret, now = secrets.token_urlsafe(SECRET_BYTES), self._now()
        with transaction(self._engine) as connection:
            if instead_of is not None:
                connection.execute(_of(instead_of))
            connection.execute(
                console_session.insert().values(
                    digest=digest_of(secret), way=way, tenant=who.tenant, account=who.account, name=who.name,
                    token=None if token is None else digest_of(token), created_at=now, seen_at=now,
                    id_token=None if id_token is None else hide(secret, id_token),
                )
            )  # fmt: skip
        return secret

    def find(self, secret: str) -> Session:
        """The session that a cookie's secret opens.

        Raises: Unauthorized for one that is over or never was; Forbidden if its account or administration is suspended;
        Unavailable.
        """
        now = self._now()
        with transaction(self._engine) as connection:
            found = connection.execute(
                sa.select(console_session).where(console_session.c.digest == digest_of(secret))
            ).first()
            if found is None or self._is_over(found, now):
                raise Unauthorized("session_over", "The session is over.", field="Cookie")
            if found.seen_at <= now - NOTED:
                connection.execute(_change(secret, seen_at=now))
        who = self._principal_of(found)
        return Session(who, found.way, csrf_of(secret), secret, _said_of(found.said))

    def say(self, session: Session, said: Said | None) -> None:
        """Keep what an action came to until a page has said it; None: it has."""
        with transaction(self._engine) as connection:
            connection.execute(_change(session.secret, said=None if said is None else asdict(said)))

    def end(self, session: Session) -> str | None:
        """End a session, and return what signing out at the identity provider takes, if it began there."""
        with transaction(self._engine) as connection:
            hidden = connection.scalar(_of(session.secret).returning(console_session.c.id_token))
        return None if hidden is None else shown(session.secret, hidden)

    def list_own(self, who: Principal, secret: str | None) -> list[OwnSession]:
        """Sessions that somebody has, the newest first. secret: of the session that asks, if it is one."""
        column, this, now = console_session.c, None if secret is None else digest_of(secret), self._now()
        query = sa.select(console_session).where(_of_whom(who)).order_by(column.created_at.desc(), column.digest)
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        return [
            OwnSession(row.way, row.created_at, row.seen_at, row.digest == this)
            for row in rows
            if not self._is_over(row, now)
        ]

    def end_own(self, who: Principal) -> int:
        """End every session that somebody has, on whatever browser, and return how many there were."""
        with transaction(self._engine) as connection:
            return connection.execute(console_session.delete().where(_of_whom(who))).rowcount

    def _is_over(self, found: sa.Row[Any], now: datetime) -> bool:
        return bool(found.seen_at + self._lives.idle <= now or found.created_at + self._lives.most <= now)

    def _principal_of(self, found: sa.Row[Any]) -> Principal:
        if found.token is not None:
            held = self._reader.current().tokens.get(found.token)
            if held is None or not is_valid(held, self._now()):
                raise Unauthorized("session_over", "The token of the session is revoked or expired.", field="Cookie")
        elif found.way == "oidc" and found.account is None and found.name not in self._operators:
            raise Unauthorized("session_over", "The settings name no such operator any more.", field="Cookie")
        role = "operator" if found.account is None else "account"
        entry = TokenEntry(found.name, role, found.tenant, found.account, None, None)
        return principal_of(entry, self._reader.current())


def forget_sessions(engine: sa.Engine, lives: Lives, now: datetime) -> int:
    """Take the rows of sessions away that are over, and return how many there were. Raises: Unavailable."""
    column = console_session.c
    with transaction(engine) as connection:
        return connection.execute(
            console_session.delete().where(
                sa.or_(column.seen_at <= now - lives.idle, column.created_at <= now - lives.most)
            )
        ).rowcount


def csrf_of(secret: str) -> str:
    """What a session's forms send back: it follows from the secret, and doesn't tell it."""
    return hashlib.sha256(b"jauge csrf\0" + secret.encode()).hexdigest()


def _of(secret: str) -> sa.Delete:
    return console_session.delete().where(console_session.c.digest == digest_of(secret))


def _of_whom(who: Principal) -> sa.ColumnElement[bool]:
    """Sessions of an account; an operator has none, and is known by name."""
    column = console_session.c
    if who.account is not None:
        return column.account == who.account
    return sa.and_(column.account.is_(None), column.name == who.name)


def _change(secret: str, **values: object) -> sa.Update:
    return console_session.update().where(console_session.c.digest == digest_of(secret)).values(values)


def _said_of(kept: dict[str, Any] | None) -> Said | None:
    return None if kept is None else Said(**kept)

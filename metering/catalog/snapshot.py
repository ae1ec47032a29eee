"""The catalogue in the memory of a process: what the hot path reads, without a question to the database.

A snapshot is never changed. It carries the number of the last change that it knows, and is read from the database in
one state (REPEATABLE READ), so that no change is ever seen by half. `CatalogReader` replaces it when something
changed: it listens for changes, looks by itself twice a second in case it missed one, and looks at once when somebody
asks for a key that it doesn't know.
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog

from metering.catalog import documents
from metering.catalog.documents import Document
from metering.catalog.kinds import KINDS, load
from metering.database import raw, transaction
from metering.errors import JaugeError
from metering.rules.limits import Limit
from metering.tables import acceptance, account, api_key, catalog_change, limit_override, tenant, token

LOOK_S = 0.5
"""How often a process looks for changes that it wasn't told of."""

RELOAD_CHANGES_MIN = 5_000
"""So many changes, and everything is read anew instead of one by one."""

CHANNEL = "jauge_catalog"

log = structlog.get_logger(__name__)


class TenantEntry(NamedTuple):
    """An administration."""

    id: str
    number: int
    name: str
    status: str
    plan: str | None


class AccountEntry(NamedTuple):
    """An agent's account, by pseudonym; `accepted` holds (document, version)."""

    id: str
    tenant: str
    role: str
    status: str
    accepted: frozenset[tuple[str, str]]


class KeyEntry(NamedTuple):
    """An API key, without its secret."""

    id: str
    tenant: str
    project: str | None
    account: str | None
    expires_at: datetime | None
    revoked_at: datetime | None


class TokenEntry(NamedTuple):
    """A token of a service, an operator or an account."""

    name: str
    role: str
    tenant: str | None
    account: str | None
    expires_at: datetime | None
    revoked_at: datetime | None


class OverrideEntry(NamedTuple):
    """A dated exception to the limits of an administration."""

    id: str
    tenant: str
    limit: Limit
    starts_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalogue after change number `version`. Digests are SHA-256 of secrets."""

    version: int
    tenants: Mapping[str, TenantEntry]
    accounts: Mapping[str, AccountEntry]
    keys: Mapping[bytes, KeyEntry]
    tokens: Mapping[bytes, TokenEntry]
    overrides: Mapping[str, Sequence[OverrideEntry]]
    platform: documents.Platform
    plans: Mapping[str, documents.Plan]
    conventions: Mapping[str, Sequence[documents.Convention]]
    categories: Mapping[str, documents.Category]
    models: Mapping[str, documents.Model]
    aliases: Mapping[str, documents.Alias]
    retirements: Mapping[tuple[str, str], documents.Retirement]
    experiments: Mapping[str, documents.Experiment]
    terms: Sequence[documents.Terms]
    notices: Sequence[documents.Notice]
    price_books: Mapping[str, documents.PriceBook]
    prices: Sequence[documents.PriceVersion]

    def plan_of(self, tenant_id: str) -> documents.Plan:
        """The plan of an administration: its own, or the platform's default."""
        entry = self.tenants.get(tenant_id)
        return self.plans[(entry and entry.plan) or self.platform.default_plan]


class CatalogReader:
    """Holds the process's snapshot and keeps it current."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._refreshing = threading.Lock()
        self._begun = self._ended = 0  # numbers of the latest look at the database, and of the latest that succeeded
        self._snapshot: Snapshot | None = None

    @property
    def loaded(self) -> Snapshot | None:
        """The snapshot, if there is one yet."""
        return self._snapshot

    def current(self) -> Snapshot:
        """The snapshot, read first if there is none yet. Raises: Unavailable."""
        return self._snapshot or self.refresh()

    def refresh(self) -> Snapshot:
        """The catalogue as it stands now; what hasn't changed is not read again. Raises: Unavailable."""
        begun = self._begun
        with self._refreshing:
            # Who waited takes what a look that began meanwhile found: two looks serve all who ask for unknown keys.
            if self._snapshot is None or self._ended <= begun:
                self._begun += 1
                self._snapshot = self._look(self._snapshot)
                self._ended = self._begun
            return self._snapshot

    def _look(self, known: Snapshot | None) -> Snapshot:
        with transaction(self._engine, snapshot=True) as connection:
            version = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(catalog_change.c.number), 0))) or 0
            if known is None:
                return _read_all(connection, version)
            return known if version == known.version else _read_changes(connection, known, version)

    def find_key(self, digest: bytes) -> KeyEntry | None:
        """The key with a digest; one that isn't known yet is looked for in the database. Raises: Unavailable."""
        return self.current().keys.get(digest) or self.refresh().keys.get(digest)

    def find_token(self, digest: bytes) -> TokenEntry | None:
        """The token with a digest; one that isn't known yet is looked for in the database. Raises: Unavailable."""
        return self.current().tokens.get(digest) or self.refresh().tokens.get(digest)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep the snapshot current while the block runs."""
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stop,), name="catalogue", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            with suppress(JaugeError), transaction(self._engine) as connection:
                connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))  # it may be waiting for news
            thread.join(timeout=5)

    def _watch(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    self._listen(connection, stop)
            except Exception as error:  # whatever it is, the next look may succeed: a thread that ends looks no more
                log.warning("catalogue_not_watched", error=type(error).__name__)
                stop.wait(LOOK_S)

    def _listen(self, connection: sa.Connection, stop: threading.Event) -> None:
        below = raw(connection)
        below.execute(f"LISTEN {CHANNEL}".encode())
        try:
            while not stop.is_set():
                self.refresh()
                for _notification in below.notifies(timeout=LOOK_S, stop_after=1):
                    pass
        finally:
            connection.invalidate()  # a connection that listens must not go back to the others


def digest_of(secret: str) -> bytes:
    """SHA-256 of a secret. Secrets hold 256 random bits, so a plain hash is enough: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).digest()


def _read_all(connection: sa.Connection, version: int) -> Snapshot:
    small = {part: read(connection) for part, read in _SMALL.items()}
    return Snapshot(
        version=version,
        accounts=MappingProxyType({entry.id: entry for entry in _accounts(connection)}),
        keys=MappingProxyType(dict(_keys(connection))),
        tokens=MappingProxyType(dict(_tokens(connection))),
        **small,
    )


def _read_changes(connection: sa.Connection, known: Snapshot, version: int) -> Snapshot:
    """A new snapshot that shares with the known one what hasn't changed."""
    if version - known.version >= RELOAD_CHANGES_MIN:
        return _read_all(connection, version)
    changes = connection.execute(
        sa.select(catalog_change.c.entity, catalog_change.c.key).where(
            catalog_change.c.number > known.version, catalog_change.c.number <= version
        )
    ).all()
    changed: dict[str, set[str]] = {}
    for entity, key in changes:
        changed.setdefault(entity, set()).add(key)
    parts: dict[str, Any] = {
        part: _SMALL[part](connection) for part in {_PARTS[entity] for entity in changed if entity in _PARTS}
    }
    # Accounts, keys and tokens are many, and none is ever taken away: only those that changed are read.
    if ids := changed.get("account", set()) | {key.partition("/")[0] for key in changed.get("acceptance", ())}:
        fresh = {entry.id: entry for entry in _accounts(connection, account.c.id.in_(ids))}
        parts["accounts"] = MappingProxyType({**known.accounts, **fresh})
    if "api_key" in changed:
        news = dict(_keys(connection, api_key.c.id.in_(changed["api_key"])))
        parts["keys"] = MappingProxyType({**known.keys, **news})
    if "token" in changed:
        parts["tokens"] = MappingProxyType(
            {**known.tokens, **dict(_tokens(connection, token.c.name.in_(changed["token"])))}
        )
    return replace(known, version=version, **parts)


def _accounts(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Iterator[AccountEntry]:
    accepted: dict[str, set[tuple[str, str]]] = {}
    ids = sa.select(account.c.id).where(*conditions)
    for row in connection.execute(sa.select(acceptance).where(acceptance.c.account.in_(ids))):
        accepted.setdefault(row.account, set()).add((row.document, row.version))
    for row in connection.execute(sa.select(account).where(*conditions)):
        yield AccountEntry(row.id, row.tenant, row.role, row.status, frozenset(accepted.get(row.id, ())))


def _keys(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Iterator[tuple[bytes, KeyEntry]]:
    columns = (api_key.c.digest, *(api_key.c[name] for name in KeyEntry._fields))
    for digest, *values in connection.execute(sa.select(*columns).where(*conditions)):
        yield bytes(digest), KeyEntry(*values)


def _tokens(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Iterator[tuple[bytes, TokenEntry]]:
    columns = (token.c.digest, *(token.c[name] for name in TokenEntry._fields))
    for digest, *values in connection.execute(sa.select(*columns).where(*conditions)):
        yield bytes(digest), TokenEntry(*values)


def _tenants(connection: sa.Connection) -> Mapping[str, TenantEntry]:
    columns = [tenant.c[name] for name in TenantEntry._fields]
    return MappingProxyType({row.id: TenantEntry(*row) for row in connection.execute(sa.select(*columns))})


def _overrides(connection: sa.Connection) -> Mapping[str, Sequence[OverrideEntry]]:
    found: dict[str, list[OverrideEntry]] = {}
    for row in connection.execute(sa.select(limit_override).order_by(limit_override.c.created_at, limit_override.c.id)):
        limit = Limit(**row.rule, subject=row.subject, source="override")
        found.setdefault(row.tenant, []).append(OverrideEntry(row.id, row.tenant, limit, row.starts_at, row.ends_at))
    return MappingProxyType(found)


def _conventions(connection: sa.Connection) -> Mapping[str, Sequence[Document]]:
    found: dict[str, list[Document]] = {}
    for document in load(connection, KINDS["conventions"]).values():
        assert isinstance(document, documents.Convention)
        found.setdefault(document.tenant, []).append(document)
    return MappingProxyType(found)


def _by_id(kind: str) -> Any:
    def read(connection: sa.Connection) -> Mapping[str, Document]:
        return MappingProxyType({key[0]: document for key, document in load(connection, KINDS[kind]).items()})

    return read


def _listed(kind: str) -> Any:
    return lambda connection: tuple(load(connection, KINDS[kind]).values())


def _retirements(connection: sa.Connection) -> Mapping[tuple[str, str], Document]:
    found = load(connection, KINDS["retirements"]).values()
    return MappingProxyType({(one.kind, one.subject): one for one in found})  # type: ignore[attr-defined]


_SMALL = {
    "tenants": _tenants,
    "overrides": _overrides,
    "conventions": _conventions,
    "plans": _by_id("plans"),
    "categories": _by_id("categories"),
    "models": _by_id("models"),
    "aliases": _by_id("aliases"),
    "experiments": _by_id("experiments"),
    "retirements": _retirements,
    "platform": lambda connection: next(iter(load(connection, KINDS["platform"]).values())),
    "terms": _listed("terms"),
    "notices": _listed("notices"),
    "price_books": _by_id("price_books"),
    "prices": _listed("prices"),
}
"""Parts that are read whole when anything in them changed."""

_PARTS = {
    "tenant": "tenants", "limit_override": "overrides", "convention": "conventions", "plan": "plans",
    "model_category": "categories", "model": "models", "model_alias": "aliases", "experiment": "experiments",
    "retirement": "retirements", "platform": "platform", "terms": "terms", "notice": "notices",
    "price_book": "price_books", "price_version": "prices",
}  # fmt: skip
"""Table to the part that it is."""

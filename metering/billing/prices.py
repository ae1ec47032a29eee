"""Which prices an administration pays by, and when: as the catalogue is in memory, or was after a past change."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import chain

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on

from metering.catalog.conventions import version_in_force
from metering.catalog.documents import Alias, Category, Convention, Document, Model, Platform, PriceBook, PriceVersion
from metering.catalog.kinds import KINDS, from_row
from metering.catalog.snapshot import Snapshot
from metering.errors import NotFound
from metering.rules.periods import day_bounds
from metering.rules.rating.months import Account, Terms
from metering.rules.rating.prices import Price, Tariff, superseded
from metering.tables import catalog_change

FREE = Account(None, "free", None, None, None)
"""Use without a convention, where the platform names no price book."""


@dataclass
class Tariffs:
    """What amounts follow from, as the catalogue stood after change number `version`.

    prices: of each book, each with the end that it has. names: names that events give to models, to the model and
    category of the catalogue.
    """

    version: int
    platform_book: str | None
    books: Mapping[str, PriceBook]
    prices: Mapping[str, Sequence[Price]]
    conventions: Mapping[str, Sequence[Convention]]
    names: Mapping[str, tuple[str | None, str | None]]
    _terms: dict[tuple[str | None, int], Terms] = field(default_factory=dict, repr=False, compare=False)

    def terms_on(self, tenant: str, day: date) -> Terms:
        """What holds for an administration on a day of the books."""
        return self.terms_of(version_in_force(self.conventions.get(tenant, ()), day))

    def terms_of(self, convention: Convention | None) -> Terms:
        """The terms of a convention's version; of None, those of free use."""
        key = (None, 0) if convention is None else (convention.id, convention.version)
        if key not in self._terms:
            self._terms[key] = self._terms_of(convention)
        return self._terms[key]

    def _terms_of(self, convention: Convention | None) -> Terms:
        named = (convention and convention.price_book) or self.platform_book
        account = (
            FREE if convention is None else FREE._replace(convention=convention.id, settlement=convention.settlement)
        )
        if named is None:
            return Terms(account, None)
        book = self.books[named]
        account = account._replace(book=named, currency=book.currency, vat=book.category())
        return Terms(account, Tariff(own_prices(convention), self.prices.get(named, ())))

    def prices_carbon(self, tenant: str) -> bool:
        """Whether an administration may pay for carbon."""
        terms = map(self.terms_of, (None, *self.conventions.get(tenant, ())))
        tariffs = [one.tariff for one in terms if one.tariff is not None]
        return any(price.meter == "carbon_ugco2e" for tariff in tariffs for price in (*tariff.own, *tariff.book))

    def cuts(self, tenants: Iterable[str], start: datetime, end: datetime) -> list[datetime]:
        """Instants between start and end at which a price or a convention of these administrations changes."""
        found: set[datetime] = set()
        for tenant in tenants:
            versions = self.conventions.get(tenant, ())
            for one in versions:
                days = (one.effective_on, one.starts_on)
                found |= {*(day_bounds(day)[0] for day in days), day_bounds(one.ends_on)[1]}
            for terms in map(self.terms_of, (None, *versions)):
                found |= set() if terms.tariff is None else set(terms.tariff.cuts)
        return sorted(instant for instant in found if start < instant < end)


def own_prices(convention: Convention | None) -> list[Price]:
    """The prices that a convention's version carries; they hold as long as it does."""
    if convention is None:
        return []
    place = f"{convention.id}/{convention.version}"
    return [one.rule(f"{place}/{one.selector}/{one.meter}") for one in convention.prices]


def tariffs_of(snapshot: Snapshot) -> Tariffs:
    """What amounts follow from in a snapshot of the catalogue."""
    return _tariffs(
        snapshot.version,
        snapshot.platform.price_book,
        [*snapshot.price_books.values(), *snapshot.prices, *chain.from_iterable(snapshot.conventions.values())],
        [*snapshot.categories.values(), *snapshot.models.values(), *snapshot.aliases.values()],
    )


def tariffs_as_of(connection: sa.Connection, version: int) -> Tariffs:
    """The same as the catalogue stood after a change, from the record of changes. Raises: NotFound for one to come."""
    last = connection.scalar(sa.select(sa.func.max(catalog_change.c.number))) or 0
    if not 0 < version <= last:
        raise NotFound("unknown_change", "There is no such change.", field="catalog_version", expected=f"1 to {last}")
    priced = [documents_as_of(connection, kind, version) for kind in ("price_books", "prices", "conventions")]
    named = [documents_as_of(connection, kind, version) for kind in ("categories", "models", "aliases")]
    platforms = [one for one in documents_as_of(connection, "platform", version) if isinstance(one, Platform)]
    book = platforms[0].price_book if platforms else None
    return _tariffs(version, book, chain.from_iterable(priced), chain.from_iterable(named))


def documents_as_of(connection: sa.Connection, kind: str, version: int) -> list[Document]:
    """Documents of a kind after a change: of each key the last row recorded until then, unless it was taken away."""
    change = catalog_change.c
    latest = (
        sa.select(change.after)
        .where(change.entity == KINDS[kind].table.name, change.number <= version)
        .ext(distinct_on(change.key))
        .order_by(change.key, change.number.desc())
    )
    return [from_row(KINDS[kind], row) for row in connection.scalars(latest) if row is not None]


def _tariffs(version: int, platform_book: str | None, priced: Iterable[Document], named: Iterable[Document]) -> Tariffs:
    books: dict[str, PriceBook] = {}
    prices: dict[str, list[Price]] = {}
    conventions: dict[str, list[Convention]] = {}
    for one in priced:
        if isinstance(one, PriceBook):
            books[one.id] = one
        elif isinstance(one, PriceVersion):
            prices.setdefault(one.book, []).append(one.version())
        elif isinstance(one, Convention):
            conventions.setdefault(one.tenant, []).append(one)
    ended = {book: superseded(versions) for book, versions in prices.items()}
    return Tariffs(version, platform_book, books, ended, conventions, _names(named))


def _names(named: Iterable[Document]) -> dict[str, tuple[str | None, str | None]]:
    """A category is known without the model that answered for it, which may be another one by now."""
    documents = list(named)
    names: dict[str, tuple[str | None, str | None]] = {
        one.id: (None, one.id) for one in documents if isinstance(one, Category)
    }
    names |= {one.id: (one.id, one.category) for one in documents if isinstance(one, Model)}
    aliases = [one for one in documents if isinstance(one, Alias)]
    return names | {one.id: names[one.model or one.category or ""] for one in aliases}

"""The kinds of documents that the platform's staff writes, and how each is kept.

Everything an operator declares goes one way, be it by route or from a file: a document is checked by its own form, its
row is written, and `check_references` looks at the whole before the transaction ends.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from types import MappingProxyType
from typing import Any

import msgspec
import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.catalog import documents
from metering.catalog.changes import hold_catalog
from metering.catalog.documents import (
    CENT_DECIMALS,
    EUR_DECIMALS,
    GRAM_DECIMALS,
    PUE_DECIMALS,
    VAT_DECIMALS,
    Document,
)
from metering.errors import Conflict, NotFound, Unprocessable
from metering.outbox.queue import enqueue_event
from metering.rules.quantities import OPERATIONS
from metering.rules.rating.prices import Price, overlaps
from metering.tables import (
    KEYS,
    convention,
    deployment,
    exchange_rate,
    experiment,
    model,
    model_alias,
    model_category,
    notice,
    plan,
    platform,
    price_book,
    price_version,
    project,
    retirement,
    site,
    tenant,
    terms,
)

Key = tuple[str, ...]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of documents: `name` is its section of a file and its path; `is_final`: never changed once written."""

    name: str
    document: type[Document]
    table: sa.Table
    is_removable: bool = False
    is_final: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """Columns of the key."""
        return KEYS[self.table.name]

    def key_of(self, document: Document) -> Key:
        """Key of a document."""
        row = _to_row(document)
        return tuple(str(row[name]) for name in self.key)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind("categories", documents.Category, model_category, is_removable=True),
            Kind("models", documents.Model, model, is_removable=True),
            Kind("aliases", documents.Alias, model_alias, is_removable=True),
            Kind("deployments", documents.Deployment, deployment, is_removable=True),
            Kind("sites", documents.Site, site, is_removable=True),
            Kind("retirements", documents.Retirement, retirement, is_removable=True),
            Kind("plans", documents.Plan, plan, is_removable=True),
            Kind("tenants", documents.Tenant, tenant),
            Kind("projects", documents.Project, project),
            Kind("price_books", documents.PriceBook, price_book, is_final=True),
            Kind("prices", documents.PriceVersion, price_version, is_final=True),
            Kind("exchange_rates", documents.ExchangeRate, exchange_rate, is_final=True),
            Kind("conventions", documents.Convention, convention, is_final=True),
            Kind("platform", documents.Platform, platform),
            Kind("experiments", documents.Experiment, experiment, is_removable=True),
            Kind("terms", documents.Terms, terms, is_final=True),
            Kind("notices", documents.Notice, notice, is_removable=True),
        )
    }
)
"""In the order in which a file is applied: what is referred to comes first."""

_DECIMALS = {
    "envelope_eur": ("envelope_neur", EUR_DECIMALS),
    "envelope_gco2e": ("envelope_ugco2e", GRAM_DECIMALS),
    "price": ("price_nano", EUR_DECIMALS),
    "minimum": ("minimum_cents", CENT_DECIMALS),
    "cap": ("cap_cents", CENT_DECIMALS),
    "vat_percent": ("vat_bp", VAT_DECIMALS),
    "rate": ("rate_nano", EUR_DECIMALS),
    **{name: (f"{name}_ppm", PUE_DECIMALS) for name in ("pue", "pue_lower", "pue_upper")},
}
"""Fields in units for people: the column in base units, and the decimals between."""


def load(connection: sa.Connection, kind: Kind, *conditions: sa.ColumnElement[bool]) -> dict[Key, Document]:
    """Documents of a kind by key, in the order of keys."""
    order = [kind.table.c[name] for name in kind.key]
    rows = connection.execute(sa.select(kind.table).where(*conditions).order_by(*order))
    found = [from_row(kind, row._mapping) for row in rows]
    return {kind.key_of(document): document for document in found}


def put(connection: sa.Connection, kind: Kind, document: Document) -> None:
    """Write a document; the same again changes nothing.

    Raises: Conflict for other content under a final key, or a value that must be one's own; Unprocessable for a
    reference to something unknown.
    """
    row = _to_row(document)
    if kind.is_final:
        hold_catalog(connection)
        _check_final(connection, kind, document)
    updates = {name: value for name, value in row.items() if name not in kind.key}
    statement = insert(kind.table).values(row)
    statement = (
        statement.on_conflict_do_nothing()
        if kind.is_final
        else statement.on_conflict_do_update(index_elements=list(kind.key), set_=updates)
    )
    with reading_violations(connection):
        connection.execute(statement)
    if isinstance(document, documents.Convention):
        _tell_of_convention(connection, document)


def _tell_of_convention(connection: sa.Connection, version: documents.Convention) -> None:
    told = {"convention": version.id, "version": version.version, "effective_on": version.effective_on}
    key = f"{version.id}/{version.version}"
    enqueue_event(connection, "convention.published", tenant=version.tenant, key=key, payload=told)


def remove(connection: sa.Connection, kind: Kind, key: Key) -> None:
    """Take a document away. Raises: NotFound; Conflict where others refer to it, or it must stay."""
    if not kind.is_removable:
        raise Conflict("not_removable", f"What is in {kind.name} stays; its state can change.")
    conditions = [kind.table.c[name] == value for name, value in zip(kind.key, key, strict=True)]
    with reading_violations(connection):
        if connection.execute(kind.table.delete().where(*conditions)).rowcount == 0:
            raise NotFound("unknown_document", f"There is no such document in {kind.name}.", field=kind.key[0])


def check_references(connection: sa.Connection) -> None:
    """What keys of the tables can't say: names that mean one thing, references within lists, prices that overlap.

    Raises: Unprocessable at the first that is wrong.
    """
    for rule in (_own_names, _category_models, _retirement_subjects, _known_tenants, _selectors, _conventions_in_order):
        for kind, field, expected in rule(connection):
            raise Unprocessable(
                "unknown_reference", f"Something in {kind} refers to what isn't there.", field=field, expected=expected
            )
    _check_prices_apart(connection)


Fault = tuple[str, str, str]


def _own_names(connection: sa.Connection) -> Iterator[Fault]:
    names = sa.union_all(sa.select(model.c.id), sa.select(model_category.c.id), sa.select(model_alias.c.id)).subquery()
    if connection.scalar(sa.select(names.c.id).group_by(names.c.id).having(sa.func.count() > 1).limit(1)):
        yield "models", "id", "a name that no other model, category or alias has"


def _category_models(connection: sa.Connection) -> Iterator[Fault]:
    fitting = sa.exists().where(model.c.id == model_category.c.model, model.c.category == model_category.c.id)
    if connection.scalar(sa.select(sa.exists().where(model_category.c.model.is_not(None), ~fitting))):
        yield "categories", "model", "a model of that category"


def _retirement_subjects(connection: sa.Connection) -> Iterator[Fault]:
    for kind, table in (("model", model), ("category", model_category)):
        known = set(connection.scalars(sa.select(table.c.id)))
        rows = connection.execute(
            sa.select(retirement.c.subject, retirement.c.successor).where(retirement.c.kind == kind)
        )
        for subject, successor in rows:
            if subject not in known:
                yield "retirements", "subject", f"a known {kind}"
            if successor is not None and successor not in known:
                yield "retirements", "successor", f"a known {kind}"


def _known_tenants(connection: sa.Connection) -> Iterator[Fault]:
    known = set(connection.scalars(sa.select(tenant.c.id)))
    for notice_tenants in connection.scalars(sa.select(notice.c.tenants)):
        if not known.issuperset(notice_tenants):
            yield "notices", "tenants", "known administrations"
    for early, phases in connection.execute(sa.select(experiment.c.early_access, experiment.c.phases)):
        if not known.issuperset([*early, *(one for phase in phases for one in phase["tenants"])]):
            yield "experiments", "phases", "known administrations"
    house = connection.scalar(sa.select(platform.c.house_tenant))
    if house is not None and house not in known:
        yield "platform", "house_tenant", "a known administration"


def _selectors(connection: sa.Connection) -> Iterator[Fault]:
    known = {
        "model": set(connection.scalars(sa.select(model.c.id))),
        "category": set(connection.scalars(sa.select(model_category.c.id))),
        "operation": set(OPERATIONS),
    }
    written = [
        *_listed_selectors(connection, "plans", plan.c.limits),
        *_listed_selectors(connection, "conventions", convention.c.limits),
        *_listed_selectors(connection, "conventions", convention.c.prices),
        *(("prices", "selector", one) for one in connection.scalars(sa.select(price_version.c.selector).distinct())),
    ]
    for section, field, selector in written:
        kind, _, name = selector.partition(":")
        if name not in {"", "*"} and name not in known[kind]:
            yield section, field, f"selectors of a known {kind}"
    for models in connection.scalars(sa.select(experiment.c.models)):
        if not known["model"].issuperset(models):
            yield "experiments", "models", "known models"


def _listed_selectors(
    connection: sa.Connection, section: str, column: sa.ColumnElement[Any]
) -> Iterator[tuple[str, str, str]]:
    """Selectors within a column of documents, each with its section and field."""
    for listed in connection.scalars(sa.select(column)):
        for one in listed:
            yield section, str(column.key), one["selector"]


def _conventions_in_order(connection: sa.Connection) -> Iterator[Fault]:
    rows = connection.execute(
        sa.select(
            sa.func.max(convention.c.version) == sa.func.count(),
            sa.func.count(convention.c.tenant.distinct()) == 1,
        ).group_by(convention.c.id)
    )
    for has_no_gap, has_one_tenant in rows:
        if not has_no_gap:
            yield "conventions", "version", "the version after the last"
        if not has_one_tenant:
            yield "conventions", "tenant", "the administration of the versions before"


def _check_prices_apart(connection: sa.Connection) -> None:
    by_book: dict[str, list[Price]] = {}
    for one in load(connection, KINDS["prices"]).values():
        assert isinstance(one, documents.PriceVersion)
        by_book.setdefault(one.book, []).append(one.version())
    for earlier, later in chain.from_iterable(map(overlaps, by_book.values())):
        raise Unprocessable(
            "overlapping_prices",
            "Two prices of a book would hold for the same at once.",
            field="valid_from",
            expected=f"{earlier.meter} or {later.meter} for {later.selector}, not both at a time",
        )


def _check_final(connection: sa.Connection, kind: Kind, document: Document) -> None:
    row = _to_row(document)
    conditions = [kind.table.c[name] == row[name] for name in kind.key]
    if any(known != document for known in load(connection, kind, *conditions).values()):
        raise Conflict(
            "version_is_final", f"What is in {kind.name} is never changed; write the next.", field=kind.key[-1]
        )


def _to_row(document: Document) -> Row:
    listed = msgspec.to_builtins(document)
    # Dates and amounts stay what they are; lists and documents within become JSON.
    row: Row = {
        field: listed[field] if isinstance(value, list | Document) else _in_utc(value)
        for field, value in msgspec.structs.asdict(document).items()
    }
    for field, (column, decimals) in _DECIMALS.items():
        if field in row:
            amount = row.pop(field)
            row[column] = None if amount is None else int(amount.scaleb(decimals))
    if isinstance(document, documents.Retirement):
        row["id"] = f"{document.kind}:{document.subject}"
    if isinstance(document, documents.Platform):
        row["id"] = "platform"
    return row


def _in_utc(value: Any) -> Any:
    """An instant under the one name that keys know it by; anything else as it is."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def from_row(kind: Kind, row: Mapping[Any, Any]) -> Document:
    """The document of a row, be it the table's or one in the record of changes."""
    values = {str(name): value for name, value in row.items() if name in kind.document.__struct_fields__}
    for field, (column, decimals) in _DECIMALS.items():
        if column in row and field in kind.document.__struct_fields__:
            values[field] = None if row[column] is None else _decimal(row[column], decimals)
    return msgspec.convert(values, kind.document)


def _decimal(units: int, decimals: int) -> Decimal:
    """An integer of base units in units for people, without zeros that say nothing."""
    amount = Decimal(units).scaleb(-decimals).normalize()
    return amount.quantize(Decimal(1)) if amount == amount.to_integral_value() else amount


@contextmanager
def reading_violations(connection: sa.Connection) -> Iterator[None]:
    """Turn a broken rule of a table into an error of ours that names the field."""
    try:
        with connection.begin_nested():
            yield
    except sa.exc.IntegrityError as error:
        raise _violation(error) from error


def _violation(error: sa.exc.IntegrityError) -> Exception:
    below = error.orig
    assert isinstance(below, psycopg.Error)
    name = below.diag.constraint_name or ""
    column = name.removeprefix(f"{below.diag.table_name}_").rpartition("_")[0] or None
    if isinstance(below, psycopg.errors.UniqueViolation):
        return Conflict("already_taken", "The value belongs to another one.", field=column)
    if isinstance(below, psycopg.errors.ForeignKeyViolation):
        if "still referenced" in (below.diag.message_detail or ""):
            return Conflict("in_use", "Others refer to it.")
        return Unprocessable("unknown_reference", "It refers to what isn't there.", field=column)
    return error

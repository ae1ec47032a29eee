"""Who sells and who is billed, as the catalogue stood after a change: what documents say beside their lines."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

import sqlalchemy as sa

from metering.billing.prices import documents_as_of
from metering.catalog import documents
from metering.catalog.conventions import version_in_force
from metering.rules.billing.composing import Agreement, Buyer, Exchange
from metering.rules.billing.documents import Party, PostalAddress

OneKind = TypeVar("OneKind", bound=documents.Document)

PLATFORM = "platform"
"""Id of the seller in documents."""


@dataclass(frozen=True, slots=True)
class Parties:
    """issuer None: nobody sells yet. projects: by (tenant, id); models: names that events give them, to their own."""

    issuer: documents.Issuer | None
    tenants: Mapping[str, documents.Tenant]
    conventions: Mapping[str, tuple[documents.Convention, ...]]
    projects: Mapping[tuple[str, str], str]
    models: Mapping[str, str]
    rates: tuple[documents.ExchangeRate, ...]

    @property
    def seller(self) -> Party:
        """The seller; a draft may be looked at before there is one."""
        one = self.issuer
        if one is None:
            return Party(PLATFORM, PLATFORM)
        return Party(PLATFORM, one.name, one.siret, one.vat_number, _address(one.address), one.email)

    def buyer(self, tenant: str, last_day: date) -> Buyer:
        """An administration, with its conventions as they read on the last day of a month."""
        one = self.tenants[tenant]
        details = one.billing or documents.BillingDetails()
        party = Party(
            one.id,
            details.name or one.name,
            one.siret,
            details.vat_number,
            None if details.address is None else _address(details.address),
            details.email,
        )
        versions = self.conventions.get(tenant, ())
        agreements = {}
        for number in {version.id for version in versions}:
            own = [version for version in versions if version.id == number]
            latest = version_in_force(own, last_day) or own[-1]
            agreements[number] = Agreement(latest.title, latest.order_reference)
        return Buyer(party, details.language, details.service_code, details.order_reference, agreements)

    def projects_of(self, tenant: str) -> dict[str, str]:
        """Names of an administration's projects by id."""
        return {project: name for (owner, project), name in self.projects.items() if owner == tenant}

    def exchange_on(self, day: date) -> dict[str, Exchange]:
        """What currencies are on a day: of each the last rate that began."""
        begun = sorted((one for one in self.rates if one.valid_on <= day), key=lambda one: one.valid_on)
        return {one.currency: Exchange(one.nano, f"{one.source}, {one.valid_on.isoformat()}") for one in begun}


def parties_as_of(connection: sa.Connection, version: int) -> Parties:
    """Read from the record of changes, so that the same change gives the same names for ever."""
    platforms = _of(documents.Platform, documents_as_of(connection, "platform", version))
    conventions: dict[str, tuple[documents.Convention, ...]] = {}
    for one in _of(documents.Convention, documents_as_of(connection, "conventions", version)):
        conventions[one.tenant] = (*conventions.get(one.tenant, ()), one)
    projects = _of(documents.Project, documents_as_of(connection, "projects", version))
    return Parties(
        issuer=platforms[0].issuer if platforms else None,
        tenants={one.id: one for one in _of(documents.Tenant, documents_as_of(connection, "tenants", version))},
        conventions=conventions,
        projects={(one.tenant, one.id): one.name for one in projects},
        models=_model_names(connection, version),
        rates=tuple(_of(documents.ExchangeRate, documents_as_of(connection, "exchange_rates", version))),
    )


def _model_names(connection: sa.Connection, version: int) -> dict[str, str]:
    listed = [documents_as_of(connection, kind, version) for kind in ("categories", "models")]
    names = {one.id: one.name for found in listed for one in found}  # type: ignore[attr-defined]
    aliases = _of(documents.Alias, documents_as_of(connection, "aliases", version))
    return names | {one.id: names.get(one.model or one.category or "", one.id) for one in aliases}


def _of(kind: type[OneKind], found: Iterable[documents.Document]) -> list[OneKind]:
    return [one for one in found if isinstance(one, kind)]


def _address(one: documents.PostalAddress) -> PostalAddress:
    return PostalAddress(tuple(one.lines), one.postcode, one.city, one.country)

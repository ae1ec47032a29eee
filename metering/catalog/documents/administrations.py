"""Plans, administrations and their projects."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta

from metering.catalog.documents.fields import (
    BuyerCode,
    Count,
    Document,
    Email,
    Id,
    Language,
    Line,
    Outage,
    Siret,
    Tier,
    VatNumber,
    bad_siret,
    bad_vat_number,
)
from metering.rules import limits as rules
from metering.rules.limits import Meter, Mode, Scope, Window


class Limit(Document, frozen=True, kw_only=True):
    """A limit, see `rules.limits.Limit`; `value` null is unlimited, 0 forbids."""

    scope: Scope
    selector: Annotated[str, Meta(min_length=1, max_length=140)] = rules.EVERYTHING
    meter: Meter
    window: Window
    value: Count | None
    mode: Mode = "hard"

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from rules.faults_of(self.rule())

    def rule(self, subject: str | None = None, source: rules.Source = "plan") -> rules.Limit:
        """As the rules take it."""
        return rules.Limit(self.scope, self.selector, self.meter, self.window, self.value, self.mode, subject, source)


class Plan(Document, frozen=True, kw_only=True):
    """What an administration may use without a convention."""

    id: Id
    name: Line
    tier: Tier = "free"
    outage: Outage = "local"
    limits: list[Limit] = []

    def faults(self) -> Iterator[tuple[str, str]]:
        if any(limit.window == "term" for limit in self.limits):
            yield "limits", "windows other than term, which a convention has and a plan hasn't"
        yield from repeated_limits(self.limits)


class PostalAddress(Document, frozen=True, kw_only=True):
    """Where somebody is; country: ISO 3166-1 alpha-2."""

    lines: Annotated[list[Line], Meta(min_length=1, max_length=3)]
    postcode: Annotated[str, Meta(pattern="^[A-Za-z0-9 -]{2,12}$")]
    city: Line
    country: Annotated[str, Meta(pattern="^[A-Z]{2}$")] = "FR"


class BillingDetails(Document, frozen=True, kw_only=True):
    """How an administration is billed, where that isn't its own name.

    service_code: its own for who pays (BT-10); order_reference: its engagement number (BT-13), where a convention has
    none. email: of a service, not of a person.
    """

    name: Line | None = None
    address: PostalAddress | None = None
    vat_number: VatNumber | None = None
    service_code: BuyerCode | None = None
    order_reference: BuyerCode | None = None
    email: Email | None = None
    language: Language = "fr"

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from bad_vat_number(self.vat_number)


class Tenant(Document, frozen=True, kw_only=True):
    """An administration; billing null: as it is registered, in French."""

    id: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
    name: Line
    siret: Siret | None = None
    plan: Id | None = None
    billing: BillingDetails | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from bad_siret("siret", self.siret)


class Project(Document, frozen=True, kw_only=True):
    """What an administration's usage is for."""

    tenant: Id
    id: Id
    name: Line
    status: Literal["active", "closed"] = "active"


def repeated_limits(limits: list[Limit]) -> Iterator[tuple[str, str]]:
    places = [(limit.scope, limit.selector, limit.meter, limit.window) for limit in limits]
    if len(set(places)) < len(places):
        yield "limits", "one limit for each scope, selector, meter and window"

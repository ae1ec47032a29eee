"""Conventions, and who signed them."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Literal

from metering.catalog.documents.administrations import Limit, repeated_limits
from metering.catalog.documents.fields import (
    EUR_DECIMALS,
    GRAM_DECIMALS,
    Address,
    BuyerCode,
    Document,
    Id,
    Line,
    Number,
    Outage,
    Paragraph,
    Siret,
    Tier,
    bad_siret,
    in_units,
)
from metering.catalog.documents.prices import Price
from metering.rules.rating import prices as rating


class Party(Document, frozen=True, kw_only=True):
    """Who signed."""

    name: Line
    siret: Siret | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from bad_siret("siret", self.siret)


class Reference(Document, frozen=True, kw_only=True):
    """A document that a convention refers to."""

    title: Line
    url: Address | None = None


class Convention(Document, frozen=True, kw_only=True):
    """A version of a convention; an amendment is the next version, whole, and says what it changes.

    order_reference: the buyer's engagement number for it (BT-13).
    """

    id: Id
    version: Number = 1
    tenant: Id
    title: Line
    parties: list[Party] = []
    funder: Line
    amends: Paragraph | None = None
    signed_on: date
    effective_on: date
    starts_on: date
    ends_on: date
    settlement: Literal["billed", "prepaid", "envelope"]
    overage: Literal["block", "throttle", "bill"]
    tier: Tier = "guaranteed"
    outage: Outage = "open"
    price_book: Id | None = None
    order_reference: BuyerCode | None = None
    envelope_eur: Decimal | None = None
    envelope_gco2e: Decimal | None = None
    limits: list[Limit] = []
    prices: list[Price] = []
    references: list[Reference] = []

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.ends_on < self.starts_on:
            yield "ends_on", "starts_on or later"
        if not self.starts_on <= self.effective_on <= self.ends_on:
            yield "effective_on", "a day of the term"
        if (self.version > 1) != (self.amends is not None):
            yield "amends", "what an amendment changes, from version 2 on"
        if self.settlement != "billed" and self.envelope_eur is None:
            yield "envelope_eur", "an amount, where the settlement is prepaid or envelope"
        for field, value, decimals in (
            ("envelope_eur", self.envelope_eur, EUR_DECIMALS),
            ("envelope_gco2e", self.envelope_gco2e, GRAM_DECIMALS),
        ):
            if value is not None and not in_units(value, decimals):
                yield field, f"0 to 10^9, with at most {decimals} decimals"
        yield from repeated_limits(self.limits)
        if any(rating.overlaps([price.rule(price.meter) for price in self.prices])):
            yield "prices", "one for each selector and meter, and none for a meter beside one for a part of it"

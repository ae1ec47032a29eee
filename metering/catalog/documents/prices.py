"""Price books, their versions, and what currencies are in EUR."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date
from decimal import Decimal
from typing import Annotated

from msgspec import Meta

from metering.catalog.documents.fields import (
    CENT_DECIMALS,
    EUR_DECIMALS,
    RATE_MAX,
    VAT_DECIMALS,
    Count,
    Currency,
    Document,
    Id,
    Instant,
    Line,
    Units,
    cents,
    in_units,
)
from metering.rules.rating import prices as rating
from metering.rules.rating.meters import PriceMeter
from metering.rules.rating.prices import Pricing
from metering.rules.rating.totals import VatCategory, VatRegime


class PriceBook(Document, frozen=True, kw_only=True):
    """What its prices are in, and how they are taxed; never changed, as invoices rest on it."""

    id: Id
    name: Line
    currency: Currency
    vat: VatRegime
    vat_percent: Decimal | None = None
    vat_reason: Annotated[str, Meta(pattern="^VATEX-[A-Z0-9-]{1,40}$")] | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        is_taxed = self.vat == "rate"
        if is_taxed != (self.vat_percent is not None):
            yield "vat_percent", "a rate where vat is rate, and nowhere else"
        elif self.vat_percent is not None and not (
            in_units(self.vat_percent, VAT_DECIMALS) and 0 < self.vat_percent <= 100
        ):
            yield "vat_percent", "above 0 to 100, with at most 2 decimals"
        if is_taxed == (self.vat_reason is not None):
            yield "vat_reason", "a code as VATEX-EU-O where there is no VAT, and nowhere else"

    def category(self) -> VatCategory:
        """As the rules take it."""
        rate = self.vat_percent or Decimal(0)
        return VatCategory(self.vat, int(rate.scaleb(VAT_DECIMALS)), self.vat_reason)


class PriceTier(Document, frozen=True, kw_only=True):
    """Up to so many base units a month, inclusive; `up_to` null is without end."""

    up_to: Units | None = None
    price: Decimal


class Price(Document, frozen=True, kw_only=True):
    """A price for `per` base units of a meter, see `rules.rating.prices.Price`; in the currency of the book."""

    selector: Annotated[str, Meta(min_length=1, max_length=140)] = rating.EVERYTHING
    meter: PriceMeter
    pricing: Pricing = "unit"
    price: Decimal | None = None
    per: Units = 1
    tiers: list[PriceTier] = []
    free: Count = 0
    minimum: Decimal | None = None
    cap: Decimal | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if not rating.is_selector(self.selector):
            yield "selector", "*, or model:, category: or operation: and a name"
        yield from self._tier_faults()
        amounts = [("price", one) for one in (self.price, *(tier.price for tier in self.tiers))]
        bounds = [("minimum", self.minimum), ("cap", self.cap)]
        for listed, decimals in ((amounts, EUR_DECIMALS), (bounds, CENT_DECIMALS)):
            for field, amount in listed:
                if amount is not None and not in_units(amount, decimals):
                    yield field, f"0 to 10^9, with at most {decimals} decimals"
        if self.minimum is not None and self.cap is not None and self.cap < self.minimum:
            yield "cap", "minimum or more"

    def _tier_faults(self) -> Iterator[tuple[str, str]]:
        is_tiered = self.pricing in {"graduated", "volume"}
        if is_tiered == (self.price is not None):
            yield "price", "a price where pricing is unit or package, and nowhere else"
        if is_tiered != bool(self.tiers):
            yield "tiers", "tiers where pricing is graduated or volume, and nowhere else"
        ends = [tier.up_to for tier in self.tiers]
        known = [end for end in ends if end is not None]
        if ends and not (ends[-1] is None and len(known) == len(ends) - 1 and known == sorted(set(known))):
            yield "tiers", "tiers whose up_to rises, and is null in the last"

    def rule(self, price_id: str) -> rating.Price:
        """As the rules take it, under an id."""
        tiers = self.tiers or [PriceTier(price=self.price or Decimal(0))]
        return rating.Price(
            id=price_id,
            selector=self.selector,
            meter=self.meter,
            per=self.per,
            tiers=tuple(rating.PriceTier(one.up_to, int(one.price.scaleb(EUR_DECIMALS))) for one in tiers),
            pricing=self.pricing,
            free=self.free,
            minimum_cents=cents(self.minimum),
            cap_cents=cents(self.cap),
        )


class PriceVersion(Price, frozen=True, kw_only=True):
    """A price of a book from `valid_from` until the next version for the same begins, or `valid_to`, exclusive."""

    book: Id
    valid_from: Instant
    valid_to: Instant | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        for field, edge in (("valid_from", self.valid_from), ("valid_to", self.valid_to)):
            if edge is not None and edge.astimezone(UTC).replace(minute=0, second=0, microsecond=0) != edge:
                yield field, "a whole hour"
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            yield "valid_to", "after valid_from"

    def version(self) -> rating.Price:
        """As the rules take it; its id says which it is."""
        begins = self.valid_from.astimezone(UTC)
        named = self.rule(f"{self.book}/{self.selector}/{self.meter}/{begins:%Y-%m-%dT%HZ}")
        return replace(named, valid_from=begins, valid_to=self.valid_to and self.valid_to.astimezone(UTC))


class ExchangeRate(Document, frozen=True, kw_only=True):
    """What one unit of a currency is in EUR from a day on; source: who published it. Never changed."""

    currency: Currency
    valid_on: date
    rate: Decimal
    source: Line

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.currency == "EUR":
            yield "currency", "another one than EUR"
        if not (in_units(self.rate, EUR_DECIMALS) and 0 < self.rate <= RATE_MAX):
            yield "rate", f"above 0 to {RATE_MAX}, with at most {EUR_DECIMALS} decimals"

    @property
    def nano(self) -> int:
        """10^-9 EUR for one unit."""
        return int(self.rate.scaleb(EUR_DECIMALS))

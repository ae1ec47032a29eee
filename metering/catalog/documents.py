"""What the catalogue is made of, as documents: bodies of routes, items of a catalogue file, rows of tables.

One form serves all three, so a file that was exported can be applied, and a route says what a file says. Amounts are
decimal numbers of EUR and gCO2e here, for people; the tables hold integers of nEUR and µgCO2e.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta, Struct
from stdnum import bic as bic_number
from stdnum import iban as iban_number
from stdnum.exceptions import ValidationError as NumberError
from stdnum.fr import siret as siret_number
from stdnum.fr import tva as vat_number

from metering.rules import limits as rules
from metering.rules.limits import Meter, Mode, Scope, Window
from metering.rules.quantities import Operation
from metering.rules.rating import prices as rating
from metering.rules.rating.meters import PriceMeter
from metering.rules.rating.prices import Pricing
from metering.rules.rating.totals import VatCategory, VatRegime
from metering.rules.retirement import REACHABLE_DAYS, Retiring, earliest_end

ID_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]*$"
NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._:/+~=-]*$"

Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=ID_PATTERN, description="Opaque id.")]
ModelName = Annotated[str, Meta(min_length=1, max_length=128, pattern=NAME_PATTERN, description="As in events.")]
Line = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", description="One line.")]
Paragraph = Annotated[str, Meta(min_length=1, max_length=2_000)]
Text = Annotated[str, Meta(min_length=1, max_length=100_000)]
Siret = Annotated[str, Meta(pattern="^[0-9]{14}$", description="14 digits, with a valid check digit.")]
VatNumber = Annotated[str, Meta(pattern="^[A-Z]{2}[A-Z0-9.+*-]{2,28}$", description="Country, then the number.")]
Domain = Annotated[str, Meta(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", max_length=253)]
Email = Annotated[str, Meta(min_length=3, max_length=254, description="Address of mail.")]
Address = Annotated[str, Meta(pattern="^https?://[^ ]+$", max_length=2_000)]
Instant = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Units = Annotated[int, Meta(ge=1, le=2**53 - 1, description="Base units of a meter.")]
Currency = Literal["EUR", "CHF"]
BuyerCode = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", description="As the buyer names it.")
]
Tier = Literal["free", "soft", "guaranteed"]
Outage = Literal["local", "open", "closed"]
Language = Literal["fr", "en"]

EUR_DECIMALS = 9
"""1 EUR is 10^9 nEUR."""
CENT_DECIMALS = 2
GRAM_DECIMALS = 6
"""1 g is 10^6 µg."""
VAT_DECIMALS = 2
"""Rates of VAT are kept in hundredths of a percent."""
PUE_DECIMALS = 6
"""Power usage effectiveness is kept in millionths."""
RATE_MAX = 10_000
"""More EUR than that for one unit is a slip of the pen."""
YEAR_MIN, YEAR_MAX = 1970, 8999
"""Years of dates and instants: those at the ends of the calendar leave it in another time zone, in the database or
here, and whoever reads them fails."""


class Document(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A document: closed, so that a misspelt field is an error and not a surprise."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            texts = value if isinstance(value, list) else [value]
            if any(isinstance(text, str) and (text != text.strip() or "\0" in text) for text in texts):
                raise ValueError(f"{name}: expected text without spaces around it")
            if isinstance(value, date) and not is_bounded(value):
                raise ValueError(f"{name}: expected a year from {YEAR_MIN} to {YEAR_MAX}")
        for field, expected in self.faults():
            raise ValueError(f"{field}: expected {expected}")

    def faults(self) -> Iterator[tuple[str, str]]:
        """What makes no sense in it beyond its form: (field, what was expected)."""
        yield from ()


# Plans, administrations, projects


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
        yield from _repeated_limits(self.limits)


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
        yield from _bad_vat_number(self.vat_number)


class Tenant(Document, frozen=True, kw_only=True):
    """An administration; billing null: as it is registered, in French."""

    id: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
    name: Line
    siret: Siret | None = None
    plan: Id | None = None
    billing: BillingDetails | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from _bad_siret("siret", self.siret)


class Project(Document, frozen=True, kw_only=True):
    """What an administration's usage is for."""

    tenant: Id
    id: Id
    name: Line
    status: Literal["active", "closed"] = "active"


# Prices


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
            _in_units(self.vat_percent, VAT_DECIMALS) and 0 < self.vat_percent <= 100
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
                if amount is not None and not _in_units(amount, decimals):
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
            minimum_cents=_cents(self.minimum),
            cap_cents=_cents(self.cap),
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
        if not (_in_units(self.rate, EUR_DECIMALS) and 0 < self.rate <= RATE_MAX):
            yield "rate", f"above 0 to {RATE_MAX}, with at most {EUR_DECIMALS} decimals"

    @property
    def nano(self) -> int:
        """10^-9 EUR for one unit."""
        return int(self.rate.scaleb(EUR_DECIMALS))


# Conventions


class Party(Document, frozen=True, kw_only=True):
    """Who signed."""

    name: Line
    siret: Siret | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from _bad_siret("siret", self.siret)


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
            if value is not None and not _in_units(value, decimals):
                yield field, f"0 to 10^9, with at most {decimals} decimals"
        yield from _repeated_limits(self.limits)
        if any(rating.overlaps([price.rule(price.meter) for price in self.prices])):
            yield "prices", "one for each selector and meter, and none for a meter beside one for a part of it"


# Models


class Category(Document, frozen=True, kw_only=True):
    """What a caller may ask for instead of a model."""

    id: ModelName
    name: Line
    model: ModelName | None = None


class Model(Document, frozen=True, kw_only=True):
    """A model that is offered, or was."""

    id: ModelName
    name: Line
    category: ModelName
    publisher: Line
    licence: Line
    licence_url: Address | None = None
    parameters: Count | None = None
    active_parameters: Count | None = None
    precision: Annotated[str, Meta(min_length=1, max_length=20)] | None = None
    context_tokens: Count | None = None
    kv_bytes_per_token: Count | None = None
    operations: list[Operation] = []
    available_from: Instant | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.parameters is not None and (self.active_parameters or 0) > self.parameters:
            yield "active_parameters", "at most parameters"


class Alias(Document, frozen=True, kw_only=True):
    """Another name of a model or of a category."""

    id: ModelName
    model: ModelName | None = None
    category: ModelName | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if (self.model is None) == (self.category is None):
            yield "model", "a model or a category"


class Deployment(Document, frozen=True, kw_only=True):
    """Where a model runs or ran: `replicas` of it, of `accelerators` each, from `starts_at` to `ends_at`, exclusive."""

    id: ModelName
    model: ModelName
    replicas: Number = 1
    accelerator: Line | None = None
    accelerators: Number | None = None
    starts_at: Instant
    ends_at: Instant | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.ends_at is not None and self.ends_at < self.starts_at:
            yield "ends_at", "starts_at or later"


class Site(Document, frozen=True, kw_only=True):
    """Where nodes are. `zone` is the electricity's, as emission factors name it; `contract` that of market-based ones.

    pue: energy of the building for one of its machines, the best guess and its bounds.
    """

    id: ModelName
    name: Line
    zone: ModelName
    contract: ModelName | None = None
    pue: Decimal
    pue_lower: Decimal
    pue_upper: Decimal

    def faults(self) -> Iterator[tuple[str, str]]:
        for field in ("pue_lower", "pue", "pue_upper"):
            value = getattr(self, field)
            if not (_in_units(value, PUE_DECIMALS) and 1 <= value <= 10):
                yield field, f"1 to 10, with at most {PUE_DECIMALS} decimals"
                return
        if not self.pue_lower <= self.pue <= self.pue_upper:
            yield "pue", "pue_lower to pue_upper"


class Retirement(Document, frozen=True, kw_only=True):
    """A model or category that is being replaced; from `retires_at` on it is refused."""

    kind: Retiring
    subject: ModelName
    successor: ModelName | None = None
    announced_at: Instant
    retires_at: Instant

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.retires_at < earliest_end(self.kind, self.announced_at):
            yield "retires_at", f"at least {REACHABLE_DAYS[self.kind]} days after announced_at"
        if self.successor == self.subject:
            yield "successor", "another one"


# Access


class Issuer(Document, frozen=True, kw_only=True):
    """Who sells: the sender of documents. Invoices are paid to `iban` within `days_to_pay` days."""

    name: Line
    siret: Siret
    vat_number: VatNumber | None = None
    address: PostalAddress
    email: Email | None = None
    iban: Annotated[str, Meta(pattern="^[A-Z]{2}[0-9]{2}[A-Z0-9]{8,30}$")] | None = None
    bic: Annotated[str, Meta(pattern="^[A-Z0-9]{8}([A-Z0-9]{3})?$")] | None = None
    days_to_pay: Annotated[int, Meta(ge=0, le=365)] = 30

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from _bad_siret("siret", self.siret)
        yield from _bad_vat_number(self.vat_number)
        if self.iban is not None and not iban_number.is_valid(self.iban):
            yield "iban", "an IBAN without spaces, whose check digits are right"
        if self.bic is not None and not bic_number.is_valid(self.bic):
            yield "bic", "a BIC"


class Platform(Document, frozen=True, kw_only=True):
    """What holds for everybody; issuer: who documents are from, null while nothing is billed."""

    default_plan: Id
    overload: Literal["none", "batch", "free", "soft", "guaranteed"] = "none"
    overload_reason: Paragraph | None = None
    house_sirets: list[Siret] = []
    house_domains: list[Domain] = []
    house_tenant: Id | None = None
    price_book: Id | None = None
    issuer: Issuer | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        for number in self.house_sirets:
            yield from _bad_siret("house_sirets", number)
        if (self.house_sirets or self.house_domains) and self.house_tenant is None:
            yield "house_tenant", "the administration that agents of the house join"
        if self.overload != "none" and self.overload_reason is None:
            yield "overload_reason", "why: those who wait are told"


class Phase(Document, frozen=True, kw_only=True):
    """A phase of an experiment: who may take part from `starts_at` to `ends_at`, exclusive.

    restricted: the listed administrations; open: everybody; closing: those who are in, nobody new.
    """

    phase: Literal["restricted", "open", "closing"]
    starts_at: Instant
    ends_at: Instant
    tenants: list[Id] = []

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.ends_at <= self.starts_at:
            yield "ends_at", "after starts_at"
        if bool(self.tenants) != (self.phase == "restricted"):
            yield "tenants", "the administrations of a restricted phase, and of no other"


class Experiment(Document, frozen=True, kw_only=True):
    """An experiment with its phases, in order; `models` empty is the platform as a whole."""

    id: Id
    name: Line
    models: list[ModelName] = []
    early_access: list[Id] = []
    phases: list[Phase] = []

    def faults(self) -> Iterator[tuple[str, str]]:
        if any(after.starts_at < before.ends_at for before, after in pairwise(self.phases)):
            yield "phases", "phases in order, which don't overlap"


class Terms(Document, frozen=True, kw_only=True):
    """A version of the terms of use or of the data policy."""

    document: Literal["terms", "data_policy"]
    version: Id
    title_fr: Line
    title_en: Line
    text_fr: Text
    text_en: Text
    effective_at: Instant
    enforced_at: Instant

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.enforced_at < self.effective_at:
            yield "enforced_at", "effective_at or later"


class Notice(Document, frozen=True, kw_only=True):
    """What everybody, or the listed administrations, are told from `starts_at` to `ends_at`, exclusive."""

    id: Id
    kind: Literal["maintenance", "incident", "information"]
    title_fr: Line
    title_en: Line
    text_fr: Paragraph
    text_en: Paragraph
    starts_at: Instant
    ends_at: Instant | None = None
    tenants: list[Id] = []

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.ends_at is not None and self.ends_at <= self.starts_at:
            yield "ends_at", "after starts_at"


def is_bounded(moment: date) -> bool:
    """Whether a date or an instant can be read in any time zone."""
    return YEAR_MIN <= moment.year <= YEAR_MAX


def _bad_siret(field: str, number: str | None) -> Iterator[tuple[str, str]]:
    if number is None:
        return
    try:
        siret_number.validate(number)
    except NumberError:
        yield field, "a SIRET, whose check digit is right"


def _bad_vat_number(number: str | None) -> Iterator[tuple[str, str]]:
    """The check digits of French ones are known; of others the form is."""
    if number is not None and number.startswith("FR") and not vat_number.is_valid(number):
        yield "vat_number", "a VAT number, whose check digits are right"


def _repeated_limits(limits: list[Limit]) -> Iterator[tuple[str, str]]:
    places = [(limit.scope, limit.selector, limit.meter, limit.window) for limit in limits]
    if len(set(places)) < len(places):
        yield "limits", "one limit for each scope, selector, meter and window"


def _cents(amount: Decimal | None) -> int | None:
    return None if amount is None else int(amount.scaleb(CENT_DECIMALS))


def _in_units(amount: Decimal, decimals: int) -> bool:
    """Whether an amount is a bounded number of EUR or g, and a whole one of its base unit."""
    return amount.is_finite() and 0 <= amount <= 10**9 and amount == amount.quantize(Decimal(1).scaleb(-decimals))

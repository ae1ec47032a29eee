"""What the catalogue is made of, as documents: bodies of routes, items of a catalogue file, rows of tables.

One form serves all three, so a file that was exported can be applied, and a route says what a file says. Amounts are
decimal numbers of EUR and gCO2e here, for people; the tables hold integers of nEUR and µgCO2e.
"""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta, Struct
from stdnum.exceptions import ValidationError as NumberError
from stdnum.fr import siret as siret_number

from metering.rules import limits as rules
from metering.rules.limits import Meter, Mode, Scope, Window
from metering.rules.quantities import Operation
from metering.rules.retirement import REACHABLE_DAYS, Retiring, earliest_end

ID_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]*$"
NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._:/+~=-]*$"

Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=ID_PATTERN, description="Opaque id.")]
ModelName = Annotated[str, Meta(min_length=1, max_length=128, pattern=NAME_PATTERN, description="As in events.")]
Line = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", description="One line.")]
Paragraph = Annotated[str, Meta(min_length=1, max_length=2_000)]
Text = Annotated[str, Meta(min_length=1, max_length=100_000)]
Siret = Annotated[str, Meta(pattern="^[0-9]{14}$", description="14 digits, with a valid check digit.")]
Domain = Annotated[str, Meta(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", max_length=253)]
Email = Annotated[str, Meta(min_length=3, max_length=254, description="Address of mail.")]
Address = Annotated[str, Meta(pattern="^https?://[^ ]+$", max_length=2_000)]
Instant = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Tier = Literal["free", "soft", "guaranteed"]
Outage = Literal["local", "open", "closed"]
Language = Literal["fr", "en"]

EUR_DECIMALS = 9
"""1 EUR is 10^9 nEUR."""
GRAM_DECIMALS = 6
"""1 g is 10^6 µg."""
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


class Tenant(Document, frozen=True, kw_only=True):
    """An administration."""

    id: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
    name: Line
    siret: Siret | None = None
    plan: Id | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from _bad_siret("siret", self.siret)


class Project(Document, frozen=True, kw_only=True):
    """What an administration's usage is for."""

    tenant: Id
    id: Id
    name: Line
    status: Literal["active", "closed"] = "active"


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


class Price(Document, frozen=True, kw_only=True):
    """A price agreed by convention: `price_eur` for `per` base units of a meter."""

    selector: Annotated[str, Meta(min_length=1, max_length=140)] = rules.EVERYTHING
    meter: Meter
    price_eur: Decimal
    per: Number = 1

    def faults(self) -> Iterator[tuple[str, str]]:
        if not _in_units(self.price_eur, EUR_DECIMALS):
            yield "price_eur", "0 to 10^9, with at most 9 decimals"


class Convention(Document, frozen=True, kw_only=True):
    """A version of a convention; an amendment is the next version, whole, and says what it changes."""

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
    """Where a model runs or ran: `replicas` of it from `starts_at` to `ends_at`, exclusive."""

    id: ModelName
    model: ModelName
    replicas: Number = 1
    accelerator: Line | None = None
    starts_at: Instant
    ends_at: Instant | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.ends_at is not None and self.ends_at < self.starts_at:
            yield "ends_at", "starts_at or later"


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


class Platform(Document, frozen=True, kw_only=True):
    """What holds for everybody."""

    default_plan: Id
    overload: Literal["none", "batch", "free", "soft", "guaranteed"] = "none"
    overload_reason: Paragraph | None = None
    house_sirets: list[Siret] = []
    house_domains: list[Domain] = []
    house_tenant: Id | None = None

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


def _repeated_limits(limits: list[Limit]) -> Iterator[tuple[str, str]]:
    places = [(limit.scope, limit.selector, limit.meter, limit.window) for limit in limits]
    if len(set(places)) < len(places):
        yield "limits", "one limit for each scope, selector, meter and window"


def _in_units(amount: Decimal, decimals: int) -> bool:
    """Whether an amount is a bounded number of EUR or g, and a whole one of its base unit."""
    return amount.is_finite() and 0 <= amount <= 10**9 and amount == amount.quantize(Decimal(1).scaleb(-decimals))

"""What holds for everybody: who sells, experiments, terms, notices."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta
from stdnum import bic as bic_number
from stdnum import iban as iban_number

from metering.catalog.documents.administrations import PostalAddress
from metering.catalog.documents.fields import (
    Document,
    Domain,
    Email,
    Id,
    Instant,
    Line,
    ModelName,
    Paragraph,
    Siret,
    Text,
    VatNumber,
    bad_siret,
    bad_vat_number,
)


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
        yield from bad_siret("siret", self.siret)
        yield from bad_vat_number(self.vat_number)
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
            yield from bad_siret("house_sirets", number)
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

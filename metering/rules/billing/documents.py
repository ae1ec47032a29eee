"""A statement, an invoice or a credit note, whole: everything that its files show is in it, and nothing else is.

It is made once, at the close, from a rated month and the catalogue of that moment, and never changes. Every file (PDF,
XML, JSON) is a function of it, so that the same document gives the same bytes for ever. Amounts are integers of cents,
unit prices of 10^-9 of the currency, energy of µJ, carbon of ng CO2e; null is unknown.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from metering.rules.rating.lines import LineKind
from metering.rules.rating.meters import PriceMeter
from metering.rules.rating.totals import VatCategory, VatPart

DocumentKind = Literal["statement", "invoice", "credit_note"]
"""statement: what was used, valued and not owed. invoice: what is owed. credit_note: what is owed back; its amounts are
positive."""


@dataclass(frozen=True, slots=True)
class PostalAddress:
    """Where somebody is; country: ISO 3166-1 alpha-2."""

    lines: tuple[str, ...]
    postcode: str
    city: str
    country: str = "FR"


@dataclass(frozen=True, slots=True)
class Party:
    """A seller or buyer. id: of the administration in the catalogue; of the seller, `platform`."""

    id: str
    name: str
    siret: str | None = None
    vat_number: str | None = None
    address: PostalAddress | None = None
    email: str | None = None

    @property
    def siren(self) -> str | None:
        """The legal unit: the first nine digits of the SIRET."""
        return self.siret[:9] if self.siret else None


@dataclass(frozen=True, slots=True)
class Payment:
    """How an invoice is paid: by transfer, until `due_on`."""

    due_on: date
    iban: str | None = None
    bic: str | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """A month of the books, [start, end) in UTC."""

    month: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """A rated line: quantity × unit_price_nano ÷ per, in 10^-9 of the currency, rounded once to `net_cents`.

    month: the month that the use is of, which in a correction is before the document's. Unit prices are never negative:
    quantity and net_cents are, where an earlier line is taken back and for a cap. price: id of the price version.
    project and model are null for a minimum or a cap; their names are those of the catalogue at the close.
    """

    number: int
    month: str
    project: str | None
    project_name: str | None
    model: str | None
    model_name: str | None
    meter: PriceMeter
    kind: LineKind
    used: int
    quantity: int
    unit_price_nano: int
    per: int
    net_cents: int
    vat: VatCategory
    price: str


@dataclass(frozen=True, slots=True)
class ExchangedVat:
    """VAT in the currency of the seller's accounts, where the document has another.

    rate_nano: 10^-9 of that currency for one of the document's; source: who published the rate, and for which day.
    """

    currency: str
    rate_nano: int
    source: str
    vat_cents: int


@dataclass(frozen=True, slots=True)
class Preceding:
    """The document that a credit note corrects."""

    number: str
    issued_on: date


@dataclass(frozen=True, slots=True)
class CarbonFigures:
    """What the month emitted, with bounds (use of the location's grid and making of machines), and how it is known.

    requests_unknown: requests whose energy isn't known, and so isn't in any figure. tiers_ppm: data quality (A to D) to
    its share of the energy in millionths. as_of: last batch of carbon; is_complete: whether all of the month is posted.
    """

    requests: int
    requests_unknown: int
    energy_uj: int | None
    total_ng: int | None
    total_lower_ng: int | None
    total_upper_ng: int | None
    tiers_ppm: tuple[tuple[str, int], ...]
    methods: tuple[str, ...]
    as_of: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class DayFigures:
    """Use on a day of the books, for the chart; tokens are null where no request tells them."""

    day: date
    requests: int
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the figures follow from; rated again as of these, the lines are the same to the last digit."""

    ledger_batch: int
    ledger_hash: str
    carbon_batch: int | None
    catalog_version: int


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Usage without an amount, in all: why (`rating.months.Reason`), of which quantity, and how much of it."""

    reason: str
    quantity: str
    amount: int


@dataclass(frozen=True, slots=True)
class BillingDocument:
    """A document. number: null in a draft.

    buyer_reference: the buyer's service code (BT-10); order_reference: its engagement number (BT-13). convention and
    convention_title: the agreement that is billed; null for free access. Of a statement, net_cents is
    what the use is valued at.
    """

    kind: DocumentKind
    number: str | None
    language: Literal["fr", "en"]
    issued_on: date
    period: Period
    seller: Party
    buyer: Party
    convention: str | None
    convention_title: str | None
    settlement: str
    buyer_reference: str | None
    order_reference: str | None
    currency: str
    lines: tuple[DocumentLine, ...]
    vat: tuple[VatPart, ...]
    net_cents: int
    vat_cents: int
    gross_cents: int
    exchanged_vat: ExchangedVat | None
    payment: Payment | None
    preceding: Preceding | None
    unpriced: tuple[Unpriced, ...]
    carbon: CarbonFigures | None
    days: tuple[DayFigures, ...]
    provenance: Provenance

    def __post_init__(self) -> None:
        assert self.net_cents == sum(line.net_cents for line in self.lines)
        assert self.vat_cents == sum(part.vat_cents for part in self.vat)
        assert self.gross_cents == self.net_cents + self.vat_cents
        assert (self.preceding is not None) == (self.kind == "credit_note")

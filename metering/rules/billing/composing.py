"""From a rated month to documents: one for each account of an administration, and credit notes for what is owed back.

What an account's convention bills becomes an invoice; all else a statement, valued and not owed. Corrections of earlier
months go into the account's next document, unless an administration gets money back: then into a credit note, which
names the invoice that it corrects.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

from metering.rules.billing.correcting import AccountKey, taken_back
from metering.rules.billing.documents import (
    BillingDocument,
    CarbonFigures,
    DayFigures,
    DocumentKind,
    DocumentLine,
    ExchangedVat,
    Party,
    Payment,
    Period,
    Preceding,
    Provenance,
    Unpriced,
)
from metering.rules.carbon.apportioning import rounded
from metering.rules.rating.prices import NANO
from metering.rules.rating.totals import total_of

BOOKS_CURRENCY = "EUR"
"""Currency of the seller's accounts, in which VAT is told whatever an invoice is in."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a currency is in EUR: 10^-9 of it for one unit, and who published that."""

    rate_nano: int
    source: str


@dataclass(frozen=True, slots=True)
class Issue:
    """What all documents of a closing share. days_to_pay: from `issued_on`; exchange: of currencies but EUR."""

    issued_on: date
    period: Period
    seller: Party
    iban: str | None
    bic: str | None
    days_to_pay: int
    provenance: Provenance
    exchange: Mapping[str, Exchange]


@dataclass(frozen=True, slots=True)
class Agreement:
    """A convention as documents name it; order_reference: the buyer's number for it."""

    title: str
    order_reference: str | None


@dataclass(frozen=True, slots=True)
class Buyer:
    """An administration as documents name it."""

    party: Party
    language: Literal["fr", "en"]
    service_code: str | None
    order_reference: str | None
    agreements: Mapping[str, Agreement]


@dataclass(frozen=True, slots=True)
class Correction:
    """Lines that correct a month of an account; preceding: the last invoice that has lines of it, if there is one."""

    account: AccountKey
    month: str
    lines: tuple[DocumentLine, ...]
    preceding: Preceding | None

    @property
    def net_cents(self) -> int:
        return sum(line.net_cents for line in self.lines)

    @property
    def is_owed_back(self) -> bool:
        """Whether the administration gets money back."""
        return self.account.settlement == "billed" and self.net_cents < 0


@dataclass(frozen=True, slots=True)
class TenantMonth:
    """What documents of an administration are made from. Accounts without lines have what is unpriced, if anything.

    carbon and days are the administration's as a whole: they are on its first document only, so that they add up.
    """

    buyer: Buyer
    lines: Mapping[AccountKey, Sequence[DocumentLine]]
    unpriced: Mapping[AccountKey, Sequence[Unpriced]]
    corrections: Sequence[Correction]
    carbon: CarbonFigures | None
    days: tuple[DayFigures, ...]


def compose(issue: Issue, month: TenantMonth) -> list[BillingDocument]:
    """Documents of an administration's month, without numbers, in the order in which they are numbered."""
    onward: dict[AccountKey, list[DocumentLine]] = {}
    for one in month.corrections:
        if not one.is_owed_back:
            onward.setdefault(one.account, []).extend(one.lines)
    accounts = sorted({*month.lines, *month.unpriced, *onward}, key=_order)
    found = []
    for account in accounts:
        lines = (*month.lines.get(account, ()), *onward.get(account, ()))
        kind: DocumentKind = "invoice" if account.settlement == "billed" and lines else "statement"
        found.append(_document(issue, month, account, kind, lines))
    if found:
        found[0] = replace(found[0], carbon=month.carbon, days=month.days)
    back = sorted(
        (one for one in month.corrections if one.is_owed_back), key=lambda one: (_order(one.account), one.month)
    )
    return [*found, *(_credit_note(issue, month, one) for one in back)]


def _credit_note(issue: Issue, month: TenantMonth, one: Correction) -> BillingDocument:
    """What is owed back, the other way round: its amounts are positive."""
    lines = [taken_back(line) for line in one.lines]
    return _document(issue, month, one.account, "credit_note", lines, one.preceding)


def _document(
    issue: Issue,
    month: TenantMonth,
    account: AccountKey,
    kind: DocumentKind,
    lines: Iterable[DocumentLine],
    preceding: Preceding | None = None,
) -> BillingDocument:
    buyer = month.buyer
    agreement = buyer.agreements.get(account.convention or "")
    numbered = tuple(replace(line, number=number) for number, line in enumerate(sorted(lines, key=_by_project), 1))
    total = total_of((line.vat, line.net_cents) for line in numbered)
    return BillingDocument(
        kind=kind,
        number=None,
        language=buyer.language,
        issued_on=issue.issued_on,
        period=issue.period,
        seller=issue.seller,
        buyer=buyer.party,
        convention=account.convention,
        convention_title=None if agreement is None else agreement.title,
        settlement=account.settlement,
        buyer_reference=buyer.service_code,
        order_reference=(None if agreement is None else agreement.order_reference) or buyer.order_reference,
        currency=account.currency,
        lines=numbered,
        vat=total.vat,
        net_cents=total.net_cents,
        vat_cents=total.vat_cents,
        gross_cents=total.gross_cents,
        exchanged_vat=None if kind == "statement" else _exchanged(issue, account.currency, total.vat_cents),
        payment=_payment(issue) if kind == "invoice" else None,
        preceding=preceding,
        unpriced=() if kind == "credit_note" else tuple(month.unpriced.get(account, ())),
        carbon=None,
        days=(),
        provenance=issue.provenance,
    )


def _exchanged(issue: Issue, currency: str, vat_cents: int) -> ExchangedVat | None:
    """VAT in the currency of the books; None where there is none, or a draft knows no rate yet."""
    rate = issue.exchange.get(currency)
    if currency == BOOKS_CURRENCY or rate is None or not vat_cents:
        return None
    return ExchangedVat(BOOKS_CURRENCY, rate.rate_nano, rate.source, rounded(vat_cents * rate.rate_nano, NANO))


def _payment(issue: Issue) -> Payment:
    return Payment(issue.issued_on + timedelta(days=issue.days_to_pay), issue.iban, issue.bic)


def _by_project(line: DocumentLine) -> tuple[str, bool, str]:
    """Months, then projects, in their order; what concerns a month as a whole ends it."""
    return line.month, line.project is None and line.model is None, line.project or ""


def _order(account: AccountKey) -> tuple[str, str, str]:
    return account.convention or "", account.settlement, account.currency

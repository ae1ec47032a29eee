"""Invoices and credit notes as entries of a sales journal, with the columns of a French FEC.

An invoice debits the customer with what is to be paid, and credits revenue and VAT, one entry of each for a category of
VAT; a credit note does the reverse. Each document is one writing whose debits are its credits, to the cent. Amounts are
in the document's currency; where that isn't the euro it stands in `Idevise`, and is for the accountant to convert.
Statements owe nothing and are no entries. Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from metering.rules.billing.documents import BillingDocument
from metering.rules.rating.totals import VatCategory
from reports.exports.sheets import Column, Value

HOME = "EUR"


@dataclass(frozen=True, slots=True)
class Accounts:
    """Journal and accounts of the seller's books."""

    journal: str = "VE"
    customer: str = "411000"
    revenue: str = "706000"
    vat: str = "445710"


LABELS = {"customer": "Clients", "revenue": "Prestations de services", "vat": "TVA collectée"}
JOURNAL = "Ventes"
KINDS = {"invoice": "Facture", "credit_note": "Avoir"}

ACCOUNTING_COLUMNS = (
    Column("JournalCode", "text"),
    Column("JournalLib", "text"),
    Column("EcritureNum", "text"),
    Column("EcritureDate", "text"),
    Column("CompteNum", "text"),
    Column("CompteLib", "text"),
    Column("CompAuxNum", "text"),
    Column("CompAuxLib", "text"),
    Column("PieceRef", "text"),
    Column("PieceDate", "text"),
    Column("EcritureLib", "text"),
    Column("Debit", "decimal", 2),
    Column("Credit", "decimal", 2),
    Column("EcritureLet", "text"),
    Column("DateLet", "text"),
    Column("ValidDate", "text"),
    Column("Montantdevise", "decimal", 2),
    Column("Idevise", "text"),
    Column("TauxTVA", "text"),
    Column("Siret", "text"),
)
"""The 18 columns of a FEC, then the category of VAT of a revenue or a tax, and the customer's SIRET."""


def accounting_rows(documents: Iterable[BillingDocument], accounts: Accounts) -> Iterator[list[Value]]:
    """Entries of documents, in their order; drafts have none."""
    for document in documents:
        if document.kind != "statement" and document.number is not None:
            yield from _entries(document, accounts)


def _entries(document: BillingDocument, accounts: Accounts) -> Iterator[list[Value]]:
    if document.gross_cents:
        yield _entry(document, accounts, "customer", document.gross_cents, None)
    for part in document.vat:
        if part.base_cents:
            yield _entry(document, accounts, "revenue", -part.base_cents, part.category)
    for part in document.vat:
        if part.vat_cents:
            yield _entry(document, accounts, "vat", -part.vat_cents, part.category)


def _entry(
    document: BillingDocument, accounts: Accounts, account: str, cents: int, category: VatCategory | None
) -> list[Value]:
    """One entry; cents are debited on an invoice where they are positive, and credited where they aren't."""
    debit_cents = -cents if document.kind == "credit_note" else cents
    day = document.issued_on.strftime("%Y%m%d")
    is_customer, is_foreign = account == "customer", document.currency != HOME
    text = f"{KINDS[document.kind]} {document.number} {document.buyer.name} {document.period.month}"
    return [
        accounts.journal,
        JOURNAL,
        document.number,
        day,
        getattr(accounts, account),
        LABELS[account],
        document.buyer.id if is_customer else None,
        document.buyer.name if is_customer else None,
        document.number,
        day,
        text,
        _amount(max(0, debit_cents)),
        _amount(max(0, -debit_cents)),
        None,
        None,
        day,
        _amount(debit_cents) if is_foreign else None,
        document.currency if is_foreign else None,
        None if category is None else _told(category),
        document.buyer.siret,
    ]


def _amount(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


def _told(category: VatCategory) -> str:
    return f"{_amount(category.rate_bp)} %" if category.regime == "rate" else category.reason or category.regime

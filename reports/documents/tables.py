"""Lines of a document as CSV: all that is known of each, or what services of the State settle by. Pure."""

from decimal import Decimal

from metering.rules.billing.documents import BillingDocument, DocumentLine
from reports.cells import Cell, csv_bytes
from reports.documents.amounts import METER_WORDS, money, price_base, shown_quantity, unit_word
from reports.documents.invoice import is_all_outside, item_name, reason_of
from reports.documents.words import say

LINE_COLUMNS = (
    "document",
    "line",
    "month",
    "convention",
    "project",
    "project_name",
    "model",
    "model_name",
    "meter",
    "kind",
    "used",
    "quantity",
    "unit",
    "price",
    "base",
    "net",
    "currency",
    "vat_rate",
    "vat_reason",
    "price_version",
)
SETTLEMENT_COLUMNS = (
    "document",
    "line",
    "service",
    "engagement",
    "convention",
    "project",
    "item",
    "month",
    "quantity",
    "unit",
    "price",
    "base",
    "amount",
    "currency",
)


def is_between_services(document: BillingDocument) -> bool:
    """Whether it is settled between services of the State: owed, and out of scope of VAT altogether."""
    return document.kind != "statement" and is_all_outside(document)


def lines_csv(document: BillingDocument) -> bytes:
    """Lines as a table: of what is settled between services of the State, the «état liquidatif»."""
    between = is_between_services(document)
    columns, row = (SETTLEMENT_COLUMNS, _settlement_row) if between else (LINE_COLUMNS, _line_row)
    headings = [say(document.language, f"csv.{column}") for column in columns]
    return csv_bytes(headings, (row(document, line) for line in document.lines), document.language)


def _line_row(document: BillingDocument, line: DocumentLine) -> list[Cell]:
    language = document.language
    code, text = (None, None) if line.vat.regime == "rate" else reason_of(line.vat, document)
    return [
        document.number,
        line.number,
        line.month,
        document.convention,
        line.project,
        line.project_name,
        line.model,
        line.model_name,
        METER_WORDS[line.meter][language],
        say(language, f"csv.kind.{line.kind}"),
        shown_quantity(line.meter, line.used),
        *_priced(document, line),
        money(line.net_cents),
        document.currency,
        Decimal(line.vat.rate_bp).scaleb(-2) if line.vat.regime == "rate" else None,
        code or text,
        line.price,
    ]


def _settlement_row(document: BillingDocument, line: DocumentLine) -> list[Cell]:
    return [
        document.number,
        line.number,
        document.buyer_reference,
        document.order_reference,
        document.convention,
        line.project_name or line.project,
        item_name(document, line),
        line.month,
        *_priced(document, line),
        money(line.net_cents),
        document.currency,
    ]


def _priced(document: BillingDocument, line: DocumentLine) -> list[Cell]:
    """Quantity, unit, price and what it is for; a minimum and a cap are one of what they come to."""
    price = Decimal(line.unit_price_nano).scaleb(-9)
    if line.kind in {"minimum", "cap"}:
        return [line.quantity, None, price, None]
    return [
        shown_quantity(line.meter, line.quantity),
        unit_word(line.meter, line.quantity, document.language),
        price,
        price_base(line.meter, line.per, document.language),
    ]

"""Documents as charges: FOCUS 1.2 and 1.4 (FinOps Open Cost and Usage Specification), dataset Cost and Usage.

A line of a document is a charge of category Usage, a minimum or a cap one of category Adjustment, the tax of a category
one of category Tax. BilledCost of an invoice adds up to what is to be paid, of a credit note to what is given back,
negative; a statement owes nothing. A correction of an earlier month is of class Correction, in the month that it
corrects. The specification's columns come first, in alphabetical order, then our own, which begin with `x_`. Pure.

A price per package or with a base that no decimal ends leaves quantities × prices that no decimal shows exactly:
PricingQuantity is given to 12 decimals, and ContractedCost and ListCost are exactly its product with the price shown.
What was billed is the line's own amount, rounded once from integers.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Context, Decimal
from fractions import Fraction
from typing import Literal

from metering.rules.billing.documents import BillingDocument, DocumentLine
from metering.rules.carbon.apportioning import rounded
from metering.rules.periods import month_bounds
from metering.rules.rating.meters import PriceMeter
from metering.rules.rating.totals import VatPart
from reports.exports.sheets import DIGITS, Column, ColumnKind, Value

FocusVersion = Literal["1.2", "1.4"]

COST_SCALE = 21
PRICE_SCALE = 9
QUANTITY_SCALE = 12
"""Decimals: a price has 9, a priced quantity 12, so that a cost, their product, has 21."""

SERVICE_CATEGORY = "AI and Machine Learning"

UNITS: dict[PriceMeter, tuple[str, str]] = {
    "input_tokens": ("Tokens", "Language models"),
    "cached_input_tokens": ("Tokens", "Language models"),
    "output_tokens": ("Tokens", "Language models"),
    "total_tokens": ("Tokens", "Language models"),
    "audio_ms": ("Milliseconds", "Transcription"),
    "embedding_requests": ("Requests", "Embeddings"),
    "embedding_inputs": ("Inputs", "Embeddings"),
    "requests": ("Requests", "Requests to models"),
    "pages": ("Pages", "Reading of documents"),
    "images": ("Images", "Images"),
    "documents": ("Documents", "Reading of documents"),
    "searches": ("Searches", "Search"),
    "web_searches": ("Searches", "Search"),
    "storage_byte_hours": ("B-Hours", "Vector storage"),
    "carbon_ugco2e": ("Micrograms", "Carbon"),
}
"""Unit and service of each meter; a service has one category and subcategory."""

_Kind = tuple[ColumnKind, int]
_COST: _Kind = ("decimal", COST_SCALE)
_PRICE: _Kind = ("decimal", PRICE_SCALE)
_QUANTITY: _Kind = ("decimal", QUANTITY_SCALE)
_TEXT: _Kind = ("text", 0)
_INSTANT: _Kind = ("instant", 0)
_JSON: _Kind = ("json", 0)

COLUMNS: dict[str, tuple[_Kind, str]] = {
    "BilledCost": (_COST, "both"),
    "BillingAccountId": (_TEXT, "both"),
    "BillingAccountName": (_TEXT, "both"),
    "BillingCurrency": (_TEXT, "both"),
    "BillingPeriodEnd": (_INSTANT, "both"),
    "BillingPeriodStart": (_INSTANT, "both"),
    "ChargeCategory": (_TEXT, "both"),
    "ChargeClass": (_TEXT, "both"),
    "ChargeDescription": (_TEXT, "both"),
    "ChargeFrequency": (_TEXT, "both"),
    "ChargePeriodEnd": (_INSTANT, "both"),
    "ChargePeriodStart": (_INSTANT, "both"),
    "CommitmentDiscountStatus": (_TEXT, "both"),
    "ConsumedQuantity": (_QUANTITY, "both"),
    "ConsumedUnit": (_TEXT, "both"),
    "ContractedCost": (_COST, "both"),
    "ContractedUnitPrice": (_PRICE, "both"),
    "EffectiveCost": (_COST, "both"),
    "HostProviderName": (_TEXT, "1.4"),
    "InvoiceDetailId": (_TEXT, "1.4"),
    "InvoiceId": (_TEXT, "both"),
    "InvoiceIssuerName": (_TEXT, "both"),
    "ListCost": (_COST, "both"),
    "ListUnitPrice": (_PRICE, "both"),
    "PricingCategory": (_TEXT, "both"),
    "PricingCurrency": (_TEXT, "both"),
    "PricingCurrencyContractedUnitPrice": (_PRICE, "both"),
    "PricingCurrencyEffectiveCost": (_COST, "both"),
    "PricingCurrencyListUnitPrice": (_PRICE, "both"),
    "PricingQuantity": (_QUANTITY, "both"),
    "PricingUnit": (_TEXT, "both"),
    "ProviderName": (_TEXT, "1.2"),
    "PublisherName": (_TEXT, "1.2"),
    "ServiceCategory": (_TEXT, "both"),
    "ServiceName": (_TEXT, "both"),
    "ServiceProviderName": (_TEXT, "1.4"),
    "ServiceSubcategory": (_TEXT, "both"),
    "SkuId": (_TEXT, "both"),
    "SkuMeter": (_TEXT, "both"),
    "SkuPriceDetails": (_JSON, "both"),
    "SkuPriceId": (_TEXT, "both"),
    "SubAccountId": (_TEXT, "both"),
    "SubAccountName": (_TEXT, "both"),
    "Tags": (_JSON, "both"),
    "x_CatalogVersion": (("count", 0), "both"),
    "x_Convention": (_TEXT, "both"),
    "x_DocumentKind": (_TEXT, "both"),
    "x_DocumentState": (_TEXT, "both"),
    "x_LedgerBatch": (("count", 0), "both"),
    "x_LedgerHash": (_TEXT, "both"),
    "x_Model": (_TEXT, "both"),
    "x_OrderReference": (_TEXT, "both"),
    "x_PrecedingInvoiceId": (_TEXT, "both"),
    "x_Settlement": (_TEXT, "both"),
    "x_VatCategory": (_TEXT, "both"),
    "x_VatPercent": (("decimal", 2), "both"),
}
"""Column to its kind, and the version that has it. FOCUS 1.4 names who provides by other columns than 1.2, and adds the
line of the invoice."""

IN_PRICING_CURRENCY = ("ContractedUnitPrice", "EffectiveCost", "ListUnitPrice")
"""Prices are in the currency that is billed, so these are the same in both."""

ZERO = Decimal("0.00")

WIDE = Context(prec=2 * DIGITS)
"""Enough for every product; the ordinary 28 digits would round."""


def focus_columns(version: FocusVersion) -> tuple[Column, ...]:
    """Columns of a version."""
    return tuple(Column(name, *kind) for name, (kind, of) in COLUMNS.items() if of in {version, "both"})


def focus_rows(documents: Iterable[BillingDocument], version: FocusVersion) -> Iterator[list[Value]]:
    """Charges of documents, in their order: lines, then taxes."""
    names = [column.name for column in focus_columns(version)]
    for document in documents:
        for charge in charges(document):
            charge |= {f"PricingCurrency{name}": charge[name] for name in IN_PRICING_CURRENCY}
            yield [charge[name] for name in names]


def charges(document: BillingDocument) -> Iterator[dict[str, Value]]:
    """Charges of one document, with the columns of every version."""
    common = _of_document(document)
    for line in document.lines:
        yield common | _of_line(document, line)
    if document.kind != "statement":
        for number, part in enumerate(document.vat, 1):
            if part.vat_cents:
                yield common | _of_tax(document, part, number)


def sign_of(document: BillingDocument) -> int:
    """Amounts of a credit note are positive on it, and negative as a charge."""
    return -1 if document.kind == "credit_note" else 1


def _of_document(document: BillingDocument) -> dict[str, Value]:
    """What all charges of a document have in common, and nothing in every other column."""
    seller, buyer, provenance = document.seller, document.buyer, document.provenance
    tags = {
        "jauge/convention": document.convention,
        "jauge/order_reference": document.order_reference,
        "jauge/buyer_reference": document.buyer_reference,
    }
    known = {name: value for name, value in tags.items() if value is not None}
    return dict.fromkeys(COLUMNS) | {
        "BillingAccountId": buyer.id,
        "BillingAccountName": buyer.name,
        "BillingCurrency": document.currency,
        "BillingPeriodEnd": _utc(document.period.end),
        "BillingPeriodStart": _utc(document.period.start),
        "ChargeFrequency": "Usage-Based",
        "HostProviderName": seller.name,
        "InvoiceId": None if document.kind == "statement" else document.number,
        "InvoiceIssuerName": seller.name,
        "PricingCurrency": document.currency,
        "ProviderName": seller.name,
        "PublisherName": seller.name,
        "ServiceCategory": SERVICE_CATEGORY,
        "ServiceName": "Platform",
        "ServiceProviderName": seller.name,
        "ServiceSubcategory": "Generative AI",
        "Tags": json.dumps(known, ensure_ascii=False) if known else None,
        "x_CatalogVersion": provenance.catalog_version,
        "x_Convention": document.convention,
        "x_DocumentKind": document.kind,
        "x_DocumentState": "draft" if document.number is None else "final",
        "x_LedgerBatch": provenance.ledger_batch,
        "x_LedgerHash": provenance.ledger_hash,
        "x_OrderReference": document.order_reference,
        "x_PrecedingInvoiceId": None if document.preceding is None else document.preceding.number,
        "x_Settlement": document.settlement,
    }


def _of_line(document: BillingDocument, line: DocumentLine) -> dict[str, Value]:
    sign = sign_of(document)
    unit, service = UNITS[line.meter]
    billed = in_money(sign * line.net_cents)
    is_correction = document.kind == "credit_note" or line.month != document.period.month
    start, end = month_bounds(int(line.month[:4]), int(line.month[5:]))
    of_model = line.model_name or line.model
    row: dict[str, Value] = {
        "BilledCost": ZERO if document.kind == "statement" else billed,
        "ChargeClass": "Correction" if is_correction else None,
        "ChargeDescription": f"{', '.join(filter(None, (of_model, line.meter, line.kind)))}, {line.month}",
        "ChargePeriodEnd": _utc(end),
        "ChargePeriodStart": _utc(start),
        "EffectiveCost": ZERO if is_free(document) else billed,
        "InvoiceDetailId": None if document.number is None or document.kind == "statement" else str(line.number),
        "ServiceName": service,
        "x_Model": line.model,
        "x_VatCategory": line.vat.regime,
    }
    if line.kind in {"minimum", "cap"}:
        return row | {"ChargeCategory": "Adjustment", "ContractedCost": billed, "ListCost": billed}
    quantity = _shown(Fraction(sign * line.quantity, line.per), QUANTITY_SCALE)
    price = _shown(Fraction(line.unit_price_nano, 10**PRICE_SCALE), PRICE_SCALE)
    cost = _product(quantity, price)
    sku = f"{line.model or service}/{line.meter}"
    return row | {
        "ChargeCategory": "Usage",
        "ConsumedQuantity": _shown(Fraction(sign * line.used), QUANTITY_SCALE),
        "ConsumedUnit": unit,
        "ContractedCost": cost,
        "ContractedUnitPrice": price,
        "ListCost": cost,
        "ListUnitPrice": price,
        "PricingCategory": "Standard",
        "PricingQuantity": quantity,
        "PricingUnit": _priced_unit(line, unit),
        "SkuId": sku,
        "SkuMeter": line.meter,
        "SkuPriceId": f"{line.price}@{sku}",
        "SubAccountId": line.project,
        "SubAccountName": None if line.project is None else line.project_name or line.project,
    }


def _priced_unit(line: DocumentLine, unit: str) -> str:
    """The specification's form has no number before a unit that is a product, such as byte-hours."""
    if line.per == 1:
        return unit
    return f"{line.per} {unit.replace('B-Hours', 'Byte Hours')}"


def _of_tax(document: BillingDocument, part: VatPart, number: int) -> dict[str, Value]:
    tax = in_money(sign_of(document) * part.vat_cents)
    percent = Decimal(part.category.rate_bp).scaleb(-2)
    return {
        "BilledCost": tax,
        "ChargeCategory": "Tax",
        "ChargeClass": "Correction" if document.kind == "credit_note" else None,
        "ChargeDescription": f"VAT {percent} %",
        "ChargePeriodEnd": _utc(document.period.end),
        "ChargePeriodStart": _utc(document.period.start),
        "ContractedCost": tax,
        "EffectiveCost": tax,
        "InvoiceDetailId": None if document.number is None else f"VAT-{number}",
        "ListCost": tax,
        "x_VatCategory": part.category.regime,
        "x_VatPercent": percent,
    }


def is_free(document: BillingDocument) -> bool:
    """Whether nobody pays for the use: what is prepaid or funded by an envelope has a cost, but is billed elsewhere."""
    return document.kind == "statement" and document.settlement not in {"prepaid", "envelope"}


def in_money(cents: int) -> Decimal:
    """Cents as a cost."""
    return Decimal(cents).scaleb(-2, WIDE)


def _shown(exact: Fraction, scale: int) -> Decimal:
    return _trimmed(Decimal(rounded(exact.numerator * 10**scale, exact.denominator)).scaleb(-scale, WIDE))


def _product(quantity: Decimal, price: Decimal) -> Decimal:
    return _trimmed(WIDE.multiply(quantity, price))


def _trimmed(number: Decimal) -> Decimal:
    """The same number with as few decimals as it takes, but two: readers take one without for an integer."""
    whole, _, decimals = f"{number:f}".partition(".")
    return Decimal(f"{whole}.{decimals.rstrip('0'):0<2}")


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

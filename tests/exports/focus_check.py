"""Our own check of FOCUS's columns: presence, types, null rules and values, as the specification states them.

It reads rows as programs do, from a file. What it can't see (whether an identifier is stable over years, say) isn't
checked; the official validator can be run beside it, see docs/exports.md.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

MANDATORY = {
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost",
    "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ServiceCategory",
    "ServiceName",
}  # fmt: skip
OF_VERSION = {
    "1.2": {"ProviderName", "PublisherName"},
    "1.4": {"ServiceProviderName", "HostProviderName", "InvoiceDetailId", "InvoiceId"},
}
MAY_BE_NULL = {"BillingAccountName", "ChargeClass", "PricingQuantity", "PricingUnit", "ChargeDescription"}
NEVER_NULL = MANDATORY - MAY_BE_NULL | {
    "ProviderName", "PublisherName", "ServiceProviderName", "HostProviderName", "ChargeFrequency", "ServiceSubcategory",
}  # fmt: skip
DECIMALS = {
    "BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "ContractedUnitPrice", "ListUnitPrice",
    "ConsumedQuantity", "PricingQuantity",
}  # fmt: skip
INSTANTS = {"BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart"}
ALLOWED = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {None, "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {None, "Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning"},
    "BillingCurrency": {"EUR", "CHF"},
}
PRICED = ("ContractedUnitPrice", "ListUnitPrice", "PricingCategory", "PricingQuantity", "PricingUnit", "SkuId",
          "SkuPriceId")  # fmt: skip


def complaints(columns: list[str], rows: list[Mapping[str, Any]], version: str) -> list[str]:
    """What is against the specification, in words; nothing when all is well."""
    own = [name for name in columns if name.startswith("x_")]
    found = [f"missing {name}" for name in sorted((MANDATORY | OF_VERSION[version]) - set(columns))]
    if columns[len(columns) - len(own) :] != own:
        found.append("own columns aren't last")
    parents: dict[str, str] = {}
    for number, row in enumerate(rows):
        found += [f"row {number}: {text}" for text in _of_row(row)]
        if row["SkuPriceId"] is not None and parents.setdefault(row["SkuPriceId"], row["SkuId"]) != row["SkuId"]:
            found.append(f"row {number}: SkuPriceId has two SKUs")
    return found


def _of_row(row: Mapping[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        if value is None:
            if name in NEVER_NULL:
                yield f"{name} is null"
        elif name in DECIMALS and not isinstance(value, Decimal):
            yield f"{name} is no decimal"
        elif name in INSTANTS and not (isinstance(value, datetime) and value.utcoffset() is not None):
            yield f"{name} is no instant"
        elif name in ALLOWED and value not in ALLOWED[name]:
            yield f"{name} is {value}"
    yield from _null_rules(row)
    yield from _products(row)


def _null_rules(row: Mapping[str, Any]) -> Iterator[str]:
    category, is_correction = row["ChargeCategory"], row["ChargeClass"] == "Correction"
    for name in PRICED:
        if category == "Tax" and row[name] is not None:
            yield f"{name} of a tax"
        if category == "Usage" and not is_correction and row[name] is None:
            yield f"{name} of usage is null"
    if category != "Usage" and row["ConsumedQuantity"] is not None:
        yield "ConsumedQuantity of no usage"
    if category == "Usage" and not is_correction and row["ConsumedQuantity"] is None:
        yield "ConsumedQuantity of usage is null"
    for quantity, unit in (("ConsumedQuantity", "ConsumedUnit"), ("PricingQuantity", "PricingUnit")):
        if (row[quantity] is None) != (row[unit] is None):
            yield f"{quantity} and {unit}"
    if (row["SubAccountId"] is None) != (row["SubAccountName"] is None):
        yield "SubAccountId and SubAccountName"


def _products(row: Mapping[str, Any]) -> Iterator[str]:
    for price, cost in (("ContractedUnitPrice", "ContractedCost"), ("ListUnitPrice", "ListCost")):
        if row[price] is None:
            continue
        if row[price] < 0:
            yield f"{price} is negative"
        if row["PricingQuantity"] * row[price] != row[cost]:
            yield f"{cost} isn't its product"

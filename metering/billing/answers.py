"""Prices and ratings as they leave: in JSON and on the command line. Amounts are decimal numbers, as text."""

from datetime import UTC, datetime
from typing import Literal

import msgspec

from metering.billing.prices import Tariffs
from metering.billing.rating import Rating
from metering.catalog.documents import PriceBook
from metering.rules.carbon.apportioning import rounded
from metering.rules.periods import PARIS
from metering.rules.rating.lines import LineKind
from metering.rules.rating.meters import PriceMeter, unit_name
from metering.rules.rating.months import AccountLine, Billing, Gap, Reason, Settlement
from metering.rules.rating.prices import ALWAYS, Price, Pricing
from metering.rules.rating.totals import Total, VatCategory, VatPart, VatRegime

NANO_DECIMALS = 9
UNROUNDED_DECIMALS = 12
"""Of amounts before rounding, as they are shown; quantity, unit price and `per` say them exactly."""


class TierShown(msgspec.Struct):
    """Up to so many base units a month, inclusive (null: without end), the price of `per` of them."""

    up_to: int | None
    price: str


class PriceShown(msgspec.Struct):
    """A price: `price` for `per` base units of a meter (`unit` in words), or tiers of it.

    source: a price of the convention goes before those of the book. free: base units of each month that cost nothing.
    """

    source: Literal["convention", "book"]
    selector: str
    meter: PriceMeter
    pricing: Pricing
    price: str | None
    per: int
    unit: str
    tiers: list[TierShown]
    free: int
    minimum: str | None
    cap: str | None
    valid_from: datetime | None
    valid_to: datetime | None


class BookShown(msgspec.Struct):
    """A price book: currency and tax of its prices."""

    id: str
    name: str
    currency: str
    vat: VatRegime
    vat_percent: str | None
    vat_reason: str | None


class PricesShown(msgspec.Struct):
    """What is paid at an instant. book null: no price book is named, and nothing has a price."""

    at: datetime
    tenant: str | None
    convention: str | None
    settlement: Settlement
    billing: Billing
    book: BookShown | None
    items: list[PriceShown]


class LineShown(msgspec.Struct):
    """A rated line: quantity × unit_price ÷ per, in the currency, is `unrounded`; `amount` is it to the cent.

    used: the part of the usage that it is for. project and model are null for a minimum or a cap, which concern the
    month under a price as a whole.
    """

    project: str | None
    model: str | None
    meter: PriceMeter
    price: str
    kind: LineKind
    used: int
    quantity: int
    unit_price: str
    per: int
    unrounded: str
    amount: str
    amount_cents: int
    currency: str
    convention: str | None
    settlement: Settlement
    billing: Billing


class VatShown(msgspec.Struct):
    """Tax on the lines of one category."""

    vat: VatRegime
    vat_percent: str | None
    vat_reason: str | None
    base: str
    amount: str


class TotalShown(msgspec.Struct):
    """Sum of lines: without tax, tax by category, with tax. What is valued and not billed bears none."""

    billing: Billing
    currency: str
    net: str
    vat: list[VatShown]
    gross: str


class GapShown(msgspec.Struct):
    """Usage that has no amount, and why: `amount` of a quantity, or requests."""

    project: str | None
    model: str | None
    operation: str
    reason: Reason
    quantity: str
    amount: int
    convention: str | None
    billing: Billing


class RatingShown(msgspec.Struct):
    """A month of the books, rated. The three numbers say what it follows from: asked for again, they give the same."""

    tenant: str
    month: str
    start: datetime
    end: datetime
    ledger_batch: int
    carbon_batch: int | None
    catalog_version: int
    lines: list[LineShown]
    totals: list[TotalShown]
    unpriced: list[GapShown]


def shown_prices(tariffs: Tariffs, tenant: str | None, at: datetime) -> PricesShown:
    """What an administration pays at an instant; None: what those pay who have no convention."""
    terms = tariffs.terms_of(None) if tenant is None else tariffs.terms_on(tenant, at.astimezone(PARIS).date())
    account = terms.account
    own, book = ([], []) if terms.tariff is None else terms.tariff.in_force(at)
    return PricesShown(
        at=at,
        tenant=tenant,
        convention=account.convention,
        settlement=account.settlement,
        billing=account.billing,
        book=None if account.book is None else shown_book(tariffs.books[account.book]),
        items=[*(shown_price(one, "convention") for one in own), *map(shown_price, book)],
    )


def shown_book(book: PriceBook) -> BookShown:
    """A book as it leaves."""
    category = book.category()
    return BookShown(book.id, book.name, book.currency, book.vat, _percent(category), category.reason)


def shown_price(price: Price, source: Literal["convention", "book"] = "book") -> PriceShown:
    """A price as it leaves."""
    is_tiered = len(price.tiers) > 1 or price.pricing in {"graduated", "volume"}
    return PriceShown(
        source=source,
        selector=price.selector,
        meter=price.meter,
        pricing=price.pricing,
        price=None if is_tiered else money(price.tiers[0].nano),
        per=price.per,
        unit=unit_name(price.meter, price.per),
        tiers=[TierShown(one.up_to, money(one.nano)) for one in price.tiers] if is_tiered else [],
        free=price.free,
        minimum=None if price.minimum_cents is None else in_cents(price.minimum_cents),
        cap=None if price.cap_cents is None else in_cents(price.cap_cents),
        valid_from=None if price.valid_from == ALWAYS else price.valid_from,
        valid_to=price.valid_to,
    )


def shown_rating(rating: Rating) -> RatingShown:
    """A rating as it leaves."""
    return RatingShown(
        tenant=rating.tenant,
        month=rating.period.month,
        start=rating.period.start.astimezone(UTC),
        end=rating.period.end.astimezone(UTC),
        ledger_batch=rating.ledger_batch,
        carbon_batch=rating.carbon_batch,
        catalog_version=rating.catalog_version,
        lines=[_line(one) for one in rating.month.lines],
        totals=[_total(*key, total) for key, total in rating.month.totals().items()],
        unpriced=[_gap(gap, amount) for gap, amount in rating.month.gaps],
    )


def _line(one: AccountLine) -> LineShown:
    account, line = one.account, one.line
    assert account.currency is not None
    exact = line.exact
    unrounded = rounded(exact.numerator * 10**UNROUNDED_DECIMALS, exact.denominator)
    return LineShown(
        project=line.place.project,
        model=line.place.model,
        meter=line.price.meter,
        price=line.price.id,
        kind=line.kind,
        used=line.used,
        quantity=line.quantity,
        unit_price=money(line.nano),
        per=line.per,
        unrounded=_decimal(unrounded, UNROUNDED_DECIMALS),
        amount=in_cents(line.cents),
        amount_cents=line.cents,
        currency=account.currency,
        convention=account.convention,
        settlement=account.settlement,
        billing=account.billing,
    )


def _total(billing: Billing, currency: str, total: Total) -> TotalShown:
    taxed = [_vat(part) for part in total.vat] if billing == "billed" else []
    return TotalShown(billing, currency, in_cents(total.net_cents), taxed, in_cents(total.gross_cents))


def _vat(part: VatPart) -> VatShown:
    category = part.category
    base, tax = in_cents(part.base_cents), in_cents(part.vat_cents)
    return VatShown(category.regime, _percent(category), category.reason, base, tax)


def _percent(category: VatCategory) -> str | None:
    return in_cents(category.rate_bp) if category.regime == "rate" else None


def _gap(gap: Gap, amount: int) -> GapShown:
    place, account = gap.place, gap.account
    return GapShown(
        place.project, place.model, gap.operation, gap.reason, gap.quantity, amount, account.convention, account.billing
    )


def money(nano: int) -> str:
    """10^-9 of a currency as a decimal number, with 2 decimals at least and no more than it takes."""
    text = _decimal(nano, NANO_DECIMALS)
    return text[: max(len(text.rstrip("0")), len(text) - 7)]


def in_cents(cents: int) -> str:
    """Cents as a decimal number with 2 decimals."""
    return _decimal(cents, 2)


def _decimal(units: int, decimals: int) -> str:
    """An integer of 10^-decimals as a decimal number."""
    whole, part = divmod(abs(units), 10**decimals)
    return f"{'-' * (units < 0)}{whole}.{part:0{decimals}d}"

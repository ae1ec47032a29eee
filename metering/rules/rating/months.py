"""A month of an administration's usage, rated: sums by price version first, prices after.

Usage comes as sums between instants at which nothing of prices or conventions changes. What they count for is added up
by price version, project and model, so neither the number of hours nor the order of anything is seen in an amount.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from metering.rules.carbon.apportioning import rounded
from metering.rules.rating.lines import Line, Place, month_lines
from metering.rules.rating.meters import (
    CARBON_UNKNOWN,
    MODELLESS,
    NG_PER_UG,
    PriceMeter,
    Sums,
    metered,
)
from metering.rules.rating.prices import Price, Tariff, Use, unpriced_quantities
from metering.rules.rating.totals import Total, VatCategory, total_of

Settlement = Literal["billed", "prepaid", "envelope", "free"]
"""How a convention is settled; `free` is without one."""
Billing = Literal["billed", "valued"]
Reason = Literal["no_price_book", "unknown_model", "no_price", "uncounted", "unknown_carbon"]


UNTAXED = VatCategory("out_of_scope")
"""Of amounts that nobody is asked to pay."""


class Account(NamedTuple):
    """What lines are told apart by: the convention they fall under, and the book they are priced by."""

    convention: str | None
    settlement: Settlement
    book: str | None
    currency: str | None
    vat: VatCategory | None

    @property
    def billing(self) -> Billing:
        """Whether it is invoiced, or valued only: free access, and what was paid or funded beforehand."""
        return "billed" if self.settlement == "billed" else "valued"


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for an administration from one instant to another. tariff None: no price book is named."""

    account: Account
    tariff: Tariff | None


class Usage(NamedTuple):
    """Sums of a project's use of a model for one operation, under terms and prices as they are at `at`."""

    place: Place
    operation: str
    terms: Terms
    at: datetime
    sums: Sums


class AccountLine(NamedTuple):
    """A line, and the account it is on."""

    account: Account
    line: Line


class Gap(NamedTuple):
    """Usage that has no amount, and why: `quantity` is that of usage by name, or requests."""

    account: Account
    place: Place
    operation: str
    reason: Reason
    quantity: str


@dataclass(frozen=True, slots=True)
class Month:
    """Lines by account, price and place; gaps with how much is missing."""

    lines: tuple[AccountLine, ...]
    gaps: tuple[tuple[Gap, int], ...]

    def totals(self) -> dict[tuple[Billing, str], Total]:
        """Totals of what is billed and of what is valued, by currency. What isn't billed bears no VAT."""
        found: dict[tuple[Billing, str], list[tuple[VatCategory, int]]] = {}
        for one in self.lines:
            account = one.account
            assert account.currency is not None
            assert account.vat is not None
            category = account.vat if account.billing == "billed" else UNTAXED
            found.setdefault((account.billing, account.currency), []).append((category, one.line.cents))
        return {key: total_of(found[key]) for key in sorted(found)}


Names = Mapping[str, tuple[str | None, str | None]]
"""Names that events give to models, to model and category of the catalogue."""

_Sheet = tuple[Account, Price]


def rate_month(usage: Iterable[Usage], names: Names) -> Month:
    """A month's lines and gaps. Splitting the usage, or giving it in another order, changes neither."""
    sheets: defaultdict[_Sheet, defaultdict[Place, int]] = defaultdict(lambda: defaultdict(int))
    gaps: defaultdict[Gap, int] = defaultdict(int)
    for one in usage:
        prices, reason = _prices_of(one, names)
        for meter, price in prices.items():
            if quantity := metered(meter, one.sums, prices):
                sheets[one.terms.account, price][one.place] += quantity
        for gap, quantity in _gaps_of(one, prices, reason):
            gaps[gap] += quantity
    lines = [
        AccountLine(account, line)
        for account, price in sorted(sheets, key=_order)
        for line in month_lines(price, _in_base_units(price, sheets[account, price]))
    ]
    return Month(tuple(lines), tuple(sorted(gaps.items(), key=lambda one: repr(one[0]))))


def _prices_of(one: Usage, names: Names) -> tuple[Mapping[PriceMeter, Price], Reason]:
    """The prices of a use, and why it has none where they leave something out."""
    if one.terms.tariff is None:
        return {}, "no_price_book"
    named = names.get(one.place.model or "")
    if named is None and one.operation not in MODELLESS:
        return {}, "unknown_model"
    return one.terms.tariff.chosen(Use(one.operation, *(named or (None, None))), one.at), "no_price"


def _gaps_of(one: Usage, prices: Mapping[PriceMeter, Price], reason: Reason) -> Iterable[tuple[Gap, int]]:
    def gap(why: Reason, quantity: str) -> Gap:
        return Gap(one.terms.account, one.place, one.operation, why, quantity)

    if uncounted := one.sums["uncounted_requests"]:
        yield gap("uncounted", "requests"), uncounted
    if "carbon_ugco2e" in prices and (unknown := one.sums.get(CARBON_UNKNOWN)):
        yield gap("unknown_carbon", "requests"), unknown
    for name, quantity in unpriced_quantities(one.sums, one.operation, prices).items():
        yield gap(reason, name), quantity


def _in_base_units(price: Price, used: Mapping[Place, int]) -> Mapping[Place, int]:
    """Quantities of a month as the price counts them: carbon was summed in ng."""
    if price.meter != "carbon_ugco2e":
        return used
    return {place: rounded(quantity, NG_PER_UG) for place, quantity in used.items()}


def _order(sheet: _Sheet) -> tuple[str, ...]:
    account, price = sheet
    return account.convention or "", account.settlement, account.book or "", price.selector, price.meter, price.id

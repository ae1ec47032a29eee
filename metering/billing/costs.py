"""What one request costs, about: for limits in euros and for logs, before the month says what is owed.

Indicative: the first price of tiers, no free quantity, no minimum, no cap, no carbon. Integers throughout, so that a
limit is held by multiplying.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import gcd, lcm
from typing import Any

from metering.billing.prices import Tariffs
from metering.rules.carbon.apportioning import rounded_up
from metering.rules.counting import BILLABLE_REQUESTS, Linear
from metering.rules.periods import PARIS
from metering.rules.quantities import EXPECTED, QUANTITIES
from metering.rules.rating.meters import COUNTED_SUMS, MODELLESS, PriceMeter, metered
from metering.rules.rating.prices import Price, Use, unpriced_quantities

_REQUESTS = frozenset({"requests", "embedding_requests"})
_TOKENS = ("input_tokens", "output_tokens")
_ONE_OF_EACH = dict.fromkeys(COUNTED_SUMS, 1) | dict.fromkeys(("requests_error", "requests_refused"), 0)


@dataclass(frozen=True, slots=True)
class CostRates:
    """Indicative prices of one use: a base unit of a meter costs numerator ÷ per, in 10^-9 of the currency."""

    operation: str
    currency: str
    per: int
    numerators: Mapping[PriceMeter, int]

    def cost_nano(self, quantities: Mapping[str, Any]) -> int | None:
        """Cost of a request that used so much, rounded up; None where a quantity that counts is unknown.

        quantities: by name as in events, None or absent where unknown. In EUR, it is in nEUR.
        """
        if any(quantities.get(name) is None for name in EXPECTED[self.operation]):
            return None
        known = {name: quantities.get(name) for name in QUANTITIES}
        return self.nano_of(dict.fromkeys(COUNTED_SUMS) | known | {"requests": 1})

    def nano_of(self, sums: Mapping[str, int | None]) -> int:
        """Cost of what is known of sums (those of `COUNTED_SUMS`), rounded up."""
        amounts = {meter: metered(meter, sums, self.numerators) or 0 for meter in self.numerators}
        return rounded_up(sum(amount * self.numerators[meter] for meter, amount in amounts.items()), self.per)


def linear_cost(rates: CostRates) -> Linear:
    """nEUR of one of each quantity, rounded up; cached input counts as input, less what is saved."""
    found: dict[str, int] = {}
    for meter, numerator in rates.numerators.items():
        names = _TOKENS if meter == "total_tokens" else (BILLABLE_REQUESTS,) if meter in _REQUESTS else (meter,)
        for name in names:
            found[name] = found.get(name, 0) + rounded_up(numerator, rates.per)
    if "cached_input_tokens" in rates.numerators and "input_tokens" in rates.numerators:
        found["cached_input_tokens"] -= found["input_tokens"]
    return found


def cost_rates(tariffs: Tariffs, tenant: str, model: str, operation: str, now: datetime) -> CostRates | None:
    """Indicative prices of a use by an administration; None where something of it has no price: unknown, not 0.

    model: as events name it.
    """
    terms = tariffs.terms_on(tenant, now.astimezone(PARIS).date())
    named = tariffs.names.get(model, (None, None) if operation in MODELLESS else None)
    if terms.tariff is None or terms.account.currency is None or named is None:
        return None
    prices = terms.tariff.chosen(Use(operation, *named), now)
    if unpriced_quantities(_ONE_OF_EACH, operation, prices):
        return None
    counted: dict[PriceMeter, Price] = {meter: price for meter, price in prices.items() if meter != "carbon_ugco2e"}
    per = lcm(*(price.per for price in counted.values()))
    numerators = {meter: price.tiers[0].nano * (per // price.per) for meter, price in counted.items()}
    common = gcd(per, *numerators.values())
    reduced = {meter: numerator // common for meter, numerator in numerators.items()}
    return CostRates(operation, terms.account.currency, per // common, reduced)

"""What a request costs and emits, about: told with the gateway's answers, from the rates that limits are held by."""

from collections.abc import Mapping
from typing import Any

import msgspec

from metering.quotas.places import Met
from metering.rules.counting import (
    BILLABLE_REQUESTS,
    Estimate,
    Linear,
    Rates,
    estimated_quantities,
    in_units,
    is_counted,
    rated,
)


class Estimated(msgspec.Struct):
    """Indicative: the first price of tiers, nothing free, and carbon by the model of what isn't measured.

    null is unknown: no price in EUR, a model without parameters, a quantity that isn't known. Before a request, the
    most that it may come to; after it, what it came to.
    """

    cost_neur: int | None
    carbon_ugco2e: int | None
    carbon_lower_ugco2e: int | None
    carbon_upper_ugco2e: int | None


UNKNOWN = Estimated(None, None, None, None)


def estimated_hold(met: Met, estimate: Estimate, granted_output_tokens: int) -> Estimated:
    """Of a request that may have so much output."""
    quantities = estimated_quantities(estimate, met.request.operation) | {"output_tokens": granted_output_tokens}
    return _estimated(met.rates, quantities)


def estimated_use(rates: Rates, quantities: Mapping[str, int | None], operation: str | None) -> Estimated:
    """Of a request that used so much."""
    if not is_counted(quantities, operation):
        return UNKNOWN
    return _estimated(rates, {BILLABLE_REQUESTS: 1, **quantities})


def _estimated(rates: Rates, quantities: Mapping[Any, Any]) -> Estimated:
    carbon = (rates.carbon, rates.carbon_lower, rates.carbon_upper)
    value, lower, upper = (
        None if one is None else in_units("carbon_ugco2e", _whole(one, quantities)) for one in carbon
    )
    return Estimated(None if rates.cost is None else _whole(rates.cost, quantities), value, lower, upper)


def _whole(rates: Linear, quantities: Mapping[Any, Any]) -> int:
    return max(rated(rates, quantities), 0)

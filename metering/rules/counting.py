"""What a request counts for: amounts by meter, before it from estimates and after it from what was used."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from metering.rules.carbon.apportioning import rounded_up
from metering.rules.limits import EVERYTHING, METERS, Limit, Meter, Request
from metering.rules.quantities import EXPECTED, QUANTITY_MAX
from metering.rules.studies import METER_OPERATION, METER_QUANTITIES

BYTES_PER_TOKEN = 3
"""A prompt of so many bytes is held to be one token: French text has about 4, code and rare scripts down to 3."""

RATED_METERS: tuple[Meter, ...] = ("cost_neur", "carbon_ugco2e")
"""Meters that aren't counted but follow from quantities, by rates."""

COUNTED_PER_UNIT: Mapping[Meter, int] = {"carbon_ugco2e": 1_000}
"""Counters of grams are in ng: a token of input is less than a µg. All others are in the meter's base unit."""

BILLABLE_REQUESTS = "billable_requests"
"""Requests that ran: what prices by request are for."""

UNSAID_QUANTITIES = ("images", "documents", "web_searches")
"""Quantities that no estimate has: of those that its operation is counted by, a request is held to have one."""

METER_NUMBER: Mapping[Meter, int] = {meter: number for number, meter in enumerate(METERS)}
OUTPUT_METERS: frozenset[Meter] = frozenset({"output_tokens", "total_tokens"})


Linear = Mapping[str, int]
"""What one of each quantity counts for, in a counter's unit. Sums of entries then count for what entries do."""


class Rates(NamedTuple):
    """What a use counts for in money (nEUR) and carbon (ng CO2e, estimated, with bounds); None: nobody knows."""

    cost: Linear | None = None
    carbon: Linear | None = None
    carbon_lower: Linear | None = None
    carbon_upper: Linear | None = None

    def of(self, meter: Meter) -> Linear | None:
        """Those of a rated meter."""
        return self.cost if meter == "cost_neur" else self.carbon


UNRATED = Rates()


class Estimate(NamedTuple):
    """What a gateway expects of a request. prompt_bytes stands for prompt_tokens where those aren't counted."""

    prompt_tokens: int | None = None
    prompt_bytes: int | None = None
    max_output_tokens: int = 0
    min_output_tokens: int = 1
    audio_ms: int = 0
    inputs: int = 0
    pages: int = 0
    searches: int = 0

    @property
    def input_tokens(self) -> int:
        """Tokens of the prompt, counted or estimated (rounded up)."""
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        return -(-(self.prompt_bytes or 0) // BYTES_PER_TOKEN)

    @property
    def least_output_tokens(self) -> int:
        """Least output that makes the request worth running."""
        return min(self.min_output_tokens, self.max_output_tokens)


def held_amounts(estimate: Estimate, operation: str | None, rates: Rates | None = None) -> dict[Meter, int]:
    """What is held of each meter, apart from the output; nothing of those that aren't named.

    rates: where rated meters are asked for. Of one whose rates nobody knows 1 is held: what is used up stops that too.
    """
    held: dict[Meter, int] = {
        "requests": 1,
        "concurrent_requests": 1,
        "input_tokens": estimate.input_tokens,
        "total_tokens": estimate.input_tokens,
        "audio_ms": estimate.audio_ms,
        "embedding_requests": int(operation == METER_OPERATION["embedding_requests"]),
        "embedding_inputs": estimate.inputs,
        "pages": estimate.pages,
        "searches": estimate.searches,
    }
    if rates is not None:
        quantities = estimated_quantities(estimate, operation)
        for meter in RATED_METERS:
            linear = rates.of(meter)
            held[meter] = 1 if linear is None else min(rated(linear, quantities), QUANTITY_MAX)
    return held


def per_output(meter: Meter, rates: Rates) -> int:
    """What a token of output counts for in a meter."""
    if meter in OUTPUT_METERS:
        return 1
    return (rates.of(meter) or {}).get("output_tokens", 0) if meter in RATED_METERS else 0


def estimated_quantities(estimate: Estimate, operation: str | None) -> dict[str, int]:
    """Quantities that rates are for of an estimate, apart from the output."""
    expected = EXPECTED.get(operation or "", ())
    return {
        BILLABLE_REQUESTS: 1,
        "input_tokens": estimate.input_tokens,
        "audio_ms": estimate.audio_ms,
        "embedding_inputs": estimate.inputs,
        "pages": estimate.pages,
        "searches": estimate.searches,
        **{name: 1 for name in UNSAID_QUANTITIES if name in expected},
    }


def rated(rates: Linear, quantities: Mapping[Any, Any]) -> int:
    """What quantities count for by rates; what isn't known of them adds nothing."""
    return int(sum(rate * (quantities.get(name) or 0) for name, rate in rates.items()))


def rated_amounts(quantities: Mapping[Any, Any], rates: Rates) -> dict[int, int]:
    """Amounts of rated meters by number of meter; without those of which nobody knows the rates."""
    known = [(meter, linear) for meter in RATED_METERS if (linear := rates.of(meter)) is not None]
    return {METER_NUMBER[meter]: rated(linear, quantities) for meter, linear in known}


def is_counted(quantities: Mapping[Any, Any], operation: str | None) -> bool:
    """Whether all is known by which an operation is counted."""
    return all(quantities.get(name) is not None for name in EXPECTED.get(operation or "", ()))


def in_units(meter: Meter, counted: int) -> int:
    """What a counter has, in the meter's base unit, rounded up."""
    return rounded_up(counted, COUNTED_PER_UNIT.get(meter, 1))


def counted_value(limit: Limit) -> int | None:
    """A limit's value in its counter's unit; numbers of counters end at QUANTITY_MAX."""
    if limit.value is None:
        return None
    return min(limit.value * COUNTED_PER_UNIT.get(limit.meter, 1), QUANTITY_MAX)


def used_amounts(quantities: Mapping[Any, Any], operation: str | None) -> dict[int, int]:
    """Amounts by number of meter of what was used: quantities by name as in events, None or absent where unknown.

    A meter of which nothing is known is absent. A request that is over runs no more: concurrent requests are 0.
    """
    amounts = {METER_NUMBER["concurrent_requests"]: 0}
    for meter, names in METER_QUANTITIES.items():
        known = [value for name in names if (value := quantities.get(name)) is not None]
        if meter in METER_OPERATION and operation != METER_OPERATION[meter]:
            known = [0]
        if known:
            amounts[METER_NUMBER[meter]] = sum(known)
    return amounts


def committed_amounts(quantities: Mapping[Any, Any], operation: str | None, rates: Rates) -> dict[int, int]:
    """Amounts by number of meter of a request that ran; of rated meters where all that they follow from is known."""
    amounts = used_amounts({"requests": 1, **quantities}, operation)
    if is_counted(quantities, operation):
        amounts |= rated_amounts({BILLABLE_REQUESTS: 1, **quantities}, rates)
    return amounts


def field_of(limit: Limit, request: Request) -> str:
    """Name of the counter of a limit for a request; `limit` is one of `limits_for(request, …)`.

    All requests of an administration share the counter of its own scope.
    """
    subject = "" if limit.scope == "tenant" else getattr(request, limit.scope)
    selector = "" if limit.selector == EVERYTHING else limit.selector
    return f"{limit.scope[0]}|{subject}|{selector}|{METER_NUMBER[limit.meter]}|{limit.window[0:2]}"

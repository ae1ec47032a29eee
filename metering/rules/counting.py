"""What a request counts for: amounts by meter, before it from estimates and after it from what was used."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metering.rules.limits import EVERYTHING, METERS, Limit, Meter, Request
from metering.rules.studies import METER_OPERATION, METER_QUANTITIES

BYTES_PER_TOKEN = 3
"""A prompt of so many bytes is held to be one token: French text has about 4, code and rare scripts down to 3."""

UNMEASURED: frozenset[Meter] = frozenset({"cost_neur", "carbon_ugco2e"})
"""Meters that need a price or a measure of energy; their limits aren't held yet."""

METER_NUMBER: Mapping[Meter, int] = {meter: number for number, meter in enumerate(METERS)}
OUTPUT_METERS: frozenset[Meter] = frozenset({"output_tokens", "total_tokens"})


@dataclass(frozen=True, slots=True)
class Estimate:
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


def held_amount(meter: Meter, estimate: Estimate, operation: str | None) -> int:
    """What is held of a meter, apart from the output."""
    amounts: dict[Meter, int] = {
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
    return amounts.get(meter, 0)


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


def field_of(limit: Limit, request: Request) -> str:
    """Name of the counter of a limit for a request; `limit` is one of `limits_for(request, …)`.

    All requests of an administration share the counter of its own scope.
    """
    subject = {"tenant": "", "project": request.project, "user": request.user, "key": request.key}[limit.scope]
    selector = "" if limit.selector == EVERYTHING else limit.selector
    return f"{limit.scope[0]}|{subject}|{selector}|{METER_NUMBER[limit.meter]}|{limit.window[0:2]}"

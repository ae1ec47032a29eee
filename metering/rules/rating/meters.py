"""What prices are for: meters, their base units, and what an hour's sums count for in each of them."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Literal, get_args

from metering.rules.quantities import add

PriceMeter = Literal[
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "total_tokens",
    "audio_ms",
    "embedding_requests",
    "embedding_inputs",
    "requests",
    "pages",
    "images",
    "documents",
    "searches",
    "web_searches",
    "storage_byte_hours",
    "carbon_ugco2e",
]
PRICE_METERS: tuple[PriceMeter, ...] = get_args(PriceMeter)

BASE_UNITS: Mapping[PriceMeter, str] = MappingProxyType(
    {
        "input_tokens": "token",
        "cached_input_tokens": "token",
        "output_tokens": "token",
        "total_tokens": "token",
        "audio_ms": "ms",
        "embedding_requests": "request",
        "embedding_inputs": "input",
        "requests": "request",
        "pages": "page",
        "images": "image",
        "documents": "document",
        "searches": "search",
        "web_searches": "search",
        "storage_byte_hours": "byte-hour",
        "carbon_ugco2e": "µgCO2e",
    }
)
"""What one of a meter is."""

GB_MONTH_BYTE_HOURS = 10**9 * 730
"""A GB-month: 10^9 bytes for a twelfth of 8,760 hours. Months are then as long as each other, and a GB that is kept
for a month of 31 days is 1.019 of them."""

NAMED_UNITS: Mapping[tuple[str, int], str] = MappingProxyType(
    {
        ("ms", 1_000): "s",
        ("ms", 60_000): "min",
        ("ms", 3_600_000): "h",
        ("byte-hour", 10**9): "GB-hour",
        ("byte-hour", GB_MONTH_BYTE_HOURS): "GB-month",
        ("µgCO2e", 10**6): "gCO2e",
        ("µgCO2e", 10**9): "kgCO2e",
        ("µgCO2e", 10**12): "tCO2e",
    }
)
"""Multiples of base units that have a name."""

METER_OPERATIONS: Mapping[PriceMeter, tuple[str, ...]] = MappingProxyType({"embedding_requests": ("embedding",)})
"""Meters that count some operations only."""

ALTERNATIVES: Mapping[PriceMeter, tuple[PriceMeter, ...]] = MappingProxyType(
    {"total_tokens": ("input_tokens", "output_tokens"), "requests": ("embedding_requests",)}
)
"""Meters that count the same twice, whole to parts: of a use, one or the other is billed."""

PARTS_OF_TOKENS: frozenset[PriceMeter] = frozenset({"input_tokens", "cached_input_tokens", "output_tokens"})

COUNTED_SUMS: tuple[str, ...] = (
    "requests",
    "requests_error",
    "requests_refused",
    "uncounted_requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "audio_ms",
    "embedding_inputs",
    "images",
    "pages",
    "documents",
    "searches",
    "web_searches",
    "storage_byte_hours",
)
"""Sums of a rollup that rating reads."""

CARBON_NG = "carbon_ng"
CARBON_UNKNOWN = "carbon_unknown_requests"
"""What the ledger of carbon adds to them: ng CO2e of use by the grid and of making the machines, and the requests of
which that isn't known."""

NG_PER_UG = 1_000

MODELLESS: frozenset[str] = frozenset({"parse", "search", "web_search", "file_ingest", "storage"})
"""Operations that no model of the catalogue need answer: what events name there may be a service."""

Sums = Mapping[str, int | None]


def billable_requests(sums: Sums) -> int | None:
    """Requests that ran: neither refused nor failed. A stream that was broken off has run."""
    requests = sums["requests"]
    if requests is None:
        return None
    return requests - (sums["requests_error"] or 0) - (sums["requests_refused"] or 0)


def metered(meter: PriceMeter, sums: Sums, priced: Collection[PriceMeter]) -> int | None:
    """What sums of one operation, which the meter is for, count for in it; None is unknown.

    priced: the meters by which this use is billed. Where cached input has a price of its own, it isn't input as well.
    `carbon_ugco2e` is counted in ng until a month's sum is known, so that no part of it is rounded.
    """
    if meter in {"requests", "embedding_requests"}:
        return billable_requests(sums)
    if meter == "total_tokens":
        return add(sums["input_tokens"], sums["output_tokens"])
    if meter == "carbon_ugco2e":
        return sums.get(CARBON_NG)
    quantity = sums[meter]
    if meter == "input_tokens" and quantity is not None and "cached_input_tokens" in priced:
        # Events that know their cached part only can leave more of it than of the whole.
        return max(0, quantity - (sums["cached_input_tokens"] or 0))
    return quantity


def unit_name(meter: PriceMeter, per: int) -> str:
    """What a price is for, in words: `1,000,000 tokens`, `min`, `GB-month`."""
    base = BASE_UNITS[meter]
    if (named := NAMED_UNITS.get((base, per))) is not None:
        return named
    if per == 1:
        return base
    plural = {"search": "searches"}.get(base, base if base in {"ms", "µgCO2e"} else f"{base}s")
    return f"{per:,} {plural}"

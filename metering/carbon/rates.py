"""Grams at request time: whole µg CO2e for a million units of each meter, so that an estimate is a few products.

It is what the modelled path says at defaults: concurrency, GPU and length of context are priors, since a request that
hasn't run yet has none. The hourly attribution replaces it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from metering.carbon.fitted import shipped_fit
from metering.carbon.modelled import ANYWHERE, serving_from
from metering.carbon.sites import DEFAULT_SITE
from metering.catalog.documents import Model
from metering.rules.carbon.hardware import LIFETIME_YEARS, LIFETIME_YEARS_MAX, LIFETIME_YEARS_MIN, manufacture
from metering.rules.carbon.impacts import HOST_PRIOR_MW, MILLION, NG_PER_UG, UJ_PER_KWH, embodied_ng
from metering.rules.carbon.modelling import (
    CONCURRENCY_PRIOR_MILLI,
    NJ_PER_UJ,
    PAGE_POSITIONS,
    PAGE_TOKENS,
    SPEECH_TOKENS_PER_WINDOW,
    gpu_time_us,
    token_energies,
)
from metering.rules.carbon.weights import AUDIO_WINDOW_MS, AUDIO_WINDOW_POSITIONS

PER = MILLION
"""Units that a rate is for."""
CONTEXT_TOKENS = 1_000
"""Context that an output token is taken to look back on (stated prior)."""

ESTIMATED_UGCO2E_PER_KWH = 56_039_000
"""Grid that estimates are for: France's mean of 2023, as codecarbon packages it. One number, so that what was estimated
can be worked out again; what is posted by the hour takes the factors of its site and hour."""

_WRITING = frozenset({"chat", "completion", "other"})
_READING = frozenset({"embedding", "rerank", "search"})

Rates = Mapping[str, int]
"""µg CO2e for a million units, by quantity of the ledger; a quantity that saves has a negative one."""


class _Priors(NamedTuple):
    """What is beside the model's energy: draw of the server a GPU (mW), PUE (millionths), service life (years)."""

    host_mw: int
    pue_ppm: int
    lifetime_years: int


_PRIORS = (
    _Priors(HOST_PRIOR_MW.value, DEFAULT_SITE.pue_ppm.value, LIFETIME_YEARS),
    _Priors(HOST_PRIOR_MW.lower, DEFAULT_SITE.pue_ppm.lower, LIFETIME_YEARS_MAX),
    _Priors(HOST_PRIOR_MW.upper, DEFAULT_SITE.pue_ppm.upper, LIFETIME_YEARS_MIN),
)
"""The best guess, and what makes a figure least and most."""


def carbon_rates(model: Model, operation: str, ugco2e_per_kwh: int) -> tuple[Rates, Rates, Rates]:
    """Rates of a model for an operation, use and manufacture together, then their lower and their upper bounds.

    Empty where nothing can be said: an operation that nobody measured, or a model without its parameters. Of the
    grid's factor no bounds are known.
    """
    if not model.parameters:
        return {}, {}, {}
    energies = token_energies(serving_from(model, ANYWHERE), shipped_fit(), CONCURRENCY_PRIOR_MILLI)
    value, lower, upper = (
        {
            name: _ugco2e(nanojoules, energies.draw_mw, ugco2e_per_kwh, priors)
            for name, nanojoules in _per_million_nj(bound, operation).items()
        }
        for bound, priors in zip(energies.by_bound(), _PRIORS, strict=True)
    )
    return value, lower, upper


def _per_million_nj(energies: tuple[int, int, int], operation: str) -> Mapping[str, int]:
    """nJ at the GPU for a million units, by quantity; of energies of output, prefill and context."""
    output, prefill, context = energies
    read = {"input_tokens": PER * prefill, "cached_input_tokens": -PER * prefill}
    if operation in _WRITING:
        return {**read, "output_tokens": PER * (output + CONTEXT_TOKENS * context)}
    if operation in _READING:
        return read
    if operation == "transcription":
        window_nj = AUDIO_WINDOW_POSITIONS * prefill + SPEECH_TOKENS_PER_WINDOW * output
        return {"audio_ms": PER * window_nj // AUDIO_WINDOW_MS}
    if operation == "ocr":
        looks = PAGE_TOKENS * (2 * PAGE_POSITIONS + PAGE_TOKENS) // 2
        return {"pages": PER * (PAGE_POSITIONS * prefill + PAGE_TOKENS * output + looks * context)}
    return {}


def _ugco2e(gpu_nj: int, draw_mw: int, ugco2e_per_kwh: int, priors: _Priors) -> int:
    """Use and manufacture of GPU energy, with its host's and building's, in µg; what is saved is rounded down."""
    gpu_uj = abs(gpu_nj) // NJ_PER_UJ
    gpu_us = gpu_time_us(gpu_uj, draw_mw)
    facility_uj = (gpu_uj + priors.host_mw * gpu_us // 1_000) * priors.pue_ppm // MILLION
    made_ng = embodied_ng(gpu_us, manufacture(priors.lifetime_years))
    emitted = facility_uj * ugco2e_per_kwh // UJ_PER_KWH + made_ng // NG_PER_UG
    return emitted if gpu_nj > 0 else -emitted

"""Energy of requests that no meter saw: what tokens take by a model fitted to measurements and by data sheets.

    E = n_out·e(B) + (n_in − n_cached)·e_prefill + n_out·(n_in + n_out/2)·e_context

e(B), of an output token, is fitted: ln e is linear in ln active parameters, ln weight bytes, ln B and ln GPUs, with
terms for mixtures of experts and the kind of GPU. B is the concurrency of one replica; below 8, the least that was
measured, a step costs the same whoever is in it: e ∝ 1/B. e_prefill and e_context are what κ_p and κ_c of
`metering.rules.carbon.weights` have above their lines: the seconds that a token of prompt takes to compute and a token
of context to read, times what GPUs draw. They don't depend on B.

The fit is of e with the benchmark's own prompts and contexts taken off by the same two terms, so that nothing is
counted twice when they are added for a request.

Logarithms are `decimal`'s, which are correctly rounded: the same digits on every machine, so that what was posted can
be recomputed to the microjoule. A libm promises no such thing. They are taken a few times a deployment and hour;
requests only multiply integers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Final

from metering.rules.carbon.apportioning import rounded, rounded_up
from metering.rules.carbon.impacts import Bounded
from metering.rules.carbon.weights import AUDIO_WINDOW_MS, AUDIO_WINDOW_POSITIONS, TOKENS_MAX, GpuSheet

BILLION = 1_000_000_000
NJ_PER_UJ = 1_000
CONCURRENCY_MIN_MILLI = 8_000
CONCURRENCY_MAX_MILLI = 4_096_000
"""The least and most requests in flight that were measured; above, a token costs no less than there."""
CONCURRENCY_UNIT_MILLI = 64_000
"""What ln B is counted from."""
CONCURRENCY_PRIOR_MILLI = Bounded(16_000, 1_000, 256_000)
"""Of a deployment whose requests in flight aren't known: stated prior. Bounds: one user, a busy server."""
DRAW_PER_MILLE = 700
"""What a busy GPU draws of its power limit: the median of the measured rows is 0.71 (H100) and 0.66 (B200)."""
PREFILL_SPREAD = 2
"""A prompt may take half as much or twice: the part of the FLOP/s that is reached is 25 % to all of them."""
CONTEXT_SPREAD = 3
"""Keys and values of a token differ so much between models of one size (grouped or latent heads, sliding windows)."""
OUTSIDE_PER_LN: Final = Decimal("0.2")
"""How much half a width (ln) grows by ln of the distance to what was measured; stated prior."""
OTHER_GPU_HALF_WIDTH: Final = Decimal("0.2")
"""What a kind of GPU that wasn't measured adds to half a width (ln); stated prior."""
SPARSE_PERCENT_MAX = 90
"""A model of which a token uses less is a mixture of experts."""

SPEECH_TOKENS_PER_WINDOW = 100
"""Tokens that 30 s of speech are written as, where nobody counted them: 150 words a minute (stated prior)."""
PAGE_POSITIONS = 1_500
"""Positions that a page is read as, where nobody counted them: 1.2 million pixels in patches of 28 by 28 (Qwen2.5-VL:
Bai et al. 2025, arXiv:2502.13923, § 2.1)."""
PAGE_TOKENS = 600
"""Tokens that a page is written as, where nobody counted them: 450 words (stated prior)."""

_ARITHMETIC = Context(prec=24, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Serving:
    """A model and what one replica of it runs on.

    gpu_model: its name in the data sheets; None: not known, and the sheet is another's. power_limit_mw: of one GPU.
    """

    active_params: int
    total_params: int
    weight_bytes: int
    kv_bytes_per_token: int
    gpus: int
    gpu_model: str | None
    gpu: GpuSheet
    power_limit_mw: int

    def __post_init__(self) -> None:
        assert 0 < self.active_params <= self.total_params
        assert min(self.weight_bytes, self.kv_bytes_per_token, self.gpus, self.power_limit_mw) > 0

    @property
    def is_sparse(self) -> bool:
        """Whether it is a mixture of experts."""
        return 100 * self.active_params < SPARSE_PERCENT_MAX * self.total_params

    @property
    def draw_mw(self) -> int:
        """What one of its GPUs draws while it works."""
        return self.power_limit_mw * DRAW_PER_MILLE // 1_000


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients of ln(J an output token): see `log_joules`. gpu_models: what measured kinds of GPU add.

    reference: power limit (mW) and memory bandwidth (bytes/s) of the kind of GPU that adds nothing. half_width: of ln,
    so that what was left out of the fit is inside nine times of ten. Domains: least and most of what was measured.
    """

    constant: Decimal
    active_params: Decimal
    weight_bytes: Decimal
    concurrency: Decimal
    dense_gpus: Decimal
    sparse_gpus: Decimal
    sparse: Decimal
    gpu_models: Mapping[str, Decimal]
    reference_milliwatts: int
    reference_bandwidth_bytes: int
    half_width: Decimal
    active_params_domain: tuple[int, int]
    weight_bytes_domain: tuple[int, int]
    gpus_domain: tuple[int, int]

    def __post_init__(self) -> None:
        assert -1 < self.concurrency < 0 < self.active_params
        assert min(self.weight_bytes, self.dense_gpus, self.sparse_gpus, self.half_width) >= 0


@dataclass(frozen=True, slots=True)
class TokenEnergies:
    """What tokens take, in nJ with bounds: one written, one of prompt, and a look back at one of context.

    draw_mw: of a GPU while it works.
    """

    output_nj: Bounded
    prefill_nj: Bounded
    context_nj: Bounded
    draw_mw: int

    def by_bound(self) -> Sequence[tuple[int, int, int]]:
        """Output, prefill and context: the figures, their lower and their upper bounds."""
        kinds = (self.output_nj, self.prefill_nj, self.context_nj)
        output, prefill, context = ((one.value, one.lower, one.upper) for one in kinds)
        return list(zip(output, prefill, context, strict=True))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asked of a model: tokens written, context they look back on, positions read at once."""

    output: int
    context: int
    prefill: int


def asked(operation: str, counts: Mapping[str, int | None]) -> Asked | None:
    """What a request asked by its counts (quantities of the ledger); None if they tell nothing.

    Where they aren't counted, tokens of speech and of pages are stated priors. Nothing is known of images made.
    """
    pages = counts.get("pages") if operation == "ocr" else None
    windows = rounded_up(counts.get("audio_ms") or 0, AUDIO_WINDOW_MS)
    output, context = counts.get("output_tokens"), counts.get("input_tokens")
    if operation == "image" or counts.get("uncounted_requests"):
        return None
    if output is None:
        spoken = SPEECH_TOKENS_PER_WINDOW * windows if operation == "transcription" else 0
        output = PAGE_TOKENS * (pages or 0) + spoken
    if context is None:
        context = PAGE_POSITIONS * (pages or 0)
    fresh = max(context - (counts.get("cached_input_tokens") or 0), 0) + AUDIO_WINDOW_POSITIONS * windows
    if not output and not fresh:
        return None
    return Asked(min(output, TOKENS_MAX), min(context, TOKENS_MAX), min(fresh, TOKENS_MAX))


def request_energy(request: Asked, energies: TokenEnergies) -> Bounded:
    """GPU energy of a request in µJ, at least 1, with bounds."""
    looks = request.output * (2 * request.context + request.output)  # twice n_out·(n_in + n_out/2)
    twice_nj = (
        2 * request.output * of_output + 2 * request.prefill * of_prefill + looks * of_context
        for of_output, of_prefill, of_context in energies.by_bound()
    )
    value, lower, upper = twice_nj
    unit = 2 * NJ_PER_UJ
    return Bounded(max(rounded(value, unit), 1), lower // unit, max(rounded_up(upper, unit), 1))


def gpu_time_us(energy_uj: int, draw_mw: int) -> int:
    """Time of one GPU that so much energy takes at its draw, in µs."""
    return rounded(1_000 * energy_uj, draw_mw)


def token_energies(serving: Serving, fit: Fit, concurrency_milli: Bounded | int) -> TokenEnergies:
    """What tokens take on a replica with so many requests in flight, in thousandths; with bounds, if that has some."""
    if isinstance(concurrency_milli, int):
        concurrency_milli = Bounded(concurrency_milli, concurrency_milli, concurrency_milli)
    with localcontext(_ARITHMETIC):
        half_width = half_width_of(serving, fit)
        few, many = concurrency_milli.lower, concurrency_milli.upper  # the more there are, the less a token takes
        output = Bounded(
            _nanojoules(log_joules(serving, fit, concurrency_milli.value)),
            _nanojoules(log_joules(serving, fit, many) - half_width, ROUND_FLOOR),
            _nanojoules(log_joules(serving, fit, few) + half_width, ROUND_CEILING),
        )
        prefill = _spread(prefill_joules(serving), PREFILL_SPREAD)
        return TokenEnergies(output, prefill, _spread(context_joules(serving), CONTEXT_SPREAD), serving.draw_mw)


def log_joules(serving: Serving, fit: Fit, concurrency_milli: int) -> Decimal:
    """ln of the J that an output token takes, without its prompt's and context's."""
    bounded = min(max(concurrency_milli, CONCURRENCY_MIN_MILLI), CONCURRENCY_MAX_MILLI)
    alone = min(max(concurrency_milli, 1), CONCURRENCY_MIN_MILLI)
    gpus = fit.sparse_gpus if serving.is_sparse else fit.dense_gpus
    terms = (
        fit.constant,
        fit.active_params * _ln(serving.active_params, BILLION),
        fit.weight_bytes * _ln(serving.weight_bytes, BILLION),
        fit.concurrency * _ln(bounded, CONCURRENCY_UNIT_MILLI),
        -_ln(alone, CONCURRENCY_MIN_MILLI),
        gpus * _ln(serving.gpus, 1),
        fit.sparse if serving.is_sparse else Decimal(0),
        gpu_term(serving, fit),
    )
    return sum(terms, Decimal(0))


def gpu_term(serving: Serving, fit: Fit) -> Decimal:
    """What a kind of GPU adds to ln J. One that wasn't measured: half of ln of its draw a byte of memory read.

    Where memory is the limit, energy goes with that draw; from H100 to B200 it hardly did. Half is between.
    """
    measured = fit.gpu_models.get(serving.gpu_model or "")
    return measured if measured is not None else _other_gpu(serving, fit) / 2


def half_width_of(serving: Serving, fit: Fit) -> Decimal:
    """Half a width of ln J: wider outside of what was measured."""
    domains = (
        (serving.active_params, fit.active_params_domain),
        (serving.weight_bytes, fit.weight_bytes_domain),
        (serving.gpus, fit.gpus_domain),
    )
    width = fit.half_width
    for value, (least, most) in domains:
        width += OUTSIDE_PER_LN * (_ln(max(value, most), most) + _ln(least, min(value, least)))
    if serving.gpu_model not in fit.gpu_models:
        width += OTHER_GPU_HALF_WIDTH + abs(_other_gpu(serving, fit)) / 2
    return width


def prefill_joules(serving: Serving) -> Decimal:
    """J of a token of prompt: 2·P_active/(FLOPS·MFU) seconds of a GPU's draw (κ_p's numerator)."""
    return Decimal(2 * serving.active_params * serving.draw_mw) / (serving.gpu.flops * serving.gpu.mfu_per_mille)


def context_joules(serving: Serving) -> Decimal:
    """J of an output token for each token of context: KV bytes/bandwidth seconds of a GPU's draw (κ_c's numerator)."""
    return Decimal(serving.kv_bytes_per_token * serving.draw_mw) / (1_000 * serving.gpu.bandwidth_bytes)


def _other_gpu(serving: Serving, fit: Fit) -> Decimal:
    """ln of a GPU's power limit a byte of memory read, over the reference's."""
    own = serving.power_limit_mw * fit.reference_bandwidth_bytes
    return _ln(own, fit.reference_milliwatts * serving.gpu.bandwidth_bytes)


def _ln(value: int, unit: int) -> Decimal:
    return (Decimal(value) / unit).ln()


def _spread(joules: Decimal, factor: int) -> Bounded:
    """Energy that is known to a factor, in nJ."""
    nanojoules = joules * BILLION
    return Bounded(
        max(int(nanojoules.to_integral_value()), 1),
        int((nanojoules / factor).to_integral_value(ROUND_FLOOR)),
        int((nanojoules * factor).to_integral_value(ROUND_CEILING)),
    )


def _nanojoules(log: Decimal, rounding: str = ROUND_HALF_EVEN) -> int:
    """Whole nJ from ln J, at least 1: nothing takes none."""
    return max(int((log.exp() * BILLION).to_integral_value(rounding)), 1)

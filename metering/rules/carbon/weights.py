"""Weights of requests: the work they asked for, and their part of the time.

Work is counted in output tokens, u = n_out + κ_p·(n_in − n_cached) + κ_c·n_out·(n_in + n_out/2) + κ_s·s: tokens
generated, prompt computed, context looked back on while generating, and what each step takes whoever is in it, which
goes by presence. Prefill is spread evenly over [start, first token] and the rest over [first token, end], or both over
the whole request where the first token's time isn't known. Weights move shares, never totals.

Windows are cut into minutes, and what is in a minute depends on the requests of that minute only. Instants are whole
microseconds, so nothing lasts less than one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from metering.rules.carbon.integration import MINUTE_US

TOKENS_MAX = 2**24
"""Tokens of one request that weigh: 16 million, beyond any model's context; more is an error of whoever counted."""
WORK_MAX = 2**36
"""Most work of one request in a window: 68 million output tokens. So with κ ten times as high, the most its spread can
say, the sum of 2^22 requests is below 2^62."""
PRESENCE_SCALE = 2**24
"""Parts of presence in a microsecond. An hour has less than 2^56."""
AUDIO_WINDOW_MS = 30_000
AUDIO_WINDOW_POSITIONS = 1_500
"""Whisper reads 30 s of audio at a time, padded, as 1,500 positions (Radford et al. 2022, arXiv:2212.04356, § 2.2)."""

PRIOR_SPREAD_PER_MILLE = 2_000
DEFAULT_SPREAD_PER_MILLE = 4_000


@dataclass(frozen=True, slots=True)
class Request:
    """A request as weights see it. identity: settles ties.

    started_us: when the model could begin with it (admission and queue). first_token_us: None is unknown, or there is
    none. Counts: None is unknown. is_counted: what its operation is measured by is known (the ledger's
    `uncounted_requests` is 0).
    """

    identity: bytes
    started_us: int
    ended_us: int
    first_token_us: int | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    audio_ms: int | None = None
    is_counted: bool = True

    @property
    def end_us(self) -> int:
        """End, at least a microsecond after the start."""
        return max(self.ended_us, self.started_us + 1)

    @property
    def is_work_known(self) -> bool:
        """Whether there is a count to tell the work by."""
        counts = (self.input_tokens, self.output_tokens, self.audio_ms)
        return self.is_counted and any(count is not None for count in counts)

    @property
    def phases(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Prefill and decode as [start, end), each at least a microsecond."""
        if self.first_token_us is None:
            whole = (self.started_us, self.end_us)
            return whole, whole
        first = min(max(self.first_token_us, self.started_us), self.end_us)
        return (self.started_us, max(first, self.started_us + 1)), (min(first, self.end_us - 1), self.end_us)


@dataclass(frozen=True, slots=True)
class TokenCosts:
    """What tokens cost in output tokens, at the concurrency at hand.

    prefill_millionths: κ_p, of an input token that no cache had. context_trillionths: κ_c, of each token of context
    that an output token looks back on. spread_per_mille: how far κ may be off, as a factor (2,000: half to twice).
    presence_milli: κ_s, of a second of presence, in thousandths; data sheets tell of none, since a token generated
    stands for the step that it was generated in.
    """

    prefill_millionths: int
    context_trillionths: int
    spread_per_mille: int
    source: Literal["default", "prior", "calibrated"]
    presence_milli: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.prefill_millionths <= 10**7
        assert 0 <= self.context_trillionths <= 10**12
        assert 1_000 <= self.spread_per_mille <= 10_000
        assert 0 <= self.presence_milli <= 10**7


@dataclass(frozen=True, slots=True)
class ModelSheet:
    """A served model: parameters that a token uses, bytes of all its weights, bytes of KV cache a token."""

    active_params: int
    weight_bytes: int
    kv_bytes_per_token: int


@dataclass(frozen=True, slots=True)
class GpuSheet:
    """A GPU's data sheet: dense FLOP/s at the precision served, and bytes/s of its memory.

    mfu_per_mille: part of the FLOP/s that prefill reaches.
    """

    flops: int
    bandwidth_bytes: int
    mfu_per_mille: int = 500


def prior_costs(model: ModelSheet, gpu: GpuSheet, concurrency_milli: int) -> TokenCosts:
    """κ from data sheets at a mean concurrency B, in thousandths of a request in flight.

    A decoding step reads all weights once for B tokens: weight_bytes/bandwidth/B seconds a token. Prefill is bound by
    arithmetic: 2·P_active/(FLOPS·MFU) seconds a token (Kaplan et al. 2020, arXiv:2001.08361, § 2.1; Pope et al. 2022,
    arXiv:2211.05102). Their ratio is κ_p, at most 1: at a large B decoding is bound by arithmetic as well. A token of
    context adds its keys and values to what a step reads: κ_c = KV bytes·B/weight bytes.
    """
    step_flops_milli = concurrency_milli * 2 * model.active_params * gpu.bandwidth_bytes
    prefill = step_flops_milli * 1_000_000 // (gpu.flops * gpu.mfu_per_mille * model.weight_bytes)
    context = model.kv_bytes_per_token * concurrency_milli * 10**9 // model.weight_bytes
    return TokenCosts(min(prefill, 10**6), min(context, 10**12), PRIOR_SPREAD_PER_MILLE, "prior")


USUAL_MODEL, USUAL_GPU = ModelSheet(8 * 10**9, 16 * 10**9, 131_072), GpuSheet(989 * 10**12, 3_350 * 10**9)
"""8 billion parameters in 16 bits, with grouped heads (Llama 3.1 8B), on an H100. Size cancels out of κ."""
USUAL_CONCURRENCY_MILLI = 16_000


def default_costs(concurrency_milli: int) -> TokenCosts:
    """κ where the model or its GPU isn't known."""
    usual = prior_costs(USUAL_MODEL, USUAL_GPU, concurrency_milli)
    return replace(usual, spread_per_mille=DEFAULT_SPREAD_PER_MILLE, source="default")


DEFAULT_COSTS = default_costs(USUAL_CONCURRENCY_MILLI)
"""Where concurrency isn't known either."""

PARTS_PER_SECOND = 1_000_000 * PRESENCE_SCALE


@dataclass(frozen=True, slots=True)
class Work:
    """Work in thousandths of an output token: plain of itself, weighed by κ."""

    plain: int
    weighed: int

    def with_presence(self, part: int, costs: TokenCosts) -> "Work":
        """With what goes by presence (2^-24 µs)."""
        weighed = self.weighed + costs.presence_milli * part // PARTS_PER_SECOND
        return Work(self.plain, min(weighed, WORK_MAX))


def work_within(request: Request, costs: TokenCosts, starts_us: int, ends_us: int) -> Work | None:
    """Work of a request in a window of whole minutes, but what goes by presence; None if what it did isn't known."""
    if not request.is_work_known:
        return None
    output = min(request.output_tokens or 0, TOKENS_MAX)
    context = min(request.input_tokens or 0, TOKENS_MAX)
    prefill, decode = request.phases
    plain = weighed = 0
    for minute in range(starts_us, ends_us, MINUTE_US):
        reading_us, writing_us = _overlap(prefill, minute), _overlap(decode, minute)
        plain += 1_000 * output * writing_us // _length(decode)
        weighed += costs.prefill_millionths * prefilled(request) * reading_us // (1_000 * _length(prefill))
        looked_back = output * (2 * context + output)  # twice n_out·(n_in + n_out/2)
        weighed += costs.context_trillionths * looked_back * writing_us // (2 * 10**9 * _length(decode))
    return Work(min(plain, WORK_MAX), min(weighed, WORK_MAX))


def prefilled(request: Request) -> int:
    """Positions that the model reads at once: prompt without what a cache had, and audio."""
    fresh = max((request.input_tokens or 0) - (request.cached_input_tokens or 0), 0)
    audio = -(-(request.audio_ms or 0) // AUDIO_WINDOW_MS) * AUDIO_WINDOW_POSITIONS
    return min(fresh + audio, TOKENS_MAX)


@dataclass(frozen=True, slots=True)
class Presence:
    """Each request's part of a window's busy time (2^-24 µs), and the busy time: with a request in flight (µs)."""

    parts: tuple[int, ...]
    busy_us: int


def presence(requests: Sequence[Request], starts_us: int, ends_us: int) -> Presence:
    """s_i = ∫ dt/B(t) of each request over a window of whole minutes; B(t): requests in flight."""
    in_flight, busy_us, elapsed, last = 0, 0, 0, starts_us
    shared_until: dict[int, int] = {}
    for at, change in _changes(requests, starts_us, ends_us):
        if in_flight:
            busy_us += at - last
            elapsed += (at - last) * PRESENCE_SCALE // in_flight
        in_flight, last = in_flight + change, at
        shared_until[at] = elapsed
    parts = [
        shared_until[_clip(request.end_us, starts_us, ends_us)]
        - shared_until[_clip(request.started_us, starts_us, ends_us)]
        for request in requests
    ]
    return Presence(tuple(parts), busy_us)


def _changes(requests: Sequence[Request], starts_us: int, ends_us: int) -> list[tuple[int, int]]:
    """(instant, change of requests in flight) in order; minutes change nothing, but cut the time that is rounded."""
    changes = dict.fromkeys(range(starts_us, ends_us + 1, MINUTE_US), 0)
    for request in requests:
        for at, change in ((request.started_us, 1), (request.end_us, -1)):
            clipped = _clip(at, starts_us, ends_us)
            changes[clipped] = changes.get(clipped, 0) + change
    return sorted(changes.items())


def _overlap(phase: tuple[int, int], minute_us: int) -> int:
    return max(min(phase[1], minute_us + MINUTE_US) - max(phase[0], minute_us), 0)


def _length(phase: tuple[int, int]) -> int:
    return phase[1] - phase[0]


def _clip(at_us: int, starts_us: int, ends_us: int) -> int:
    return min(max(at_us, starts_us), ends_us)

"""Requests in flight, in columns: presence and work by request and minute, as `metering.rules.carbon.weights` defines.

All times are µs since the Unix epoch until they are counted from the period's start. Products that don't fit in 64 bits
are taken in 128.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from metering.rules.carbon.integration import MINUTE_US
from metering.rules.carbon.weights import (
    AUDIO_WINDOW_MS,
    AUDIO_WINDOW_POSITIONS,
    DEFAULT_COSTS,
    PRESENCE_SCALE,
    TOKENS_MAX,
    TokenCosts,
)

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Period:
    """Whole minutes, [starts_us, ends_us)."""

    starts_us: int
    ends_us: int

    @property
    def minutes(self) -> int:
        return (self.ends_us - self.starts_us) // MINUTE_US


@dataclass(frozen=True, slots=True)
class Flights:
    """Requests of metered deployments that are in flight in a period. deployment: number of each one's."""

    frame: pl.DataFrame
    deployment: Integers
    started: Integers
    ended: Integers


@dataclass(frozen=True, slots=True)
class Legs:
    """A flight in one minute of it; legs of a flight follow each other.

    flight, minute: their numbers. time_us: in flight. presence, plain, weighed: see `rules.carbon.weights`.
    """

    flight: Integers
    minute: Integers
    time_us: Integers
    presence: Integers
    plain: Integers
    weighed: Integers

    def __getitem__(self, at: Integers | Booleans) -> "Legs":
        return Legs(
            self.flight[at], self.minute[at], self.time_us[at], self.presence[at], self.plain[at], self.weighed[at]
        )

    def by_flight(self) -> "Legs":
        """One leg for each flight, that is all of its legs; its minute is the first."""
        first = np.flatnonzero(np.diff(self.flight, prepend=-1))
        sums = [
            np.add.reduceat(amounts, first) if len(first) else amounts
            for amounts in (self.time_us, self.presence, self.plain, self.weighed)
        ]
        return Legs(self.flight[first], self.minute[first], *sums)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Clocks that run while requests are in flight: of presence, V with dV = dt/B(t), and of busy time.

    at_start, at_end: presence by flight; the others by deployment and edge of a minute. Clocks of presence may have run
    over 64 bits: only differences count, which are below 2^56 for an hour.
    """

    at_start: Integers
    at_end: Integers
    presence_at_edge: Integers
    busy_us_at_edge: Integers


def flights_of(requests: pl.DataFrame, deployments: Sequence[str], period: Period) -> tuple[Flights, Integers]:
    """Flights of requests (REQUESTS_SCHEMA) on some deployments, and the rows they are of."""
    times = requests.select(
        pl.col("deployment").cast(pl.Enum(deployments), strict=False).to_physical().cast(pl.Int64).alias("deployment"),
        pl.col("started_at").to_physical().alias("started"),
        pl.max_horizontal(pl.col("started_at").to_physical() + 1, pl.col("ended_at").to_physical()).alias("ended"),
    )
    inside = pl.col("deployment").is_not_null() & (pl.col("started") < period.ends_us)
    rows = times.select((inside & (pl.col("ended") > period.starts_us)).fill_null(False).arg_true()).to_series()
    times = times[rows]
    return Flights(
        requests[rows], times["deployment"].to_numpy(), times["started"].to_numpy(), times["ended"].to_numpy()
    ), rows.cast(pl.Int64).to_numpy()


def swept(flights: Flights, deployments: int, period: Period) -> Sweep:
    """Run through starts, ends and minutes of all deployments, one after another, in the order of time."""
    stride = period.ends_us - period.starts_us + 1
    base = flights.deployment * stride - period.starts_us
    edges = np.arange(period.starts_us, period.ends_us + 1, MINUTE_US)
    moments = np.concatenate(
        [
            base + np.maximum(flights.started, period.starts_us),
            base + np.minimum(flights.ended, period.ends_us),
            (np.arange(deployments)[:, None] * stride + edges - period.starts_us).ravel(),
        ]
    )
    count = len(base)
    changes = np.zeros(len(moments), dtype=np.int64)
    changes[:count], changes[count : 2 * count] = 1, -1
    order = np.argsort(moments)
    # Where moments are equal their order is any: no time passes between them.
    in_flight = np.cumsum(changes[order])[:-1]
    passed = np.diff(moments[order]) * (in_flight > 0)
    presence, busy = np.zeros_like(moments), np.zeros_like(moments)
    presence[order[1:]] = np.cumsum(passed * PRESENCE_SCALE // np.maximum(in_flight, 1))
    busy[order[1:]] = np.cumsum(passed)
    shape = (deployments, len(edges))
    return Sweep(
        presence[:count], presence[count : 2 * count], presence[2 * count :].reshape(shape),
        busy[2 * count :].reshape(shape),
    )  # fmt: skip


def legs_of(
    flights: Flights, sweep: Sweep, deployments: Sequence[str], costs: Mapping[str, TokenCosts], period: Period
) -> Legs:
    """Flights cut into minutes."""
    first = np.maximum(flights.started - period.starts_us, 0) // MINUTE_US
    last = (np.minimum(flights.ended, period.ends_us) - period.starts_us - 1) // MINUTE_US
    counts = last - first + 1
    flight = np.repeat(np.arange(len(counts)), counts)
    minute = np.arange(len(flight)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    deployment = flights.deployment[flight]
    since = np.where(minute == first[flight], sweep.at_start[flight], sweep.presence_at_edge[deployment, minute])
    until = np.where(minute == last[flight], sweep.at_end[flight], sweep.presence_at_edge[deployment, minute + 1])
    minute_us = period.starts_us + minute * MINUTE_US
    plain, weighed = _work(flights, flight, minute_us, [costs.get(name, DEFAULT_COSTS) for name in deployments])
    time_us = _overlap(flights.started[flight], flights.ended[flight], minute_us)
    return Legs(flight, minute, time_us, until - since, plain, weighed)


def is_work_known(flights: Flights) -> Booleans:
    """Whether there is a count to tell the work by (`Request.is_work_known`)."""
    counts = pl.any_horizontal(pl.col("input_tokens", "output_tokens", "audio_ms").is_not_null())
    return flights.frame.select(counts & (pl.col("uncounted_requests") == 0)).to_series().to_numpy()


def _work(
    flights: Flights, flight: Integers, minute_us: Integers, costs: Sequence[TokenCosts]
) -> tuple[Integers, Integers]:
    """Work by leg in thousandths of an output token: plain and weighed (`weights.work_within`)."""
    counts = _counts(flights, costs)
    prefill_end, decode_start = counts["prefill_end"].to_numpy(), counts["decode_start"].to_numpy()
    legs = counts.select("output", "looked_back", "prefill", "prefill_us", "decode_us")[flight].with_columns(
        pl.Series("reading_us", _overlap(flights.started[flight], prefill_end[flight], minute_us)),
        pl.Series("writing_us", _overlap(decode_start[flight], flights.ended[flight], minute_us)),
    )
    plain = 1_000 * pl.col("output") * pl.col("writing_us") // pl.col("decode_us")
    reading = pl.col("prefill").cast(pl.Int128) * pl.col("reading_us") // (1_000 * pl.col("prefill_us"))
    looking = pl.col("looked_back") * pl.col("writing_us") // (pl.col("decode_us").cast(pl.Int128) * (2 * 10**9))
    worked = legs.select(plain.alias("plain"), (reading + looking).cast(pl.Int64).alias("weighed"))
    return worked["plain"].to_numpy(), worked["weighed"].to_numpy()


def _counts(flights: Flights, costs: Sequence[TokenCosts]) -> pl.DataFrame:
    """By flight: tokens as they weigh, κ applied, and the phases."""
    prefill_costs = np.array([cost.prefill_millionths for cost in costs], dtype=np.int64)[flights.deployment]
    context_costs = np.array([cost.context_trillionths for cost in costs], dtype=np.int64)[flights.deployment]
    output, context = (
        pl.min_horizontal(pl.col(name).fill_null(0), pl.lit(TOKENS_MAX)) for name in ("output_tokens", "input_tokens")
    )
    fresh = pl.max_horizontal(
        pl.col("input_tokens").fill_null(0) - pl.col("cached_input_tokens").fill_null(0), pl.lit(0)
    )
    audio = (pl.col("audio_ms").fill_null(0) + AUDIO_WINDOW_MS - 1) // AUDIO_WINDOW_MS * AUDIO_WINDOW_POSITIONS
    started, ended = pl.col("started"), pl.col("ended")
    first = pl.min_horizontal(pl.max_horizontal(pl.col("first_token_at").to_physical(), started), ended)
    is_cut = pl.col("first_token_at").is_not_null()
    prefill_end = pl.when(is_cut).then(pl.max_horizontal(first, started + 1)).otherwise(ended)
    decode_start = pl.when(is_cut).then(pl.min_horizontal(first, ended - 1)).otherwise(started)
    return flights.frame.with_columns(
        pl.Series("started", flights.started), pl.Series("ended", flights.ended),
        pl.Series("prefill_cost", prefill_costs), pl.Series("context_cost", context_costs),
    ).select(
        output.alias("output"),
        (pl.col("context_cost").cast(pl.Int128) * (output * (2 * context + output))).alias("looked_back"),
        (pl.col("prefill_cost") * pl.min_horizontal(fresh + audio, pl.lit(TOKENS_MAX))).alias("prefill"),
        prefill_end.alias("prefill_end"),
        decode_start.alias("decode_start"),
        (prefill_end - started).alias("prefill_us"),
        (ended - decode_start).alias("decode_us"),
    )  # fmt: skip


def _overlap(starts_us: Integers, ends_us: Integers, minute_us: Integers) -> Integers:
    overlap: Integers = np.minimum(ends_us, minute_us + MINUTE_US) - np.maximum(starts_us, minute_us)
    return np.maximum(overlap, 0)

"""The attribution of an hour, in columns: what `metering.rules.carbon.sharing` defines for one window, for all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from metering.carbon.attribution_flights import (
    Booleans,
    Flights,
    Integers,
    Legs,
    Period,
    flights_of,
    is_work_known,
    legs_of,
    swept,
)
from metering.carbon.attribution_shares import Claims, Parts, Totals, share
from metering.carbon.attribution_windows import NO_DEPLOYMENT, Windows, windows_of
from metering.rules.carbon.integration import MINUTE_US
from metering.rules.carbon.tiers import TIERS
from metering.rules.carbon.weights import DEFAULT_COSTS, TokenCosts

NO_WINDOW = -1
UNKNOWN = TIERS.index("U")

INSTANT = pl.Datetime("us", "UTC")

REQUESTS_SCHEMA: Final[dict[str, pl.DataType]] = {
    "identity": pl.Binary(),
    "deployment": pl.String(),
    "started_at": INSTANT,
    "first_token_at": INSTANT,
    "ended_at": INSTANT,
    "input_tokens": pl.Int64(),
    "cached_input_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
    "audio_ms": pl.Int64(),
    "uncounted_requests": pl.Int16(),
}
"""Requests that were in flight at some time of the hour; more columns do no harm. started_at: admission and queue."""

METER_SCHEMA: Final[dict[str, pl.DataType]] = {
    "gpu": pl.String(),
    "deployment": pl.String(),
    "starts_at": INSTANT,
    "ends_at": INSTANT,
    "covered_us": pl.Int64(),
    "energy_uj": pl.Int64(),
    "lower_uj": pl.Int64(),
    "upper_uj": pl.Int64(),
    "tier": pl.String(),
    "idle_power_mw": pl.Int64(),
}
"""Windows of GPUs (`integration.WindowEnergy`); deployment is null where no model was loaded."""

SHARES_SCHEMA: Final[dict[str, pl.DataType]] = {
    "identity": pl.Binary(),
    "dynamic_uj": pl.Int64(),
    "busy_uj": pl.Int64(),
    "lower_uj": pl.Int64(),
    "upper_uj": pl.Int64(),
    "presence_us": pl.Int64(),
    "missing_us": pl.Int64(),
    "tier": pl.String(),
}
"""One row a request, in the order of the requests. Energies are null where no window's is known; missing_us: time of
the request in the period for which a GPU's energy isn't known at all."""

WINDOWS_SCHEMA: Final[dict[str, pl.DataType]] = {
    "deployment": pl.String(),
    "starts_at": INSTANT,
    "ends_at": INSTANT,
    "gpus": pl.Int64(),
    "requests": pl.Int64(),
    "busy_us": pl.Int64(),
    "energy_uj": pl.Int64(),
    "lower_uj": pl.Int64(),
    "upper_uj": pl.Int64(),
    "dynamic_uj": pl.Int64(),
    "busy_uj": pl.Int64(),
    "idle_uj": pl.Int64(),
    "unallocated_uj": pl.Int64(),
    "tier": pl.String(),
}
"""One row a (deployment, window): energy_uj = dynamic_uj + busy_uj (of requests) + idle_uj + unallocated_uj.

Energies are null where no GPU's is known."""

SPLIT_SCHEMA: Final[dict[str, pl.DataType]] = dict.fromkeys(
    ("dynamic_uj", "busy_uj", "idle_uj", "unallocated_uj"), pl.Int64()
)
"""What METER_SCHEMA is followed by in `Attribution.gpus`."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """What requests answer for (SHARES_SCHEMA), windows by deployment (WINDOWS_SCHEMA), and the rows of the meter in
    their order, each with its split (METER_SCHEMA, then SPLIT_SCHEMA)."""

    shares: pl.DataFrame
    windows: pl.DataFrame
    gpus: pl.DataFrame


def attribute(requests: pl.DataFrame, meter: pl.DataFrame, costs: Mapping[str, TokenCosts]) -> Attribution:
    """Attribute the windows of a meter (METER_SCHEMA) to requests (REQUESTS_SCHEMA, whose identities are unique).

    Every window is shared by itself (`sharing.share_window`), so the requests must be all that meet any of them, and
    how many windows come at once changes nothing. costs: by deployment; DEFAULT_COSTS where there are none.
    """
    deployments = meter["deployment"].drop_nulls().unique().sort().to_list()
    period = _period(meter)
    flights, rows = flights_of(requests, deployments, period)
    sweep = swept(flights, len(deployments), period)
    legs = legs_of(flights, sweep, deployments, costs, period)
    windows = windows_of(meter, deployments, period, sweep)
    tally = _Tally(flights, windows, [costs.get(name, DEFAULT_COSTS) for name in deployments])
    is_missing = _is_missing(windows, len(deployments), period)[flights.deployment[legs.flight], legs.minute]
    tally.miss(legs[is_missing])
    for window, met in _layers(windows, legs, flights.deployment[legs.flight], (len(deployments), period.minutes)):
        tally.add(window, met)
    return Attribution(
        shares=tally.shares(requests["identity"], rows),
        windows=_windows_frame(windows, tally.requests, deployments, period),
        gpus=meter.with_columns(_splits(windows)),
    )


def concurrency_milli(requests: pl.DataFrame, starts_at: datetime, ends_at: datetime) -> dict[str, int]:
    """Mean requests in flight while any was, by deployment, in thousandths, between two whole minutes.

    It is what prior costs of tokens depend on. A deployment without a request then is absent.
    """
    deployments = requests["deployment"].drop_nulls().unique().sort().to_list()
    period = Period(*pl.Series([starts_at, ends_at], dtype=INSTANT).to_physical())
    flights, _rows = flights_of(requests, deployments, period)
    edges = swept(flights, len(deployments), period).busy_us_at_edge
    flown_us = np.zeros(len(deployments), dtype=np.int64)
    within_us = np.minimum(flights.ended, period.ends_us) - np.maximum(flights.started, period.starts_us)
    np.add.at(flown_us, flights.deployment, within_us)
    busy_us = (edges[:, -1] - edges[:, 0]).tolist()
    return {
        name: 1_000 * flown // busy
        for name, flown, busy in zip(deployments, flown_us.tolist(), busy_us, strict=True)
        if busy
    }


def _period(meter: pl.DataFrame) -> Period:
    """From the first window of a meter to its last."""
    if not meter.height:
        return Period(0, 0)
    edges = meter.select(pl.col("starts_at").min().to_physical(), pl.col("ends_at").max().to_physical())
    return Period(*edges.row(0))


def _is_missing(windows: Windows, deployments: int, period: Period) -> Booleans:
    """By deployment and minute: whether no window is there, or one that misses a GPU's energy."""
    is_missing = np.ones((deployments, period.minutes), dtype=np.bool_)
    for wanted in (False, True):  # the ones that miss something have the last word
        for at in np.flatnonzero((windows.is_missing == wanted) & (windows.deployment != NO_DEPLOYMENT)):
            is_missing[windows.deployment[at], windows.first_minute[at] : windows.end_minute[at]] = wanted
    return is_missing


def _layers(
    windows: Windows, legs: Legs, deployment: Integers, shape: tuple[int, int]
) -> Iterator[tuple[Integers, Legs]]:
    """Windows that don't overlap, by leg (NO_WINDOW: none): all minutes at once, then each longer one.

    deployment: by leg. shape: deployments, minutes.
    """
    minutes = np.flatnonzero(windows.is_minute)
    at_minute = np.full(shape, NO_WINDOW)
    at_minute[windows.deployment[minutes], windows.first_minute[minutes]] = minutes
    yield at_minute[deployment, legs.minute], legs
    for number in np.flatnonzero(~windows.is_minute & (windows.deployment != NO_DEPLOYMENT)):
        is_inside = (legs.minute >= windows.first_minute[number]) & (legs.minute < windows.end_minute[number])
        whole = legs[is_inside & (deployment == windows.deployment[number])].by_flight()
        yield np.full(len(whole.flight), number), whole


class _Tally:
    """What windows add to each flight, and how many flights meet each window."""

    def __init__(self, flights: Flights, windows: Windows, costs: Sequence[TokenCosts]) -> None:
        self._windows = windows
        self._spreads = np.array([one.spread_per_mille for one in costs], dtype=np.int64)
        self._presence_costs = np.array([one.presence_milli for one in costs], dtype=np.int64)
        self._identity, self._is_work_known = flights.frame["identity"], is_work_known(flights)
        count = len(flights.deployment)
        self._sums = {name: np.zeros(count, dtype=np.int64) for name in (*Parts.__slots__, "missing_us")}
        self._tier = np.zeros(count, dtype=np.int64)
        self._is_known = np.zeros(count, dtype=np.bool_)
        self.requests = np.zeros(len(windows.deployment), dtype=np.int64)

    def miss(self, legs: Legs) -> None:
        """Note legs for which energy isn't known."""
        np.add.at(self._sums["missing_us"], legs.flight, legs.time_us)
        self._tier[legs.flight] = UNKNOWN

    def add(self, window: Integers, met: Legs) -> None:
        """Share windows (NO_WINDOW: none) among the flights that meet them, each of them once."""
        order = np.argsort(window.astype(_narrowest(len(self.requests))), kind="stable")
        order = order[np.count_nonzero(window == NO_WINDOW) :]
        if not len(order):
            return
        window, met = window[order], met[order]
        first = np.flatnonzero(np.diff(window, prepend=NO_WINDOW))
        numbers = window[first]
        self.requests[numbers] = np.diff(first, append=len(window))
        claims = self._claims(np.repeat(np.arange(len(first)), self.requests[numbers]), first, numbers, met)
        parts = share(claims, self._totals(numbers))
        for name in Parts.__slots__:
            np.add.at(self._sums[name], met.flight, getattr(parts, name))
        np.maximum.at(self._tier, met.flight, self._windows.tier[window])
        self._is_known[met.flight[self._windows.is_known[window]]] = True

    def _claims(self, window: Integers, first: Integers, numbers: Integers, met: Legs) -> Claims:
        return Claims(
            window=window,
            first=first,
            presence=met.presence,
            plain=met.plain,
            weighed=met.weighed,
            is_known=self._is_work_known[met.flight],
            spread_per_mille=self._spreads[self._windows.deployment[numbers]],
            presence_milli=self._presence_costs[self._windows.deployment[numbers]],
            flight=met.flight,
            identity=self._identity,
        )

    def _totals(self, numbers: Integers) -> Totals:
        return Totals(**{name: getattr(self._windows, name)[numbers] for name in Totals.__slots__})

    def shares(self, identity: pl.Series, rows: Integers) -> pl.DataFrame:
        """SHARES_SCHEMA of all requests; rows: of the flights."""
        columns = {name: np.zeros(len(identity), dtype=np.int64) for name in self._sums}
        for name, sums in self._sums.items():
            columns[name][rows] = sums
        tier, is_known = np.full(len(identity), UNKNOWN), np.zeros(len(identity), dtype=np.bool_)
        tier[rows], is_known[rows] = self._tier, self._is_known
        known = pl.Series(is_known)
        return pl.DataFrame({"identity": identity, **columns, "tier": tier}).select(
            pl.when(known).then(name).alias(name) if name in {"dynamic_uj", "busy_uj"} else _tier_named(name)
            for name in SHARES_SCHEMA
        )


def _tier_named(name: str) -> pl.Expr:
    """A column as it is, but that of tiers by their names."""
    tiers = dict(enumerate(TIERS))
    return pl.col(name).replace_strict(tiers, return_dtype=pl.String) if name == "tier" else pl.col(name)


def _narrowest(numbers: int) -> type[np.int16] | type[np.int64]:
    """Kind of integers from -1 to below a bound: NumPy sorts those of 16 bits by radix."""
    return np.int16 if numbers < 2**15 else np.int64


def _windows_frame(windows: Windows, requests: Integers, deployments: Sequence[str], period: Period) -> pl.DataFrame:
    names = [None if at == NO_DEPLOYMENT else deployments[at] for at in windows.deployment]
    energies = ("energy_uj", "dynamic_uj", "busy_uj", "idle_uj", "unallocated_uj")
    frame = pl.DataFrame(
        {
            "deployment": pl.Series(names, dtype=pl.String),
            "starts_at": period.starts_us + windows.first_minute * MINUTE_US,
            "ends_at": period.starts_us + windows.end_minute * MINUTE_US,
            "requests": requests,
            **{name: getattr(windows, name) for name in ("gpus", "busy_us", "lower_uj", "upper_uj", "tier", *energies)},
            "is_known": windows.is_known,
        }
    )
    known = [pl.when("is_known").then(name).alias(name) for name in energies]
    return frame.with_columns(*known, _tier_named("tier")).select(
        pl.col(name).cast(kind) for name, kind in WINDOWS_SCHEMA.items()
    )


def _splits(windows: Windows) -> list[pl.Series]:
    """SPLIT_SCHEMA by row of the meter."""
    return [
        pl.Series(name, [None if one is None else getattr(one, name) for one in windows.splits], dtype=kind)
        for name, kind in SPLIT_SCHEMA.items()
    ]

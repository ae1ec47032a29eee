"""The attribution in columns is the rule, to the microjoule, and loses nothing."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from metering.carbon.attribution import (
    METER_SCHEMA,
    REQUESTS_SCHEMA,
    SHARES_SCHEMA,
    SPLIT_SCHEMA,
    WINDOWS_SCHEMA,
    attribute,
)
from metering.rules.carbon.integration import MINUTE_US, WindowEnergy
from metering.rules.carbon.sharing import Metered, SharedWindow, share_window
from metering.rules.carbon.tiers import worst_tier
from metering.rules.carbon.weights import Request, TokenCosts

HOUR = datetime(2026, 10, 5, 12, tzinfo=UTC)
HOUR_US = int(HOUR.timestamp()) * 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COSTS = {
    "a": TokenCosts(37_000, 4_100_000_000, 2_000, "prior"),
    "b": TokenCosts(500_000, 10**8, 1_500, "calibrated", 4_000_000),
}


def instant(at_us: int | None) -> datetime | None:
    return None if at_us is None else EPOCH + timedelta(microseconds=at_us)


def requests_frame(requests: Sequence[tuple[str | None, Request]]) -> pl.DataFrame:
    """Requests with their deployments as a frame."""
    rows = [
        (
            one.identity, deployment, instant(one.started_us), instant(one.first_token_us), instant(one.ended_us),
            one.input_tokens, one.cached_input_tokens, one.output_tokens, one.audio_ms, int(not one.is_counted),
        )
        for deployment, one in requests
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=REQUESTS_SCHEMA, orient="row")


def meter_frame(meter: Sequence[tuple[str | None, Metered]]) -> pl.DataFrame:
    """Windows of GPUs with their deployments as a frame."""
    rows = [
        (
            one.window.gpu, deployment, instant(one.window.starts_us), instant(one.window.ends_us),
            one.window.covered_us, one.window.energy_uj, one.window.lower_uj, one.window.upper_uj, one.window.tier,
            one.idle_power_mw,
        )
        for deployment, one in meter
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=METER_SCHEMA, orient="row")


def a_window(gpu: str, first: int, minutes: int = 1, energy_uj: int | None = 20_000_000_000, **changes: Any) -> Metered:
    """A GPU's window from a minute of the hour on."""
    known = energy_uj is not None
    fields: dict[str, Any] = {
        "covered_us": minutes * MINUTE_US if known else 0,
        "lower_uj": (energy_uj or 0) * 95 // 100,
        "upper_uj": (energy_uj or 0) * 105 // 100 + (0 if known else 10**9),
        "tier": "A" if known else "U",
        "idle_power_mw": 70_000,
    }
    fields.update(changes)
    idle_power_mw = fields.pop("idle_power_mw")
    starts_us = HOUR_US + first * MINUTE_US
    return Metered(
        WindowEnergy(gpu, starts_us, starts_us + minutes * MINUTE_US, energy_uj=energy_uj, flags=(), **fields),
        idle_power_mw,
    )


MINUTES = 6
tokens = st.none() | st.integers(0, 3) | st.integers(0, 20_000) | st.integers(0, 2**53 - 1)
moments = st.integers(-90_000_000, (MINUTES + 1) * MINUTE_US) | st.integers(-1, MINUTES + 1).map(
    lambda n: n * MINUTE_US
)


@st.composite
def some_requests(draw: st.DrawFn) -> list[tuple[str | None, Request]]:
    """Requests of any kind, many of them alike, on two metered deployments, another, and none."""
    requests = []
    for number in range(draw(st.integers(0, 12))):
        started = HOUR_US + draw(moments)
        length = draw(st.integers(0, 5) | st.integers(0, 200_000_000))
        first = draw(st.none() | st.integers(-5, 5) | st.integers(0, 200_000_000))
        values = draw(st.tuples(tokens, tokens, tokens, st.none() | st.integers(0, 10**7)))
        one = Request(
            (number * 7919 % 13).to_bytes(16), started, started + length, None if first is None else started + first,
            *values, is_counted=draw(st.booleans()),
        )  # fmt: skip
        copies = draw(st.sampled_from([1, 1, 5]))
        deployment = draw(st.sampled_from(["a", "a", "b", "c", None]))
        for copy in range(copies):
            identity = one.identity[:-2] + bytes([copy, one.identity[-1]])
            requests.append((deployment, Request(identity, *_rest(one))))
    return requests


def _rest(one: Request) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in Request.__slots__[1:])


@st.composite
def a_meter(draw: st.DrawFn) -> list[tuple[str | None, Metered]]:
    """Windows of two deployments' GPUs and of one without: minutes, a longer window, some of them unknown or absent."""
    energies = st.none() | st.integers(0, 100) | st.integers(0, 5 * 10**10) | st.integers(0, 2**50)
    meter: list[tuple[str | None, Metered]] = []
    for gpu, deployment in (("g0", "a"), ("g1", "a"), ("g2", "b"), ("g3", None)):
        idle_power_mw = draw(st.none() | st.integers(0, 200_000))
        cuts = sorted({0, MINUTES, *draw(st.sets(st.integers(1, MINUTES - 1)) | st.just(set(range(MINUTES))))})
        for first, end in pairwise(cuts):
            if draw(st.integers(0, 9)):
                covered = draw(st.sampled_from([(end - first) * MINUTE_US, 12_345_678]))
                energy = draw(energies)
                meter.append(
                    (deployment, a_window(gpu, first, end - first, energy, idle_power_mw=idle_power_mw,
                                          covered_us=0 if energy is None else covered))
                )  # fmt: skip
    return meter


def by_rule(
    requests: list[tuple[str | None, Request]], meter: list[tuple[str | None, Metered]]
) -> dict[tuple[str, int, int], SharedWindow]:
    """Windows of deployments, each shared by the rule."""
    windows: dict[tuple[str, int, int], list[Metered]] = {}
    for deployment, one in meter:
        if deployment is not None:
            windows.setdefault((deployment, one.window.starts_us, one.window.ends_us), []).append(one)
    return {
        key: share_window(gpus, [one for name, one in requests if name == key[0]], COSTS[key[0]])
        for key, gpus in windows.items()
    }


@given(some_requests(), a_meter(), st.randoms())
def test_columns_are_the_rule_to_the_microjoule(requests, meter, random):
    expected = by_rule(requests, meter)
    random.shuffle(requests)
    random.shuffle(meter)
    result = attribute(requests_frame(requests), meter_frame(meter), COSTS)
    assert result.shares.schema == SHARES_SCHEMA
    assert result.windows.schema == WINDOWS_SCHEMA
    sums = {one.identity: {"dynamic_uj": None, "busy_uj": None, "lower_uj": 0, "upper_uj": 0, "presence_us": 0}
            for _deployment, one in requests}  # fmt: skip
    tiers = {identity: [] for identity in sums}
    for window in expected.values():
        for share in window.shares:
            tiers[share.identity].append(window.tier)
            for name, sum_ in sums[share.identity].items():
                value = getattr(share, name)
                sums[share.identity][name] = sum_ if value is None else (sum_ or 0) + value
    for row in result.shares.rows(named=True):
        assert {name: row[name] for name in sums[row["identity"]]} == sums[row["identity"]]
        if not row["missing_us"]:
            assert row["tier"] == worst_tier(tiers[row["identity"]])
    for row in result.windows.filter(pl.col("deployment").is_not_null()).rows(named=True):
        starts_us, ends_us = (int((row[name] - EPOCH) / timedelta(microseconds=1)) for name in ("starts_at", "ends_at"))
        window = expected.pop((row["deployment"], starts_us, ends_us))
        for name in ("energy_uj", "lower_uj", "upper_uj", "busy_us", "tier"):
            assert row[name] == getattr(window, name)
        assert row["requests"] == len(window.shares)
        if window.energy_uj is not None:
            assert (row["idle_uj"], row["unallocated_uj"]) == (window.idle_uj, window.unallocated_uj)
    assert not expected


@given(some_requests(), a_meter())
def test_requests_idle_and_unallocated_are_the_meter(requests, meter):
    result = attribute(requests_frame(requests), meter_frame(meter), COSTS)
    metered = sum(one.window.energy_uj or 0 for _deployment, one in meter)
    windows = result.windows
    parts = ["dynamic_uj", "busy_uj", "idle_uj", "unallocated_uj"]
    assert windows["energy_uj"].sum() == metered == sum(windows[name].sum() for name in parts)
    assert windows.filter(pl.sum_horizontal(parts) != pl.col("energy_uj")).is_empty()
    assert result.shares["dynamic_uj"].sum() == windows["dynamic_uj"].sum()
    assert result.shares["busy_uj"].sum() == windows["busy_uj"].sum()
    assert result.shares["presence_us"].sum() == windows["busy_us"].sum()
    for name in SPLIT_SCHEMA:
        assert result.gpus[name].sum() == windows[name].sum()
    assert result.gpus.drop(SPLIT_SCHEMA).equals(meter_frame(meter))
    lower, energy, upper = (result.shares[name].fill_null(0) for name in ("lower_uj", "dynamic_uj", "upper_uj"))
    energy += result.shares["busy_uj"].fill_null(0)
    assert (lower <= energy).all()
    assert (energy <= upper).all()

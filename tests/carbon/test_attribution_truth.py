"""Attribution against a GPU whose truth is known, and from readings to requests without losing a microjoule."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from statistics import fmean

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.carbon.attribution import attribute, concurrency_milli
from metering.carbon.calibration import WORK_SCHEMA, calibrate, work_of
from metering.rules.carbon.integration import (
    HOUR_US,
    MINUTE_US,
    SENSOR_PERCENT,
    WindowEnergy,
    energy_between,
    integrate,
)
from metering.rules.carbon.sharing import Metered
from metering.rules.carbon.splitting import idle_power_mw, mean_power_mw
from metering.rules.carbon.weights import (
    DEFAULT_COSTS,
    USUAL_GPU,
    USUAL_MODEL,
    Request,
    TokenCosts,
    prior_costs,
    work_within,
)
from tests.carbon.test_attribution import instant, meter_frame, requests_frame
from tests.carbon.truth import (
    CONTEXT_TOKEN_NJ,
    IDLE_MW,
    OUTPUT_TOKEN_NJ,
    PROMPT_TOKEN_NJ,
    STEP_US,
    WEIGHTS_NJ,
    Truth,
    arrivals,
    serve,
)
from tests.rules.carbon.telemetry import GPU, NOON_US, Trace
from tests.rules.carbon.test_integration import FAULTS

CALIBRATED = TokenCosts(470_000, 700_000_000, 1_500, "calibrated", 1_100_000)
TOKENS_ONLY = TokenCosts(10**6, 0, 1_000, "default")


def prior_for(requests: pl.DataFrame) -> TokenCosts:
    """Costs from the data sheets of what was served on what, at the concurrency there was."""
    concurrency = concurrency_milli(requests, instant(NOON_US), instant(NOON_US + HOUR_US))
    return prior_costs(USUAL_MODEL, USUAL_GPU, concurrency["a"])


@dataclass(frozen=True, slots=True)
class Served:
    """What happened, and what is told of it: requests and a perfect meter."""

    truth: Truth
    requests: pl.DataFrame
    meter: pl.DataFrame

    def estimate(self, costs: TokenCosts) -> dict[bytes, int]:
        """What attribution makes of what is told (µJ)."""
        shares = attribute(self.requests, self.meter, {"a": costs}).shares
        return {row[0]: row[1] + row[2] for row in shares.select("identity", "dynamic_uj", "busy_uj").iter_rows()}

    def error(self, estimate: Mapping[bytes, int]) -> float:
        """Mean relative error over requests."""
        return fmean(abs(estimate[one] - taken) / taken for one, taken in self.truth.taken_uj.items())


def a_minute(starts_us: int, energy_uj: int) -> Metered:
    lower, upper = energy_uj * (100 - SENSOR_PERCENT) // 100, energy_uj * (100 + SENSOR_PERCENT) // 100 + 1
    return Metered(
        WindowEnergy("GPU-1", starts_us, starts_us + MINUTE_US, MINUTE_US, energy_uj, lower, upper, "A", ()), IDLE_MW
    )


def served(seed: int, minutes: int, per_minute: float) -> Served:
    truth = serve(arrivals(seed, NOON_US, minutes * 60, per_minute), NOON_US, minutes)
    meter = [("a", a_minute(at, energy_nj // 1_000)) for at, energy_nj in sorted(truth.minutes_nj.items())]
    return Served(truth, requests_frame([("a", one) for one in truth.requests]), meter_frame(meter))


def shared_by_minute(told: Served, weight: object) -> dict[bytes, float]:
    """What requests' energy comes to by a simpler rule: each minute's use by weight(request, start of the minute)."""
    use = attribute(told.requests, told.meter, {}).windows.with_columns(pl.col("dynamic_uj") + pl.col("busy_uj"))
    found = dict.fromkeys(told.truth.taken_uj, 0.0)
    for starts_at, energy_uj in use.select(pl.col("starts_at").to_physical(), "dynamic_uj").iter_rows():
        present = [one for one in told.truth.requests
                   if one.started_us < starts_at + MINUTE_US and one.ended_us > starts_at]  # fmt: skip
        weights = [weight(one, starts_at) for one in present]
        for one, part in zip(present, weights, strict=True):
            found[one.identity] += energy_uj * part / (sum(weights) or 1)
    return found


def tokens_in(request: Request, starts_us: int) -> int:
    work = work_within(request, TOKENS_ONLY, starts_us, starts_us + MINUTE_US)
    assert work is not None
    return work.plain + work.weighed


def output_in(request: Request, starts_us: int) -> int:
    work = work_within(request, TOKENS_ONLY, starts_us, starts_us + MINUTE_US)
    assert work is not None
    return work.plain


def time_in(request: Request, starts_us: int) -> int:
    return min(request.ended_us, starts_us + MINUTE_US) - max(request.started_us, starts_us)


@pytest.fixture(scope="module")
def hour() -> Iterator[Served]:
    return served(seed=7, minutes=60, per_minute=20)


@pytest.fixture(scope="module")
def days() -> Iterator[Served]:
    return served(seed=3, minutes=190, per_minute=20)


def errors(hour: Served, calibrated: TokenCosts) -> dict[str, float]:
    return {
        "calibrated": hour.error(hour.estimate(calibrated)),
        "prior": hour.error(hour.estimate(prior_for(hour.requests))),
        "default": hour.error(hour.estimate(DEFAULT_COSTS)),
        "all tokens": hour.error(shared_by_minute(hour, tokens_in)),
        "output tokens": hour.error(shared_by_minute(hour, output_in)),
        "time": hour.error(shared_by_minute(hour, time_in)),
    }


def test_attribution_is_nearer_to_the_truth_than_tokens_or_time_with_and_without_calibration(hour, days):
    found = calibrate(
        work_of(days.requests, attribute(days.requests, days.meter, {}).windows), prior_for(days.requests)
    )
    assert found is not None
    error = errors(hour, found.costs)
    simpler = min(error[name] for name in ("all tokens", "output tokens", "time"))
    assert error["calibrated"] < error["prior"] < simpler
    assert error["default"] < simpler
    assert error["calibrated"] < 0.05


def test_a_calibration_finds_what_tokens_take(days):
    found = calibrate(
        work_of(days.requests, attribute(days.requests, days.meter, {}).windows), prior_for(days.requests)
    )
    assert found is not None
    assert found.costs.prefill_millionths == pytest.approx(10**6 * PROMPT_TOKEN_NJ / OUTPUT_TOKEN_NJ, rel=0.1)
    assert found.costs.context_trillionths == pytest.approx(10**12 * CONTEXT_TOKEN_NJ / OUTPUT_TOKEN_NJ, rel=0.1)
    steps_a_second = 10**6 / STEP_US
    assert found.costs.presence_milli == pytest.approx(1_000 * steps_a_second * WEIGHTS_NJ / OUTPUT_TOKEN_NJ, rel=0.1)
    assert found.error_uj < found.prior_error_uj
    assert found.fitted_minutes > found.checked_minutes > 0


def test_a_prior_that_tells_as_much_is_kept(days):
    work = work_of(days.requests, attribute(days.requests, days.meter, {}).windows)
    exact = work.with_columns(dynamic_uj=pl.col("decode") * 300 + pl.col("prefill") * 30)
    assert calibrate(exact, TokenCosts(100_000, 0, 2_000, "prior")) is None


def test_a_calibration_needs_use_and_costs_of_decoding(days):
    work = work_of(days.requests, attribute(days.requests, days.meter, {}).windows)
    assert calibrate(work.head(100), DEFAULT_COSTS) is None
    assert calibrate(work.with_columns(dynamic_uj=pl.lit(0, pl.Int64)), DEFAULT_COSTS) is None
    assert calibrate(pl.DataFrame(schema=WORK_SCHEMA), DEFAULT_COSTS) is None


def test_minutes_whose_requests_or_energy_arent_known_calibrate_nothing(hour):
    windows = attribute(hour.requests, hour.meter, {}).windows
    assert work_of(hour.requests, windows.with_columns(tier=pl.lit("B"))).is_empty()
    uncounted = hour.requests.with_columns(uncounted_requests=pl.lit(1, pl.Int16))
    assert work_of(uncounted, windows).is_empty()
    assert work_of(hour.requests, windows).schema == WORK_SCHEMA


@pytest.mark.parametrize("per_minute", [0, 0.5, 2, 5])
def test_the_idle_power_hardly_moves_with_the_load(per_minute):
    truth = serve(arrivals(1, NOON_US, 7_200, per_minute) if per_minute else [], NOON_US, 120)
    noise = Random(5)
    powers = []
    for at, energy_nj in truth.minutes_nj.items():
        is_used = any(one.started_us < at + MINUTE_US and one.ended_us > at for one in truth.requests)
        metered = a_minute(at, energy_nj * noise.randrange(990, 1_010) // 1_000_000)
        if not is_used and (power := mean_power_mw(metered.window)) is not None:
            powers.append(power)
    assert idle_power_mw(powers) == pytest.approx(IDLE_MW, rel=0.02)


def test_hours_by_themselves_are_the_same_as_all_at_once(days):
    whole = attribute(days.requests, days.meter, {"a": CALIBRATED})
    sums = dict.fromkeys(days.truth.taken_uj, 0)
    for start in range(NOON_US, NOON_US + 4 * HOUR_US, HOUR_US):
        inside = pl.col("starts_at").is_between(instant(start), instant(start + HOUR_US), closed="left")
        met = (pl.col("started_at") < instant(start + HOUR_US)) & (pl.col("ended_at") > instant(start))
        shares = attribute(days.requests.filter(met), days.meter.filter(inside), {"a": CALIBRATED}).shares
        for identity, dynamic_uj, busy_uj in shares.select("identity", "dynamic_uj", "busy_uj").iter_rows():
            sums[identity] += (dynamic_uj or 0) + (busy_uj or 0)
    assert sums == dict(whole.shares.select("identity", pl.col("dynamic_uj") + pl.col("busy_uj")).iter_rows())


@settings(max_examples=25)
@given(st.sampled_from(sorted(FAULTS)), st.integers(0, 10**6))
def test_from_readings_to_requests_nothing_is_lost_whatever_befell_them(fault, seed):
    trace = Trace(seed, NOON_US - HOUR_US // 4, 3 * 3_600)
    readings = FAULTS[fault][0](trace)
    draw = Random(seed)
    requests = [
        ("a", Request(number.to_bytes(16), (start := NOON_US + draw.randrange(0, 2 * HOUR_US)),
                      start + draw.randrange(0, 10 * MINUTE_US), None, draw.randrange(9_000), 0, draw.randrange(900)))
        for number in range(60)
    ]  # fmt: skip
    posted = 0
    for start in (NOON_US, NOON_US + HOUR_US):
        windows = integrate(GPU, readings, start, start + HOUR_US)
        result = attribute(requests_frame(requests), meter_frame([("a", Metered(one, IDLE_MW)) for one in windows]), {})
        used = result.shares["dynamic_uj"].sum() + result.shares["busy_uj"].sum()
        posted += used + result.windows["idle_uj"].sum() + result.windows["unallocated_uj"].sum()
    assert posted == (energy_between(GPU, readings, NOON_US, NOON_US + 2 * HOUR_US).energy_uj or 0)


def test_concurrency_is_the_mean_in_flight_while_any_is():
    requests = requests_frame([
        ("a", Request(b"1" * 16, NOON_US - MINUTE_US, NOON_US + 10 * MINUTE_US)),
        ("a", Request(b"2" * 16, NOON_US + 5 * MINUTE_US, NOON_US + 10 * MINUTE_US)),
        ("b", Request(b"3" * 16, NOON_US + 59 * MINUTE_US, NOON_US + 90 * MINUTE_US)),
        ("c", Request(b"4" * 16, NOON_US - 5 * MINUTE_US, NOON_US)),
        (None, Request(b"5" * 16, NOON_US, NOON_US + MINUTE_US)),
    ])  # fmt: skip
    found = concurrency_milli(requests, instant(NOON_US), instant(NOON_US + HOUR_US))
    assert found == {"a": 1_500, "b": 1_000}

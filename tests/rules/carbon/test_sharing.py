"""One window to its requests: nothing is lost, order is nothing, and who asks for more answers for more."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.carbon.apportioning import rounded, rounded_up, shared
from metering.rules.carbon.integration import MINUTE_US, WindowEnergy
from metering.rules.carbon.sharing import Metered, Share, SharedWindow, share_window
from metering.rules.carbon.splitting import Split, idle_power_mw, mean_power_mw, split
from metering.rules.carbon.tiers import quality, worst_tier
from metering.rules.carbon.weights import (
    DEFAULT_COSTS,
    PARTS_PER_SECOND,
    PRESENCE_SCALE,
    TOKENS_MAX,
    GpuSheet,
    ModelSheet,
    Request,
    TokenCosts,
    Work,
    default_costs,
    presence,
    prior_costs,
    work_within,
)

SECOND_US = 1_000_000
AT_US = 1_791_201_600 * SECOND_US
COSTS = TokenCosts(50_000, 100_000_000, 2_000, "prior")


def a_request(number: int = 1, starts_s: int = 0, ends_s: int = 10, **changes: Any) -> Request:
    """A request of the minute, in seconds of it."""
    fields: dict[str, Any] = {"input_tokens": 1_000, "output_tokens": 200, "cached_input_tokens": 0}
    return Request(number.to_bytes(16), AT_US + starts_s * SECOND_US, AT_US + ends_s * SECOND_US, **(fields | changes))


def a_window(energy_uj: int | None = 20_000_000_000, idle_power_mw: int | None = 70_000, **changes: Any) -> Metered:
    fields: dict[str, Any] = {
        "gpu": "GPU-1", "starts_us": AT_US, "ends_us": AT_US + MINUTE_US, "covered_us": MINUTE_US,
        "lower_uj": (energy_uj or 0) * 95 // 100, "upper_uj": (energy_uj or 10**9) * 105 // 100, "tier": "A",
        "flags": (),
    }  # fmt: skip
    return Metered(WindowEnergy(energy_uj=energy_uj, **(fields | changes)), idle_power_mw)


def energy_of(share: Share) -> int:
    return (share.dynamic_uj or 0) + (share.busy_uj or 0)


def share_of(window: SharedWindow, request: Request) -> Share:
    return next(share for share in window.shares if share.identity == request.identity)


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**12), min_size=1, max_size=30))
def test_parts_sum_to_the_whole_and_are_off_by_less_than_one(total, weights):
    weights = [*weights, 1]
    parts = shared(total, weights, range(len(weights)))
    assert sum(parts) == total
    whole = sum(weights)
    assert all(abs(part * whole - total * weight) < whole for part, weight in zip(parts, weights, strict=True))


def test_what_rounding_leaves_goes_to_the_lower_key_among_equals():
    assert shared(5, [1, 1, 1], [b"c", b"a", b"b"]) == [1, 2, 2]
    assert shared(1, [1, 2], [b"a", b"b"]) == [0, 1]


def test_quotients_are_rounded_half_up_and_upwards():
    assert [rounded(value, 4) for value in (5, 6, 7)] == [1, 2, 2]
    assert [rounded_up(value, 4) for value in (4, 5)] == [1, 2]


@given(st.integers(0, 10**12), st.none() | st.integers(0, 10**6), st.integers(0, MINUTE_US), st.integers(0, MINUTE_US))
def test_a_split_sums_to_the_energy(energy_uj, idle_mw, covered_us, busy_us):
    parts = split(energy_uj, idle_mw, covered_us=covered_us, window_us=MINUTE_US, busy_us=busy_us)
    assert parts.dynamic_uj + parts.busy_uj + parts.idle_uj + parts.unallocated_uj == energy_uj
    assert min(parts.dynamic_uj, parts.busy_uj, parts.idle_uj, parts.unallocated_uj) >= 0


def test_the_floor_is_split_by_busy_time_and_what_is_above_it_is_work():
    window = {"covered_us": MINUTE_US, "window_us": MINUTE_US}
    assert split(20 * 10**9, 70_000, busy_us=MINUTE_US // 4, **window) == Split(
        15_800_000_000, 1_050_000_000, 3_150_000_000, 0
    )
    assert split(20 * 10**9, 70_000, busy_us=0, **window) == Split(0, 0, 4_200_000_000, 15_800_000_000)
    assert split(3 * 10**9, 70_000, busy_us=0, **window) == Split(0, 0, 3 * 10**9, 0)
    assert split(20 * 10**9, None, busy_us=1, **window) == Split(20 * 10**9, 0, 0, 0)


def test_the_idle_power_is_the_10th_percentile_by_nearest_rank():
    assert idle_power_mw(range(1, 101)) == 10
    assert idle_power_mw([90, 70, 80]) == 70
    assert idle_power_mw([]) is None


def test_only_minutes_that_are_wholly_measured_tell_the_idle_power():
    assert mean_power_mw(a_window(4_200_000_000).window) == 70_000
    assert mean_power_mw(a_window(4_200_000_000, covered_us=MINUTE_US - 1).window) is None
    assert mean_power_mw(a_window(4_200_000_000, tier="B").window) is None
    assert mean_power_mw(a_window(None, covered_us=0).window) is None


def test_work_is_counted_in_output_tokens():
    # 200 + 0.05 · 1,000 + 0.0001 · 200 · (1,000 + 100)
    assert work_within(a_request(), COSTS, AT_US, AT_US + MINUTE_US) == Work(200_000, 50_000 + 22_000)


def test_prefill_is_before_the_first_token_and_the_rest_after():
    request = a_request(starts_s=50, ends_s=90, first_token_us=AT_US + 58 * SECOND_US)
    first = work_within(request, COSTS, AT_US, AT_US + MINUTE_US)
    second = work_within(request, COSTS, AT_US + MINUTE_US, AT_US + 2 * MINUTE_US)
    assert first == Work(200_000 * 2 // 32, 50_000 + 22_000 * 2 // 32)
    assert second == Work(200_000 * 30 // 32, 22_000 * 30 // 32)
    assert work_within(request, COSTS, AT_US, AT_US + 2 * MINUTE_US) == Work(200_000, 50_000 + 22_000)


@pytest.mark.parametrize("first_s", [-5, 0, 5, 10, 15])
def test_work_within_the_request_is_whole_wherever_the_first_token_is_said_to_be(first_s):
    request = a_request(first_token_us=AT_US + first_s * SECOND_US)
    assert work_within(request, COSTS, AT_US, AT_US + MINUTE_US) == Work(200_000, 50_000 + 22_000)


def test_a_request_that_took_no_time_has_its_work_where_it_is():
    request = a_request(starts_s=60, ends_s=60)
    assert work_within(request, COSTS, AT_US, AT_US + MINUTE_US) == Work(0, 0)
    assert work_within(request, COSTS, AT_US + MINUTE_US, AT_US + 2 * MINUTE_US) == Work(200_000, 72_000)


def test_audio_is_read_in_windows_of_30_s():
    silent = a_request(input_tokens=None, cached_input_tokens=None, output_tokens=None, audio_ms=30_001)
    assert work_within(silent, COSTS, AT_US, AT_US + MINUTE_US) == Work(0, 3_000 * 50)


def test_counts_beyond_any_model_weigh_no_more_than_the_largest():
    largest = a_request(input_tokens=TOKENS_MAX, output_tokens=TOKENS_MAX)
    beyond = a_request(input_tokens=2**53 - 1, output_tokens=2**53 - 1)
    assert work_within(beyond, COSTS, AT_US, AT_US + MINUTE_US) == work_within(largest, COSTS, AT_US, AT_US + MINUTE_US)


@pytest.mark.parametrize("changes", [
    {"is_counted": False}, {"input_tokens": None, "output_tokens": None, "cached_input_tokens": None}])  # fmt: skip
def test_work_without_a_count_is_unknown_and_taken_from_the_others(changes):
    counted, uncounted = a_request(1, 0, 20), a_request(2, 20, 40, **changes)
    assert work_within(uncounted, COSTS, AT_US, AT_US + MINUTE_US) is None
    window = share_window([a_window()], [counted, uncounted], COSTS)
    assert energy_of(share_of(window, counted)) == energy_of(share_of(window, uncounted))


def test_presence_is_time_shared_among_those_in_flight():
    requests = [a_request(1, 0, 10), a_request(2, 5, 10), a_request(3, -5, 20), a_request(4, 55, 90)]
    found = presence(requests, AT_US, AT_US + MINUTE_US)
    unit = SECOND_US * PRESENCE_SCALE
    assert found.busy_us == 25 * SECOND_US
    assert found.parts == (
        5 * unit // 2 + 5 * unit // 3, 5 * unit // 3, 5 * unit // 2 + 5 * unit // 3 + 10 * unit, 5 * unit
    )  # fmt: skip


def test_presence_can_weigh_in_work():
    costs = replace(COSTS, presence_milli=3_000_000)
    assert Work(5, 7).with_presence(2 * PARTS_PER_SECOND, costs) == Work(5, 7 + 6_000_000)
    first, second = a_request(1, 0, 10), a_request(2, 20, 50)
    shares = [energy_of(share_of(share_window([a_window()], [first, second], one), second)) for one in (COSTS, costs)]
    assert shares[1] > shares[0]


def test_priors_follow_from_data_sheets():
    model, gpu = ModelSheet(8 * 10**9, 16 * 10**9, 131_072), GpuSheet(989 * 10**12, 3_350 * 10**9)
    costs = prior_costs(model, gpu, 16_000)
    # 16 · (2 · 8e9 / (989e12 · 0.5)) / (16e9 / 3.35e12) and 131,072 · 16 / 16e9
    assert costs == TokenCosts(108_392, 131_072_000, 2_000, "prior")
    assert prior_costs(model, gpu, 10**6).prefill_millionths == 10**6
    assert replace(costs, spread_per_mille=4_000, source="default") == DEFAULT_COSTS == default_costs(16_000)


requests_of_a_window = st.lists(
    st.builds(
        lambda number, start, length, first, counts, is_counted: Request(
            number.to_bytes(16), AT_US + start, AT_US + start + length,
            None if first is None else AT_US + start + first, *counts, is_counted=is_counted,
        ),
        st.integers(1, 10**6), st.integers(-SECOND_US * 90, SECOND_US * 70), st.integers(0, SECOND_US * 90),
        st.none() | st.integers(0, SECOND_US * 90), st.tuples(*[st.none() | st.integers(0, 10**5)] * 4), st.booleans(),
    ),
    max_size=8, unique_by=lambda request: request.identity,
)  # fmt: skip


@given(st.lists(st.none() | st.integers(0, 10**11), min_size=1, max_size=3), requests_of_a_window, st.randoms())
def test_a_window_is_shared_without_loss_whatever_the_order(energies, requests, random):
    gpus = [a_window(energy) for energy in energies]
    window = share_window(gpus, requests, COSTS)
    known = [energy for energy in energies if energy is not None]
    assert window.energy_uj == (sum(known) if known else None)
    assert sum(map(energy_of, window.shares)) + window.idle_uj + window.unallocated_uj == sum(known)
    assert sum(share.presence_us for share in window.shares) == window.busy_us
    assert all(share.lower_uj <= energy_of(share) <= share.upper_uj for share in window.shares)
    random.shuffle(requests)
    random.shuffle(gpus)
    assert share_window(gpus, requests, COSTS) == window


@given(requests_of_a_window, st.integers(1, 10**11), st.integers(500, 2_000))
def test_bounds_hold_whatever_kappa_is_within_its_spread(requests, energy_uj, per_mille):
    window = share_window([a_window(energy_uj)], requests, COSTS)
    other = replace(
        COSTS,
        prefill_millionths=COSTS.prefill_millionths * per_mille // 1_000,
        context_trillionths=COSTS.context_trillionths * per_mille // 1_000,
    )
    counted = [one for one in requests if one.is_work_known]
    if counted == requests:
        for share, same in zip(window.shares, share_window([a_window(energy_uj)], requests, other).shares, strict=True):
            # Weights are whole thousandths of a token, which matter where there are next to none.
            if share.plain + share.weighed > 10**6:
                assert share.lower_uj * 999 // 1_000 <= energy_of(same) <= share.upper_uj * 1_001 // 1_000 + 2


def test_a_long_question_with_a_short_answer_takes_more_than_a_short_one_with_the_same_answer():
    long, short = a_request(1, input_tokens=8_000, output_tokens=50), a_request(2, input_tokens=100, output_tokens=50)
    window = share_window([a_window()], [long, short], COSTS)
    assert energy_of(share_of(window, long)) > 2 * energy_of(share_of(window, short))


def test_a_cached_prefix_takes_less():
    cold, warm = a_request(1, input_tokens=8_000), a_request(2, input_tokens=8_000, cached_input_tokens=6_000)
    window = share_window([a_window()], [cold, warm], COSTS)
    assert energy_of(share_of(window, warm)) < energy_of(share_of(window, cold))


def test_a_window_without_requests_is_idle_up_to_its_floor():
    window = share_window([a_window()], [a_request(starts_s=60, ends_s=70)], COSTS)
    assert (window.idle_uj, window.unallocated_uj, window.shares) == (4_200_000_000, 15_800_000_000, ())


def test_requests_of_a_window_of_unknown_energy_have_none_but_a_bound():
    request = a_request()
    (share,) = share_window([a_window(None, tier="U")], [request], COSTS).shares
    assert (share.dynamic_uj, share.busy_uj, share.lower_uj, share.upper_uj) == (None, None, 0, 1_050_000_000)


def test_tiers_combine_to_the_worst_with_what_each_adds():
    assert worst_tier(["A", "C", "B"]) == "C"
    assert worst_tier([]) == "U"
    found = quality([("A", 5), ("B", 7), ("A", 1), ("D", None)])
    assert found.worst == "U"
    assert found.amounts == {"A": 6, "B": 7}
    assert quality([("A", 5), ("B", 0)]).worst == "B"

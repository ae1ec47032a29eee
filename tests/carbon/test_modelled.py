"""Energy of requests that no meter saw."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, getcontext
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.carbon.fitted import shipped_fit
from metering.carbon.modelled import ANYWHERE, Known, Place, Runs, estimate, known, serving_from
from metering.carbon.rates import carbon_rates
from metering.carbon.serving import bits_of, find_gpu, gpus_for, kv_bytes_of, serving_of
from metering.carbon.sites import DEFAULT_SITE
from metering.carbon.verification import verify_carbon
from metering.catalog.documents import Category, Deployment, Model
from metering.catalog.kinds import KINDS, put
from metering.database import transaction
from metering.rules.carbon.impacts import Bounded
from metering.rules.carbon.modelling import Asked, asked, gpu_time_us, request_energy, token_energies
from metering.rules.counting import rated
from tests.carbon.hours import HOUR, a_factor, a_request, post_all, readings_of, record, sums

FIT = shipped_fit()
COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "audio_ms", "pages")


def a_serving(active_b=24, total_b=None, **changes):
    fields = {
        "total_params": int((total_b or active_b) * 10**9), "active_params": int(active_b * 10**9), "precision": "fp8",
        "kv_bytes_per_token": None, "accelerator": "H100", "accelerators": 1,
    }  # fmt: skip
    return serving_of(**fields | changes)


def a_model(**changes):
    fields = {
        "id": "albert-large", "name": "Albert", "category": "large", "publisher": "P", "licence": "Apache-2.0",
        "parameters": 24 * 10**9, "precision": "fp8",
    }  # fmt: skip
    return Model(**fields | changes)


def joules(serving, concurrency=16_000, **counts):
    done = asked(counts.pop("operation", "chat"), counts)
    return request_energy(done, token_energies(serving, FIT, concurrency))


def frame(*requests):
    """Requests of 30 s in the hour; each a mapping of what differs."""
    rows = [
        {
            "deployment": None, "model": "albert-large", "operation": "chat", "uncounted_requests": 0,
            "started_at": HOUR, "ended_at": HOUR + timedelta(seconds=30), **dict.fromkeys(COUNTS), **request,
        }
        for request in requests
    ]  # fmt: skip
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(COUNTS, pl.Int64()) | {"deployment": pl.String()})


PLACE = Place(None, "albert-large")
KNOWN = Known(token_energies(a_serving(), FIT, 16_000), "C")


def estimates(*requests, hour=HOUR):
    return estimate(frame(*requests), {PLACE: KNOWN}, hour)


# What tokens cost


def test_a_long_prompt_with_a_short_answer_costs_more_than_a_short_one():
    long, short = (joules(a_serving(), input_tokens=count, output_tokens=50) for count in (8_000, 100))
    assert long.value > 1.5 * short.value


def test_a_cached_prefix_costs_less_and_never_less_than_nothing():
    cold, warm, odd = (
        joules(a_serving(), input_tokens=8_000, cached_input_tokens=cached, output_tokens=50).value
        for cached in (None, 7_000, 9_000)
    )
    assert cold > warm > odd > 0


@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
def test_more_tokens_cost_more(name):
    costs = [
        joules(a_serving(), **{"input_tokens": 10, "output_tokens": 10, name: count}).value for count in range(10, 99)
    ]
    assert all(before < after for before, after in pairwise(costs))


def test_a_token_costs_more_in_a_larger_model_in_wider_weights_and_over_more_gpus():
    of = [token_energies(a_serving(size), FIT, 16_000).output_nj.value for size in (1, 3, 8, 32, 70, 405)]
    assert of == sorted(set(of))
    narrow, wide = (token_energies(a_serving(precision=bits), FIT, 16_000).output_nj.value for bits in ("fp8", "bf16"))
    one, eight = (token_energies(a_serving(accelerators=gpus), FIT, 16_000).output_nj.value for gpus in (1, 8))
    assert narrow < wide
    assert one < eight


def test_a_mixture_of_experts_costs_more_than_a_model_of_what_a_token_uses_and_less_than_one_of_its_size():
    small, mixed, large = (
        token_energies(a_serving(*sizes), FIT, 64_000).output_nj.value for sizes in ((3,), (3, 30), (30,))
    )
    assert small < mixed < large


def test_the_more_requests_are_in_flight_the_less_a_token_costs():
    of = [
        token_energies(a_serving(), FIT, milli).output_nj.value
        for milli in (500, 1_000, 8_000, 9_000, 64_000, 4_000_000)
    ]
    assert of == sorted(set(of), reverse=True)


def test_below_eight_requests_a_step_costs_the_same_whoever_is_in_it():
    at_eight = token_energies(a_serving(), FIT, 8_000).output_nj.value
    for requests in (1, 2, 4):
        alone = token_energies(a_serving(), FIT, 1_000 * requests).output_nj.value
        assert alone == pytest.approx(at_eight * 8 / requests, rel=1e-8)


def test_above_what_was_measured_a_token_costs_no_less():
    most, more = (token_energies(a_serving(), FIT, milli).output_nj for milli in (4_096_000, 9_000_000))
    assert most == more


def test_a_prompt_costs_the_same_whatever_is_in_flight():
    few, many = (token_energies(a_serving(), FIT, milli) for milli in (1_000, 500_000))
    assert (few.prefill_nj, few.context_nj) == (many.prefill_nj, many.context_nj)


def test_nothing_is_ever_free():
    tiny = a_serving(0.000001, accelerator="B200", kv_bytes_per_token=1)
    assert min(min(bounds) for bounds in token_energies(tiny, FIT, 10**9).by_bound()) >= 0
    assert joules(tiny, input_tokens=1, output_tokens=0).value == 1


def test_figures_do_not_depend_on_the_arithmetic_of_the_caller():
    expected = token_energies(a_serving(), FIT, 12_345)
    before, getcontext().prec = getcontext().prec, 3
    try:
        assert token_energies(a_serving(), FIT, 12_345) == expected
    finally:
        getcontext().prec = before


def test_figures_are_the_same_to_the_nanojoule_everywhere():
    energies = token_energies(a_serving(), FIT, 12_345)
    assert (energies.output_nj, energies.prefill_nj, energies.context_nj) == (
        Bounded(744_854_123, 400_289_642, 1_386_015_539),
        Bounded(47_563_195, 23_781_597, 95_126_391),
        Bounded(32_239, 10_746, 96_718),
    )


def test_what_a_gpu_is_that_nobody_measured_is_less_sure():
    known_gpu, other, unknown = (
        token_energies(a_serving(accelerator=name), FIT, 16_000) for name in ("H100", "L40S", "X9")
    )

    def width(energies):
        return energies.output_nj.upper / energies.output_nj.lower

    assert width(known_gpu) < width(unknown) < width(other)
    assert known_gpu.output_nj.value < other.output_nj.value  # its memory takes twice as much for a byte
    assert known_gpu.output_nj.value == unknown.output_nj.value


def test_outside_of_what_was_measured_bounds_are_wider():
    inside, outside = (token_energies(a_serving(size), FIT, 16_000).output_nj for size in (24, 405))
    assert outside.upper / outside.value > inside.upper / inside.value


# What a request asked


def test_speech_and_pages_are_counted_by_their_length_where_their_tokens_are_not():
    assert asked("transcription", {"audio_ms": 30_001}) == Asked(200, 0, 3_000)
    assert asked("transcription", {"audio_ms": 30_000, "output_tokens": 7}) == Asked(7, 0, 1_500)
    assert asked("ocr", {"pages": 2}) == Asked(1_200, 3_000, 3_000)
    assert asked("ocr", {"pages": 2, "input_tokens": 90, "output_tokens": 8}) == Asked(8, 90, 90)


def test_embeddings_cost_their_prompt_only():
    energies = token_energies(a_serving(0.568), FIT, 16_000)
    assert request_energy(asked("embedding", {"input_tokens": 1_000}), energies).value == energies.prefill_nj.value


@pytest.mark.parametrize(
    ("operation", "counts"),
    [
        ("chat", {}),
        ("chat", {"input_tokens": 0, "output_tokens": 0}),
        ("chat", {"input_tokens": 7, "uncounted_requests": 1}),
        ("image", {"images": 1, "input_tokens": 5}),
        ("embedding", {"embedding_inputs": 3}),
        ("chat", {"pages": 3}),
    ],
)
def test_a_request_whose_counts_tell_nothing_is_unknown(operation, counts):
    assert asked(operation, counts) is None


# In columns


def a_count(most=10**7):
    return st.one_of(st.none(), st.integers(0, most))


REQUESTS = st.fixed_dictionaries(
    {
        "operation": st.sampled_from(["chat", "embedding", "transcription", "ocr", "image", "other"]),
        "uncounted_requests": st.sampled_from([0, 0, 0, 1]),
        "input_tokens": a_count(2**53 - 1), "cached_input_tokens": a_count(), "output_tokens": a_count(2**53 - 1),
        "audio_ms": a_count(10**9), "pages": a_count(10_000),
    }
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=20))
def test_columns_say_what_the_rule_says(requests):
    for request, row in zip(requests, estimates(*requests).iter_rows(named=True), strict=True):
        done = asked(request["operation"], request)
        if done is None:
            assert row == {"energy_uj": None, "lower_uj": None, "upper_uj": None, "gpu_us": None, "tier": "U"}
            continue
        energy = request_energy(done, KNOWN.energies)
        assert (row["energy_uj"], row["lower_uj"], row["upper_uj"]) == (energy.value, energy.lower, energy.upper)
        assert row["gpu_us"] == gpu_time_us(energy.value, KNOWN.energies.draw_mw)
        assert row["tier"] == "C"
        assert energy.lower <= energy.value <= energy.upper


def test_requests_of_a_model_that_nobody_knows_are_unknown_and_keep_their_order():
    tokens = {"input_tokens": 10, "output_tokens": 10}
    rows = estimates(tokens, {**tokens, "model": "other"}, {**tokens, "model": None}, tokens)
    assert rows["tier"].to_list() == ["C", "U", "U", "C"]
    assert rows["energy_uj"].is_null().to_list() == [False, True, True, False]


def test_parts_of_a_request_in_several_hours_sum_to_it():
    long = {
        "started_at": HOUR - timedelta(minutes=7), "ended_at": HOUR + timedelta(minutes=83, microseconds=1),
        "input_tokens": 1_000, "output_tokens": 333,
    }  # fmt: skip
    parts = [estimates(long, hour=HOUR + timedelta(hours=at))["energy_uj"][0] for at in (-1, 0, 1)]
    assert sum(parts) == request_energy(asked("chat", long), KNOWN.energies).value
    assert parts[1] > parts[2] > parts[0] > 0


def test_a_model_without_its_parameters_is_estimated_by_defaults_with_wide_bounds():
    sure, unsure = known(a_model(), ANYWHERE, 16_000), known(a_model(parameters=None), ANYWHERE, 16_000)
    assert (sure.tier, unsure.tier) == ("C", "D")
    assert unsure.energies.output_nj.upper > 7 * sure.energies.output_nj.upper


def test_without_anything_in_flight_a_default_concurrency_holds_all_others():
    default, alone, busy = (known(a_model(), ANYWHERE, milli) for milli in (None, 1_000, 256_000))
    assert default.tier == "D"
    assert default.energies.output_nj.lower <= busy.energies.output_nj.lower
    assert default.energies.output_nj.upper >= alone.energies.output_nj.upper


def test_concurrency_is_that_of_a_replica():
    two, one = known(a_model(), Runs(2, "H100", 1), 32_000), known(a_model(), Runs(1, "H100", 1), 16_000)
    assert two == one


# From names


def test_kinds_of_gpu_are_found_by_what_people_call_them():
    names = {
        "NVIDIA H100 80GB HBM3": "H100-SXM", "H100 80 Go": "H100-SXM", "NVIDIA H100 PCIe": "H100-PCIe",
        "L40S 48 Go": "L40S",
        "A100 40 Go": "A100-SXM-40GB", "NVIDIA A100 80GB PCIe": "A100-PCIe-80GB", "B200": "B200", "NVIDIA L4": "L4",
        "RTX 4090": None, "H1000": None, "L40": None, "": None, None: None,
    }  # fmt: skip
    found = {name: find_gpu(name) for name in names}
    assert {name: gpu and gpu.id for name, gpu in found.items()} == names


def test_what_a_replica_runs_on_follows_from_what_is_said():
    names = ("bfloat16", "fp8", "float8_e4m3fn", "mxfp4", "w8a8", "unheard-of", None)
    assert [bits_of(name) for name in names] == [16, 8, 8, 4, 8, 16, 16]
    assert [gpus_for(gigabytes * 10**9) for gigabytes in (1, 66, 67, 140, 960)] == [1, 1, 2, 4, 16]
    assert kv_bytes_of(9 * 10**9) == 135_000


# Posted


def catalogue(services, *, deployment=None, **changes):
    with transaction(services.engine) as connection:
        put(connection, KINDS["categories"], Category(id="large", name="Large"))
        put(connection, KINDS["models"], a_model(**changes))
        if deployment is not None:
            put(connection, KINDS["deployments"], Deployment(model="albert-large", starts_at=HOUR, **deployment))


def test_requests_without_a_meter_are_posted_by_the_model(services):
    catalogue(services)
    record(services, [a_request(number, HOUR + timedelta(minutes=number), deployment=None) for number in range(3)])
    a_factor(services, 20_000_000)
    post_all(services)
    posted = sums(services, "tier", "part")
    assert posted.keys() == {("C", "use")}
    requests, gpu_uj, energy_uj, location_ng = posted["C", "use"]
    expected = joules(a_serving(), 1_000, input_tokens=800, output_tokens=200).value  # one at a time
    assert (requests, gpu_uj) == (3, 3 * expected)
    assert energy_uj > gpu_uj
    assert location_ng > 0
    assert verify_carbon(services.engine).clean


def test_a_deployment_that_the_catalogue_knows_tells_its_gpus_and_replicas(services):
    catalogue(services, deployment={"id": "albert-large-0", "accelerator": "B200", "replicas": 2, "accelerators": 4})
    record(services, [a_request(number, HOUR) for number in range(40)])
    post_all(services)
    expected = joules(a_serving(accelerator="B200", accelerators=4), 20_000, input_tokens=800, output_tokens=200).value
    assert sums(services, "tier")["C",][1] == 40 * expected


def test_what_a_meter_saw_is_not_estimated(services):
    catalogue(services)
    record(services, [a_request(1, HOUR)], readings_of(HOUR, 60))
    post_all(services)
    assert ("C",) not in sums(services, "tier")


def test_a_model_without_parameters_is_posted_as_a_default(services):
    catalogue(services, parameters=None)
    record(services, [a_request(1, HOUR, deployment=None)])
    post_all(services)
    assert sums(services, "tier").keys() == {("D",)}


# At request time


def test_an_estimate_at_request_time_grows_with_what_is_asked():
    rates, lower, upper = carbon_rates(a_model(), "chat", 20_000_000)
    short, long = (rated(rates, {"input_tokens": tokens, "output_tokens": 50}) for tokens in (100, 8_000))
    cached = rated(rates, {"input_tokens": 8_000, "cached_input_tokens": 7_000, "output_tokens": 50})
    assert 0 < short < cached < long
    assert all(lower[name] < rates[name] < upper[name] for name in ("input_tokens", "output_tokens"))


def test_rates_follow_from_the_energy_the_host_the_building_the_grid_and_manufacture():
    rates = carbon_rates(a_model(), "embedding", 20_000_000)[0]
    energies = token_energies(serving_from(a_model(), ANYWHERE), FIT, 16_000)
    gpu_j = energies.prefill_nj.value / 1_000  # of a million tokens
    gpu_s = gpu_j / (energies.draw_mw / 1_000)
    used = (gpu_j + 150 * gpu_s) * DEFAULT_SITE.pue_ppm.value / 1_000_000 * 20_000_000 / 3_600_000
    made = gpu_s / 3_600 * (273 + 5_700 / 8) * 10**9 / (3 * 8_760)
    assert rates["input_tokens"] == pytest.approx(used + made, rel=1e-5)


@pytest.mark.parametrize(
    ("operation", "meters"),
    [
        ("chat", {"input_tokens", "cached_input_tokens", "output_tokens"}),
        ("rerank", {"input_tokens", "cached_input_tokens"}),
        ("transcription", {"audio_ms"}),
        ("ocr", {"pages"}),
        ("image", set()),
    ],
)
def test_each_operation_has_rates_for_what_measures_it(operation, meters):
    assert [one.keys() for one in carbon_rates(a_model(), operation, 20_000_000)] == [meters] * 3


def test_what_nothing_can_be_said_of_has_no_rate():
    assert carbon_rates(a_model(parameters=None), "chat", 20_000_000) == ({}, {}, {})


def test_a_fit_whose_signs_are_against_physics_is_refused():
    for changes in ({"concurrency": Decimal(0)}, {"active_params": Decimal(-1)}, {"weight_bytes": Decimal(-1)}):
        with pytest.raises(AssertionError):
            replace(FIT, **changes)

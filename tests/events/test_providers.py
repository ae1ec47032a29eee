"""The provider normaliser: one real-shaped sample per provider, the refusals, and the overlap rules as properties."""

import contextlib
import json
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.events.providers import QUANTITY_MAX, Provider, UnusableUsage, normalise_usage

Usage = dict[str, Any]

OPENAI_CHAT = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 192,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
OPENAI_RESPONSES = {
    "input_tokens": 328,
    "input_tokens_details": {"cached_tokens": 128, "cache_write_tokens": 0},
    "output_tokens": 52,
    "output_tokens_details": {"reasoning_tokens": 40},
    "total_tokens": 380,
}
TRANSCRIPTION_TOKENS = {
    "type": "tokens",
    "input_tokens": 14,
    "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
    "output_tokens": 45,
    "total_tokens": 59,
}
VLLM_CHUNK = {"prompt_tokens": 11, "total_tokens": 14, "completion_tokens": 3, "prompt_tokens_details": None}
VLLM_EMBEDDINGS = {"prompt_tokens": 6, "total_tokens": 6, "completion_tokens": 0, "prompt_tokens_details": None}
MISTRAL_AUDIO = {"prompt_audio_seconds": 203, "prompt_tokens": 4, "total_tokens": 3264, "completion_tokens": 635}
MISTRAL_CHAT = {
    "prompt_tokens": 1013,
    "total_tokens": 1043,
    "completion_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 1008},
}
ANTHROPIC = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 188_086,
    "cache_read_input_tokens": 1_500,
    "cache_creation": {"ephemeral_5m_input_tokens": 188_086, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 393,
    "output_tokens_details": {"thinking_tokens": 120},
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
    "service_tier": "standard",
}
GEMINI = {
    "promptTokenCount": 1050,
    "cachedContentTokenCount": 1000,
    "candidatesTokenCount": 200,
    "thoughtsTokenCount": 150,
    "toolUsePromptTokenCount": 40,
    "totalTokenCount": 1440,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1050}],
}
TEI_HEADERS = {"content-type": "application/json", "x-compute-characters": "52", "x-compute-tokens": "13"}


def tokens(
    input_tokens: int | None, cached: int | None, output_tokens: int | None, reasoning: int | None
) -> dict[str, int | None]:
    return {
        "input_tokens": input_tokens,
        "cached_input_tokens": cached,
        "output_tokens": output_tokens,
        "reasoning_tokens": reasoning,
    }


def without_reasoning(quantities: dict[str, int | None], **more: int | None) -> dict[str, int | None]:
    return {key: value for key, value in quantities.items() if key != "reasoning_tokens"} | more


RECOGNISED = [
    pytest.param(OPENAI_CHAT, Provider.OPENAI_CHAT, tokens(2006, 1920, 300, 192), id="openai chat"),
    pytest.param(
        {"prompt_tokens": 8, "total_tokens": 8}, Provider.OPENAI_EMBEDDINGS, {"input_tokens": 8}, id="embeddings"
    ),
    pytest.param(OPENAI_RESPONSES, Provider.OPENAI_RESPONSES, tokens(328, 128, 52, 40), id="openai responses"),
    pytest.param({"type": "duration", "seconds": 8.47}, Provider.OPENAI_AUDIO, {"audio_ms": 8470}, id="duration"),
    pytest.param(
        TRANSCRIPTION_TOKENS, Provider.OPENAI_AUDIO, {"input_tokens": 14, "output_tokens": 45}, id="audio tokens"
    ),
    pytest.param(VLLM_CHUNK, Provider.VLLM, tokens(11, None, 3, None), id="vllm chunk"),
    pytest.param(VLLM_EMBEDDINGS, Provider.VLLM, tokens(6, None, 0, None), id="vllm embeddings"),
    pytest.param({"type": "duration", "seconds": 8}, Provider.VLLM, {"audio_ms": 8000}, id="vllm transcription"),
    pytest.param(TEI_HEADERS, Provider.TEI, {"input_tokens": 13}, id="tei headers"),
    pytest.param({"X-Compute-Tokens": "0"}, Provider.TEI, {"input_tokens": 0}, id="tei headers, upper case"),
    pytest.param({"prompt_tokens": 512, "total_tokens": 512}, Provider.TEI, {"input_tokens": 512}, id="tei openai"),
    pytest.param(
        MISTRAL_AUDIO,
        Provider.MISTRAL,
        without_reasoning(tokens(4, None, 635, None), audio_ms=203_000),
        id="mistral audio",
    ),
    pytest.param(
        MISTRAL_CHAT | {"prompt_audio_seconds": None},
        Provider.MISTRAL,
        without_reasoning(tokens(1013, 1008, 30, None), audio_ms=None),
        id="mistral chat",
    ),
    pytest.param({"pages_processed": 29, "doc_size_bytes": None}, Provider.MISTRAL, {"pages": 29}, id="mistral ocr"),
    pytest.param(ANTHROPIC, Provider.ANTHROPIC, tokens(189_607, 1_500, 393, 120) | {"web_searches": 2}, id="anthropic"),
    pytest.param(GEMINI, Provider.GEMINI, tokens(1090, 1000, 350, 150), id="gemini"),
]


@pytest.mark.parametrize(("usage", "provider", "expected"), RECOGNISED)
def test_a_sample_means_the_same_with_and_without_its_provider(
    usage: Usage, provider: Provider, expected: dict[str, int | None]
) -> None:
    assert normalise_usage(usage, provider=provider) == expected
    assert normalise_usage(usage) == expected


@pytest.mark.parametrize(("usage", "provider", "expected"), RECOGNISED)
def test_a_field_that_the_provider_adds_tomorrow_is_ignored(
    usage: Usage, provider: Provider, expected: dict[str, int | None]
) -> None:
    assert normalise_usage(usage | {"added_tomorrow": {"text": [True, "?"]}}, provider=provider) == expected


def test_anthropic_without_cache_counts_leaves_cached_unknown() -> None:
    usage = {"input_tokens": 10, "output_tokens": 3, "cache_read_input_tokens": None, "server_tool_use": None}
    expected = tokens(10, None, 3, None) | {"web_searches": None}
    assert normalise_usage(usage) == expected
    assert normalise_usage({"input_tokens": 10, "output_tokens": 3}, provider=Provider.ANTHROPIC) == expected


def test_anthropic_delta_without_its_main_count_leaves_input_unknown() -> None:
    usage = {"output_tokens": 19, "cache_creation_input_tokens": 11, "cache_read_input_tokens": 9}
    assert normalise_usage(usage) == tokens(None, 9, 19, None) | {"web_searches": None}


def test_gemini_leaves_out_zeros_so_thoughts_alone_are_the_output() -> None:
    usage = {"promptTokenCount": 7, "thoughtsTokenCount": 50, "totalTokenCount": 57}
    assert normalise_usage(usage) == tokens(7, None, 50, 50)
    assert normalise_usage({"promptTokenCount": 7, "totalTokenCount": 7}) == tokens(7, None, None, None)
    # Without a total nothing says that there were no candidates, so the output is unknown.
    assert normalise_usage({"promptTokenCount": 7, "thoughtsTokenCount": 50}) == tokens(7, None, None, 50)


def test_a_named_provider_reads_only_its_own_fields() -> None:
    both = OPENAI_CHAT | ANTHROPIC | {"total_tokens": 2306}
    assert normalise_usage(both, provider=Provider.OPENAI_CHAT) == tokens(2006, 1920, 300, 192)
    assert normalise_usage(both, provider=Provider.ANTHROPIC)["input_tokens"] == 189_607


def test_null_details_and_null_counts_are_unknown() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": None, "total_tokens": None, "completion_tokens_details": None}
    assert normalise_usage(usage) == tokens(5, None, None, None)


@pytest.mark.parametrize(
    ("seconds", "audio_ms"),
    [
        (0, 0),
        (0.0001, 1),
        (5e-324, 1),
        (0.1 + 0.2, 301),  # 0.30000000000000004 is what the JSON said
        (1.001, 1001),
        (8.4700003, 8471),
        (12.0, 12_000),
        (Decimal("3.0000000000000000000000000000000000000000000000000001"), 3001),
        (Decimal("1E-999999999"), 1),
        (9_007_199_254_740, 9_007_199_254_740_000),
    ],
)
def test_seconds_become_milliseconds_rounded_up(seconds: float | Decimal, audio_ms: int) -> None:
    assert normalise_usage({"type": "duration", "seconds": seconds}) == {"audio_ms": audio_ms}


REFUSED = [
    ({"prompt_tokens": True}, "boolean", "prompt_tokens"),
    ({"prompt_tokens": "2006"}, "text", "prompt_tokens"),
    ({"prompt_tokens": [2006]}, "not_a_number", "prompt_tokens"),
    ({"prompt_tokens": float("nan")}, "not_a_number", "prompt_tokens"),
    ({"prompt_tokens": float("inf")}, "not_a_number", "prompt_tokens"),
    ({"prompt_tokens": -1}, "negative", "prompt_tokens"),
    ({"prompt_tokens": 2006.5}, "fractional", "prompt_tokens"),
    ({"prompt_tokens": 2**53}, "too_large", "prompt_tokens"),
    ({"prompt_tokens": 10**5000}, "too_large", "prompt_tokens"),
    ({"prompt_tokens": 1e300}, "too_large", "prompt_tokens"),
    ({"total_tokens": -2306}, "negative", "total_tokens"),
    ({"total_tokens": 2307}, "total_mismatch", "total_tokens"),
    ({"total_tokens": 2305}, "total_mismatch", "total_tokens"),
    ({"prompt_tokens_details": {"cached_tokens": 2007}}, "cached_exceeds_input", "cached_input_tokens"),
    ({"prompt_tokens_details": {"cached_tokens": False}}, "boolean", "prompt_tokens_details.cached_tokens"),
    ({"prompt_tokens_details": [1920]}, "not_an_object", "prompt_tokens_details"),
    ({"completion_tokens_details": {"reasoning_tokens": 301}}, "reasoning_exceeds_output", "reasoning_tokens"),
]


@pytest.mark.parametrize(("change", "code", "field"), REFUSED)
def test_a_wrong_count_has_its_own_code(change: Usage, code: str, field: str) -> None:
    with pytest.raises(UnusableUsage) as refusal:
        normalise_usage(OPENAI_CHAT | change)
    assert (refusal.value.code, refusal.value.field) == (code, field)


@pytest.mark.parametrize(
    ("usage", "provider", "code"),
    [
        ({}, None, "unknown_shape"),
        ({"tokens": 5}, None, "unknown_shape"),
        ({"pages_processed": 5}, Provider.ANTHROPIC, "unknown_shape"),
        ({"total_tokens": 5}, Provider.VLLM, "unknown_shape"),
        ({"input_tokens": 5, "output_tokens": 2}, None, "ambiguous_shape"),
        ({"prompt_tokens": 5}, None, "ambiguous_shape"),
        (OPENAI_CHAT | OPENAI_RESPONSES, None, "ambiguous_shape"),
        (OPENAI_CHAT | {"cache_read_input_tokens": 5}, None, "ambiguous_shape"),
        (OPENAI_RESPONSES | {"cache_read_input_tokens": 5}, None, "ambiguous_shape"),
        (MISTRAL_AUDIO | {"pages_processed": 5}, Provider.MISTRAL, "ambiguous_shape"),
        (None, None, "not_an_object"),
        ([5], Provider.VLLM, "not_an_object"),
        (MISTRAL_AUDIO | {"total_tokens": 638}, None, "total_mismatch"),
        (MISTRAL_CHAT | {"total_tokens": 8155, "connector_tokens": 7112}, Provider.MISTRAL, "total_mismatch"),
        (GEMINI | {"totalTokenCount": 1290}, None, "total_mismatch"),
        (ANTHROPIC | {"input_tokens": QUANTITY_MAX}, None, "too_large"),
        ({"x-compute-tokens": "thirteen"}, None, "text"),
        ({"x-compute-tokens": "١٣"}, None, "text"),
        ({"x-compute-tokens": "9" * 5000}, None, "too_large"),
        ({"x-compute-tokens": "9" * 16}, None, "too_large"),
        ({"type": "duration", "seconds": "8"}, None, "text"),
        ({"type": "duration", "seconds": -0.5}, None, "negative"),
        ({"type": "duration", "seconds": 9_007_199_254_741}, None, "too_large"),
        ({"type": "duration", "seconds": Decimal("1E+999999999")}, None, "too_large"),
        ({"type": "duration", "seconds": Decimal("sNaN")}, None, "not_a_number"),
    ],
)
def test_an_object_that_would_need_a_guess_is_refused(usage: Any, provider: Provider | None, code: str) -> None:
    with pytest.raises(UnusableUsage) as refusal:
        normalise_usage(usage, provider=provider)
    assert refusal.value.code == code


# Properties ----------------------------------------------------------------------------------------------------------

counts = st.integers(min_value=0, max_value=10**9)
providers = st.none() | st.sampled_from(Provider)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SAMPLES: list[Usage] = [case.values[0] for case in RECOGNISED]  # type: ignore[misc]
FIELDS = sorted({name for sample in SAMPLES for name in sample})
DETAILS = sorted({name for sample in SAMPLES for value in sample.values() if isinstance(value, dict) for name in value})
plausible = (
    counts | st.none() | json_values | st.dictionaries(st.sampled_from(DETAILS), counts | st.none() | json_values)
)
usage_like = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), plausible, max_size=8)
mutated_samples = st.builds(lambda sample, change: sample | change, st.sampled_from(SAMPLES), usage_like)


def holds_the_rules(quantities: dict[str, int | None]) -> None:
    for value in quantities.values():
        assert value is None or (type(value) is int and 0 <= value <= QUANTITY_MAX)
    for part, whole in (("cached_input_tokens", "input_tokens"), ("reasoning_tokens", "output_tokens")):
        part_count, whole_count = quantities.get(part), quantities.get(whole)
        assert part_count is None or whole_count is None or part_count <= whole_count


@given(usage_like | mutated_samples, providers)
def test_any_json_object_is_normalised_within_the_rules_or_refused(usage: Usage, provider: Provider | None) -> None:
    before = json.dumps(usage)
    with contextlib.suppress(UnusableUsage):
        holds_the_rules(normalise_usage(usage, provider=provider))
    assert json.dumps(usage) == before, "the caller's object is never changed"


@given(st.dictionaries(st.text(), json_values), providers)
def test_an_arbitrary_json_object_raises_nothing_else(usage: Usage, provider: Provider | None) -> None:
    with contextlib.suppress(UnusableUsage):
        holds_the_rules(normalise_usage(usage, provider=provider))


SECRET = "Mme-Dupont-7731"
leaks: list[Callable[[], Usage]] = [
    lambda: OPENAI_CHAT | {"prompt_tokens": SECRET},
    lambda: OPENAI_CHAT | {"prompt_tokens_details": SECRET},
    lambda: OPENAI_CHAT | {"prompt_tokens_details": {"cached_tokens": [SECRET]}},
    lambda: {SECRET: 5},
    lambda: {"prompt_tokens": 5, SECRET: SECRET},
    lambda: {"x-compute-tokens": SECRET},
    lambda: {"type": SECRET, "seconds": SECRET},
    lambda: OPENAI_CHAT | {"total_tokens": 773_100_001},
    lambda: OPENAI_CHAT | {"completion_tokens": -773_100_001},
    lambda: OPENAI_CHAT | {"completion_tokens": 7731.25},
]


@pytest.mark.parametrize("make", leaks)
def test_a_refusal_carries_no_value_and_no_name_of_the_input(make: Callable[[], Usage]) -> None:
    with pytest.raises(UnusableUsage) as caught:
        normalise_usage(make())
    refusal = caught.value
    shown = f"{refusal!s} {refusal!r} {refusal.args} {vars(refusal)} {refusal.__cause__!r} {refusal.__context__!r}"
    assert "7731" not in shown
    assert "Dupont" not in shown


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789 ", min_size=24, max_size=60), st.sampled_from(FIELDS))
def test_no_text_in_any_field_reaches_the_refusal(text: str, name: str) -> None:
    shown = []
    for sample in SAMPLES:
        try:
            normalise_usage(sample | {name: text})
        except UnusableUsage as refusal:
            shown.append(f"{refusal!s} {vars(refusal)}")
    assert all(text not in line for line in shown)


@given(counts, counts, counts, counts)
def test_anthropic_input_is_the_sum_of_its_three_disjoint_counts(fresh: int, read: int, written: int, out: int) -> None:
    usage = {
        "input_tokens": fresh,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": out,
    }
    quantities = normalise_usage(usage)
    assert quantities["input_tokens"] == fresh + read + written
    assert quantities["cached_input_tokens"] == read
    assert quantities["output_tokens"] == out


@given(counts, counts, counts, counts)
def test_gemini_conserves_its_total(prompt: int, tools: int, candidates: int, thoughts: int) -> None:
    total = prompt + tools + candidates + thoughts
    usage = {
        "promptTokenCount": prompt,
        "toolUsePromptTokenCount": tools,
        "candidatesTokenCount": candidates,
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": total,
    }
    quantities = normalise_usage(usage)
    assert (quantities["input_tokens"] or 0) + (quantities["output_tokens"] or 0) == total
    assert quantities["reasoning_tokens"] == thoughts


@given(counts, counts, st.integers(min_value=-5, max_value=5))
def test_openai_total_is_conserved_or_refused(prompt: int, completion: int, error: int) -> None:
    total = max(0, prompt + completion + error)
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    if total == prompt + completion:
        assert normalise_usage(usage) == tokens(prompt, None, completion, None)
    else:
        with pytest.raises(UnusableUsage, match="total_mismatch"):
            normalise_usage(usage)


@given(st.sampled_from(RECOGNISED), st.data())
def test_what_the_provider_leaves_out_is_unknown_and_never_zero(case: Any, data: st.DataObject) -> None:
    sample, provider, expected = case.values
    dropped = data.draw(st.sets(st.sampled_from(sorted(sample))))
    usage = {name: None if name in dropped else value for name, value in sample.items()}
    try:
        quantities = normalise_usage(usage, provider=provider)
    except UnusableUsage as refusal:
        # What is left may contradict itself (a total without one of its parts): then it is refused, not patched.
        quantities = dict.fromkeys(expected) if refusal.code == "total_mismatch" else {}
    assert quantities.keys() == expected.keys()
    for quantity, value in quantities.items():
        # A zero comes only from a zero that the sample reports.
        assert value != 0 or expected[quantity] == 0
    assert dropped != set(sample) or set(quantities.values()) == {None}


@given(st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False))
def test_audio_is_never_less_than_heard_and_less_than_one_ms_more(seconds: Decimal) -> None:
    audio_ms = normalise_usage({"type": "duration", "seconds": seconds})["audio_ms"]
    assert audio_ms == ceil(Fraction(seconds) * 1000)


@given(st.floats(min_value=0, max_value=10**9))
def test_a_float_is_read_as_json_wrote_it(seconds: float) -> None:
    audio_ms = normalise_usage({"type": "duration", "seconds": seconds})["audio_ms"]
    written = json.loads(json.dumps(seconds), parse_float=Decimal)
    assert audio_ms == (written * 1000).to_integral_value(rounding=ROUND_CEILING)


@given(counts)
def test_a_whole_number_written_as_a_float_is_the_same_count(count: int) -> None:
    assert normalise_usage({"pages_processed": float(count)}) == {"pages": count}

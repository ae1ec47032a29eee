"""What a request asks for, read from its path and body."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.gateways.requests import (
    BYTES_PER_TOKEN,
    ENDPOINTS,
    IMAGE_TOKENS,
    Reading,
    endpoint_of,
    lowered,
    operation_of,
    reading_of,
)
from metering.rules.quantities import OPERATIONS, QUANTITY_MAX

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["model", "stream", "messages", "prompt", "input", "n", "max_tokens", "max_completion_tokens", "max_output_tokens",
     "best_of", "documents", "query", "pages", "stream_options", "tools", "type"]
)  # fmt: skip


def chat(**body: Any) -> Reading:
    return reading_of("chat", {"model": "small", "messages": [{"role": "user", "content": "Bonjour"}], **body})


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/v1/chat/completions", "chat"), ("/api/v1/chat/completions/", "chat"), ("/v1//completions", "completion"),
        ("/v1/responses", "chat"), ("/anthropic/v1/messages", "chat"),
        ("/v1/embeddings", "embedding"), ("/v1/audio/transcriptions", "transcription"),
        ("/rerank", "rerank"), ("/v1/ocr", "ocr"), ("/v1/search", "search"), ("/v1/files", "file_ingest"),
        ("/v1/models", None), ("/v1/messages/count_tokens", None), ("/v1/threads/t-1/messages", None),
        ("/v1/chat/completions/c-1", None), ("/", None), ("", None),
    ],
)  # fmt: skip
def test_the_end_of_a_path_says_the_operation(path: str, operation: str | None) -> None:
    assert operation_of(path) == operation
    assert (endpoint_of(path) in ENDPOINTS) == (operation is not None)


def test_a_chat_is_read_by_what_it_says() -> None:
    reading = chat(stream=True, n=3, max_completion_tokens=50, stream_options={"include_usage": True})
    assert (reading.model, reading.streamed, reading.answers) == ("small", True, 3)
    assert (reading.can_tell_usage, reading.wants_usage) == (True, True)
    assert reading.prompt_tokens == -(-len("rolecontentuserBonjour") // BYTES_PER_TOKEN)
    assert reading.estimates(default_output_tokens=9) == {
        "prompt_tokens": 8, "max_output_tokens": 150, "min_output_tokens": 3,
    }  # fmt: skip
    assert chat().estimates(default_output_tokens=9)["max_output_tokens"] == 9


def test_bytes_are_counted_not_letters_and_media_not_by_their_bytes() -> None:
    accents = chat(messages=["é" * 30])
    assert accents.prompt_tokens == 60 // BYTES_PER_TOKEN
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 100_000}}
    assert chat(messages=[image, sound]).prompt_tokens == IMAGE_TOKENS
    schema = {"type": ["string", "null"]}
    assert chat(messages=[], tools=[schema]).prompt_tokens == -(-len("typestringnull") // BYTES_PER_TOKEN)


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        ("embedding", {"input": "a"}, {"inputs": 1}),
        ("embedding", {"input": ["a", "b"]}, {"inputs": 2}),
        ("embedding", {"input": [1, 2, 3]}, {"inputs": 1, "prompt_tokens": 3}),
        ("embedding", {"input": [[1, 2], [3]]}, {"inputs": 2, "prompt_tokens": 3}),
        ("completion", {"prompt": ["a", "b"], "n": 2, "best_of": 3, "max_tokens": 10}, {"max_output_tokens": 60}),
        ("completion", {"prompt": [1, 2]}, {"max_output_tokens": 7, "min_output_tokens": 1}),
        ("chat", {"input": "a", "max_output_tokens": 5}, {"max_output_tokens": 5}),
        ("ocr", {"document": {"type": "document_url"}, "pages": [0, 1, 2]}, {"pages": 3}),
        ("ocr", {}, {"pages": 1}),
        ("search", {"query": "abc"}, {"searches": 1, "prompt_tokens": 1}),
        ("transcription", {}, {"audio_ms": 1_500}),
    ],
)  # fmt: skip
def test_estimates_of_each_operation(operation: Any, body: dict[str, object], expected: dict[str, int]) -> None:
    estimates = reading_of(operation, body).estimates(default_output_tokens=7, audio_ms=1_500)
    assert expected.items() <= estimates.items()


def test_a_message_for_anthropic_counts_its_system_and_tools_and_tells_its_usage_by_itself() -> None:
    system = [{"type": "text", "text": "Bonjour", "cache_control": {"type": "ephemeral"}}]
    paper = {"type": "document", "source": {"type": "base64", "data": "A" * 100_000}}
    body = {"model": "small", "max_tokens": 50, "stream": True, "messages": [{"role": "user", "content": [paper]}]}
    said = "rolecontentusertypesourcedocument"
    reading = reading_of("chat", body, is_message=True)
    assert reading.estimates(default_output_tokens=9) == {
        "prompt_tokens": -(-len(said) // BYTES_PER_TOKEN), "max_output_tokens": 50, "min_output_tokens": 1,
    }  # fmt: skip
    assert (reading.streamed, reading.can_tell_usage) == (True, False)
    said += "typetexttexttextBonjourcache_controltypeephemeral" + "nametool"
    more = reading_of("chat", body | {"system": system, "tools": [{"name": "tool"}]}, is_message=True)
    assert abs(more.prompt_tokens - len(said) // BYTES_PER_TOKEN) <= 2
    assert lowered(more, 40, default_output_tokens=9) == {"max_tokens": 40}


def test_documents_and_images_are_counted() -> None:
    assert reading_of("rerank", {"query": "a", "documents": ["b", "c"]}).documents == 2
    assert reading_of("file_ingest", {}).documents == 1
    assert reading_of("image", {"prompt": "a", "n": 2}).images == 2


def test_output_is_bounded_by_what_is_granted_and_only_then() -> None:
    def bound(reading: Reading, granted: int) -> dict[str, int]:
        return lowered(reading, granted, default_output_tokens=100)

    assert bound(chat(max_tokens=50), 50) == {}
    assert bound(chat(max_tokens=50), 49) == {"max_tokens": 49}
    assert bound(chat(max_tokens=60, max_completion_tokens=40), 50) == {"max_tokens": 50}
    assert bound(chat(n=4, max_completion_tokens=50), 42) == {"max_completion_tokens": 10}
    assert bound(chat(), 100) == {}
    assert bound(chat(), 99) == {"max_tokens": 99}
    assert bound(reading_of("chat", {"input": "a"}), 99) == {"max_output_tokens": 99}
    assert bound(reading_of("embedding", {"input": "a", "max_tokens": 5}), 0) == {}


@pytest.mark.parametrize("odd", [0, -1, True, None, "x", "9" * 40, [], {}, 0.5, float("nan")])
def test_a_bound_that_is_none_is_held_as_none(odd: object) -> None:
    assert chat(max_tokens=odd).output_limits == {}


@pytest.mark.parametrize(("lenient", "read"), [("12", 12), (12.0, 12), (1e30, QUANTITY_MAX)])
def test_a_bound_that_lenient_gateways_take_is_read(lenient: object, read: int) -> None:
    assert chat(max_tokens=lenient).output_limits == {"max_tokens": read}


@given(operation=st.sampled_from(OPERATIONS), body=st.dictionaries(NAMES | st.text(max_size=5), JSON, max_size=6))
def test_any_body_is_read_and_its_estimates_are_quantities(operation: Any, body: dict[str, object]) -> None:
    reading = reading_of(operation, body)
    assert all(0 <= count <= QUANTITY_MAX for count in reading.estimates(default_output_tokens=5).values())
    granted = reading.estimates(default_output_tokens=5).get("max_output_tokens", 0)
    assert all(
        count * reading.answers <= granted for count in lowered(reading, granted, default_output_tokens=5).values()
    )

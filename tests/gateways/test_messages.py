"""Anthropic's Messages API through the middleware: Anthropic's own client, a real gateway, real stores."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.gateways.messages import MessageReader, MessageStreamReader
from metering.gateways.refusing import anthropic_body_of
from tests.client.conftest import until
from tests.gateways.conftest import World, told
from tests.gateways.upstream import ANSWER_TOKENS

ASKED: dict[str, Any] = {
    "model": "small", "max_tokens": 50, "system": "Tu réponds", "messages": [{"role": "user", "content": "un deux"}],
}  # fmt: skip
INPUT_TOKENS = 4
COUNTS = ("status", "input_tokens", "cached_input_tokens", "output_tokens", "count_source")


@pytest.fixture
def client(world: World) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=world.url, api_key=world.key, max_retries=0) as made:
        yield made


def test_a_message_is_in_the_ledger_as_the_provider_counted_it(world: World, client: anthropic.Anthropic) -> None:
    answer = client.messages.create(**ASKED, extra_headers={"x-behaviour": "caches-3"})
    assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", ANSWER_TOKENS)
    assert client.messages.count_tokens(model="small", messages=ASKED["messages"]).input_tokens == 2
    assert client.with_options(api_key=None, auth_token=world.key).messages.create(**ASKED).stop_reason == "end_turn"
    first, second = world.recorded(2)
    assert told(first, *COUNTS) == ("ok", INPUT_TOKENS, 3, ANSWER_TOKENS, "provider")
    assert told(second, *COUNTS) == ("ok", INPUT_TOKENS, 0, ANSWER_TOKENS, "provider")
    assert told(first, "operation", "endpoint", "streamed", "finish_reason", "api_key") == (
        "chat", "/v1/messages", False, "end_turn", f"k-{world.tenant}",
    )  # fmt: skip
    assert world.standing()["total_tokens"] == (2 * (INPUT_TOKENS + ANSWER_TOKENS), 0)


def test_a_stream_passes_as_it_is_and_is_counted_by_its_last_word(world: World, client: anthropic.Anthropic) -> None:
    with client.messages.stream(**ASKED, extra_headers={"x-behaviour": "caches-1"}) as stream:
        kinds = [event.type for event in stream]
        headers = stream.response.headers
        final = stream.get_final_message()
    assert (kinds[0], kinds[-1], kinds.count("content_block_delta")) == ("message_start", "message_stop", ANSWER_TOKENS)
    assert (final.usage.output_tokens, final.usage.cache_read_input_tokens) == (ANSWER_TOKENS, 1)
    assert headers["x-ratelimit-limit-requests"] == "500"
    assert "anthropic-ratelimit-requests-limit" not in headers
    (entry,) = world.recorded(1)
    assert told(entry, *COUNTS) == ("ok", INPUT_TOKENS, 1, ANSWER_TOKENS, "provider")
    assert (entry["streamed"], entry["finish_reason"]) == (True, "end_turn")
    assert world.asked()[0].body == ASKED | {"stream": True}


def test_streams_that_break_count_their_input_and_what_came(world: World, client: anthropic.Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        client.messages.stream(**ASKED, extra_headers={"x-behaviour": "errs-after-3"}) as stream,
    ):
        list(stream)
    with client.messages.stream(**ASKED, extra_headers={"x-behaviour": "hangs-after-4"}) as stream:
        words = (event for event in stream if event.type == "content_block_delta")
        assert [next(words) for _ in range(4)]
    entries = world.recorded(2)
    assert {told(entry, *COUNTS) for entry in entries} == {
        ("error", INPUT_TOKENS, 0, 3, "partial_stream"), ("aborted", INPUT_TOKENS, 0, 4, "partial_stream"),
    }  # fmt: skip
    until(lambda: world.standing()["concurrent_requests"] == (0, 0))
    assert world.standing()["output_tokens"] == (7, 0)


def test_refusals_are_read_by_anthropics_client(world: World, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.RateLimitError) as limited:
        client.messages.create(**(ASKED | {"messages": [{"role": "user", "content": "x" * 400_000}]}))
    assert limited.value.response.json() == {
        "type": "error", "error": {"type": "rate_limit_error", "message": "A limit is reached."},
    }  # fmt: skip
    assert int(limited.value.response.headers["retry-after"]) > 0
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        client.messages.create(**(ASKED | {"model": "other"}))
    with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
        client.with_options(api_key="sk-other").messages.create(**ASKED)
    with world.client() as nobody:
        answer = nobody.post("/v1/messages", json=ASKED, headers={"authorization": ""})
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
        # Only Anthropic's API has its keys there.
        elsewhere = nobody.post("/v1/embeddings", json={}, headers={"authorization": "", "x-api-key": world.key})
        assert elsewhere.json()["error"]["code"] == "missing_key"
    assert world.asked() == []
    assert [entry["status"] for entry in world.recorded(1)] == ["refused"]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "malformed_json", "invalid_request_error"), (403, "forbidden", "permission_error"),
        (413, "body_too_large", "request_too_large"), (503, "shed", "overloaded_error"),
        (503, "quota_unavailable", "api_error"),
    ],
)  # fmt: skip
def test_each_refusal_has_anthropics_word(status: int, code: str, kind: str) -> None:
    error = json.loads(anthropic_body_of(status, code))
    assert (error["type"], error["error"]["type"]) == ("error", kind)


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def start(**usage: Any) -> bytes:
    return event("message_start", message={"id": "m", "content": [], "usage": usage})


def delta(**fields: str) -> bytes:
    return event("content_block_delta", index=0, delta=fields)


def end(reason: str | None = "end_turn", **usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": reason}, usage=usage)


def read(*pieces: bytes) -> MessageStreamReader:
    reader = MessageStreamReader()
    for piece in pieces:
        assert reader.feed(piece, is_last=piece is pieces[-1]) == piece
    return reader


STREAM = b"".join(
    [start(input_tokens=21, cache_creation_input_tokens=8, cache_read_input_tokens=5, output_tokens=1),
     delta(type="thinking_delta", thinking="so"), delta(type="signature_delta", signature="A" * 90),
     delta(type="text_delta", text="un"), delta(type="input_json_delta", partial_json='{"a"'),
     end(output_tokens=30), event("message_stop")]
)  # fmt: skip
READ = {"input_tokens": 34, "cached_input_tokens": 5, "output_tokens": 30}


@given(cuts=st.sets(st.integers(1, len(STREAM) - 1), max_size=9))
def test_where_a_stream_is_cut_into_pieces_makes_no_difference(cuts: set[int]) -> None:
    reader = read(*(STREAM[start:end] for start, end in pairwise([0, *sorted(cuts), len(STREAM)])))
    assert (reader.usage, reader.counted) == (READ, 3)
    assert (reader.finish_reason, reader.is_complete, reader.is_failed) == ("end_turn", True, False)


def test_until_the_output_is_told_it_is_what_came() -> None:
    begun = start(input_tokens=9, output_tokens=2)
    assert read(begun).usage == {"input_tokens": 9, "output_tokens": 2}
    assert read(begun, *[delta(type="text_delta", text="un")] * 5).usage == {"input_tokens": 9, "output_tokens": 5}
    assert not read(begun, delta(type="text_delta", text="un")).is_complete


def test_servers_that_tell_their_input_at_the_end_or_never() -> None:
    late = read(start(input_tokens=0, output_tokens=0), end(input_tokens=9, output_tokens=2))
    assert late.usage == {"input_tokens": 9, "output_tokens": 2}
    assert read(start(input_tokens=9, output_tokens=0), end(input_tokens=0, output_tokens=2)).usage == late.usage
    assert read(start(input_tokens=0, output_tokens=0), delta(type="text_delta", text="un")).usage == {
        "output_tokens": 1
    }
    assert read(delta(type="text_delta", text="un"), end(None), event("message_stop")).usage is None


@pytest.mark.parametrize("odd", [start(input_tokens=-1), event("message_start", message=5), event("message_delta")])
def test_what_cannot_be_read_is_unknown(odd: bytes) -> None:
    assert read(odd).usage is None


def test_a_whole_message_without_usage_is_counted_by_its_text() -> None:
    reader = MessageReader(is_deflated=False)
    reader.feed(json.dumps({"content": [{"type": "text", "text": "x" * 41}]}).encode(), is_last=True)
    assert (reader.usage, reader.counted, reader.finish_reason) == (None, 11, None)
    reader = MessageReader(is_deflated=False)
    reader.feed(b"[]", is_last=True)
    assert (reader.usage, reader.counted) == (None, None)

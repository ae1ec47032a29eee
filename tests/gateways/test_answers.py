"""What an answer used, read as it passes."""

import gzip
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.gateways.answers import BodyReader, StreamReader, tokens_in, usage_in

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
READ = {"input_tokens": 3, "output_tokens": 2}


def event(**chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def word(text: str, reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": reason}])


STREAM = [word("un "), b": a comment\n\n", word("deux", "stop"), event(choices=[], usage=USAGE), b"data: [DONE]\n\n"]


def fed(reader: Any, pieces: list[bytes]) -> list[bytes]:
    return [reader.feed(piece, is_last=place == len(pieces) - 1) for place, piece in enumerate(pieces)]


def test_a_stream_is_passed_on_as_it_comes_and_read() -> None:
    reader = StreamReader(hides_usage=False)
    assert fed(reader, STREAM) == STREAM
    assert (reader.usage, reader.counted, reader.finish_reason, reader.is_complete) == (READ, 2, "stop", True)


def test_usage_that_the_client_did_not_ask_for_is_taken_out_and_nothing_else() -> None:
    reader = StreamReader(hides_usage=True)
    assert fed(reader, STREAM) == [*STREAM[:3], b"", STREAM[4]]
    assert reader.usage == READ
    with_text = event(choices=[{"delta": {"content": "x"}}], usage=USAGE)
    assert fed(StreamReader(hides_usage=True), [with_text]) == [with_text]


@given(
    cuts=st.sets(st.integers(1, sum(map(len, STREAM)) - 1), max_size=9),
    hides=st.booleans(),
    separator=st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_where_a_stream_is_cut_into_pieces_makes_no_difference(cuts: set[int], hides: bool, separator: bytes) -> None:
    whole = b"".join(STREAM).replace(b"\n", separator)
    places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    reader = StreamReader(hides_usage=hides)
    passed_on = fed(reader, [whole[start:end] for start, end in pairwise(places)])
    shown = b"".join([*STREAM[:3], STREAM[4]] if hides else STREAM).replace(b"\n", separator)
    assert b"".join(passed_on) == shown
    assert (reader.usage, reader.counted, reader.is_complete) == (READ, 2, True)


def test_what_is_no_event_passes_and_is_not_kept() -> None:
    reader = StreamReader(hides_usage=True)
    endless = b"x" * 700_000
    assert fed(reader, [endless, endless, b"data: {\xff\n\n", b'data: [1]\n\ndata: {"choices": 1}\n\n'])[0] == b""
    assert (reader.usage, reader.counted, reader.is_complete) == (None, 0, False)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("é" * 8, 1), ("a" * 17, 5), ("a" * 40, 10)])
def test_a_chunk_is_a_token_unless_it_is_long(text: str, tokens: int) -> None:
    assert tokens_in({"choices": [{"delta": {"content": text}}]}) == tokens
    assert tokens_in({"choices": [{"text": text}, {"text": text}]}) == 2 * tokens
    assert tokens_in({"type": "response.output_text.delta", "delta": text}) == tokens


def test_reasoning_and_calls_of_tools_are_generated_as_well() -> None:
    call = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for delta in ({"reasoning_content": "so"}, {"tool_calls": [call]}, {"content": [{"type": "text", "text": "so"}]}):
        assert tokens_in({"choices": [{"delta": {"role": "assistant", **delta}}]}) == 1


def test_the_responses_api_tells_its_usage_at_its_end() -> None:
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    pieces = [
        event(type="response.output_text.delta", delta="un"),
        event(type="response.completed", response={"usage": usage}),
    ]
    reader = StreamReader(hides_usage=False)
    fed(reader, pieces)
    assert (reader.usage, reader.counted, reader.is_complete) == (READ, 1, True)


def test_an_error_within_a_stream_is_one() -> None:
    for error in (event(error={"message": "m"}), event(type="response.failed", response={"usage": None})):
        reader = StreamReader(hides_usage=False)
        fed(reader, [word("un"), error])
        assert (reader.is_failed, reader.counted) == (True, 1)


def body(size: int = 0, **more: Any) -> bytes:
    choices = [{"message": {"content": 'a "usage": {"prompt_tokens": 9} ' + "x" * size}, "finish_reason": "stop"}]
    return json.dumps({"choices": choices, **more}).encode()


@pytest.mark.parametrize("size", [0, 3_000_000])
@pytest.mark.parametrize("is_deflated", [False, True])
def test_a_body_is_read_whatever_its_size_and_compression(size: int, is_deflated: bool) -> None:
    content = body(size, usage=USAGE)
    content = gzip.compress(content) if is_deflated else content
    pieces = [content[place : place + 50_000] for place in range(0, len(content), 50_000)]
    reader = BodyReader(is_deflated=is_deflated)
    assert fed(reader, pieces) == pieces
    assert (reader.usage, reader.is_complete) == (READ, True)


def test_a_body_without_usage_is_counted_by_its_text() -> None:
    reader = BodyReader(is_deflated=False)
    fed(reader, [json.dumps({"choices": [{"message": {"role": "assistant", "content": "x" * 41}}]}).encode()])
    assert (reader.usage, reader.counted) == (None, 11)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff\xfe", b'{"usage": 1}', b'{"usage": {"total_tokens": -1}}', b"[" * 10**5]
)
def test_a_body_that_tells_nothing_is_unknown(content: bytes) -> None:
    for is_deflated in (False, True):
        reader = BodyReader(is_deflated=is_deflated)
        fed(reader, [content])
        assert (reader.usage, reader.counted) == (None, None)


def test_usage_is_found_where_providers_put_it() -> None:
    assert usage_in({"usage": USAGE}) == READ
    assert usage_in({"usage_info": {"pages_processed": 2, "doc_size_bytes": 5}}) == {"pages": 2}
    assert usage_in({"usage": None}) is None

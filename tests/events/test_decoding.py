"""From bytes to events: framings, compression, limits, and memory that doesn't follow what a caller sends."""

import contextlib
import gzip
import json
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import BadRequest, JaugeError, TooLarge, UnsupportedMedia
from metering.events.decoding import FRAMES_MAX, decode, decode_one, decompress, framing_of
from metering.events.envelope import UsageEvent
from metering.events.quarantine import salvage

MIB = 1024 * 1024
BYTES_MAX = 16 * MIB
EVENTS_MAX = 10_000

COMPRESSED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.compress}


def refusal_of(call: Callable[[], object], memory_mib_max: int) -> JaugeError:
    """The error that a call ends with, having used no more memory than this."""
    tracemalloc.start()
    try:
        with pytest.raises(JaugeError) as refused:
            call()
        assert tracemalloc.get_traced_memory()[1] < memory_mib_max * MIB
    finally:
        tracemalloc.stop()
    return refused.value


@pytest.mark.parametrize("encoding", COMPRESSED)
@given(body=st.binary(max_size=5_000), parts=st.integers(1, 4))
def test_what_was_compressed_comes_back(encoding: str, body: bytes, parts: int) -> None:
    sent = b"".join(COMPRESSED[encoding](body) for _ in range(parts))
    assert decompress(sent, encoding, BYTES_MAX) == body * parts


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_compressed_body_that_was_cut_off_is_refused(encoding: str) -> None:
    sent = COMPRESSED[encoding](b"\n".join(b"line %d" % number for number in range(2_000)))
    for length in range(1, len(sent), 97):
        with pytest.raises(BadRequest, match="decompressed"):
            decompress(sent[:length], encoding, BYTES_MAX)
    with pytest.raises(BadRequest):
        decompress(sent + b"and more", encoding, BYTES_MAX)


@given(body=st.binary(min_size=1, max_size=300), encoding=st.sampled_from(sorted(COMPRESSED)))
def test_bytes_that_were_never_compressed_are_refused(body: bytes, encoding: str) -> None:
    with pytest.raises(BadRequest):
        decompress(body, encoding, BYTES_MAX)


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_damaged_body_is_refused_or_read_and_never_a_fault(encoding: str) -> None:
    sent = bytearray(COMPRESSED[encoding](json.dumps(list(range(500))).encode()))
    for place in range(len(sent)):
        damaged = sent[:place] + bytes([sent[place] ^ 0x55]) + sent[place + 1 :]
        with contextlib.suppress(BadRequest):
            decompress(bytes(damaged), encoding, BYTES_MAX)


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_bomb_is_refused_in_bounded_memory(encoding: str) -> None:
    bomb = COMPRESSED[encoding](bytes(256 * MIB))
    assert len(bomb) < MIB
    assert isinstance(refusal_of(lambda: decompress(bomb, encoding, BYTES_MAX), 80), TooLarge)


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_body_of_countless_empty_frames_is_refused(encoding: str) -> None:
    frames = COMPRESSED[encoding](b"") * (FRAMES_MAX * 20)
    assert refusal_of(lambda: decompress(frames, encoding, BYTES_MAX), 8).code == "broken_compression"


def test_a_zstd_frame_that_asks_for_much_memory_is_refused() -> None:
    far = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True, write_content_size=False)
    sent = zstandard.ZstdCompressor(compression_params=far).compressobj()
    body = sent.compress(bytes(MIB)) + sent.flush()
    with pytest.raises(BadRequest):
        decompress(body, "zstd", BYTES_MAX)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "words"])
def test_another_encoding_is_unsupported_and_not_echoed(encoding: str) -> None:
    with pytest.raises(UnsupportedMedia) as refused:
        decompress(b"", encoding, BYTES_MAX)
    assert encoding not in {refused.value.detail, refused.value.field}


def test_media_types_are_read_without_regard_to_case_or_parameters() -> None:
    assert framing_of("Application/JSON; charset=utf-8") == framing_of(None) == "json"
    assert framing_of("application/x-ndjson") == "ndjson"
    with pytest.raises(UnsupportedMedia):
        framing_of("text/plain")


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("json", b"[" + b"1," * 900_000 + b"1]"),
        ("json", b"[" + b"{}," * 5_000_000 + b"{}]"),
        ("json", b"[" * BYTES_MAX),
        ("json", b"[{}," + b"[" * 5_000_000),
        ("ndjson", b"1\n" * 8_000_000),
        ("json", b""),
        ("ndjson", b" \n\n "),
    ],
    ids=["numbers", "objects", "brackets", "object and brackets", "lines", "empty", "blank lines"],
)
def test_a_call_that_holds_too_much_or_nothing_is_refused_in_bounded_memory(framing, body) -> None:
    error = refusal_of(lambda: decode(body, framing, EVENTS_MAX), 90)
    assert error.code in {"too_many_events", "malformed_json", "empty_body"}


def test_one_event_more_than_the_limit_is_refused_and_the_limit_is_not(make_event) -> None:
    line = json.dumps(make_event()).encode()
    assert len(decode(b"[" + b",".join([line] * EVENTS_MAX) + b"]", "json", EVENTS_MAX)) == EVENTS_MAX
    for framing, body in (
        ("json", b"[" + b",".join([line] * (EVENTS_MAX + 1)) + b"]"),
        ("json", b"[" + b",".join([b"{}"] * (EVENTS_MAX + 1)) + b"]"),
        ("ndjson", b"\n".join([line] * (EVENTS_MAX + 1))),
        ("ndjson", b"\n".join([b"{}"] * (EVENTS_MAX + 1))),
    ):
        with pytest.raises(TooLarge):
            decode(body, framing, EVENTS_MAX)


@pytest.mark.parametrize("inner", [b"[],", b'"words",', b'{"a":{"b":[]}},'])
def test_salvaging_a_large_event_builds_nothing_of_what_it_drops(inner: bytes) -> None:
    piece = b'{"id":"x","prompt":[' + inner * (12 * MIB // len(inner)) + b"1]}"
    tracemalloc.start()
    assert salvage(piece) == {"id": "x"}
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()


@given(
    st.lists(st.sampled_from([b"good", b"{}", b"[]", b"nul", b'{"prompt": 1}', b'"\xff"', b"[" * 3_000]), min_size=1)
)
def test_lines_are_read_alike_alone_and_beside_others(kinds: list[bytes]) -> None:
    lines = [GOOD if kind == b"good" else kind for kind in kinds]
    together = decode(b"\n".join(lines), "ndjson", EVENTS_MAX)
    assert together == [decode_one(line) for line in lines]
    assert [isinstance(one, UsageEvent) for one in together] == [kind == b"good" for kind in kinds]


GOOD = json.dumps(
    {
        "specversion": "1.0", "type": "jauge.usage.v1", "source": "s", "id": "i", "time": "2026-10-05T08:00:00Z",
        "data": {"tenant": "dinum", "operation": "chat", "model_requested": "m", "status": "ok"},
    }
).encode()  # fmt: skip

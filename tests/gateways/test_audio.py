"""How long a recording lasts, from its headers."""

import io
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.gateways.audio import duration_ms
from tests.gateways.recordings import FORMATS, flac, mp3, ogg, wav, webm

FRAME_MS = 27
"""An mp3 has whole frames."""


def length_ms(content: bytes) -> int | None:
    """Within a larger file, as uploads are."""
    return duration_ms(io.BytesIO(b"before" + content + b"after"), 6, 6 + len(content))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seconds", [1.5, 61.24])
def test_each_format_tells_its_length(name: str, seconds: float) -> None:
    found = length_ms(FORMATS[name](seconds))
    assert found == pytest.approx(seconds * 1_000, abs=FRAME_MS if name == "mp3" else 0)


def test_what_was_recorded_without_knowing_its_length_is_measured() -> None:
    assert length_ms(wav(2.5, told=False)) == 2_500
    assert length_ms(webm(3.4, told=False)) == 3_400


def test_a_header_cannot_claim_more_than_is_there() -> None:
    whole = wav(10)
    assert length_ms(whole[: len(whole) // 2]) == pytest.approx(5_000, abs=2)


def test_a_cover_before_the_sound_is_skipped() -> None:
    assert length_ms(mp3(3, cover_bytes=3_000_000)) == pytest.approx(3_000, abs=FRAME_MS)


def test_hours_are_measured_in_a_moment() -> None:
    for content in (ogg(3 * 3_600), webm(600, told=False)):
        begun = time.monotonic()
        assert length_ms(content) in {10_800_000, 600_000}
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "content",
    [
        b"", b"RIFF", b"RIFF\x00\x00\x00\x00WAVE", b"not a recording", flac(0), wav(0), b"OggS" + bytes(40),
        b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x80" + bytes(20), webm(1)[:40],
        wav(1).replace(struct.pack("<I", 32_000), bytes(4), 1),
    ],
)  # fmt: skip
def test_what_does_not_tell_is_unknown(content: bytes) -> None:
    assert length_ms(content) is None


@pytest.mark.parametrize("content", [b"\xff\xfb" + bytes(5_000_000), b"\x1a\x45\xdf\xa3\x80" + b"\xec\x80" * 2_500_000])
def test_a_file_made_to_keep_us_busy_is_unknown_soon(content: bytes) -> None:
    begun = time.monotonic()
    assert length_ms(content) is None
    assert time.monotonic() - begun < 15  # a bound, on any machine


@given(
    name=st.sampled_from(sorted(FORMATS)),
    harm=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
)
def test_a_damaged_file_is_unknown_or_some_length(name: str, harm: list[tuple[int, int]]) -> None:
    content = bytearray(FORMATS[name](0.5))
    for place, value in harm:
        content[place % len(content)] = value
    found = length_ms(bytes(content))
    assert found is None or found > 0

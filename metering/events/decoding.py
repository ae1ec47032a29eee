"""From bytes to events: media types, compression, and one answer an event.

A call is first read as a whole, which is fast. If anything in it is wrong it is read again event by event, so that
the good ones beside it are accepted.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Annotated, Literal, Protocol

import msgspec
import zstandard

from metering.errors import BadRequest, TooLarge, UnsupportedMedia
from metering.events.envelope import EnergyEvent, UsageEvent
from metering.events.refusals import Refusal, from_decoding

Framing = Literal["json", "ndjson"]

FRAMINGS: dict[str, Framing] = {
    "application/json": "json",
    "application/cloudevents+json": "json",
    "application/cloudevents-batch+json": "json",
    "application/x-ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/ndjson": "ndjson",
}
"""Media types that are read. JSON may be one event or an array of them."""

COMMAS_PER_EVENT_MAX = 100
"""An event has at most 50 fields; beyond this, an array has more items than a call may have, and is not even read."""

GZIP_PIECE_BYTES = 16 * 1024
ZSTD_PIECE_BYTES = 512
"""Read at a time, so that a piece becomes 16 MiB at most: gzip makes 1 byte 1,032, and zstd 4 bytes 128 KiB."""
FRAMES_MAX = 1_000
"""Gzip members or zstd frames of a body: an empty one costs its sender nothing."""
ZSTD_WINDOW_BYTES_MIN = 8 * 1024 * 1024
"""What RFC 8878 asks every decoder to support."""
_GZIP = 16 + zlib.MAX_WBITS

_event = msgspec.json.Decoder(UsageEvent)
_events = msgspec.json.Decoder(list[UsageEvent])
_reading = msgspec.json.Decoder(EnergyEvent)

ENERGY = "jauge.energy.v1"

Event = UsageEvent | EnergyEvent

Decoded = list[Event | tuple[Refusal, bytes]]
"""Events in the order of the call; a refused one with its own bytes."""


def framing_of(content_type: str | None) -> Framing:
    """Framing that a Content-Type header states. Raises: UnsupportedMedia for one that isn't read."""
    media_type = (content_type or "application/json").partition(";")[0].strip().lower()
    if media_type not in FRAMINGS:
        raise UnsupportedMedia(
            "unsupported_media_type",
            "The Content-Type is not one that is read.",
            field="Content-Type",
            expected=", ".join(FRAMINGS),
        )
    return FRAMINGS[media_type]


def decompress(body: bytes, encoding: str | None, bytes_max: int) -> bytes:
    """Bytes of a body, decompressed while they stay under the limit.

    Raises: TooLarge; BadRequest for a broken stream; UnsupportedMedia for another encoding.
    """
    match (encoding or "identity").strip().lower():
        case "identity":
            plain = body
        case "gzip":
            plain = _inflate(body, bytes_max, partial(zlib.decompressobj, wbits=_GZIP), GZIP_PIECE_BYTES)
        case "zstd":
            # A frame that asks for more memory than a call may hold is refused.
            zstd = zstandard.ZstdDecompressor(max_window_size=max(bytes_max, ZSTD_WINDOW_BYTES_MIN))
            plain = _inflate(body, bytes_max, zstd.decompressobj, ZSTD_PIECE_BYTES)
        case _:
            raise UnsupportedMedia(
                "unsupported_encoding",
                "The Content-Encoding is not one that is read.",
                field="Content-Encoding",
                expected="gzip, zstd",
            )
    if len(plain) > bytes_max:
        raise TooLarge("body_too_large", f"A call holds at most {bytes_max} bytes, decompressed.")
    return plain


class _Frame(Protocol):
    """What zlib and zstandard give to read one gzip member, or one zstd frame, piece by piece."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _inflate(body: bytes, bytes_max: int, new_frame: Callable[[], _Frame], piece_bytes: int) -> bytes:
    """Decompressed frames, every one whole: a body that was cut off must not pass for one that ends."""
    plain = bytearray()
    frame, frames = None, 0
    for start in range(0, len(body), piece_bytes):
        piece = body[start : start + piece_bytes]
        while piece:
            if frame is None:
                frame, frames = new_frame(), frames + 1
            try:
                plain += frame.decompress(piece)
            except (zlib.error, zstandard.ZstdError) as error:
                raise _broken() from error
            if len(plain) > bytes_max:
                return bytes(plain)
            piece = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
        if frames > FRAMES_MAX:
            raise _broken()
    if frame is not None:
        raise _broken()
    return bytes(plain)


def _broken() -> BadRequest:
    return BadRequest("broken_compression", "The body can't be decompressed.", field="Content-Encoding")


def decode(body: bytes, framing: Framing, events_max: int) -> Decoded:
    """Events of a call, each decoded or refused.

    Raises: BadRequest if the whole is not JSON or is empty; TooLarge beyond `events_max`.
    """
    whole = body.strip()
    if not whole:
        raise BadRequest("empty_body", "The call holds no event.", expected="an event, an array of events, or NDJSON")
    if framing == "json" and whole[:1] != b"[":
        return [decode_one(whole)]
    if whole.count(b",") > events_max * COMMAS_PER_EVENT_MAX:
        raise _too_many(events_max)
    try:
        events = _events.decode(whole) if framing == "json" else _event.decode_lines(whole)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = map(bytes, _array(whole, events_max)) if framing == "json" else _lines(whole)
        pieces = list(islice(found, events_max + 1))
        if len(pieces) > events_max:
            raise _too_many(events_max) from None
        return [decode_one(piece) for piece in pieces]
    if len(events) > events_max:
        raise _too_many(events_max)
    return list(events)


class _Kind(msgspec.Struct):
    """What an event says that it is."""

    type: str = ""


_kind = msgspec.json.Decoder(_Kind)


def decode_one(piece: bytes) -> Event | tuple[Refusal, bytes]:
    """One event, or why it is refused."""
    try:
        if ENERGY.encode() in piece and _kind.decode(piece).type == ENERGY:
            return _reading.decode(piece)
        return _event.decode(piece)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return from_decoding(error), piece


def _array(body: bytes, events_max: int) -> list[msgspec.Raw]:
    bounded = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=events_max)]
    try:
        raws: list[msgspec.Raw] = msgspec.json.decode(body, type=bounded)
    except msgspec.ValidationError as error:
        raise _too_many(events_max) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest("malformed_json", "The body is not a JSON array.", expected="an array of events") from error
    return raws


def _lines(body: bytes) -> Iterator[bytes]:
    return filter(None, map(bytes.strip, io.BytesIO(body)))


def _too_many(events_max: int) -> TooLarge:
    return TooLarge("too_many_events", f"A call holds at most {events_max} events.", expected=f"1 to {events_max}")

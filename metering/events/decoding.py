"""From bytes to events: media types, compression, and one answer an event.

A call is first read as a whole, which is fast. If anything in it is wrong it is read again event by event, so that
the good ones beside it are accepted.
"""

import gzip
import io
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
import zstandard

from metering.errors import BadRequest, TooLarge, UnsupportedMedia
from metering.events.envelope import UsageEvent
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

_event = msgspec.json.Decoder(UsageEvent)
_events = msgspec.json.Decoder(list[UsageEvent])

Decoded = list[UsageEvent | tuple[Refusal, bytes]]
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
            plain = _read_bounded(gzip.GzipFile(fileobj=io.BytesIO(body)), bytes_max)
        case "zstd":
            plain = _read_bounded(zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True), bytes_max)
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


def _read_bounded(stream: io.RawIOBase | gzip.GzipFile | zstandard.ZstdDecompressionReader, bytes_max: int) -> bytes:
    try:
        return bytes(stream.read(bytes_max + 1))
    except (OSError, EOFError, zstandard.ZstdError, ValueError) as error:
        raise BadRequest("broken_compression", "The body can't be decompressed.", field="Content-Encoding") from error


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
        pieces = [bytes(raw) for raw in _array(whole, events_max)] if framing == "json" else list(_lines(whole))
        if len(pieces) > events_max:
            raise _too_many(events_max) from None
        return [decode_one(piece) for piece in pieces]
    if len(events) > events_max:
        raise _too_many(events_max)
    return list(events)


def decode_one(piece: bytes) -> UsageEvent | tuple[Refusal, bytes]:
    """One event, or why it is refused."""
    try:
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
    return (line for line in body.split(b"\n") if line.strip())


def _too_many(events_max: int) -> TooLarge:
    return TooLarge("too_many_events", f"A call holds at most {events_max} events.", expected=f"1 to {events_max}")

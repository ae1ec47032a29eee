"""What an answer used: read beside it, from a whole body or chunk by chunk. No text of it is kept.

A provider's own count goes before ours. Where it tells none, a streamed chunk is a token, as vLLM, TGI and OpenAI send
them; one of more than CHUNK_BYTES_MAX bytes carries several, of ANSWER_BYTES_PER_TOKEN bytes each.
"""

import json
import logging
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec

from metering.events.providers import Provider, UnusableUsage, normalise_usage

CHUNK_BYTES_MAX = 16
"""A chunk of so many bytes may still be one long word; one token of more is rare."""

ANSWER_BYTES_PER_TOKEN = 4
"""OpenAI's rule of thumb for English ("What are tokens and how to count them?"); French is near it."""

_WHOLE_BYTES_MAX = 1024 * 1024
_TAIL_BYTES = 64 * 1024
_EVENT_BYTES_MAX = 1024 * 1024
_TEXTS = (
    "content", "reasoning_content", "reasoning", "refusal", "text", "thinking", "arguments", "delta", "partial_json"
)  # fmt: skip
_PARTS = ("tool_calls", "function_call", "function")

_event_end = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_usage_name = re.compile(rb'(?<!\\)"usage"\s*:\s*(?=\{)')

log = logging.getLogger(__name__)

Quantities = dict[str, int | None]


def usage_in(answer: Mapping[str, Any]) -> Quantities | None:
    """The quantities of a provider's usage object, wherever the body or chunk of an answer has it; None without."""
    inner = answer.get("response")  # events of the responses API
    for holder in (answer, inner if isinstance(inner, Mapping) else {}):
        for name in ("usage", "usage_info"):
            if isinstance(usage := holder.get(name), Mapping):
                return normalised(usage)
    return None


def tokens_in(chunk: Mapping[str, Any]) -> int:
    """Tokens of a streamed chunk, counted as the module says."""
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        is_delta = str(chunk.get("type", "")).endswith(".delta")  # of the responses API
        return chunk_tokens(chunk.get("delta")) if is_delta else 0
    return sum(chunk_tokens(choice.get("delta", choice)) for choice in choices if isinstance(choice, Mapping))


def text_tokens(answer: Mapping[str, Any]) -> int | None:
    """Tokens of a whole answer, of ANSWER_BYTES_PER_TOKEN bytes each; None if it has no choices."""
    choices = answer.get("choices")
    if not isinstance(choices, list):
        return None
    return whole_tokens([choice.get("message", choice) for choice in choices if isinstance(choice, Mapping)])


def whole_tokens(value: object) -> int:
    """Tokens of the generated text in a whole answer, counted as the module says."""
    return -(-_text_bytes(value) // ANSWER_BYTES_PER_TOKEN)


def chunk_tokens(value: object) -> int:
    """Tokens of the generated text in a part of a chunk, counted as the module says."""
    size = _text_bytes(value)
    return -(-size // ANSWER_BYTES_PER_TOKEN) if size > CHUNK_BYTES_MAX else min(size, 1)


class Reader(Protocol):
    """Reads an answer as it passes.

    usage: what the provider told last. counted: output tokens, where it told none; None if they can't be read.
    finish_reason: of the first choice. is_complete: the answer came to its end. is_failed: the stream told an error.
    """

    usage: Quantities | None
    finish_reason: str | None
    is_complete: bool
    is_failed: bool

    @property
    def counted(self) -> int | None: ...

    def feed(self, data: bytes, *, is_last: bool) -> bytes:
        """Read a piece; what of it to pass on."""


class BodyReader:
    """Reads an answer in one JSON object. Of one beyond 1 MiB (embeddings) only the end is kept, where usage is.

    is_deflated: the gateway has compressed it, by gzip or zlib; it is passed on as it is.
    """

    def __init__(self, *, is_deflated: bool) -> None:
        self.usage: Quantities | None = None
        self.counted: int | None = None
        self.finish_reason: str | None = None
        self.is_complete = False
        self.is_failed = False
        self._inflate = zlib.decompressobj(wbits=47) if is_deflated else None
        self._kept = bytearray()
        self._is_whole = True

    def feed(self, data: bytes, *, is_last: bool) -> bytes:
        """Read a piece; all of it is passed on."""
        for piece in self._plain(data):
            self._kept += piece
            if len(self._kept) > (_WHOLE_BYTES_MAX if self._is_whole else 2 * _TAIL_BYTES):
                self._is_whole = False
                del self._kept[:-_TAIL_BYTES]
        if is_last:
            self.is_complete = True
            self._read(_object(bytes(self._kept)) if self._is_whole else self._read_tail())
            self._kept.clear()
        return data

    def _plain(self, data: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            yield data
            return
        while data:
            try:
                yield self._inflate.decompress(data, _WHOLE_BYTES_MAX)
            except zlib.error:  # some other compression
                return
            data = self._inflate.unconsumed_tail

    def _read(self, answer: Mapping[str, Any]) -> None:
        self.usage = usage_in(answer)
        self.finish_reason = _finish_reason(answer)
        self.counted = text_tokens(answer)

    def _read_tail(self) -> dict[str, Any]:
        """A quote within a text is escaped, so what is found is a name of JSON."""
        found = list(_usage_name.finditer(self._kept))
        if not found:
            return {}
        try:
            tail = self._kept[found[-1].end() :].decode()
            return {"usage": json.JSONDecoder().raw_decode(tail)[0]}
        except (ValueError, RecursionError):
            return {}


class StreamReader:
    """Reads server-sent events as they pass.

    hides_usage: the client didn't ask for the chunk that has usage and nothing else, so it isn't passed on; then
    events are passed on whole, and the beginning of one waits for its end.
    """

    def __init__(self, *, hides_usage: bool) -> None:
        self.usage: Quantities | None = None
        self.counted = 0
        self.finish_reason: str | None = None
        self.is_complete = False
        self.is_failed = False
        self._hides_usage = hides_usage
        self._begun = b""

    def feed(self, data: bytes, *, is_last: bool) -> bytes:
        """Read a piece; what of it to pass on."""
        text = self._begun + data
        passed_on, place = [], 0
        for end in _event_end.finditer(text, max(len(self._begun) - 3, 0)):
            event = text[place : end.end()]
            place = end.end()
            if not (self._read(event) and self._hides_usage):
                passed_on.append(event)
        self._begun = text[place:]
        if is_last or len(self._begun) > _EVENT_BYTES_MAX:  # the latter is no event that we could read
            passed_on.append(self._begun)
            self._begun = b""
        return b"".join(passed_on) if self._hides_usage else data

    def _read(self, event: bytes) -> bool:
        """Whether an event has usage and nothing else."""
        lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
        content = b"\n".join(lines)
        if content == b"[DONE]":
            self.is_complete = True
            return False
        return self._take(_object(content))

    def _take(self, chunk: Mapping[str, Any]) -> bool:
        """Read a chunk; whether it has usage and nothing else."""
        usage = usage_in(chunk)
        self.usage = usage or self.usage
        self.counted += tokens_in(chunk)
        self.finish_reason = _finish_reason(chunk) or self.finish_reason
        kind = str(chunk.get("type", ""))
        self.is_failed |= chunk.get("error") is not None or kind in {"error", "response.failed"}
        self.is_complete |= self.finish_reason is not None or kind in {"response.completed", "response.incomplete"}
        return usage is not None and chunk.get("choices") == []


class OtherReader:
    """Reads nothing: errors, subtitles, what is compressed in ways that we don't read."""

    usage: Quantities | None = None
    counted: int | None = None
    finish_reason: str | None = None
    is_failed = False

    def __init__(self) -> None:
        self.is_complete = False

    def feed(self, data: bytes, *, is_last: bool) -> bytes:
        """All of it is passed on."""
        self.is_complete = is_last
        return data


def _object(text: bytes) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def normalised(usage: Mapping[str, Any], provider: Provider | None = None) -> Quantities | None:
    """The quantities that a provider's usage object tells; None if it can't be read."""
    try:
        found = normalise_usage(usage, provider=provider)
    except UnusableUsage as unusable:
        log.warning("a provider's usage can't be read: %s %s", unusable.field, unusable.code)
        return None
    return {name: count for name, count in found.items() if count is not None} or None


def _finish_reason(answer: Mapping[str, Any]) -> str | None:
    choices = answer.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, Mapping) and isinstance(reason := choice.get("finish_reason"), str):
            return reason
    return None


def _text_bytes(value: Any) -> int:
    """Bytes of the generated text in a message or a part of one."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        return sum(map(_text_bytes, value))
    if isinstance(value, Mapping):
        return sum(_text_bytes(value.get(name)) for name in (*_TEXTS, *_PARTS))
    return 0

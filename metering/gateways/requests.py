"""What a request of OpenAI's API, or of Anthropic's, asks for: operation, model, and what it may use. Pure.

A body is read for its size only. Nothing of it is kept in a reading but the model's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypedDict

from metering.rules.counting import BYTES_PER_TOKEN
from metering.rules.quantities import QUANTITY_MAX, Operation

__all__ = ["BYTES_PER_TOKEN", "ENDPOINTS", "IMAGE_TOKENS", "MESSAGES", "Estimates", "Reading", "endpoint_of",
           "lowered", "operation_of", "reading_of"]  # fmt: skip

MESSAGES = "messages"
"""The endpoint of Anthropic's API."""

ENDPOINTS: Mapping[str, Operation] = MappingProxyType(
    {
        "chat/completions": "chat",
        "completions": "completion",
        "responses": "chat",
        MESSAGES: "chat",
        "embeddings": "embedding",
        "rerank": "rerank",
        "audio/transcriptions": "transcription",
        "audio/translations": "transcription",
        "ocr": "ocr",
        "parse": "parse",
        "images/generations": "image",
        "moderations": "other",
        "search": "search",
        "files": "file_ingest",
        "documents": "file_ingest",
    }
)
"""The end of a path to its operation, whatever the gateway has before it (`/v1/`, `/api/v1/`)."""

IMAGE_TOKENS = 1_400
"""An image in a prompt is held to be so many tokens: one of 1024 × 1024 pixels is 765 for GPT-4o (85, and 170
for each tile of 512 pixels: OpenAI's guide to images) and 1,369 for Qwen2.5-VL (patches of 28 pixels: its paper)."""

_OUTPUT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_PROMPT_FIELDS: Mapping[Operation, tuple[str, ...]] = MappingProxyType(
    {
        "chat": ("messages", "input", "instructions", "system", "tools", "functions", "response_format", "text"),
        "completion": ("prompt", "suffix"),
        "embedding": ("input",),
        "rerank": ("query", "documents"),
        "image": ("prompt",),
        "search": ("prompt", "query"),
        "other": ("input",),
    }
)
_IMAGES = frozenset({"image_url", "input_image", "image"})
_OTHER_MEDIA = frozenset({"input_audio", "audio_url", "video_url", "file", "input_file", "base64"})
_GENERATING: frozenset[Operation] = frozenset({"chat", "completion"})


class Estimates(TypedDict, total=False):
    """What a request may use, as the client's `hold` takes it."""

    prompt_tokens: int
    max_output_tokens: int
    min_output_tokens: int
    audio_ms: int
    inputs: int
    pages: int
    searches: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a request asks for.

    model: None where it names none. output_limits: the fields of the body that bound one answer, with what they say.
    output_field: the one to bound it by where there is none. answers: how many are generated (`n`, several prompts).
    inputs: texts to embed. documents: to rank, parse or ingest. pages: at least. can_tell_usage: its stream tells the
    usage at its end if it is asked to, and wants_usage: the client itself asks.
    """

    operation: Operation
    model: str | None
    streamed: bool = False
    prompt_tokens: int = 0
    output_limits: Mapping[str, int] = field(default_factory=dict)
    output_field: str = "max_tokens"
    answers: int = 1
    inputs: int = 0
    documents: int = 0
    pages: int = 0
    images: int = 0
    can_tell_usage: bool = False
    wants_usage: bool = False

    def estimates(self, *, default_output_tokens: int, audio_ms: int = 0) -> Estimates:
        """What to hold. default_output_tokens: of one answer whose length the request doesn't bound."""
        found = Estimates(prompt_tokens=self.prompt_tokens)
        if self.operation in _GENERATING:
            one = max(self.output_limits.values(), default=default_output_tokens)
            found["max_output_tokens"] = min(one * self.answers, QUANTITY_MAX)
            found["min_output_tokens"] = self.answers
        elif self.operation == "embedding":
            found["inputs"] = self.inputs
        elif self.operation == "transcription":
            found["audio_ms"] = audio_ms
        elif self.operation == "ocr":
            found["pages"] = self.pages
        elif self.operation == "search":
            found["searches"] = 1
        return found


def operation_of(path: str) -> Operation | None:
    """The operation that a path is for, by its last segments; None for what isn't metered."""
    endpoint = endpoint_of(path)
    return None if endpoint is None else ENDPOINTS[endpoint]


def endpoint_of(path: str) -> str | None:
    """The end of a path that is a key of ENDPOINTS; None for what isn't metered."""
    segments = [segment for segment in path.split("/") if segment]
    if segments[-3:-2] == ["threads"]:  # messages of OpenAI's assistants generate nothing
        return None
    ends = ("/".join(segments[-length:]) for length in (2, 1))
    return next((end for end in ends if end in ENDPOINTS), None)


def reading_of(operation: Operation, body: Mapping[str, object], *, is_message: bool = False) -> Reading:
    """What a body asks for: of JSON, or the fields of a form. is_message: it is for MESSAGES.

    Values of another type than the API's are as if they weren't there: the gateway itself refuses them. The prompt is
    measured in bytes, BYTES_PER_TOKEN of them a token (rounded up); ids of tokens count one each, images IMAGE_TOKENS,
    other media nothing.
    """
    model = body.get("model")
    options = body.get("stream_options")
    prompt_bytes = sum(_size(body.get(name)) for name in _PROMPT_FIELDS.get(operation, ()))
    limits = {name: count for name in _OUTPUT_FIELDS if (count := _count(body.get(name)))}
    is_response = operation == "chat" and "input" in body and "messages" not in body
    streamed = body.get("stream") in (True, "true", "True", "1")
    return Reading(
        operation,
        model if isinstance(model, str) and model else None,
        streamed=streamed,
        prompt_tokens=-(-prompt_bytes // BYTES_PER_TOKEN),
        output_limits=limits if operation in _GENERATING else {},
        output_field="max_output_tokens" if is_response else "max_tokens",
        answers=_answers(operation, body),
        inputs=_items(body.get("input")) if operation == "embedding" else 0,
        documents=_documents(operation, body),
        pages=max(_length(body.get("pages")), 1) if operation == "ocr" else 0,
        images=_count(body.get("n")) or 1 if operation == "image" else 0,
        can_tell_usage=streamed and operation in _GENERATING and not (is_response or is_message),
        wants_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
    )


def lowered(reading: Reading, granted_output_tokens: int, *, default_output_tokens: int) -> dict[str, int]:
    """Fields to set in the body so that all answers together stay within what was granted; empty if they do.

    default_output_tokens: as given to `estimates`. Granted as much as that, an answer without a limit stays without.
    """
    if reading.operation not in _GENERATING:
        return {}
    one = granted_output_tokens // reading.answers
    if not reading.output_limits:
        return {reading.output_field: one} if one < default_output_tokens else {}
    return {name: one for name, asked in reading.output_limits.items() if asked > one}


def _size(value: object) -> int:
    """Bytes of the text in a value, however nested; what isn't text counts as the text of its tokens would."""
    size, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            size += len(one) if one.isascii() else len(one.encode("utf-8", "surrogatepass"))
        elif isinstance(one, Mapping):
            kind = str(one.get("type"))  # a schema's may be a list
            if kind in _IMAGES:
                size += IMAGE_TOKENS * BYTES_PER_TOKEN
            elif kind not in _OTHER_MEDIA:
                size += sum(map(len, one))
                waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, int | float):
            size += BYTES_PER_TOKEN
    return size


def _answers(operation: Operation, body: Mapping[str, object]) -> int:
    """How many answers are generated."""
    if operation == "completion":
        each = max(_count(body.get("n")) or 1, _count(body.get("best_of")) or 1)
        return min(each * _items(body.get("prompt")), QUANTITY_MAX)
    return (_count(body.get("n")) or 1) if operation == "chat" else 1


def _documents(operation: Operation, body: Mapping[str, object]) -> int:
    if operation == "rerank":
        return _length(body.get("documents"))
    return 1 if operation in {"parse", "file_ingest"} else 0


def _items(value: object) -> int:
    """Texts in what may be a text, its tokens, or a list of either."""
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return len(value)
    return 1


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def _count(value: object) -> int | None:
    """A whole number above 0, as lenient readers of JSON take it; None for anything else."""
    if isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) <= 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(min(value, QUANTITY_MAX)) if value >= 1 else None

"""One normaliser: a provider's usage object becomes Jauge's quantities.

It owns the *meaning* of provider fields (which count contains which). Pure. Invariants of every result:

- null is unknown, never 0; a 0 is a measurement the provider made;
- `cached_input_tokens` ⊆ `input_tokens` and `reasoning_tokens` ⊆ `output_tokens` whenever both are known;
- a total the provider reports agrees with the parts, or the object is refused.

Providers add fields without notice, so unknown fields are ignored, also inside detail objects. Audio, image, text and
prediction details are ignored on purpose: they are already inside the input and output counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from enum import StrEnum

from metering.rules.quantities import QUANTITY_MAX

__all__ = ["Provider", "UnusableUsage", "normalise_usage"]

_TEI_HEADER = "x-compute-tokens"
# Both steps (times 1000, then to a whole number) round up, so a result finer than 40 digits ends on the same ms.
_CEILING = Context(prec=40, rounding=ROUND_CEILING)


class Provider(StrEnum):
    """Who made the usage object, when the caller knows. One provider may use several shapes (one per endpoint)."""

    OPENAI_CHAT = "openai_chat"
    OPENAI_EMBEDDINGS = "openai_embeddings"
    OPENAI_RESPONSES = "openai_responses"
    OPENAI_AUDIO = "openai_audio"
    VLLM = "vllm"
    TEI = "tei"
    MISTRAL = "mistral"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


class UnusableUsage(Exception):
    """A usage object that cannot be turned into quantities. It never holds a value or a name taken from the input.

    - `code`: `not_an_object`, `unknown_shape`, `ambiguous_shape`, `boolean`, `text`, `not_a_number`, `negative`,
      `fractional`, `too_large`, `cached_exceeds_input`, `reasoning_exceeds_output`, `total_mismatch`;
    - `field`: the provider's field (dotted when nested), the Jauge quantity at fault, or `usage` (the whole object);
    - `expected`: what would have been accepted.
    """

    def __init__(self, code: str, field: str, expected: str) -> None:
        super().__init__(f"{field}: {code}, expected {expected}")
        self.code, self.field, self.expected = code, field, expected


def _number(value: object, name: str) -> int | float | Decimal | None:
    """A finite number in [0, QUANTITY_MAX], or None when the provider reported nothing."""
    if value is None:
        return None
    if isinstance(value, bool):  # before int: True is an int in Python, and never a count
        raise UnusableUsage("boolean", name, "a number")
    if isinstance(value, str | bytes):
        raise UnusableUsage("text", name, "a number")
    if not isinstance(value, int | float | Decimal) or not (isinstance(value, int) or Decimal(value).is_finite()):
        raise UnusableUsage("not_a_number", name, "a finite number")
    if value < 0:
        raise UnusableUsage("negative", name, "zero or more")
    if value > QUANTITY_MAX:
        raise UnusableUsage("too_large", name, f"at most {QUANTITY_MAX}")
    return value


def _count(value: object, name: str) -> int | None:
    """A whole number. 12.0 is 12, because JSON has one kind of number; 12.5 is refused."""
    number = _number(value, name)
    if number is not None and number != int(number):
        raise UnusableUsage("fractional", name, "a whole number")
    return None if number is None else int(number)


def _milliseconds(value: object, name: str) -> int | None:
    """Seconds to milliseconds, rounded up: 0.0001 s is 1 ms, 8.47 s (read as JSON wrote it) is exactly 8470 ms."""
    seconds = _number(value, name)
    if seconds is None:
        return None
    milliseconds = _CEILING.multiply(Decimal(str(seconds)), Decimal(1000))
    return _count(milliseconds.to_integral_value(rounding=ROUND_CEILING), name)


def _header_count(value: object, name: str) -> int | None:
    """A count in an HTTP header: ASCII digits as text, or a number that a proxy has already parsed."""
    if not isinstance(value, str):
        return _count(value, name)
    if not (value.isascii() and value.isdecimal()):
        raise UnusableUsage("text", name, "decimal digits")
    # The length comes first: int() itself raises on thousands of digits.
    return _count(int(value) if len(value) <= 16 else QUANTITY_MAX + 1, name)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One quantity: the sum of disjoint `paths`. Unknown if the first one is, unless the total confirms the others."""

    quantity: str
    paths: tuple[str, ...]
    total_confirms: bool = False
    parse: Callable[[object, str], int | None] = _count


@dataclass(frozen=True, slots=True)
class _Shape:
    """One form of usage object: its readings, its total, and the field names that identify it without a provider."""

    readings: tuple[_Reading, ...]
    total: str | None = None
    all_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()

    def reads(self, names: frozenset[str]) -> bool:
        return any(path.partition(".")[0] in names for reading in self.readings for path in reading.paths)

    def identified_by(self, names: frozenset[str]) -> bool:
        any_present = not self.any_of or not names.isdisjoint(self.any_of)
        return any_present and names.issuperset(self.all_of) and names.isdisjoint(self.none_of)


_PROMPT = _Reading("input_tokens", ("prompt_tokens",))
_PROMPT_CACHED = _Reading("cached_input_tokens", ("prompt_tokens_details.cached_tokens",))
_PROMPT_AUDIO = _Reading("audio_ms", ("prompt_audio_seconds",), parse=_milliseconds)
_COMPLETION = _Reading("output_tokens", ("completion_tokens",))
_COMPLETION_REASONING = _Reading("reasoning_tokens", ("completion_tokens_details.reasoning_tokens",))
_INPUT = _Reading("input_tokens", ("input_tokens",))
_INPUT_CACHED = _Reading("cached_input_tokens", ("input_tokens_details.cached_tokens",))
_OUTPUT = _Reading("output_tokens", ("output_tokens",))
_OUTPUT_REASONING = _Reading("reasoning_tokens", ("output_tokens_details.reasoning_tokens",))

_CHAT = _Shape(
    (_PROMPT, _PROMPT_CACHED, _COMPLETION, _COMPLETION_REASONING),
    total="total_tokens",
    all_of=("completion_tokens",),
    none_of=("prompt_audio_seconds",),
)
"""OpenAI chat and completions, and vLLM. Cached ⊆ prompt, reasoning ⊆ completion, total = prompt + completion.
vLLM sends `prompt_tokens_details: null` unless started with `--enable-prompt-tokens-details`. With
`continuous_usage_stats` each chunk carries the counts so far: the last chunk alone is the request's usage.
Source: openai/openai-python `types/completion_usage.py`; vLLM `entrypoints/openai/engine/protocol.py` (`UsageInfo`)."""

_PROMPT_ONLY = _Shape(
    (_PROMPT,),
    total="total_tokens",
    all_of=("prompt_tokens", "total_tokens"),
    none_of=("completion_tokens", "completion_tokens_details", "prompt_audio_seconds"),
)
"""Embeddings (OpenAI, TEI's `/v1/embeddings`) and vLLM rerank: there is no output, total = prompt.
Source: openai/openai-python `create_embedding_response.py`; vLLM `pooling/score/protocol.py`; TEI `http/types.rs`."""

_RESPONSES = _Shape(
    (_INPUT, _INPUT_CACHED, _OUTPUT, _OUTPUT_REASONING),
    total="total_tokens",
    all_of=("input_tokens", "output_tokens", "total_tokens"),
    none_of=("type",),
)
"""OpenAI responses. Cached ⊆ input, reasoning ⊆ output. Source: openai/openai-python `responses/response_usage.py`."""

_AUDIO_DURATION = _Shape((_Reading("audio_ms", ("seconds",), parse=_milliseconds),), all_of=("type", "seconds"))
"""Transcription billed by duration: `{type: "duration", seconds}`, seconds a double (OpenAI) or whole (vLLM).
Source: openai/openai-python `audio/transcription_verbose.py`; vLLM's `TranscriptionUsageAudio`."""

_AUDIO_TOKENS = _Shape((_INPUT, _OUTPUT), total="total_tokens", all_of=("type", "input_tokens", "total_tokens"))
"""Transcription billed by tokens: `{type: "tokens", …}`. Source: openai/openai-python `audio/transcription.py`."""

_TEI_NATIVE = _Shape((_Reading("input_tokens", (_TEI_HEADER,), parse=_header_count),), all_of=(_TEI_HEADER,))
"""TEI's native endpoints (`/embed`, `/rerank`…) count in response headers only; header names in any case.
Source: huggingface/text-embeddings-inference `router/src/http/server.rs` (`ResponseMetadata` to `HeaderMap`)."""

_MISTRAL = _Shape(
    (_PROMPT, _PROMPT_CACHED, _COMPLETION, _PROMPT_AUDIO), total="total_tokens", all_of=("prompt_audio_seconds",)
)
"""Mistral chat, embeddings and transcription. Cached ⊆ prompt. With audio the total also holds the audio's tokens,
which are in neither part (documented sample: 203 s, 4 + 635 tokens, total 3264), so it may exceed the sum.
Conversations add `connector_tokens` to the total, undocumented as input or output: a `total_mismatch`, not a guess.
Source: mistralai/client-python `docs/models/usageinfo.md`; docs.mistral.ai on prompt caching and transcription."""

_MISTRAL_OCR = _Shape((_Reading("pages", ("pages_processed",)),), all_of=("pages_processed",))
"""Mistral OCR's `usage_info`. `doc_size_bytes` measures the document, not the traffic, so it is no `bytes_in`.
Source: mistralai/client-python `docs/models/ocrusageinfo.md`."""

_ANTHROPIC = _Shape(
    (
        _Reading("input_tokens", ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")),
        _Reading("cached_input_tokens", ("cache_read_input_tokens",)),
        _OUTPUT,
        _Reading("reasoning_tokens", ("output_tokens_details.thinking_tokens",)),
        _Reading("web_searches", ("server_tool_use.web_search_requests",)),
    ),
    any_of=("cache_read_input_tokens", "cache_creation_input_tokens", "server_tool_use"),
)
"""Anthropic messages: disjoint counts. Input = input + cache read + cache creation; cached = cache read only (writing
a cache is work done). A cache count that is absent or null adds nothing to the sum, yet cached stays unknown; without
`input_tokens` (some stream deltas) input is unknown. Thinking ⊆ output.
Source: anthropics/anthropic-sdk-python `types/message.py` (`usage`), `usage.py`, `output_tokens_details.py`."""

_GEMINI = _Shape(
    (
        _Reading("input_tokens", ("promptTokenCount", "toolUsePromptTokenCount")),
        _Reading("cached_input_tokens", ("cachedContentTokenCount",)),
        _Reading("output_tokens", ("candidatesTokenCount", "thoughtsTokenCount"), total_confirms=True),
        _Reading("reasoning_tokens", ("thoughtsTokenCount",)),
    ),
    total="totalTokenCount",
    any_of=("promptTokenCount", "candidatesTokenCount"),
)
"""Gemini `usageMetadata`. Cached ⊆ prompt; tool-use prompts beside the prompt; thoughts beside the candidates; total =
all four. Protobuf's JSON leaves zeros out, so thoughts without candidates are the output if the total says so.
Source: ai.google.dev/api/generate-content (UsageMetadata); googleapis/python-genai `types.py` (`total_token_count`)."""

_SHAPES = {
    Provider.OPENAI_CHAT: (_CHAT,),
    Provider.OPENAI_EMBEDDINGS: (_PROMPT_ONLY,),
    Provider.OPENAI_RESPONSES: (_RESPONSES,),
    Provider.OPENAI_AUDIO: (_AUDIO_DURATION, _AUDIO_TOKENS),
    Provider.VLLM: (_CHAT, _AUDIO_DURATION),
    Provider.TEI: (_PROMPT_ONLY, _TEI_NATIVE),
    Provider.MISTRAL: (_MISTRAL, _MISTRAL_OCR),
    Provider.ANTHROPIC: (_ANTHROPIC,),
    Provider.GEMINI: (_GEMINI,),
}
_ALL_SHAPES = tuple(dict.fromkeys(shape for shapes in _SHAPES.values() for shape in shapes))


def normalise_usage(usage: Mapping[str, object], *, provider: Provider | None = None) -> dict[str, int | None]:
    """Turn a provider's usage object into Jauge's quantities.

    Returns the quantities which the object's shape can report, each a count (`audio_ms`: milliseconds, rounded up) or
    None (unknown); quantities that the shape never reports are absent.

    With `provider`, that provider's fields are read and all others ignored. Without it, the shape is recognised by
    field names alone, and exactly one must fit: `completion_tokens` (chat); `prompt_tokens` + `total_tokens` without
    it (embeddings, rerank); `prompt_audio_seconds` or `pages_processed` (Mistral); `input_tokens` + `output_tokens` +
    `total_tokens` (responses, or transcription if there is a `type`); `type` + `seconds` (transcription); a cache or
    server-tool count (Anthropic); `promptTokenCount` or `candidatesTokenCount` (Gemini); an `x-compute-tokens` header
    (TEI). `{input_tokens, output_tokens}` alone is ambiguous: OpenAI's input contains cached tokens, Anthropic's not.
    Providers that share a shape (vLLM, Mistral and OpenAI chat) need no telling apart: the counts mean the same.

    Raises `UnusableUsage`, and nothing else for any JSON object. Sources: the docstring of each shape in this module.
    """
    if not isinstance(usage, Mapping):
        raise UnusableUsage("not_an_object", "usage", "an object")
    usage = {_TEI_HEADER if name.lower() == _TEI_HEADER else name: value for name, value in usage.items()}
    shape = _shape_of(frozenset(usage), provider)
    total = None if shape.total is None else _count(usage.get(shape.total), shape.total)
    quantities = {reading.quantity: _read(usage, reading, total) for reading in shape.readings}
    _check_subset(quantities, "cached_input_tokens", "input_tokens", "cached_exceeds_input")
    _check_subset(quantities, "reasoning_tokens", "output_tokens", "reasoning_exceeds_output")
    if total is not None and shape.total is not None:
        _check_total(total, quantities, shape.total)
    return quantities


def _shape_of(names: frozenset[str], provider: Provider | None) -> _Shape:
    readable = [shape for shape in (_SHAPES[provider] if provider else _ALL_SHAPES) if shape.reads(names)]
    fitting = readable if provider else [shape for shape in readable if shape.identified_by(names)]
    if len(fitting) == 1:
        return fitting[0]
    if readable:
        raise UnusableUsage("ambiguous_shape", "usage", "the fields of one shape, or a named provider")
    raise UnusableUsage("unknown_shape", "usage", "a usage object of a known provider")


def _read(usage: Mapping[str, object], reading: _Reading, total: int | None) -> int | None:
    parts = [reading.parse(_value_at(usage, path), path) for path in reading.paths]
    known = [part for part in parts if part is not None]
    confirmed = reading.total_confirms and total is not None
    return _count(sum(known), reading.quantity) if known and (parts[0] is not None or confirmed) else None


def _value_at(usage: Mapping[str, object], path: str) -> object:
    """The value at a dotted path; None when it, or the detail object around it, is absent or null."""
    outer, _, inner = path.partition(".")
    value = usage.get(outer)
    if inner and value is not None:
        if not isinstance(value, Mapping):
            raise UnusableUsage("not_an_object", outer, "an object or null")
        return value.get(inner)
    return value


def _check_subset(quantities: Mapping[str, int | None], part: str, whole: str, code: str) -> None:
    part_count, whole_count = quantities.get(part), quantities.get(whole)
    if part_count is not None and whole_count is not None and part_count > whole_count:
        raise UnusableUsage(code, part, f"at most {whole}")


def _check_total(total: int, quantities: Mapping[str, int | None], name: str) -> None:
    """A total below its known parts is always wrong; above them, only if nothing else can be in it."""
    parts = [quantities[part] for part in ("input_tokens", "output_tokens") if part in quantities]
    known = sum(part for part in parts if part is not None)
    complete = None not in parts and quantities.get("audio_ms") is None
    if total < known or (complete and total != known):
        raise UnusableUsage("total_mismatch", name, "the sum of input and output")

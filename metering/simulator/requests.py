"""One request: which use, by whom, how it ended, what it measured and how long it took. No time of its own yet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import log
from random import Random
from types import MappingProxyType

from metering.simulator.population import REASONING_MODELS, Application, Caller, Model, Use

REFUSED_SHARE = 0.012
FAILED_SHARE = 0.014
STREAMED_SHARE = 0.86
ABORTED_SHARE = 0.028
"""Of streams."""
UNKNOWN_PARTIAL_SHARE = 0.3
"""Of aborted streams: nobody counted what had been sent."""
UNCOUNTED_SHARE = 0.006
"""Of completed chats: the provider did not say."""
CONTEXT_TOKENS_MAX = 128_000
OUTPUT_TOKENS_MAX = 8_192
AUDIO_MS_MAX = 4 * 3_600_000

Fields = dict[str, object]
Counts = dict[str, int]
Measure = tuple[Counts, int]
"""Quantities, and the work they were in milliseconds."""

ENDPOINTS: Mapping[str, str] = MappingProxyType(
    {
        "chat": "/v1/chat/completions",
        "completion": "/v1/completions",
        "embedding": "/v1/embeddings",
        "rerank": "/v1/rerank",
        "transcription": "/v1/audio/transcriptions",
        "ocr": "/v1/ocr",
        "parse": "/v1/parse",
        "search": "/v1/search",
        "web_search": "/v1/web-search",
        "file_ingest": "/v1/documents",
        "image": "/v1/images/generations",
        "other": "/v1/moderations",
    }
)
_FAILURES = ((503, "upstream_unavailable"), (504, "upstream_timeout"), (500, "upstream_error"), (400, "context_length"))
_FAILURE_WEIGHTS = (40, 30, 15, 15)
_REFUSALS = ("rate_limited", "quota_exceeded")


@dataclass(slots=True)
class Request:
    """A request without its time: data of the event, and when the first token and the end came after the start."""

    data: Fields
    duration: timedelta
    first_token: timedelta | None = None


def draw_request(draw: Random, application: Application) -> Request:
    """A request of an application."""
    use = draw.choices(application.uses, cum_weights=application.use_weights)[0]
    caller = draw.choices(application.callers, cum_weights=application.caller_weights)[0]
    data = _who_and_what(application, caller, use)
    chance = draw.random()
    if chance < REFUSED_SHARE:
        return _refused(draw, data)
    if chance < REFUSED_SHARE + FAILED_SHARE:
        return _failed(draw, data)
    # A replica is kept for a caller, whose earlier prompts it has cached.
    data["model_served"] = use.model.name
    if use.model.replicas:
        data["deployment"] = use.model.deployments[caller.number % use.model.replicas]
    if use.operation == "chat":
        return _chat(draw, data, use.model)
    return _simple(draw, data, use)


def _who_and_what(application: Application, caller: Caller, use: Use) -> Fields:
    model = use.model
    by_category = caller.by_category and model.category is not None
    data: Fields = {
        "tenant": application.tenant,
        "project": application.project,
        "api_key": caller.api_key,
        "application": application.name,
        "operation": use.operation,
        "endpoint": ENDPOINTS[use.operation],
        "model_requested": model.category if by_category else model.name,
    }
    if caller.user is not None:
        data["user"] = caller.user
    if model.category is not None:
        data["category"] = model.category
    return data


def _refused(draw: Random, data: Fields) -> Request:
    """A limit was met: nothing ran."""
    data |= {"status": "refused", "http_status": 429, "error_code": _REFUSALS[draw.random() < 0.3]}
    return Request(data, _milliseconds(draw.uniform(1, 9)))


def _failed(draw: Random, data: Fields) -> Request:
    """The model did not answer, and nobody knows what it used."""
    http_status, code = draw.choices(_FAILURES, _FAILURE_WEIGHTS)[0]
    duration_ms = 60_000 if http_status == 504 else draw.uniform(5, 4_000)
    data |= {"status": "error", "http_status": http_status, "error_code": code}
    return Request(data, _milliseconds(duration_ms))


def _simple(draw: Random, data: Fields, use: Use) -> Request:
    """An answer in one piece."""
    counts, work_ms = _MEASURES[use.operation](draw)
    queue_ms = int(draw.expovariate(1 / 40))
    count_source = "gateway_tokenizer" if use.operation in {"completion", "other"} else "provider"
    data |= {"status": "ok", "http_status": 200, "queue_ms": queue_ms, "count_source": count_source} | counts
    return Request(data, _milliseconds(queue_ms + use.model.first_token_ms * draw.uniform(0.7, 1.8) + work_ms))


def _chat(draw: Random, data: Fields, model: Model) -> Request:
    counts = _chat_counts(draw, reasons=model.name in REASONING_MODELS)
    queue_ms = int(draw.expovariate(1 / 60))
    first_token_ms = queue_ms + model.first_token_ms * draw.uniform(0.7, 1.8) + counts["input_tokens"] / 20
    streamed = draw.random() < STREAMED_SHARE
    data |= {"streamed": streamed, "queue_ms": queue_ms, "http_status": 200}
    if streamed and draw.random() < ABORTED_SHARE:
        _abort(draw, data, counts)
    else:
        _complete(draw, data, counts)
    duration_ms = first_token_ms + counts["output_tokens"] * model.token_us / 1_000
    return Request(data, _milliseconds(duration_ms), _milliseconds(first_token_ms) if streamed else None)


def _abort(draw: Random, data: Fields, counts: Counts) -> None:
    """The caller went away in the middle: a part of the answer was generated, and perhaps counted."""
    counts["output_tokens"] = int(counts["output_tokens"] * draw.random())
    if "reasoning_tokens" in counts:
        counts["reasoning_tokens"] = min(counts["reasoning_tokens"], counts["output_tokens"])
    data |= {"status": "aborted", "http_status": 499}
    if draw.random() >= UNKNOWN_PARTIAL_SHARE:
        data |= counts | {"count_source": "partial_stream"}


def _complete(draw: Random, data: Fields, counts: Counts) -> None:
    cut = counts["output_tokens"] == OUTPUT_TOKENS_MAX
    data |= {"status": "ok", "finish_reason": "length" if cut else "tool_calls" if draw.random() < 0.05 else "stop"}
    if draw.random() >= UNCOUNTED_SHARE:
        data |= counts | {"count_source": "provider"}


def _chat_counts(draw: Random, *, reasons: bool) -> Counts:
    input_tokens = _heavy(draw, 900, 1.2, CONTEXT_TOKENS_MAX)
    output_tokens = _heavy(draw, 280, 1.0, OUTPUT_TOKENS_MAX)
    cached = int(input_tokens * draw.uniform(0.2, 0.95)) if draw.random() < 0.45 else 0
    counts = {"input_tokens": input_tokens, "cached_input_tokens": cached, "output_tokens": output_tokens}
    if reasons:
        counts["reasoning_tokens"] = int(output_tokens * draw.uniform(0.3, 0.8)) if draw.random() < 0.35 else 0
    return counts


def _completion(draw: Random) -> Measure:
    output_tokens = _heavy(draw, 35, 0.7, 512)
    return {"input_tokens": _heavy(draw, 1_400, 0.6, 16_000), "output_tokens": output_tokens}, output_tokens * 11


def _embedding(draw: Random) -> Measure:
    inputs = _heavy(draw, 6, 1.1, 256)
    input_tokens = sum(_heavy(draw, 180, 0.5, 8_192) for _ in range(min(inputs, 4))) * max(1, inputs // 4)
    return {"embedding_inputs": inputs, "input_tokens": input_tokens}, input_tokens // 60


def _rerank(draw: Random) -> Measure:
    documents = draw.randint(8, 40)
    return {"documents": documents, "input_tokens": documents * draw.randint(120, 320)}, documents * 4


def _transcription(draw: Random) -> Measure:
    audio_ms = _heavy(draw, 240_000, 1.3, AUDIO_MS_MAX)
    return {"audio_ms": audio_ms, "bytes_in": audio_ms * 16}, audio_ms // 45


def _ocr(draw: Random) -> Measure:
    pages = _heavy(draw, 4, 1.0, 400)
    counts = {"pages": pages, "input_tokens": pages * 1_150, "output_tokens": pages * draw.randint(150, 700)}
    return counts | {"bytes_in": pages * draw.randint(90_000, 400_000)}, pages * 900


def _parse(draw: Random) -> Measure:
    pages = _heavy(draw, 7, 1.0, 600)
    return {"documents": 1, "pages": pages, "bytes_in": pages * draw.randint(20_000, 120_000)}, pages * 120


def _file_ingest(draw: Random) -> Measure:
    documents = _heavy(draw, 2, 0.9, 200)
    pages = documents * _heavy(draw, 9, 0.8, 500)
    return {"documents": documents, "pages": pages, "bytes_in": pages * draw.randint(20_000, 90_000)}, pages * 30


def _search(draw: Random) -> Measure:
    return {"searches": 1, "input_tokens": _heavy(draw, 24, 0.6, 512)}, draw.randint(8, 60)


def _web_search(draw: Random) -> Measure:
    return {"web_searches": draw.randint(1, 3)}, draw.randint(200, 2_500)


def _image(draw: Random) -> Measure:
    images = draw.randint(1, 4)
    return {"images": images, "input_tokens": _heavy(draw, 60, 0.5, 1_024)}, images * 5_000


def _moderation(draw: Random) -> Measure:
    return {"input_tokens": _heavy(draw, 150, 0.8, 4_096)}, draw.randint(5, 40)


_MEASURES: Mapping[str, Callable[[Random], Measure]] = MappingProxyType(
    {
        "completion": _completion,
        "embedding": _embedding,
        "rerank": _rerank,
        "transcription": _transcription,
        "ocr": _ocr,
        "parse": _parse,
        "search": _search,
        "web_search": _web_search,
        "file_ingest": _file_ingest,
        "image": _image,
        "other": _moderation,
    }
)


def _heavy(draw: Random, median: float, spread: float, ceiling: int) -> int:
    """A log-normal count, at least 1: most are small and a few are very large."""
    return min(int(draw.lognormvariate(log(median), spread)) + 1, ceiling)


def _milliseconds(value: float) -> timedelta:
    return timedelta(milliseconds=int(value))

"""A provider behind a gateway: an OpenAI-compatible ASGI application of ours that counts its own tokens.

A token is a word, and each streamed chunk carries one. An answer has ANSWER_TOKENS of them, or as many as the request
allows if that is less. What goes wrong is chosen by the model's name, or where a gateway passes headers on, by
`x-behaviour`; several are joined by `+`:

    fails-500           answers with this status
    hangs               never answers; hangs-after-3: after so many chunks
    cuts-after-3        the connection breaks after so many chunks
    errs-after-3        the stream goes on with an error, and ends
    waits-20            so many milliseconds before each chunk
    silent              never reports usage
    batches-4           so many tokens travel in each chunk
    answers-100         so many tokens, if the request allows them
    caches-2            so many tokens of a prompt were kept by the provider (messages only)
"""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import uvicorn

ANSWER_TOKENS = 8

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Cut(Exception):
    """The connection breaks."""


@dataclass
class Total:
    """What was used, as the provider itself counts it. requests: those that began to be answered."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    embedding_inputs: int = 0
    documents: int = 0
    audio_ms: int = 0


@dataclass
class Asked:
    """A request as it arrived: JSON's body, or the fields of a form; size and hash of its bytes; who sent it."""

    path: str
    body: dict[str, Any]
    size: int
    digest: str
    key: str
    headers: dict[str, str]


@dataclass
class Upstream:
    """The application. totals: by model and by key (what follows `Bearer`, or the request's `user`)."""

    totals: dict[tuple[str, str], Total] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def of(self, model: str, key: str | None = None) -> Total:
        """What was used of a model, with one key or with all."""
        whole = Total()
        for (name, whose), total in self.totals.items():
            if name == model and key in {None, whose}:
                for each, count in vars(total).items():
                    setattr(whole, each, getattr(whole, each) + count)
        return whole

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        asked = await _read(scope, receive)
        self.asked.append(asked)
        key = asked.key or str(asked.body.get("user", ""))
        total = self.totals.setdefault((str(asked.body.get("model")), key), Total())
        answer = _Answer(asked, total, receive, send)
        if (status := answer.chosen("fails")) is not None:
            await answer.json({"error": {"message": "It fails.", "type": "server_error", "code": None}}, status)
            return
        if "hangs" in answer.behaviour:
            await answer.gone.wait()
            return
        total.requests += 1
        routes = {
            "embeddings": answer.embed, "rerank": answer.rerank, "audio/transcriptions": answer.transcribe,
            "messages": answer.message, "messages/count_tokens": answer.count_tokens,
        }  # fmt: skip
        await next((route for end, route in routes.items() if asked.path.endswith(end)), answer.generate)()


class _Answer:
    def __init__(self, asked: Asked, total: Total, receive: Receive, send: Send) -> None:
        self.asked, self.body, self.total, self._send = asked, asked.body, total, send
        chosen = f"{self.body.get('model', '')}+{asked.headers.get('x-behaviour', '')}"
        self.behaviour = dict(re.fullmatch(r"(.*?)(?:-(\d+))?", one).groups() for one in chosen.split("+"))
        self.gone = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(receive))

    def chosen(self, name: str) -> int | None:
        """The number of a behaviour, if it is chosen."""
        number = self.behaviour.get(name)
        return None if number is None else int(number)

    async def generate(self) -> None:
        """Chat and completions."""
        prompt = self.body.get("messages", self.body.get("prompt", ""))
        input_tokens = _tokens(prompt)
        self.total.input_tokens += input_tokens
        choices = int(self.body.get("n", 1))
        allowed = self.body.get("max_completion_tokens", self.body.get("max_tokens"))
        whole = self.chosen("answers") or ANSWER_TOKENS
        length = whole if allowed is None else min(whole, allowed)
        reason = "stop" if length == whole else "length"
        usage = {"prompt_tokens": input_tokens, "completion_tokens": length * choices}
        usage["total_tokens"] = sum(usage.values())
        if self.body.get("stream"):
            await self._stream(length, choices, reason, usage)
            return
        self.total.output_tokens += length * choices
        text = " ".join(f"w{number}" for number in range(length))
        made = [self._choice(index, text, reason, whole=True) for index in range(choices)]
        await self.json(self._named() | {"choices": made} | ({} if "silent" in self.behaviour else {"usage": usage}))

    async def embed(self) -> None:
        inputs = self.body["input"] if isinstance(self.body["input"], list) else [self.body["input"]]
        used = sum(map(_tokens, inputs))
        self.total.input_tokens += used
        self.total.embedding_inputs += len(inputs)
        vectors = [{"object": "embedding", "index": index, "embedding": [0.125] * 4} for index, _ in enumerate(inputs)]
        answer = {"object": "list", "model": self.body["model"], "data": vectors}
        await self.json(answer | {"usage": {"prompt_tokens": used, "total_tokens": used}})

    async def rerank(self) -> None:
        documents = self.body["documents"]
        used = _tokens(self.body["query"]) * len(documents) + sum(map(_tokens, documents))
        self.total.input_tokens += used
        self.total.documents += len(documents)
        results = [{"index": index, "relevance_score": 0.5} for index, _ in enumerate(documents)]
        await self.json({"id": "r", "results": results, "usage": {"prompt_tokens": used, "total_tokens": used}})

    async def message(self) -> None:
        """Anthropic's API: a message of one text."""
        input_tokens = _tokens(self.body["messages"]) + _tokens(self.body.get("system", ""))
        self.total.input_tokens += input_tokens
        whole = self.chosen("answers") or ANSWER_TOKENS
        length = min(whole, self.body["max_tokens"])
        cached = self.chosen("caches") or 0
        read = {"input_tokens": input_tokens - cached, "cache_read_input_tokens": cached}
        usage = read | {"cache_creation_input_tokens": 0, "output_tokens": 1}
        reason = "end_turn" if length == whole else "max_tokens"
        message: dict[str, Any] = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": self.body["model"], "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": usage,
        }  # fmt: skip
        if self.body.get("stream"):
            await self._stream_message(message, length, reason)
            return
        self.total.output_tokens += length
        text = " ".join(f"w{number}" for number in range(length))
        told = {"content": [{"type": "text", "text": text}], "stop_reason": reason}
        await self.json(message | told | {"usage": usage | {"output_tokens": length}})

    async def _stream_message(self, message: dict[str, Any], length: int, reason: str) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"anthropic-ratelimit-requests-limit", b"50")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._event({"type": "message_start", "message": message})
        await self._event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        await self._event({"type": "ping"})
        for word in range(length):
            await asyncio.sleep((self.chosen("waits") or 0) / 1000)
            await self._misbehave(word)
            if self.gone.is_set():
                return
            self.total.output_tokens += 1
            delta = {"type": "text_delta", "text": f"w{word} "}
            await self._event({"type": "content_block_delta", "index": 0, "delta": delta})
        await self._event({"type": "content_block_stop", "index": 0})
        delta = {"stop_reason": reason, "stop_sequence": None}
        await self._event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": length}})
        await self._event({"type": "message_stop"}, is_last=True)
        self._listening.cancel()

    async def count_tokens(self) -> None:
        await self.json({"input_tokens": _tokens(self.body["messages"])})

    async def transcribe(self) -> None:
        """A form's field `seconds` says how long the audio is; without it no usage is told."""
        answer: dict[str, Any] = {"text": "bonjour"}
        if "seconds" in self.body:
            answer["usage"] = {"type": "duration", "seconds": float(self.body["seconds"])}
            self.total.audio_ms += round(float(self.body["seconds"]) * 1000)
        await self.json(answer)

    async def json(self, answer: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(answer).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
        self._listening.cancel()

    async def _stream(self, length: int, choices: int, reason: str, usage: dict[str, int]) -> None:
        asks = (self.body.get("stream_options") or {}).get("include_usage") and "silent" not in self.behaviour
        common = self._named() | ({"usage": None} if asks else {})
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
        )
        batch = self.chosen("batches") or 1
        for chunk, first in enumerate(range(0, length, batch)):
            await asyncio.sleep((self.chosen("waits") or 0) / 1000)
            await self._misbehave(chunk)
            if self.gone.is_set():
                return
            words = range(first, min(first + batch, length))
            made = [self._choice(index, "".join(f"w{word} " for word in words), None) for index in range(choices)]
            self.total.output_tokens += len(words) * choices
            await self._event(common | {"choices": made})
        await self._event(common | {"choices": [self._choice(index, "", reason) for index in range(choices)]})
        if asks:
            await self._event(common | {"choices": [], "usage": usage})
        await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        self._listening.cancel()

    async def _misbehave(self, chunk: int) -> None:
        if self.chosen("cuts-after") == chunk:
            raise Cut
        if self.chosen("hangs-after") == chunk:
            await self.gone.wait()
        if self.chosen("errs-after") == chunk and self.asked.path.endswith("messages"):
            error = {"type": "overloaded_error", "message": "Overloaded"}
            await self._event({"type": "error", "error": error}, is_last=True)
            self.gone.set()
        elif self.chosen("errs-after") == chunk:
            await self._event({"error": {"message": "It fails.", "type": "server_error", "code": 500}})
            await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
            self.gone.set()

    async def _event(self, event: dict[str, Any], *, is_last: bool = False) -> None:
        name = f"event: {event['type']}\n".encode() if "type" in event else b""
        body = name + b"data: " + json.dumps(event).encode() + b"\n\n"
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.set()

    def _named(self) -> dict[str, Any]:
        is_chat = "messages" in self.body
        kind = f"{'chat.completion' if is_chat else 'text_completion'}{'.chunk' if self.body.get('stream') else ''}"
        return {"id": "c-1", "object": kind, "created": 1, "model": self.body.get("model")}

    def _choice(self, index: int, text: str, reason: str | None, *, whole: bool = False) -> dict[str, Any]:
        if "messages" not in self.body:
            return {"index": index, "text": text, "finish_reason": reason}
        content = {"role": "assistant", "content": text} if whole else {"content": text} if text else {}
        return {"index": index, ("message" if whole else "delta"): content, "finish_reason": reason}


async def _read(scope: dict[str, Any], receive: Receive) -> Asked:
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    kind = headers.get("content-type", "")
    digest, size, kept = sha256(), 0, bytearray()
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        digest.update(chunk)
        size += len(chunk)
        if len(kept) < 1024 * 1024:
            kept += chunk
        if not message.get("more_body"):
            break
    body = json.loads(kept) if "multipart" not in kind and kept else _fields(bytes(kept))
    key = headers.get("authorization", headers.get("x-api-key", "")).removeprefix("Bearer ")
    return Asked(scope["path"], body, size, digest.hexdigest(), key, headers)


def _fields(form: bytes) -> dict[str, Any]:
    """Short fields of a form; its files are left alone."""
    found = re.findall(rb'name="(\w+)"\r\n(?:Content-[^\r]*\r\n)*\r\n([^\r]{0,200})\r\n--', form)
    return {name.decode(): value.decode() for name, value in found}


def _tokens(value: Any) -> int:
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(map(_tokens, value))
    return _tokens(value.get("content", value.get("text", ""))) if isinstance(value, dict) else 1


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Address of an ASGI application that is served as long as the block runs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=10)

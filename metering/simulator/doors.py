"""The two doors of the ledger, seen from a gateway: HTTP and the stream. Each takes a batch once, or says why not."""

import gzip
import http.client
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import msgspec
import redis
import zstandard
from redis.backoff import NoBackoff
from redis.retry import Retry

from metering.errors import Unavailable
from metering.valkey import connect

SOCKET_S_MAX = 5.0
ANSWER_S_MAX = 60.0
STOP_CHECK_S = 0.1
ENTRY_BYTES_MAX = 512 * 1024
"""Bytes of one entry of the stream before compression; the ledger reads twice as much."""
RETRY_S = 1
RETRY_S_MAX = 60

Framing = Literal["application/x-ndjson", "application/cloudevents-batch+json"]
LINES: Framing = "application/x-ndjson"
ARRAY: Framing = "application/cloudevents-batch+json"


class SendError(Exception):
    """The door will never take this batch: the token or the call is wrong, and trying again would not help."""


class StoppedError(Exception):
    """The simulation was told to stop while it waited for an answer."""


class Answer(msgspec.Struct, frozen=True):
    """What became of a batch; a stream says nothing of it, and counts it as streamed."""

    accepted: int = 0
    duplicate: int = 0
    conflict: int = 0
    rejected: int = 0
    streamed: int = 0


class Door(Protocol):
    """A way to bring events to the ledger."""

    def send(self, batch: Sequence[bytes], framing: Framing, encoding: str | None, stop: Event) -> Answer:
        """Bring a batch. Raises: Unavailable to try again later; SendError; StoppedError."""

    def close(self) -> None:
        """Leave no connection open."""


def frame(batch: Sequence[bytes], framing: Framing) -> bytes:
    """Body of a call: lines, or an array."""
    return b"\n".join(batch) if framing == LINES else b"[" + b",".join(batch) + b"]"


def compress(body: bytes, encoding: str | None) -> bytes:
    """Body in `gzip`, `zstd` or as it is."""
    match encoding:
        case "gzip":
            return gzip.compress(body, compresslevel=1)
        case "zstd":
            return zstandard.compress(body, level=1)
        case _:
            return body


class HttpDoor:
    """`POST {url}/v1/events` over one connection that is kept."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.hostname is None:
            raise ValueError("The address of the ledger begins with http:// or https://")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=SOCKET_S_MAX)
        self._path = parts.path.rstrip("/") + "/v1/events"
        self._authorization = f"Bearer {token}"

    def send(self, batch: Sequence[bytes], framing: Framing, encoding: str | None, stop: Event) -> Answer:
        headers = {"Authorization": self._authorization, "Content-Type": framing}
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        try:
            self._connection.request("POST", self._path, compress(frame(batch, framing), encoding), headers)
            _await_answer(self._connection.sock, stop)
            response = self._connection.getresponse()
            status, retry_after, text = response.status, response.getheader("Retry-After"), response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unavailable("no_answer", "The ledger does not answer.", retry_after_s=RETRY_S) from error
        except StoppedError:
            self.close()
            raise
        return _answer(status, retry_after, text)

    def close(self) -> None:
        self._connection.close()


def _await_answer(sock: socket.socket, stop: Event) -> None:
    """Wait until the answer begins, so that no slow server keeps a stop waiting."""
    deadline = time.monotonic() + ANSWER_S_MAX
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        while not selector.select(STOP_CHECK_S):
            if stop.is_set():
                raise StoppedError
            if time.monotonic() > deadline:
                raise TimeoutError


def _answer(status: int, retry_after: str | None, text: bytes) -> Answer:
    if status in {200, 207}:
        try:
            return msgspec.json.decode(text, type=Answer)
        except msgspec.DecodeError as error:
            raise SendError("The server that answers is not a ledger.") from error
    if status in {408, 429} or status >= 500:
        seconds = int(retry_after) if retry_after is not None and retry_after.isdecimal() else RETRY_S
        raise Unavailable("busy", f"The ledger answered {status}.", retry_after_s=min(seconds, RETRY_S_MAX))
    raise SendError(f"The ledger refused the call with HTTP {status}.")


class StreamDoor:
    """`XADD` of a batch, as few entries as may be."""

    def __init__(self, url: str, stream_name: str) -> None:
        no_retry = Retry(NoBackoff(), 0)  # ours can be stopped
        self._client = connect(url, socket_timeout=SOCKET_S_MAX, socket_connect_timeout=SOCKET_S_MAX, retry=no_retry)
        self._stream_name = stream_name

    def send(self, batch: Sequence[bytes], framing: Framing, encoding: str | None, stop: Event) -> Answer:
        try:
            for part in _parts(batch):
                if stop.is_set():
                    raise StoppedError
                fields: dict[Any, Any] = {"body": compress(frame(part, framing), encoding)}
                if encoding is not None:
                    fields["encoding"] = encoding
                self._client.xadd(self._stream_name, fields)
        except (
            redis.ConnectionError,
            redis.TimeoutError,
            redis.exceptions.OutOfMemoryError,
            redis.exceptions.RedisClusterException,
        ) as error:
            raise Unavailable("no_answer", "The stream takes nothing now.", retry_after_s=RETRY_S) from error
        except redis.RedisError as error:
            raise SendError(f"The stream refused the entry: {type(error).__name__}.") from error
        return Answer(streamed=len(batch))

    def close(self) -> None:
        self._client.close()


def _parts(batch: Sequence[bytes]) -> Iterator[list[bytes]]:
    """A batch in parts that an entry may hold; a larger event is a part of its own, for the ledger to refuse."""
    part: list[bytes] = []
    size_bytes = 0
    for event in batch:
        if part and size_bytes + len(event) > ENTRY_BYTES_MAX:
            yield part
            part, size_bytes = [], 0
        part.append(event)
        size_bytes += len(event) + 1
    if part:
        yield part

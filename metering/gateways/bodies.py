"""The body of a request: read before the gateway has it, and given to it as it came.

JSON is kept in memory. A form (an upload) is kept there as far as it is small, otherwise in a temporary file without a
name, which is gone with the request whatever happens to the process.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from email.parser import BytesHeaderParser
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

import msgspec

from metering.gateways.audio import BYTES_PER_MS, duration_ms

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON_BYTES_MAX = 64 * 1024 * 1024
MEMORY_BYTES = 1024 * 1024
"""Of an upload, before it goes to a file."""

_PIECE_BYTES = 256 * 1024
_FIELD_BYTES_MAX = 64 * 1024
_HEADERS_BYTES_MAX = 8 * 1024
_PARTS_MAX = 100

_boundary = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)


class Unserved(Exception):
    """A request that is answered without the gateway: an HTTP status and a code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class Left(Exception):
    """The client left before its request was whole."""


class JsonBody:
    """A JSON object. fields: what it has; size: in bytes."""

    audio_ms: int | None = None
    held_audio_ms = 0

    def __init__(self, content: bytes) -> None:
        self.fields: Mapping[str, object] = _object(content)
        self.content = content
        self.size = len(content)

    def set(self, changes: Mapping[str, object]) -> None:
        """Give fields another value; all others stay as they were written."""
        fields = msgspec.json.decode(self.content, type=dict[str, msgspec.Raw])
        fields |= {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in changes.items()}
        self.content = msgspec.json.encode(fields)

    async def pieces(self) -> AsyncIterator[tuple[bytes, bool]]:
        """The body in pieces, each with whether more come. It isn't kept after that."""
        given, self.content, self.fields = [self.content], b"", {}
        yield given.pop(), False

    def close(self) -> None:
        """Nothing is kept elsewhere."""


class FormBody:
    """A form. fields: short ones without a file name; size: in bytes.

    audio_ms: how long its first file lasts; None if that can't be told, and then held_audio_ms is what its size says.
    """

    def __init__(self, file: SpooledTemporaryFile[bytes], size: int, boundary: bytes) -> None:
        self._file = file
        self.size = size
        self.fields: dict[str, object] = {}
        self.audio_ms: int | None = None
        self.held_audio_ms = 0
        has_file = False
        stream = cast(BinaryIO, file)
        for head, start, end in _parts(stream, boundary):
            name, is_file = _disposition(head)
            if is_file and not has_file:
                has_file = True
                self.audio_ms = duration_ms(stream, start, end)
                self.held_audio_ms = (end - start) // BYTES_PER_MS if self.audio_ms is None else self.audio_ms
            elif not is_file and end - start <= _FIELD_BYTES_MAX:
                if name == "model" and name in self.fields:  # which of them the gateway takes, we can't know
                    raise Unserved(400, "malformed_form")
                stream.seek(start)
                self.fields[name] = stream.read(end - start).decode(errors="replace")

    async def pieces(self) -> AsyncIterator[tuple[bytes, bool]]:
        """The body in pieces, each with whether more come."""
        await asyncio.to_thread(self._file.seek, 0)
        given = 0
        while given < self.size:
            piece = await asyncio.to_thread(self._file.read, _PIECE_BYTES)
            given += len(piece)
            yield piece, given < self.size

    def close(self) -> None:
        """Free what was kept."""
        self._file.close()


Body = JsonBody | FormBody


async def read_json(receive: Receive) -> JsonBody:
    """Read a JSON object. Raises: Unserved, Left."""
    content = bytearray()
    async for piece in _arriving(receive, JSON_BYTES_MAX):
        content += piece
    return JsonBody(bytes(content))


async def read_form(receive: Receive, content_type: str, *, bytes_max: int) -> FormBody:
    """Read an upload. Raises: Unserved, Left."""
    found = _boundary.search(content_type)
    if found is None:
        raise Unserved(400, "malformed_form")
    file = SpooledTemporaryFile[bytes](MEMORY_BYTES)
    try:
        size = 0
        async for piece in _arriving(receive, bytes_max):
            await asyncio.to_thread(file.write, piece)
            size += len(piece)
        return await asyncio.to_thread(FormBody, file, size, (found[1] or found[2]).encode())
    except BaseException:
        file.close()
        raise


def replayed(body: Body, receive: Receive) -> Receive:
    """What gives the body to the gateway, and then whatever comes from its client."""
    pieces = body.pieces()
    is_over = False

    async def replay() -> Message:
        nonlocal is_over
        if is_over:
            return await receive()
        piece, has_more = await anext(pieces, (b"", False))
        is_over = not has_more
        return {"type": "http.request", "body": piece, "more_body": has_more}

    return replay


async def _arriving(receive: Receive, bytes_max: int) -> AsyncIterator[bytes]:
    """The pieces of a body, as they come. Raises: Unserved beyond so many bytes, Left."""
    size, has_more = 0, True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Left
        piece = message.get("body", b"")
        has_more = message.get("more_body", False)
        size += len(piece)
        if size > bytes_max:
            raise Unserved(413, "body_too_large")
        yield piece


def _object(content: bytes) -> dict[str, object]:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unserved(400, "malformed_json")
    return found


def _parts(file: BinaryIO, boundary: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Headers of each part of a form, where its content begins and ends (RFC 7578). Raises: Unserved."""
    delimiter = b"\r\n--" + boundary
    file.seek(0)
    is_at_start = file.read(len(delimiter) - 2) == delimiter[2:]
    place = -2 if is_at_start else _find(file, delimiter, 0)
    for _ in range(_PARTS_MAX):
        place += len(delimiter)
        file.seek(place)
        head = file.read(_HEADERS_BYTES_MAX)
        if head.startswith(b"--"):
            return
        headers, blank, _content = head.partition(b"\r\n\r\n")
        if not head.startswith(b"\r\n") or not blank:
            break
        end = _find(file, delimiter, place + len(headers) + 2)
        yield headers[2:], place + len(headers) + 4, end
        place = end
    raise Unserved(400, "malformed_form")


def _find(file: BinaryIO, wanted: bytes, place: int) -> int:
    """Where bytes are in a file, from a place on. Raises: Unserved if they aren't."""
    overlap = len(wanted) - 1
    file.seek(place)
    block = file.read(MEMORY_BYTES)
    while len(block) > overlap:
        if (found := block.find(wanted)) >= 0:
            return place + found
        place += len(block) - overlap
        block = block[len(block) - overlap :] + file.read(MEMORY_BYTES)
    raise Unserved(400, "malformed_form")


def _disposition(headers: bytes) -> tuple[str, bool]:
    """Name of a part, and whether it is a file."""
    disposition = BytesHeaderParser().parsebytes(headers)
    name = disposition.get_param("name", "", header="content-disposition")
    if not isinstance(name, str):  # in the extended notation, which forms don't use
        raise Unserved(400, "malformed_form")
    return name, disposition.get_filename() is not None

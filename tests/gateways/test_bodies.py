"""Bodies are read before the gateway has them, and given to it as they came."""

import asyncio
import itertools
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.client import AsyncJauge
from metering.gateways.asgi import JaugeMiddleware
from metering.gateways.audio import BYTES_PER_MS
from metering.gateways.bodies import FormBody, JsonBody, Left, Unserved, read_form, read_json, replayed
from tests.gateways.recordings import wav

BOUNDARY = "form-4f"
KIND = f'multipart/form-data; boundary="{BOUNDARY}"'


def arriving(pieces: Iterable[bytes], *, leaves: bool = False) -> Any:
    """What a server gives of a body, piece by piece; leaves: the client goes in the midst of it."""
    given_out = iter([*pieces, None])
    following = next(given_out)

    async def receive() -> dict[str, Any]:
        nonlocal following
        piece = following
        following = next(given_out, None)
        if piece is None or (leaves and following is None):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": following is not None}

    return receive


def form(*parts: tuple[str, bytes], boundary: str = BOUNDARY) -> bytes:
    """A form of parts, each what comes after `form-data; ` and its content."""
    lines = [
        f"--{boundary}\r\nContent-Disposition: form-data; {about}\r\n\r\n".encode() + content + b"\r\n"
        for about, content in parts
    ]
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


def cut(content: bytes, size: int) -> list[bytes]:
    return [content[place : place + size] for place in range(0, max(len(content), 1), size)]


async def whole(body: JsonBody | FormBody) -> bytes:
    """A body as the gateway gets it."""
    receive = replayed(body, arriving([]))
    got = bytearray()
    while True:
        message = await receive()
        got += message["body"]
        if not message["more_body"]:
            break
    assert (await receive())["type"] == "http.disconnect"
    return bytes(got)


def read(content: bytes, *, size: int = 7_000, kind: str = KIND, bytes_max: int = 10**9) -> tuple[FormBody, bytes]:
    async def reading() -> tuple[FormBody, bytes]:
        body = await read_form(arriving(cut(content, size)), kind, bytes_max=bytes_max)
        try:
            return body, await whole(body)
        finally:
            body.close()

    return asyncio.run(reading())


@pytest.mark.parametrize("size", [1, 1_000, 10**7])
@pytest.mark.parametrize("seconds", [0.05, 60])
def test_a_form_is_read_and_given_on_byte_for_byte(size: int, seconds: float) -> None:
    if size == 1 and seconds > 1:
        seconds = 0.1
    content = form(
        ('name="file"; filename="a.wav"', wav(seconds)), ('name="model"', b"whisper"), ("name=language", b"fr")
    )
    body, given_on = read(content, size=size)
    assert given_on == content
    assert body.fields == {"model": "whisper", "language": "fr"}
    assert (body.audio_ms, body.held_audio_ms, body.size) == (seconds * 1_000, seconds * 1_000, len(content))


def test_a_recording_that_tells_nothing_is_held_by_its_size() -> None:
    body, _given_on = read(form(('name="file"; filename="a"', b"x" * 8_000)))
    assert (body.audio_ms, body.held_audio_ms) == (None, 8_000 // BYTES_PER_MS)


@given(content=st.binary(max_size=60), size=st.integers(1, 90), text=st.text(alphabet="ab\r\n-é", max_size=12))
def test_any_content_of_parts_comes_out_as_it_was(content: bytes, size: int, text: str) -> None:
    if f"\r\n--{BOUNDARY}".encode() in b"\r\n" + content:
        return
    body, given_on = read(form(('name="file"; filename=""', content), ('name="model"', text.encode())), size=size)
    assert body.fields == {"model": text}
    assert body.size == len(given_on)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"--form-4f", b"--form-4f\r\nno end", b"--form-4f\r\nno: blank\r\n--form-4f--",
        b"--form-4f\n\nContent-Disposition: form-data; name=model\n\nx\n--form-4f--",
        form(('name="model"', b"cheap"), ('name="model"', b"dear")),
        form(("name*=utf-8''model", b"x")), form(*[('name="a"', b"")] * 101),
    ],
)  # fmt: skip
def test_a_form_that_cannot_be_read_or_reads_two_ways_is_refused(content: bytes) -> None:
    with pytest.raises(Unserved) as told:
        read(content)
    assert (told.value.status, told.value.code) == (400, "malformed_form")


def test_what_is_too_large_is_refused_before_it_is_whole() -> None:
    with pytest.raises(Unserved) as told:
        read(form(('name="file"; filename="a"', bytes(10_000))), bytes_max=9_000)
    assert (told.value.status, told.value.code) == (413, "body_too_large")
    with pytest.raises(Unserved):
        read(b"", kind="multipart/form-data")


@pytest.mark.parametrize("reader", [read_json, lambda receive: read_form(receive, KIND, bytes_max=100)])
def test_a_client_that_leaves_is_told_apart(reader: Any) -> None:
    with pytest.raises(Left):
        asyncio.run(reader(arriving([b"{", b"}"], leaves=True)))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": NaN}', b"\xff\xfe{}", b"[" * 10**6, b'{"a":' * 10**5])
def test_what_is_no_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(Unserved) as told:
        asyncio.run(read_json(arriving([content])))
    assert (told.value.status, told.value.code) == (400, "malformed_json")


def test_json_is_given_on_as_it_was_written_but_for_what_is_set() -> None:
    async def reading(changes: dict[str, object]) -> bytes:
        body = await read_json(
            arriving(cut(b'{"b": 1.10, "a":\t"\\u00e9",  "big": 123456789012345678901234567890}', 5))
        )
        if changes:
            body.set(changes)
        return await whole(body)

    assert asyncio.run(reading({})).startswith(b'{"b": 1.10, "a":\t')
    changed = asyncio.run(reading({"a": 5, "c": {"d": True}}))
    assert changed == b'{"b":1.10,"a":5,"big":123456789012345678901234567890,"c":{"d":true}}'


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/files"])
def test_an_upload_of_100_mb_is_not_held_in_memory(tmp_path: Path, path: str) -> None:
    """Python's memory at its highest, from the first piece to the end of the answer; Jauge is away."""
    size, piece = 100 * 1024 * 1024, bytes(64 * 1024)
    head, _, end = form(('name="model"', b"m"), ('name="file"; filename="a.wav"', b"|")).partition(b"|")
    parts = itertools.chain([head + wav(0.1)[:44]], itertools.repeat(piece, size // len(piece)), [end])
    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-type", KIND.encode())]}
    scope["headers"] += [(b"authorization", b"Bearer sk")]
    received, sent = 0, []

    async def receive() -> dict[str, Any]:
        piece = next(parts, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        nonlocal received
        while (message := await receive())["more_body"]:
            received += len(message["body"])
        received += len(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"bonjour"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def passing() -> int:
        jauge = AsyncJauge("http://127.0.0.1:9", "token", source="gw", spool=tmp_path, on_outage="allow")
        tracemalloc.start()
        try:
            await JaugeMiddleware(app, client=jauge, models={"file_ingest": "m"})(scope, receive, send)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            await jauge.aclose()

    assert asyncio.run(passing()) < 8 * 1024 * 1024
    assert received > size
    assert sent[-1]["body"] == b"bonjour"

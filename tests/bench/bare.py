"""Two applications that do nothing, to measure what the server itself takes: a bare one, and one of the framework."""

from typing import Any

from litestar import Litestar, post

ANSWER = b'{"allowed":true}'


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """Read the body and answer a constant."""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        more = message.get("more_body", False)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


@post("/", status_code=200, sync_to_thread=False)
def plain_handler(data: dict[str, Any]) -> dict[str, bool]:
    return {"allowed": bool(data)}


plain = Litestar([plain_handler], openapi_config=None, logging_config=None)

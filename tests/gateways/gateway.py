"""A small gateway as one would write it: it passes requests on, and answers back. It knows nothing of Jauge."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

PASSED_ON = ("authorization", "content-type", "x-api-key", "x-behaviour")


def make_gateway(upstream_url: str) -> FastAPI:
    """A gateway in front of a provider."""
    http = httpx.AsyncClient(base_url=upstream_url, timeout=30)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with http:
            yield

    gateway = FastAPI(lifespan=lifespan)

    @gateway.get("/v1/models")
    async def models() -> list[str]:
        return ["small"]

    @gateway.post("/v1/{path:path}")
    async def serve(path: str, request: Request) -> Response:
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        asked = http.build_request("POST", f"/v1/{path}", content=request.stream(), headers=headers)
        answer = await http.send(asked, stream=True)
        kind = answer.headers["content-type"]
        if kind.startswith("text/event-stream"):
            return StreamingResponse(_relayed(answer), media_type=kind)
        return Response(await answer.aread(), answer.status_code, media_type=kind)

    return gateway


async def _relayed(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()

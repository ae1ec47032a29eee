"""Calls over HTTP, by httpx."""

from collections.abc import Mapping

import httpx
import msgspec

from metering.client.protocol import NO_ANSWER, Answer, Call


class HttpCarrier:
    """Carries calls over connections that are kept, for code that doesn't await."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def post(self, call: Call) -> Answer:
        for _ in range(call.tries):
            try:
                return _answered(self._http.send(_request(self._http, call)))
            except httpx.TimeoutException:
                break
            except httpx.RequestError:  # an idle connection may have been closed under us
                continue
        return NO_ANSWER

    def close(self) -> None:
        self._http.close()


class AsyncHttpCarrier:
    """Carries calls over connections that are kept, for code that awaits."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def post(self, call: Call) -> Answer:
        for _ in range(call.tries):
            try:
                return _answered(await self._http.send(_request(self._http, call)))
            except httpx.TimeoutException:
                break
            except httpx.RequestError:  # an idle connection may have been closed under us
                continue
        return NO_ANSWER

    async def aclose(self) -> None:
        await self._http.aclose()


def _request(http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    is_lines = isinstance(call.body, bytes)
    return http.build_request(
        "POST",
        call.path,
        content=call.body if isinstance(call.body, bytes) else msgspec.json.encode(call.body),
        headers={"Content-Type": "application/x-ndjson" if is_lines else "application/json"},
        timeout=call.timeout_s,
    )


def answer_of(status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    """An answer as it came, its headers under names in small letters; one without a JSON object has an empty body."""
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = {}
    return Answer(status, body if isinstance(body, dict) else {}, headers)


def _answered(response: httpx.Response) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return answer_of(response.status_code, headers, response.content)

"""Middleware around a gateway in Python that serves OpenAI's API or Anthropic's, and needs no change: any ASGI.

    key, model, size ──▶ hold ──▶ the gateway ──▶ its answer, read as it passes ──▶ commit, event

The gateway gets the body as it came; only the bound of the output is lowered to what was granted, and a stream is asked
for its usage. The client gets the answer as it comes, with headers that say where its limits stand.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType

from metering.client import AsyncGateway, AsyncHold, Refused
from metering.gateways.bodies import Body, JsonBody, Left, Receive, Scope, Send, Unserved, read_form, read_json
from metering.gateways.passage import Incoming, Passage
from metering.gateways.refusing import anthropic_body_of, body_of, messages_of
from metering.gateways.requests import ENDPOINTS, MESSAGES, Reading, endpoint_of, lowered, reading_of
from metering.rules.quantities import Operation

App = Callable[[Scope, Receive, Send], Awaitable[None]]

DEFAULT_OUTPUT_TOKENS = 4_096
UPLOAD_BYTES_MAX = 512 * 1024 * 1024

_MODELLESS: frozenset[Operation] = frozenset({"search", "parse", "file_ingest"})


class JaugeMiddleware:
    """Meters what is POSTed to the endpoints of the API (`requests.ENDPOINTS`); all else passes.

    client: of the loop that serves; who opens it closes it, and its `on_outage` says whether requests run while Jauge
    is away. default_output_tokens: held for an answer whose length the request doesn't bound. models: under which model
    searches, parsing and files count, as their requests name none; those without one pass. asks_usage: whether a stream
    is asked for its usage where the client doesn't. upload_bytes_max: beyond, 413.
    """

    def __init__(
        self,
        app: App,
        *,
        client: AsyncGateway,
        default_output_tokens: int = DEFAULT_OUTPUT_TOKENS,
        models: Mapping[Operation, str] = MappingProxyType({}),
        asks_usage: bool = True,
        upload_bytes_max: int = UPLOAD_BYTES_MAX,
    ) -> None:
        self._app = app
        self._client = client
        self._default_output_tokens = default_output_tokens
        self._models = models
        self._asks_usage = asks_usage
        self._upload_bytes_max = upload_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or answer why it may not run."""
        is_call = scope["type"] == "http" and scope["method"] == "POST"
        endpoint = endpoint_of(scope["path"]) if is_call else None
        if endpoint is None or (ENDPOINTS[endpoint] in _MODELLESS and ENDPOINTS[endpoint] not in self._models):
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as until_it_ends:
            try:
                digest = _key_digest(endpoint, scope)
                incoming = await self._read(endpoint, scope, receive)
                until_it_ends.callback(incoming.close)
                hold = await until_it_ends.enter_async_context(self._hold(digest, incoming))
            except (Refused, Unserved) as no:
                headers = no.headers if isinstance(no, Refused) else {}
                body = (anthropic_body_of if endpoint == MESSAGES else body_of)(no.status, no.code)
                for message in messages_of(no.status, body, headers):
                    await send(message)
                return
            except Left:
                return
            scope = self._fit(incoming, hold, scope)
            await Passage(hold, incoming, receive, send).run(self._app, scope)

    async def _read(self, endpoint: str, scope: Scope, receive: Receive) -> Incoming:
        """What a request asks for; a body that needs no reading isn't read. Raises: Unserved, Left."""
        operation = ENDPOINTS[endpoint]
        if operation in _MODELLESS:
            return Incoming(endpoint, reading_of(operation, {"model": self._models[operation]}), None)
        kind = _header(scope, b"content-type")
        if kind.lower().startswith("multipart/form-data"):
            body: Body = await read_form(receive, kind, bytes_max=self._upload_bytes_max)
        else:
            body = await read_json(receive)
        return Incoming(endpoint, reading_of(operation, body.fields, is_message=endpoint == MESSAGES), body)

    def _hold(self, digest: str, incoming: Incoming) -> AsyncHold:
        """The hold to open. Raises: Unserved if no model is named."""
        reading, body = incoming.reading, incoming.body
        if reading.model is None:
            raise Unserved(400, "missing_model")
        estimates = reading.estimates(
            default_output_tokens=self._default_output_tokens, audio_ms=0 if body is None else body.held_audio_ms
        )
        return self._client.hold(
            key_sha256=digest,
            model=reading.model,
            operation=reading.operation,
            endpoint=f"/v1/{incoming.endpoint}",
            streamed=reading.streamed,
            **estimates,
        )

    def _fit(self, incoming: Incoming, hold: AsyncHold, scope: Scope) -> Scope:
        """Fit the body to what was granted; the scope for the gateway."""
        reading, body, headers = incoming.reading, incoming.body, list(scope["headers"])
        if reading.streamed:  # what is compressed can't be read as it passes
            headers = [(name, value) for name, value in headers if name != b"accept-encoding"]
        if isinstance(body, JsonBody) and (changes := self._changes(reading, body, hold.granted_output_tokens)):
            incoming.hides_usage = "stream_options" in changes
            body.set(changes)
            size = str(len(body.content)).encode()
            headers = [(name, size if name == b"content-length" else value) for name, value in headers]
        return {**scope, "headers": headers}

    def _changes(self, reading: Reading, body: JsonBody, granted_output_tokens: int) -> dict[str, object]:
        """Fields to set in the body: the bound of its output, and that its stream tells its usage."""
        changes: dict[str, object] = {
            **lowered(reading, granted_output_tokens, default_output_tokens=self._default_output_tokens)
        }
        if self._asks_usage and reading.can_tell_usage and not reading.wants_usage:
            options = body.fields.get("stream_options")
            changes["stream_options"] = (options if isinstance(options, dict) else {}) | {"include_usage": True}
        return changes


def _key_digest(endpoint: str, scope: Scope) -> str:
    """SHA-256 of the request's key. Raises: Unserved without one."""
    scheme, _, key = _header(scope, b"authorization").partition(" ")
    if scheme.lower() != "bearer":
        key = _header(scope, b"x-api-key") if endpoint == MESSAGES else ""
    if not key.strip():
        raise Unserved(401, "missing_key")
    return hashlib.sha256(key.strip().encode("latin-1")).hexdigest()


def _header(scope: Scope, wanted: bytes) -> str:
    """A header of the request; empty without one."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")

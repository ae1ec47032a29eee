"""The LiteLLM proxy asks Jauge before each request, and tells it after each.

`proxy_handler` is a callback of the proxy's own kind (docs/gateways/litellm.md). JAUGE_URL and JAUGE_TOKEN say where
Jauge is, JAUGE_SPOOL is the folder of the events that wait for it. This module needs litellm, httptools, httpx and
msgspec only.
"""

import asyncio
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import msgspec
from litellm.constants import LITELLM_PROXY_MASTER_KEY_ALIAS  # type: ignore[import-not-found]
from litellm.integrations.custom_logger import CustomLogger  # type: ignore[import-not-found]
from litellm.proxy._types import ProxyException, UserAPIKeyAuth  # type: ignore[import-not-found]
from pydantic import BaseModel

from metering.client import AsyncHold, AsyncJauge, Provider, Refused
from metering.client.protocol import refusal
from metering.events.envelope import CountSource
from metering.events.providers import UnusableUsage, normalise_usage
from metering.gateways.answers import tokens_in
from metering.gateways.refusing import body_of
from metering.gateways.requests import Reading, lowered, reading_of
from metering.rules.quantities import Operation

SOURCE = "litellm"

OUTPUT_TOKENS = 4_096
"""What is held for an answer that the request doesn't bound."""

GRACE_S = 10.0
"""How long after its request a hold waits for the proxy's log, which is written in the background."""

OPERATIONS = MappingProxyType[str, Operation](
    {
        "acompletion": "chat",
        "aresponses": "chat",
        "anthropic_messages": "chat",
        "atext_completion": "completion",
        "aembedding": "embedding",
        "rerank": "rerank",
        "transcription": "transcription",
    }
)
"""The proxy's kinds of calls. Any other that names a model is `other`; one without a model isn't asked about."""

PROVIDERS = MappingProxyType[Operation, Provider](
    {"embedding": Provider.OPENAI_EMBEDDINGS, "rerank": Provider.OPENAI_RESPONSES}
)
"""Whose fields the proxy uses where they don't tell it themselves: a reranker's are `input_tokens` alone."""

CACHED = MappingProxyType[str, int | None]({"input_tokens": 0, "output_tokens": 0})
"""What an answer from the proxy's cache uses."""

_CLIENT_LEFT = 499
_DIGEST = re.compile("[0-9a-f]{64}")

log = logging.getLogger(__name__)


@dataclass
class _Call:
    """A request under way.

    id: the proxy's, which calls made on its behalf don't have. count_source: who counts; None where it can't be seen.
    is_over: its end is told.
    """

    id: str | None
    reading: Reading
    hold: AsyncHold
    count_source: CountSource | None
    is_over: bool = False


_current: ContextVar[_Call | None] = ContextVar("jauge_call", default=None)
"""The request that a task serves: the proxy keeps its own limits so, and its log runs in the request's context."""


class JaugeRefusal(ProxyException):  # type: ignore[misc]
    """A refusal that the proxy answers in the shape that clients of OpenAI's API read."""

    def __init__(self, refused: Refused) -> None:
        self._error: dict[str, Any] = msgspec.json.decode(body_of(refused.status, refused.code))["error"]
        super().__init__(self._error["message"], self._error["type"], None, refused.status, dict(refused.headers))
        self.status_code = refused.status

    def to_dict(self) -> dict[str, Any]:
        """The `error` of the answer; its `code` is Jauge's, where the proxy's own errors repeat the status."""
        return self._error


class JaugeHandler(CustomLogger):  # type: ignore[misc]
    """Holds before a request, tells what was used after it. Its client is opened by the process that serves.

    The proxy gives its hooks everything by name; each takes what it needs.
    """

    def __init__(self, url: str, token: str, spool: Path) -> None:
        super().__init__()
        self._address = url, token, spool
        self._opened: AsyncJauge | None = None
        self._farewells: set[asyncio.Task[None]] = set()

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, data: dict[str, Any], call_type: str, **_: object
    ) -> dict[str, Any] | None:
        """Hold what a request may use, and bound its output by what is granted. Raises: JaugeRefusal."""
        reading = reading_of(OPERATIONS.get(call_type, "other"), data)
        if reading.model is None:
            return None
        try:
            hold = self._client().hold(
                **whose(user_api_key_dict), model=reading.model, operation=reading.operation, streamed=reading.streamed,
                **reading.estimates(default_output_tokens=OUTPUT_TOKENS),
            )  # fmt: skip
            await hold.__aenter__()
        except Refused as refused:
            raise JaugeRefusal(refused) from None
        except ValueError:
            raise JaugeRefusal(Refused(refusal(400, "invalid_name"))) from None
        call = _Call(data.get("litellm_call_id"), reading, hold, None if reading.streamed else "provider")
        _current.set(call)
        self._watch(call)
        return data | lowered(reading, hold.granted_output_tokens, default_output_tokens=OUTPUT_TOKENS)

    async def async_post_call_response_headers_hook(self, **_: object) -> dict[str, str] | None:
        """Where the limits stand, and what is told of a model that retires."""
        call = _current.get()
        return None if call is None else call.hold.headers

    async def async_post_call_streaming_iterator_hook(self, response: Any, **_: object) -> AsyncIterator[Any]:
        """A stream as it passes: should it break, what has come of it counts."""
        call = _current.get()
        async for chunk in response:
            if call is not None and not call.is_over and (tokens := _tokens(chunk)):
                call.hold.add(output_tokens=tokens)
            yield chunk
        if call is not None:
            call.count_source = _counting(response)

    async def async_log_success_event(self, kwargs: dict[str, Any], response_obj: Any, **_: object) -> None:
        """An answer is complete, or its client left in the midst of it: what it used."""
        if (call := _ending(kwargs)) is None:
            return
        if _is_left(kwargs):
            await _leave(call.hold)
            return
        quantities, source = (CACHED, None) if kwargs.get("cache_hit") else _counted(call, response_obj)
        reason = _finish_reason(response_obj)
        try:
            await call.hold.commit(quantities, http_status=200, finish_reason=reason, count_source=source)
        finally:
            await call.hold.__aexit__(*sys.exc_info())

    async def async_post_call_failure_hook(
        self, request_data: dict[str, Any], original_exception: Exception, **_: object
    ) -> None:
        """No try has succeeded: what was streamed counts, and nothing else is known to be used."""
        if (call := _ending(request_data)) is None:
            return
        if getattr(original_exception, "status_code", None) == _CLIENT_LEFT:
            await _leave(call.hold)
        else:
            await call.hold.__aexit__(type(original_exception), original_exception, None)

    def _client(self) -> AsyncJauge:
        if self._opened is None:
            url, token, spool = self._address
            self._opened = AsyncJauge(url, token, source=SOURCE, spool=spool)
        return self._opened

    def _watch(self, call: _Call) -> None:
        """See to the end of a request that no hook is told of: its client left before the first word of a stream."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: loop.call_later(GRACE_S, self._give_up, call))

    def _give_up(self, call: _Call) -> None:
        if not call.is_over:
            call.is_over = True
            task = asyncio.create_task(_leave(call.hold))
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)


class Who(TypedDict, total=False):
    """Whose request it is, as the client's `hold` takes it."""

    key_sha256: str
    tenant: str
    user: str


def whose(auth: UserAPIKeyAuth) -> Who:
    """Whose request it is, by a digest or by names. Raises: Refused.

    A virtual key is known by its SHA-256, and so is what an authentication of the operator's own returns. Who has the
    master key is trusted to name its client as the end user: by the SHA-256 of the client's key, or as `TENANT/USER`.
    """
    if not (auth.via_virtual_key or auth.authenticated_by_custom_auth):
        raise Refused(refusal(401, "invalid_key"))  # a digest that somebody presents as a key must not pass for one
    is_master = auth.api_key == LITELLM_PROXY_MASTER_KEY_ALIAS
    named = (auth.end_user_id if is_master else auth.api_key) or ""
    if _DIGEST.fullmatch(named):
        return {"key_sha256": named}
    tenant, _, user = named.partition("/")
    if is_master and tenant and user:
        return {"tenant": tenant, "user": user}
    raise Refused(refusal(401, "missing_key"))


def _ending(about: Mapping[str, Any]) -> _Call | None:
    """The request that this is the end of; None if it is another's, or told already."""
    call = _current.get()
    if call is None or call.is_over or call.id != about.get("litellm_call_id"):
        return None
    call.is_over = True
    return call


async def _leave(hold: AsyncHold) -> None:
    """The client has left: what was streamed counts."""
    left = asyncio.CancelledError()
    await hold.__aexit__(type(left), left, None)


def _counted(call: _Call, response: Any) -> tuple[dict[str, int | None], CountSource | None]:
    """What was used and who counted it. Where nobody did, the proxy says 0 of everything: that is unknown."""
    reading = call.reading
    items: dict[str, int | None] = {"embedding_inputs": reading.inputs or None, "documents": reading.documents or None}
    usage, source = _member(response, "usage") or _member(_member(response, "meta"), "tokens"), call.count_source
    if usage is None and (seconds := (_member(response, "_hidden_params") or {}).get("audio_transcription_duration")):
        usage, source = {"type": "duration", "seconds": seconds}, "gateway_tokenizer"  # it has read the file
    if usage is None:
        return items, None
    try:
        found = normalise_usage(
            usage if isinstance(usage, dict) else usage.model_dump(), provider=PROVIDERS.get(reading.operation)
        )
    except UnusableUsage as unusable:
        log.warning("the proxy's usage can't be read: %s %s", unusable.field, unusable.code)
        return items, None
    return (items | found, source) if any(found.values()) else (items, None)


def _tokens(chunk: Any) -> int:
    """Tokens of a chunk; 0 for one in another form than the chat's and the responses'."""
    return tokens_in(chunk.model_dump(include={"choices", "type", "delta"})) if isinstance(chunk, BaseModel) else 0


def _counting(stream: Any) -> CountSource | None:
    """Who counts the tokens of a stream: the proxy does where no chunk has the provider's usage."""
    chunks = getattr(stream, "chunks", None)
    if not isinstance(chunks, list):
        return None
    return "provider" if any(_member(chunk, "usage") for chunk in chunks) else "gateway_tokenizer"


def _finish_reason(response: Any) -> str | None:
    """Why the first answer ended, where the answer says it."""
    choices = _member(response, "choices")
    return _member(choices[0], "finish_reason") if choices else None


def _is_left(kwargs: Mapping[str, Any]) -> bool:
    """Whether the client left during its stream: the proxy then logs what was streamed as a success."""
    return bool((kwargs["litellm_params"].get("metadata") or {}).get("client_disconnected"))


def _member(whole: Any, name: str) -> Any:
    """A member of an object or a dict; None without."""
    return whole.get(name) if isinstance(whole, dict) else getattr(whole, name, None)


proxy_handler = JaugeHandler(os.environ["JAUGE_URL"], os.environ["JAUGE_TOKEN"], Path(os.environ["JAUGE_SPOOL"]))
"""What the proxy's configuration names."""

"""Jauge behind the seams of OpenGateLLM: its rate limiter and its usage recorder.

The releases of 2026 have two ports, `RouterRateLimiter` and `UsageRecorder`, whose implementations are chosen in
`api/dependencies.py`; `Bridge.limiter()` and `Bridge.recorder()` take their place. v0.1.6 has methods instead, whose
bodies become calls of `Bridge.note_prompt`, `Bridge.admit` and `Bridge.log_usage`. Nothing of the gateway is imported:
what it calls and what it reads is stated here. Names and signatures: `api/domain/router/_routerratelimiter.py`,
`api/domain/usage/_usagerecorder.py`, `api/use_cases/_providerrequestforwardingusecase.py`; of v0.1.6,
`app/helpers/_accesscontroller.py` and `app/utils/hooks_decorator.py`.

A request is held when the gateway checks its limits, and over when the recorder ends. The ports aren't told of the
prompt, nor of the most that may be answered: a fixed amount of output is held, and what was used counts in full.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from metering.client import AsyncHold, AsyncJauge, Refused
from metering.client.holds import Asked
from metering.client.protocol import Flow
from metering.events.envelope import is_name
from metering.imports.names import (
    account_of_user,
    deployment_of_provider,
    endpoint_name,
    key_of_token,
    measured,
    operation_of_endpoint,
    tenant_of_organisation,
)
from metering.rules.quantities import Status

HELD_OUTPUT_TOKENS = 1_000

GRACE_S = 5.0
"""How long after a request's own end the recorder may still tell of it, in a task of its own."""

LEFT = "ClientDisconnectedError"
"""What the gateway calls a failure that is its client's leaving."""

_FAILED = 400
_TOKENS = frozenset({"input_tokens", "output_tokens", "total_tokens"})

log = logging.getLogger(__name__)


class Usage(Protocol):
    """What the gateway has counted with its own tokenizer; 0 is what it says where it couldn't count."""

    prompt_tokens: Any
    completion_tokens: Any


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for what, by the gateway's numbers; `model` is the name of a router."""

    user_id: int | None
    organisation_id: int | None
    key_id: int | None
    model: str
    endpoint: str | None


def default_tenant(caller: Caller) -> str:
    """The administration that the import makes of an organisation, where no tenant map says otherwise."""
    return tenant_of_organisation(caller.organisation_id)


class _Request(AsyncHold):
    """A request of the gateway, from the check of its limits to the end of its record.

    usage: quantities that were told; failure: code and HTTP status, where there are.
    """

    def __init__(self, client: AsyncJauge, asked: Asked) -> None:
        super().__init__(client, client._desk, asked)
        self.usage: dict[str, int | None] | None = None
        self.failure: tuple[str | None, int | None] | None = None

    def used(self, usage: Usage, provider_id: int | None, first_token_at: datetime | None) -> None:
        """Remember what was counted, and where it ran."""
        self.usage = {"input_tokens": measured(usage.prompt_tokens), "output_tokens": measured(usage.completion_tokens)}
        if provider_id is not None:
            self._about["deployment"] = deployment_of_provider(provider_id)
        if first_token_at is not None:
            self._about["streamed"] = True
            self._first_token_at = min(max(first_token_at, self._started_at), self._now())

    async def finish(self, status: Status) -> None:
        """Tell how it ended: what it used, or that it used nothing that anybody knows."""
        code, http_status = self.failure or (None, None)
        about = {"status": status, "error_code": code, "http_status": http_status}
        is_known = self.usage is not None and any(self.usage.values())
        source = "gateway_tokenizer" if is_known else None
        is_run = is_known or status == "ok"
        flow = self._settling(self.usage or {}, about | {"count_source": source}, is_run=is_run)
        try:
            await self._client.run(flow)
        finally:
            await self.__aexit__(None, None, None)


class _Unasked(_Request):
    """A request whose limits the gateway doesn't check, as those of its administrators: it is told of all the same."""

    def _asking(self) -> Flow[None]:
        self._about["model_served"] = self._asked["model"]
        yield from ()


_current: ContextVar[_Request | None] = ContextVar("jauge_request", default=None)
_prompt_tokens: ContextVar[int | None] = ContextVar("jauge_prompt_tokens", default=None)


class Bridge:
    """What the seams of one gateway share; for one event loop.

    context: the gateway's `request_context.get`, of which `user`, `key`, `router_name` and `endpoint` are read; state:
    its `RouterRateLimitState` (both for the ports of 2026). tenant_of: the administration of a caller, where the
    import was given a tenant map. held_output_tokens: held for each answer.
    """

    def __init__(
        self, jauge: AsyncJauge, *, context: Callable[[], Any] | None = None, state: type[Any] | None = None,
        tenant_of: Callable[[Caller], str] = default_tenant, held_output_tokens: int = HELD_OUTPUT_TOKENS,
    ) -> None:  # fmt: skip
        self._jauge = jauge
        self._context = context
        self._state = None if state is None else _answering(state)
        self._tenant_of = tenant_of
        self._held_output_tokens = held_output_tokens
        self._open: set[_Request] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def limiter(self) -> "RateLimiter":
        """An implementation of the gateway's `RouterRateLimiter`."""
        assert self._state is not None, "state is needed: the gateway's RouterRateLimitState"
        return RateLimiter(self, self._state)

    def recorder(self) -> "Recorder":
        """An implementation of the gateway's `UsageRecorder`; one for each request."""
        return Recorder(self)

    async def aclose(self) -> None:
        """End what is still open, and wait until all is told."""
        for request in list(self._open):
            self.end(request, "aborted")
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def open(self, caller: Caller, prompt_tokens: int | None = None) -> AsyncHold:
        """Hold a request of the current task; it is over when told so, or soon after the task. Raises: Refused."""
        request = _Request(self._jauge, self._asked(caller, prompt_tokens))
        await request.__aenter__()
        _current.set(request)
        self._end_with_task(request)
        return request

    def open_unasked(self, caller: Caller) -> "_Request":
        """A request that isn't held, of which the end will tell."""
        request = _Unasked(self._jauge, self._asked(caller, None))
        self._end_with_task(request)
        return request

    def end(self, request: "_Request", status: Status) -> None:
        """Tell the end of a request, in a task that its cancellation doesn't reach; the first word counts."""
        if request in self._open:
            self._open.remove(request)
            task = asyncio.get_running_loop().create_task(self._finish(request, status))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def caller(self, user_id: int | None = None) -> Caller:
        """Who asks, as the gateway's own context has it."""
        assert self._context is not None, "context is needed: the gateway's request_context.get"
        seen = self._context()
        user, key = getattr(seen, "user", None), getattr(seen, "key", None)
        return Caller(
            user_id=user_id if user_id is not None else getattr(user, "id", None),
            organisation_id=getattr(user, "organization_id", None),
            key_id=getattr(key, "id", None),
            model=getattr(seen, "router_name", None) or "unknown",
            endpoint=getattr(seen, "endpoint", None),
        )

    # v0.1.6

    def note_prompt(self, prompt_tokens: int) -> None:
        """For the body of `_check_token_limits`: what `admit` will hold for the prompt."""
        _prompt_tokens.set(prompt_tokens)

    async def admit(self, caller: Caller) -> None:
        """For the body of `_check_budget`, which each check calls last. Raises: Refused."""
        await self.open(caller, measured(_prompt_tokens.get()))

    def log_usage(self, usage: Any, response: Any = None) -> None:
        """For the body of `log_usage`: tell what a row of the gateway's table `usage` says."""
        request = _current.get()
        if request is None:
            log.warning("a request that was not admitted isn't recorded")
            return
        request.used(usage, None, None)
        status = usage.status if usage.status is not None else getattr(response, "status_code", None)
        if status is not None and status >= _FAILED:
            request.failure = (None, status)
        self.end(request, "error" if request.failure else "ok")

    def _asked(self, caller: Caller, prompt_tokens: int | None) -> Asked:
        asked = Asked(
            tenant=self._tenant_of(caller),
            user=None if caller.user_id is None else account_of_user(caller.user_id),
            api_key=None if caller.key_id is None else key_of_token(caller.key_id),
            model=caller.model,
            operation=operation_of_endpoint(caller.endpoint),
            endpoint=endpoint_name(caller.endpoint),
            max_output_tokens=self._held_output_tokens,
        )
        if prompt_tokens is not None:
            asked["prompt_tokens"] = prompt_tokens
        return asked

    def _end_with_task(self, request: "_Request") -> None:
        """A request that nobody ends is over soon after its task: whoever raised in between doesn't tell."""
        self._open.add(request)
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda done: self._end_later(request, done))

    def _end_later(self, request: "_Request", task: "asyncio.Task[Any]") -> None:
        if request in self._open:
            task.get_loop().call_later(GRACE_S, self._end_unsaid, request, task.cancelled())

    def _end_unsaid(self, request: "_Request", is_cancelled: bool) -> None:
        if not is_cancelled:
            request.failure = request.failure or ("outcome_unknown", None)
        self.end(request, "aborted" if is_cancelled else "error")

    async def _finish(self, request: "_Request", status: Status) -> None:
        try:
            if isinstance(request, _Unasked):
                await request.__aenter__()
            await request.finish(status)
        except Refused as refused:
            log.critical("the usage of %s is not recorded: %s", request.reservation, refused.code)


class RateLimiter:
    """The port `RouterRateLimiter`: Jauge decides, and the gateway reads its decision as a state of limits."""

    def __init__(self, bridge: Bridge, state: type[Any]) -> None:
        self._bridge = bridge
        self._state = state

    async def get_rate_limit_state(self, user_id: int, prompt_tokens: int | None = None, **_told: Any) -> Any:
        """Hold the request. A state without limits lets it run; one with an exceeded limit is answered 429."""
        try:
            hold = await self._bridge.open(self._bridge.caller(user_id), prompt_tokens)
        except Refused as refused:
            return _refusal(self._state, refused)
        allowed = self._state.admin_rate_limit_state()
        allowed._headers = hold.headers
        return allowed

    def update_rate_limit_state(self, **_told: Any) -> "_Done":
        """Nothing: what was held counts already, and the recorder tells the rest. Some releases await this."""
        return _Done()

    async def reset(self) -> None:
        """Nothing: a restart of the gateway doesn't give anybody's limits back."""


class Recorder:
    """The port `UsageRecorder`, of the releases with a request's id and of those without."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._request: _Request | None = None
        self._started_at = datetime.now(UTC)

    def start_record(
        self, *, user_id: int, key_id: int | None, router_name: str, endpoint: Any, request_id: str | None = None,
        **_told: Any,
    ) -> str:  # fmt: skip
        """The request runs. Returns its id. Addresses and names of people are told as well, and not looked at."""
        self._started_at = datetime.now(UTC)
        self._request = _current.get()
        _current.set(None)
        if self._request is None:
            seen = self._bridge.caller(user_id)
            path = f"/v1{getattr(endpoint, 'value', endpoint)}"
            asking = Caller(user_id, seen.organisation_id, key_id, router_name, path)
            self._request = self._bridge.open_unasked(asking)
        return request_id or self._request.reservation

    def update_record(
        self, usage: Usage, provider_id: int | None = None, first_token_at: datetime | None = None, **_told: Any
    ) -> None:
        """What it used, in all, and where it ran."""
        if self._request is not None:
            self._request.used(usage, provider_id, first_token_at)

    def fail_record(self, message: str, status_code: int | None = None) -> None:
        """It failed; the message is the name of an error's class."""
        if self._request is not None:
            self._request.failure = (message if is_name(message) else None, status_code)

    def compute_elapsed_ms(self, end_time: datetime | None = None) -> int:
        """Milliseconds since its start."""
        return round(((end_time or datetime.now(UTC)) - self._started_at).total_seconds() * 1000)

    def end_record(self) -> None:
        """It is over: failed, done, or left by its client, which shows as an end without either."""
        request, self._request = self._request, None
        if request is None:
            return
        if request.failure is not None:
            self._bridge.end(request, "aborted" if request.failure[0] == LEFT else "error")
        elif request.usage is not None:
            self._bridge.end(request, "ok")
        else:
            # Called while an exception passes, as the gateway does: the client's leaving is none of an error.
            self._bridge.end(request, "error" if isinstance(sys.exc_info()[1], Exception) else "aborted")


class _Done:
    """What may be awaited, and need not be."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def _answering(base: type[Any]) -> type[Any]:
    """The gateway's state of limits, whose headers are Jauge's: the gateway asks for its own class."""

    class JaugeRateLimitState(base):  # type: ignore[misc]
        """A decision of Jauge."""

        _headers: dict[str, str] = {}  # noqa: RUF012 - a private attribute of a pydantic model

        @property
        def build_limit_headers(self) -> dict[str, str]:
            """Headers for the gateway's client."""
            return dict(self._headers)

    return JaugeRateLimitState


def _refusal(state: type[Any], refused: Refused) -> Any:
    """A state in which the limit that refused has nothing left. Where none did, the port has no other no."""
    hard = [limit for limit in refused.limits if limit["mode"] == "hard" and limit["remaining"] is not None]
    tightest = min(hard, key=lambda limit: int(limit["remaining"]), default={"meter": "", "window": "minute"})
    kind = f"{'t' if tightest['meter'] in _TOKENS else 'r'}p{'m' if tightest['window'] == 'minute' else 'd'}"
    exceeded = state.admin_rate_limit_state()
    getattr(exceeded, kind).value = tightest.get("value") or 0
    getattr(exceeded, kind).remaining = 0
    retry_after = {} if refused.retry_after_s is None else {"Retry-After": str(refused.retry_after_s)}
    exceeded._headers = refused.headers | retry_after
    return exceeded

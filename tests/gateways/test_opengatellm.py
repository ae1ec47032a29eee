"""Jauge behind the seams of OpenGateLLM: a small gateway that calls them in the order in which the real one does."""

import asyncio
import logging
import re
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from metering.client import AsyncJauge, Refused
from metering.database import transaction
from metering.gateways import opengatellm
from metering.gateways.opengatellm import Bridge, Caller
from metering.quotas.settling import Settler
from metering.services import Services
from metering.tables import ledger_entry, ledger_series
from tests.conftest import Api
from tests.quotas.conftest import declare

CATALOGUE = """
categories:
- {id: chat, name: Chat}
models:
- {id: albert-small, name: Albert, category: chat, publisher: P, licence: MIT, operations: [chat]}
plans:
- id: og-role-1
  name: Role
  limits:
  - {scope: user, selector: "model:albert-small", meter: requests, window: minute, value: 2}
  - {scope: user, selector: "model:albert-small", meter: total_tokens, window: day, value: 1200}
- {id: closed, name: Closed, limits: [{scope: tenant, selector: "*", meter: requests, window: day, value: 0}]}
tenants:
- {id: og-org-1, name: Ministère, plan: og-role-1}
- {id: og-org-2, name: Autre, plan: closed}
"""


class Bucket(BaseModel):
    value: int | None = 0
    remaining: int = 0
    reset: int = 0


class State(BaseModel):
    """The gateway's state of limits, as far as its use cases look at it."""

    tpm: Bucket = Field(default_factory=Bucket)
    tpd: Bucket = Field(default_factory=Bucket)
    rpm: Bucket = Field(default_factory=Bucket)
    rpd: Bucket = Field(default_factory=Bucket)

    def exceeded_limits(self, prompt_tokens: int) -> list[str]:
        costs = {"tpm": max(prompt_tokens, 1), "tpd": max(prompt_tokens, 1), "rpm": 1, "rpd": 1}
        buckets = {kind: getattr(self, kind) for kind in costs}
        return [kind for kind, one in buckets.items() if one.value is not None and one.remaining < costs[kind]]

    @classmethod
    def admin_rate_limit_state(cls) -> "State":
        return cls(**{kind: Bucket(value=None) for kind in ("tpm", "tpd", "rpm", "rpd")})

    @property
    def build_limit_headers(self) -> dict[str, str]:
        raise AssertionError("the gateway's own headers")


request_context: ContextVar[Any] = ContextVar("request_context")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    chunks: AsyncGenerator[str, None] | None = None


class StatusCodeModelError(Exception):
    """What the provider's client returns, not raises."""


class ClientDisconnectedError(Exception):
    """The same, where the gateway has noticed that its client left."""


Upstream = Callable[[], Coroutine[Any, Any, Any]]


@dataclass
class Gateway:
    """The use case of the gateway: check, start, forward, update or fail, end."""

    bridge: Bridge
    releases_with_ids: bool = True
    usage: Any = field(default_factory=lambda: SimpleNamespace(prompt_tokens=12, completion_tokens=30))

    async def serve(
        self, upstream: Upstream, *, user: int = 7, organisation: int = 1, admin: bool = False, stream: bool = False
    ) -> Answer:
        self.see(user, organisation)
        state = State.admin_rate_limit_state()
        headers: dict[str, str] = {}
        if not admin:
            limiter = self.bridge.limiter()
            state = await limiter.get_rate_limit_state(user_id=user, router_limits=[], router_id=1)
            headers = state.build_limit_headers
            if state.exceeded_limits(prompt_tokens=12):
                return Answer(429, headers)
        assert isinstance(state, State)
        recorder = self.bridge.recorder()
        self._start(recorder, user)
        if stream:
            return Answer(200, headers, self._stream(recorder, upstream))
        try:
            result = await upstream()
            if isinstance(result, Exception):
                status = {} if self.releases_with_ids else {"status_code": 502}
                recorder.fail_record(message=type(result).__name__, **status)
                return Answer(502, headers)
            self._update(recorder, None)
            return Answer(200, headers)
        finally:
            recorder.end_record()

    def see(self, user: int, organisation: int) -> None:
        """What the gateway's context knows of a request before its limits are checked."""
        request_context.set(
            SimpleNamespace(
                user=SimpleNamespace(id=user, organization_id=organisation, email="ada@culture.gouv.fr"),
                key=SimpleNamespace(id=3), router_name="albert-small", endpoint="/v1/chat/completions",
            )
        )  # fmt: skip

    def _start(self, recorder: Any, user: int) -> None:
        told = {"request_id": "og-1"} if self.releases_with_ids else {}
        own = recorder.start_record(
            **told, endpoint="/chat/completions", model="albert", user_id=user, router_id=1, router_name="albert-small",
            user_email="ada@culture.gouv.fr", key_id=3, key_name="Ada's key",
        )  # fmt: skip
        assert (own == "og-1") == self.releases_with_ids
        assert 0 <= recorder.compute_elapsed_ms() < 60_000

    def _update(self, recorder: Any, first_token_at: datetime | None) -> None:
        recorder.update_record(
            usage=self.usage, provider_id=4, provider_model_name="org/upstream", first_token_at=first_token_at
        )

    async def _stream(self, recorder: Any, upstream: Upstream) -> AsyncGenerator[str, None]:
        first_token_at = None
        try:
            for _ in range(3):
                await upstream()
                first_token_at = first_token_at or datetime.now(UTC)
                yield "data: {}\n\n"
            self._update(recorder, first_token_at)
            yield "data: [DONE]\n\n"
        finally:
            recorder.end_record()


async def answered() -> str:
    return "an answer"


async def failed() -> StatusCodeModelError:
    return StatusCodeModelError()


async def left() -> ClientDisconnectedError:
    return ClientDisconnectedError()


async def broken() -> None:
    raise ZeroDivisionError


class Endless:
    """A provider that never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def __call__(self) -> None:
        self.asked.set()
        await asyncio.sleep(60)


@dataclass
class Platform:
    """Jauge, and a gateway before it."""

    api: Api
    services: Services
    spool: Path

    def run(self, work: Callable[[Gateway], Coroutine[Any, Any, Any]], **options: Any) -> Any:
        async def main() -> Any:
            chosen = {"source": "og", "spool": self.spool} | options
            async with AsyncJauge(chosen.pop("url", self.api.url), self.api.gateway_token, **chosen) as jauge:
                bridge = Bridge(jauge, context=request_context.get, state=State)
                try:
                    return await work(Gateway(bridge))
                finally:
                    await bridge.aclose()

        return asyncio.run(main())

    def entries(self) -> list[dict[str, Any]]:
        query = sa.select(ledger_series, ledger_entry).join(
            ledger_series, ledger_series.c.number == ledger_entry.c.series
        )
        with transaction(self.services.engine) as connection:
            rows = connection.execute(query.order_by(ledger_entry.c.ended_at)).mappings()
            return [dict(row) for row in rows]

    def standing(self, user: str = "og-user-7") -> dict[str, tuple[int, int]]:
        """Meter to what is used and held, once the ledger has settled."""
        settler = Settler(self.services.counters())
        while settler.round(datetime.now(UTC)):
            pass
        with self.api.client() as client:
            asked = {"tenant": "og-org-1", "user": user, "model": "albert-small"}
            limits = client.post("/v1/quota/check", json=asked).json()["limits"]
        return {limit["meter"]: (limit["used"], limit["held"]) for limit in limits}


@pytest.fixture
def platform(api: Api, services: Services, tmp_path: Path) -> Platform:
    declare(services, CATALOGUE)
    return Platform(api, services, tmp_path / "spool")


def told(entry: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(entry[name] for name in names)


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_request_is_held_runs_and_is_in_the_ledger(platform: Platform, with_ids: bool) -> None:
    async def work(gateway: Gateway) -> Answer:
        gateway.releases_with_ids = with_ids
        held: list[Any] = []

        async def looked() -> None:
            held.append(await asyncio.to_thread(platform.standing))

        answer = await gateway.serve(looked)
        assert held == [{"requests": (0, 1), "total_tokens": (0, 1_000)}]
        return answer

    answer = platform.run(work)
    assert answer.status == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    (entry,) = platform.entries()
    assert told(entry, "tenant", "user", "api_key", "model_requested", "model_served", "deployment", "endpoint") == (
        "og-org-1", "og-user-7", "og-key-3", "albert-small", "albert-small", "og-provider-4", "/v1/chat/completions",
    )  # fmt: skip
    assert told(entry, "input_tokens", "output_tokens", "count_source", "status", "operation") == (
        12, 30, "gateway_tokenizer", "ok", "chat",
    )  # fmt: skip
    assert platform.standing() == {"requests": (1, 0), "total_tokens": (42, 0)}
    assert "gouv.fr" not in str(entry)


def test_a_limit_that_is_reached_is_the_gateway_s_429_with_jauge_s_headers(platform: Platform) -> None:
    async def work(gateway: Gateway) -> list[Answer]:
        return [await gateway.serve(answered) for _ in range(3)]

    first, second, third = platform.run(work)
    assert [first.status, second.status, third.status] == [200, 200, 429]
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    assert "RateLimit" in third.headers
    assert int(third.headers["Retry-After"]) > 0
    assert [entry["status"] for entry in platform.entries()] == ["ok", "ok", "refused"]
    assert platform.standing()["requests"] == (2, 0)


def test_which_limit_refused_is_what_the_gateway_tells(platform: Platform) -> None:
    async def exceeded(gateway: Gateway, user: int, organisation: int) -> list[str]:
        gateway.see(user, organisation)
        state = await gateway.bridge.limiter().get_rate_limit_state(user_id=user, router_limits=[], router_id=1)
        found: list[str] = state.exceeded_limits(prompt_tokens=0)
        return found

    async def work(gateway: Gateway) -> list[list[str]]:
        gateway.usage.completion_tokens = 5_000
        await gateway.serve(answered)
        await gateway.bridge.aclose()
        return [await exceeded(gateway, 7, 1), await exceeded(gateway, 8, 2)]

    assert platform.run(work) == [["tpd"], ["rpd"]]


def test_parallel_requests_are_never_let_in_beyond_the_limit(platform: Platform) -> None:
    async def work(gateway: Gateway) -> list[Answer]:
        return await asyncio.gather(*(asyncio.create_task(gateway.serve(answered)) for _ in range(12)))

    statuses = sorted(answer.status for answer in platform.run(work))
    # A hold of 1,000 tokens out of 1,200: the second may run only after the first is told.
    assert statuses.count(200) in {1, 2}
    assert platform.standing()["requests"] == (statuses.count(200), 0)


def test_a_failure_of_the_provider_gives_the_hold_back_and_is_recorded(platform: Platform) -> None:
    async def work(gateway: Gateway) -> None:
        assert (await gateway.serve(failed)).status == 502
        await gateway.bridge.aclose()
        gateway.releases_with_ids = False
        assert (await gateway.serve(left)).status == 502

    platform.run(work)
    assert [told(entry, "status", "error_code", "http_status", "output_tokens") for entry in platform.entries()] == [
        ("error", "StatusCodeModelError", None, None), ("aborted", "ClientDisconnectedError", 502, None),
    ]  # fmt: skip
    assert platform.standing()["total_tokens"] == (0, 0)


def test_an_exception_on_its_way_is_an_error(platform: Platform) -> None:
    async def work(gateway: Gateway) -> None:
        with pytest.raises(ZeroDivisionError):
            await gateway.serve(broken)

    platform.run(work)
    (entry,) = platform.entries()
    assert told(entry, "status", "error_code") == ("error", None)
    assert platform.standing()["total_tokens"] == (0, 0)


def test_a_request_that_is_cancelled_is_aborted(platform: Platform) -> None:
    async def work(gateway: Gateway) -> None:
        endless = Endless()
        task = asyncio.create_task(gateway.serve(endless))
        await endless.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    platform.run(work)
    (entry,) = platform.entries()
    assert told(entry, "status", "output_tokens", "uncounted_requests") == ("aborted", None, 1)
    assert platform.standing()["total_tokens"] == (0, 0)


def test_a_stream_is_told_with_its_first_token(platform: Platform) -> None:
    async def work(gateway: Gateway) -> None:
        answer = await gateway.serve(answered, stream=True)
        assert answer.chunks is not None
        assert len([chunk async for chunk in answer.chunks]) == 4

    platform.run(work)
    (entry,) = platform.entries()
    assert told(entry, "status", "streamed", "output_tokens") == ("ok", True, 30)
    assert entry["occurred_at"] <= entry["first_token_at"] <= entry["ended_at"]


def test_zero_is_what_the_gateway_says_when_it_could_not_count(platform: Platform) -> None:
    async def work(gateway: Gateway) -> None:
        gateway.usage = SimpleNamespace(prompt_tokens=0, completion_tokens=25.0)
        await gateway.serve(answered)
        gateway.usage = SimpleNamespace(prompt_tokens=0, completion_tokens=0)
        await gateway.serve(answered, user=8)

    platform.run(work)
    counts = {
        entry["user"]: told(entry, "input_tokens", "output_tokens", "count_source") for entry in platform.entries()
    }
    assert counts == {"og-user-7": (None, 25, "gateway_tokenizer"), "og-user-8": (None, None, None)}


def test_administrators_are_not_asked_about_and_are_told_of(platform: Platform) -> None:
    async def work(gateway: Gateway) -> None:
        for _ in range(4):
            assert (await gateway.serve(answered, admin=True)).status == 200

    platform.run(work)
    entries = platform.entries()
    assert [told(entry, "status", "model_served", "input_tokens") for entry in entries] == [
        ("ok", "albert-small", 12)
    ] * 4
    assert platform.standing()["requests"] == (4, 0)


def test_a_request_that_nobody_ends_is_over_soon_after_its_task(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opengatellm, "GRACE_S", 0.05)

    async def forgetful(gateway: Gateway) -> None:
        gateway.see(7, 1)
        await gateway.bridge.limiter().get_rate_limit_state(user_id=7, router_limits=[], router_id=1)

    async def work(gateway: Gateway) -> None:
        await asyncio.create_task(forgetful(gateway))
        await asyncio.sleep(0.3)

    platform.run(work)
    (entry,) = platform.entries()
    assert told(entry, "status", "error_code") == ("error", "outcome_unknown")
    assert platform.standing()["total_tokens"] == (0, 0)


def test_closing_ends_what_is_open(platform: Platform) -> None:
    async def work(gateway: Gateway) -> None:
        endless = Endless()
        task = asyncio.create_task(gateway.serve(endless))
        await endless.asked.wait()
        await gateway.bridge.aclose()
        task.cancel()

    platform.run(work)
    assert [entry["status"] for entry in platform.entries()] == ["aborted"]
    assert platform.standing()["total_tokens"] == (0, 0)


@pytest.mark.parametrize(("on_outage", "statuses"), [("allow", [200]), ("refuse", [429])])
def test_while_jauge_is_away_the_gateway_s_choice_holds(
    platform: Platform, on_outage: str, statuses: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async def work(gateway: Gateway) -> list[int]:
        return [(await gateway.serve(answered)).status]

    with caplog.at_level(logging.CRITICAL, "metering.client.sending"):
        assert platform.run(work, url="http://127.0.0.1:1", on_outage=on_outage, timeout_s=0.2) == statuses
    # What it used, or that it was refused, waits for the ledger.
    platform.run(_nothing)
    _until(lambda: len(platform.entries()) == 1)
    assert platform.entries()[0]["status"] == ("ok" if on_outage == "allow" else "refused")


async def _nothing(_gateway: Gateway) -> None:
    await asyncio.sleep(0.2)


def _until(is_so: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_full_spool_lets_no_further_request_run(platform: Platform) -> None:
    async def work(gateway: Gateway) -> list[int]:
        endless = Endless()
        first = asyncio.create_task(gateway.serve(endless))
        await endless.asked.wait()
        second = await gateway.serve(answered, user=8)
        first.cancel()
        return [second.status]

    assert platform.run(work, spool_bytes_max=4_096) == [429]


def test_a_client_that_leaves_a_served_stream_is_aborted(platform: Platform) -> None:
    async def work(gateway: Gateway) -> None:
        app = FastAPI()

        @app.get("/chat")
        async def chat() -> Any:
            answer = await gateway.serve(slow, stream=True)
            if answer.chunks is None:
                return JSONResponse({}, answer.status, answer.headers)
            return StreamingResponse(answer.chunks, headers=answer.headers)

        async def slow() -> None:
            await asyncio.sleep(0.05)

        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            whole = await client.get("/chat")
            assert (whole.status_code, whole.headers["x-ratelimit-limit-requests"]) == (200, "2")
            async with client.stream("GET", "/chat") as response:
                async for _ in response.aiter_raw():
                    break
        await asyncio.sleep(0.3)
        server.should_exit = True
        await serving

    platform.run(work)
    assert [told(entry, "status", "output_tokens") for entry in platform.entries()] == [("ok", 30), ("aborted", None)]
    assert platform.standing() == {"requests": (2, 0), "total_tokens": (42, 0)}


# v0.1.6


class OldGateway:
    """v0.1.6: checks in the access controller, and a row of usage after the answer, in a task of its own."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.tasks: list[asyncio.Task[None]] = []

    async def told(self) -> None:
        await asyncio.gather(*self.tasks)
        await self.bridge.aclose()

    async def serve(self, status: int = 200) -> tuple[int, dict[str, str]]:
        self.bridge.note_prompt(12)
        try:
            await self.bridge.admit(Caller(7, 1, 3, "albert-small", "/v1/chat/completions"))
        except Refused as refused:
            return refused.status, refused.headers
        row = SimpleNamespace(prompt_tokens=12, completion_tokens=30.0, status=status)
        if status >= 400:
            row.prompt_tokens = row.completion_tokens = None
        self.tasks.append(asyncio.create_task(self.log_usage(row)))
        return status, {}

    async def log_usage(self, usage: Any) -> None:
        await asyncio.sleep(0.01)
        self.bridge.log_usage(usage)


def test_the_first_release_is_held_and_told_as_well(platform: Platform) -> None:
    async def work(gateway: Gateway) -> list[int]:
        old = OldGateway(gateway.bridge)
        answers = []
        for status in (200, 500, 200):
            answers.append((await asyncio.create_task(old.serve(status)))[0])
            await old.told()
        return answers

    assert platform.run(work) == [200, 500, 200]
    entries = platform.entries()
    assert [told(entry, "status", "http_status", "input_tokens", "output_tokens") for entry in entries] == [
        ("ok", None, 12, 30), ("error", 500, None, None), ("ok", None, 12, 30),
    ]  # fmt: skip
    # What failed was given back.
    assert platform.standing() == {"requests": (3, 0), "total_tokens": (84, 0)}


def test_the_first_release_answers_with_jauge_s_own_status(platform: Platform) -> None:
    async def work(gateway: Gateway) -> list[tuple[int, dict[str, str]]]:
        old = OldGateway(gateway.bridge)
        found = []
        for _ in range(3):
            found.append(await asyncio.create_task(old.serve()))
            await old.told()
        return found

    *_, (status, headers) = platform.run(work)
    assert status == 429
    assert headers["x-ratelimit-remaining-requests"] == "0"


def test_a_row_of_a_request_that_was_never_admitted_is_told_to_the_log(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(gateway: Gateway) -> None:
        gateway.bridge.log_usage(SimpleNamespace(prompt_tokens=1, completion_tokens=1, status=200))

    platform.run(work)
    assert "not admitted" in caplog.text
    assert platform.entries() == []


def test_what_the_gateway_counts_after_the_answer_is_not_counted_twice(platform: Platform) -> None:
    async def work(gateway: Gateway) -> None:
        limiter = gateway.bridge.limiter()
        await gateway.serve(answered)
        used = {"user_id": 7, "router_limits": [], "router_id": 1, "prompt_tokens": 12, "completion_tokens": 30}
        limiter.update_rate_limit_state(**used)  # as some releases call it
        await limiter.update_rate_limit_state(**used)
        await limiter.reset()

    platform.run(work)
    assert platform.standing() == {"requests": (1, 0), "total_tokens": (42, 0)}


PAGE = Path(__file__).parents[2] / "docs" / "gateways" / "opengatellm.md"


def shown(mark: str) -> str:
    """Lines that the documentation shows under a mark."""
    (code,) = re.findall(rf"<!-- {re.escape(mark)} -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(code)


def test_the_lines_for_the_ports_are_as_the_page_shows_them(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entities, dependencies = ModuleType("entities"), ModuleType("dependencies")
    entities.RouterRateLimitState, dependencies.request_context = State, request_context  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "api.domain.router.entities", entities)
    monkeypatch.setitem(sys.modules, "api.infrastructure.fastapi.dependencies", dependencies)
    monkeypatch.setenv("JAUGE_URL", platform.api.url)
    monkeypatch.setenv("JAUGE_TOKEN", platform.api.gateway_token)
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        names: dict[str, Any] = {}
        exec(shown("adapter"), names)
        ports = SimpleNamespace(limiter=names["_router_rate_limiter"], recorder=names["_usage_recorder"])
        assert (await Gateway(ports).serve(answered)).status == 200  # type: ignore[arg-type]
        await names["jauge"].aclose()
        await names["client"].aclose()

    asyncio.run(main())
    assert [told(entry, "source", "status", "input_tokens") for entry in platform.entries()] == [("albert", "ok", 12)]


def test_the_lines_for_the_first_release_are_as_the_page_shows_them(platform: Platform) -> None:
    async def work(gateway: Gateway) -> list[int]:
        seen = SimpleNamespace(token_id=3, endpoint="/v1/chat/completions")
        names: dict[str, Any] = {
            "jauge": Bridge(gateway.bridge._jauge, tenant_of=lambda caller: f"og-org-{1 + caller.user_id // 9}"),
            "Caller": Caller, "Refused": Refused, "HTTPException": HTTPException,
            "request_context": SimpleNamespace(get=lambda: seen),
            "global_context": SimpleNamespace(models=SimpleNamespace(aliases={"albert": "albert-small"})),
        }  # fmt: skip
        exec(shown("v0.1.6"), names)

        async def request(user: SimpleNamespace) -> int:
            await names["_check_request_limits"](None, None, user, {}, model="albert")
            await names["_check_token_limits"](None, None, user, {}, prompt_tokens=12, model="albert")
            await names["_check_budget"](None, user, model="albert")
            row = SimpleNamespace(prompt_tokens=12, completion_tokens=30.0, status=None)
            await names["log_usage"](SimpleNamespace(status_code=200), row, None)
            await names["update_budget"](row)
            return 200

        answers = [await asyncio.create_task(request(SimpleNamespace(id=7)))]
        with pytest.raises(HTTPException) as refused:
            await asyncio.create_task(request(SimpleNamespace(id=9)))
        await names["jauge"].aclose()
        return [*answers, refused.value.status_code]

    assert platform.run(work) == [200, 403]
    assert [entry["status"] for entry in platform.entries()] == ["ok", "refused"]

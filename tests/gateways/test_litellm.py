"""The real LiteLLM proxy asks Jauge, in front of a provider that counts for itself."""

import asyncio
import hashlib
import io
import random
import subprocess
import wave
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from metering import embedded
from metering.catalog.tenants import add_tenant
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.services import open_services
from metering.settings import Settings
from metering.tables import api_key
from tests.client.conftest import Platform, Server, until
from tests.conftest import copied_database
from tests.gateways.litellm_proxy import MASTER_KEY, PROGRAMS, Proxy, environment, proxying
from tests.gateways.upstream import Upstream, serving
from tests.people import add_agent
from tests.quotas.conftest import declare

REQUESTS = 400  # a request takes 30 ms of processor here, most of it the proxy's; 1,000 agree as well, in 40 s
PARALLEL = 16  # more would wait for each other so long, on a busy machine, that the proxy gives Jauge up (2 s)
QUANTITIES = ("requests", "input_tokens", "output_tokens", "embedding_inputs")

CUTS = "cuts-after-3+waits-20"  # spaced, or the proxy's client drops what came just before the break
MODELS = ("small", "embedder", "fails-500", CUTS, "silent", "hangs", "hangs-after-0", "hangs-after-3")
TENANTS = ("dinum", "sante", "education", "finances", "interieur")
CATALOGUE = """
categories:
- {id: chat, name: Chat}
models:
MODELS
plans:
- id: wide
  name: Wide
  limits:
  - {scope: tenant, selector: "*", meter: total_tokens, window: day, value: 100000000}
  - {scope: tenant, selector: "*", meter: requests, window: day, value: 1000000}
  - {scope: tenant, selector: "*", meter: concurrent_requests, window: now, value: 1000}
- id: tight
  name: Tight
  limits:
  - {scope: tenant, selector: "*", meter: requests, window: minute, value: 7}
- id: short
  name: Short
  limits:
  - {scope: tenant, selector: "*", meter: total_tokens, window: day, value: 30}
- id: closed
  name: Closed
  limits:
  - {scope: tenant, selector: "*", meter: requests, window: day, value: 0}
tenants:
- {id: dinum, name: DINUM, plan: wide}
- {id: interieur, name: Interieur, plan: wide}
- {id: sante, name: Sante, plan: tight}
- {id: education, name: Education, plan: short}
- {id: finances, name: Finances, plan: closed}
"""
DECLARED = "\n".join(
    f"- {{id: {name}, name: M, category: chat, publisher: P, licence: MIT,"
    " operations: [chat, completion, embedding, rerank, transcription, other]}"
    for name in MODELS
)

DIGESTS = {user: hashlib.sha256(f"sk-{user}".encode()).hexdigest() for user in ("alice", "bruno", "chloe", "denis")}
LEAVING = "interieur/leaves"
QUESTION = [{"role": "user", "content": "un deux trois"}]


@dataclass(frozen=True)
class World:
    """Jauge, the proxy, and the provider behind it."""

    platform: Platform
    server: Server
    operator_token: str
    proxy: Proxy
    upstream: Upstream

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.proxy.url}/v1", api_key=MASTER_KEY, max_retries=0, timeout=60)

    def http(self, user: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {MASTER_KEY}", "x-litellm-end-user-id": user}
        return httpx.Client(base_url=self.proxy.url, headers=headers, timeout=60)

    def told(self, count: int, **wanted: Any) -> list[dict[str, Any]]:
        """Entries of the ledger with these values, once there are so many."""
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            found[:] = [
                entry for entry in self.platform.entries() if all(entry[name] == wanted[name] for name in wanted)
            ]
            return len(found) >= count

        until(are_there, seconds=20)
        assert len(found) == count
        return found

    def held(self, tenant: str) -> dict[str, int]:
        """Meter to what is held, as the operator is shown it."""
        asked = {"tenant": tenant, "model": "small"}
        headers = {"Authorization": f"Bearer {self.operator_token}"}
        answer = httpx.get(f"{self.platform.url}/v1/limits", params=asked, headers=headers).raise_for_status()
        return {limit["meter"]: limit["held"] for limit in answer.json()["limits"]}


@pytest.fixture(scope="module")
def world(servers: embedded.Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Started once: the proxy takes its time."""
    folder = tmp_path_factory.mktemp("litellm")
    upstream = Upstream()

    async def anonymous(scope: dict[str, Any], receive: Any, send: Any) -> None:
        """The provider without the proxy's own key: who asks is in `user`."""
        kept = [header for header in scope.get("headers", ()) if header[0] != b"authorization"]
        await upstream(scope | {"headers": kept}, receive, send)

    with copied_database(servers, template, "test_litellm") as url, serving(anonymous) as upstream_url:
        settings = Settings(
            database_url=url, redis_url=servers.redis_url, data=folder / "unused",
            secret_key="a key for tests, long enough to be one",
        )  # fmt: skip
        with open_services(settings) as services:
            for tenant in TENANTS:
                add_tenant(services.engine, tenant)
            declare(services, CATALOGUE.replace("MODELS", DECLARED))
            for user, digest in DIGESTS.items():
                add_agent(services, "dinum", "member", user)
                row = {"id": f"k-{user}", "tenant": "dinum", "account": user, "name": "k", "prefix": "sk-"}
                with transaction(services.engine) as connection:
                    connection.execute(api_key.insert().values(row | {"digest": bytes.fromhex(digest)}))
            services.catalog.refresh()
            server = Server(services)
            server.start()
            platform = Platform(server.url, add_token(services.engine, "gw", "gateway"), folder / "spool", services)
            operator_token = add_token(services.engine, "operator", "operator")
            variables = {
                "JAUGE_URL": platform.url, "JAUGE_TOKEN": platform.token, "JAUGE_SPOOL": str(platform.spool),
                "UPSTREAM_URL": f"{upstream_url}/v1",
            }  # fmt: skip
            with proxying(folder, MODELS[1:], variables) as proxy:
                made = World(platform, server, operator_token, proxy, upstream)
                asyncio.run(leave_in_all_ways(made))  # first, as the last of them is given up after a while
                yield made
            server.stop()


async def leave(client: openai.AsyncOpenAI, upstream: Upstream, model: str, *, stream: bool) -> None:
    """One request whose client goes away: after all chunks that there are, or else once the provider has it."""

    async def whole() -> None:
        answer = await client.chat.completions.create(model=model, messages=QUESTION, user=LEAVING, stream=stream)
        for _ in range(3):
            await anext(answer)
        await answer.close()

    task = asyncio.create_task(whole())
    while not task.done() and (
        model == "hangs-after-3" or all(asked.body.get("model") != model for asked in upstream.asked)
    ):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.wait({task})


async def leave_in_all_ways(world: World) -> None:
    """Before the proxy has an answer, before the first chunk of one (no hook is told of this), and after three."""
    async with world.client() as client:
        await asyncio.gather(
            leave(client, world.upstream, "hangs", stream=False),
            leave(client, world.upstream, "hangs-after-0", stream=True),
            leave(client, world.upstream, "hangs-after-3", stream=True),
        )


async def ask(client: openai.AsyncOpenAI, kind: str, user: str) -> tuple[str, int]:
    """One request, in full; how it ended, and how many tokens were streamed."""
    streamed = 0
    try:
        if kind == "embedding":
            await client.embeddings.create(model="embedder", input=["un deux", "trois"], user=user)
        elif kind == "chat":
            await client.chat.completions.create(model="small", messages=QUESTION, user=user)
        elif kind == "failure":
            await client.chat.completions.create(model="fails-500", messages=QUESTION, user=user)
        else:
            model = CUTS if kind == "cut" else "small"
            stream = await client.chat.completions.create(model=model, messages=QUESTION, user=user, stream=True)
            async for chunk in stream:
                streamed += bool(chunk.choices and chunk.choices[0].delta.content)
    except openai.APIError as error:
        return str(error), streamed
    return "ok", streamed


def counted(upstream: Upstream, models: tuple[str, ...]) -> Counter[tuple[str, str, str]]:
    """What the provider counts, by model, user and quantity."""
    names = {digest: user for user, digest in DIGESTS.items()}
    found = Counter[tuple[str, str, str]]()
    for (model, key), total in upstream.totals.items():
        if model in models and key in names:
            found.update({(model, names[key], name): getattr(total, name) for name in QUANTITIES})
    return +found


def recorded(entries: list[dict[str, Any]], models: tuple[str, ...]) -> Counter[tuple[str, str, str]]:
    """What the ledger has, in the same form."""
    found = Counter[tuple[str, str, str]]()
    for entry in entries:
        if entry["model_requested"] in models:
            found.update({(entry["model_requested"], entry["user"], name): entry[name] or 0 for name in QUANTITIES})
    return +found


def test_ledger_and_provider_agree_on_many_mixed_requests(world: World) -> None:
    draw = random.Random(7)
    kinds = draw.choices(("chat", "stream", "embedding", "failure", "cut"), weights=(35, 35, 15, 7, 8), k=REQUESTS)
    users = draw.choices(list(DIGESTS), k=REQUESTS)

    async def gateway() -> list[tuple[str, int]]:
        room = asyncio.Semaphore(PARALLEL)
        async with world.client() as client:

            async def one(kind: str, user: str) -> tuple[str, int]:
                async with room:
                    return await ask(client, kind, DIGESTS[user])

            return await asyncio.gather(*map(one, kinds, users))

    ends = asyncio.run(gateway())
    told = [(kind, end) for kind, (end, _) in zip(kinds, ends, strict=True)]
    assert [(kind, end) for kind, end in told if (end == "ok") == (kind in {"failure", "cut"})] == []
    entries = world.told(REQUESTS, tenant="dinum")
    assert recorded(entries, ("small", "embedder")) == counted(world.upstream, ("small", "embedder"))
    arrived = Counter[str]()  # the break makes the proxy lose what it hasn't read yet, so the provider sent more
    for kind, user, (_, streamed) in zip(kinds, users, ends, strict=True):
        arrived[user] += streamed if kind == "cut" else 0
    broken = recorded(entries, (CUTS,))
    assert {user: broken[CUTS, user, "output_tokens"] for user in DIGESTS} == dict(arrived)
    outcomes = Counter((entry["model_requested"], entry["status"]) for entry in entries)
    assert outcomes == {
        ("small", "ok"): kinds.count("chat") + kinds.count("stream"), ("embedder", "ok"): kinds.count("embedding"),
        ("fails-500", "error"): kinds.count("failure"), (CUTS, "error"): kinds.count("cut"),
    }  # fmt: skip
    assert all(entry["count_source"] == "provider" for entry in entries if entry["status"] == "ok")
    tokens = sum((entry["input_tokens"] or 0) + (entry["output_tokens"] or 0) for entry in entries)
    assert world.platform.standing() == {
        "requests": (REQUESTS, 0), "total_tokens": (tokens, 0), "concurrent_requests": (0, 0),
    }  # fmt: skip
    assert set(world.held("dinum").values()) == {0}


def test_parallel_clients_never_get_more_than_the_limit(world: World) -> None:
    async def one(client: openai.AsyncOpenAI) -> httpx.Response:
        try:
            answer = await client.chat.completions.with_raw_response.create(
                model="small", messages=QUESTION, user="sante/u-1"
            )
        except openai.RateLimitError as refused:
            return refused.response
        return answer.http_response

    async def gateway() -> list[httpx.Response]:
        async with world.client() as client:
            return await asyncio.gather(*(one(client) for _ in range(20)))

    before = world.upstream.of("small").requests
    answers = asyncio.run(gateway())
    assert Counter(answer.status_code for answer in answers) == {200: 7, 429: 13}
    assert world.upstream.of("small").requests == before + 7
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == "7"
        assert answer.headers["ratelimit-policy"] == '"tenant-minute";q=7;w=60'
        assert ("retry-after" in answer.headers) == (answer.status_code == 429)
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 0 < int(refused.headers["retry-after"]) <= 70
    assert refused.json() == {
        "error": {
            "message": "A limit is reached.", "type": "rate_limit_error", "param": None, "code": "limit_reached",
        }
    }  # fmt: skip
    assert Counter(entry["status"] for entry in world.told(20, tenant="sante")) == {"ok": 7, "refused": 13}
    assert world.held("sante") == {"requests": 0}


def test_an_answer_is_bounded_by_what_is_granted_and_streams_have_headers(world: World) -> None:
    with world.http("education/u-1") as http:
        body = {"model": "small", "messages": QUESTION, "stream": True, "max_tokens": 500}
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.headers["x-ratelimit-limit-tokens"] == "30"
    sent = world.upstream.asked[-1].body
    assert 0 < sent["max_tokens"] < 30
    (entry,) = world.told(1, tenant="education")
    assert entry["first_token_at"] is not None
    assert (entry["output_tokens"], entry["finish_reason"]) == (8, "stop")


@pytest.mark.parametrize(
    ("user", "model", "status", "kind", "code"),
    [
        ("finances/u-1", "small", 403, "permission_error", "forbidden"),
        ("dinum/u-1", "unheard-of", 404, "invalid_request_error", "unknown_model"),
        ("0" * 64, "small", 401, "authentication_error", "invalid_key"),
        ("somebody", "small", 401, "authentication_error", "missing_key"),
        ("dinum/no such words", "small", 400, "invalid_request_error", "invalid_name"),
    ],
)
def test_a_refusal_has_the_shape_of_openais(
    world: World, user: str, model: str, status: int, kind: str, code: str
) -> None:
    before = len(world.upstream.asked)
    with world.http(user) as http:
        answer = http.post("/v1/chat/completions", json={"model": model, "messages": QUESTION})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (status, kind, code)
    assert len(world.upstream.asked) == before


def test_while_jauge_is_away_nothing_runs(world: World) -> None:
    world.server.stop()
    try:
        with world.http(DIGESTS["alice"]) as http:
            answer = http.post("/v1/embeddings", json={"model": "embedder", "input": "un"})
    finally:
        world.server.start()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "quota_unavailable")
    assert answer.headers["retry-after"] == "5"


def test_what_nobody_counted_is_unknown_or_says_who_counted(world: World) -> None:
    with world.http("interieur/silent") as http:
        for stream in (False, True):
            http.post("/v1/chat/completions", json={"model": "silent", "messages": QUESTION, "stream": stream})
    entries = world.told(2, user="silent")
    whole, streamed = sorted(entries, key=lambda entry: entry["streamed"])
    assert (whole["input_tokens"], whole["output_tokens"], whole["count_source"]) == (None, None, None)
    assert streamed["output_tokens"] > 0
    assert streamed["count_source"] == "gateway_tokenizer"


def test_other_calls_are_counted_as_the_provider_does(world: World) -> None:
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8_000, 12_000, "NONE", ""))
        file.writeframes(bytes(24_000))
    with world.http("interieur/other") as http:
        http.post("/v1/completions", json={"model": "small", "prompt": "un deux"}).raise_for_status()
        ranked = {"model": "small", "query": "un deux", "documents": ["trois", "quatre cinq"]}
        http.post("/v1/rerank", json=ranked).raise_for_status()
        message = {"model": "small", "messages": QUESTION, "max_tokens": 50}
        for stream in (False, True):
            http.post("/v1/messages", json=message | {"stream": stream}).raise_for_status()
            response = {"model": "small", "input": "un deux trois quatre", "stream": stream}
            http.post("/v1/responses", json=response).raise_for_status()
        files = {"file": ("sound.wav", sound.getvalue(), "audio/wav")}
        http.post("/v1/audio/transcriptions", data={"model": "small"}, files=files).raise_for_status()
        http.post("/v1/moderations", json={"model": "small", "input": "un"})
    names = ("operation", "streamed", "input_tokens", "output_tokens", "documents", "audio_ms", "count_source")
    assert {tuple(entry[name] for name in names) for entry in world.told(8, user="other")} == {
        ("completion", False, 2, 8, None, None, "provider"),
        ("rerank", False, 7, None, 2, None, "provider"),
        ("chat", False, 3, 8, None, None, "provider"),
        ("chat", True, 3, 8, None, None, None),
        ("chat", False, 4, 8, None, None, "provider"),
        ("chat", True, 4, 8, None, None, None),
        ("transcription", False, None, None, None, 1_500, "gateway_tokenizer"),
        ("other", False, None, None, None, None, None),
    }


def test_the_proxys_cache_uses_nothing(world: World) -> None:
    with world.http("interieur/cached") as http:
        for _ in range(2):
            body = {"model": "small", "messages": QUESTION, "cache": {"use-cache": True}}
            http.post("/v1/chat/completions", json=body).raise_for_status()
            world.told(1, user="cached", output_tokens=8)
    assert {entry["output_tokens"] for entry in world.told(2, user="cached")} == {0, 8}


def test_clients_that_left_are_counted_as_far_as_they_came(world: World) -> None:
    entries = world.told(3, user="leaves")
    assert {entry["model_requested"]: (entry["status"], entry["output_tokens"]) for entry in entries} == {
        "hangs": ("aborted", None), "hangs-after-0": ("aborted", None), "hangs-after-3": ("aborted", 3),
    }  # fmt: skip
    until(lambda: set(world.held("interieur").values()) == {0})


WHOSE = """
from litellm.proxy._types import UserAPIKeyAuth
from metering.client import Refused
from metering.gateways.litellm import whose

def told(api_key, flag=None, end_user=None):
    auth = UserAPIKeyAuth(api_key=api_key, end_user_id=end_user)
    if flag is not None:
        setattr(auth, flag, True)
    try:
        return whose(auth)
    except Refused as refused:
        return refused.code

digest = UserAPIKeyAuth(api_key="sk-alice").api_key
print(told("sk-alice", "via_virtual_key", "dinum/somebody-else") == {"key_sha256": digest})
print(told("sk-alice", "authenticated_by_custom_auth") == {"key_sha256": digest})
print(told("litellm_proxy_master_key", "via_virtual_key", digest) == {"key_sha256": digest})
print(told("litellm_proxy_master_key", "via_virtual_key", "dinum/u-1") == {"tenant": "dinum", "user": "u-1"})
print(told("litellm_proxy_master_key", "via_virtual_key") == "missing_key")
print(told("dinum/u-1", "authenticated_by_custom_auth") == "missing_key")
print(told(digest) == "invalid_key")
"""


def test_only_a_key_that_was_checked_tells_whose_request_it_is(tmp_path: Any) -> None:
    variables = environment(JAUGE_URL="http://127.0.0.1:1", JAUGE_TOKEN="t", JAUGE_SPOOL=str(tmp_path / "spool"))
    command = [PROGRAMS / "python", "-c", WHOSE]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["True"] * 7, result.stderr
    assert not (tmp_path / "spool").exists()  # the client is opened by the first request

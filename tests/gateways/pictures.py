"""Pictures for docs/gateways of what each guide's set-up records.

    python -m tests.gateways.pictures FOLDER

runs each set-up as its page shows it, in front of a provider of the tests, lets three agents ask, and leaves a picture
of the console's page of usage in the folder; of Envoy, which sends no events, that of limits.
"""

import asyncio
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import httpx
import redis
from playwright.sync_api import sync_playwright

from metering import embedded
from metering.catalog.tokens import add_token
from metering.database import engine_for, transaction
from metering.gateways.opengatellm import Bridge
from metering.migrate import upgrade
from metering.quotas.settling import Settler
from metering.rules.periods import PARIS
from metering.services import Services, open_services
from metering.settings import Settings
from metering.tables import api_key
from tests.bench.serving import free_port
from tests.client.conftest import Platform, Server, until
from tests.conftest import copied_database
from tests.envoy.conftest import answering
from tests.envoy.test_real_envoy import configuration, running_envoy
from tests.gateways.litellm_proxy import MASTER_KEY, proxying
from tests.gateways.test_asgi_docs import PAGE as ASGI_PAGE
from tests.gateways.test_opengatellm import Gateway, State, answered, request_context
from tests.gateways.upstream import Upstream, serving
from tests.pages.browser import FLAGS, environment, find_browser
from tests.pages.tabs import signed_in
from tests.people import add_agent
from tests.quotas.conftest import declare

SIZE = {"width": 1100, "height": 690}
AGENTS = {"alice": 30, "bruno": 20, "chloe": 10}
"""Who asks how often."""

CATALOGUE = """
categories: [{id: chat, name: Chat}]
models: [{id: MODEL, name: Small, category: chat, publisher: P, licence: MIT, operations: [chat]}]
plans:
- id: wide
  name: Wide
  limits:
  - {scope: user, selector: "*", meter: requests, window: minute, value: 100}
  - {scope: user, selector: "*", meter: total_tokens, window: day, value: 10000}
  - {scope: tenant, selector: "*", meter: total_tokens, window: month, value: 20000}
tenants: [{id: TENANT, name: DINUM, plan: wide}]
"""


@dataclass(frozen=True)
class Scene:
    """Jauge before anybody has asked, with an administration and its agents, and a provider."""

    folder: Path
    services: Services
    platform: Platform
    provider_url: str
    tenant: str

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment, for a client."""
        told = {"URL": self.platform.url, "TOKEN": self.platform.token, "SPOOL": str(self.platform.spool)}
        return {f"JAUGE_{name}": value for name, value in told.items()}

    def settled(self) -> None:
        """Wait until the counters have all that is in the ledger."""
        while Settler(self.services.counters()).round(_now()):
            pass


def asgi(scene: Scene) -> str:
    """The example of the page, around the provider itself."""
    shown: dict[str, Any] = {}
    with patch.dict(os.environ, scene.variables):
        exec(re.findall(r"<!-- example -->\n```python\n(.*?)```", ASGI_PAGE, re.DOTALL)[0], shown)
    shown["app"].mount("/", Upstream())
    with serving(shown["app"]) as url:
        ask_all(url, lambda agent: {"Authorization": f"Bearer sk-{agent}"})
    return _usage(scene)


def litellm(scene: Scene) -> str:
    """The proxy with the configuration of the page; the application that has its master key names who asks."""
    variables = {**scene.variables, "UPSTREAM_URL": f"{scene.provider_url}/v1"}
    master = {"Authorization": f"Bearer {MASTER_KEY}"}
    with proxying(scene.folder, (), variables) as proxy:
        ask_all(proxy.url, lambda agent: master | {"x-litellm-end-user-id": _digest(agent).hex()})
    return _usage(scene)


def opengatellm(scene: Scene) -> str:
    """The adapter, behind the tests' own copy of the gateway's seams."""

    async def serve() -> None:
        async with scene.platform.ajauge() as jauge:
            bridge = Bridge(jauge, context=request_context.get, state=State)
            gateway = Gateway(bridge)
            for user, count in enumerate(AGENTS.values(), 1):
                for number in range(count):
                    gateway.usage.prompt_tokens, gateway.usage.completion_tokens = 5 + number, 8
                    assert (await gateway.serve(answered, user=user)).status == 200
            await bridge.aclose()

    asyncio.run(serve())
    return _usage(scene)


def envoy(scene: Scene) -> str:
    """Envoy with the configuration of the page."""
    with answering(scene.services) as asked, ExitStack() as stack:
        listened, provider = free_port(), urlsplit(scene.provider_url).port
        assert provider is not None
        config = configuration(scene.platform.token, {10000: listened, 9000: provider, 8081: asked}, free_port())
        stack.enter_context(running_envoy(scene.folder, config))
        url = f"http://127.0.0.1:{listened}"
        until(lambda: _status(url) == 429)
        ask_all(url, lambda agent: {"Authorization": f"Bearer sk-{agent}"}, streams=False)
    return f"/quotas?lang=fr&tenant={scene.tenant}"


GUIDES: Mapping[str, Callable[[Scene], str]] = {
    "asgi": asgi, "litellm": litellm, "opengatellm": opengatellm, "envoy": envoy,
}  # fmt: skip
"""Guide to what runs its set-up, and tells the page to be seen."""


def ask_all(url: str, headers_of: Callable[[str], Mapping[str, str]], *, streams: bool = True) -> None:
    """What the agents ask of a gateway."""
    with httpx.Client(base_url=url, timeout=60) as client:
        for agent, count in AGENTS.items():
            for number in range(count):
                messages = [{"role": "user", "content": "mot " * (5 + number)}]
                body = {"model": "small", "messages": messages, "stream": streams and number % 2 == 0}
                answer = client.post("/v1/chat/completions", json=body, headers=headers_of(agent))
                assert answer.status_code == 200, answer.text


def take_pictures(folder: Path, guides: Mapping[str, Callable[[Scene], str]] = GUIDES) -> None:
    """A picture of each guide."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as stores,
        embedded.running(Path(stores)) as servers,
    ):
        engine = engine_for(servers.database_url)
        upgrade(engine)
        engine.dispose()
        for guide, run in guides.items():
            with scene_of(guide, servers, Path(stores) / guide) as scene:
                page = run(scene)
                scene.settled()
                picture = folder / f"{guide}.png"
                photograph(scene, page, picture)
                print(f"{picture.name}: {picture.stat().st_size // 1024} KiB")


@contextmanager
def scene_of(guide: str, servers: embedded.Servers, folder: Path) -> Iterator[Scene]:
    """Jauge on stores of its own."""
    folder.mkdir()
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushall()
    tenant, model = ("og-org-1", "albert-small") if guide == "opengatellm" else ("dinum", "small")
    with ExitStack() as stack:
        url = stack.enter_context(copied_database(servers, "jauge", f"pictures_{guide}"))
        settings = Settings(database_url=url, redis_url=servers.redis_url, data=folder, secret_key="k" * 40)
        services = stack.enter_context(open_services(settings))
        declare(services, CATALOGUE.replace("MODEL", model).replace("TENANT", tenant))
        for agent in AGENTS:
            add_agent(services, tenant, "member", agent)
            row = {"id": f"k-{agent}", "tenant": tenant, "account": agent, "name": "k", "prefix": "sk-"}
            with transaction(services.engine) as connection:
                connection.execute(api_key.insert().values(row | {"digest": _digest(agent)}))
        services.catalog.refresh()
        server = Server(services)
        server.start()
        stack.callback(server.stop)
        platform = Platform(server.url, add_token(services.engine, "gw", "gateway"), folder / "spool", services)
        yield Scene(folder, services, platform, stack.enter_context(serving(Upstream())), tenant)


def photograph(scene: Scene, page: str, picture: Path) -> None:
    """The page as an operator sees it."""
    path = find_browser()
    assert path is not None, "no Chromium: run `python -m tests.pages.browser install`"
    token = add_token(scene.services.engine, "operator", "operator")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS), env=dict(environment(path)))
        tab = signed_in(browser, scene.platform.url, token, viewport=SIZE).new_page()
        tab.goto(f"{scene.platform.url}{page}")
        figures = tab.locator("main .headline")
        if figures.count():
            figures.first.evaluate("element => element.scrollIntoView()")
        tab.screenshot(path=picture)
        browser.close()


def _usage(scene: Scene) -> str:
    """The page of usage, once all requests are in the ledger."""
    until(lambda: len(scene.platform.entries()) == sum(AGENTS.values()))
    today = _now().astimezone(PARIS).date()
    return (
        f"/usage?lang=fr&tenant={scene.tenant}&from={today}&to={today}&bucket=hour&quantity=total_tokens&group_by=user"
    )


def _digest(agent: str) -> bytes:
    """SHA-256 of an agent's key."""
    return hashlib.sha256(f"sk-{agent}".encode()).digest()


def _status(url: str) -> int:
    """Of a request without a key; 0 where nobody answers yet."""
    try:
        return httpx.post(f"{url}/v1/chat/completions", json={"model": "small"}).status_code
    except httpx.TransportError:
        return 0


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]))

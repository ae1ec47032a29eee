"""The pages served on the loopback, and a real browser to read them."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from litestar import Litestar
from litestar.datastructures import State
from playwright.sync_api import Browser, sync_playwright

from metering import embedded
from metering.errors import JaugeError
from metering.identity import Principal
from metering.web import problem_of_ours
from reports.carbon_page import Footprint
from reports.drawing import Drawer
from reports.pages import pages_router
from reports.usage import UsageQuestion
from reports.usage_page import Reading
from tests.pages import footprints, samples
from tests.pages.browser import FLAGS, environment, find_browser
from tests.pages.platforms import Platform, open_platform
from tests.pages.tabs import WIDE, Tab


@dataclass
class Console:
    """The served pages. `answer` and `footprint` stand for the ledgers and can be changed by a test."""

    url: str = ""
    answer: Reading | JaugeError | None = None
    footprint: Footprint | None = None
    questions: list[UsageQuestion] = field(default_factory=list)

    def read(self, _state: State, question: UsageQuestion, _reader: Principal, _now: datetime) -> Reading:
        self.questions.append(question)
        if isinstance(self.answer, JaugeError):
            raise self.answer
        return self.answer or samples.reading(list(samples.platform_rows(question)))

    def read_carbon(self, _state: State, question: UsageQuestion, _reader: Principal) -> Footprint:
        self.questions.append(question)
        return self.footprint or footprints.footprint(question)


@pytest.fixture(scope="session")
def served() -> Iterator[Console]:
    console = Console()
    drawer = Drawer()

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        async with drawer.running():
            yield

    async def as_operator(connection: Any, _handler: Any) -> None:
        connection.scope["state"]["principal"] = Principal("operator", "operator")

    app = Litestar(
        [
            pages_router(
                drawer,
                guards=[as_operator],
                read=console.read,
                read_carbon=console.read_carbon,
                now=lambda: samples.NOW,
            )
        ],
        state=State({"settings": SimpleNamespace(language="fr")}),
        exception_handlers={JaugeError: problem_of_ours},
        lifespan=[lifespan],
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    console.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as client:
        assert client.get(f"{console.url}/static/jauge.css").status_code == 200
    yield console
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture
def console(served: Console) -> Console:
    """The pages over the sample platform; a test may set another answer."""
    served.answer = served.footprint = None
    served.questions.clear()
    return served


@pytest.fixture(scope="module")
def platform(servers: embedded.Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A served platform over real stores."""
    with open_platform(servers, template, tmp_path_factory.mktemp("console")) as opened:
        yield opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium. Fails, rather than skips, when there is none.

    One a module, not one a session: Playwright keeps an event loop running in this thread, and other tests need theirs.
    """
    path = find_browser()
    assert path is not None, "no Chromium: run `python -m tests.pages.browser install`"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS), env=dict(environment(path)))
        yield opened
        opened.close()


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Any]:
    """Opens tabs of a theme, a size and with or without scripts; closes them after the test."""
    contexts = []

    def open_one(theme: str = "light", size: dict[str, int] = WIDE, *, scripts: bool = True) -> Tab:
        context = browser.new_context(
            color_scheme=theme,  # type: ignore[arg-type] - light or dark
            viewport=size,  # type: ignore[arg-type] - width and height
            java_script_enabled=scripts,
            locale="fr-FR",
        )
        contexts.append(context)
        tab = Tab(context.new_page())
        tab.page.on("console", lambda message: tab.console.append(message.text))
        tab.page.on("pageerror", lambda error: tab.console.append(str(error)))
        tab.page.on("request", lambda request: tab.requested.append(request.url))
        return tab

    yield open_one
    for context in contexts:
        context.close()

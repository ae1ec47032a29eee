"""Every page of the navigation, in every state: axe-core, keyboard, zoom, narrow screens, without scripts, on paper.

Pages are taken from the navigation, so that a new one is checked as soon as it has a route. `/method` tells readers
what is checked here (`reports.method_pages`).
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from metering.catalog.tenants import add_tenant
from metering.catalog.tokens import add_token
from metering.console.asking import Person
from metering.database import transaction
from metering.tables import api_key
from reports.frame import NAVIGATION
from tests.applications import application
from tests.pages.platforms import Platform, event
from tests.pages.tabs import signed_in, violations
from tests.people import add_agent

MANY = 1_000
"""Requests of as many users, which make a table of as many rows; keys are a tenth."""
KEYS = MANY // 10
WEIGHT_MAX = 300 * 1024
TABS_MAX = 150
LONG_TABLE = "/usage?bucket=day&group_by=user&quantity=total_tokens"
ERRORS = ("/nowhere", "/usage?from=hier", "/carbon?bucket=week", "/requests?cursor=nowhere", "/quotas?tenant=nobody")


class Readers(NamedTuple):
    """A platform, a manager of an administration for each number of rows, and an operator."""

    url: str
    pages: tuple[str, ...]
    many: str
    one: str
    none: str
    some: str
    operator: str

    def opened(self, browser: Browser, token: str, **options: object) -> BrowserContext:
        return signed_in(browser, self.url, token, **options)


@pytest.fixture(scope="module")
def readers(platform: Platform) -> Readers:
    services = platform.services
    tokens = {}
    for tenant_id, requests in (("education", MANY), ("finances", 1), ("interieur", 0)):
        add_tenant(services.engine, tenant_id)
        tokens[requests] = add_agent(services, tenant_id, "manager", f"m-{tenant_id}")[1]
        with transaction(services.engine) as connection:
            for number in range(min(requests, KEYS)):
                key = {"id": f"k-{tenant_id}-{number}", "tenant": tenant_id, "name": f"Clé {number}", "prefix": "sk-"}
                digest = f"{tenant_id}{number:0>20}".encode().ljust(32)[:32]
                connection.execute(api_key.insert().values(key | {"digest": digest, "account": f"m-{tenant_id}"}))
        _send(platform, [event(number, tenant=tenant_id, user=f"u-{number}") for number in range(requests)])
    routed = {route.path for route in application(services).routes}
    pages = tuple(one.path for one in NAVIGATION if one.path in routed)
    return Readers(
        platform.url, pages, tokens[MANY], tokens[1], tokens[0], platform.manager, platform.operator
    )  # fmt: skip


def _send(platform: Platform, events: list[dict[str, object]]) -> None:
    if not events:
        return
    own = [one | {"id": f"{one['data']['tenant']}-{number}"} for number, one in enumerate(events)]  # type: ignore[index]
    token = add_token(platform.services.engine, f"gateway-{own[0]['id']}", "gateway")
    sent = httpx.post(f"{platform.url}/v1/events", json=own, headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert sent.json()["accepted"] == len(own), sent.text


def visited(readers: Readers, page: Page, paths: tuple[str, ...], language: str = "fr") -> Iterator[str]:
    """Pages that this reader may open, one after the other, with everything that unfolds unfolded."""
    for path in paths:
        answer = page.goto(f"{readers.url}{path}{'&' if '?' in path else '?'}lang={language}")
        assert answer is not None
        if answer.status == 403 and path.startswith("/admin"):
            continue
        assert answer.status == (200 if path not in ERRORS else answer.status), path
        for details in page.locator("details").all()[:20]:
            details.evaluate("element => { element.open = true }")
        yield path


def unknown_person(browser: Browser, platform: Platform) -> BrowserContext:
    """A browser of somebody whom the provider knows and the platform doesn't yet: who may ask for access."""
    person = Person("Camille Martin", "camille@culture.gouv.fr", None)
    secret = platform.services.signing().keeper.keep("person", msgspec.json.encode(person).decode(), 600)
    context = browser.new_context()
    context.add_cookies([{"name": "jauge-person", "value": secret, "url": platform.url}])
    return context


THEMES: dict[str, tuple[Literal["light", "dark"], ...]] = {"fr": ("light", "dark"), "en": ("dark", "light")}
STATES = ("many", "one", "none", "some", "operator", "error", "nobody")


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_on_any_page_theme_or_language(
    browser: Browser, readers: Readers, platform: Platform, state: str
) -> None:
    paths = readers.pages
    if state == "nobody":
        context, paths = unknown_person(browser, platform), ("/sign-in", "/method", "/access")
    elif state == "error":
        context, paths = readers.opened(browser, readers.some), ERRORS
    else:
        context = readers.opened(browser, getattr(readers, state))
        paths = (*paths, "/sessions", *([LONG_TABLE] if state == "many" else []))
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    for language, themes in THEMES.items():
        for path in visited(readers, page, paths, language):
            for theme in themes:
                page.emulate_media(color_scheme=theme)
                assert violations(page) == [], (path, theme, language)
    assert [text for text in said if "Failed to load resource" not in text] == []
    context.close()


def test_pages_hold_a_screen_of_320_pixels_and_a_zoom_of_200_percent(browser: Browser, readers: Readers) -> None:
    """At 200 %, a window of 1280 pixels has room for 640."""
    for token in (readers.some, readers.many, readers.operator):
        context = readers.opened(browser, token, java_script_enabled=False)
        page = context.new_page()
        for path in visited(readers, page, (*readers.pages, LONG_TABLE)):
            for width in (320, 640):
                page.set_viewport_size({"width": width, "height": 640})
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
        context.close()


OUTLINED = """() => {
  const element = document.activeElement, style = getComputedStyle(element), box = element.getBoundingClientRect();
  const before = window.before;
  window.before = element;
  return {
    name: element.tagName + " " + (element.id || element.textContent.trim().slice(0, 40)),
    is_page: element === document.body,
    // Inside a field of a date the browser itself marks day, month, year and calendar.
    is_outlined: before === element || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2),
    is_seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
    is_after: !before || before === element || Boolean(before.compareDocumentPosition(element) & 4),
  };
}"""


def test_the_keyboard_reaches_everything_in_order_and_always_shows_where_it_is(
    browser: Browser, readers: Readers
) -> None:
    context = readers.opened(browser, readers.some)
    page = context.new_page()
    for path in readers.pages:
        answer = page.goto(f"{readers.url}{path}?lang=fr")
        if answer is not None and answer.status == 403:
            continue
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('href')") == "#content", path
        assert page.evaluate(OUTLINED)["is_seen"], path
        for _ in range(TABS_MAX):
            page.keyboard.press("Tab")
            found = page.evaluate(OUTLINED)
            if found["is_page"]:
                break
            assert found["is_outlined"], (path, found)
            assert found["is_seen"], (path, found)
            assert found["is_after"], (path, found)
        else:
            pytest.fail(f"{path}: the keyboard doesn't come out of it")
    page.goto(f"{readers.url}/usage?lang=fr")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    details = page.locator("details").first
    page.locator("summary").first.focus()
    for expected in (True, False):
        page.keyboard.press("Enter")
        assert details.evaluate("element => element.open") is expected
    context.close()


def test_pages_hold_no_script_and_little_weight(readers: Readers) -> None:
    for token in (readers.some, readers.many, readers.operator):
        for path in readers.pages:
            answer = httpx.get(f"{readers.url}{path}", auth=("reader", token), timeout=60)
            assert "<script" not in answer.text, path
            assert len(answer.content) < WEIGHT_MAX, (path, len(answer.content))


def test_paper_has_the_figures_and_nothing_to_click(browser: Browser, readers: Readers) -> None:
    context = readers.opened(browser, readers.some, color_scheme="dark")
    page = context.new_page()
    page.emulate_media(media="print")
    for path in readers.pages:
        answer = page.goto(f"{readers.url}{path}?lang=fr")
        if answer is not None and answer.status == 403:
            continue
        for hidden in (".skip", ".languages", ".pages", "main form", "button"):
            assert [one for one in page.locator(hidden).all() if one.is_visible()] == [], (path, hidden)
        printed = page.locator(".printed")
        assert printed.is_visible(), path
        assert f" : {path}?" in printed.inner_text(), path
        for place in page.locator(".scroll").all():
            assert place.evaluate("element => getComputedStyle(element).overflowX") == "visible", path
        background = page.evaluate("getComputedStyle(document.querySelector('main')).color")
        assert background == "rgb(27, 31, 36)", path  # dark ink, in the dark theme too
    page.goto(f"{readers.url}/usage?lang=fr")
    assert page.locator("details table").first.is_visible()
    assert page.get_by_text("Europe/Paris").first.is_visible()
    assert urlsplit(page.url).path == "/usage"
    context.close()

"""Tabs of the browser: their sizes, what the browser says about a page, and what axe-core finds on it."""

from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}


@dataclass
class Tab:
    """A page and what the browser said about it."""

    page: Page
    console: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)


def signed_in(browser: Browser, url: str, token: str, **options: Any) -> BrowserContext:
    """A browser of its own whose reader has signed in with a token."""
    context = browser.new_context(**options)
    answer = context.request.post(f"{url}/sign-in/token", form={"token": token, "next": "/method"}, max_redirects=0)
    assert answer.status == 303, answer.text()
    return context


def follow(target: Locator) -> None:
    """Click what leads to another page, and wait until that one has loaded: a click alone returns before."""
    with target.page.expect_navigation():
        target.click()


def violations(page: Page) -> list[str]:
    """What axe-core finds, each with its place. It is put into the page by the test's own debugger, past the policy."""
    found = Axe().run(page)
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]

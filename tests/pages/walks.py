"""How somebody new to the console finds an answer: walks of three clicks at most, from the first page.

    python -m tests.pages.walks URL TOKEN FOLDER

walks them in a running Jauge, signed in with a token, and leaves a picture of where each ends in the folder, and one
of the first page.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.pages.browser import FLAGS, environment, find_browser
from tests.pages.tabs import follow, signed_in

CLICKS_MAX = 3
PICTURE = {"width": 1100, "height": 760}


@dataclass
class Walker:
    """A reader on the first page, who clicks."""

    page: Page
    url: str
    clicks: int = field(default=0)

    def begin(self) -> "Walker":
        self.page.goto(f"{self.url}/?lang=fr")
        self.clicks = 0
        return self

    def click(self, target: Locator) -> None:
        follow(target)
        self.clicks += 1
        assert self.clicks <= CLICKS_MAX

    def menu(self, name: str) -> None:
        self.click(self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name))

    def first_project(self) -> Locator:
        return self.page.get_by_role("region", name="Par projet").locator("tbody tr").first


def tokens_of_a_project_last_week(walker: Walker) -> Locator:
    walker.click(walker.first_project().get_by_role("rowheader").get_by_role("link"))
    walker.click(walker.page.get_by_role("link", name="7 derniers jours"))
    return walker.page.locator(".headline", has_text="Jetons en entrée")


def emissions_of_a_project_last_week(walker: Walker) -> Locator:
    walker.click(walker.first_project().get_by_role("cell").get_by_role("link"))
    walker.click(walker.page.get_by_role("link", name="7 derniers jours"))
    return walker.page.locator(".headline", has=walker.page.get_by_text("Émissions", exact=True))


def end_of_a_key(walker: Walker) -> Locator:
    walker.menu("Quotas et clés")
    return walker.page.get_by_role("region", name="Clés d’API").locator("tbody tr").first


def what_is_left_of_a_limit(walker: Walker) -> Locator:
    walker.menu("Quotas et clés")
    return walker.page.get_by_role("region", name="Limites").locator("tbody tr").first


def what_will_be_invoiced(walker: Walker) -> Locator:
    return walker.page.locator(".headline", has_text="À facturer")


WALKS: dict[str, Callable[[Walker], Locator]] = {
    "tokens": tokens_of_a_project_last_week,
    "emissions": emissions_of_a_project_last_week,
    "key": end_of_a_key,
    "limit": what_is_left_of_a_limit,
    "invoice": what_will_be_invoiced,
}
"""Question to how its answer is found: the place of the page that holds it."""


def take_pictures(url: str, token: str, folder: Path) -> None:
    """Pictures of the first page and of the end of each walk."""
    path = find_browser()
    assert path is not None, "no Chromium: run `python -m tests.pages.browser install`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS), env=dict(environment(path)))
        page = signed_in(browser, url, token, viewport=PICTURE).new_page()
        walker = Walker(page, url).begin()
        page.screenshot(path=folder / "console-overview.png")
        for name, walk in WALKS.items():
            answer = walk(walker.begin())
            expect(answer).to_be_visible()
            answer.evaluate("element => element.scrollIntoView({block: 'center'})")
            page.screenshot(path=folder / f"console-{name}.png")
            print(f"{name}: {walker.clicks} clicks")
        browser.close()


if __name__ == "__main__":
    take_pictures(sys.argv[1], sys.argv[2], Path(sys.argv[3]))

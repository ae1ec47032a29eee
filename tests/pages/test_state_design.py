"""Pages in the design of the French State, from a folder that a setting names; its own files aren't ours to ship."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser
from pydantic import ValidationError

from metering.app import create_app
from metering.catalog.tokens import add_token
from metering.services import Services
from metering.settings import STATE_FONTS, STATE_LOGO, Settings
from tests.conftest import served
from tests.pages.tabs import signed_in, violations


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (STATE_LOGO, *STATE_FONTS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(".fr-logo { color: var(--text-black-white-grey); }")
    return tmp_path


@pytest.fixture
def url(services: Services, folder: Path) -> Iterator[str]:
    settings = services.settings.model_copy(update={"state_design": folder})
    with served(create_app(replace(services, settings=settings))) as url:
        yield url


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_take_mark_and_typeface_from_the_folder_and_nothing_is_found_wrong(
    browser: Browser, services: Services, url: str, theme: str
) -> None:
    token = add_token(services.engine, "operator", "operator")
    with closing(signed_in(browser, url, token, color_scheme=theme)) as context:
        page = context.new_page()
        asked, said = [], []
        page.on("response", lambda answer: asked.append((answer.url.removeprefix(url), answer.status)))
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{url}/usage?lang=fr")
        page.evaluate("document.fonts.ready")
        assert {f"/state/{name}" for name in (STATE_LOGO, *STATE_FONTS)} <= {
            path for path, status in asked if status == 200
        }
        assert not [text for text in said if "Content Security Policy" in text]
        assert page.locator(".fr-logo").inner_text().split() == ["République", "Française"]
        assert "Marianne" in page.evaluate("getComputedStyle(document.body).fontFamily")
        assert violations(page) == []


def test_without_the_setting_pages_are_neutral(api, services: Services) -> None:
    page = httpx.get(f"{api.url}/usage", auth=("reader", api.operator_token))
    assert page.status_code == 200
    assert "fr-logo" not in page.text
    assert httpx.get(f"{api.url}/state/{STATE_LOGO}").status_code == 404


def test_nothing_beside_the_folder_is_served(url: str, folder: Path) -> None:
    (folder.parent / "secret.css").write_text("no")
    for path in ("/state/../secret.css", "/state/%2e%2e/secret.css", "/state/fonts/../../secret.css"):
        assert httpx.get(url + path).status_code == 404


def test_a_folder_of_another_form_is_refused_at_the_start(folder: Path) -> None:
    (folder / STATE_FONTS[0]).unlink()
    with pytest.raises(ValidationError, match="JAUGE_STATE_DESIGN needs a folder that has fonts/Marianne-Regular"):
        Settings(state_design=folder)

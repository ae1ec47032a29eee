"""The demo's switch between its kinds of people: there in the demo alone, on the loopback alone, without scripts."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from metering.console.demo_people import check_demo_host
from metering.demo import add_people, apply_catalogue, demo_accounts, run_demo
from metering.embedded import Servers
from metering.errors import Unprocessable
from metering.services import Services, open_services
from metering.settings import Settings, get_settings
from tests.conftest import copied_database, served_application
from tests.pages.tabs import follow, violations


@pytest.fixture(scope="module")
def demo(servers: Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Services]]:
    with copied_database(servers, template, "switch") as database_url:
        settings = Settings(
            database_url=database_url, redis_url=servers.redis_url, data=tmp_path_factory.mktemp("switch"),
            demo_accounts=demo_accounts(), read_access="open",
        )  # fmt: skip
        with open_services(settings) as services:
            apply_catalogue(services.engine, datetime.now(UTC))
            add_people(services.engine, datetime.now(UTC))
            add_people(services.engine, datetime.now(UTC))  # as at the next start
            with served_application(services) as url:
                yield url, services


def become(client: httpx.Client, who: str, **headers: str) -> httpx.Response:
    return client.post("/sign-in/demo", data={"who": who, "next": "/quotas"}, headers=headers)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_console_is_seen_as_each_kind_of_people_without_scripts(
    demo: tuple[str, Services], browser: Browser, theme: Any
) -> None:
    url, _services = demo
    size: Any = {"width": 320, "height": 700}
    context = browser.new_context(java_script_enabled=False, locale="fr-FR", color_scheme=theme, viewport=size)
    page = context.new_page()
    page.goto(f"{url}/quotas")
    switch = page.get_by_role("form", name="Démonstration")
    for name, role in (("gestionnaire", "manager"), ("agent", "member"), ("opérateur", "operator")):
        follow(switch.get_by_role("button", name=name))
        assert page.url.startswith(f"{url}/quotas")
        expect(switch.locator("[aria-pressed=true]")).to_contain_text(name)
        expect(page.locator(".person-role")).to_have_text(name)
        expect(page.locator(".person-name")).to_have_text(dict(demo_accounts(), operator="demo")[role])
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
    context.close()
    context = browser.new_context(locale="en-GB", color_scheme=theme)
    page = context.new_page()
    page.goto(f"{url}/sign-in?next=/usage")
    follow(page.get_by_role("button", name="manager"))
    assert violations(page) == []
    context.close()


def test_the_switch_leaves_a_page_that_is_not_for_everybody(demo: tuple[str, Services]) -> None:
    with httpx.Client(base_url=demo[0], timeout=60) as client:
        assert become(client, "operator").headers["location"] == "/quotas"
        assert 'name="next" value="/quotas"' in client.get("/quotas").text
        assert 'name="next" value="/"' in client.get("/sign-in").text


@pytest.mark.parametrize(
    ("who", "headers", "status"),
    [
        ("manager", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("manager", {"Host": "rebound.example"}, 403),
        ("gateway", {}, 404),
        ("", {}, 404),
    ],
)
def test_nobody_else_signs_a_browser_in(
    demo: tuple[str, Services], who: str, headers: dict[str, str], status: int
) -> None:
    with httpx.Client(base_url=demo[0], timeout=60) as client:
        assert become(client, who, **headers).status_code == status
        assert not client.cookies


def test_without_the_demo_there_is_no_such_sign_in(demo: tuple[str, Services]) -> None:
    url, services = demo
    accounts = services.settings.demo_accounts
    services.settings.demo_accounts = {}
    with httpx.Client(base_url=url, timeout=60) as client:
        for who in ("operator", "manager"):
            assert become(client, who).status_code == 404
        assert "/sign-in/demo" not in client.get("/sign-in").text
    services.settings.demo_accounts = accounts


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "jauge.example", ""])
def test_a_host_that_others_reach_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unprocessable, match="without a password"):
        check_demo_host(Settings(demo_accounts=demo_accounts()), host)
    check_demo_host(Settings(), host)
    monkeypatch.setenv("JAUGE_HOST", host)
    get_settings.cache_clear()
    with pytest.raises(Unprocessable, match="without a password"):
        run_demo(None, 0)
    get_settings.cache_clear()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_alone_is_let_in(host: str) -> None:
    check_demo_host(Settings(demo_accounts=demo_accounts()), host)

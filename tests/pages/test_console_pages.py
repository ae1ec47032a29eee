"""The journal, quotas and models in a real Chromium, over a real ledger: one server for all."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from metering.rules.chain import identity_of
from tests.pages.platforms import EVENTS, Platform
from tests.pages.tabs import follow, signed_in, violations

NARROW = {"width": 320, "height": 700}
WEIGHT_MAX = 300 * 1024


@pytest.fixture
def manager_page(browser: Browser, platform: Platform) -> Iterator[Page]:
    context = signed_in(browser, platform.url, platform.manager, java_script_enabled=False, viewport=NARROW)
    yield context.new_page()
    context.close()


def test_the_journal_is_read_page_by_page_without_scripts_and_leads_to_the_trail(
    platform: Platform, manager_page: Page
) -> None:
    page = manager_page
    page.goto(f"{platform.url}/requests?lang=fr")
    expect(page.get_by_role("heading", level=1)).to_have_text("Journal des requêtes")
    expect(page.locator("table.data tbody tr")).to_have_count(50)
    expect(page.get_by_text("corrigée")).to_be_visible()
    expect(page.locator("tbody tr").first).to_contain_text("1,80")  # 1.2 × 1 € + 0.3 × 2 €
    follow(page.get_by_role("link", name="Requêtes plus anciennes"))
    expect(page.locator("table.data tbody tr")).to_have_count(EVENTS - 50)
    expect(page.get_by_text("non mesurée")).to_be_visible()
    follow(page.get_by_role("link", name="Revenir aux plus récentes"))
    follow(page.locator("tbody tr", has_text="annulée").get_by_role("link"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Requête req-4")
    expect(page.get_by_text("<script>alert(1)</script>")).to_be_visible()
    expect(page.get_by_text("Lignes valorisées")).to_be_visible()
    follow(page.get_by_role("link", name="Revenir au journal"))
    page.select_option("#user", "u-2")
    follow(page.get_by_role("button", name="Appliquer"))
    expect(page.locator("table.data tbody tr")).to_have_count((EVENTS - 1) // 2)


def test_nothing_is_found_wrong_in_any_theme_language_or_state(browser: Browser, platform: Platform) -> None:
    request = f"/requests/{identity_of('test', 'req-2').hex()}"
    for theme, language, token in (
        ("light", "fr", platform.manager), ("dark", "en", platform.member), ("dark", "fr", platform.operator),
        ("light", "en", platform.newcomer),
    ):  # fmt: skip
        context = signed_in(browser, platform.url, token, color_scheme=theme, viewport=NARROW)
        page, said = context.new_page(), list[str]()
        page.on("console", lambda message, said=said: said.append(message.text))
        for path in PAGES if token == platform.newcomer else (*PAGES, request):
            answer = page.goto(f"{platform.url}{path}{'&' if '?' in path else '?'}lang={language}")
            assert answer is not None
            assert answer.status == 200, (path, language)
            assert violations(page) == [], (path, theme, language)
            assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], path
            assert len(answer.body()) < WEIGHT_MAX, path
        assert said == []
        context.close()


PAGES = ("/requests?from=2026-01-01&to=2026-01-02",)
"""Beside those of the navigation, see `test_accessibility`."""


def test_quotas_say_what_is_left_and_which_key_ends_soon(platform: Platform, browser: Browser) -> None:
    context = signed_in(browser, platform.url, platform.member, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{platform.url}/quotas?lang=fr")
    credit = page.locator("tbody tr", has_text="70 requêtes de crédit".replace(" r", "\u00a0r"))
    expect(credit).to_contain_text("bientôt atteinte")
    expect(credit).to_contain_text("sans remise à zéro")
    tokens = page.locator("tbody tr", has_text="dépassée")
    expect(tokens).to_contain_text("0\u00a0jeton")
    key = page.locator("tbody tr", has_text="onerror")
    expect(key).to_contain_text("dans 4 jours")
    expect(key).to_contain_text("jamais")
    expect(page.get_by_text("en attente")).to_be_visible()
    key.get_by_text("Révoquer", exact=True).click()
    follow(key.get_by_role("button", name="Révoquer pour de bon"))
    expect(page.get_by_role("status")).to_have_text("La clé est révoquée.")
    expect(page.locator("tbody tr", has_text="onerror")).to_contain_text("révoquée")
    follow(page.get_by_role("link", name="Modèles"))
    expect(page.get_by_role("heading", name="Large albert-large")).to_be_visible()
    expect(page.get_by_text("jetons en entrée\u00a0: 1,00\u00a0€ pour 1,000 tokens")).to_be_visible()
    expect(page.get_by_text("vendor/Large")).to_be_visible()
    context.close()


def test_operators_choose_an_administration_and_agents_stay_in_their_own(platform: Platform) -> None:
    def get(path: str, token: str) -> httpx.Response:
        return httpx.get(f"{platform.url}{path}", auth=("reader", token))

    assert "choisissez-en une" in get("/quotas", platform.operator).text
    assert "onerror" in get("/quotas?tenant=dinum", platform.operator).text
    assert get("/quotas?tenant=nobody", platform.operator).status_code == 404
    assert "&lt;img src=x" in get("/quotas", platform.manager).text
    assert get("/quotas?tenant=sante", platform.manager).status_code == 403
    newcomer = get("/quotas", platform.newcomer).text
    assert "dinum" not in newcomer
    assert "Aucune clé" in newcomer


def test_what_is_wrong_or_anothers_is_said_with_the_requests_id(platform: Platform) -> None:
    def get(path: str, token: str) -> httpx.Response:
        return httpx.get(f"{platform.url}{path}", auth=("reader", token))

    for path, token, status, said in (
        ("/requests?from=hier", platform.member, 400, "n’est pas une date"),
        ("/requests?status=lost&x=1", platform.member, 400, "n’est pas un paramètre"),
        ("/requests?cursor=nowhere", platform.member, 400, "ne peut pas être satisfaite"),
        ("/requests?user=u-2", platform.member, 403, "ne sont pas les vôtres"),
        (f"/requests/{identity_of('test', 'req-1').hex()}", platform.member, 404, "n’existe pas"),
        (f"/requests/{identity_of('test', 'req-1').hex()}", platform.newcomer, 404, "n’existe pas"),
    ):
        answer = get(path, token)
        assert (answer.status_code, said in answer.text) == (status, True), (path, answer.text)
        assert answer.headers["x-request-id"] in answer.text
    assert httpx.get(f"{platform.url}/requests").headers["location"].startswith("/sign-in?")
    assert "u-2" not in get("/requests", platform.member).text

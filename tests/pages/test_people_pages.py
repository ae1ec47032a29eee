"""Keys, raises, terms and people by their forms: what works, what is refused, and what stays another's."""

from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, expect

from metering import embedded
from metering.database import transaction
from metering.tables import api_key, console_session
from tests.pages.closed import HOSTILE, Platform, closed_platform
from tests.pages.tabs import follow, signed_in, violations
from tests.pages.visitor import Visitor

LIMITS = """
plans:
  - id: experimentation
    name: Experimentation
    limits:
      - {scope: user, meter: requests, window: day, value: 100}
      - {scope: tenant, meter: requests, window: day, value: 500}
terms:
  - document: terms
    version: "1"
    title_fr: Conditions
    title_en: Terms
    text_fr: <script>alert(1)</script>
    text_en: <script>alert(1)</script>
    effective_at: 2026-01-01T00:00:00Z
    enforced_at: 2026-01-01T00:00:00Z
"""
RAISE = {"limit": "user|*|requests|day|", "value": "200", "motive": HOSTILE}


@pytest.fixture(scope="module")
def platform(servers: embedded.Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with closed_platform(servers, template, tmp_path_factory.mktemp("people"), "people", LIMITS) as opened:
        yield opened


def test_a_member_accepts_the_terms_and_makes_a_key_whose_secret_is_shown_once(
    platform: Platform, browser: Browser
) -> None:
    context = signed_in(browser, platform.url, platform.member, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{platform.url}/quotas?lang=fr")
    follow(page.get_by_role("link", name="Créer une clé d’API"))
    page.get_by_label("Nom").fill(HOSTILE[:40])
    follow(page.get_by_role("button", name="Créer la clé"))
    expect(page.get_by_role("alert")).to_contain_text("Les conditions en vigueur ne sont pas acceptées")
    expect(page.get_by_label("Nom")).to_have_value(HOSTILE[:40])
    follow(page.get_by_role("link", name="Conditions", exact=True))
    expect(page.get_by_text("<script>alert(1)</script>")).to_be_visible()
    follow(page.get_by_role("button", name="J’ai lu cette version"))
    expect(page.get_by_role("status")).to_have_text("L’acceptation est enregistrée.")
    page.goto(f"{platform.url}/quotas/keys/new?lang=fr")
    page.get_by_label("Nom").fill("assistant")
    follow(page.get_by_role("button", name="Créer la clé"))
    secret = page.locator(".secret").inner_text()
    assert secret.startswith("sk-jauge-")
    follow(page.get_by_role("link", name="Revenir aux quotas"))
    assert secret not in page.content()
    with transaction(platform.services.engine) as connection:
        assert secret not in str(connection.execute(sa.select(console_session)).all())
    follow(page.get_by_role("link", name="Gérer la clé assistant"))
    page.get_by_role("textbox", name="Nom").fill("assistant 2")
    page.get_by_label("Dernier jour").fill("2027-03-31")
    follow(page.get_by_role("button", name="Enregistrer"))
    expect(page.get_by_role("heading", level=1)).to_have_text("assistant 2")
    expect(page.locator("#key")).to_contain_text("1er avril 2027 à 00:00")
    follow(page.get_by_role("button", name="Créer la remplaçante"))
    assert page.locator(".secret").inner_text() != secret
    follow(page.get_by_role("link", name="Revenir aux quotas"))
    follow(page.get_by_role("link", name="Gérer la clé assistant 2").first)
    follow(page.get_by_role("button", name="Révoquer pour de bon"))
    expect(page.get_by_role("status")).to_have_text("La clé est révoquée.")
    context.close()


def test_a_raise_shows_its_study_before_it_is_sent(platform: Platform, browser: Browser) -> None:
    context = signed_in(browser, platform.url, platform.member, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{platform.url}/quotas?lang=fr")
    follow(page.get_by_role("link", name="Demander un relèvement"))
    expect(page.locator("option")).to_have_count(1)
    page.get_by_label("Valeur demandée").fill("100")
    page.get_by_label("Motif").fill(RAISE["motive"])
    follow(page.get_by_role("button", name="Voir l’étude"))
    expect(page.get_by_role("alert")).to_contain_text("allows as much")
    page.goto(f"{platform.url}/quotas/raises/new?lang=fr")
    page.get_by_label("Valeur demandée").fill("200")
    page.get_by_label("Motif").fill(RAISE["motive"])
    follow(page.get_by_role("button", name="Voir l’étude"))
    expect(page.locator("#study")).to_contain_text("Jour le plus haut")
    expect(page.locator("#asked")).to_contain_text("200\u00a0requêtes par jour")
    follow(page.get_by_role("button", name="Envoyer la demande"))
    expect(page.get_by_role("status")).to_contain_text("La demande est envoyée")
    rows = page.locator("[aria-labelledby=raises-title] tbody tr")
    expect(rows).to_contain_text("en attente")
    again = Visitor(platform.url, platform.member)
    assert "attend déjà sa décision" in again.send("/quotas/raises", RAISE).text
    assert "Retirer la demande" not in platform.get("/quotas", platform.manager).text
    follow(page.get_by_role("button", name="Retirer la demande"))
    expect(page.get_by_role("status")).to_contain_text("La demande est retirée")
    expect(rows).to_contain_text("retirée")
    expect(page.get_by_role("button", name="Retirer la demande")).to_have_count(0)
    context.close()
    assert 'role="alert"' in again.send("/quotas/raises/withdraw", {"request": "raise_none"}).text


def test_a_manager_invites_changes_suspends_and_deletes(platform: Platform) -> None:
    manager = Visitor(platform.url, platform.manager)
    name = HOSTILE[:60].replace("\u202e", "")
    invited = {"tenant": "dinum", "name": name, "email": "ada@culture.gouv.fr", "role": "member", "language": "fr"}
    answer = manager.send("/people/invite", invited)
    assert "L’invitation est envoyée" in answer.text
    about = {"tenant": "dinum", "account": "u-2"}
    assert "Le rôle est changé" in manager.send("/people/role", about | {"role": "manager"}).text
    assert "Le compte est suspendu" in manager.send("/people/suspend", about | {"reason": HOSTILE}).text
    assert "&lt;img" in manager.page("/people/u-2").text
    assert "La suspension est finie" in manager.send("/people/restore", about).text
    assert "cocher la confirmation" in manager.send("/people/delete", about).text
    assert "Le compte est supprimé" in manager.send("/people/delete", about | {"confirmed": "yes"}).text
    assert manager.page("/people/u-2").status_code == 404
    own = {"tenant": "dinum", "account": "m-1", "role": "member"}
    assert "Il faut garder un gestionnaire" in manager.send("/people/role", own).text


REFUSED = [
    ("/people/invite", {"tenant": "dinum", "name": "x", "email": "nowhere", "role": "member", "language": "fr"}),
    ("/people/invite", {"tenant": "dinum", "name": "", "email": "a@example.test", "role": "member", "language": "fr"}),
    ("/people/role", {"tenant": "dinum", "account": "u-1", "role": "operator"}),
    ("/people/suspend", {"tenant": "dinum", "account": "u-1", "reason": ""}),
    ("/people/destroy", {"tenant": "dinum", "account": "u-1"}),
    ("/people/role", {"tenant": "dinum", "account": "nobody", "role": "member"}),
    ("/people/role", {"tenant": "sante", "account": "m-9", "role": "member"}),
    ("/people/delete", {"tenant": "sante", "account": "m-9", "confirmed": "yes"}),
    ("/people/delete", {"tenant": "dinum", "account": "m-9", "confirmed": "yes"}),
    ("/people/invite", {"tenant": "sante", "name": "x", "email": "a@example.test", "role": "member", "language": "fr"}),
    ("/quotas/keys", {"name": "x", "expires_on": "hier"}),
    ("/quotas/keys", {"name": "x", "expires_on": "2199-01-01"}),
    ("/quotas/keys", {"name": "x", "project": "none", "expires_on": ""}),
    ("/quotas/keys", {"name": "a\x00b"}),
    ("/quotas/keys/change", {"tenant": "sante", "key": "k-9", "name": "x", "expires_on": "2027-01-01"}),
    ("/quotas/keys/change", {"tenant": "dinum", "key": "k-9", "name": "x", "expires_on": "2027-01-01"}),
    ("/quotas/keys/replace", {"key": "k-9"}),
    ("/quotas/keys/revoke", {"tenant": "sante", "key": "k-9"}),
    ("/quotas/raises", RAISE | {"value": "many"}),
    ("/quotas/raises", RAISE | {"value": ""}),
    ("/quotas/raises", RAISE | {"limit": "here"}),
    ("/quotas/raises", RAISE | {"limit": "user|*|requests|day|m-9"}),
    ("/terms/accept", {"document": "terms", "version": "9"}),
    ("/terms/accept", {"document": "recipe", "version": "1"}),
]


@pytest.mark.parametrize(("path", "fields"), REFUSED, ids=lambda one: one if isinstance(one, str) else "")
def test_what_is_wrong_or_anothers_is_refused_and_changes_nothing(
    platform: Platform, path: str, fields: dict[str, str]
) -> None:
    before = _keys(platform)
    answer = Visitor(platform.url, platform.manager).send(path, fields)
    assert answer.status_code in {200, 400, 404}, answer.status_code
    assert 'role="alert"' in answer.text
    assert _keys(platform) == before


def _keys(platform: Platform) -> list[object]:
    with transaction(platform.services.engine) as connection:
        return list(connection.execute(sa.select(api_key.c.id, api_key.c.revoked_at, api_key.c.expires_at)))


@pytest.mark.parametrize(
    ("path", "tokens"),
    [
        ("/people/invite", ["member"]),
        ("/people/role", ["member"]),
        ("/quotas/keys", ["operator"]),
        ("/quotas/keys/replace", ["operator"]),
        ("/quotas/raises", ["operator"]),
        ("/quotas/raises/withdraw", ["operator"]),
        ("/quotas/charts/end", ["member"]),
        ("/terms/accept", ["operator"]),
    ],
)
def test_forms_are_for_their_roles_and_come_from_our_pages(platform: Platform, path: str, tokens: list[str]) -> None:
    for token in tokens:
        assert Visitor(platform.url, getattr(platform, token)).send(path, {}).status_code == 403
    assert Visitor(platform.url, platform.manager).send(path, {}, csrf="guessed").status_code == 403
    assert httpx.post(f"{platform.url}{path}", data={}).headers["location"].startswith("/sign-in?")


def test_pages_of_others_and_for_other_roles_stay_closed(platform: Platform) -> None:
    for path, token, status in (
        ("/people", platform.member, 403),
        ("/people?tenant=sante", platform.manager, 404),
        ("/people/m-9?tenant=sante", platform.manager, 404),
        ("/people/m-9", platform.manager, 404),
        ("/quotas/keys/k-9", platform.manager, 404),
        ("/quotas/keys/new", platform.operator, 403),
        ("/quotas/raises/study?limit=x", platform.member, 400),
    ):
        assert platform.get(path, token).status_code == status, path
    assert "choisissez-en une" in platform.get("/people", platform.operator).text
    assert "m-9@example.test" in platform.get("/people?tenant=sante", platform.operator).text


def test_nothing_is_found_wrong_in_either_theme(platform: Platform, browser: Browser) -> None:
    for theme, language, token, paths in (
        (
            "light",
            "fr",
            platform.manager,
            ("/people", "/people/u-1", "/quotas/keys/new", "/quotas/raises/new", "/terms"),
        ),
        ("dark", "en", platform.operator, ("/people", "/people?tenant=sante", "/people?tenant=berne", "/terms")),
    ):
        context = signed_in(browser, platform.url, token, color_scheme=theme, viewport={"width": 320, "height": 700})
        page = context.new_page()
        for path in paths:
            answer = page.goto(f"{platform.url}{path}{'&' if '?' in path else '?'}lang={language}")
            assert answer is not None
            assert answer.status == 200, path
            assert violations(page) == [], (path, theme)
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
        context.close()

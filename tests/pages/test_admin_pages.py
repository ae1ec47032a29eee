"""The pages of administration: what they show and do, for whom, and that hostile names stay texts."""

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, expect

from metering import embedded
from metering.catalog.access import request_access
from metering.catalog.deciding import Asked
from metering.console.admin_routes import FORMS, PAGES
from metering.database import transaction
from metering.tables import limit_override, notice, quarantine
from tests.pages.closed import HOSTILE, Platform, closed_platform
from tests.pages.tabs import follow, signed_in, violations
from tests.pages.visitor import Visitor

MORE = """
conventions:
  - id: c-9
    tenant: sante
    title: <img src=x onerror=alert(1)>
    funder: <img src=x onerror=alert(1)>
    signed_on: 2026-01-01
    effective_on: 2026-11-01
    starts_on: 2026-11-01
    ends_on: 2027-10-31
    settlement: envelope
    overage: block
    envelope_eur: "1000"
    price_book: list
plans:
  - id: experimentation
    name: Experimentation
    limits: [{scope: user, meter: requests, window: day, value: 100}]
"""
NAME = HOSTILE.replace("\u202e", "")
PATHS = (
    "/admin", "/admin/access", "/admin/raises", "/admin/conventions", "/admin/conventions/c-9", "/admin/prices",
    "/admin/limits", "/admin/limits?tenant=dinum", "/admin/overload", "/admin/notices", "/admin/quarantine",
    "/admin/reconciliation?month=2026-10", "/admin/months", "/admin/months/2026-10", "/admin/months/2026-11",
)  # fmt: skip


@pytest.fixture(scope="module")
def platform(servers: embedded.Servers, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with closed_platform(servers, template, tmp_path_factory.mktemp("admin"), "admin", MORE) as opened:
        yield opened


def ask_for_access(platform: Platform, email: str) -> str:
    asked = Asked("individual", NAME, None, NAME, email, "fr", HOSTILE, None)
    services = platform.services
    return request_access(services.engine, services.master_key, asked, datetime.now(UTC)).id


def refuse_an_event(platform: Platform) -> int:
    event = {
        "specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": f"bad-{datetime.now(UTC).timestamp()}",
        "time": "2026-11-20T08:00:00Z",
        "data": {
            "tenant": "dinum", "operation": "chat", "model_requested": "albert-large", "status": "ok",
            "input_tokens": -5, "output_tokens": 3,
        },
    }  # fmt: skip
    sent = httpx.post(
        f"{platform.url}/v1/events", json=[event], headers={"Authorization": f"Bearer {platform.operator}"}
    )
    assert sent.json()["rejected"] == 1, sent.text
    with transaction(platform.services.engine) as connection:
        return connection.scalar(sa.select(sa.func.max(quarantine.c.number))) or 0


def test_nothing_is_found_wrong_with_none_and_with_some(platform: Platform, browser: Browser) -> None:
    """First with nothing that waits, then with one hostile thing of each."""
    for theme, language, viewport in (("light", "fr", 320), ("dark", "en", 1280)):
        context = signed_in(
            browser, platform.url, platform.operator, color_scheme=theme, viewport={"width": viewport, "height": 800}
        )
        page = context.new_page()
        paths = list(PATHS)
        if theme == "dark":
            paths += [f"/admin/access/{ask_for_access(platform, 'a@culture.gouv.fr')}"]
            paths += [f"/admin/quarantine/{refuse_an_event(platform)}"]
        for path in paths:
            answer = page.goto(f"{platform.url}{path}{'&' if '?' in path else '?'}lang={language}")
            assert answer is not None
            assert answer.status == 200, path
            assert violations(page) == [], (path, theme)
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport, path
            assert "<img src=x" not in answer.text(), path
        context.close()


def test_an_operator_decides_on_access_without_scripts(platform: Platform, browser: Browser) -> None:
    first, second = (ask_for_access(platform, f"{name}@culture.gouv.fr") for name in ("ada", "bob"))
    context = signed_in(browser, platform.url, platform.operator, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{platform.url}/admin?lang=fr")
    follow(page.get_by_role("link", name="Demandes d’accès"))
    expect(page.get_by_text("<img src=x onerror=alert(1)>").first).to_be_visible()
    page.goto(f"{platform.url}/admin/access/{first}?lang=fr")
    page.get_by_label("Administration").select_option("dinum")
    follow(page.get_by_role("button", name="Accorder"))
    expect(page.get_by_role("status")).to_have_text("La demande est validée.")
    page.goto(f"{platform.url}/admin/access/{second}?lang=fr")
    page.get_by_label("Motif").fill(HOSTILE)
    follow(page.get_by_role("button", name="Refuser"))
    expect(page.get_by_role("status")).to_have_text("La demande est refusée.")
    page.goto(f"{platform.url}/admin/access/{second}?lang=fr")
    expect(page.locator("#request")).to_contain_text("refusée")
    expect(page.get_by_role("button", name="Accorder")).to_have_count(0)
    context.close()
    again = Visitor(platform.url, platform.operator).send("/admin/access/refuse", {"id": second, "reason": "x"})
    assert "déjà décidée" in again.text


def test_raises_are_decided_with_their_study(platform: Platform) -> None:
    for answer, account, said in (("approve", "u-1", "accordé"), ("refuse", "u-2", "refusé")):
        limit = {"scope": "user", "selector": "*", "meter": "requests", "window": "day", "value": 500}
        sent = httpx.post(
            f"{platform.url}/v1/tenants/dinum/limit-requests",
            json={"limit": limit, "subject": account, "motive": HOSTILE},
            headers={"Authorization": f"Bearer {platform.manager}"},
        )
        assert sent.status_code == 201, sent.text
        operator, found = Visitor(platform.url, platform.operator), sent.json()["id"]
        shown = operator.page(f"/admin/raises/{found}?lang=fr").text
        assert "Jour le plus haut" in shown
        assert "<img src=x" not in shown
        fields = {"id": found, "reason": HOSTILE, "value": "300", "ends_on": ""}
        assert f"Le relèvement est {said}" in operator.send(f"/admin/raises/{answer}", fields).text
        assert "déjà décidée" in operator.send(f"/admin/raises/{answer}", fields).text
    with transaction(platform.services.engine) as connection:
        assert [rule["value"] for rule in connection.scalars(sa.select(limit_override.c.rule))] == [300]


def test_an_overload_is_set_once_it_is_confirmed_and_told(platform: Platform) -> None:
    operator = Visitor(platform.url, platform.operator)
    level = {"level": "free", "reason": HOSTILE}
    assert "cocher la confirmation" in operator.send("/admin/overload", level).text
    assert platform.services.catalog.refresh().platform.overload == "none"
    shown = operator.send("/admin/overload", level | {"confirmed": "yes"}).text
    assert "Le niveau de surcharge est changé" in shown
    assert "<img src=x" not in shown
    assert platform.services.catalog.refresh().platform.overload == "free"
    refused = operator.send("/admin/overload", {"level": "batch", "reason": "", "confirmed": "yes"}).text
    assert "n’a pas la forme attendue" in refused
    assert "n’a pas la forme" in operator.send("/admin/overload", {"level": "all", "confirmed": "yes"}).text
    calm = operator.send("/admin/overload", {"level": "none", "reason": "", "confirmed": "yes"}).text
    assert "aucune surcharge" in calm


def test_notices_are_published_and_ended(platform: Platform) -> None:
    operator = Visitor(platform.url, platform.operator)
    texts = dict.fromkeys(("title_fr", "title_en", "text_fr", "text_en"), NAME)
    for starts_on in ("", "2099-01-01"):
        sent = operator.send("/admin/notices", texts | {"kind": "incident", "starts_on": starts_on, "tenants": "dinum"})
        assert "L’avis est publié" in sent.text
        assert "<img src=x" not in sent.text
    with transaction(platform.services.engine) as connection:
        names = list(connection.scalars(sa.select(notice.c.id)))
    for name in names:
        assert "L’avis est fini" in operator.send("/admin/notices/end", {"id": name}).text
    with transaction(platform.services.engine) as connection:
        assert [row.ends_at is not None for row in connection.execute(sa.select(notice.c.ends_at))] == [True]
    assert "Cet avis n’existe pas" in operator.send("/admin/notices/end", {"id": "none"}).text
    wrong = operator.send("/admin/notices", texts | {"kind": "incident", "tenants": "nobody"})
    assert 'role="alert"' in wrong.text


def test_exceptions_to_limits_are_granted_and_ended(platform: Platform) -> None:
    operator = Visitor(platform.url, platform.operator)
    given = {
        "tenant": "dinum", "scope": "tenant", "subject": "", "selector": "*", "meter": "requests", "window": "month",
        "value": "7 000", "starts_on": "", "ends_on": "2030-12-31", "motive": HOSTILE,
    }  # fmt: skip
    shown = operator.send("/admin/limits/grant", given).text
    assert "L’exception est accordée" in shown
    assert "7\u202f000\u00a0requêtes par mois" in shown
    assert "<img src=x" not in shown
    with transaction(platform.services.engine) as connection:
        own = limit_override.c.motive == HOSTILE
        (found,) = connection.scalars(
            sa.select(limit_override.c.id).where(own, limit_override.c.raise_request.is_(None))
        )
    assert "L’exception est finie" in operator.send("/admin/limits/end", {"tenant": "dinum", "override": found}).text
    for wrong in (
        {"scope": "planet"},
        {"selector": "model:none"},
        {"value": "-1"},
        {"ends_on": "2020-01-01"},
        {"motive": ""},
    ):
        assert 'role="alert"' in operator.send("/admin/limits/grant", given | wrong).text, wrong
    assert operator.send("/admin/limits/grant", given | {"tenant": "nobody"}).status_code == 404


def test_refused_events_are_dismissed_with_a_reason(platform: Platform) -> None:
    operator, number = Visitor(platform.url, platform.operator), refuse_an_event(platform)
    given = {"number": str(number), "reason": "Un essai <b>de la passerelle</b>"}
    assert 'role="alert"' in operator.send("/admin/quarantine/dismiss", given | {"reason": " "}).text
    done = operator.send("/admin/quarantine/dismiss", given).text
    assert "L’événement est écarté." in done
    assert f"/admin/quarantine/{number}?" not in done
    shown = operator.page(f"/admin/quarantine/{number}?lang=fr").text
    assert "Un essai &lt;b&gt;de la passerelle" in shown
    assert 'action="/admin/quarantine' not in shown
    assert "n’attend plus" in operator.send("/admin/quarantine/dismiss", given).text


def test_refused_events_are_mended_and_replayed(platform: Platform) -> None:
    operator, number = Visitor(platform.url, platform.operator), refuse_an_event(platform)
    assert "data.input_tokens" in operator.page(f"/admin/quarantine/{number}?lang=fr").text
    as_it_is = operator.send("/admin/quarantine/replay", {"number": str(number)})
    assert "0 au registre, 1 refusés" in as_it_is.text
    wrong = operator.send("/admin/quarantine/replay", {"number": str(number), "path": "data.prompt", "value": "x"})
    assert "n’est pas de l’événement" in wrong.text
    mended = {"number": str(number), "path": "data.input_tokens", "value": "5"}
    assert "1 au registre, 0 refusés" in operator.send("/admin/quarantine/replay", mended).text
    assert 'role="alert"' in operator.send("/admin/quarantine/replay", {"path": "data.tenant", "value": "x"}).text
    for path, status in (("x", 400), ("999999", 404)):
        assert operator.page(f"/admin/quarantine/{path}").status_code == status


def test_the_proof_of_a_month_is_shown(platform: Platform) -> None:
    shown = platform.get("/admin/reconciliation?month=2026-10&lang=fr", platform.operator).text
    assert "Tout concorde" in shown
    assert "lignes valorisées" in shown
    assert platform.get("/admin/reconciliation?month=October", platform.operator).status_code == 400


def test_conventions_say_what_is_left_and_prices_when_they_hold(platform: Platform) -> None:
    shown = platform.get("/admin/conventions/c-9?lang=fr", platform.operator).text
    assert "1\u202f000,00\u00a0€" in shown
    assert platform.get("/admin/conventions/none", platform.operator).status_code == 404
    prices = platform.get("/admin/prices?lang=fr", platform.operator).text
    assert "en vigueur" in prices
    assert "category:big" in prices


def test_a_month_is_drafted_reviewed_and_refused_plainly(platform: Platform) -> None:
    operator = Visitor(platform.url, platform.operator)
    closed = operator.page("/admin/months/2026-10?lang=fr").text
    assert "3 écrits sur 3" in closed
    assert "Clore le mois" not in closed
    assert "clos pour de bon" in operator.send("/admin/months/draft", {"month": "2026-10"}).text
    drafted = operator.send("/admin/months/draft", {"month": "2026-11"}).text
    assert "Le brouillon est fait" in drafted
    assert "usage disparu" in drafted
    assert "cocher la confirmation" in operator.send("/admin/months/final", {"month": "2026-11"}).text
    early = operator.send("/admin/months/final", {"month": "2999-11", "confirmed": "yes"}).text
    assert "n’a pas commencé" in early
    assert "dans l’ordre" in operator.send("/admin/months/draft", {"month": "2026-09"}).text
    assert 'role="alert"' in operator.send("/admin/months/final", {"month": "x", "confirmed": "yes"}).text
    assert operator.page("/admin/months/x").status_code == 400


def _paths(handlers: list[object]) -> list[str]:
    """Every path of handlers, with something in the place of its parameters."""
    return sorted(path.split("{")[0] + ("x" if "{" in path else "") for one in handlers for path in one.paths)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", _paths(list(FORMS)))
def test_forms_are_operators_alone_and_come_from_our_pages(platform: Platform, path: str) -> None:
    for token in (platform.member, platform.manager):
        assert Visitor(platform.url, token).send(path, {"confirmed": "yes"}).status_code == 403
    assert Visitor(platform.url, platform.operator).send(path, {}, csrf="guessed").status_code == 403
    assert httpx.post(f"{platform.url}{path}", data={}).headers["location"].startswith("/sign-in?")


@pytest.mark.parametrize("path", _paths(list(PAGES)))
def test_pages_are_operators_alone(platform: Platform, path: str) -> None:
    for token in (platform.member, platform.manager):
        assert platform.get(path, token).status_code == 403
    assert "/admin" not in platform.get("/terms", platform.manager).text

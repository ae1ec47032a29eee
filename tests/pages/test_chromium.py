"""The page in a real Chromium: accessible, in both themes and languages, without scripts, asking nobody else."""

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser

from metering.rules.periods import PARIS
from tests.conftest import Api, MakeEvent
from tests.pages.conftest import Console
from tests.pages.samples import NEWS, NOTHING_RECORDED, platform_rows, reading, row, selection
from tests.pages.tabs import NARROW, WIDE, follow, signed_in, violations

FULL = "/usage?from=2026-09-01&to=2026-09-30&quantity=total_tokens"


def test_the_real_application_lets_an_operator_read_in_a_browser(
    api: Api, make_event: MakeEvent, browser: Browser
) -> None:
    with api.client() as client:
        assert client.post("/v1/events", json=[make_event() for _ in range(3)]).status_code == 200
    context = signed_in(browser, api.url, api.operator_token)
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    answer = page.goto(f"{api.url}/usage?from=2026-10-05&to=2026-10-05&bucket=hour&lang=fr")
    assert answer is not None
    assert answer.status == 200
    assert page.locator(".headline-value").first.inner_text() == "3"
    assert page.locator("svg.chart-wide").is_visible()
    assert page.get_by_text("Données jusqu’à l’écriture n°").is_visible()
    assert said == []
    context.close()
    assert httpx.get(f"{api.url}/usage").headers["location"].startswith("/sign-in?")


@pytest.mark.parametrize("language", ["fr", "en"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing_on_the_full_page(
    console: Console, open_tab: Any, theme: str, language: str, size: dict[str, int]
) -> None:
    tab = open_tab(theme, size)
    tab.page.goto(f"{console.url}{FULL}&lang={language}")
    for summary in tab.page.locator("summary").all():
        summary.click()
    assert tab.page.locator("table.data").is_visible()
    assert violations(tab.page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "state", ["nothing recorded", "empty period", "bad parameters", "unknown only", "with notices", "long table"]
)
def test_axe_finds_nothing_on_the_other_states(console: Console, open_tab: Any, theme: str, state: str) -> None:
    chosen = selection()
    address = "/usage?tenant=dinum"
    if state == "nothing recorded":
        console.answer = NOTHING_RECORDED
    elif state == "empty period":
        console.answer = reading([])
    elif state == "bad parameters":
        address = "/usage?from=hier&bucket=week"
    elif state == "unknown only":
        console.answer = reading([row(chosen.start, {"model": "a"}, requests=1)])
        address = "/usage?from=2026-09-01&to=2026-09-30&quantity=pages"
    elif state == "with notices":
        console.answer = replace(reading(list(platform_rows(chosen.question()))), news=NEWS)
        address = FULL
    else:
        address = f"{FULL}&page=2"
    tab = open_tab(theme)
    tab.page.goto(console.url + address)
    assert violations(tab.page) == []


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_notices_are_a_named_region_above_the_figures(console: Console, open_tab: Any, size: dict[str, int]) -> None:
    console.answer = replace(reading(list(platform_rows(selection().question()))), news=NEWS)
    tab = open_tab(size=size, scripts=False)
    tab.page.goto(console.url + FULL)
    region = tab.page.get_by_role("region", name="Avis", exact=True)
    kinds = region.get_by_role("listitem").locator("strong").all_inner_texts()
    assert kinds == ["Incident", "Maintenance", "Information", "Retrait", "Retrait"]
    figures = tab.page.locator(".headlines").bounding_box()
    box = region.bounding_box()
    assert box["y"] + box["height"] < figures["y"]
    assert region.evaluate("element => element.scrollWidth <= element.clientWidth")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_browser_finds_no_fault_and_asks_nobody_else(console: Console, open_tab: Any, theme: str) -> None:
    tab = open_tab(theme)
    tab.page.goto(console.url + FULL)
    tab.page.wait_for_load_state("networkidle")
    assert tab.console == []
    assert {urlsplit(address).netloc for address in tab.requested} == {urlsplit(console.url).netloc}


def test_the_policy_is_in_force(console: Console, open_tab: Any) -> None:
    """The silence of the console means something: a style attribute, if there were one, would be reported."""
    tab = open_tab()
    tab.page.goto(console.url + FULL)
    tab.page.evaluate("document.body.setAttribute('style', 'color: red')")
    assert any("Content Security Policy" in message for message in tab.console)


def test_the_whole_page_works_without_scripts(console: Console, open_tab: Any) -> None:
    tab = open_tab(scripts=False)
    tab.page.goto(f"{console.url}/usage")
    tab.page.get_by_label("Du", exact=True).fill("2026-09-01")
    tab.page.get_by_label("Jusqu’au (inclus)").fill("2026-09-15")
    tab.page.get_by_label("Grandeur").select_option(label="Jetons")
    tab.page.get_by_label("Répartir par").select_option(label="administration")
    tab.page.get_by_label("Modèle", exact=True).select_option("albert-large")
    follow(tab.page.get_by_role("button", name="Appliquer"))
    asked = {name: values[0] for name, values in parse_qs(urlsplit(tab.page.url).query).items()}
    assert asked["quantity"] == "total_tokens"
    question = console.questions[-1]
    assert question.start.astimezone(PARIS).isoformat() == "2026-09-01T00:00:00+02:00"
    assert question.end.astimezone(PARIS).isoformat() == "2026-09-16T00:00:00+02:00"
    assert question.group_by == ("tenant",)
    assert question.filters == {"model": ("albert-large",)}
    assert tab.page.get_by_role("heading", level=2, name="Jetons par jour et par administration").is_visible()
    assert tab.page.locator("svg.chart-wide").is_visible()
    tab.page.get_by_text("75 lignes").click()
    assert tab.page.locator("table.data tbody tr").count() == 75


def test_the_form_is_reached_and_sent_by_the_keyboard(console: Console, open_tab: Any) -> None:
    tab = open_tab()
    tab.page.goto(f"{console.url}/usage")
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Aller au contenu"
    tab.page.keyboard.press("Enter")
    reached = []
    for _ in range(40):
        tab.page.keyboard.press("Tab")
        reached.append(tab.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        if reached[-1] == "Appliquer":
            break
    fields = ["from", "to", "quantity", "bucket", "group_by", "tenant", "model", "operation", "project", "Appliquer"]
    assert [name for name in dict.fromkeys(reached) if name in fields] == fields
    assert "Français" not in reached  # the skip link skipped the header
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/usage?from=*")


def test_what_has_the_focus_is_outlined(console: Console, open_tab: Any) -> None:
    tab = open_tab()
    tab.page.goto(f"{console.url}/usage")
    for name in ("Appliquer", "quantity"):
        target = tab.page.get_by_role("button", name=name) if name == "Appliquer" else tab.page.locator(f"#{name}")
        tab.page.keyboard.press("Tab")  # the browser outlines what a keyboard reaches
        target.focus()
        assert target.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"


def test_unknown_is_read_as_unknown_and_zero_as_zero(console: Console, open_tab: Any) -> None:
    chosen = selection()
    console.answer = reading([row(chosen.start, {"model": "a"}, requests=2, input_tokens=0, uncounted_requests=1)])
    tab = open_tab()
    tab.page.goto(f"{console.url}/usage?from=2026-09-01&to=2026-09-30")
    tab.page.get_by_text("1 ligne", exact=True).click()
    cells = tab.page.locator("table.data tbody td").all()
    assert [cell.inner_text().split("\n")[0] for cell in cells[:5]] == ["a", "2", "0", "1", "0"]
    assert cells[5].locator("[aria-hidden]").inner_text() == "—"
    assert cells[5].locator(".unseen").text_content() == "inconnu"
    assert tab.page.locator(".headline-unknown").all_inner_texts() == ["inconnu", "inconnu"]


def test_a_narrow_screen_gets_its_own_chart_and_never_scrolls_sideways(console: Console, open_tab: Any) -> None:
    tab = open_tab(size=NARROW)
    tab.page.goto(console.url + FULL)
    for summary in tab.page.locator("summary").all():
        summary.click()
    assert tab.page.locator("svg.chart-narrow").is_visible()
    assert not tab.page.locator("svg.chart-wide").is_visible()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_the_chart_is_one_image_with_a_label_and_a_finding(console: Console, open_tab: Any) -> None:
    tab = open_tab()
    tab.page.goto(console.url + FULL)
    image = tab.page.get_by_role("img", name="Graphique en barres empilées : jetons par jour et par modèle")
    assert image.count() == 1
    assert "représente" in tab.page.locator("figcaption").inner_text()
    drawn = tab.page.locator("svg.chart-wide .role-mark path").all()
    names = {path.locator("title").text_content().split(" · ")[1] for path in drawn[:40]}
    assert "mistral-small-3.2-24b" in names
    assert tab.page.locator("svg.chart-wide text").first.text_content() == "1er\u00a0sept."


@pytest.mark.parametrize(
    ("language", "other", "said"), [("fr", "English", "Usage"), ("en", "Français", "Consommation")]
)
def test_the_language_is_switched_and_stays(
    console: Console, open_tab: Any, language: str, other: str, said: str
) -> None:
    tab = open_tab()
    tab.page.goto(f"{console.url}{FULL}&lang={language}")
    follow(tab.page.get_by_role("link", name=other))
    assert tab.page.locator("h1").inner_text() == said
    assert "total_tokens" in tab.page.url
    follow(tab.page.get_by_role("navigation").get_by_role("link").filter(has_text="90"))
    assert tab.page.locator("h1").inner_text() == said


def test_the_table_is_read_page_by_page(console: Console, open_tab: Any) -> None:
    chosen = selection()
    row_count = len(list(platform_rows(chosen.question())))
    tab = open_tab(scripts=False)
    tab.page.goto(console.url + FULL)
    tab.page.get_by_text(f"{row_count} lignes").click()
    follow(tab.page.get_by_role("link", name="Page suivante"))
    assert tab.page.locator("table.data tbody tr").count() == row_count - 200
    assert tab.page.get_by_text("Page 2 sur 2").is_visible()


def test_an_empty_period_leads_somewhere(console: Console, open_tab: Any) -> None:
    console.answer = reading([])
    tab = open_tab(scripts=False)
    tab.page.goto(f"{console.url}/usage?from=2026-01-01&to=2026-01-31&tenant=dinum")
    assert tab.page.get_by_role("heading", name="Aucune consommation à montrer").is_visible()
    console.answer = None
    follow(tab.page.get_by_role("link", name="Voir la dernière période enregistrée"))
    assert tab.page.locator("figure").is_visible()


def test_bad_parameters_are_explained(console: Console, open_tab: Any) -> None:
    tab = open_tab(scripts=False)
    answer = tab.page.goto(f"{console.url}/usage?from=hier")
    assert answer.status == 400
    assert "« from » n’est pas une date" in tab.page.get_by_role("alert").inner_text()
    follow(tab.page.get_by_role("link", name="Revenir à la page"))
    assert tab.page.locator("figure").is_visible()

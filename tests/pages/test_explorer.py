"""The explorer of the page "Consommation": what its script is given, the script, and both in a real Chromium."""

import asyncio
import gzip
import json
import re
import sys
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from reports import explorer
from reports.explorer import BundlingError, Script, explored, script_url
from reports.figures import WIDE, bar_totals, bars_spec
from reports.rendering import SCRIPT_POLICY
from reports.selection import BUCKETS
from reports.usage_page import build_page
from tests.pages.conftest import Console
from tests.pages.samples import TODAY, platform_rows, reading, row, selection
from tests.pages.tabs import NARROW, follow, violations

CLOSED = "/usage?from=2026-09-01&to=2026-09-30&quantity=total_tokens"
OPEN = f"{CLOSED}&explore=1"


def opened(tab: Any, url: str) -> Page:
    """A page whose explorer has drawn."""
    page: Page = tab.page
    page.goto(url)
    expect(page.locator("#explorer-waiting")).to_be_hidden()
    return page


def pieces(page: Page) -> Locator:
    """The pieces of bars that the explorer shows."""
    return page.locator("#explorer-chart .layer_0_marks path")


def axis_of(page: Page) -> str:
    """What the explorer's axes say."""
    return " ".join(page.locator("#explorer-chart text").all_text_contents()).replace("\u00a0", " ")


# What the script is given


@pytest.mark.parametrize("quantity", ["requests", "audio_ms"])
@pytest.mark.parametrize("bucket", BUCKETS)
def test_the_script_is_given_the_pages_own_chart_and_a_scale_for_every_part_of_it(bucket: str, quantity: str) -> None:
    chosen = selection(bucket=bucket, quantity=quantity, explores=True)
    page = build_page(chosen, reading(list(platform_rows(chosen.question()))), today=TODAY)
    assert page.figure is not None
    assert page.figure.chart is not None
    chart, given = page.figure.chart, page.explorer
    assert given is not None
    assert given["spec"] == bars_spec(chart, "fr", WIDE)
    assert len(given["labels"]) == len(given["ticks"]) == len(chart.starts)
    assert given["rhythms"][0] == list(range(len(chart.starts)))
    tops = [max(scale) for scale in given["scales"]]
    assert tops == sorted(set(tops))
    assert tops[-1] >= max(bar_totals(chart).values())
    assert all(0 in scale and all(scale.values()) for scale in given["scales"])
    assert json.dumps(given)


def test_a_closed_explorer_is_given_nothing() -> None:
    chosen = selection()
    assert build_page(chosen, reading(list(platform_rows(chosen.question()))), today=TODAY).explorer is None


def test_a_chart_of_nothing_has_one_scale() -> None:
    chosen = selection(explores=True)
    page = build_page(chosen, reading([row(chosen.start, {"model": "a"}, requests=1)]), today=TODAY)
    assert page.figure is not None
    assert page.figure.chart is not None
    assert len(explored(page.figure.chart, "en")["scales"]) == 1


# The script


def test_the_script_is_made_once_whoever_asks() -> None:
    async def asked() -> list[bytes]:
        script = Script()
        gone = asyncio.create_task(script.compressed())
        await asyncio.sleep(0)
        gone.cancel()
        return [*await asyncio.gather(script.compressed(), script.compressed()), await script.compressed()]

    made = asyncio.run(asked())
    assert made[0] is made[1] is made[2]
    text = gzip.decompress(made[0]).decode()
    assert len(made[0]) < 350 * 1024
    assert "explorer-given" not in text.split("vega")[0]  # ours is in it with what it calls, not alone
    assert "ast" in text


def test_a_process_that_dies_or_hangs_is_said_and_the_next_reader_gets_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def asked() -> None:
        script = Script()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", "/bin/false")
            with pytest.raises(BundlingError, match="ended with 1"):
                await script.compressed()
        with monkeypatch.context() as patched:
            patched.setattr(explorer, "BUNDLING_TIMEOUT_S", 0.05)
            with pytest.raises(BundlingError, match=r"within 0\.05 s"):
                await script.compressed()
        assert gzip.decompress(await script.compressed())

    asyncio.run(asked())


def test_the_script_is_kept_by_browsers_under_an_address_of_its_content(console: Console) -> None:
    page = httpx.get(console.url + OPEN)
    (address,) = re.findall(r'<script type="module" src="([^"]+)"></script>', page.text)
    assert address == script_url()
    packed = httpx.get(console.url + address, headers={"Accept-Encoding": "gzip, br"})
    plain = httpx.get(console.url + address, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    for answer in (packed, plain):
        assert answer.headers["content-type"].startswith("text/javascript")
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["vary"] == "Accept-Encoding"


def test_a_script_that_cannot_be_made_is_an_outage_that_nobody_keeps(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(_self: Script) -> bytes:
        raise BundlingError("died")

    monkeypatch.setattr(Script, "compressed", dies)
    answer = httpx.get(f"{console.url}/explorer.js")
    assert answer.status_code == 503
    assert "immutable" not in answer.headers.get("cache-control", "")


def test_only_an_open_explorer_has_scripts_and_its_policy_lets_none_of_others_in(console: Console) -> None:
    closed, open_one = httpx.get(console.url + CLOSED), httpx.get(console.url + OPEN)
    assert "<script" not in closed.text
    assert "script-src" not in closed.headers["content-security-policy"]
    assert open_one.headers["content-security-policy"] == SCRIPT_POLICY
    assert SCRIPT_POLICY.endswith("; script-src 'self'")
    assert "unsafe" not in SCRIPT_POLICY
    assert httpx.get(f"{console.url}/carbon?explore=1").status_code == 400


def test_names_end_no_script(console: Console) -> None:
    name = '</script><script>alert("x")</script>'
    console.answer = reading([row(selection().start, {"model": name}, requests=1)])
    text = httpx.get(f"{console.url}{CLOSED.replace('total_tokens', 'requests')}&explore=1").text
    assert text.count("<script") == 2
    assert "alert(" in text
    assert "<script>alert" not in text


# In the browser


def test_hovering_tells_what_a_piece_is_and_the_policy_holds(console: Console, open_tab: Any) -> None:
    tab = open_tab()
    page = opened(tab, console.url + OPEN)
    tip = page.locator("#explorer-tip")
    expect(tip).to_be_hidden()
    pieces(page).first.hover()
    expect(tip).to_be_visible()
    assert tip.inner_text() == page.locator("svg.chart-wide .role-mark path title").first.text_content()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    assert tab.console == []
    assert {urlsplit(address).netloc for address in tab.requested} == {urlsplit(console.url).netloc}
    # The silence above means something: what makes code of text is refused, as is a style.
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    assert page.evaluate("try { setTimeout('window.made = 1'); 'in' } catch (error) { 'out' }")
    page.wait_for_timeout(50)
    assert page.evaluate("window.made ?? null") is None
    assert any("Content Security Policy" in said for said in tab.console)


def test_a_series_is_isolated_and_drawn_on_its_own_scale(console: Console, open_tab: Any) -> None:
    page = opened(open_tab(), console.url + OPEN)
    whole, axis = pieces(page).count(), axis_of(page)
    button = page.get_by_role("group", name="Isoler une série").get_by_role("button", name="ministral-8b")
    button.focus()
    page.keyboard.press("Enter")
    expect(pieces(page)).to_have_count(30)
    assert whole > 200
    assert axis_of(page) != axis
    assert button.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Enter")
    expect(pieces(page)).to_have_count(whole)
    assert axis_of(page) == axis


def test_a_part_of_the_period_is_chosen_by_keyboard_and_left_again(console: Console, open_tab: Any) -> None:
    page = opened(open_tab(), console.url + OPEN)
    whole = pieces(page).count()
    everything = page.get_by_role("button", name="Tout montrer")
    expect(everything).to_be_disabled()
    page.get_by_label("De", exact=True).select_option(label="8 septembre 2026")
    page.get_by_label("À", exact=True).select_option(label="9 septembre 2026")
    expect(pieces(page)).to_have_count(whole // 15)
    assert "8 sept." in axis_of(page)
    assert "7 sept." not in axis_of(page)
    page.get_by_label("De", exact=True).select_option(label="20 septembre 2026")
    assert page.locator("#explorer-last").input_value() == "19"  # the end follows a beginning that is after it
    everything.focus()
    page.keyboard.press("Enter")
    expect(pieces(page)).to_have_count(whole)
    assert page.evaluate("document.activeElement.id") == "explorer-first"


def test_an_interval_drawn_with_the_mouse_is_looked_at_closer(console: Console, open_tab: Any) -> None:
    page = opened(open_tab(), console.url + OPEN)
    bars = pieces(page)
    whole = bars.count()
    page.locator("#explorer-chart").scroll_into_view_if_needed()
    start, end = bars.nth(9 * 9).bounding_box(), bars.nth(14 * 9).bounding_box()
    assert start is not None
    assert end is not None
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] - 5)
    page.mouse.down()
    page.mouse.move(end["x"] + end["width"] / 2, end["y"], steps=5)
    page.mouse.up()
    expect(pieces(page)).to_have_count(6 * 9)
    assert page.locator("#explorer-first option:checked").inner_text() == "10 septembre 2026"
    assert page.locator("#explorer-last option:checked").inner_text() == "15 septembre 2026"
    assert bars.count() < whole


def test_a_bar_is_read_by_keyboard(console: Console, open_tab: Any) -> None:
    page = opened(open_tab(), console.url + OPEN)
    page.get_by_label("Lire une barre").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    slider, lines = page.get_by_role("slider"), page.locator("#explorer-read li")
    assert slider.get_attribute("aria-valuetext") == "3 septembre 2026"
    assert lines.count() == 9
    assert lines.first.inner_text().startswith("3 septembre 2026 · mistral-small-3.2-24b · ")
    faded = page.locator('#explorer-chart .layer_0_marks path[opacity="0.35"]')
    expect(faded).to_have_count(pieces(page).count() - 9)


def test_a_bar_of_nothing_says_so(console: Console, open_tab: Any) -> None:
    console.answer = reading([row(selection().start, {"model": "a"}, requests=2)])
    page = opened(open_tab(), f"{console.url}/usage?from=2026-09-01&to=2026-09-03&explore=1&lang=en")
    page.get_by_label("Read a bar").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#explorer-read").inner_text() == "2 September 2026 · nothing to show"


@pytest.mark.parametrize("language", ["fr", "en"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_an_open_explorer(console: Console, open_tab: Any, theme: str, language: str) -> None:
    page = opened(open_tab(theme), f"{console.url}{OPEN}&lang={language}")
    assert violations(page) == []
    page.locator("[data-series]").first.click()
    page.locator("#explorer-bar").press("ArrowRight")
    expect(page.locator("#explorer-read li")).to_have_count(1)
    pieces(page).first.hover()
    assert violations(page) == []
    assert not set(re.findall(r"X-axis|rect mark|graphics", page.locator("#explorer").aria_snapshot()))


def test_a_narrow_screen_holds_the_explorer_and_a_turned_one_too(console: Console, open_tab: Any) -> None:
    page = opened(open_tab(size=NARROW), console.url + OPEN)
    for width in (NARROW["width"], 320, 844):
        page.set_viewport_size({"width": width, "height": 844})
        room = page.locator("#explorer-figure").evaluate("element => element.clientWidth")
        expect(page.locator("#explorer-chart svg")).to_have_attribute("width", str(room))
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_an_open_explorer_says_so_and_the_page_is_whole(console: Console, open_tab: Any) -> None:
    page: Page = open_tab(scripts=False).page
    page.goto(console.url + CLOSED)
    follow(page.get_by_role("link", name="Ouvrir l’explorateur"))
    expect(page.locator("#explorer-waiting")).to_be_visible()
    expect(page.locator("#explorer-board")).to_be_hidden()
    expect(page.locator("svg.chart-wide")).to_be_visible()
    follow(page.get_by_role("button", name="Appliquer"))
    assert "explore=1" in page.url
    follow(page.get_by_role("link", name="Fermer l’explorateur"))
    assert "explore" not in urlsplit(page.url).query
    expect(page.locator("svg.chart-wide")).to_be_visible()


def test_paper_has_the_pages_chart_only(console: Console, open_tab: Any) -> None:
    page = opened(open_tab(), console.url + OPEN)
    page.emulate_media(media="print")
    expect(page.locator("#explorer")).to_be_hidden()
    expect(page.locator("svg.chart-wide")).to_be_visible()

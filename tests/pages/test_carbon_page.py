"""The page "Empreinte carbone": what it says of figures, their ranges and what isn't measured; in a browser, too."""

from dataclasses import replace
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from litestar.datastructures import State
from playwright.sync_api import Browser

from metering.identity import Principal
from metering.rules.carbon.impacts import NG_PER_G
from metering.rules.periods import PARIS
from metering.services import Services
from reports.carbon_page import Footprint, GroupFootprint, build_carbon_page, read_footprint
from reports.choosing import TABLE_ROWS_MAX, drawings_of
from reports.pages import render_carbon
from reports.selection import CARBON, BadSelection, Selection, selection_from
from reports.wording import LANGUAGES
from tests.carbon.hours import HOUR, a_factor, a_request, post_all, readings_of, record
from tests.conftest import Api
from tests.pages.footprints import START, chosen, footprint, footprint_row
from tests.pages.samples import FRAME, NOW, TODAY
from tests.pages.tabs import NARROW, WIDE, follow, signed_in, violations
from tests.people import add_agent

RESORT = "yearly mean, for want of better"
FIXED, THIN = "\u00a0", "\u202f"


def shown(language: Any = "en", **changes: Any) -> Any:
    return build_carbon_page(chosen(language=language), footprint(**changes), today=TODAY)


def text_of(page: Any) -> str:
    return unescape(render_carbon(page, [], replace(FRAME, language=page.selection.language)))


# What is shown


def test_totals_have_units_and_ranges_and_use_stands_beside_manufacture() -> None:
    said = [(it.label, it.value, it.unit, it.note) for it in shown().headlines]
    assert said == [
        ("Emissions", "3.00", f"kg{FIXED}CO2e", f"1.50 to 6.00{FIXED}kg{FIXED}CO2e"),
        ("Use, by the grid", "1.00", f"kg{FIXED}CO2e", f"500{FIXED}g{FIXED}CO2e to 2.00{FIXED}kg{FIXED}CO2e"),
        ("Making the machines", "2.00", f"kg{FIXED}CO2e", f"1.00 to 4.00{FIXED}kg{FIXED}CO2e"),
        ("Energy, building included", "20.0", "kWh", f"10.0 to 40.0{FIXED}kWh"),
        ("Use, by the electricity contract", None, "", "no emission factor of the contract is recorded"),
        ("Requests not measured", "120", "requests", "12% of requests; their emissions are in no other figure"),
    ]


def test_what_is_not_measured_is_said_and_never_shown_as_zero() -> None:
    unmeasured = footprint_row(START, {"model": "web-index"}, requests=4, unknown=4, kwh=None)
    groups = [GroupFootprint(unmeasured, None)]
    page = shown("fr", whole=unmeasured, rows=[unmeasured], groups=groups, waiting=None, unallocated=None)
    assert [it.value for it in page.headlines] == [None, None, None, None, None, "4"]
    assert page.figure.chart is None
    assert page.figure.finding == "Les émissions de cette période ne sont pas mesurées."
    assert [(row.label, row.amount, row.share) for row in page.quality] == [
        ("Non mesuré", f"4 requêtes (100{THIN}% des requêtes)", None)
    ]
    html = text_of(page)
    assert html.count('class="headline-value headline-unknown">non mesuré') == 5
    assert html.count('<span class="unseen">non mesuré</span>') == 1 + 6 + 4  # quality, group, day
    assert f"0{FIXED}g" not in html
    assert f"0{FIXED}Wh" not in html


def test_qualities_come_best_first_and_their_shares_are_of_the_energy() -> None:
    rows = shown().quality
    assert [(row.label[0], row.amount, row.share) for row in rows] == [
        ("A", f"5.00{FIXED}kWh", "25%"),
        ("B", f"10.0{FIXED}kWh", "50%"),
        ("C", f"4.00{FIXED}kWh", "20%"),
        ("D", f"1.00{FIXED}kWh", "5%"),
        ("N", "120 requests (12% of requests)", None),
    ]


def test_groups_are_ranked_by_emissions_with_ranges_and_the_unmeasured_last() -> None:
    table = shown().groups
    assert [row.name for row in table.rows] == ["albert-large", "albert-small", "web-index"]
    first, last = table.rows[0].values, table.rows[2].values
    assert (first[2].value, first[2].between) == (f"1.35{FIXED}kg", f"675{FIXED}g to 2.70{FIXED}kg")
    assert first[3].value == f"1.50{FIXED}µg"
    assert [cell.value for cell in last] == ["10", "10", *[None] * 6]
    assert len(table.headings) == 1 + len(first)


def test_bars_are_of_use_and_manufacture_and_incomplete_ones_are_flagged() -> None:
    figure = shown().figure
    assert [entry.name for entry in figure.legend] == ["use, by the grid", "making the machines"]
    first = [segment for segment in figure.chart.segments if segment.bucket == 0]
    assert [(it.series, it.value) for it in first] == [(0, 50 * NG_PER_G), (1, 100 * NG_PER_G)]
    assert first[1].description == f"1 September 2026 · making the machines · 100{FIXED}g{FIXED}CO2e"
    assert figure.chart.flagged == tuple(place for place in range(30) if place % 3)
    assert figure.finding.startswith(f"3.00{FIXED}kg{FIXED}CO2e over the period (1.50 to 6.00{FIXED}kg")
    assert "of which 67% for making the machines; the maximum is reached on 4 September 2026" in figure.finding
    assert len(drawings_of(figure, "en")) == 2


def test_without_a_factor_manufacture_alone_is_said() -> None:
    gone = dict.fromkeys(("location_ng", "location_lower_ng", "location_upper_ng"))
    page = shown(whole=footprint_row(kwh=2, **gone), factors=())
    assert page.headlines[0].value is None
    assert "for making the machines; use isn’t known" in page.figure.finding
    assert "No emission factor is recorded for this period" in text_of(page)


def test_the_contract_stands_beside_the_grid_where_it_is_known() -> None:
    page = shown(whole=footprint_row(kwh=2, market_ng=3 * NG_PER_G))
    assert (page.headlines[4].value, page.headlines[4].unit) == ("3.00", f"g{FIXED}CO2e")


def test_method_and_factors_are_told_for_the_period() -> None:
    method = shown().method
    assert method.versions == "1"
    assert [(one.zone, one.kind, one.value, one.source, one.period) for one in method.factors] == [
        (
            "FR",
            "grid",
            "56.0",
            "codecarbon 3.3.2 (yearly mean, for want of better)",
            "1 to 30 September 2026, both included",
        ),
        ("FR", "grid", "18.0 to 61.5", "rte 2026", "1 September 2026"),
    ]


def test_the_end_of_what_is_known_is_said_with_its_zone() -> None:
    assert shown().as_of == f"Emissions known until 5 October 2026 at 11:30, batch no.{FIXED}1,465."
    assert "Dates and times of the Europe/Paris time zone." in text_of(shown())
    page = build_carbon_page(chosen(language="en", as_of=12), footprint(), today=TODAY)
    assert page.as_of == f"Emissions as they were known at batch no.{FIXED}12."


def test_waiting_machines_are_the_operators_to_see() -> None:
    rows = shown().platform.rows
    assert [(row.name, row.values[0].value) for row in rows] == [
        ("Machines ready, waiting for requests", f"3.50{FIXED}kWh"), ("Work of no known request", f"500{FIXED}Wh")
    ]  # fmt: skip
    assert shown(waiting=None, unallocated=None, role="manager").platform is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_title_says_whose_carbon_it_is(language: Any) -> None:
    titles = [
        shown(language, role="operator").title,
        shown(language, role="manager", administration="Culture").title,
        shown(language, role="member", administration="Culture").title,
    ]
    assert (
        titles
        == {
            "fr": ["Empreinte carbone", "Empreinte carbone – Culture", "Votre empreinte carbone"],
            "en": ["Carbon", "Carbon – Culture", "Your carbon"],
        }[language]
    )


def test_an_empty_period_says_why_and_leads_to_one_that_is_not() -> None:
    nothing = footprint(rows=[], groups=[], whole=None, known_until=None, bounds=None)
    page = build_carbon_page(chosen(language="en"), nothing, today=TODAY)
    assert page.empty is not None
    assert "ten minutes after its end" in page.empty.reason
    filtered = chosen(language="en", filters={"tenant": "dinum"})
    page = build_carbon_page(filtered, replace(nothing, known_until=NOW, bounds=(START, NOW)), today=TODAY)
    assert page.empty is not None
    assert [link.label for link in page.empty.links] == [
        "Remove the filters", "See the latest period worked out (6 September to 5 October 2026, both included)"
    ]  # fmt: skip
    assert all(link.url.startswith("/carbon?") for link in page.empty.links)


def test_a_long_table_comes_page_by_page() -> None:
    rows = [footprint_row(START + timedelta(hours=hour)) for hour in range(TABLE_ROWS_MAX + 1)]
    page = build_carbon_page(chosen(bucket="hour", page=2, language="en"), footprint(rows=rows), today=TODAY)
    assert page.table is not None
    assert (len(page.table.rows), page.table.paging.position) == (1, "Page 2 of 2")


def test_addresses_stay_on_the_page_and_its_csv_is_that_of_carbon() -> None:
    one = chosen(filters={"tenant": "dinum"}, group="project")
    assert urlsplit(one.url()).path == "/carbon"
    assert "quantity" not in parse_qs(urlsplit(one.url()).query)
    read = selection_from(
        [(name, values[0]) for name, values in parse_qs(urlsplit(one.url()).query).items()], today=TODAY, language="fr",
        place=CARBON,
    )  # fmt: skip
    assert read == one
    assert one.csv_url().startswith("/v1/carbon?start=2026-09-01T00%3A00%3A00%2B02%3A00")
    with pytest.raises(BadSelection, match="quantity"):
        selection_from([("quantity", "requests")], today=TODAY, language="en", place=CARBON)


# From the real ledger


@pytest.fixture
def posted(services: Services) -> Services:
    """Two administrations on two GPUs for an hour, and a request that no meter saw."""
    events = [a_request(number, HOUR + timedelta(minutes=number)) for number in range(10)]
    events += [a_request(20 + number, HOUR + timedelta(minutes=20), tenant="sante", user="u-9") for number in range(5)]
    events.append(a_request(30, HOUR, deployment=None, tenant="sante", model_served="web-index"))
    record(services, events, readings_of(HOUR, 60, gpus=2, powers_w=(300, 500)))
    a_factor(services, 20_000_000)
    post_all(services)
    return services


def read(services: Services, reader: Principal) -> Footprint:
    return read_footprint(State({"engine": services.engine}), october().question(), reader)


def october(**changes: Any) -> Selection:
    return chosen(first=HOUR.date(), last=HOUR.date(), **changes)


def test_each_reader_sees_their_own_and_an_operator_what_waits(posted: Services) -> None:
    everything = read(posted, Principal("o", "operator"))
    manager = read(posted, Principal("m", "manager", "dinum", "m-1"))
    member = read(posted, Principal("u", "member", "dinum", "u-1"))
    assert everything.whole is not None
    assert everything.whole.sums["requests"] == 16
    assert everything.waiting is not None
    assert manager.whole is not None
    assert (manager.whole.sums["requests"], manager.waiting, manager.unallocated) == (10, None, None)
    assert member.whole is not None
    assert member.whole.sums["requests"] == 3
    assert manager.administration is not None
    for one in (everything, manager, member):
        assert [(factor.zone, factor.source) for factor in one.factors] == [("FR", "test")]
        assert (one.methods, one.known_until, one.bounds) == (["1"], HOUR + timedelta(hours=1), None)


def test_another_period_leads_to_the_one_that_is_known(posted: Services) -> None:
    before = chosen(first=HOUR.date() - timedelta(days=9), last=HOUR.date() - timedelta(days=8)).question()
    state = State({"engine": posted.engine})
    member = read_footprint(state, before, Principal("u", "member", "dinum", "u-1"))
    assert (member.whole, member.bounds) == (None, (HOUR, HOUR))
    assert read_footprint(state, before, Principal("u", "member", "dinum", "u-9")).bounds is None


def test_the_page_is_served_as_far_as_the_reader_may(api: Api, posted: Services) -> None:
    _account, manager = add_agent(posted, "dinum", "manager", "m-1")
    address = f"{api.url}/carbon?from=2026-10-05&to=2026-10-05&group_by=tenant&lang=en"
    with httpx.Client(timeout=60) as client:
        assert client.get(address).headers["location"].startswith("/sign-in?")
        own = client.get(address, auth=("any", manager))
        assert own.status_code == 200
        assert "sante" not in own.text
        assert "What no request is charged with" not in own.text
        refused = client.get(f"{address}&tenant=sante", auth=("any", manager))
        assert refused.status_code == 403
        assert 'href="/carbon?lang=en"' in refused.text
        everything = client.get(address, auth=("any", api.operator_token))
        assert "sante" in everything.text
        assert "What no request is charged with" in everything.text
        assert client.get(f"{address}&quantity=pages", auth=("any", manager)).status_code == 400


# In a real browser


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_axe_finds_nothing_and_the_page_never_scrolls_sideways(
    console: Any, open_tab: Any, theme: str, size: dict[str, int], language: str
) -> None:
    tab = open_tab(theme, size)
    tab.page.goto(f"{console.url}/carbon?from=2026-09-01&to=2026-09-30&lang={language}")
    for summary in tab.page.locator("summary").all():
        summary.click()
    assert tab.page.locator("table.data").is_visible()
    assert violations(tab.page) == []
    assert tab.console == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= size["width"]


@pytest.mark.parametrize("answer", ["nothing", "unmeasured"])
def test_axe_finds_nothing_where_little_is_known(console: Any, open_tab: Any, answer: str) -> None:
    unmeasured = footprint_row(requests=4, unknown=4, kwh=None)
    console.footprint = footprint(
        rows=[], groups=[], whole=unmeasured if answer == "unmeasured" else None, factors=(), known_until=None
    )
    tab = open_tab("dark")
    tab.page.goto(f"{console.url}/carbon?from=2026-09-01&to=2026-09-30")
    assert violations(tab.page) == []
    assert tab.page.get_by_text("on mesuré").first.is_visible() == (answer == "unmeasured")


def test_the_page_works_without_scripts_and_leads_to_usage_and_back(console: Any, open_tab: Any) -> None:
    tab = open_tab(scripts=False)
    tab.page.goto(f"{console.url}/usage?lang=fr")
    follow(tab.page.get_by_role("link", name="Empreinte carbone"))
    assert tab.page.locator("h1").inner_text() == "Empreinte carbone"
    tab.page.get_by_label("Du", exact=True).fill("2026-09-01")
    tab.page.get_by_label("Jusqu’au (inclus)").fill("2026-09-15")
    tab.page.get_by_label("Répartir par").select_option(label="projet")
    follow(tab.page.get_by_role("button", name="Appliquer"))
    assert urlsplit(tab.page.url).path == "/carbon"
    question = console.questions[-1]
    assert (question.group_by, question.end.astimezone(PARIS).isoformat()) == (
        ("project",),
        "2026-09-16T00:00:00+02:00",
    )
    assert tab.page.get_by_role("heading", name="Émissions par projet").is_visible()
    assert tab.page.get_by_role("img", name="Graphique en barres empilées : émissions par jour").is_visible()
    assert tab.page.get_by_role("link", name="Télécharger en CSV").get_attribute("href").startswith("/v1/carbon?")
    follow(tab.page.get_by_role("link", name="Consommation"))
    assert tab.page.locator("h1").inner_text() == "Consommation"


def test_the_real_page_is_read_in_a_browser(api: Api, posted: Services, browser: Browser) -> None:
    context = signed_in(browser, api.url, api.operator_token)
    page = context.new_page()
    page.goto(f"{api.url}/carbon?from=2026-10-05&to=2026-10-05&bucket=hour&lang=fr")
    assert page.locator("svg.chart-wide").is_visible()
    assert page.get_by_text("Émissions connues jusqu’au 5 octobre 2026 à 15:00").is_visible()
    assert page.locator(".headline-unknown").all_inner_texts() == ["non mesuré"]  # by contract
    context.close()

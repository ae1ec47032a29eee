"""What the page shows for a selection and an answer, without a browser: pure, over HTTP, over a real ledger."""

import re
from datetime import UTC, date, datetime
from html import unescape
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from litestar.datastructures import State

from metering.errors import Unavailable, Unprocessable
from metering.identity import Principal
from metering.services import Services
from reports.choosing import TABLE_ROWS_MAX, drawings_of
from reports.pages import render_usage
from reports.rendering import SECURITY_HEADERS
from reports.selection import BUCKETS, GROUPS, BadSelection, Selection, language_of, selection_from
from reports.usage_page import build_page, read_ledger
from tests.conftest import Api, MakeEvent
from tests.pages.conftest import Console
from tests.pages.samples import (
    FRAME,
    NOTHING_RECORDED,
    NOW,
    TODAY,
    platform_rows,
    reading,
    row,
    selection,
)

NARROW, FIXED = "\u202f", "\u00a0"
SEPTEMBER_FIRST = datetime(2026, 8, 31, 22, tzinfo=UTC)


def read(query: str, language: str = "fr") -> Selection:
    pairs = [(name, value) for name, values in parse_qs(query, keep_blank_values=True).items() for value in values]
    return selection_from(pairs, today=TODAY, language=language)  # type: ignore[arg-type]


def problems(query: str) -> tuple[str, ...]:
    with pytest.raises(BadSelection) as caught:
        read(query, "en")
    return caught.value.sentences


# What the reader asks


def test_without_parameters_the_last_thirty_days_are_shown() -> None:
    chosen = read("")
    assert (chosen.first, chosen.last, chosen.days) == (date(2026, 9, 6), TODAY, 30)
    assert (chosen.bucket, chosen.group, chosen.quantity) == ("day", "model", "requests")


def test_the_last_day_is_included_for_people_and_the_end_exclusive_for_programs() -> None:
    question = read("from=2026-10-24&to=2026-10-25").question()
    assert question.start == datetime(2026, 10, 23, 22, tzinfo=UTC)
    assert question.end == datetime(2026, 10, 25, 23, tzinfo=UTC)  # the day has 25 hours


def test_cleared_fields_are_as_if_absent() -> None:
    assert read("from=&to=&tenant=&model=+&lang=") == read("")


def test_an_address_says_everything_and_reads_back_the_same() -> None:
    chosen = read(
        "from=2026-09-01&to=2026-09-30&bucket=hour&group_by=none&quantity=audio_ms&tenant=a%26b&as_of=7&page=3"
    )
    assert read(urlsplit(chosen.url(page=3)).query) == chosen
    assert chosen.filters == {"tenant": "a&b"}
    assert read(urlsplit(chosen.url(bucket="day")).query).page == 1


def test_the_csv_has_the_same_figures_as_the_page() -> None:
    chosen = read("from=2026-09-01&to=2026-09-30&tenant=dinum&group_by=user&as_of=12")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(chosen.csv_url()).query).items()}
    assert asked == {
        "start": "2026-09-01T00:00:00+02:00",
        "end": "2026-10-01T00:00:00+02:00",
        "bucket": "day",
        "tz": "Europe/Paris",
        "group_by": "user",
        "tenant": "dinum",
        "as_of": "12",
        "format": "csv",
    }
    assert "group_by" not in read("group_by=none").csv_url()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("from=yesterday", "“from” is not a date"),
        ("to=2026-02-30", "“to” is not a date"),
        ("from=0001-01-01", "“from” is not a date"),
        ("from=2026-09-02&to=2026-09-01", "The first day (2 September 2026) is after the last day (1 September 2026)"),
        ("from=2026-01-01&to=2026-10-01&bucket=hour", "The period has 274 days. By hour, 92 at most"),
        ("bucket=week", "“bucket” has no known value. Expected: hour, day, month."),
        ("group_by=shoe_size", "“group_by” has no known value"),
        ("quantity=euros", "“quantity” has no known value"),
        ("lang=de", "“lang” has no known value. Expected: fr, en."),
        ("page=-1", "“page” is not a positive whole number"),
        ("as_of=1.5", "“as_of” is not a positive whole number"),
        ("bucket=day&bucket=hour", "“bucket” is given more than once"),
        ("start=2026-09-01", "“start” is not a parameter of this page"),
        (f"model={'x' * 201}", "“model” is too long"),
    ],
)
def test_what_cannot_be_read_is_said(query: str, said: str) -> None:
    (sentence,) = problems(query)
    assert sentence.startswith(said)


def test_everything_wrong_is_said_at_once() -> None:
    assert len(problems("from=x&bucket=y&quantity=z&nothing=1")) == 4


def test_the_address_decides_the_language_then_the_browser_then_the_setting() -> None:
    assert language_of("en", "fr", "fr") == "en"
    assert language_of(None, "en-GB", "fr") == "en"
    assert language_of(None, "", "en") == "en"


# What is shown


def test_figures_of_the_period_add_up_and_unknown_is_not_zero() -> None:
    rows = [
        row(SEPTEMBER_FIRST, {"model": "a"}, requests=3, requests_error=1, input_tokens=1_200, output_tokens=0),
        row(SEPTEMBER_FIRST, {"model": "b"}, requests=1, requests_refused=1, uncounted_requests=1),
    ]
    shown = build_page(selection(), reading(rows), today=TODAY).headlines
    assert [(it.value, it.unit) for it in shown] == [
        ("4", "requêtes"),
        (f"1{NARROW}200", "jetons"),
        ("0", "jeton"),
        (None, ""),
        ("1", "requête"),
        ("2", "requêtes"),
    ]
    assert shown[-1].note == f"erreurs{FIXED}: 1 · interruptions{FIXED}: 0 · refus{FIXED}: 1"


def test_the_finding_names_the_leader_and_the_highest_bar() -> None:
    rows = [
        row(SEPTEMBER_FIRST, {"model": "a"}, requests=30),
        row(datetime(2026, 9, 1, 22, tzinfo=UTC), {"model": "a"}, requests=45),
        row(datetime(2026, 9, 1, 22, tzinfo=UTC), {"model": "b"}, requests=25),
    ]
    page = build_page(selection(), reading(rows), today=TODAY)
    assert page.figure is not None
    assert page.figure.finding == (
        f"a représente 75{NARROW}% des 100{FIXED}requêtes de la période ; "
        f"le maximum est atteint le 2 septembre 2026, avec 70{FIXED}requêtes."
    )


def test_an_unknown_quantity_is_said_and_not_drawn() -> None:
    rows = [row(SEPTEMBER_FIRST, {"model": "a"}, requests=3)]
    page = build_page(selection(quantity="pages"), reading(rows), today=TODAY)
    assert page.figure is not None
    assert page.figure.chart is None
    assert page.figure.finding == "Cette grandeur est inconnue pour toute la période."
    assert page.ranking is not None
    assert page.ranking.rows[0].amount is None
    assert page.ranking.rows[0].share is None
    html = render_usage(page, [], FRAME)
    assert '<span aria-hidden="true">—</span><span class="unseen">inconnu</span>' in html


def test_others_are_together_in_the_ranking_and_in_detail_below() -> None:
    rows = [row(SEPTEMBER_FIRST, {"model": f"m{index:02d}"}, requests=20 - index) for index in range(11)]
    ranking = build_page(selection(), reading(rows), today=TODAY).ranking
    assert ranking is not None
    assert [line.rank for line in ranking.rows] == ["1", "2", "3", "4", "5", "6", "7", "8", ""]
    assert (ranking.rows[-1].name, ranking.rows[-1].amount, ranking.rows[-1].paint) == ("Autres (3)", "33", "others")
    assert [(line.rank, line.name) for line in ranking.rest] == [("9", "m08"), ("10", "m09"), ("11", "m10")]


def test_the_table_is_cut_in_pages() -> None:
    rows = [row(SEPTEMBER_FIRST, {"model": f"m{index:04d}"}, requests=1) for index in range(TABLE_ROWS_MAX * 2 + 1)]
    first = build_page(selection(), reading(rows), today=TODAY).table
    last = build_page(selection(page=99), reading(rows), today=TODAY).table
    assert first is not None
    assert last is not None
    assert (len(first.rows), first.paging.position, first.paging.previous_url, first.paging.is_open) == (
        200,
        "Page 1 sur 3",
        None,
        False,
    )
    assert (len(last.rows), last.paging.position, last.paging.next_url, last.paging.is_open) == (
        1,
        "Page 3 sur 3",
        None,
        True,
    )
    assert first.paging.next_url is not None
    assert first.paging.next_url.endswith("&page=2#data")


def test_a_quantity_without_a_column_gets_one() -> None:
    table = build_page(
        selection(quantity="pages"), reading([row(SEPTEMBER_FIRST, {"model": "a"}, pages=4)]), today=TODAY
    ).table
    assert table is not None
    assert table.headings[-1] == "Pages"
    assert table.rows[0].values == ("0", "0", "0", None, None, None, "4")


def test_operations_are_named_in_the_readers_language() -> None:
    page = build_page(
        selection(group="operation", language="en"),
        reading([row(SEPTEMBER_FIRST, {"operation": "ocr"}, requests=1)]),
        today=TODAY,
    )
    assert page.table is not None
    assert page.table.rows[0].group == "text recognition"


def test_an_empty_ledger_says_how_to_send_the_first_event() -> None:
    page = build_page(selection(), NOTHING_RECORDED, today=TODAY)
    assert page.empty is not None
    assert page.empty.is_new
    html = render_usage(page, [], FRAME)
    assert "POST /v1/events" in html
    assert "jauge demo" in html


def test_an_empty_period_leads_to_the_latest_one_and_filters_can_be_removed() -> None:
    page = build_page(selection(filters={"tenant": "dinum"}), reading([]), today=TODAY)
    assert page.empty is not None
    assert page.empty.reason == "Aucun événement du 1er au 30 septembre 2026 inclus ne correspond aux filtres choisis."
    unfilter, latest = page.empty.links
    assert "tenant" not in unfilter.url
    assert "from=2026-09-06&to=2026-10-05" in latest.url


def test_names_from_events_are_text_wherever_they_stand() -> None:
    name = '<script>alert("x")</script>'
    page = build_page(
        selection(filters={"tenant": name}), reading([row(SEPTEMBER_FIRST, {"model": name}, requests=1)]), today=TODAY
    )
    html = render_usage(page, [], FRAME)
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_without_a_drawing_the_page_stands_and_says_so() -> None:
    chosen = selection()
    page = build_page(chosen, reading(list(platform_rows(chosen.question()))), today=TODAY)
    html = render_usage(page, None, FRAME)
    assert "Le graphique n’a pas pu être tracé" in html
    assert "mistral-small" in html


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("language", ["fr", "en"])
def test_every_grouping_and_bucket_gives_a_page(group: str, bucket: str, language: str) -> None:
    chosen = selection(group=group, bucket=bucket, language=language, quantity="total_tokens")
    page = build_page(chosen, reading(list(platform_rows(chosen.question()))), today=TODAY)
    assert page.figure is not None
    for drawing in drawings_of(page.figure, chosen.language):
        assert drawing.spec["layer"]
    assert "<h1>" in render_usage(page, [], FRAME)


def test_a_chart_too_fine_is_drawn_by_the_day_and_says_so() -> None:
    chosen = selection(bucket="hour")
    page = build_page(chosen, reading(list(platform_rows(chosen.question()))), today=TODAY)
    assert page.figure is not None
    assert page.figure.chart is not None
    assert page.figure.chart.bucket == "day"
    assert page.figure.notes[0].startswith("720 intervalles seraient illisibles")


# Over HTTP


def test_the_page_goes_with_its_policy_and_into_no_shared_cache(console: Console) -> None:
    answer = httpx.get(f"{console.url}/usage")
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == dict(SECURITY_HEADERS)
    assert answer.headers["content-language"] == "fr"
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert " style=" not in answer.text


def test_static_files_may_be_kept_and_their_address_changes_with_them(console: Console) -> None:
    (address,) = re.findall(r'href="(/static/jauge\.css\?v=[0-9a-f]{12})"', httpx.get(f"{console.url}/usage").text)
    answer = httpx.get(console.url + address)
    assert answer.headers["content-type"].startswith("text/css")
    assert "immutable" in answer.headers["cache-control"]
    assert httpx.get(f"{console.url}/static/../pages.py").status_code == 404


@pytest.mark.parametrize(("language", "said"), [("fr", "Identifiant de la requête"), ("en", "Request id")])
def test_bad_parameters_are_a_clear_page_with_the_request_id(console: Console, language: str, said: str) -> None:
    answer = httpx.get(f"{console.url}/usage?from=hier&bucket=<b>", headers={"Accept-Language": language})
    assert answer.status_code == 400
    assert said in answer.text
    assert re.search(r"<code>[0-9a-f]{32}</code>", answer.text)
    assert "<b>" not in answer.text
    assert not console.questions


def test_an_outage_says_when_to_come_back(console: Console) -> None:
    console.answer = Unavailable("database_unavailable", "away", retry_after_s=5)
    answer = httpx.get(f"{console.url}/usage")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "momentanément indisponible" in answer.text


def test_a_rule_of_the_ledger_is_a_bad_request_here(console: Console) -> None:
    console.answer = Unprocessable("period_too_long", "Too long to be cut in hours.")
    answer = httpx.get(f"{console.url}/usage?lang=en")
    assert answer.status_code == 400
    assert "Too long to be cut in hours." in answer.text


# Over a real ledger

OPERATOR = Principal("operator", "operator")


def test_an_empty_database_is_an_empty_page(services: Services) -> None:
    found = read_ledger(State({"engine": services.engine}), selection().question(), OPERATOR, NOW)
    assert (found.rows, found.newest, found.bounds) == ([], None, None)
    assert build_page(selection(), found, today=TODAY).empty is not None


def test_the_page_shows_what_was_sent_and_the_csv_agrees(api: Api, services: Services, make_event: MakeEvent) -> None:
    events = [make_event() for _ in range(5)] + [
        make_event(input_tokens=None, output_tokens=None, model_served="albert-small"),
        make_event(status="error", input_tokens=None, output_tokens=None, project=None),
    ]
    with api.client() as client:
        assert client.post("/v1/events", json=events).status_code == 200
    chosen = selection(first=date(2026, 10, 5), last=date(2026, 10, 5), quantity="total_tokens")
    page = build_page(
        chosen, read_ledger(State({"engine": services.engine}), chosen.question(), OPERATOR, NOW), today=TODAY
    )
    assert [it.value for it in page.headlines] == ["7", "500", "100", None, "1", "1"]
    assert page.ranking is not None
    assert [(line.name, line.amount) for line in page.ranking.rows] == [("albert-large", "600"), ("albert-small", None)]
    assert page.as_of.startswith(f"Données jusqu’à l’écriture n°{FIXED}1, ")
    with api.client(api.operator_token) as client:
        lines = client.get(chosen.csv_url()).text.splitlines()
    assert len(lines) == 3


def test_the_event_shown_as_an_example_is_accepted(api: Api) -> None:
    page = render_usage(build_page(selection(), NOTHING_RECORDED, today=TODAY), [], FRAME)
    found = re.search(r"<pre[^>]*><code>(.*?)</code>", page, re.DOTALL)
    assert found is not None
    head, _, body = unescape(found[1]).partition("\n\n")
    verb, path = head.splitlines()[0].split()
    media_type = head.partition("Content-Type: ")[2]
    with api.client() as client:
        sent = body.replace('"ministere"', '"dinum"')
        answer = client.request(verb, path, content=sent, headers={"Content-Type": media_type})
    assert answer.status_code == 200, answer.text

"""What a reader of the page is told, and whose use it shows them."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from litestar.datastructures import State

from metering.catalog.announcing import announce_retirements
from metering.database import transaction
from metering.events.decoding import decode_one
from metering.identity import Principal
from metering.services import Services
from metering.tables import api_key, model, model_alias, model_category, notice, outbox, retirement
from reports.notices import Notice, announcements, read_news
from reports.pages import render_usage
from reports.usage_page import Reading, build_page, read_ledger
from tests.conftest import Api
from tests.pages.samples import FRAME, NEWS, NOTHING_RECORDED, NOW, TODAY, reading, selection
from tests.people import add_agent

DAY = timedelta(days=1)
OPERATOR = Principal("operator", "operator")

Use = Callable[..., None]

_numbers = itertools.count(1)


def manager(tenant: str, account: str = "u-boss") -> Principal:
    return Principal("t", "manager", tenant, account)


def member(tenant: str, account: str) -> Principal:
    return Principal("t", "member", tenant, account)


def write(services: Services, table: sa.Table, **row: Any) -> None:
    with transaction(services.engine) as connection:
        connection.execute(table.insert().values(row))


def publish(services: Services, name: str, **changes: Any) -> None:
    words = {f"{part}_{language}": f"{part} {language}" for part in ("title", "text") for language in ("fr", "en")}
    write(services, notice, **{"id": name, "kind": "information", "starts_at": NOW, **words, **changes})


def retire(services: Services, kind: str, subject: str, **changes: Any) -> None:
    row = {"kind": kind, "subject": subject, "announced_at": NOW - DAY, "retires_at": NOW + 100 * DAY, **changes}
    write(services, retirement, id=f"{kind}:{subject}", **row)


def told(services: Services, reader: Principal) -> list[str]:
    """Titles of notices and subjects of ends that a reader is told of."""
    with transaction(services.engine, actor=reader.actor) as connection:
        news = read_news(connection, reader, NOW)
    return [one.title_fr for one in news.notices] + [one.subject for one in news.retirements]


@pytest.fixture
def models(services: Services) -> None:
    """Models `old` and `new` of the categories `small` and `other`, each with an alias."""
    for category, name in (("small", "old"), ("other", "new")):
        write(services, model_category, id=category, name=category)
        write(services, model, id=name, name=name, category=category, publisher="P", licence="MIT")
    write(services, model_alias, id="vendor/Old-7B", model="old")
    write(services, model_alias, id="chat", category="small")


@pytest.fixture
def use(services: Services) -> Use:
    """Record a call, the day before unless told otherwise."""

    def record(user: str | None, *, tenant: str = "dinum", at: datetime = NOW - DAY, **data: Any) -> None:
        event = {
            "specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": f"read-{next(_numbers)}",
            "time": at.isoformat(),
            "data": {
                "tenant": tenant, "user": user, "operation": "chat", "model_requested": "old", "model_served": "old",
                "status": "ok", "input_tokens": 1, "output_tokens": 1,
            } | data,
        }  # fmt: skip
        event["data"] = {name: value for name, value in event["data"].items() if value is not None}
        assert services.intake.take([decode_one(json.dumps(event).encode())], "http").accepted == 1

    return record


# What is said


ZONE_SAID = {"fr": "(fuseau Europe/Paris)", "en": "(Europe/Paris time zone)"}
SAID = {
    "fr": [
        "Incident, en cours: Depuis le 5 octobre 2026 à 10:00 {zone}, jusqu’à nouvel ordre",
        "Maintenance, à venir: Du 10 octobre 2026 à 22:00 au 11 octobre 2026 à 06:00 {zone}",
        "Information, à venir: À partir du 25 octobre 2026 à 02:30 (UTC+2) {zone}, jusqu’à nouvel ordre",
        "Retrait, à venir: Toute requête qui demande ce nom sera refusée à partir du 1er novembre 2026 à 12:00 {zone}.",
        "Retrait, à venir: Toute requête qui demande ce nom sera refusée à partir du 1er janvier 2027 à 00:00 {zone}.",
    ],
    "en": [
        "Incident, under way: Since 5 October 2026 at 10:00 {zone}, until further notice",
        "Maintenance, to come: From 10 October 2026 at 22:00 to 11 October 2026 at 06:00 {zone}",
        "Information, to come: From 25 October 2026 at 02:30 (UTC+2) {zone}, until further notice",
        "Retirement, to come: Every request for this name will be refused from 1 November 2026 at 12:00 {zone}.",
        "Retirement, to come: Every request for this name will be refused from 1 January 2027 at 00:00 {zone}.",
    ],
}


@pytest.mark.parametrize("language", ["fr", "en"])
def test_kind_and_dates_are_said_in_words(language: Any) -> None:
    said = [f"{one.label}, {one.state}: {one.when}" for one in announcements(NEWS, language)]
    assert said == [line.format(zone=ZONE_SAID[language]) for line in SAID[language]]


def test_titles_texts_and_successors_are_in_the_language_of_the_page() -> None:
    french, english = announcements(NEWS, "fr"), announcements(NEWS, "en")
    assert [french[0].title, english[0].title] == ["Réponses lentes", "Slow answers"]
    assert english[0].text == "Chats wait.\nThe cause is being looked for."
    assert [one.title for one in english[3:]] == [
        "The model albert-small-2024 is going to be retired",
        "The category openweight-moderation is going to be retired",
    ]
    assert [one.text for one in english[3:]] == ["Successor: albert-small.", "No successor is announced."]
    assert french[4].title == "La catégorie openweight-moderation va être retirée"


def test_without_anything_to_say_there_is_no_section() -> None:
    quiet = render_usage(build_page(selection(), reading([]), today=TODAY), [], FRAME)
    told_of = render_usage(build_page(selection(), replace(reading([]), news=NEWS), today=TODAY), [], FRAME)
    assert "notices-title" in told_of
    assert "notices-title" not in quiet


def test_a_notice_is_text_wherever_it_stands() -> None:
    word = "<script>alert(1)</script>"
    news = replace(NEWS, notices=[Notice("incident", word, word, word, word, NOW, None)])
    html = render_usage(build_page(selection(), replace(reading([]), news=news), today=TODAY), [], FRAME)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 2


# Who is told


def test_notices_that_are_over_are_not_told_and_others_are_in_order(services: Services) -> None:
    publish(services, "later", title_fr="later", starts_at=NOW + DAY)
    publish(services, "live", title_fr="live", starts_at=NOW - DAY, ends_at=NOW + DAY)
    publish(services, "over", title_fr="over", starts_at=NOW - DAY, ends_at=NOW)
    assert told(services, OPERATOR) == ["live", "later"]


def test_a_notice_for_some_is_told_to_them_and_to_operators(services: Services) -> None:
    publish(services, "all", title_fr="for all")
    publish(services, "some", title_fr="for sante", tenants=["sante", "finances"])
    assert told(services, manager("dinum")) == ["for all"]
    assert told(services, member("sante", "u-1")) == ["for all", "for sante"]
    assert told(services, OPERATOR) == ["for all", "for sante"]


@pytest.mark.usefixtures("models")
def test_an_end_is_told_to_those_who_used_it_and_to_operators(services: Services, use: Use) -> None:
    retire(services, "model", "old", successor="new")
    use("u-user")
    use("u-new", model_served="new")
    use("u-late", tenant="sante", at=NOW - 91 * DAY)
    use("u-edge", tenant="finances", at=NOW - 90 * DAY)
    assert told(services, OPERATOR) == ["old"]
    assert told(services, manager("dinum")) == ["old"]
    assert told(services, member("dinum", "u-user")) == ["old"]
    assert told(services, member("dinum", "u-new")) == []
    assert told(services, manager("sante")) == []
    assert told(services, manager("finances")) == ["old"]
    assert told(services, manager("interieur")) == []


@pytest.mark.usefixtures("models")
def test_an_end_is_told_from_its_announcement_until_it_comes(services: Services) -> None:
    retire(services, "model", "old", announced_at=NOW + DAY)
    retire(services, "model", "new", announced_at=NOW - 40 * DAY, retires_at=NOW)
    retire(services, "category", "small")
    assert told(services, OPERATOR) == ["small"]


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("kind", "subject", "call", "is_told"),
    [
        ("model", "old", {"model_requested": "small"}, True),
        ("model", "old", {"model_requested": "vendor/Old-7B", "model_served": None, "status": "error"}, True),
        ("model", "old", {"model_requested": "old", "model_served": "new"}, False),
        ("model", "old", {"user": None, "api_key": "k-agent"}, True),
        ("model", "old", {"user": "u-other", "api_key": "k-agent"}, False),
        ("category", "small", {"model_served": "old"}, True),
        ("category", "small", {"model_requested": "chat", "model_served": "new"}, True),
        ("category", "small", {"category": "small", "model_served": "new", "project": "p"}, True),
        ("category", "small", {"model_requested": "new", "model_served": "new"}, False),
    ],
)
def test_use_is_known_under_every_name_and_those_who_got_a_mail_find_it_on_the_page(
    services: Services, use: Use, kind: str, subject: str, call: dict[str, Any], is_told: bool
) -> None:
    add_agent(services, "dinum", account_id="u-agent")
    write(services, api_key, id="k-agent", tenant="dinum", account="u-agent", name="k", prefix="k", digest=b"k")
    use(**{"user": "u-agent", **call})
    retire(services, kind, subject)
    assert told(services, member("dinum", "u-agent")) == ([subject] if is_told else [])
    announce_retirements(services.engine, NOW)
    with services.engine.connect() as connection:
        mails = set(connection.scalars(sa.select(outbox.c.recipient).where(outbox.c.subject == "model_retiring")))
    assert ("account:u-agent" in mails) == is_told


# Whose page it is


def read(services: Services, reader: Principal) -> Reading:
    return read_ledger(State({"engine": services.engine}), selection().question(), reader, NOW)


def test_the_page_says_whose_use_it_shows(services: Services) -> None:
    titles = {
        (reader.role, language): build_page(selection(language=language), read(services, reader), today=TODAY).title
        for reader in (OPERATOR, manager("dinum"), member("dinum", "u-1"))
        for language in ("fr", "en")
    }
    assert titles == {
        ("operator", "fr"): "Consommation",
        ("operator", "en"): "Usage",
        ("manager", "fr"): "Consommation – dinum",
        ("manager", "en"): "Usage – dinum",
        ("member", "fr"): "Votre consommation",
        ("member", "en"): "Your use",
    }


def test_the_filters_offer_what_a_reader_may_see(services: Services, use: Use) -> None:
    use("u-own", project="p-own", model_served="m-own")
    use("u-other", project="p-other", model_served="m-other")
    use("u-own", tenant="sante", project="p-sante", model_served="m-sante", at=NOW - 5 * DAY)
    offered = {reader: read(services, reader) for reader in (OPERATOR, manager("dinum"), member("dinum", "u-own"))}
    assert len(offered[OPERATOR].choices["tenant"]) == 5
    assert offered[OPERATOR].choices["project"] == ["p-other", "p-own", "p-sante"]
    assert offered[manager("dinum")].choices == {
        "tenant": ["dinum"], "model": ["m-other", "m-own"], "operation": ["chat"], "project": ["p-other", "p-own"],
    }  # fmt: skip
    assert offered[member("dinum", "u-own")].choices == {
        "tenant": ["dinum"], "model": ["m-own"], "operation": ["chat"], "project": ["p-own"],
    }  # fmt: skip


def test_a_member_is_led_to_a_period_of_their_own(services: Services, use: Use) -> None:
    use("u-other", at=NOW)
    use("u-own", at=NOW - 40 * DAY)
    assert read(services, member("dinum", "u-new")).bounds is None
    first, last = read(services, member("dinum", "u-own")).bounds or (NOW, NOW)
    assert first == last == datetime(2026, 8, 25, 22, tzinfo=UTC)  # 26 August in Paris
    assert read(services, manager("dinum")).bounds == (NOW.replace(minute=0) - 40 * DAY, NOW.replace(minute=0))


@pytest.mark.parametrize(("role", "shows"), [("operator", True), ("manager", False), ("member", False)])
def test_only_who_connects_a_gateway_is_shown_how(role: Any, shows: bool) -> None:
    html = render_usage(build_page(selection(), replace(NOTHING_RECORDED, role=role), today=TODAY), [], FRAME)
    assert ("POST /v1/events" in html) == shows
    assert ("Aucune requête n’est encore enregistrée." in html) != shows


def test_agents_read_the_real_page_and_nothing_of_others(api: Api, services: Services, use: Use) -> None:
    use("u-one", project="p-one")
    use("u-two", project="p-two")
    use("u-three", tenant="sante", project="p-three")
    publish(services, "some", title_fr="For sante only", tenants=["sante"])
    _, one = add_agent(services, "dinum", account_id="u-one")
    _, boss = add_agent(services, "dinum", "manager", "u-boss")
    pages = {}
    for name, token in (("one", one), ("boss", boss)):
        answer = httpx.get(f"{api.url}/usage?from=2026-10-04&to=2026-10-04&group_by=user", auth=("any", token))
        assert answer.status_code == 200
        pages[name] = answer.text
    assert "u-one" in pages["one"]
    assert "u-two" not in pages["one"]
    assert "<h1>Votre consommation</h1>" in pages["one"]
    assert "u-one" in pages["boss"]
    assert "u-two" in pages["boss"]
    assert not any("three" in page or "sante" in page for page in pages.values())
    refused = httpx.get(f"{api.url}/usage?tenant=sante", auth=("any", boss))
    assert refused.status_code == 403
    assert "Ces données ne sont pas les vôtres" in refused.text

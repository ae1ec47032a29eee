"""Who is told of what ends, is planned or changes: each once, at each step."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from metering.catalog import documents
from metering.catalog.announcing import announce_notices, announce_retirements, announce_terms
from metering.catalog.documents import Document
from metering.catalog.kinds import KINDS, put
from metering.database import transaction
from metering.events.decoding import decode_one
from metering.outbox.wording import MAIL_FIELDS
from metering.services import Services
from metering.tables import account, api_key, outbox
from tests.people import add_agent

ANNOUNCED = datetime(2026, 6, 1, 8, tzinfo=UTC)
END = ANNOUNCED + timedelta(days=100)
DAY = timedelta(days=1)

Use = Callable[..., None]

_numbers = itertools.count(1)


def write(services: Services, kind: str, document: Document) -> None:
    with transaction(services.engine) as connection:
        put(connection, KINDS[kind], document)


def retire(services: Services, kind: str, subject: str, *, successor: str = "new", end: datetime = END) -> None:
    write(
        services,
        "retirements",
        documents.Retirement(kind=kind, subject=subject, successor=successor, announced_at=ANNOUNCED, retires_at=end),
    )


@pytest.fixture(autouse=True)
def models(services: Services) -> None:
    write(services, "categories", documents.Category(id="small", name="Small"))
    write(services, "categories", documents.Category(id="other", name="Other"))
    for name, category in (("old", "small"), ("new", "other")):
        described = {"name": name, "publisher": "P", "licence": "MIT", "category": category}
        write(services, "models", documents.Model(id=name, **described))
    write(services, "aliases", documents.Alias(id="vendor/Old-7B", model="old"))
    write(services, "aliases", documents.Alias(id="chat", category="small"))


@pytest.fixture
def use(services: Services) -> Use:
    """Record a call, five days after the announcement unless told otherwise."""

    def record(user: str | None, *, tenant: str = "dinum", at: datetime = ANNOUNCED + 5 * DAY, **data: Any) -> None:
        event = {
            "specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": f"told-{next(_numbers)}",
            "time": at.isoformat(),
            "data": {
                "tenant": tenant, "user": user, "operation": "chat", "model_requested": "old", "model_served": "old",
                "status": "ok", "input_tokens": 1, "output_tokens": 1,
            } | data,
        }  # fmt: skip
        event["data"] = {name: value for name, value in event["data"].items() if value is not None}
        assert services.intake.take([decode_one(json.dumps(event).encode())], "http").accepted == 1

    return record


def sent(services: Services, subject: str = "model_retiring") -> list[str]:
    """Recipients of what is in the outbox, in their order."""
    with transaction(services.engine) as connection:
        return list(
            connection.scalars(
                sa.select(outbox.c.recipient).where(outbox.c.subject == subject).order_by(outbox.c.recipient)
            )
        )


def payloads(services: Services, subject: str = "model_retiring") -> list[dict[str, Any]]:
    with transaction(services.engine) as connection:
        return list(connection.scalars(sa.select(outbox.c.payload).where(outbox.c.subject == subject)))


def test_users_of_a_model_and_their_managers_are_told_and_nobody_else(services: Services, use: Use) -> None:
    for name, tenant, role in (
        ("u-user", "dinum", "member"), ("u-idle", "dinum", "member"), ("u-boss", "dinum", "manager"),
        ("u-else", "sante", "manager"), ("u-late", "finances", "member"), ("u-left", "dinum", "member"),
        ("u-new", "dinum", "member"), ("u-night", "interieur", "manager"),
    ):  # fmt: skip
        add_agent(services, tenant, role, name)
    with transaction(services.engine) as connection:
        connection.execute(account.update().where(account.c.id == "u-left").values(status="suspended"))
    now = ANNOUNCED + 6 * DAY
    use("u-user")
    use("u-user", operation="completion")
    use("u-boss")
    use("u-left")
    use("u-new", model_requested="new", model_served="new")
    use("u-user", tenant="education")
    use(None, tenant="interieur")
    use("u-late", tenant="finances", at=now - 91 * DAY)
    retire(services, "model", "old")
    assert announce_retirements(services.engine, now) == 6
    assert sent(services) == ["account:u-boss", "account:u-night", "account:u-user"]
    assert sent(services, "model.retiring") == ["webhooks:dinum", "webhooks:education", "webhooks:interieur"]


def test_each_step_is_told_once_and_the_mail_says_when(services: Services, use: Use) -> None:
    add_agent(services, "dinum", account_id="u-user")
    use("u-user")
    retire(services, "model", "old")
    told = {}
    for hour in range(-24, 24 * 102, 12):
        if announce_retirements(services.engine, ANNOUNCED + timedelta(hours=hour)):
            told[hour / 24] = sent(services).count("account:u-user")
    # Announced a hundred days ahead, then at ninety, thirty and seven.
    assert told == {0: 1, 10: 2, 70: 3, 93: 4}
    assert [one["days"] for one in payloads(services)] == [100, 90, 30, 7]
    assert payloads(services)[0] == {
        "kind": "model", "name": "old", "successor": "new", "retires_at": "2026-09-09T08:00:00+00:00", "days": 100
    }  # fmt: skip
    assert set(payloads(services)[0]) == set(MAIL_FIELDS["model_retiring"])
    assert len(sent(services, "model.retiring")) == 4


def test_who_begins_to_use_it_later_is_told_then(services: Services, use: Use) -> None:
    add_agent(services, "dinum", account_id="u-early")
    add_agent(services, "dinum", account_id="u-late")
    retire(services, "model", "old")
    use("u-early")
    now = ANNOUNCED + 6 * DAY
    announce_retirements(services.engine, now)
    use("u-late")
    assert announce_retirements(services.engine, now + timedelta(minutes=1)) == 1
    assert sent(services) == ["account:u-early", "account:u-late"]


def test_a_date_that_moved_is_told_again(services: Services, use: Use) -> None:
    add_agent(services, "dinum", account_id="u-user")
    use("u-user")
    now = ANNOUNCED + 6 * DAY
    retire(services, "model", "old")
    announce_retirements(services.engine, now)
    retire(services, "model", "old", end=END + 30 * DAY)
    announce_retirements(services.engine, now)
    assert announce_retirements(services.engine, now) == 0
    assert [one["retires_at"][:10] for one in payloads(services)] == ["2026-09-09", "2026-10-09"]


def test_an_alias_that_was_refused_and_a_key_of_an_agents_own_are_use_of_the_model(
    services: Services, use: Use
) -> None:
    add_agent(services, "dinum", account_id="u-alias")
    add_agent(services, "dinum", account_id="u-key")
    with transaction(services.engine) as connection:
        key = {"id": "k-own", "tenant": "dinum", "account": "u-key", "name": "K", "prefix": "sk", "digest": b"d"}
        connection.execute(api_key.insert().values(key))
    counts = dict.fromkeys(("input_tokens", "output_tokens", "model_served"))
    use("u-alias", model_requested="vendor/Old-7B", status="refused", **counts)
    use(None, api_key="k-own")
    retire(services, "model", "old")
    announce_retirements(services.engine, ANNOUNCED + 6 * DAY)
    assert sent(services) == ["account:u-alias", "account:u-key"]


def test_users_of_a_category_are_those_of_its_models_past_and_present_and_who_named_it(
    services: Services, use: Use
) -> None:
    for name in ("u-member", "u-gone", "u-named", "u-alias", "u-new", "u-before"):
        add_agent(services, "dinum", account_id=name)
    add_agent(services, "sante", "manager", "u-boss")
    counts = dict.fromkeys(("input_tokens", "output_tokens", "model_served"))
    use("u-member")
    use("u-gone", model_requested="gone", model_served="gone", category="small", project="p")
    use("u-named", model_requested="small", status="refused", **counts)
    use("u-alias", model_requested="chat", model_served="new", category="other")
    use("u-new", model_requested="new", model_served="new", category="other")
    use("u-before", model_requested="gone", model_served="gone", category="small", at=ANNOUNCED - 90 * DAY)
    retire(services, "category", "small", successor="other")
    assert announce_retirements(services.engine, ANNOUNCED + 6 * DAY) == 5
    assert sent(services) == ["account:u-alias", "account:u-gone", "account:u-member", "account:u-named"]


def test_nothing_is_told_before_the_announcement_and_from_the_end_on(services: Services, use: Use) -> None:
    add_agent(services, "dinum", account_id="u-user")
    use("u-user", at=END - 5 * DAY)
    retire(services, "model", "old")
    assert announce_retirements(services.engine, ANNOUNCED - timedelta(seconds=1)) == 0
    assert announce_retirements(services.engine, END) == 0
    assert announce_retirements(services.engine, END - timedelta(seconds=1)) == 2
    assert payloads(services)[0]["days"] == 1


def test_a_notice_is_told_once_to_those_whom_it_concerns_as_long_as_it_is_not_over(services: Services) -> None:
    for name, tenants, end in (("all", [], END), ("some", ["dinum", "sante"], None), ("over", [], ANNOUNCED)):
        texts = {"title_fr": "Arrêt", "title_en": "Stop", "text_fr": "Le soir.", "text_en": "At night."}
        write(
            services,
            "notices",
            documents.Notice(
                id=name, kind="maintenance", **texts, starts_at=ANNOUNCED - DAY, ends_at=end, tenants=tenants
            ),
        )
    assert announce_notices(services.engine, ANNOUNCED) == 6
    assert announce_notices(services.engine, ANNOUNCED + DAY) == 0
    assert sent(services, "notice_published") == ["accounts", "accounts:dinum", "accounts:sante"]
    assert sent(services, "notice.published") == ["webhooks", "webhooks:dinum", "webhooks:sante"]
    assert payloads(services, "notice_published")[0] == {
        "title_fr": "Arrêt", "title_en": "Stop", "text_fr": "Le soir.", "text_en": "At night.",
        "starts_at": "2026-05-31T08:00:00+00:00", "ends_at": "2026-09-09T08:00:00+00:00",
    }  # fmt: skip


def test_versions_of_the_terms_that_hold_or_will_are_told_once(services: Services) -> None:
    for version, day in (("1", -200), ("2", -100), ("3", 10)):
        texts = {"title_fr": "CGU", "title_en": "Terms", "text_fr": "…", "text_en": "…"}
        effective = ANNOUNCED + day * DAY
        write(
            services,
            "terms",
            documents.Terms(
                document="terms", version=version, **texts, effective_at=effective, enforced_at=effective + DAY
            ),
        )
    assert announce_terms(services.engine, ANNOUNCED) == 4
    assert announce_terms(services.engine, ANNOUNCED + 20 * DAY) == 0
    assert sent(services, "terms_published") == ["accounts", "accounts"]
    assert [one["version"] for one in payloads(services, "terms.published")] == ["2", "3"]
    assert set(payloads(services, "terms_published")[0]) == set(MAIL_FIELDS["terms_published"])

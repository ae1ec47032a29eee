"""Models and notices over HTTP, and the gateway's question."""

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from metering.catalog import documents
from metering.catalog.documents import Document, Retirement
from metering.catalog.kinds import KINDS, put
from metering.catalog.routes.models import Question, answer_question, retirement_headers
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.errors import Gone
from metering.services import Services
from metering.tables import api_key
from tests.applications import application
from tests.http.conftest import client_with
from tests.people import add_agent

MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
SECRET = "sk-of-a-test"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
TEXTS = {"title_fr": "Arrêt", "title_en": "Stop", "text_fr": "Le soir.", "text_en": "At night."}


def a_retirement(subject: str, days: int, kind: str = "model", successor: str | None = "small") -> Retirement:
    """One that was announced a hundred days before its end, `days` from now."""
    end = MIDNIGHT + days * DAY
    return Retirement(kind=kind, subject=subject, successor=successor, announced_at=end - 100 * DAY, retires_at=end)


def write(services: Services, *written: tuple[str, Document]) -> None:
    with transaction(services.engine) as connection:
        for kind, document in written:
            put(connection, KINDS[kind], document)
    services.catalog.refresh()


def a_model(name: str, **more: Any) -> tuple[str, Document]:
    given = {"name": name.title(), "category": "chat", "publisher": "Mistral AI", "licence": "Apache-2.0"} | more
    return "models", documents.Model(id=name, **given)


@pytest.fixture
def catalog(services: Services) -> None:
    """A model with everything, one that retires, one that did, one to come; a category with an alias."""
    started = {"model": "small", "starts_at": MIDNIGHT - 5 * DAY}
    write(
        services,
        ("categories", documents.Category(id="chat", name="Chat")),
        a_model(
            "small", parameters=24_000_000_000, active_parameters=24_000_000_000, precision="fp8",
            context_tokens=131_072, operations=["chat"], licence_url="https://example.test/licence",
        ),
        a_model("retiring"), a_model("retired"), a_model("coming", available_from=MIDNIGHT + DAY),
        ("categories", documents.Category(id="chat", name="Chat", model="small")),
        ("categories", documents.Category(id="talk", name="Talk")),
        ("aliases", documents.Alias(id="mistralai/Small-24B", model="small")),
        ("aliases", documents.Alias(id="mistralai/Old", model="retired")),
        ("aliases", documents.Alias(id="default", category="chat")),
        ("deployments", documents.Deployment(id="d-1", replicas=3, **started)),
        ("deployments", documents.Deployment(id="d-2", **started)),
        ("deployments", documents.Deployment(id="d-3", ends_at=MIDNIGHT - DAY, **started)),
        ("retirements", a_retirement("retiring", 20)),
        ("retirements", a_retirement("retired", -1)),
        ("retirements", a_retirement("chat", 50, "category", "talk")),
    )  # fmt: skip


@pytest.fixture
def member(services: Services, catalog: None) -> Iterator[TestClient[Litestar]]:
    _account, token = add_agent(services, "dinum", account_id="u-1")
    with client_with(application(services), token) as client:
        yield client


@pytest.fixture
def gateway(services: Services, catalog: None) -> Iterator[TestClient[Litestar]]:
    """A gateway's client, and an agent's key to ask with."""
    add_agent(services, "dinum", account_id="u-1")
    add_key(services, SECRET)
    with client_with(application(services), add_token(services.engine, "gateway", "gateway")) as client:
        yield client


def add_key(services: Services, secret: str, **more: Any) -> None:
    digest = hashlib.sha256(secret.encode()).digest()
    row = {"id": f"k-{secret}", "tenant": "dinum", "account": "u-1", "name": "K", "prefix": "sk-of", "digest": digest}
    with transaction(services.engine) as connection:
        connection.execute(api_key.insert().values(row | more))


def test_a_retirements_headers_are_those_of_the_rfcs() -> None:
    found = Retirement(
        kind="model", subject="old", successor="Qwen/Qwen3-32B",
        announced_at=datetime(2023, 6, 30, 23, 59, 59, tzinfo=UTC),
        retires_at=datetime(2024, 11, 6, 0, 49, 37, tzinfo=UTC),
    )  # fmt: skip
    assert retirement_headers(found) == {
        "Deprecation": "@1688169599",
        "Sunset": "Wed, 06 Nov 2024 00:49:37 GMT",
        "Link": '</v1/models/Qwen/Qwen3-32B>; rel="successor-version"',
    }
    assert retirement_headers(None) == {}
    assert "Link" not in retirement_headers(a_retirement("old", 3, successor=None))


def test_models_are_listed_with_what_they_are_and_how_long(member) -> None:
    items = {one["id"]: one for one in member.get("/v1/models").json()["items"]}
    assert list(items) == ["coming", "retired", "retiring", "small"]
    assert {name: one["status"] for name, one in items.items()} == {
        "coming": "coming", "retired": "retired", "retiring": "retiring", "small": "available"
    }  # fmt: skip
    assert items["small"] == {
        "id": "small", "name": "Small", "category": "chat", "publisher": "Mistral AI", "licence": "Apache-2.0",
        "licence_url": "https://example.test/licence", "parameters": 24_000_000_000,
        "active_parameters": 24_000_000_000, "precision": "fp8", "context_tokens": 131_072, "operations": ["chat"],
        "kv_bytes_per_token": None, "aliases": ["mistralai/Small-24B"], "deployments": 4, "status": "available",
        "available_from": None, "retirement": None,
    }  # fmt: skip
    end = MIDNIGHT + 20 * DAY
    assert items["retiring"]["deployments"] == 0
    assert items["retiring"]["retirement"] == {
        "kind": "model", "subject": "retiring", "successor": "small",
        "announced_at": f"{end - 100 * DAY:%Y-%m-%dT%H:%M:%SZ}", "retires_at": f"{end:%Y-%m-%dT%H:%M:%SZ}",
    }  # fmt: skip


NAMED = [
    ("small", "small", "model", "available", None, None),
    ("mistralai/Small-24B", "small", "model", "available", None, None),
    ("retiring", "retiring", "model", "retiring", 20, "small"),
    ("mistralai/Old", "retired", "model", "retired", -1, "small"),
    ("chat", "small", "category", "retiring", 50, "talk"),
    ("default", "small", "category", "retiring", 50, "talk"),
]
"""Name, model that answers, what was named, its status, days to its end, its successor."""


def test_any_name_leads_to_its_model_and_the_headers_say_until_when(member) -> None:
    for name, model, named, status, days, successor in NAMED:
        answer = member.get(f"/v1/models/{name}")
        shown = answer.json()
        assert (shown["requested"], shown["id"], shown["named"], shown["status"]) == (name, model, named, status)
        if days is None:
            assert not answer.headers.keys() & {"deprecation", "sunset", "link"}
            continue
        end = MIDNIGHT + days * DAY
        assert shown["retirement"]["retires_at"] == f"{end:%Y-%m-%dT%H:%M:%SZ}"
        assert parsedate_to_datetime(answer.headers["sunset"]) == end
        assert answer.headers["deprecation"] == f"@{int((end - 100 * DAY).timestamp())}"
        assert answer.headers["link"] == f'</v1/models/{successor}>; rel="successor-version"'


def test_an_unknown_name_is_not_found_and_not_quoted(member) -> None:
    answer = member.get("/v1/models/no/words")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert "words" not in answer.text


def test_notices_are_ones_own_and_name_no_other_administration(member, services) -> None:
    write(
        services,
        *(
            (
                "notices",
                documents.Notice(
                    id=name, kind="maintenance", **TEXTS, starts_at=MIDNIGHT + DAY, ends_at=MIDNIGHT + end * DAY,
                    tenants=tenants,
                ),
            )
            for name, end, tenants in (("all", 2, []), ("own", 2, ["dinum", "sante"]), ("else", 2, ["sante"]))
        ),
    )  # fmt: skip
    answer = member.get("/v1/notices")
    assert [one["id"] for one in answer.json()["items"]] == ["all", "own"]
    assert answer.json()["items"][0].items() >= TEXTS.items()
    assert "sante" not in answer.text
    assert [one["subject"] for one in answer.json()["retirements"]] == ["retired", "retiring", "chat"]
    member.headers["Authorization"] = f"Bearer {add_token(services.engine, 'staff', 'operator')}"
    assert [one["id"] for one in member.get("/v1/notices").json()["items"]] == ["all", "else", "own"]


def test_a_gateway_learns_whose_key_it_is_and_which_model_answers(gateway, services) -> None:
    write(services, ("notices", documents.Notice(id="n", kind="incident", **TEXTS, starts_at=MIDNIGHT)))
    answer = gateway.post("/v1/gateway/resolve", json={"key_sha256": DIGEST, "model": "default", "operation": "chat"})
    shown = answer.json()
    assert (answer.status_code, answer.headers["link"]) == (200, '</v1/models/talk>; rel="successor-version"')
    assert [one["id"] for one in shown.pop("notices")] == ["n"]
    assert shown.pop("retirement")["subject"] == "chat"
    assert shown == {
        "tenant": "dinum", "project": None, "user": "u-1", "api_key": f"k-{SECRET}", "plan": "experimentation",
        "tier": "free", "model_requested": "default", "model": "small", "category": "chat",
        "catalog_version": services.catalog.refresh().version,
    }  # fmt: skip
    plain = gateway.post("/v1/gateway/resolve", json={"key_sha256": DIGEST, "model": "small"})
    assert not plain.headers.keys() & {"deprecation", "sunset", "link"}


REFUSED = [
    ({"key_sha256": "0" * 64}, 401, "invalid_key"),
    ({"key_sha256": "words"}, 400, "invalid_request"),
    ({"model": "words"}, 404, "unknown_model"),
    ({"model": "mistralai/Old"}, 410, "model_retired"),
    ({"model": "coming"}, 403, "model_not_available_yet"),
    ({"operation": "image"}, 422, "operation_not_offered"),
    ({"words": 1}, 400, "invalid_request"),
]


def test_a_gateway_is_refused_with_the_reason(gateway) -> None:
    for changes, status, code in REFUSED:
        answer = gateway.post("/v1/gateway/resolve", json={"key_sha256": DIGEST, "model": "small"} | changes)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "words" not in answer.text
        if status == 410:
            end = (MIDNIGHT - DAY).isoformat()
            assert answer.json()["expected"] == "small"
            assert answer.json()["detail"] == f"The model retired retired on {end}; its successor is small."


def test_a_model_is_refused_from_its_date_on(services: Services, gateway) -> None:
    question = Question(key_sha256=DIGEST, model="retiring")
    end = MIDNIGHT + 20 * DAY
    _found, answer = answer_question(services.catalog, question, end - timedelta(microseconds=1))
    assert (answer.model, answer.retirement.retires_at) == ("retiring", end)
    with pytest.raises(Gone):
        answer_question(services.catalog, question, end)


def test_a_key_that_was_made_a_moment_ago_is_known(gateway, services) -> None:
    services.catalog.current()
    add_key(services, "sk-new")
    question = {"key_sha256": hashlib.sha256(b"sk-new").hexdigest(), "model": "small"}
    assert gateway.post("/v1/gateway/resolve", json=question).json()["api_key"] == "k-sk-new"


def test_agents_cant_ask_about_keys(member) -> None:
    answer = member.post("/v1/gateway/resolve", json={"key_sha256": DIGEST, "model": "small"})
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_role")


def test_a_question_costs_no_look_into_the_database(gateway, services, monkeypatch) -> None:
    services.catalog.refresh()
    monkeypatch.setattr(type(services.catalog), "refresh", lambda _self: pytest.fail("the database was asked"))
    question = Question(key_sha256=DIGEST, model="default", operation="chat")
    times_ns = []
    for _ in range(200):
        started_ns = time.perf_counter_ns()
        answer_question(services.catalog, question, MIDNIGHT)
        times_ns.append(time.perf_counter_ns() - started_ns)
    assert sorted(times_ns)[100] < 1_000_000

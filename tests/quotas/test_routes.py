"""The gateway's question over HTTP."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from click.testing import CliRunner, Result
from litestar.testing import TestClient

from metering.catalog.tokens import add_token
from metering.cli import main
from metering.database import transaction
from metering.quotas import service
from metering.settings import get_settings
from metering.tables import api_key, platform
from tests.applications import application
from tests.http.conftest import client_with
from tests.people import add_agent
from tests.quotas.conftest import CATALOGUE, declare

SECRET = "sk-secret"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
_numbers = itertools.count(1)


@pytest.fixture
def gateway(services):
    declare(services, CATALOGUE)
    add_agent(services, "dinum", "member", "alice")
    with transaction(services.engine) as connection:
        connection.execute(
            api_key.insert().values(
                id="k-alice", tenant="dinum", account="alice", name="k", prefix="sk-", digest=bytes.fromhex(DIGEST)
            )
        )
    with client_with(application(services), add_token(services.engine, "gateway", "gateway")) as client:
        yield client


def body(**changes) -> dict:
    return {
        "reservation": f"r-{next(_numbers)}", "key_sha256": DIGEST, "model": "small", "operation": "chat",
        "estimates": {"prompt_tokens": 10, "max_output_tokens": 100},
    } | changes  # fmt: skip


def test_a_key_asks_and_is_told_where_it_stands(gateway: TestClient) -> None:
    answer = gateway.post("/v1/quota/reserve", json=body())
    told = answer.json()
    assert answer.status_code == 200, answer.text
    assert (told["tenant"], told["user"], told["api_key"], told["tier"]) == ("dinum", "alice", "k-alice", "free")
    assert told["granted"] == {"max_output_tokens": 100}
    day = next(limit for limit in told["limits"] if limit["window"] == "day")
    assert (day["meter"], day["unit"], day["value"], day["used"], day["held"], day["remaining"]) == (
        "total_tokens", "token", 1000, 0, 110, 890,
    )  # fmt: skip
    assert day["reset_at"].endswith(("22:00:00Z", "23:00:00Z"))
    assert answer.headers["x-ratelimit-remaining-tokens"] == "890"
    assert answer.headers["ratelimit-policy"] == '"user-minute";q=5;w=60'
    assert answer.headers["ratelimit"] == '"user-minute";r=4;t=60'


def test_a_refusal_is_a_problem_with_the_limits_or_openais_shape(gateway: TestClient) -> None:
    for _ in range(5):
        asked = body(estimates={})
        assert gateway.post("/v1/quota/reserve", json=asked).status_code == 200
        commit = {name: asked[name] for name in ("reservation", "key_sha256", "model")} | {"quantities": {}}
        assert gateway.post("/v1/quota/commit", json=commit).json()["status"] == "ok"
    refused = gateway.post("/v1/quota/reserve", json=body(estimates={}))
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["allowed"]) == (429, "limit_reached", False)
    assert refused.headers["content-type"] == "application/problem+json"
    assert 60 <= int(refused.headers["retry-after"]) <= 70
    assert [limit["remaining"] for limit in problem["limits"] if limit["window"] == "minute"] == [0]
    shaped = gateway.post("/v1/quota/reserve", json=body(estimates={}, errors="openai"))
    assert shaped.status_code == 429
    assert shaped.json()["error"]["type"] == "rate_limit_error"
    assert shaped.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_stream_lives_on_and_what_is_not_run_is_given_back(gateway: TestClient) -> None:
    asked = body()
    gateway.post("/v1/quota/reserve", json=asked)
    who = {"key_sha256": DIGEST, "model": "small", "reservation": asked["reservation"]}
    for _ in range(2):  # the answer may have been lost: the same again holds nothing twice
        more = gateway.post("/v1/quota/extend", json=who | {"output_tokens_total": 400})
        assert (more.status_code, more.json()["granted"]) == (200, {"max_output_tokens": 400})
    assert gateway.post("/v1/quota/extend", json=who).json()["granted"] == {"max_output_tokens": 400}
    assert held(gateway)["day"] == 410
    more = gateway.post("/v1/quota/extend", json=who | {"output_tokens_total": 5_000})
    assert more.json()["granted"] == {"max_output_tokens": 990}
    again = gateway.post("/v1/quota/extend", json=who | {"output_tokens_total": 5_000})
    assert (again.status_code, again.json()["code"]) == (429, "limit_reached")
    assert again.json()["granted"] == {"max_output_tokens": 990}  # what is held, whichever answer was lost
    assert held(gateway)["day"] == 1_000
    assert gateway.post("/v1/quota/release", json={"reservation": asked["reservation"], "tenant": "dinum"}).is_success
    late = gateway.post("/v1/quota/extend", json=who)
    assert (late.status_code, late.json()["code"]) == (404, "unknown_reservation")
    checked = gateway.post("/v1/quota/check", json={"key_sha256": DIGEST, "model": "small"}).json()
    assert [limit["held"] for limit in checked["limits"]] == [0, 0, 0, 0]


def held(gateway: TestClient) -> dict[str, int]:
    """Window to what is held."""
    checked = gateway.post("/v1/quota/check", json={"key_sha256": DIGEST, "model": "small"}).json()
    return {limit["window"]: limit["held"] for limit in checked["limits"]}


def test_output_that_was_not_asked_for_at_first_is_held_as_well(gateway: TestClient) -> None:
    asked = body(estimates={"prompt_tokens": 10})
    gateway.post("/v1/quota/reserve", json=asked)
    who = {"key_sha256": DIGEST, "model": "small", "reservation": asked["reservation"], "output_tokens_total": 50}
    assert gateway.post("/v1/quota/extend", json=who).json()["granted"] == {"max_output_tokens": 50}
    assert held(gateway)["day"] == 60


def test_an_overload_sheds_the_free_first(gateway: TestClient, services) -> None:
    with transaction(services.engine) as connection:
        connection.execute(platform.update().values(overload="free", overload_reason="GPU down"))
    services.catalog.refresh()
    shed = gateway.post("/v1/quota/reserve", json=body())
    assert (shed.status_code, shed.json()["code"]) == (503, "shed")
    assert 10 <= int(shed.headers["retry-after"]) <= 30


def test_a_limit_of_zero_forbids(gateway: TestClient, services) -> None:
    declare(services, CATALOGUE.replace("window: minute, value: 5", "window: minute, value: 0"))
    forbidden = gateway.post("/v1/quota/reserve", json=body())
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "forbidden")
    assert "retry-after" not in forbidden.headers


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"key_sha256": "0" * 64}, 401, "invalid_key"),
        ({"key_sha256": None}, 422, "missing_key"),
        ({"key_sha256": None, "tenant": "words"}, 422, "missing_key"),
        ({"model": "words"}, 404, "unknown_model"),
        ({"operation": "embedding"}, 422, "operation_not_offered"),
        ({"ttl_s": 0}, 400, "invalid_request"),
        ({"reservation": "two words"}, 400, "invalid_request"),
        ({"estimates": {"prompt_tokens": -1}}, 400, "invalid_request"),
    ],
)
def test_a_wrong_question_is_a_problem(gateway: TestClient, changes, status, code) -> None:
    answer = gateway.post("/v1/quota/reserve", json=body(**changes))
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert "words" not in answer.text


def test_agents_see_where_their_limits_stand_and_nobody_elses(gateway: TestClient, services) -> None:
    gateway.post("/v1/quota/reserve", json=body())
    alice = add_agent(services, "dinum", "manager")[1]
    stranger = add_agent(services, "sante", "manager")[1]
    asked = {"model": "small", "user": "alice", "tenant": "dinum"}
    seen = gateway.get("/v1/limits", params=asked, headers={"Authorization": f"Bearer {alice}"}).json()
    assert [limit["held"] for limit in seen["limits"] if limit["window"] == "day"] == [110]
    other = gateway.get("/v1/limits", params=asked, headers={"Authorization": f"Bearer {stranger}"}).json()
    assert other["tenant"] == "sante"
    assert all(limit["held"] == 0 for limit in other["limits"])


def test_an_operation_that_the_model_does_not_offer_holds_nothing(gateway: TestClient, services) -> None:
    refused = gateway.post("/v1/quota/reserve", json=body(operation="rerank"))
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["field"], problem["expected"]) == (
        422, "operation_not_offered", "operation", "chat",
    )  # fmt: skip
    assert (
        gateway.post("/v1/quota/check", json={"key_sha256": DIGEST, "model": "small", "operation": "rerank"}).json()[
            "code"
        ]
        == "operation_not_offered"
    )
    assert held(gateway)["day"] == 0
    boss = add_agent(services, "dinum", "manager")[1]
    seen = gateway.get("/v1/limits", params={"model": "small"}, headers={"Authorization": f"Bearer {boss}"})
    assert seen.status_code == 200  # of the first operation that the model offers


def listed(gateway: TestClient, token: str | None = None, **params) -> list[dict]:
    """Open holds, page by page."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    found, after = [], None
    while True:
        answer = gateway.get("/v1/reservations", params=params | ({"after": after} if after else {}), headers=headers)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        after = page["next_after"]
        if after is None:
            return found


def test_open_holds_are_listed_with_what_they_hold(gateway: TestClient) -> None:
    asked = body(estimates={"prompt_tokens": 10, "max_output_tokens": 100}, ttl_s=90)
    gateway.post("/v1/quota/reserve", json=asked)
    who = {"key_sha256": DIGEST, "model": "small", "reservation": asked["reservation"]}
    gateway.post("/v1/quota/extend", json=who | {"output_tokens_total": 150, "ttl_s": 90})
    (hold,) = listed(gateway, tenant="dinum")
    opened, expires = (datetime.fromisoformat(hold.pop(name)) for name in ("opened_at", "expires_at"))
    assert opened.tzinfo is not None
    assert timedelta(seconds=90) <= expires - opened < timedelta(seconds=95)
    day = {"scope": "user", "subject": "alice", "selector": "model:small", "meter": "total_tokens", "unit": "token",
           "window": "day", "held": 160}  # fmt: skip
    assert day in hold["held"]
    everybody = {"scope": "tenant", "subject": None, "selector": "*"}
    assert day | everybody | {"window": "month"} in hold["held"]
    assert {(one["meter"], one["held"]) for one in hold.pop("held")} == {
        ("requests", 1), ("total_tokens", 160), ("concurrent_requests", 1),
    }  # fmt: skip
    assert hold == {
        "reservation": asked["reservation"], "state": "open", "project": None, "user": "alice", "api_key": "k-alice",
        "model": "small", "operation": "chat", "granted_output_tokens": 150,
    }  # fmt: skip
    commit = {name: asked[name] for name in ("reservation", "key_sha256", "model")} | {"quantities": {}}
    gateway.post("/v1/quota/commit", json=commit)
    assert listed(gateway, tenant="dinum") == []


def test_pages_of_holds_have_each_once_in_the_order_of_their_ends(gateway: TestClient, services, monkeypatch) -> None:
    declare(services, CATALOGUE.replace("value: 5}", "value: 50}").replace("value: 3}", "value: 50}"))
    for number in range(12):
        asked = {"reservation": f"o-{number}", "tenant": "dinum", "user": f"u{number % 2}", "model": "small",
                 "ttl_s": 60 + number * 7 % 12}  # fmt: skip
        assert gateway.post("/v1/quota/reserve", json=asked).status_code == 200
    gateway.post("/v1/quota/release", json={"reservation": "o-5", "tenant": "dinum"})
    whole = listed(gateway, tenant="dinum")
    assert sorted(hold["reservation"] for hold in whole) == sorted(f"o-{n}" for n in range(12) if n != 5)
    assert [hold["expires_at"] for hold in whole] == sorted(hold["expires_at"] for hold in whole)
    monkeypatch.setattr(service, "LOOKED_AT", 2)
    monkeypatch.setattr(service, "LOOKS_MAX", 3)
    for limit in (1, 4, 11, 1000):
        assert listed(gateway, tenant="dinum", limit=limit) == whole
    member = add_agent(services, "dinum", "member", "u1")[1]
    assert listed(gateway, member, limit=2) == [hold for hold in whole if hold["user"] == "u1"]


def test_holds_are_shown_to_whom_they_concern(gateway: TestClient, services) -> None:
    gateway.post("/v1/quota/reserve", json=body())
    tokens = {
        "boss": add_agent(services, "dinum", "manager")[1], "colleague": add_agent(services, "dinum", "member")[1],
        "stranger": add_agent(services, "sante", "manager")[1], "operator": add_token(services.engine, "o", "operator"),
    }  # fmt: skip
    for who, tenant, count in (("boss", None, 1), ("boss", "dinum", 1), ("colleague", None, 0), ("stranger", None, 0),
                               ("operator", "dinum", 1), ("operator", "sante", 0)):  # fmt: skip
        assert len(listed(gateway, tokens[who], **({"tenant": tenant} if tenant else {}))) == count, who
    for who, params, status, code in (
        ("stranger", {"tenant": "dinum"}, 403, "not_yours"), ("operator", {}, 422, "missing_tenant"),
        ("operator", {"tenant": "words"}, 404, "unknown_tenant"), ("boss", {"after": "words"}, 400, "invalid_request"),
        ("boss", {"limit": 0}, 400, "invalid_request"),
    ):  # fmt: skip
        answer = gateway.get("/v1/reservations", params=params, headers={"Authorization": f"Bearer {tokens[who]}"})
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert "words" not in answer.text


@pytest.fixture
def command(settings, monkeypatch) -> Iterator[Callable[..., Result]]:
    """`jauge reservations` on the stores of the test."""
    monkeypatch.setenv("JAUGE_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("JAUGE_REDIS_URL", settings.redis_url.get_secret_value())
    get_settings.cache_clear()
    yield lambda *words: CliRunner().invoke(main, ["reservations", *words])
    get_settings.cache_clear()


def test_the_command_lists_open_holds(gateway: TestClient, command) -> None:
    for number in range(2):
        gateway.post("/v1/quota/reserve", json=body(reservation=f"c-{number}", ttl_s=60 + number))
    assert "alice" in command("dinum").stdout
    first = command("dinum", "--limit", "1")
    assert ("c-0" in first.stdout, "c-1" in first.stdout) == (True, False)
    after = first.stderr.split("--after ")[1].strip()
    (rest,) = json.loads(command("dinum", "--after", after, "--json").stdout)["items"]
    assert (rest["reservation"], rest["user"], rest["held"][0]["held"]) == ("c-1", "alice", 1)
    for words, code in ((("nobody",), "unknown_tenant"), (("dinum", "--after", "words"), "invalid_position")):
        refused = command(*words)
        assert (refused.exit_code, code in refused.stderr, "words" in refused.stderr) == (1, True, False)

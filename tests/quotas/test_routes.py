"""The gateway's question over HTTP."""

import hashlib
import itertools

import pytest
from litestar.testing import TestClient

from metering.app import create_app
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.tables import api_key, platform
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
    with client_with(create_app(services), add_token(services.engine, "gateway", "gateway")) as client:
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
        assert gateway.post("/v1/quota/commit", json=commit).json() == {"status": "ok"}
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
    more = gateway.post("/v1/quota/extend", json=who | {"more_output_tokens": 5_000})
    assert more.json()["granted"] == {"max_output_tokens": 890}
    assert gateway.post("/v1/quota/release", json={"reservation": asked["reservation"], "tenant": "dinum"}).is_success
    late = gateway.post("/v1/quota/extend", json=who)
    assert (late.status_code, late.json()["code"]) == (404, "unknown_reservation")
    checked = gateway.post("/v1/quota/check", json={"key_sha256": DIGEST, "model": "small"}).json()
    assert [limit["held"] for limit in checked["limits"]] == [0, 0, 0, 0]


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

"""The short way says what the long one says."""

import socket
import threading

import httpx
import pytest
import uvicorn

from metering.app import create_app
from metering.catalog.tokens import add_token
from metering.quotas import door
from metering.quotas.door import with_door
from tests.people import add_agent
from tests.quotas.conftest import CATALOGUE, declare

ASKED = {
    "reservation": "r-1", "tenant": "dinum", "user": "alice", "model": "small",
    "estimates": {"prompt_tokens": 10, "max_output_tokens": 100},
}  # fmt: skip
MUCH = b'{"prompt_tokens": 9999}'


@pytest.fixture
def ways(services):
    """Addresses of one application: the short way in front of it, and without."""
    declare(services, CATALOGUE)
    app = create_app(services)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    servers = [
        uvicorn.Server(uvicorn.Config(with_door(app), log_config=None, lifespan="on")),
        uvicorn.Server(uvicorn.Config(create_app(services), log_config=None, lifespan="on")),
    ]
    threads = [
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        for server, listener in zip(servers, listeners, strict=True)
    ]
    for thread in threads:
        thread.start()
    urls = [f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
    with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as client:
        assert all(client.get(f"{url}/healthz").is_success for url in urls)
    token = add_token(services.engine, "gateway", "gateway")
    services.catalog.refresh()
    yield [httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) for url in urls]
    for server in servers:
        server.should_exit = True
    for thread in threads:
        thread.join(20)


def told(answer: httpx.Response) -> tuple:
    """What an answer says, without what belongs to its moment."""
    apart = {"date", "x-request-id", "content-length", "x-ratelimit-reset-tokens", "retry-after"}
    body = {name: it for name, it in answer.json().items() if name not in {"expires_at", "request_id", "headers"}}
    return answer.status_code, {name: it for name, it in answer.headers.items() if name not in apart}, body


def test_a_question_that_is_admitted_is_answered_the_same(ways) -> None:
    short, long = ways
    first = short.post("/v1/quota/reserve", json=ASKED)
    assert first.status_code == 200
    assert len(first.headers["x-request-id"]) == 32
    assert told(first) == told(long.post("/v1/quota/reserve", json=ASKED))


def test_it_takes_the_short_way_only_when_all_is_in_order(ways, services, monkeypatch) -> None:
    short, _long = ways
    answered = []
    real = door.answer_reserve

    async def seen(state, data):
        answered.append(data.reservation)
        return await real(state, data)

    monkeypatch.setattr(door, "answer_reserve", seen)
    short.post("/v1/quota/reserve", json=ASKED)
    agent = add_agent(services, "dinum", "manager")[1]
    services.catalog.refresh()
    for headers in ({"Authorization": "Bearer words"}, {"Authorization": ""}, {"Authorization": f"Bearer {agent}"}):
        assert short.post("/v1/quota/reserve", json=ASKED, headers=headers).status_code in {401, 403}
    assert answered == ["r-1"]


ASKED_AMISS = [
    (b"", 400),
    (b"words", 400),
    (b'{"words": 1}', 400),
    (b'{"reservation": "r-9", "tenant": "words", "model": "small"}', 422),
    (b'{"reservation": "r-9", "tenant": "dinum", "model": "words"}', 404),
    (b'{"reservation": "r-9", "tenant": "dinum", "user": "a", "model": "small", "estimates": %s}' % MUCH, 429),
    (b'{"reservation": "r-9", "tenant": "dinum", "model": "small"' + b" " * 20_000 + b"}", 200),
]


def test_what_is_not_in_order_is_answered_by_the_long_way(ways) -> None:
    headers = {"Content-Type": "application/json"}
    for body, status in ASKED_AMISS:
        answers = [way.post("/v1/quota/reserve", content=body, headers=headers) for way in ways]
        assert [answer.status_code for answer in answers] == [status, status], body
        assert told(answers[0]) == told(answers[1])
        assert "words" not in answers[0].text


def test_other_paths_and_methods_pass(ways) -> None:
    short, _long = ways
    assert short.get("/v1/quota/reserve").status_code == 405
    assert short.get("/readyz").json() == {"status": "ready"}

"""Who may call what, and that every error is a problem which never quotes the request."""

import base64
import re
import time
from dataclasses import replace

import httpx
import msgspec
import pytest
import structlog

from metering.app import create_app
from metering.catalog.tokens import add_token, list_tokens, revoke_token
from metering.events.envelope import EnergyEvent, UsageEvent
from metering.web import BODY_BYTES_MAX
from tests.applications import application
from tests.http.conftest import client_with

PERIOD = {"start": "2026-10-01", "end": "2026-11-01"}
OPERATOR_ROUTES = [
    ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01"),
    ("GET", "/v1/quarantine"),
    ("POST", "/v1/quarantine/replay"),
    ("POST", "/v1/quarantine/dismiss"),
    ("POST", "/v1/corrections"),
    ("POST", "/v1/voids"),
]


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_a_caller_without_a_valid_token_is_unauthorized_everywhere(services) -> None:
    refused = [
        {}, {"Authorization": "Bearer words"}, {"Authorization": "Bearer"}, {"Authorization": "words"},
        {"Authorization": "Basic words"}, {"Authorization": "Digest words"}, basic("", "words"), basic("words", ""),
    ]  # fmt: skip
    with client_with(application(services)) as client:
        for method, path in [("POST", "/v1/events"), *OPERATOR_ROUTES]:
            for headers in refused:
                answer = client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
                assert answer.status_code == 401, (method, path, headers)
                assert answer.headers["www-authenticate"].startswith("Basic realm=")
                assert answer.headers["content-type"] == "application/problem+json"
                assert "words" not in answer.text


def test_a_gateway_may_only_record_and_an_operator_everything(api, make_event) -> None:
    with api.client() as gateway, api.client(api.operator_token) as operator:
        for method, path in OPERATOR_ROUTES:
            answer = gateway.request(method, path, json={} if method == "POST" else None)
            assert (answer.status_code, answer.json()["code"]) == (403, "wrong_role"), path
            assert operator.request(method, path, json={} if method == "POST" else None).status_code in {200, 400}, path
        assert operator.post("/v1/events", json=make_event()).status_code == 200


def test_a_browser_may_give_the_token_as_password(api) -> None:
    assert httpx.get(f"{api.url}/v1/usage", params=PERIOD, headers=basic("anyone", api.operator_token)).is_success


def test_a_browsers_password_changes_nothing(operator) -> None:
    """Another site's page can make a browser send it, as a form whose body is text."""
    token = operator.headers["Authorization"].removeprefix("Bearer ")
    sent = basic("anyone", token) | {"Content-Type": "text/plain"}
    before = operator.get("/v1/admin/catalog").text
    for path, content in [
        ("/v1/admin/catalog", "plans:\n- {id: words, name: Words}\n"),
        ("/v1/tenants/dinum/invitations", '{"name": "N", "email": "n@example.fr", "role": "manager"}'),
    ]:
        answer = operator.post(path, content=content, headers=sent)
        assert (answer.status_code, answer.json()["code"]) == (401, "bearer_needed")
    assert operator.get("/v1/admin/catalog", headers=basic("anyone", token)).text == before
    assert operator.get("/v1/admin/access-requests").json()["items"] == []


def test_bodies_of_agents_and_visitors_are_small(operator) -> None:
    for path in ("/v1/access-requests", "/v1/activations", "/v1/tenants/dinum/projects", "/v1/admin/webhooks"):
        answer = operator.post(path, json={"id": "words" * BODY_BYTES_MAX})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large"), path


def test_a_revoked_token_is_refused_within_a_second(api, services, make_event) -> None:
    secret = add_token(services.engine, "old-gateway", "gateway")
    assert secret not in repr(list_tokens(services.engine))
    with api.client(secret) as client:
        assert client.post("/v1/events", json=make_event()).status_code == 200
        revoke_token(services.engine, "old-gateway")
        deadline = time.monotonic() + 1
        while (answer := client.post("/v1/events", json=make_event())).status_code == 200:
            assert time.monotonic() < deadline
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


def test_reading_can_be_opened_and_nothing_else(services) -> None:
    opened = services.settings.model_copy(update={"read_access": "open"})
    with client_with(create_app(replace(services, settings=opened))) as client:
        assert client.get("/v1/usage", params=PERIOD).status_code == 200
        for method, path in [("POST", "/v1/events"), *OPERATOR_ROUTES[1:]]:
            assert client.request(method, path).status_code == 401, path


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "field"),
    [
        ("GET", "/words", 404, "not_found", None),
        ("GET", "/docs/assets/words", 404, "not_found", None),
        ("GET", "/v1/events", 405, "method_not_allowed", None),
        ("DELETE", "/v1/usage", 405, "method_not_allowed", None),
        ("GET", "/v1/usage?start=2026-10-01", 400, "invalid_request", "end"),
        ("GET", "/v1/usage?start=words&end=2026-10-01", 422, "invalid_time", "start"),
        (
            "GET",
            "/v1/usage?start=0001-01-01T00:00:00Z&end=2026-10-01&tz=America/New_York",
            422,
            "invalid_time",
            "start",
        ),
        ("GET", "/v1/usage?start=2026-10-01&end=9999-12-31T23:59:59Z&tz=Asia/Tokyo", 422, "invalid_time", "end"),
        ("GET", "/v1/usage?start=2026-11-01&end=2026-10-01", 422, "empty_period", "end"),
        ("GET", "/v1/usage?start=2020-01-01&end=2026-10-01&bucket=hour", 422, "period_too_long", "end"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&limit=words", 400, "invalid_request", "limit"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&limit=10001", 400, "invalid_request", "limit"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&cursor=-1", 400, "invalid_request", "cursor"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&format=words", 400, "invalid_request", "format"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&bucket=words", 422, "unknown_value", "bucket"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&group_by=words", 422, "unknown_value", "group_by"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&as_of=words", 422, "out_of_range", "as_of"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&tz=words", 422, "unknown_value", "tz"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&tz=localtime", 422, "unknown_value", "tz"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&tz=posix/Europe/Paris", 422, "unknown_value", "tz"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&tz=../Europe/Paris", 422, "unknown_value", "tz"),
        ("GET", "/v1/usage?start=2026-10-01&end=2026-11-01&tenant=words%00", 422, "unknown_value", "tenant"),
        ("GET", "/v1/quarantine?after=words", 400, "invalid_request", "after"),
        ("GET", f"/v1/quarantine?after={10**20}", 400, "invalid_request", "after"),
    ],
)
def test_a_request_against_a_rule_is_a_problem_that_names_the_field_only(
    method, path, status, code, field, standing
) -> None:
    answer = standing.request(method, path)
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"], problem.get("field")) == (
        status,
        status,
        code,
        field,
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "words" not in answer.text
    assert (status != 405) or answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/corrections", b"words{"),
        ("/v1/corrections", b""),
        ("/v1/corrections", b"[" * 100_000),
        ("/v1/corrections", b'{"source": "test", "words": 1}'),
        ("/v1/corrections", b'{"source": "s", "id": "i", "reason": "r", "author": "a", "quantities": "words"}'),
        ("/v1/voids", b'{"source": 1}'),
        ("/v1/quarantine/replay", b'{"numbers": ["words"]}'),
        ("/v1/quarantine/replay", b'{"numbers": [99999999999999999999999999]}'),
        ("/v1/quarantine/replay", b'{"changes": {"words": "words"}}'),
        ("/v1/quarantine/replay", b'{"words": 1}'),
        ("/v1/quarantine/dismiss", b'{"numbers": [], "reason": "words"}'),
        ("/v1/quarantine/dismiss", b'{"numbers": [1], "reason": "  "}'),
        ("/v1/quarantine/dismiss", b'{"numbers": [1], "words": "words"}'),
    ],
)  # fmt: skip
def test_a_body_of_another_form_is_a_problem_without_its_words(path, body, standing) -> None:
    answer = standing.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "words" not in answer.text


def test_a_fault_of_ours_shows_and_logs_no_value(services, monkeypatch) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("words of the request")

    monkeypatch.setattr("reports.api.parse_question", fail)
    opened = services.settings.model_copy(update={"read_access": "open"})
    with (
        client_with(create_app(replace(services, settings=opened))) as client,
        structlog.testing.capture_logs() as logs,
    ):
        answer = client.get("/v1/usage", params=PERIOD)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    fault = next(line for line in logs if line["event"] == "fault")
    assert (fault["error"], fault["where"][-1].split()[-1]) == ("RuntimeError", "fail")
    assert "words" not in answer.text + repr(logs)


def test_requests_are_logged_by_route_without_what_the_caller_wrote(services) -> None:
    with client_with(application(services)) as client, structlog.testing.capture_logs() as logs:
        client.get("/v1/usage", params={"tenant": "words"})
        client.get("/words")
        client.post("/v1/events", content=b"words", headers={"Authorization": "Bearer words"})
    assert [(line["path"], line["status"]) for line in logs] == [
        ("/v1/usage", 401),
        ("(none)", 404),
        ("/v1/events", 401),
    ]
    assert "words" not in repr(logs)


def test_health_and_metrics_need_no_token(api, make_event) -> None:
    with api.client() as client:
        client.post("/v1/events", json=[make_event(), make_event(prompt="words")])
    with httpx.Client(base_url=api.url) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ready"}
        metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'jauge_events_total{channel="http",outcome="rejected"}' in metrics.text
    assert "jauge_ledger_waiting_events 0.0" in metrics.text


def test_the_documentation_page_loads_nothing_from_elsewhere(standing) -> None:
    page = standing.get("/docs").text
    assert not re.findall(r"https?://|[\"'(]//", page)
    for path in re.findall(r'(?:src|href)="([^"]+)"', page):
        asset = standing.get(path)
        assert asset.status_code == 200, path
        if path.endswith(".css"):
            assert not re.findall(r"url\(['\"]?(?:https?:)?//", asset.text)


def test_the_document_of_the_interface_describes_the_event_as_it_is_validated(standing) -> None:
    document = standing.get("/docs/openapi.json").json()
    described = document["paths"]["/v1/events"]["post"]["requestBody"]["content"]
    references, definitions = msgspec.json.schema_components((UsageEvent, EnergyEvent), ref_template="{name}")

    def plain(schema: object) -> object:
        if isinstance(schema, dict):
            if "$ref" in schema:
                return plain(definitions[schema["$ref"]])
            # A default of null says nothing more than that the field is optional.
            return {name: plain(value) for name, value in schema.items() if (name, value) != ("default", None)}
        return schema

    event = {"oneOf": [plain(reference) for reference in references]}
    assert described["application/cloudevents+json"]["schema"] == event
    assert described["application/cloudevents-batch+json"]["schema"]["items"] == event
    assert {"application/json", "application/x-ndjson"} <= described.keys()

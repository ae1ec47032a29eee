"""Nobody reaches another administration: every route of the document × every role × the other one's ids."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from litestar import Litestar
from litestar.testing import TestClient
from schemathesis import openapi

from metering.app import create_app
from metering.catalog.tokens import add_token
from metering.services import Services
from tests.marked import MARK, mark_tenant, rows_of
from tests.people import add_agent

OTHER = "sante"
OWN = "dinum"
PATH_VALUES = {
    "tenant": OTHER, "account": f"u-{MARK}", "key": f"k-{MARK}", "project": f"p-{MARK}", "webhook": f"w-{MARK}",
    "override": f"o-{MARK}", "request": f"r-{MARK}", "name": f"t-{MARK}", "number": "1",
}  # fmt: skip
"""Ids of the other administration, by the name of the parameter."""
OPEN = {"/healthz", "/readyz", "/metrics", "/v1/terms", "/v1/access-requests", "/v1/activations"}
"""Routes without a caller."""
OF_GATEWAYS = {"/v1/events", "/v1/gateway/resolve"}
"""Routes by which a gateway speaks of every administration."""
BODIES = 3


@pytest.fixture
def client(services: Services, make_event) -> Any:
    mark_tenant(services, OTHER, make_event)
    with TestClient(create_app(services)) as opened:
        yield opened


def operations_of(client: TestClient[Litestar]) -> list[tuple[str, str, dict[str, Any]]]:
    paths = client.get("/docs/openapi.json").json()["paths"]
    return [(path, method, one) for path, methods in paths.items() for method, one in methods.items()]


def filled(path: str, operation: dict[str, Any]) -> str:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(PATH_VALUES.get(parameter["name"], f"x-{MARK}")))
    assert "{" not in path, path
    return path


def bodies_of(client: TestClient[Litestar], path: str, method: str) -> list[Any]:
    """Some bodies that the document allows for an operation; [None] where it takes none."""
    operation = openapi.from_dict(client.get("/docs/openapi.json").json())[path][method.upper()]
    if not operation.body:
        return [None]
    bodies: list[Any] = []

    @settings(max_examples=BODIES, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def collect(case: Any) -> None:
        bodies.append(case.body)

    collect()
    return bodies[:BODIES]


def ask(client: TestClient[Litestar], path: str, method: str, body: Any, token: str | None, query: Any = None) -> Any:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    if content is not None:
        headers["Content-Type"] = "application/json"
    return client.request(method.upper(), path, headers=headers, content=content, params=query)


def test_every_route_is_closed_to_the_agents_of_another_administration(
    client: TestClient[Litestar], services: Services
) -> None:
    before = rows_of(services, OTHER)
    for path, method, operation in operations_of(client):
        if path in OPEN:
            continue
        for body in bodies_of(client, path, method):
            for role in ("manager", "member"):
                _account, token = add_agent(services, OWN, role)
                answer = ask(client, filled(path, operation), method, body, token)
                place = (method, path, role, answer.status_code, answer.text[:200])
                assert MARK not in answer.text, place
                assert answer.status_code < 500, place
                if "/v1/admin/" in path or path in OF_GATEWAYS:
                    assert answer.status_code == 403, place
                elif "{tenant}" in path:
                    # A body is read before anybody is asked about: what is wrong with it tells nothing.
                    assert answer.status_code in {400, 403, 404}, place
        assert rows_of(services, OTHER) == before, (method, path)


def test_every_filter_is_closed_to_the_agents_of_another_administration(
    client: TestClient[Litestar], services: Services
) -> None:
    for path, method, operation in operations_of(client):
        names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
        if method != "get" or path in OPEN or "{tenant}" in path:
            continue
        base = {"start": "2020-01-01", "end": "2027-01-01"} if "start" in names else {}
        for name in names:
            for role in ("manager", "member"):
                _account, token = add_agent(services, OWN, role)
                value = PATH_VALUES.get(name) or {"user": f"u-{MARK}", "api_key": f"k-{MARK}"}.get(name, f"x-{MARK}")
                answer = ask(client, filled(path, operation), method, None, token, base | {name: value})
                assert MARK not in answer.text, (path, name, role, answer.text[:300])
                assert answer.status_code < 500


def test_every_route_is_closed_to_those_without_a_token_and_to_gateways(
    client: TestClient[Litestar], services: Services
) -> None:
    gateway = add_token(services.engine, "gateway", "gateway")
    before = rows_of(services, OTHER)
    allowed = set()
    for path, method, operation in operations_of(client):
        if path in OPEN:
            continue
        for body in bodies_of(client, path, method)[:1]:
            answer = ask(client, filled(path, operation), method, body, None)
            assert answer.status_code in {400, 401}, (method, path, answer.text)
            assert MARK not in answer.text
            answer = ask(client, filled(path, operation), method, body, gateway)
            if answer.status_code not in {401, 403}:
                allowed.add(path)
    assert allowed <= OF_GATEWAYS | {"/v1/models", "/v1/models/{name}", "/v1/notices"}
    assert rows_of(services, OTHER) == before


def test_usage_of_another_administration_is_nobodys_but_its_own(
    client: TestClient[Litestar], services: Services
) -> None:
    period = {"start": "2026-10-01", "end": "2026-11-01", "group_by": "tenant,user,model"}
    for role, status in (("manager", 200), ("member", 200)):
        _account, token = add_agent(services, OWN, role)
        assert ask(client, "/v1/usage", "get", None, token, period).json()["items"] == []
        for as_of in (None, "1"):
            asked = period | {"tenant": OTHER} | ({"as_of": as_of} if as_of else {})
            refused = ask(client, "/v1/usage", "get", None, token, asked)
            assert (refused.status_code, refused.json()["code"]) == (403, "not_yours")
        assert ask(client, "/", "get", None, token).status_code == status
        assert MARK not in ask(client, "/", "get", None, token, {"from": "2026-10-01", "to": "2026-10-31"}).text
    _account, theirs = add_agent(services, OTHER, "manager")
    assert [row["user"] for row in ask(client, "/v1/usage", "get", None, theirs, period).json()["items"]] == [
        f"u-{MARK}"
    ]
    _account, colleague = add_agent(services, OTHER, "member")
    assert ask(client, "/v1/usage", "get", None, colleague, period).json()["items"] == []

"""Nobody reaches another administration: every route of the document × every role × the other one's ids."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from litestar import Litestar
from litestar.testing import TestClient
from schemathesis import openapi

from metering.catalog.tokens import add_token
from metering.rules.chain import identity_of
from metering.services import Services
from tests.applications import application
from tests.marked import MARK, mark_tenant, rows_of
from tests.people import add_agent

OTHER = "sante"
OWN = "dinum"
PATH_VALUES = {
    "tenant": OTHER, "account": f"u-{MARK}", "key": f"k-{MARK}", "project": f"p-{MARK}", "webhook": f"w-{MARK}",
    "number": "1", "request_id": f"a-{MARK}", "hold": f"h-{MARK}", "event": MARK, "document": f"F-{MARK}",
    "month": "2026-09", "file": "pdf", "source": MARK, "day": "2026-10-05",
    "export": f"x-{MARK}",
}  # fmt: skip
"""Ids of the other administration, by the name of the parameter."""
NAMED_VALUES = {
    "/v1/tenants/{tenant}/limit-requests/{id}": f"r-{MARK}",
    "/v1/admin/limit-requests/{id}/decision": f"r-{MARK}",
    "/v1/admin/tenants/{tenant}/overrides/{id}": f"o-{MARK}",
    "/v1/me/tokens/{name}": f"t-{MARK}",
    "/v1/admin/tokens/{name}": f"t-{MARK}",
    "/v1/models/{name}": f"m-{MARK}",
    "/v1/requests/{id}": identity_of("test", MARK).hex(),
    "/v1/organization/usage/{kind}": "completions",
    "/v1/conventions/{convention}/envelope": f"c-{MARK}",
}
"""The same, where a parameter's name doesn't say what it is of."""
OPEN = {"/healthz", "/readyz", "/metrics", "/v1/terms", "/v1/access-requests", "/v1/activations"}
"""Routes without a caller."""
OF_GATEWAYS = {
    "/v1/events", "/v1/gateway/resolve", "/v1/quota/check", "/v1/quota/reserve", "/v1/quota/extend",
    "/v1/quota/commit", "/v1/quota/release", "/v1/reconciliation/{source}/{day}",
}  # fmt: skip
"""Routes by which a gateway speaks of every administration."""
BODIES = 3
CHANGES = {
    "/v1/tenants/{tenant}/accounts/{account}": {"role": "manager"},
    "/v1/tenants/{tenant}/accounts/{account}/suspension": {"reason": "r"},
    "/v1/tenants/{tenant}/projects/{project}": {"name": "N"},
    "/v1/tenants/{tenant}/keys/{key}": {"name": "N"},
}
"""A body that is right, for routes of one thing of an administration."""


@pytest.fixture
def client(services: Services) -> Any:
    mark_tenant(services, OTHER)
    with TestClient(application(services)) as opened:
        yield opened


def operations_of(client: TestClient[Litestar]) -> list[tuple[str, str, dict[str, Any]]]:
    paths = client.get("/docs/openapi.json").json()["paths"]
    return [(path, method, one) for path, methods in paths.items() for method, one in methods.items()]


def filled(path: str, operation: dict[str, Any]) -> str:
    """A path with ids of the other administration; a parameter that isn't known here is a mistake of this test."""
    answer = path
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            value = PATH_VALUES.get(parameter["name"]) or NAMED_VALUES[path]
            answer = answer.replace(f"{{{parameter['name']}}}", quote(value))
    assert "{" not in answer, answer
    return answer


def bodies_of(document: Any, path: str, method: str) -> list[Any]:
    """Some bodies that the document allows for an operation; [None] where it takes none."""
    operation = document[path][method.upper()]
    if not operation.body:
        return [None]
    bodies: list[Any] = []

    @seed(1)
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
    document = openapi.from_dict(client.get("/docs/openapi.json").json())
    for path, method, operation in operations_of(client):
        if path in OPEN:
            continue
        for body in bodies_of(document, path, method):
            for role in ("manager", "member"):
                _account, token = add_agent(services, OWN, role)  # another one each time: some routes end it
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


def test_the_ids_of_the_other_administration_are_right_for_its_own_manager(
    client: TestClient[Litestar], services: Services
) -> None:
    """So that 404 for others means that they are kept out, and not that there is no such thing."""
    _account, own = add_agent(services, OTHER, "manager")
    _account, others = add_agent(services, OWN, "manager")
    asked = set()
    for path, method, operation in operations_of(client):
        if method != "get" or "{tenant}" not in path or "/v1/admin/" in path:
            continue
        asked.add(path)
        answer = ask(client, filled(path, operation), method, None, own)
        assert answer.status_code == 200, (path, answer.text)
        # Under one's own administration, too, the id leads nowhere; of lists, what is there is one's own.
        inside = filled(path, operation).replace(f"/{OTHER}/", f"/{OWN}/")
        refused = ask(client, inside, method, None, others)
        assert refused.status_code == (404 if path.endswith("}") else 200), (path, refused.text)
        assert MARK not in refused.text
    assert len(asked) > 5


def test_ids_of_another_administration_lead_nowhere_under_ones_own(
    client: TestClient[Litestar], services: Services
) -> None:
    _account, token = add_agent(services, OWN, "manager")
    before = rows_of(services, OTHER)
    for path, method, operation in operations_of(client):
        if method != "get" and path.startswith("/v1/tenants/{tenant}/") and path.count("{") > 1:
            inside = filled(path, operation).replace(f"/{OTHER}/", f"/{OWN}/")
            body = CHANGES[path] if "requestBody" in operation else None
            answer = ask(client, inside, method, body, token)
            assert answer.status_code == 404, (method, path, answer.text)
    assert rows_of(services, OTHER) == before


def test_bodies_that_name_what_is_anothers_are_refused(client: TestClient[Litestar], services: Services) -> None:
    _account, token = add_agent(services, OWN, "manager")
    assert ask(client, "/v1/me/acceptances", "post", {"document": "terms", "version": "1"}, token).status_code == 200
    before = rows_of(services, OTHER)
    limit = {"selector": "model:*", "meter": "requests", "window": "day", "value": 10**9}
    bodies: list[tuple[str, dict[str, Any], str]] = [
        ("keys", {"name": "k", "project": f"p-{MARK}"}, "unknown_project"),
        ("keys", {"name": "k", "account": f"u-{MARK}"}, "invalid_request"),
        ("keys", {"name": "k", "tenant": OTHER}, "invalid_request"),
        ("projects", {"id": "p", "name": "P", "tenant": OTHER}, "invalid_request"),
        ("invitations", {"name": "N", "email": "n@example.fr", "tenant": OTHER}, "invalid_request"),
        ("limit-requests", {"limit": limit | {"scope": "user"}, "subject": f"u-{MARK}", "motive": "m"},
         "unknown_subject"),
        ("limit-requests", {"limit": limit | {"scope": "key"}, "subject": f"k-{MARK}", "motive": "m"},
         "unknown_subject"),
    ]  # fmt: skip
    for path, body, code in bodies:
        answer = ask(client, f"/v1/tenants/{OWN}/{path}", "post", body, token)
        assert (answer.status_code in {400, 422}, answer.json()["code"]) == (True, code), (path, answer.text)
        assert MARK not in answer.text
    assert rows_of(services, OTHER) == before


def test_every_filter_is_closed_to_the_agents_of_another_administration(
    client: TestClient[Litestar], services: Services
) -> None:
    for path, method, operation in operations_of(client):
        names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
        if method != "get" or path in OPEN or "{tenant}" in path:
            continue
        base: dict[str, Any] = {"start": "2020-01-01", "end": "2027-01-01"} if "start" in names else {}
        base |= {"start_time": 1_700_000_000, "end_time": 1_800_000_000} if "start_time" in names else {}
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
    document = openapi.from_dict(client.get("/docs/openapi.json").json())
    allowed = set()
    for path, method, operation in operations_of(client):
        if path in OPEN:
            continue
        for body in bodies_of(document, path, method)[:1]:
            answer = ask(client, filled(path, operation), method, body, None)
            assert answer.status_code in {400, 401}, (method, path, answer.text)
            assert MARK not in answer.text
            answer = ask(client, filled(path, operation), method, body, gateway)
            if answer.status_code not in {401, 403}:
                allowed.add(path)
    assert allowed <= OF_GATEWAYS | {"/v1/models", "/v1/models/{name}", "/v1/notices", "/v1/reservations"}
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
        assert ask(client, "/usage", "get", None, token).status_code == status
        assert MARK not in ask(client, "/usage", "get", None, token, {"from": "2026-10-01", "to": "2026-10-31"}).text
    _account, theirs = add_agent(services, OTHER, "manager")
    assert [row["user"] for row in ask(client, "/v1/usage", "get", None, theirs, period).json()["items"]] == [
        f"u-{MARK}"
    ]
    _account, colleague = add_agent(services, OTHER, "member")
    assert ask(client, "/v1/usage", "get", None, colleague, period).json()["items"] == []

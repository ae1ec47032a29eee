"""The pages about the catalogue say what is true: their file applies, their calls answer, their roles hold."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import yaml

from metering.catalog.apply import apply, compare, export, read_file
from metering.catalog.kinds import KINDS
from metering.catalog.terms import accept
from metering.database import transaction
from metering.identity import Principal
from metering.rules.limits import METERS, MODES, SCOPES, WINDOWS
from metering.services import Services
from metering.tables import access_request
from tests.conftest import Api
from tests.people import add_agent

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "catalogue.md").read_text()
GATEWAYS = (DOCS / "gateway-integration.md").read_text()
ROLES = ("gateway", "operator", "manager", "member")
ANYWHERE = re.compile(r"\{[a-z]+\}")

Call = tuple[list[str], Any]
"""Arguments of curl, and the answer shown below it; None: nothing is shown."""


def file_of_the_page() -> bytes:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    return block.encode()


@pytest.fixture
def catalogue(services: Services) -> Services:
    """The file of the page, applied."""
    with transaction(services.engine) as connection:
        assert apply(connection, read_file(file_of_the_page()))
    services.catalog.refresh()
    return services


# The file


def test_the_file_of_the_page_has_every_kind_and_applies(catalogue: Services) -> None:
    assert list(yaml.safe_load(file_of_the_page())) == list(KINDS)
    with transaction(catalogue.engine) as connection:
        assert compare(connection, read_file(file_of_the_page())) == []
        assert compare(connection, read_file(export(connection).encode())) == []


def test_what_a_limit_may_say_is_listed() -> None:
    section = PAGE.partition("## Limits")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_0-9]+)`", section))
    assert {*SCOPES, *METERS, *WINDOWS, *MODES} <= named


# The calls


def calls_of(page: str) -> Iterator[Call]:
    """Calls of curl in the console blocks of a page, in order."""
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for shown in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            if shown.startswith("curl "):
                command, brace, answer = shown.partition("\n{")
                yield shlex.split(command.replace("\\\n", " ")), json.loads(brace + answer) if brace else None


def send(api: Api, arguments: list[str], known: dict[str, str]) -> httpx.Response:
    """Send what curl would."""
    method, headers, body, address = "", {}, None, ""
    rest = iter(Template(one).substitute(known) for one in arguments[1:])
    for one in rest:
        if one == "-X":
            method = next(rest)
        elif one == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif one == "--json":
            body = json.loads(next(rest))
        elif one != "-i":
            address = one.replace("http://127.0.0.1:8321", api.url)
    return httpx.request(method or ("GET" if body is None else "POST"), address, headers=headers, json=body)


def assert_shown(shown: Any, answer: httpx.Response) -> None:
    """Whether an answer holds what the page shows of it; `…` stands for what differs each time."""
    if shown is None:
        assert answer.status_code == 204, answer.text
        return
    assert answer.is_success == ("code" not in shown), answer.text
    for name, value in shown.items():
        found = answer.json()[name]
        if isinstance(value, str) and value.endswith("…"):
            assert found.startswith(value.removesuffix("…"))
        else:
            assert found == value


def code_of(services: Services, request_id: str) -> str:
    """The code of the mail."""
    with transaction(services.engine) as connection:
        end = connection.scalar(sa.select(access_request.c.code_expires_at).where(access_request.c.id == request_id))
    assert end is not None
    return services.master_key.activation_code(request_id, end)


def test_the_life_of_an_account_goes_as_shown(api: Api, catalogue: Services) -> None:
    known = {"OPERATOR": api.operator_token}
    calls = list(calls_of(PAGE))
    for arguments, shown in calls:
        answer = send(api, arguments, known)
        assert_shown(shown, answer)
        if arguments[1].endswith("/v1/access-requests"):
            known["REQUEST"] = answer.json()["id"]
        elif arguments[1].endswith("/decision"):
            known["CODE"] = code_of(catalogue, known["REQUEST"])
        elif arguments[1].endswith("/v1/activations"):
            known |= {"MANAGER": answer.json()["token"], "ACCOUNT": answer.json()["account"]}
    assert len(calls) == 11


def test_a_gateway_is_answered_as_shown(api: Api, catalogue: Services) -> None:
    account, token = add_agent(catalogue, "culture", "manager")
    snapshot, boss = catalogue.catalog.refresh(), Principal("t", "manager", "culture", account)
    with transaction(catalogue.engine, actor=boss.actor) as connection:
        accept(connection, snapshot, boss, ("terms", "1"), snapshot.terms[0].enforced_at)
    with api.client(token) as client:
        made = client.post("/v1/tenants/culture/keys", json={"name": "Carnet", "project": "archives"}).json()
    known = {
        "OPERATOR": api.operator_token,
        "GATEWAY": api.gateway_token,
        "DIGEST": hashlib.sha256(made["secret"].encode()).hexdigest(),
    }
    imported, resolved = calls_of(GATEWAYS)
    assert_shown(imported[1], send(api, imported[0], known))
    answer = send(api, resolved[0], known)
    assert_shown(resolved[1], answer)
    headers = dict(re.findall(r"^\| `([A-Z][a-z]+): (.*?)` \|", GATEWAYS, re.MULTILINE))
    assert headers.keys() == {"Deprecation", "Sunset", "Link"}
    assert {name: answer.headers[name] for name in headers} == headers


# The roles


def rows_of_roles() -> Iterator[tuple[list[str], list[str]]]:
    """Routes of a row (`METHOD /path`), and the roles that may call them."""
    section = PAGE.partition("## Who may do what")[2].partition("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and "`" in cells[1]:
            yield re.findall(r"`(.+?)`", cells[1]), [r for r, said in zip(ROLES, cells[2:], strict=True) if said != "–"]


PAGES = {"/usage", "/carbon"}


def test_each_role_may_what_the_page_says(api: Api, catalogue: Services) -> None:
    served = httpx.get(f"{api.url}/docs/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in served.items() for method in methods}
    said = {route: roles for shown, roles in rows_of_roles() for route in shown}
    admin = said.pop("/v1/admin")
    assert set(said) - {"GET /usage", "GET /carbon"} <= routes  # pages
    said |= {route: admin for route in routes if " /v1/admin/" in route}
    tokens = {"gateway": api.gateway_token, "operator": api.operator_token}
    tokens |= {role: add_agent(catalogue, "culture", role)[1] for role in ("manager", "member")}
    # Whoever may delete themselves does so last.
    ordered = sorted(said, key=lambda route: route == "DELETE /v1/me")
    for role, token in tokens.items():
        with api.client(token) as client:
            for route in ordered:
                method, path = route.split()
                answer = client.request(method, ANYWHERE.sub("1", path))
                refused = answer.status_code == 403 and (path in PAGES or answer.json()["code"] == "wrong_role")
                assert refused == (role not in said[route]), (route, role, answer.text)


def test_no_route_of_the_catalogue_is_left_out_of_the_table(api: Api) -> None:
    served = httpx.get(f"{api.url}/docs/openapi.json").json()["paths"]
    shown = {route for routes, _ in rows_of_roles() for route in routes}
    open_to_all = {"POST /v1/access-requests", "POST /v1/activations", "GET /v1/terms"}
    for path, methods in served.items():
        if re.match(r"/v1/(tenants|me|models|notices|gateway|access|activations|terms|usage)", path):
            assert {f"{method.upper()} {path}" for method in methods} <= shown | open_to_all

"""What a browser gets where a request comes to nothing: a page; programs and the API get a problem, as ever."""

import re
from typing import Any

import httpx
import pytest
import structlog

from metering.errors import Unavailable
from tests.conftest import Api

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Language": "fr"}
SECRET = "what a fault would quote"


def visit(api: Api, path: str, **headers: str) -> httpx.Response:
    return httpx.get(api.url + path, headers={"Authorization": f"Bearer {api.operator_token}"} | headers)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page and a route of the API that don't work."""

    def fails(*_args: Any, **_named: Any) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("reports.journal_pages.read_journal", fails)
    monkeypatch.setattr("reports.api.read_usage", fails)


@pytest.mark.usefixtures("faulty")
def test_a_fault_is_a_page_with_the_id_of_its_line_and_nothing_else(api: Api) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = visit(api, "/requests", **BROWSER)
    assert answer.status_code == 500
    assert answer.headers["content-type"].startswith("text/html")
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "Une erreur s’est produite de notre côté" in answer.text
    assert SECRET not in answer.text
    assert "RuntimeError" not in answer.text
    (shown,) = re.findall(r"<code>([0-9a-f-]+)</code>", answer.text)
    assert shown == answer.headers["x-request-id"]
    fault = next(line for line in logs if line["event"] == "fault")
    assert SECRET not in str(fault)


@pytest.mark.usefixtures("faulty")
def test_programs_and_the_api_get_a_problem(api: Api) -> None:
    for path, headers in (("/requests", {}), ("/v1/usage?start=2026-10-01&end=2026-10-02", BROWSER)):
        answer = visit(api, path, **headers)
        assert answer.status_code == 500, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "internal"


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [("/nowhere", 404, "Il n’y a pas de page à cette adresse"), ("/sign-in/token", 405, "Il n’y a pas de page")],
)
def test_an_address_without_a_page_is_said_in_a_page(api: Api, path: str, status: int, said: str) -> None:
    answer = visit(api, path, **BROWSER)
    assert answer.status_code == status
    assert said in answer.text
    assert answer.headers["x-request-id"] in answer.text
    assert visit(api, path).headers["content-type"] == "application/problem+json"
    assert visit(api, "/v1/nowhere", **BROWSER).headers["content-type"] == "application/problem+json"


def test_an_outage_at_the_door_is_a_page_that_says_when_to_come_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: Any, **_named: Any) -> None:
        raise Unavailable("database_unavailable", "away", retry_after_s=7)

    monkeypatch.setattr("metering.catalog.sessions.Sessions.find", away)
    answer = httpx.get(f"{api.url}/usage", headers=BROWSER, cookies={"jauge": "x" * 43})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert "momentanément indisponible" in answer.text

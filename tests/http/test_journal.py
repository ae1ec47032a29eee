"""The journal over HTTP: who sees which requests, in which order, and where their figures went."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from metering import embedded
from metering.catalog.tenants import add_tenant
from metering.catalog.tokens import add_token
from metering.rules.chain import identity_of
from metering.services import Services, open_services
from metering.settings import Settings
from tests.applications import application
from tests.conftest import copied_database
from tests.people import add_agent

BASE = datetime(2026, 10, 5, 8, tzinfo=UTC)
EVENTS = 130
PERIOD = {"start": "2026-10-01", "end": "2026-11-01"}


class Desk(NamedTuple):
    """A client, and headers of people who read the journal."""

    client: TestClient[Litestar]
    services: Services
    gateway: dict[str, str]
    operator: dict[str, str]
    manager: dict[str, str]
    member: dict[str, str]

    def get(self, who: dict[str, str], path: str = "/v1/requests", **asked: Any) -> Any:
        answer = self.client.get(path, headers=who, params=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def send(self, *events: dict[str, Any]) -> None:
        answer = self.client.post("/v1/events", json=list(events), headers=self.gateway)
        assert answer.json()["accepted"] == len(events), answer.text


def event(number: int, **data: Any) -> dict[str, Any]:
    """Event so many minutes after the base; those of other administrations stand between."""
    started = BASE + timedelta(minutes=number)
    own = {
        "tenant": "dinum", "project": "assistant", "user": "u-1", "api_key": "k-1", "operation": "chat",
        "model_requested": "albert-large", "started_at": started.isoformat(), "status": "ok", "input_tokens": 100,
        "output_tokens": 20,
    }  # fmt: skip
    return {
        "specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": f"j-{number}-{data.get('tenant', '')}",
        "time": (started + timedelta(seconds=2)).isoformat(), "data": own | data,
    }  # fmt: skip


@pytest.fixture(scope="module")
def desk(servers: embedded.Servers, template: str) -> Iterator[Desk]:
    with copied_database(servers, template, "journal") as url:
        with open_services(Settings(database_url=url, redis_url=servers.redis_url, data=Path("unused"))) as services:
            for tenant_id in ("dinum", "sante"):
                add_tenant(services.engine, tenant_id)
            tokens = [add_token(services.engine, role, role) for role in ("gateway", "operator")]
            tokens += [
                add_agent(services, "dinum", role, name)[1] for role, name in (("manager", "m"), ("member", "u-1"))
            ]
            headers = [{"Authorization": f"Bearer {token}"} for token in tokens]
            with TestClient(application(services)) as client:
                opened = Desk(client, services, *headers)
                users = ("u-1", "u-2", None)
                opened.send(*(event(number, user=users[number % 3]) for number in range(EVENTS)))
                opened.send(*(event(number, tenant="sante", user="u-9") for number in range(0, EVENTS, 10)))
                opened.send(event(-1, status="error", input_tokens=None, output_tokens=None, user="u-3"))
                services.corrections.correct(
                    "test", "j-100-", {"output_tokens": 7}, reason="counted again", author="a.martin"
                )
                services.corrections.void("test", "j-99-", reason="sent twice", author="a.martin")
                yield opened


def pages(desk: Desk, who: dict[str, str], limit: int, **asked: Any) -> Iterator[list[dict[str, Any]]]:
    cursor = None
    while True:
        page = desk.get(who, limit=limit, **(PERIOD | asked), **({"cursor": cursor} if cursor else {}))
        yield page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def test_pages_hold_every_request_once_while_others_arrive(desk: Desk) -> None:
    seen: list[str] = []
    for number, page in enumerate(pages(desk, desk.manager, 17, project="assistant")):
        seen += [one["event"] for one in page]
        # Newer ones, and one that is late: behind the place that was reached, and before it.
        desk.send(event(1_000 + number, project="assistant"), event(-100 - number, project="assistant"))
    expected = [f"j-{number}-" for number in range(EVENTS - 1, -2, -1)]
    assert [name for name in seen if name in set(expected)] == expected
    assert len(seen) == len(set(seen))
    late = [name for name in seen if name not in set(expected)]
    assert late == [f"j-{-100 - number}-" for number in range(len(late))]


def test_agents_see_what_is_theirs(desk: Desk) -> None:
    own = [one for page in pages(desk, desk.member, 1000, project="assistant") for one in page]
    assert {one["user"] for one in own} == {"u-1"}
    everyones = [one for page in pages(desk, desk.manager, 1000) for one in page]
    assert {one["tenant"] for one in everyones} == {"dinum"}
    assert {one["tenant"] for page in pages(desk, desk.operator, 1000) for one in page} == {"dinum", "sante"}
    for who, asked in ((desk.manager, {"tenant": "sante"}), (desk.member, {"user": "u-2"})):
        refused = desk.client.get("/v1/requests", headers=who, params=PERIOD | asked)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_yours")


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"status": "error"}, 1),
        ({"status": ["error", "refused"]}, 1),
        ({"api_key": "k-2"}, 0),
        ({"user": "u-2", "operation": "chat", "start": "2026-10-05T08:00:00Z", "end": "2026-10-05T10:10:00Z"}, 43),
        ({"model": "albert-large", "status": "ok", "start": "2026-10-05T08:00:00Z", "end": "2026-10-05T09:00:00Z"}, 60),
    ],
)
def test_filters_and_periods(desk: Desk, asked: dict[str, Any], count: int) -> None:
    assert sum(len(page) for page in pages(desk, desk.manager, 50, **asked)) == count


def test_requests_count_as_they_do_now(desk: Desk) -> None:
    by_event = {one["event"]: one for page in pages(desk, desk.manager, 1000) for one in page}
    assert (by_event["j-100-"]["state"], by_event["j-100-"]["quantities"]["output_tokens"]) == ("corrected", 7)
    assert (by_event["j-99-"]["state"], by_event["j-99-"]["quantities"]["requests"]) == ("void", 0)
    assert by_event["j-98-"]["quantities"]["audio_ms"] is None
    assert (by_event["j--1-"]["uncounted"], by_event["j--1-"]["quantities"]["input_tokens"]) == (False, None)
    assert by_event["j-98-"]["cost_nano"] is None  # nothing has a price here


def test_the_trail_leads_from_the_event_to_its_sums(desk: Desk) -> None:
    identity = identity_of("test", "j-100-").hex()
    found = desk.get(desk.manager, f"/v1/requests/{identity}")
    trail = found["trail"]
    assert (found["request"]["event"], trail["month"], trail["batch"]["rows"]) == ("j-100-", "2026-10", EVENTS)
    assert len(trail["batch"]["hash"]) == 64
    assert (trail["sum"]["kind"], trail["sum"]["starts_at"]) == ("hour", "2026-10-05T09:00:00Z")
    assert trail["sum"]["quantities"]["requests"] == 59  # one of the hour is void
    (correction,) = trail["corrections"]
    assert (correction["reason"], correction["author"], correction["quantities"]) == (
        "counted again", None, {"output_tokens": -13},
    )  # fmt: skip
    assert desk.get(desk.operator, f"/v1/requests/{identity}")["trail"]["corrections"][0]["author"] == "a.martin"


def test_a_member_is_told_of_their_own_day_and_of_nobody_else(desk: Desk) -> None:
    own = desk.get(desk.member, f"/v1/requests/{identity_of('test', 'j-3-').hex()}")["trail"]
    assert (own["sum"]["kind"], own["lines"], own["documents"]) == ("day", [], [])
    for who, name in ((desk.member, "j-1-"), (desk.manager, "j-10-sante"), (desk.manager, "none")):
        identity = identity_of("test", name).hex()
        assert desk.client.get(f"/v1/requests/{identity}", headers=who).status_code == 404
    assert desk.client.get("/v1/requests/no-such-id", headers=desk.operator).status_code == 404


def test_the_file_holds_every_request(desk: Desk) -> None:
    answer = desk.client.get("/v1/requests", headers=desk.manager, params=PERIOD | {"format": "csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == sum(len(page) for page in pages(desk, desk.manager, 1000))
    by_event = {row["event"]: row for row in rows}
    assert (by_event["j--1-"]["status"], by_event["j--1-"]["input_tokens"]) == ("error", "")
    assert (by_event["j-100-"]["output_tokens"], by_event["j-100-"]["audio_ms"]) == ("7", "")


@pytest.mark.parametrize("cursor", ["1:2", "x"])
def test_a_page_begins_somewhere_or_the_answer_says_why(desk: Desk, cursor: str) -> None:
    answer = desk.client.get("/v1/requests", headers=desk.manager, params={"cursor": cursor})
    assert answer.status_code in {400, 422}
    assert answer.json()["field"] == "cursor"

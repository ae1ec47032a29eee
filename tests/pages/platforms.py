"""A platform to read pages of: real stores, a served application, and somebody of each kind of people."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from metering import embedded
from metering.catalog.tenants import add_tenant
from metering.catalog.tokens import add_token
from metering.services import Services, open_services
from metering.settings import Settings
from tests.billing.conftest import CATALOGUE, write_file
from tests.conftest import copied_database, served_application
from tests.people import add_agent

EVENTS = 60
NOW = datetime.now(UTC)


class Platform(NamedTuple):
    """A served platform, and a token of each kind of people."""

    url: str
    services: Services
    operator: str
    manager: str
    member: str
    newcomer: str


def event(number: int, **data: Any) -> dict[str, Any]:
    """A request so many minutes ago."""
    started = NOW - timedelta(minutes=number + 5)
    own = {
        "tenant": "dinum", "project": "assistant", "user": "u-1", "api_key": "k-1", "operation": "chat",
        "model_requested": "albert-large", "started_at": started.isoformat(), "status": "ok", "input_tokens": 1_200,
        "output_tokens": 300,
    }  # fmt: skip
    return {
        "specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": f"req-{number}",
        "time": (started + timedelta(seconds=2)).isoformat(), "data": own | data,
    }  # fmt: skip


@contextmanager
def open_platform(servers: embedded.Servers, template: str, folder: Path) -> Iterator[Platform]:
    """A platform with requests of every kind, limits, keys and prices, served as long as the block runs."""
    with copied_database(servers, template, "console") as database_url:
        settings = Settings(database_url=database_url, redis_url=servers.redis_url, data=folder)
        with open_services(settings) as services:
            for tenant_id in ("dinum", "sante"):
                add_tenant(services.engine, tenant_id)
            write_file(services, CATALOGUE)
            gateway, operator = (add_token(services.engine, role, role) for role in ("gateway", "operator"))
            manager = add_agent(services, "dinum", "manager", "m-1")[1]
            member = add_agent(services, "dinum", "member", "u-1")[1]
            newcomer = add_agent(services, "sante", "member", "u-9")[1]
            with served_application(services) as url:
                unknown = dict.fromkeys(("input_tokens", "output_tokens"))
                events = [event(number, user=f"u-{number % 2 + 1}") for number in range(EVENTS - 1)]
                events.append(event(EVENTS - 1, status="aborted", **unknown))
                sent = httpx.post(f"{url}/v1/events", json=events, headers={"Authorization": f"Bearer {gateway}"})
                assert sent.json()["accepted"] == EVENTS, sent.text
                services.corrections.correct("test", "req-2", {"output_tokens": 7}, reason="recount", author="a")
                services.corrections.void("test", "req-4", reason="<script>alert(1)</script>", author="a")
                limits_and_keys(url, operator, member)
                yield Platform(url, services, operator, manager, member, newcomer)


def limits_and_keys(url: str, operator: str, member: str) -> None:
    """A credit that is nearly used up, keys of which one ends soon, and a request for a raise."""
    credit = {"scope": "tenant", "selector": "*", "meter": "requests", "window": "credit", "value": 70}
    own = {"scope": "user", "selector": "*", "meter": "total_tokens", "window": "month", "value": 5_000}
    soon = (NOW + timedelta(days=5)).isoformat()
    calls = [
        (operator, "/v1/admin/tenants/dinum/overrides", {"limit": credit, "motive": "m"}),
        (operator, "/v1/admin/tenants/dinum/overrides", {"limit": own, "motive": "m"}),
        (member, "/v1/tenants/dinum/keys", {"name": "<img src=x onerror=alert(1)>", "expires_at": soon}),
        (member, "/v1/tenants/dinum/limit-requests", {"limit": own | {"value": 9_000_000}, "motive": "m"}),
    ]
    for token, path, body in calls:
        answer = httpx.post(url + path, json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 201, answer.text

"""A platform with a closed month, for tests of the pages of documents, people and administration."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from metering import embedded
from metering.catalog.tenants import add_tenant
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.services import Services, open_services
from metering.settings import Settings
from metering.tables import tenant
from tests.billing.conftest import CATALOGUE, write_file
from tests.billing.test_closing import BILLED
from tests.conftest import copied_database, served_application
from tests.people import add_agent

HOSTILE = "<img src=x onerror=alert(1)>\"'=1+1\u202egpj.exe"
"""A name that would run in a page, run in a spreadsheet, and read backwards."""

AFTER_OCTOBER = datetime(2026, 11, 5, 9, tzinfo=UTC)


class Platform(NamedTuple):
    """A served platform, and a token of each kind of people."""

    url: str
    services: Services
    operator: str
    manager: str
    member: str
    stranger: str

    def get(self, path: str, token: str) -> httpx.Response:
        """A page, without a session."""
        return httpx.get(f"{self.url}{path}", auth=("reader", token))


@contextmanager
def closed_platform(
    servers: embedded.Servers, template: str, folder: Path, name: str, more: str = ""
) -> Iterator[Platform]:
    """A platform that was used, whose October is closed."""
    with used_platform(servers, template, folder, name, more) as platform:
        platform.services.closer().finalise("2026-10", author="test", now=AFTER_OCTOBER)
        yield platform


@contextmanager
def used_platform(
    servers: embedded.Servers, template: str, folder: Path, name: str, more: str = ""
) -> Iterator[Platform]:
    """dinum is billed, sante has free access and a hostile name, berne pays in francs; no month is closed.

    more: of the catalogue, as a file.
    """
    with copied_database(servers, template, name) as database_url:
        settings = Settings(
            database_url=database_url, redis_url=servers.redis_url, data=folder,
            secret_key="a key for tests, long enough to be one",
        )  # fmt: skip
        with open_services(settings) as services:
            for tenant_id in ("dinum", "sante", "berne"):
                add_tenant(services.engine, tenant_id)
            write_file(services, CATALOGUE)
            write_file(services, BILLED)
            if more:
                write_file(services, more)
            with transaction(services.engine) as connection:
                connection.execute(tenant.update().where(tenant.c.id == "sante").values(name=HOSTILE))
            services.catalog.refresh()
            gateway, operator = (add_token(services.engine, role, role) for role in ("gateway", "operator"))
            manager = add_agent(services, "dinum", "manager", "m-1")[1]
            member = add_agent(services, "dinum", "member", "u-1")[1]
            add_agent(services, "dinum", "member", "u-2")
            stranger = add_agent(services, "sante", "manager", "m-9")[1]
            with served_application(services) as url:
                sent = httpx.post(
                    f"{url}/v1/events", json=list(_events()), headers={"Authorization": f"Bearer {gateway}"}
                )
                assert sent.json()["rejected"] == 0, sent.text
                yield Platform(url, services, operator, manager, member, stranger)


def _events() -> Iterator[dict[str, Any]]:
    for number, whose in enumerate(("dinum", "sante", "berne", "dinum")):
        started = f"2026-{'11' if number == 3 else '10'}-0{number + 2}T08:00:00Z"
        yield {
            "specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": f"req-{number}", "time": started,
            "data": {
                "tenant": whose, "operation": "chat", "model_requested": "albert-large", "started_at": started,
                "status": "ok", "input_tokens": 12_000, "output_tokens": 3_000,
            },
        }  # fmt: skip

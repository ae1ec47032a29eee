"""A ledger that tests share which need nothing of it but that it answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from metering import embedded
from metering.app import create_app
from metering.catalog.tokens import add_token
from metering.services import Services, open_services
from metering.settings import Settings
from tests.applications import application
from tests.conftest import copied_database


@contextmanager
def client_with(app: Litestar, token: str | None = None) -> Iterator[TestClient[Litestar]]:
    """A client of an application, without a server between them."""
    with TestClient(app) as client:
        if token is not None:
            client.headers["Authorization"] = f"Bearer {token}"
        yield client


@pytest.fixture(scope="session")
def standing(servers: embedded.Servers, template: str) -> Iterator[TestClient[Litestar]]:
    """An operator's client of a ledger that stays for the whole session."""
    with copied_database(servers, template, "standing") as url:
        settings = Settings(database_url=url, redis_url=servers.redis_url, data=Path("unused"))
        with open_services(settings) as services:
            token = add_token(services.engine, "operator", "operator")
            with client_with(create_app(services), token) as client:
                yield client


@pytest.fixture
def operator(services: Services) -> Iterator[TestClient[Litestar]]:
    """An operator's client of an empty ledger."""
    with client_with(application(services), add_token(services.engine, "operator", "operator")) as client:
        yield client

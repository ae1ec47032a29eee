"""A platform with a price book, a convention that bills and an administration with free access."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from metering.billing.answers import RatingShown, shown_rating
from metering.billing.prices import tariffs_of
from metering.billing.rating import LATEST, AsOf, rate_tenant, read_month
from metering.catalog.apply import apply, read_file
from metering.catalog.tokens import add_token
from metering.database import Actor, transaction
from metering.events.decoding import decode
from metering.services import Services
from tests.applications import application
from tests.conftest import MakeEvent, ndjson

CATALOGUE = """
categories:
  - {id: big, name: Big}
models:
  - {id: albert-large, name: Large, category: big, publisher: P, licence: MIT, operations: [chat]}
aliases:
  - {id: vendor/Large, model: albert-large}
price_books:
  - {id: list, name: List, currency: EUR, vat: rate, vat_percent: "20"}
prices:
  - {book: list, selector: category:big, meter: input_tokens, price: "1", per: 1_000, valid_from: 2026-01-01T00:00:00Z}
  - {book: list, selector: category:big, meter: output_tokens, price: "2", per: 1_000, valid_from: 2026-01-01T00:00:00Z}
conventions:
  - id: c-1
    tenant: dinum
    title: T
    funder: F
    signed_on: 2026-01-01
    effective_on: 2026-01-01
    starts_on: 2026-01-01
    ends_on: 2027-12-31
    settlement: billed
    overage: bill
    price_book: list
platform:
  default_plan: experimentation
  price_book: list
"""

LATER = "  - {{book: list, selector: 'category:big', meter: input_tokens, price: '{}', per: 1_000, valid_from: {}}}"


def write_file(services: Services, text: str) -> None:
    """Apply a catalogue file."""
    with transaction(services.engine) as connection:
        apply(connection, read_file(text.encode()))
    services.catalog.refresh()


@pytest.fixture
def priced(services: Services) -> Services:
    """Services with the catalogue above."""
    write_file(services, CATALOGUE)
    return services


Record = Callable[..., None]


@pytest.fixture
def record(priced: Services, make_event: MakeEvent) -> Record:
    """Record an event of 100 input and 20 output tokens, admitted at an instant; what else it says can be set."""

    def take(started_at: str, **changes: Any) -> None:
        event = make_event(started_at=started_at, time=started_at, **changes)
        answer = priced.intake.take(decode(ndjson([event]), "ndjson", 1), "http")
        assert answer.is_whole, json.dumps(event)

    return take


def rated(
    services: Services, tenant: str = "dinum", month: str = "2026-10", as_of: AsOf = LATEST, actor: Actor | None = None
) -> RatingShown:
    """A month as it is shown."""
    tariffs = tariffs_of(services.catalog.current())
    with transaction(services.engine, snapshot=True, actor=actor) as connection:
        return shown_rating(rate_tenant(connection, tariffs, tenant, read_month(month), as_of))


def amounts(rating: RatingShown) -> list[tuple[str, int, str, str]]:
    """Meter, quantity, unit price and amount of each line."""
    return [(line.meter, line.quantity, line.unit_price, line.amount) for line in rating.lines]


@pytest.fixture
def client(priced: Services) -> Iterator[TestClient[Litestar]]:
    """An operator's client."""
    with TestClient(application(priced)) as opened:
        opened.headers["Authorization"] = f"Bearer {add_token(priced.engine, 'operator', 'operator')}"
        yield opened


NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)

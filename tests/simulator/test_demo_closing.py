"""The demo's month before is closed once, when it is complete."""

from datetime import UTC, datetime

import sqlalchemy as sa

from metering.carbon.job import post_due
from metering.database import transaction
from metering.demo import apply_catalogue
from metering.demo_closing import close_if_complete
from metering.events.decoding import decode
from metering.services import Services
from metering.tables import billing_document
from tests.conftest import MakeEvent, ndjson

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
WITHIN_GRACE = datetime(2026, 11, 1, 12, tzinfo=UTC)


def documents(services: Services) -> list[tuple[str, str]]:
    query = sa.select(billing_document.c.tenant, billing_document.c.kind).order_by(billing_document.c.seq)
    with transaction(services.engine) as connection:
        return [tuple(row) for row in connection.execute(query)]


def test_the_month_before_is_closed_once_its_carbon_is_posted(services: Services, make_event: MakeEvent) -> None:
    apply_catalogue(services.engine, NOW)
    services.catalog.refresh()
    assert close_if_complete(services, NOW)  # it was never used: there is nothing to close
    assert documents(services) == []
    used = [make_event(tenant=tenant, project=None, input_tokens=10**8) for tenant in ("interieur", "dinum")]
    assert services.intake.take(decode(ndjson(used), "ndjson", len(used)), "http").is_whole
    assert close_if_complete(services, WITHIN_GRACE)  # usage of it may still come
    assert not close_if_complete(services, NOW)
    assert documents(services) == []
    post_due(services.engine, NOW)
    for _ in range(2):
        assert close_if_complete(services, NOW)
        assert documents(services) == [("dinum", "statement"), ("interieur", "invoice")]

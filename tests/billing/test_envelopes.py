"""What is left of a convention's envelope: as rated, as posted and as held; for those it concerns."""

from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa
from litestar import Litestar
from litestar.testing import TestClient

from metering.billing.envelopes import envelope_use
from metering.billing.prices import tariffs_of
from metering.billing.running_out import announce_envelopes
from metering.database import transaction
from metering.errors import NotFound
from metering.outbox.wording import render
from metering.quotas.envelopes import read_envelopes
from metering.quotas.store import CounterStore
from metering.rules.billing.envelopes import Forecast
from metering.services import Services
from metering.tables import outbox
from tests.billing.conftest import CATALOGUE, Record, write_file
from tests.people import add_agent

BEGINS = "effective_on: 2026-01-01\n    starts_on: 2026-01-01"
ENVELOPES = (
    CATALOGUE.replace("overage: bill", 'overage: bill\n    envelope_eur: "1.00"\n    envelope_gco2e: "5"')
    .replace("id: c-1", "id: c-2")
    .replace(BEGINS, BEGINS.replace("2026-01", "2026-09"))
)
NOON = datetime(2026, 10, 5, 10, tzinfo=UTC)


@pytest.fixture
def funded(priced: Services) -> Services:
    """Services with a convention from September on that has envelopes of 1 EUR and 5 gCO2e."""
    write_file(priced, ENVELOPES)
    return priced


def test_consumed_is_what_the_months_come_to_and_days_to_come_are_as_those_before(
    funded: Services, record: Record
) -> None:
    record("2026-08-20T08:00:00Z")  # under the convention before
    record("2026-09-15T08:00:00Z")  # 100 tokens of input and 20 of output: 0.14 EUR
    record("2026-10-04T08:00:00Z")
    record("2026-10-05T08:00:00Z")
    snapshot = funded.catalog.current()
    convention = next(one for one in snapshot.conventions["dinum"] if one.id == "c-2")
    with transaction(funded.engine, snapshot=True) as connection:
        use = envelope_use(connection, tariffs_of(snapshot), convention, NOON)
    assert use.money is not None
    assert (use.money.envelope, use.money.consumed, use.money.unknown) == (10**9, 42 * 10**7, 0)
    # 453 days: of 64 Tuesdays and 65 Sundays one in four uses 0.14 EUR.
    days = [date(2026, 10, 5).toordinal() + ahead for ahead in range(1, 453)]
    busy = sum(date.fromordinal(day).weekday() in {1, 6} for day in days)
    assert use.money.forecast is not None
    assert use.money.forecast.value == 42 * 10**7 + busy * 14 * 10**7 // 4
    assert use.money.forecast.lower == 42 * 10**7
    assert use.money.forecast.upper == 42 * 10**7 + busy * 14 * 10**7
    assert use.money.forecast.earliest == date(2026, 10, 20)  # the fifth such day: 0.42 and 5 × 0.14 are above 1
    assert use.money.forecast.latest is None
    # Nobody has posted the carbon of these hours: unknown, not 0.
    assert use.carbon is not None
    assert (use.carbon.consumed, use.carbon.unknown) == (0, 3)
    assert isinstance(use.carbon.forecast, Forecast)


def test_an_envelope_is_its_administrations_managers_and_operators(
    funded: Services, client: TestClient[Litestar], record: Record
) -> None:
    record("2026-10-05T08:00:00Z")
    agents = {
        name: add_agent(funded, *name) for name in (("dinum", "manager"), ("dinum", "member"), ("sante", "manager"))
    }
    funded.catalog.refresh()
    question = {
        "reservation": "r-1", "tenant": "dinum", "model": "albert-large",
        "estimates": {"prompt_tokens": 10, "max_output_tokens": 10},
    }  # fmt: skip
    held = client.post("/v1/quota/reserve", json=question).json()
    assert held["estimated"]["cost_neur"] == 10 * 10**6 + 10 * 2 * 10**6
    found = client.get("/v1/conventions/c-2/envelope").json()
    money = next(one for one in found["parts"] if one["unit"] == "EUR")
    assert (money["envelope"], money["committed"]) == ("1.00", "0.03")
    assert (found["convention"], found["overage"]) == ("c-2", "bill")
    for name, status in zip(agents, (200, 403, 404), strict=True):
        client.headers["Authorization"] = f"Bearer {agents[name][1]}"
        assert client.get("/v1/conventions/c-2/envelope").status_code == status
    assert client.get("/v1/conventions/c-9/envelope").status_code == 404
    with transaction(funded.engine, snapshot=True) as connection, funded.redis() as valkey, pytest.raises(NotFound):
        read_envelopes(connection, funded.catalog.current(), "c-9", CounterStore(valkey), NOON)


def test_managers_and_operators_are_told_once_that_an_envelope_will_not_last(funded: Services, record: Record) -> None:
    record("2026-09-07T08:00:00Z")
    assert announce_envelopes(funded.engine, funded.catalog, NOON) == 0  # 0.14 EUR in four weeks: it lasts 90 days
    for day in ("04", "05"):
        record(f"2026-10-{day}T08:00:00Z")
    record("2026-10-03T08:00:00Z", output_tokens=70)  # 0.24 EUR
    assert announce_envelopes(funded.engine, funded.catalog, NOON) == 1
    assert announce_envelopes(funded.engine, funded.catalog, NOON + timedelta(hours=1)) == 0
    mail = sa.select(outbox.c.recipient, outbox.c.payload).where(outbox.c.subject == "envelope_running_out")
    with transaction(funded.engine) as connection:
        mails = dict(connection.execute(mail).all())
    assert sorted(mails) == ["managers:dinum", "operators"]
    payload = mails["operators"]
    subject, text = render("envelope_running_out", "fr", payload | {"public_url": "https://jauge.example"})
    assert subject.startswith("L’enveloppe d’une convention serait épuisée le ")
    assert "Consommé : 0,66 euros sur 1 euros" in text
    assert "facturées" in text

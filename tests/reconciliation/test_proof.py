"""What gateways posted against the ledger, the rollups and the rated lines: what differs is named, and told once."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from litestar.testing import TestClient

from metering import cli
from metering.billing.prices import tariffs_of
from metering.billing.rating import read_month
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.metrics import DRIFT, RECONCILED
from metering.reconciliation.proof import Proof, prove
from metering.reconciliation.watching import reconcile_month
from metering.services import Services
from metering.settings import get_settings
from metering.tables import billing_document, gateway_total, outbox
from tests.applications import application
from tests.billing.conftest import Record, priced, record
from tests.billing.test_closing import AFTER_NOVEMBER, AFTER_OCTOBER, Closer, close, closer

__all__ = ["closer", "priced", "record"]  # fixtures

DAY = "/v1/reconciliation/test/2026-10-25"
"""The day that has 25 hours."""
TOTALS = {
    "totals": [
        {"tenant": "dinum", "model": "albert-large", "requests": 2, "input_tokens": 200, "output_tokens": 40},
        {"tenant": "sante", "model": "albert-large", "requests": 1, "input_tokens": 100},
    ]
}


def proved(services: Services) -> Proof:
    with transaction(services.engine, snapshot=True) as connection:
        return prove(connection, tariffs_of(services.catalog.current()), read_month("2026-10"))


def differing(proof: Proof) -> dict[str, int]:
    return {f"{step.name} / {step.against}": step.drifts for step in proof.steps if step.drifts}


@pytest.fixture
def served(priced: Services, record: Record) -> Services:
    """Three requests of the long day, at its ends; one of them was corrected; one of another source and day."""
    record("2026-10-24T22:00:00Z")
    record("2026-10-25T22:59:59Z", id="last")
    record("2026-10-25T12:00:00Z", tenant="sante")
    record("2026-10-25T23:00:00Z", source="other")
    priced.corrections.correct("test", "last", {"input_tokens": 7}, reason="r", author="a")
    return priced


def test_totals_are_posted_in_versions_by_gateways_only(served: Services) -> None:
    with TestClient(application(served)) as client:
        token = add_token(served.engine, "g", "gateway")
        operator = {"Authorization": f"Bearer {add_token(served.engine, 'o', 'operator')}"}

        def put(body: Any, day: str = DAY) -> Any:
            return client.put(day, json=body, headers={"Authorization": f"Bearer {token}"})

        assert put(TOTALS).json() == {"source": "test", "day": "2026-10-25", "version": 1, "totals": 2}
        assert put({"totals": TOTALS["totals"][::-1]}).json()["version"] == 1
        assert put({"totals": []}).json()["version"] == 2
        assert put(TOTALS).json()["version"] == 3
        twice = put({"totals": [TOTALS["totals"][0]] * 2})
        assert (twice.status_code, twice.json()["code"]) == (422, "duplicate_total")
        for wrong in ({}, {"totals": [{"tenant": "dinum", "model": "m", "requests": -1}]}, {"prompt": "secret"}):
            assert put(wrong).status_code == 400
        assert put(TOTALS, "/v1/reconciliation/test/2026-10-32").status_code in {400, 404}
        assert client.put(DAY, json=TOTALS, headers=operator).status_code == 403
        answer = client.get("/v1/admin/reconciliation?month=2026-10", headers=operator).json()
    assert answer["is_clean"] is True
    (gateway, hourly, daily, rated) = answer["steps"]
    # The gateway knows nothing of the correction, and of sante's output.
    assert gateway["expected"] == {"requests": 3, "input_tokens": 300, "output_tokens": 40}
    assert hourly["found"] == daily["found"] == {"requests": 4, "input_tokens": 307, "output_tokens": 80}
    assert (rated["expected"], rated["found"]) == ({"tokens": 387}, {"tokens": 387})
    with pytest.raises(sa.exc.IntegrityError, match="is refused"), transaction(served.engine) as connection:
        connection.execute(sa.text("UPDATE gateway_total SET version = 9"))


def test_what_differs_is_named_and_told_once(served: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = TOTALS["totals"]
    one_more = [first | {"requests": 3}, second, first | {"model": "lost", "requests": 1}]
    with transaction(served.engine) as connection:
        connection.execute(
            gateway_total.insert().values(
                source="test", day="2026-10-25", version=1,
                totals=[{"output_tokens": None, **one} for one in one_more],
            )
        )  # fmt: skip
        connection.execute(sa.text("UPDATE usage_daily SET input_tokens = 1 WHERE tenant = 'sante'"))
    proof = proved(served)
    assert not proof.is_clean
    assert differing(proof) == {"ledger / gateway": 4, "daily rollup / ledger": 1}
    found = [(one.where["tenant"], one.where["model"], one.quantity, one.difference) for one in proof.steps[0].named]
    assert found == [
        ("dinum", "albert-large", "requests", -1),
        ("dinum", "lost", "requests", -1),
        ("dinum", "lost", "input_tokens", -200),
        ("dinum", "lost", "output_tokens", -40),
    ]
    now = datetime(2026, 11, 1, 3, tzinfo=UTC)  # yesterday was in October
    for _ in range(2):
        assert reconcile_month(served.engine, served.catalog, now) == proof
    with transaction(served.engine) as connection:
        query = sa.select(outbox.c.recipient, outbox.c.payload).where(outbox.c.subject == "reconciliation_drift")
        mails = connection.execute(query).all()
    assert [(mail.recipient, mail.payload["drifts"]) for mail in mails] == [("operators", 5)]
    assert RECONCILED._value.get() == 0
    assert DRIFT.labels("ledger", "gateway")._value.get() == 4

    monkeypatch.setenv("JAUGE_DATABASE_URL", served.stores.database_url)
    monkeypatch.setenv("JAUGE_REDIS_URL", served.stores.redis_url)
    get_settings.cache_clear()
    try:
        told = CliRunner().invoke(cli.main, ["reconcile", "2026-10"])
        day = CliRunner().invoke(cli.main, ["reconcile", "2026-10", "--day", "2026-10-24", "--json"])
        wrong = CliRunner().invoke(cli.main, ["reconcile", "2026-10", "--day", "2026-11-01"])
    finally:
        get_settings.cache_clear()
    assert told.exit_code == 1, told.output
    assert (
        "  source=test, day=2026-10-25, tenant=dinum, model=lost: input_tokens 200, found unknown (-200)" in told.stdout
    )
    assert "0 differ." in told.stdout
    assert (day.exit_code, json.loads(day.stdout)["is_clean"], wrong.exit_code) == (0, True, 2)


def test_documents_of_a_closed_month_say_what_it_came_to(priced: Services, closer: Closer, record: Record) -> None:
    def documents() -> list[tuple[dict[str, int | None], dict[str, int | None]]]:
        return [(step.expected, step.found) for step in proved(priced).steps if step.name == "documents"]

    record("2026-10-05T10:00:00Z", id="first", input_tokens=100_000)
    record("2026-10-06T10:00:00Z", tenant="berne", input_tokens=7_000)
    assert documents() == []  # nothing is closed
    close(closer, "2026-10", AFTER_OCTOBER)
    before = {"cents CHF": 704, "cents EUR": 10_004}
    assert documents() == [(before, before)]
    priced.corrections.correct("test", "first", {"input_tokens": 40_000}, reason="r", author="a")
    assert documents() == [(before, before)]  # the next closing makes it good
    close(closer, "2026-11", AFTER_NOVEMBER)
    after = before | {"cents EUR": 4_004}
    assert documents() == [(after, after)]
    assert proved(priced).is_clean

    with transaction(priced.engine) as connection:
        connection.execute(sa.text("ALTER TABLE billing_document DISABLE TRIGGER append_only"))
        connection.execute(sa.delete(billing_document).where(billing_document.c.kind == "credit_note"))
    assert documents() == [(after, before)]
    (step,) = [one for one in proved(priced).steps if one.drifts]
    where = {"tenant": "dinum", "convention": "c-1", "settlement": "billed"}
    assert [(one.where, one.difference) for one in step.named] == [(where, 6_000)]

"""Readings of GPUs enter by the doors of usage, and are recorded once."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from metering.carbon.readings import READING_COLUMNS, Reading, Readings
from metering.database import transaction
from metering.ledger.append import Outcome
from metering.tables import energy_batch, energy_reading, quarantine
from tests.carbon.readings import a_reading, an_energy_event
from tests.conftest import ndjson


def recorded(engine: sa.Engine) -> list[Reading]:
    with transaction(engine) as connection:
        rows = connection.execute(sa.select(*READING_COLUMNS).order_by(energy_reading.c.event_id))
        return [Reading(*row) for row in rows]


def test_a_call_may_hold_usage_and_readings(api, services, make_event):
    events = [make_event(), an_energy_event(), make_event(tenant="nobody"), an_energy_event(gpu=None)]
    with api.client() as client:
        answer = client.post("/v1/events", content=ndjson(events), headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 207
    results = [(one["status"], one.get("code"), one.get("field")) for one in answer.json()["events"]]
    assert results == [
        ("accepted", None, None),
        ("accepted", None, None),
        ("rejected", "unknown_tenant", "data.tenant"),
        ("rejected", "missing_field", "data.gpu"),
    ]
    (reading,) = recorded(services.engine)
    assert (reading.node, reading.gpu, reading.power_mw) == ("node-1", "GPU-1", 300_000)


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"node": "a machine"}, "invalid_name", "data.node"),
        ({"energy_mj": -1}, "negative_quantity", "data.energy_mj"),
        ({"power_mw": 1.5}, "fractional_quantity", "data.power_mw"),
        ({"host_energy_mj": 1}, "missing_field", "data.host_source"),
        ({"host_source": "guess"}, "unknown_value", "data.host_source"),
        ({"prompt": "SECRET-7"}, "content_field", "data.prompt"),
        ({"tenant": "dinum"}, "unknown_field", "data.tenant"),
    ],
)
def test_a_reading_that_breaks_a_rule_is_refused_by_name_and_kept_for_replay(api, services, changes, code, field):
    with api.client() as client:
        answer = client.post("/v1/events", json=an_energy_event(**changes))
    (result,) = answer.json()["events"]
    assert (result["status"], result["code"], result["field"]) == ("rejected", code, field)
    assert "SECRET-7" not in answer.text
    with transaction(services.engine) as connection:
        (kept,) = connection.scalars(sa.select(quarantine.c.event))
    assert kept["type"] == "jauge.energy.v1"
    assert "SECRET-7" not in json.dumps(kept)
    assert recorded(services.engine) == []


def test_a_reading_from_the_future_or_the_ledgers_own_source_is_refused(api):
    ahead = an_energy_event(datetime.now(UTC) + timedelta(minutes=11))
    own = an_energy_event() | {"source": "jauge:agent"}
    with api.client() as client:
        codes = [client.post("/v1/events", json=one).json()["events"][0]["code"] for one in (ahead, own)]
    assert codes == ["time_in_future", "reserved_source"]


def test_the_same_reading_again_is_a_duplicate_and_another_under_its_identity_a_conflict(services):
    readings = Readings(services.engine)
    first = a_reading(energy_mj=5)
    other = first._replace(energy_mj=6)
    assert readings.append([first, first, other]) == [Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT]
    assert readings.append([other, first]) == [Outcome.CONFLICT, Outcome.DUPLICATE]
    assert recorded(services.engine) == [first]


def test_readings_are_chained_in_batches(services):
    readings = Readings(services.engine)
    for _ in range(3):
        readings.append([a_reading(), a_reading()])
    readings.append([])
    with transaction(services.engine) as connection:
        rows = connection.execute(sa.select(energy_batch.c.seq, energy_batch.c.row_count).order_by(energy_batch.c.seq))
        assert [tuple(row) for row in rows] == [(1, 2), (2, 2), (3, 2)]


def test_readings_come_by_file_and_survive_replay_from_quarantine(api, services):
    bad = an_energy_event(node="a machine")
    with api.client() as client:
        client.post("/v1/events", json=bad)
    with api.client(api.operator_token) as client:
        answer = client.post("/v1/quarantine/replay", json={"changes": {"data.node": "node-9"}}).json()
    assert answer["accepted"] == 1
    (reading,) = recorded(services.engine)
    assert (reading.node, reading.event_id) == ("node-9", bad["id"])


def test_what_is_recorded_is_never_changed(services):
    Readings(services.engine).append([a_reading()])
    for statement in ("UPDATE energy_reading SET node = 'x'", "DELETE FROM energy_batch", "TRUNCATE carbon_entry"):
        with pytest.raises(sa.exc.DBAPIError) as caught, transaction(services.engine) as connection:
            connection.execute(sa.text(statement))
        assert caught.value.orig.sqlstate == "23001"

"""A gram is followed back to readings, and what is recomputed is what was posted."""

from datetime import timedelta

import pytest

from metering.carbon.explaining import explain
from metering.catalog.documents import Category, Model
from metering.catalog.kinds import KINDS, put
from metering.database import transaction
from metering.errors import NotFound
from tests.carbon.hours import HOUR, a_factor, a_request, post_all, readings_of, record, sums

ALBERT = Model(
    id="albert-large", name="Large", category="large", publisher="P", licence="MIT", parameters=120 * 10**9,
    precision="bf16", operations=["chat"],
)  # fmt: skip
POWERS_W = (600, 200, 350)


def explained(services, event_id, **whose):
    with transaction(services.engine) as connection:
        return explain(connection, "test", event_id, **whose)


def test_events_of_an_entry_sum_to_it_to_the_microjoule(services):
    events = [
        a_request(number, HOUR + timedelta(seconds=47 * number), seconds=20 + 13 * number, input_tokens=90 * number)
        for number in range(30)
    ]
    record(services, events, readings_of(HOUR, 60, gpus=2, powers_w=POWERS_W))
    a_factor(services, 20_000_000)
    post_all(services)
    parts = {}
    for event in events:
        explanation = explained(services, event["id"])
        (hour,) = explanation.hours
        user = event["data"]["user"]
        assert hour.entry["gpu_energy_uj"] == sums(services, "user", part="use")[user,][1]
        parts[user] = parts.get(user, 0) + hour.gpu_energy_uj
    assert parts == {user: row[1] for (user,), row in sums(services, "user", part="use").items()}


def test_an_explanation_shows_readings_weights_and_factors(services):
    record(services, [a_request(1, HOUR + timedelta(seconds=90))], readings_of(HOUR, 60, powers_w=POWERS_W))
    a_factor(services, 20_000_000)
    post_all(services)
    explanation = explained(services, "r-1")
    (hour,) = explanation.hours
    (window,) = hour.windows
    (gpu,) = window.gpus
    assert (window.starts_at, window.energy_uj) == (HOUR + timedelta(minutes=1), 200 * 60 * 10**6)
    first, last = gpu.readings
    assert (last.energy_mj - first.energy_mj) * 1_000 == window.energy_uj
    assert (window.requests, window.work, window.presence) == (1, window.work_of_all, window.presence_of_all)
    assert window.dynamic_uj + window.busy_uj + window.idle_uj + window.unallocated_uj == window.energy_uj
    (factor,) = hour.factors
    assert (factor.zone, factor.ugco2e_per_kwh) == ("FR", 20_000_000)
    assert hour.part["gpu_energy_uj"] == hour.gpu_energy_uj
    assert hour.part["location_ng"] == hour.entry["location_ng"]
    assert not hour.is_due


def test_a_long_request_is_explained_hour_by_hour(services):
    long = a_request(1, HOUR + timedelta(minutes=50), seconds=1200)
    record(services, [long], readings_of(HOUR, 120))
    post_all(services)
    explanation = explained(services, "r-1")
    assert [hour.hour for hour in explanation.hours] == [HOUR, HOUR + timedelta(hours=1)]
    assert sum(hour.gpu_energy_uj for hour in explanation.hours) == sums(services, "part")["use",][1]


def test_what_no_meter_saw_is_explained_by_the_model(services):
    with transaction(services.engine) as connection:
        put(connection, KINDS["categories"], Category(id="large", name="L"))
        put(connection, KINDS["models"], ALBERT)
    record(services, [a_request(1, HOUR, deployment=None, user="u-1"), a_request(2, HOUR, deployment=None)])
    a_factor(services, 20_000_000)
    post_all(services)
    (hour,) = explained(services, "r-1").hours
    assert (hour.windows, hour.tier, hour.modelled.output, hour.modelled.context) == ([], "C", 200, 800)
    assert hour.gpu_energy_uj == sums(services, "user")["u-1",][1]
    assert hour.modelled.energy_lower_uj < hour.gpu_energy_uj < hour.modelled.energy_upper_uj
    assert hour.part["location_ng"] == hour.entry["location_ng"]


def test_what_is_not_posted_or_not_measured_is_said_to_be_unknown(services):
    record(services, [a_request(1, HOUR), a_request(2, HOUR, deployment=None)], readings_of(HOUR, 60))
    (hour,) = explained(services, "r-1").hours
    assert (hour.batch, hour.is_due, hour.part) == (None, True, None)
    post_all(services)
    (hour,) = explained(services, "r-2").hours
    assert (hour.windows, hour.gpu_energy_uj, hour.tier) == ([], None, "U")


def test_only_whose_event_it_is_learns_of_it(services):
    record(services, [a_request(1, HOUR)], readings_of(HOUR, 60))
    assert explained(services, "r-1", tenant="dinum", user="u-1")
    for whose in ({"tenant": "sante"}, {"tenant": "dinum", "user": "u-2"}):
        with pytest.raises(NotFound) as caught:
            explained(services, "r-1", **whose)
        assert caught.value.code == "unknown_event"
    record(services, [a_request(2, HOUR, status="refused")])
    for event_id in ("r-2", "r-3"):
        with pytest.raises(NotFound):
            explained(services, event_id)

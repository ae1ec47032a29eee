"""From events and readings to posted hours."""

import random
from datetime import timedelta

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from metering.carbon.verification import verify_carbon
from metering.cli import main
from metering.database import transaction
from metering.rules.carbon.impacts import HOST_PRIOR_MW
from metering.settings import get_settings
from metering.tables import carbon_batch, carbon_entry, carbon_gpu
from tests.carbon.hours import HOUR, a_factor, a_request, post_all, readings_of, record, sums
from tests.carbon.readings import a_reading

JOULES_UJ = 10**6
HOUR_AT_400_W_UJ = 400 * 3600 * JOULES_UJ
HOST_HOUR_UJ = HOST_PRIOR_MW.value * 3600 * 1000


def requests(count=20, **data):
    return [a_request(number, HOUR + timedelta(minutes=2 * number), **data) for number in range(count)]


def state(services):
    """Everything that is live, whatever batches it came by."""
    names = [column.name for column in carbon_entry.columns if column.name not in {"batch_seq", "is_reversal"}]
    columns = [carbon_entry.c[name] for name in names]
    with transaction(services.engine) as connection:
        rows = [
            (row[0], tuple(map(str, row[1:])))
            for row in connection.execute(sa.select(carbon_entry.c.is_reversal, *columns))
        ]
    live = [row for is_reversal, row in rows if not is_reversal]
    for is_reversal, row in rows:
        if is_reversal:
            live.remove(tuple(value[1:] if value.startswith("-") else value for value in row))
    return sorted(live)


def count(services, table=carbon_batch):
    with transaction(services.engine) as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table))


def test_every_microjoule_of_the_meter_is_somebodys(services):
    record(services, requests(), readings_of(HOUR, 60, gpus=2))
    a_factor(services, 20_000_000)
    assert post_all(services) == 1
    assert sum(row[1] for row in sums(services).values()) == 2 * HOUR_AT_400_W_UJ
    used = sums(services, "part")["use",]
    assert (used[0], used[1] > 0) == (20, True)
    assert verify_carbon(services.engine).clean


def test_grams_follow_from_energy_the_building_and_the_grid(services):
    record(services, requests(), readings_of(HOUR, 60))
    a_factor(services, 20_000_000)  # 20 g a kWh
    post_all(services)
    (_requests, _gpu, energy_uj, location_ng) = next(iter(sums(services).values()))
    assert energy_uj == (HOUR_AT_400_W_UJ + HOST_HOUR_UJ) * 14 // 10
    assert location_ng == round(energy_uj * 20 * 10**9 / (3600 * 1000 * JOULES_UJ))


def test_the_order_in_which_things_arrive_changes_nothing(services):
    events, readings = requests(), readings_of(HOUR, 60)
    record(services, events[::2], readings[::2])
    a_factor(services, 20_000_000)
    post_all(services)
    shuffled = events + readings
    random.Random(7).shuffle(shuffled)
    for one in shuffled:
        record(services, *([[one], []] if isinstance(one, dict) else [[], [one]]))
    post_all(services)
    in_pieces = state(services)
    assert verify_carbon(services.engine).clean
    with transaction(services.engine) as connection:
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        for table in ("carbon_entry", "carbon_gpu", "carbon_batch", "carbon_hour", "carbon_cursor"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
    post_all(services)
    assert state(services) == in_pieces


def test_an_hour_is_posted_when_its_watermark_has_passed_and_once(services):
    record(services, requests(), readings_of(HOUR, 60))
    assert post_all(services, HOUR + timedelta(minutes=69)) == 0
    assert post_all(services, HOUR + timedelta(minutes=70)) == 1
    assert post_all(services) == 0
    assert count(services) == 1


def test_a_late_event_restates_the_hour_and_the_past_stays_readable(services):
    record(services, requests(), readings_of(HOUR, 60))
    post_all(services)
    before = sums(services, "user")
    record(services, [a_request(99, HOUR + timedelta(minutes=3), user="u-late")])
    assert post_all(services) == 1
    assert sums(services, "user")["u-late",][0] == 1
    assert sums(services, "user", batch_seq=1) == before
    assert sum(row[1] for row in sums(services).values()) == HOUR_AT_400_W_UJ


def test_a_late_reading_restates_the_hours_around_it(services):
    readings = readings_of(HOUR, 60)
    record(services, requests(), [*readings[:20], *readings[40:]])  # a gap of 21 minutes
    post_all(services)
    with transaction(services.engine) as connection:
        assert connection.scalar(sa.select(carbon_gpu.c.flags)) == ["long_gap"]
    record(services, readings=readings)
    assert post_all(services) == 1
    assert sums(services, "tier").keys() == {("A",), ("B",)}
    assert {tier for tier, row in sums(services, "tier").items() if row[1]} == {("A",)}
    assert verify_carbon(services.engine).clean


def test_a_void_or_corrected_event_is_taken_back(services):
    record(services, requests(2), readings_of(HOUR, 60, powers_w=(600, 200)))
    post_all(services)
    services.corrections.void("test", "r-1", reason="a test", author="test")
    post_all(services)
    assert sums(services, "user")["u-1",][:2] == (0, 0)
    services.corrections.correct("test", "r-0", {"output_tokens": 900}, reason="a test", author="test")
    record(services, [a_request(5, HOUR, output_tokens=200)])
    post_all(services)
    by_user = sums(services, "user")
    assert by_user["u-0",][1] > by_user["u-2",][1]


def test_a_factor_that_comes_later_posts_only_what_differs(services):
    record(services, requests(), readings_of(HOUR, 60))
    post_all(services)
    assert next(iter(sums(services).values()))[3] is None
    a_factor(services, 20_000_000, HOUR - timedelta(days=1))
    assert post_all(services) == 0
    a_factor(services, 20_000_000)
    assert post_all(services) == 1
    assert next(iter(sums(services).values()))[3] > 0


def test_requests_that_no_meter_saw_are_unknown_and_not_zero(services):
    record(services, requests(3, deployment=None))
    post_all(services)
    assert sums(services, "tier", "part") == {("U", "use"): (3, None, None, None)}


def test_a_gpu_that_serves_nobody_is_unallocated_and_one_that_waits_is_idle(services):
    record(services, [], [*readings_of(HOUR, 60), *readings_of(HOUR, 60, gpus=1, deployment=None, node="node-2")])
    post_all(services)
    by_part = sums(services, "part")
    assert by_part["unallocated",][1] == HOUR_AT_400_W_UJ
    assert by_part["idle",][1] == HOUR_AT_400_W_UJ


def test_a_gpu_without_any_measurement_is_unknown_and_not_zero(services):
    silent = [a_reading(HOUR + timedelta(minutes=minute), deployment="albert-large-0") for minute in range(61)]
    record(services, requests(), silent)
    post_all(services)
    assert {row[1] for row in sums(services, "tier", "part").values()} == {None}


def test_requests_that_were_refused_cost_nothing(services):
    record(services, requests(3, status="refused"), readings_of(HOUR, 60))
    post_all(services)
    assert ("use",) not in sums(services, "part")


def test_a_request_over_midnight_of_the_hour_is_charged_in_both_hours_and_counted_in_one(services):
    long = a_request(1, HOUR + timedelta(minutes=50), seconds=1200)
    record(services, [long], readings_of(HOUR, 120))
    assert post_all(services) == 2
    by_hour = sums(services, "hour", part="use")
    assert [row[0] for _hour, row in sorted(by_hour.items())] == [1, 0]
    assert all(row[1] > 0 for row in by_hour.values())


def test_hours_can_be_posted_anew_after_a_change_of_the_site(services, monkeypatch):
    record(services, requests(), readings_of(HOUR, 60))
    post_all(services)
    with transaction(services.engine) as connection:
        connection.execute(sa.text("INSERT INTO site (id, name, zone, pue_ppm, pue_lower_ppm, pue_upper_ppm) "
                                   "VALUES ('s', 'S', 'FR', 1000000, 1000000, 1000000)"))  # fmt: skip
    assert post_all(services) == 0
    monkeypatch.setenv("JAUGE_DATABASE_URL", services.settings.database_url.get_secret_value())
    monkeypatch.setenv("JAUGE_REDIS_URL", services.settings.redis_url.get_secret_value())
    get_settings.cache_clear()
    told = CliRunner().invoke(main, ["carbon", "restate", "--from", "2026-10-05", "--to", "2026-10-06"])
    get_settings.cache_clear()
    assert told.stdout.startswith("1 hours marked, 1 restated here")
    assert next(iter(sums(services).values()))[2] == HOUR_AT_400_W_UJ + HOST_HOUR_UJ


@pytest.mark.parametrize("workers", [3])
def test_several_workers_post_each_hour_once(services, workers):
    import threading

    record(services, requests(), readings_of(HOUR, 120))
    threads = [threading.Thread(target=post_all, args=(services,)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    post_all(services)
    assert count(services) == 2
    assert verify_carbon(services.engine).clean

"""Counters are compared with the ledger: whatever was tampered with or lost is named, and nothing else is."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from metering.catalog.apply import apply, read_file
from metering.cli import main
from metering.database import transaction
from metering.errors import Unavailable
from metering.events.decoding import decode
from metering.quotas import building
from metering.quotas.building import CounterBuilder
from metering.quotas.calls import Reply, keys_of
from metering.quotas.store import CounterStore
from metering.quotas.verifying import CounterCheck, verify_counters
from metering.rules.periods import PARIS
from metering.rules.quantities import QUANTITY_MAX
from metering.scheduler import compare_and_report
from metering.services import Services
from metering.settings import Settings, get_settings
from metering.valkey import connect
from tests.quotas.clocked import ClockedStore, Desk
from tests.quotas.conftest import CATALOGUE, declare
from tests.threads import run_threads

WIDE = CATALOGUE.replace("value: 5}", "value: null}").replace("value: 1000}", "value: 1000000}").replace(
    "value: 5000}", "value: null}"
).replace("value: 3}", "value: 100000}")  # fmt: skip
COUNTERS = keys_of("dinum")[0]
MONTH, DAY, NOW = "t|||3|mo", "u|alice|model:small|3|da", "t|||11|no"
NOWHERE = "redis://127.0.0.1:1"
_numbers = itertools.count(1)


@pytest.fixture
def desk(services: Services) -> Iterator[Desk]:
    declare(services, WIDE)
    with connect(services.stores.redis_url) as client:
        opened = Desk(services, Interrupted(client, datetime.now(UTC)))
        opened.standing()
        yield opened


class Interrupted(ClockedStore):
    """A store that can go away after some calls."""

    calls_left: int | None = None

    def call(self, tenant: str, operation: str, *given: Any) -> Reply:
        if self.calls_left == 0:
            raise Unavailable("counters_unavailable", "Away.")
        if self.calls_left is not None:
            self.calls_left -= 1
        return super().call(tenant, operation, *given)


def record(services: Services, tokens: int = 10, *, count: int = 1, at: datetime | None = None, **who: Any) -> None:
    """Events in one batch, of an hour ago or less."""
    time = (at or datetime.now(UTC)).isoformat()
    lines = []
    for _ in range(count):
        number = next(_numbers)
        data = {
            "tenant": "dinum", "operation": "chat", "model_requested": "small", "model_served": "small",
            "user": "alice", "started_at": time, "status": "ok", "input_tokens": tokens, "output_tokens": 0, **who,
        }  # fmt: skip
        event = {
            "specversion": "1.0", "type": "jauge.usage.v1", "source": "t", "id": f"verified-{number}", "time": time,
            "data": {name: value for name, value in data.items() if value is not None},
        }  # fmt: skip
        lines.append(json.dumps(event).encode())
    assert services.intake.take(decode(b"\n".join(lines), "ndjson", count), "http").is_whole


def differences(builder: CounterBuilder) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    verify_counters(builder, lambda *difference: found.append(difference))
    return found


def tamper(desk: Desk, field: str, change: Callable[[list[int]], list[int] | None]) -> None:
    client = desk.store.client
    changed = change(msgspec.msgpack.decode(client.hget(COUNTERS, field)))
    if changed is None:
        client.hdel(COUNTERS, field)
    else:
        client.hset(COUNTERS, field, msgspec.msgpack.encode(changed))


@pytest.fixture
def busy(desk: Desk) -> Desk:
    """Counters with a bit of everything: held, committed, settled, recorded but not settled, over, corrected."""
    for number in range(6):
        assert desk.reserve(f"r{number}", 5, 20)[0].status == "ok"
    desk.extend("r0", 50)
    desk.commit("r1", input_tokens=4, output_tokens=3)
    desk.commit("r2", input_tokens=4, output_tokens=300)
    desk.commit("never held", input_tokens=7, output_tokens=0)
    desk.release("r3")
    record(desk.services, reservation="r1")
    record(desk.services, count=3)
    desk.services.corrections.correct(
        "t", f"verified-{next(_numbers) - 1}", {"input_tokens": 3}, reason="wrong", author="a"
    )
    desk.settle()
    record(desk.services, reservation="r2", tokens=44)
    record(desk.services, user="bob")
    desk.store.move(seconds=40)
    desk.extend("r4", 20)
    desk.store.move(seconds=30)  # what wasn't kept alive is over
    assert desk.standing()["tenant concurrent_requests/now"] == (0, 1)
    return desk


def test_nothing_differs_however_far_settling_is(busy: Desk) -> None:
    assert differences(busy.builder) == []
    check = verify_counters(busy.builder, lambda *_: None)
    assert (check.tenants, check.unready) == (1, 0)
    assert check.counters >= 4
    busy.settle()
    assert differences(busy.builder) == []
    busy.store.client.flushall()
    busy.standing()
    assert differences(busy.builder) == []


def test_names_that_come_to_mean_another_model_are_no_difference(busy: Desk) -> None:
    alias = "aliases: [{id: nice, model: small}]\n"
    declare(busy.services, WIDE + alias)
    busy.standing()
    record(busy.services, model_requested="nice", model_served=None)
    busy.settle()
    assert differences(busy.builder) == []
    declare(busy.services, WIDE + alias.replace("small", "large"))
    busy.standing()
    assert busy.standing(model="large")["user total_tokens/day"] == (10, 0)
    assert differences(busy.builder) == []


@pytest.mark.parametrize(
    ("field", "change", "told"),
    [
        (MONTH, lambda it: [*it[:2], it[2] + 1, it[3]], "are used, and"),
        (DAY, lambda it: [*it[:2], it[2] - 1, it[3]], "are used, and"),
        (DAY, lambda it: [*it[:2], it[2], it[3] + 1], "are held, and"),
        (MONTH, lambda _it: None, "0 are used, and"),
        (NOW, lambda it: [*it[:2], 1, it[3]], "1 are used, and 0 are recorded or committed"),
        (NOW, lambda _it: None, "0 are held, and open holds have 1"),
    ],
)
def test_what_was_tampered_with_is_named(busy: Desk, field: str, change: Any, told: str) -> None:
    tamper(busy, field, change)
    found = differences(busy.builder)
    assert {(kind, where) for kind, where, _detail in found} == {("counter_differs", f"dinum: {field}")}
    assert told in found[0][2]


def test_a_counter_of_which_the_ledger_knows_nothing_is_named(busy: Desk) -> None:
    packed = busy.store.client.hget(COUNTERS, MONTH)
    busy.store.client.hset(COUNTERS, "u|nobody|model:small|3|da", packed)
    assert {where for _kind, where, _detail in differences(busy.builder)} == {"dinum: u|nobody|model:small|3|da"}
    busy.store.client.hdel(COUNTERS, "u|nobody|model:small|3|da")
    assert differences(busy.builder) == []


def test_a_settling_that_stopped_half_way_is_no_difference(busy: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "PIECE", 7)
    monkeypatch.setattr(building, "ENTRIES", 3)
    for _ in range(2):
        record(busy.services, count=20)
    for calls in range(1, 8):
        busy.store.calls_left = calls
        with suppress(Unavailable):
            busy.settle()
        busy.store.calls_left = None
        assert differences(busy.builder) == []
    busy.settle()
    assert differences(busy.builder) == []


def test_an_older_copy_is_named(busy: Desk) -> None:
    client = busy.store.client
    copy = client.dump(COUNTERS)
    record(busy.services)
    busy.settle()
    client.restore(COUNTERS, 0, copy, replace=True)
    assert [(kind, where) for kind, where, _detail in differences(busy.builder)] == [("counters_older", "dinum")]


def test_counters_that_are_to_be_built_first_are_not_compared(busy: Desk) -> None:
    declare(
        busy.services,
        WIDE.replace("tenants:", '  - {scope: user, selector: "*", meter: requests, window: day, value: 9}\ntenants:'),
    )
    assert verify_counters(busy.builder, pytest.fail) == CounterCheck(0, 0, 1)
    busy.store.client.flushall()
    assert verify_counters(busy.builder, pytest.fail) == CounterCheck(0, 0, 1)
    busy.standing()
    assert verify_counters(busy.builder, pytest.fail).tenants == 1


def test_an_event_that_was_ahead_over_midnight_is_no_difference(services: Services) -> None:
    """It counts in the day that was open, and is recorded in its own."""
    declare(services, WIDE)
    midnight = datetime.now(UTC).astimezone(PARIS).replace(hour=0, minute=0, second=0, microsecond=0)
    with connect(services.stores.redis_url) as client:
        desk = Desk(services, ClockedStore(client, midnight - timedelta(minutes=1)))
        desk.standing()
        record(services, at=midnight + timedelta(minutes=2))
        recorded(services, midnight - timedelta(minutes=1))
        desk.settle()
        desk.store.set(midnight + timedelta(minutes=3))
        assert desk.standing()["user total_tokens/day"] == (0, 0)
        assert differences(desk.builder) == []
        record(services, 5, at=midnight + timedelta(minutes=3))
        desk.settle()
        assert differences(desk.builder) == []
        tamper(desk, DAY, lambda it: [*it[:2], 16, it[3]])
        assert [where for _kind, where, _detail in differences(desk.builder)] == [f"dinum: {DAY}"]


def recorded(services: Services, at: datetime) -> None:
    """As if everything had been recorded then."""
    with services.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE ledger_batch DISABLE TRIGGER USER")
        connection.exec_driver_sql("UPDATE ledger_batch SET recorded_at = %s", (at,))
        connection.exec_driver_sql("ALTER TABLE ledger_batch ENABLE TRIGGER USER")


def test_amounts_beyond_what_numbers_hold_exactly_are_no_difference(busy: Desk) -> None:
    for _ in range(3):
        record(busy.services, tokens=QUANTITY_MAX)
    busy.settle()
    assert differences(busy.builder) == []


def test_requests_may_run_meanwhile(services: Services) -> None:
    declare(services, WIDE)
    desks = [Desk(services, CounterStore(connect(services.stores.redis_url))) for _ in range(2)]
    builder = desks[0].builder
    desks[0].standing()
    rounds = 40

    def use(desk: Desk, name: str) -> None:
        for number in range(rounds):
            reservation = f"{name}-{number}"
            desk.reserve(reservation, 5, 10)
            if number % 3:
                desk.commit(reservation, input_tokens=5, output_tokens=number)
            if number % 2:
                record(services, reservation=reservation)
            if number % 5 == 0:
                desk.settle()

    def compare() -> None:
        for _ in range(15):
            assert differences(builder) == []

    run_threads([lambda: use(desks[0], "a"), lambda: use(desks[1], "b"), compare])
    desks[0].settle()
    assert differences(builder) == []


def test_while_the_store_is_away_nothing_passes_for_compared(busy: Desk) -> None:
    busy.store.calls_left = 0
    with pytest.raises(Unavailable):
        verify_counters(busy.builder, pytest.fail)
    with capture_logs() as logs:
        compare_and_report(busy.builder)
    assert [(line["event"], line["log_level"]) for line in logs] == [("counters_not_compared", "error")]


def test_the_worker_says_every_day_what_differs(busy: Desk) -> None:
    tamper(busy, MONTH, lambda it: [*it[:2], 7, it[3]])
    with capture_logs() as logs:
        compare_and_report(busy.builder)
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("counters_built", "info"), ("counters_differ", "error"), ("counters_compared", "info"),
    ]  # fmt: skip
    assert (logs[1]["where"], logs[-1]["differences"], logs[-1]["repaired"]) == (f"dinum: {MONTH}", 1, 1)
    assert differences(busy.builder) == []


def copied(client: Any) -> dict[str, bytes]:
    return {key: client.dump(key) for key in keys_of("dinum")}


def test_a_replica_that_lost_the_last_settle_is_repaired(busy: Desk) -> None:
    """Promoted in its primary's place, it has the counters and holds of a moment ago, and nobody settles any more."""
    busy.settle()
    client = busy.store.client
    behind = copied(client)
    record(busy.services, tokens=7, reservation="r4")
    busy.settle()
    for key, value in behind.items():
        client.restore(key, 0, value, replace=True)
    assert [kind for kind, _where, _detail in differences(busy.builder)] == ["counters_older"]
    told: list[str] = []
    check = verify_counters(busy.builder, lambda kind, *_: told.append(kind), is_repairing=True)
    assert (told, check.repaired) == (["counters_older"], 1)
    assert differences(busy.builder) == []
    assert busy.standing()["tenant total_tokens/month"][1] == 0  # its holds were older, too


def test_a_repair_keeps_holds_where_only_sums_differ(busy: Desk) -> None:
    before = busy.standing()
    tamper(busy, MONTH, lambda it: [*it[:2], it[2] + 100, it[3] + 1])
    assert len(differences(busy.builder)) == 2
    assert verify_counters(busy.builder, lambda *_: None, is_repairing=True).repaired == 1
    assert differences(busy.builder) == []
    busy.settle()
    after = busy.standing()
    assert {name: held for name, (_used, held) in after.items()} == {name: held for name, (_u, held) in before.items()}


def test_what_somebody_built_meanwhile_is_not_built_again(busy: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tamper(busy, MONTH, lambda it: [*it[:2], 7, it[3]])
    real = CounterBuilder.build

    def build_twice(builder: CounterBuilder, *given: Any, **options: Any) -> None:
        real(builder, *given, **options)
        real(builder, *given, **options)

    monkeypatch.setattr(CounterBuilder, "build", build_twice)
    epoch = busy.builder.store.call("dinum", "look").epoch
    assert verify_counters(busy.builder, lambda *_: None, is_repairing=True).repaired == 1
    assert busy.builder.store.call("dinum", "look").epoch == epoch + 1


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """`jauge verify` on the ledger above."""
    monkeypatch.setenv("JAUGE_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("JAUGE_REDIS_URL", settings.redis_url.get_secret_value())
    get_settings.cache_clear()
    yield lambda *words: CliRunner().invoke(main, ["verify", *words])
    get_settings.cache_clear()


@pytest.fixture
def today(services: Services) -> Desk:
    """Counters on the store's own clock."""
    with transaction(services.engine) as connection:
        apply(connection, read_file(WIDE.encode()))
    services.catalog.refresh()
    desk = Desk(services, CounterStore(services.redis()))
    desk.standing()
    record(services)
    desk.settle()
    return desk


def test_the_command_names_counters_that_differ(command: Callable[..., Result], today: Desk) -> None:
    clean = command()
    assert (clean.exit_code, "2 counters of 1 administrations: compared" in clean.stdout) == (0, True), clean.stdout
    with today.services.redis() as client:
        start, end, used, held = msgspec.msgpack.decode(client.hget(COUNTERS, MONTH))
        client.hset(COUNTERS, MONTH, msgspec.msgpack.encode([start, end, used + 5, held]))
    told = command()
    assert told.exit_code == 1
    assert f"counter_differs: dinum: {MONTH}: 15 are used, and 10 are recorded or committed" in told.stdout
    printed = json.loads(command("--json").stdout)
    counted = {"tenants": 1, "counters": 2, "unready": 0, "repaired": 0}
    assert (printed["clean"], printed["counters"]) == (False, counted)
    assert [one["kind"] for one in printed["differences"]] == ["counter_differs"]


def test_the_command_repairs_what_differs(command: Callable[..., Result], today: Desk) -> None:
    today.reserve("r1", 5)
    with today.services.redis() as client:
        start, end, used, held = msgspec.msgpack.decode(client.hget(COUNTERS, MONTH))
        client.hset(COUNTERS, MONTH, msgspec.msgpack.encode([start, end, used + 5, held]))
    told = command("--repair")
    assert told.exit_code == 1  # it did differ
    assert f"counter_differs: dinum: {MONTH}: 15 are used" in told.stdout
    assert "1 administrations' were built anew." in told.stdout
    assert command("--repair").exit_code == 0
    assert today.standing()["tenant total_tokens/month"] == (10, 5)


def test_the_command_says_that_counters_were_not_compared(
    command: Callable[..., Result], today: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAUGE_REDIS_URL", NOWHERE)
    get_settings.cache_clear()
    told = command()
    assert told.exit_code == 75
    assert "nothing differs" in told.stdout
    assert "Counters: not compared with the ledger [counters_unavailable]" in told.stdout
    printed = json.loads(command("--json").stdout)
    assert (printed["clean"], printed["counters"]) == (True, {"error": "counters_unavailable"})

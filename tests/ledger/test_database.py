"""Errors of a real server: which are outages that pass, and which are faults of ours."""

import threading
import time

import pytest
import sqlalchemy as sa

from metering.database import engine_for, outage_of, raw, transaction
from metering.errors import Unavailable


@pytest.fixture
def engine(database_url):
    opened = engine_for(database_url, connections_max=3)
    with opened.begin() as connection:
        connection.execute(sa.text("CREATE TABLE scratch AS SELECT n, 0 AS value FROM generate_series(1, 2) n"))
    yield opened
    opened.dispose()


def outage(engine: sa.Engine, *statements: str, snapshot: bool = False) -> Unavailable:
    with pytest.raises(Unavailable) as raised, transaction(engine, snapshot=snapshot) as connection:  # noqa: PT012
        for statement in statements:
            connection.execute(sa.text(statement))
    assert raised.value.retry_after_s
    return raised.value


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("53100", "storage_full"), ("58030", "storage_full"),
        ("53200", "database_unavailable"), ("53300", "database_unavailable"), ("57P01", "database_unavailable"),
        ("57P02", "database_unavailable"), ("57P03", "database_unavailable"), ("57014", "database_unavailable"),
        ("08006", "database_unavailable"), ("25006", "database_unavailable"), ("25P03", "database_unavailable"),
        ("40001", "database_busy"), ("40P01", "database_busy"), ("55P03", "database_busy"),
    ],
)  # fmt: skip
def test_an_outage_is_told_by_its_state(engine, state, code):
    assert outage(engine, f"DO $$ BEGIN RAISE 'x' USING ERRCODE = '{state}'; END $$").code == code


@pytest.mark.parametrize("state", ["23505", "22003", "42P01", "XX000", "54000", "23001", "55000", "28P01"])
def test_a_fault_stays_what_it_is(engine, state):
    with pytest.raises(sa.exc.DBAPIError) as raised, transaction(engine) as connection:
        connection.execute(sa.text(f"DO $$ BEGIN RAISE 'x' USING ERRCODE = '{state}'; END $$"))
    assert raised.value.orig.sqlstate == state


@pytest.mark.parametrize(
    "url", ["postgresql://jauge@127.0.0.1:1/jauge", "postgresql://jauge@/jauge?host=/nowhere&port=5432"]
)
def test_a_server_that_is_not_there_is_an_outage(url):
    engine = engine_for(url)
    assert outage(engine, "SELECT 1").code == "database_unavailable"


def test_a_connection_that_was_ended_is_an_outage_and_the_next_one_works(engine):
    end = "SELECT pg_terminate_backend(pg_backend_pid())"
    assert outage(engine, end).code == "database_unavailable"
    with transaction(engine) as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_a_connection_that_was_ended_during_a_copy_is_an_outage(engine):
    def copy(connection: sa.Connection) -> None:
        with raw(connection).cursor().copy("COPY scratch FROM STDIN") as rows:
            rows.write(b"1\t1\n")
            end(connection)
            for _ in range(2000):
                rows.write(b"1\t1\n" * 1000)

    def end(connection: sa.Connection) -> None:
        pid = raw(connection).info.backend_pid
        with engine.connect() as other:
            other.execute(sa.text(f"SELECT pg_terminate_backend({pid}, 5000)"))

    with pytest.raises(Unavailable) as raised, transaction(engine) as connection:
        copy(connection)
    assert raised.value.code == "database_unavailable"
    with transaction(engine) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM scratch")) == 2


def test_waiting_connections_that_were_all_ended_are_replaced_unseen(engine):
    with engine.connect() as one, engine.connect() as two:
        pids = [raw(connection).info.backend_pid for connection in (one, two)]
    with engine.connect() as other:
        for pid in {*pids} - {raw(other).info.backend_pid}:
            other.execute(sa.text(f"SELECT pg_terminate_backend({pid}, 5000)"))
    for _ in range(3):
        with transaction(engine) as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1


def test_a_read_only_server_is_an_outage(engine):
    found = outage(engine, "SET TRANSACTION READ ONLY", "INSERT INTO scratch VALUES (1)")
    assert found.code == "database_unavailable"


def test_a_transaction_that_idled_too_long_is_an_outage(engine):
    with pytest.raises(Unavailable) as raised, transaction(engine) as connection:  # noqa: PT012
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 50"))
        time.sleep(0.3)
        connection.execute(sa.text("SELECT 1"))
    assert raised.value.code == "database_unavailable"


def test_a_lock_that_is_not_had_in_time_is_an_outage(engine):
    with engine.begin() as holder:
        holder.execute(sa.text("SELECT pg_advisory_xact_lock(1)"))
        found = outage(engine, "SET LOCAL lock_timeout = 50", "SELECT pg_advisory_xact_lock(1)")
    assert found.code == "database_busy"


def test_writers_that_serialise_and_lose_are_told_to_come_back(engine):
    with pytest.raises(Unavailable) as raised, transaction(engine, snapshot=True) as connection:  # noqa: PT012
        connection.execute(sa.text("SELECT * FROM scratch"))
        with transaction(engine) as other:
            other.execute(sa.text("UPDATE scratch SET value = 1"))
        connection.execute(sa.text("UPDATE scratch SET value = 2"))
    assert raised.value.code == "database_busy"


def test_a_deadlock_is_told_to_one_of_its_parties(engine):
    both = threading.Barrier(2)
    codes = []

    def update(*order: int) -> None:
        try:
            with transaction(engine) as connection:
                connection.execute(sa.text("SET LOCAL deadlock_timeout = '50ms'"))
                for number in order:
                    connection.execute(sa.text(f"UPDATE scratch SET value = value + 1 WHERE n = {number}"))
                    if number == order[0]:
                        both.wait(10)
        except Unavailable as error:
            codes.append(error.code)

    threads = [threading.Thread(target=update, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert codes == ["database_busy"]


def test_a_pool_without_a_free_connection_is_an_outage(database_url, monkeypatch):
    engine = engine_for(database_url, connections_max=1)
    monkeypatch.setattr(engine.pool, "_timeout", 0.1)
    with engine.connect():
        assert outage(engine, "SELECT 1").code == "database_unavailable"
    engine.dispose()


def test_nobody_waits_for_a_process_that_froze_inside_a_transaction(engine):
    with transaction(engine) as connection:
        shown = [connection.scalar(sa.text(f"SHOW {name}"))
                 for name in ("lock_timeout", "idle_in_transaction_session_timeout", "timezone")]  # fmt: skip
    assert shown == ["1min", "1min", "UTC"]


def test_a_block_that_raises_writes_nothing(engine):
    with pytest.raises(ZeroDivisionError), transaction(engine) as connection:  # noqa: PT012
        connection.execute(sa.text("DELETE FROM scratch"))
        raise ZeroDivisionError
    with transaction(engine) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM scratch")) == 2


def test_errors_of_others_are_no_outages():
    assert outage_of(ValueError()) is None
    assert outage_of(sa.exc.InvalidRequestError()) is None

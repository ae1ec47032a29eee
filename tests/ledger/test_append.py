"""Appending: each event counts once, whatever the order, the repeats and the batches it comes in."""

import hashlib
import itertools
import multiprocessing
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.database import engine_for
from metering.ledger import series as series_module
from metering.ledger.append import Ledger, Outcome
from metering.ledger.series import Series, SeriesRegistry
from metering.rules.periods import month_bounds
from metering.rules.quantities import QUANTITIES, QUANTITY_MAX
from tests.ledger.conftest import Book, open_book
from tests.ledger.frames import NOON, Row, a_frame, a_row, a_series, expected_cells, stored_cells
from tests.threads import run_threads

ACCEPTED, DUPLICATE, CONFLICT = Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT


@pytest.fixture
def other(book: Book) -> Iterator[Book]:
    """The same ledger, as another process knows it."""
    opened = open_book(book.url)
    yield opened
    opened.engine.dispose()


# Outcomes


def test_repeats_within_a_frame_count_once(book):
    row, changed = a_row("a", input_tokens=5), a_row("a", input_tokens=6)
    assert book.append(row, row, changed, a_row("b"), row) == [ACCEPTED, DUPLICATE, CONFLICT, ACCEPTED, DUPLICATE]
    assert book.append(changed, row) == [CONFLICT, DUPLICATE]
    assert book.verify().rows == 2


@pytest.mark.parametrize(
    "change",
    [
        {"input_tokens": None}, {"input_tokens": 6}, {"output_tokens": 0}, {"series": 2}, {"queue_ms": 0},
        {"occurred_at": NOON + timedelta(microseconds=1)}, {"occurred_at": NOON - timedelta(days=40)},
        {"ended_at": NOON + timedelta(hours=1)}, {"reservation": "r"}, {"parent": "p"}, {"attempt": 1},
    ],
    ids=str,
)  # fmt: skip
def test_the_same_identity_with_anything_else_is_a_conflict_and_changes_nothing(book, change):
    book.registry.numbers([a_series(status="error")])
    assert book.append(a_row("a", input_tokens=5)) == [ACCEPTED]
    before = stored_cells(book.engine, "dinum")
    same = {"input_tokens": 5, "ended_at": NOON + timedelta(seconds=1)}
    assert book.append(a_row("a", **{**same, **change})) == [CONFLICT]
    assert book.append(a_row("a", input_tokens=5)) == [DUPLICATE]
    assert stored_cells(book.engine, "dinum") == before
    assert (book.verify().clean, book.verify().batches) == (True, 1)


def test_the_same_id_of_another_source_is_another_event(book):
    assert book.append(a_row("a"), a_row("a", source="other")) == [ACCEPTED, ACCEPTED]


def test_new_events_beside_known_ones_are_written_in_one_batch(book):
    known = [a_row() for _ in range(5)]
    book.append(*known)
    for turn in range(2):  # with and without having met repeats just before
        fresh = [a_row() for _ in range(3)]
        mixed = [known[0], fresh[0], known[1], fresh[1], fresh[2]]
        assert book.append(*mixed) == [DUPLICATE, ACCEPTED, DUPLICATE, ACCEPTED, ACCEPTED], turn
    assert [batch for (batch,) in book.sql("SELECT row_count FROM ledger_batch ORDER BY seq")] == [5, 3, 3]
    assert book.verify().clean


def test_a_frame_without_news_makes_no_batch(book):
    assert book.append() == []
    book.append(a_row("a"))
    assert book.append(a_row("a")) == [DUPLICATE]
    assert book.verify().batches == 1


# Any order, any batches

SHAPES = [
    {},
    {"model_served": "large", "project": "p"},
    {"status": "error", "user": "u", "api_key": "k"},
    {"operation": "embedding"},
]
EDGES = [
    month_bounds(2026, month)[0] + timedelta(microseconds=offset) for month in (3, 4, 10, 11) for offset in (-1, 0)
]
payloads = st.fixed_dictionaries(
    {
        "shape": st.integers(0, len(SHAPES) - 1),
        "occurred_at": st.sampled_from(EDGES)
        | st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        "uncounted_requests": st.integers(0, 1),
        **{name: st.none() | st.integers(0, QUANTITY_MAX) for name in QUANTITIES[:4]},
    }
)
_tenants = (f"tenant-{number}" for number in itertools.count(1))


@settings(max_examples=50)
@given(st.lists(payloads, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_any_order_repetition_and_splitting_of_the_same_events_gives_the_same_usage(book, events, rng):
    tenant = next(_tenants)
    shapes = [a_series(source=tenant, tenant=tenant, **shape) for shape in SHAPES]
    numbers = book.registry.numbers(shapes)
    rows = [
        a_row(f"e{place}", source=tenant, series=numbers[shapes[event.pop("shape")]], **event)
        for place, event in enumerate(map(dict, events))
    ]
    sent = rows + rng.choices(rows, k=len(rows))
    rng.shuffle(sent)
    accepted = 0
    while sent:
        size = rng.randint(1, len(sent))
        chunk, sent = sent[:size], sent[size:]
        outcomes = book.append(*chunk)
        assert CONFLICT not in outcomes
        accepted += outcomes.count(ACCEPTED)
    assert accepted == len(rows)
    by_number = {number: one for one, number in numbers.items()}
    assert stored_cells(book.engine, tenant) == expected_cells(rows, by_number)
    assert book.verify().clean


# Sums


def test_sums_beyond_64_bits_are_exact(book):
    count = 2_500
    for _ in range(2):
        book.append(*(a_row(input_tokens=QUANTITY_MAX, storage_byte_hours=QUANTITY_MAX) for _ in range(count)))
    total = 2 * count * QUANTITY_MAX
    assert total > 2**64
    for cells in stored_cells(book.engine, "dinum"):
        ((_, cell),) = cells.items()
        assert (cell["input_tokens"], cell["storage_byte_hours"], cell["output_tokens"]) == (total, total, None)
    sums = book.sql("SELECT sums FROM ledger_batch ORDER BY seq")
    assert [batch[QUANTITIES.index("input_tokens")] for (batch,) in sums] == [count * QUANTITY_MAX] * 2
    assert book.verify().clean


def test_unknown_and_zero_stay_apart_in_every_sum(book):
    book.append(a_row(pages=None, images=0), a_row(pages=None, images=None))
    for cells in stored_cells(book.engine, "dinum"):
        ((_, cell),) = cells.items()
        assert (cell["pages"], cell["images"]) == (None, 0)
    book.append(a_row(pages=0))
    for cells in stored_cells(book.engine, "dinum"):
        ((_, cell),) = cells.items()
        assert (cell["pages"], cell["images"]) == (0, 0)


# Partitions


@pytest.mark.parametrize(("year", "month"), [(2026, 3), (2026, 4), (2026, 10), (2026, 11), (2027, 1)])
def test_a_row_lies_in_the_month_of_the_books_it_began_in(book, year, month):
    start, _ = month_bounds(year, month)
    before, after = a_row("before", occurred_at=start - timedelta(microseconds=1)), a_row("after", occurred_at=start)
    assert book.append(before, after) == [ACCEPTED, ACCEPTED]
    places = dict(book.sql("SELECT event_id, tableoid::regclass::text FROM ledger_entry"))
    earlier = (year - 1, 12) if month == 1 else (year, month - 1)
    assert places == {
        "before": "ledger_entry_{:04d}_{:02d}".format(*earlier),
        "after": f"ledger_entry_{year:04d}_{month:02d}",
    }
    days = {cell[0].isoformat() for cell in stored_cells(book.engine, "dinum")[1]}
    assert f"{year:04d}-{month:02d}-01" in days
    assert book.verify().clean


def test_a_partition_that_another_process_dropped_is_made_again(book):
    book.append(a_row())
    book.sql("DROP TABLE ledger_entry_2026_10")
    assert book.append(a_row("late")) == [ACCEPTED]
    assert book.sql("SELECT event_id FROM ledger_entry") == [("late",)]


def test_rows_never_go_to_a_partition_that_is_detached(book):
    book.append(a_row())
    book.sql("ALTER TABLE ledger_entry DETACH PARTITION ledger_entry_2026_10")
    with pytest.raises(sa.exc.ProgrammingError):
        book.append(a_row())
    assert book.sql("SELECT count(*) FROM ledger_entry_2026_10") == [(1,)]


# Series


def test_a_registry_that_forgets_still_knows_every_series_of_a_frame(book, monkeypatch):
    monkeypatch.setattr(series_module, "REMEMBERED_MAX", 3)
    wanted = [a_series(project=f"p{number}") for number in range(20)]
    numbers = book.registry.numbers(wanted)
    assert len(set(numbers.values())) == 20
    rows = [a_row(series=numbers[one]) for one in wanted]
    assert book.append(*rows) == [ACCEPTED] * 20
    assert book.registry.numbers(wanted) == numbers
    assert book.verify().clean


def test_series_met_again_use_up_no_numbers(book, other):
    wanted = [a_series(project=f"p{number}") for number in range(10)]
    numbers = book.registry.numbers(wanted)
    for _ in range(3):
        assert SeriesRegistry(book.engine).numbers(wanted) == numbers
    assert other.registry.numbers([a_series(project="new")])[a_series(project="new")] == max(numbers.values()) + 1


def test_more_series_than_a_query_has_parameters(book):
    book.sql(
        "INSERT INTO ledger_series (digest, source, tenant, project, operation, model_requested, streamed, status) "
        "SELECT int4send(n), 'test', 'dinum', n::text, 'chat', 'small', false, 'ok' FROM generate_series(1, 70000) n"
    )
    numbers = [number for (number,) in book.sql("SELECT number FROM ledger_series ORDER BY number")]
    with book.engine.connect() as connection:
        assert list(SeriesRegistry(book.engine).get(connection, numbers)) == numbers


# At once


def test_threads_that_register_the_same_series_agree(book):
    wanted = [a_series(project=f"p{number}") for number in range(300)]
    found: list[dict[Series, int]] = []

    def register(seed: int) -> None:
        shuffled = random.Random(seed).sample(wanted, len(wanted))
        registry = SeriesRegistry(book.engine)
        found.append({})
        for start in range(0, len(shuffled), 30):
            found[-1] |= registry.numbers(shuffled[start : start + 30])

    run_threads([lambda seed=seed: register(seed) for seed in range(6)])
    assert all(one == found[0] for one in found)
    assert len(set(found[0].values())) == 300


MONTHS = [NOON + timedelta(days=31 * month) for month in range(6)]


def the_rows(series: int) -> list[Row]:
    return [
        a_row(f"e{n}", series=1 + n % series, occurred_at=MONTHS[n % len(MONTHS)], input_tokens=n, requests=1)
        for n in range(600)
    ]


def append_shuffled(url: str, seed: int, answers) -> None:
    """A writer of its own: all the rows, in its own order, in batches of its own sizes."""
    rng = random.Random(seed)
    book = open_book(url)
    rows = the_rows(3)
    rng.shuffle(rows)
    accepted = 0
    while rows:
        size = rng.randint(1, 60)
        outcomes = book.append(*rows[:size])
        assert CONFLICT not in outcomes
        accepted += outcomes.count(ACCEPTED)
        rows = rows[size:]
    answers.put(accepted)
    book.engine.dispose()


def test_writers_in_threads_and_processes_share_one_chain_without_deadlock(book):
    by_number = {1: a_series(), 2: a_series(status="error"), 3: a_series(project="p")}
    for one in by_number.values():
        book.registry.numbers([one])
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    processes = [spawn.Process(target=append_shuffled, args=(book.url, seed, answers)) for seed in range(3)]
    for process in processes:
        process.start()
    run_threads([lambda seed=seed: append_shuffled(book.url, seed, answers) for seed in range(10, 13)])
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert sum(answers.get() for _ in range(6)) == 600
    result = book.verify()
    assert (result.clean, result.rows) == (True, 600)
    seqs = [seq for (seq,) in book.sql("SELECT seq FROM ledger_batch ORDER BY seq")]
    assert seqs == list(range(1, len(seqs) + 1))
    times = [at for (at,) in book.sql("SELECT recorded_at FROM ledger_batch ORDER BY seq")]
    assert times == sorted(times)
    assert stored_cells(book.engine, "dinum") == expected_cells(the_rows(3), by_number)


def test_a_writer_needs_no_second_connection(database_url):
    engine = engine_for(database_url, connections_max=1)
    registry = SeriesRegistry(engine)
    registry.numbers([a_series()])
    ledger = Ledger(engine, SeriesRegistry(engine))  # one that has yet to read the series
    assert ledger.append(a_frame([a_row()])) == [ACCEPTED]
    engine.dispose()


# What is written stays


APPENDED = ["ledger_series", "ledger_batch", "ledger_identity", "ledger_entry", "ledger_entry_2026_10"]
COLUMN = {"ledger_series": "tenant", "ledger_batch": "row_count", "ledger_identity": "fingerprint"}


@pytest.mark.parametrize("table", APPENDED)
def test_no_row_of_the_ledger_can_be_changed_or_removed(book, table):
    book.append(a_row())
    before = book.sql(f"SELECT * FROM {table}")
    column = COLUMN.get(table, "input_tokens")
    for statement in (
        f"UPDATE {table} SET {column} = {column}",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
        f"TRUNCATE {table} CASCADE",
        f"MERGE INTO {table} USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
    ):
        with pytest.raises(sa.exc.DBAPIError, match="the ledger only grows"):
            book.sql(statement)
    assert book.sql(f"SELECT * FROM {table}") == before


def test_a_partition_made_later_is_guarded_as_well(book):
    book.append(a_row(occurred_at=NOON + timedelta(days=400)))
    for statement in ("DELETE FROM ledger_entry_2027_11", "TRUNCATE ledger_entry_2027_11",
                      "UPDATE ledger_entry_2027_11 SET batch_seq = 9"):  # fmt: skip
        with pytest.raises(sa.exc.DBAPIError, match="the ledger only grows"):
            book.sql(statement)


def test_fingerprints_do_not_depend_on_the_batch(book, other):
    book.append(a_row("x"), a_row("a"))
    book.append(a_row("b"))
    assert other.append(a_row("b"), a_row("a"), a_row("x")) == [DUPLICATE] * 3
    digests = {hashlib.sha256(bytes(digest)).digest() for (digest,) in book.sql("SELECT rows_digest FROM ledger_batch")}
    assert len(digests) == 2

"""Verification: whatever is changed behind the ledger's back is found and named, and nothing else is."""

import json
import threading

import pytest
from click.testing import CliRunner

from metering import cli
from metering.database import raw, transaction
from metering.ledger import verify as verify_module
from metering.ledger.rows import COPY_HEADER, ENTRY_COLUMNS, fingerprints_of, row_prefix
from metering.ledger.verify import Verification, verify
from metering.rules.chain import GENESIS, identity_of, link
from metering.settings import get_settings
from tests.ledger.conftest import Book
from tests.ledger.frames import NOON, a_row, a_series
from tests.threads import run_threads

ROWS = 4
BATCHES = 4


def place(batch: int, row: int) -> str:
    """How a difference names a row of the ledger below."""
    return f"batch {batch}, entry {identity_of('test', f'b{batch}-{row}').hex()}"


def which(batch: int, row: int) -> str:
    return f"identity = '{identity_of('test', f'b{batch}-{row}').hex()}'"


@pytest.fixture
def written(book: Book) -> Book:
    """Four batches of four rows with every column known somewhere; batch 4 corrects a row of batch 1."""
    book.registry.numbers([a_series(project="p", user="u")])
    for batch in range(1, BATCHES):
        book.append(
            *(
                a_row(
                    f"b{batch}-{row}", series=1 + row % 2, input_tokens=10 * batch + row, output_tokens=0, queue_ms=5,
                    first_token_at=NOON, attempt=1, reservation="r", parent="p",
                )
                for row in range(ROWS)
            )
        )  # fmt: skip
    book.corrections.correct("test", "b1-0", {"input_tokens": 3}, reason="why", author="who", id="c1")
    result = book.verify()
    assert (result.clean, result.batches, result.rows) == (True, BATCHES, ROWS * (BATCHES - 1) + 1)
    return book


def named(result: Verification) -> set[tuple[str, str]]:
    return {(difference.kind, difference.where) for difference in result.differences}


COLUMN_CHANGES = {
    "series": "series = 2",
    "tenant": "tenant = tenant + 1",
    "occurred_at": "occurred_at = occurred_at + interval '1 microsecond'",
    "ended_at": "ended_at = ended_at + interval '1 microsecond'",
    "first_token_at": "first_token_at = NULL",
    "queue_ms": "queue_ms = queue_ms + 1",
    "unknown to zero": "pages = 0",
    "zero to unknown": "output_tokens = NULL",
    "quantity": "input_tokens = input_tokens + 1",
    "attempt": "attempt = 2",
    "kind": "kind = 1",
    "uncounted_requests": "uncounted_requests = 1",
    "corrects": "corrects = identity",
    "event_id": "event_id = event_id || 'x'",
    "reservation": "reservation = 's'",
    "parent": "parent = NULL",
    "reason": "reason = ''",
    "author": "author = 'me'",
}


@pytest.mark.parametrize("change", COLUMN_CHANGES.values(), ids=COLUMN_CHANGES)
def test_one_value_of_one_row_that_changed_is_named(written, change):
    written.tamper(f"UPDATE ledger_entry SET {change} WHERE {which(2, 0)}")
    assert ("entry_changed", place(2, 0)) in named(written.verify())


def test_an_entry_that_changed_with_its_fingerprint_is_found_in_its_batch(written):
    written.tamper(
        f"UPDATE ledger_entry SET reason = 'x' WHERE {which(2, 1)}",
        f"UPDATE ledger_identity SET fingerprint = 1 WHERE {which(2, 1)}",
    )
    assert ("entry_changed", place(2, 1)) in named(written.verify())
    forged = forged_fingerprint(written, which(2, 1))
    written.tamper(f"UPDATE ledger_identity SET fingerprint = {forged} WHERE {which(2, 1)}")
    assert named(written.verify()) == {("rows_changed", "batch 2")}


def forged_fingerprint(book: Book, where: str) -> int:
    """What a forger who knows the rules would write."""
    query = f"COPY (SELECT {', '.join(ENTRY_COLUMNS)} FROM ledger_entry WHERE {where}) TO STDOUT (FORMAT binary)"
    with transaction(book.engine) as connection, raw(connection).cursor().copy(query) as copy:
        row = bytes(next(iter(copy))).removeprefix(COPY_HEADER)
        for _ in copy:
            pass
    return int(fingerprints_of([row[len(row_prefix(0)) :]])[0])


def test_a_row_that_was_removed_is_named(written):
    written.tamper(f"DELETE FROM ledger_entry WHERE {which(2, 3)}")
    found = named(written.verify())
    assert ("entry_missing", place(2, 3)) in found
    assert ("sums_differ", "batch 2") in found
    assert {where for _, where in found if where.startswith("batch")} == {place(2, 3), "batch 2"}


def test_a_row_that_was_added_is_named(written):
    written.tamper(
        "INSERT INTO ledger_entry (batch_seq, identity, series, tenant, occurred_at, ended_at, requests, kind, "
        "uncounted_requests, event_id) SELECT 3, '00000000-0000-0000-0000-00000000beef', series, tenant, "
        f"occurred_at, ended_at, 1, 0, 0, 'ghost' FROM ledger_entry WHERE {which(3, 0)}"
    )
    assert ("entry_added", f"batch 3, entry {'beef':0>32}") in named(written.verify())


def test_a_row_that_stands_there_twice_is_named(written):
    written.tamper(f"INSERT INTO ledger_entry SELECT * FROM ledger_entry WHERE {which(3, 1)}")
    assert ("entry_added", place(3, 1)) in named(written.verify())


def test_a_row_of_a_batch_that_does_not_exist_is_named(written):
    written.tamper(f"UPDATE ledger_entry SET batch_seq = 99 WHERE {which(3, 2)}")
    identity = identity_of("test", "b3-2").hex()
    found = named(written.verify())
    assert {("entry_missing", place(3, 2)), ("entry_added", f"batch 99, entry {identity}")} <= found


@pytest.mark.parametrize(
    ("change", "kind", "batches"),
    [
        ("DELETE FROM ledger_identity WHERE {}", "entry_added", {2}),
        ("UPDATE ledger_identity SET fingerprint = fingerprint + 1 WHERE {}", "entry_changed", {2}),
        ("UPDATE ledger_identity SET batch_seq = 3 WHERE {}", "entry_added", {2, 3}),
    ],
    ids=["removed", "changed", "moved"],
)
def test_an_identity_that_was_removed_or_changed_is_named(written, change, kind, batches):
    written.tamper(change.format(which(2, 2)))
    found = named(written.verify())
    assert (kind, place(2, 2)) in found
    assert {("identities_changed", f"batch {batch}") for batch in batches} <= found


def test_an_identity_that_was_added_is_named(written):
    written.tamper("INSERT INTO ledger_identity VALUES (2, '00000000-0000-0000-0000-00000000beef', 7)")
    assert named(written.verify()) == {
        ("entry_missing", f"batch 2, entry {'beef':0>32}"), ("identities_changed", "batch 2"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        "recorded_at = recorded_at + interval '1 microsecond'", "recorded_at = 'infinity'", "row_count = row_count + 1",
        "rows_digest = hash", "sums[2] = sums[2] + 1", "sums[2] = sums[2] + 0.5", "sums[2] = 'NaN'", "sums[6] = 0",
        "sums = '{}'", "hash = rows_digest",
    ],
)  # fmt: skip
def test_a_header_that_changed_is_named(written, change):
    written.tamper(f"UPDATE ledger_batch SET {change} WHERE seq = 2")
    assert ("batch_changed", "batch 2") in named(written.verify())


def test_a_hash_that_was_made_to_fit_breaks_at_the_next_batch(written):
    ((digest, rows, sums, at),) = written.sql(
        "SELECT rows_digest, row_count, sums, (extract(epoch FROM recorded_at) * 1000000)::bigint "
        "FROM ledger_batch WHERE seq = 1"
    )
    numbers = [None if value is None else int(value) for value in sums]
    forged = link(GENESIS, 1, at + 1_000_000, rows, numbers, bytes(digest))
    written.tamper(
        "UPDATE ledger_batch SET recorded_at = recorded_at + interval '1 second', "
        f"hash = '\\x{forged.hex()}' WHERE seq = 1"
    )
    assert named(written.verify()) == {("batch_changed", "batch 2")}


def test_a_batch_that_was_removed_in_the_middle_is_named_and_no_other_is_blamed(written):
    written.tamper("DELETE FROM ledger_batch WHERE seq = 2")
    assert named(written.verify()) == {
        ("batch_missing", "batch 2"),
        *(("entry_added", place(2, row)) for row in range(ROWS)),
        *(("identities_changed", place(2, row)) for row in range(ROWS)),
    }


def test_a_batch_that_was_removed_with_all_its_rows_is_named(written):
    written.tamper(*(f"DELETE FROM {table} WHERE batch_seq = 2" for table in ("ledger_entry", "ledger_identity")),
                   "DELETE FROM ledger_batch WHERE seq = 2")  # fmt: skip
    found = named(written.verify())
    assert ("batch_missing", "batch 2") in found
    assert {kind for kind, _ in found} == {"batch_missing", "rollup_differs"}


def test_a_batch_of_rows_that_was_moved_is_named_row_by_row(written):
    written.tamper("UPDATE ledger_entry SET batch_seq = 3 WHERE batch_seq = 2")
    found = named(written.verify())
    for row in range(ROWS):
        identity = identity_of("test", f"b2-{row}").hex()
        assert {("entry_missing", place(2, row)), ("entry_added", f"batch 3, entry {identity}")} <= found
    assert ("sums_differ", "batch 3") in found


@pytest.mark.parametrize("change", ["project = 'q'", '"user" = NULL', "streamed = true", "http_status = 200"])
def test_a_series_that_changed_is_named_with_the_batches_that_use_it(written, change):
    written.tamper(f"UPDATE ledger_series SET {change} WHERE number = 2")
    found = named(written.verify())
    assert {("series_changed", "series 2"), *(("rows_changed", f"batch {batch}") for batch in (1, 2, 3))} <= found
    assert ("rows_changed", "batch 4") not in found


def test_a_series_that_was_removed_is_found_in_its_batches(written):
    written.tamper("DELETE FROM ledger_series WHERE number = 2")
    assert {("rows_changed", f"batch {batch}") for batch in (1, 2, 3)} <= named(written.verify())


@pytest.mark.parametrize(("rollup", "period", "start"), [
    ("usage_hourly", "hour", "2026-10-05 12:00:00+00"), ("usage_daily", "day", "2026-10-05"),
])  # fmt: skip
@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ("UPDATE {0} SET input_tokens = input_tokens + 1 WHERE project = 'p'", "the cell isn't the sum of its rows"),
        ("UPDATE {0} SET pages = 0 WHERE project = 'p'", "the cell isn't the sum of its rows"),
        ("UPDATE {0} SET output_tokens = NULL WHERE project = 'p'", "the cell isn't the sum of its rows"),
        ("UPDATE {0} SET uncounted_requests = 1 WHERE project = 'p'", "the cell isn't the sum of its rows"),
        ("DELETE FROM {0} WHERE project = 'p'", "the cell is missing"),
    ],
)
def test_a_cell_that_changed_or_was_removed_is_named(written, rollup, period, start, change, detail):
    with written.engine.begin() as connection:
        connection.exec_driver_sql(change.format(rollup))
    (difference,) = written.verify().differences
    assert (difference.kind, difference.detail) == ("rollup_differs", detail)
    assert f"{rollup}: {period}={start}" in difference.where
    assert "tenant=dinum, project=p" in difference.where


@pytest.mark.parametrize(("rollup", "period"), [("usage_hourly", "hour"), ("usage_daily", "day")])
@pytest.mark.parametrize("value", ["'2026-11-01'", "'infinity'"])
def test_a_cell_that_was_added_is_named(written, rollup, period, value):
    written.sql(f"INSERT INTO {rollup} ({period}, tenant, model, operation) VALUES ({value}, 'ghost', 'm', 'chat')")
    (difference,) = written.verify().differences
    assert (difference.kind, difference.detail) == ("rollup_differs", "the cell sums no rows")
    assert "tenant=ghost" in difference.where


def test_many_differences_are_counted_and_the_first_hundred_of_a_kind_named(book):
    book.append(*(a_row() for _ in range(300)))
    book.tamper("UPDATE ledger_entry SET reason = 'x'")
    result = book.verify()
    assert (len(result.differences), result.unnamed, result.counts) == (100, 200, {"entry_changed": 300})


def test_a_ledger_larger_than_a_chunk_is_verified_piece_by_piece(book, monkeypatch):
    monkeypatch.setattr(verify_module, "CHUNK_ROWS", 50)
    monkeypatch.setattr(verify_module, "CHUNK_BATCHES", 3)
    for size in (60, 1, 20, 40, *[2] * 20):
        book.append(*(a_row() for _ in range(size)))
    steps = []
    result = verify(book.engine, lambda done, total: steps.append((done, total)))
    assert (result.clean, result.rows, result.batches) == (True, 161, 24)
    assert len(steps) > 5
    assert steps[-1] == (161, 161)


def test_an_empty_ledger_is_clean(book):
    result = book.verify()
    assert (result.clean, result.head_seq, result.head_hash) == (True, 0, bytes(32).hex())


def test_verification_is_clean_while_others_write(book):
    done = threading.Event()
    results = []

    def write() -> None:
        try:
            for turn in range(40):
                book.append(*(a_row(occurred_at=NOON) for _ in range(20)))
                if turn % 10 == 5:
                    row = a_row()
                    book.append(row)
                    book.corrections.void("test", row["event_id"], reason="x", author="y")
        finally:
            done.set()

    def check() -> None:
        while not done.is_set():
            results.append(book.verify())

    run_threads([write, check])
    assert [difference for result in results for difference in result.differences] == []
    assert len({result.head_seq for result in results}) > 1


@pytest.fixture
def command(written, monkeypatch, tmp_path):
    """`jauge` on the ledger above."""
    monkeypatch.setenv("JAUGE_DATABASE_URL", written.url)
    monkeypatch.setenv("JAUGE_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    yield lambda *words: CliRunner().invoke(cli.main, words)
    get_settings.cache_clear()


def test_the_command_exits_with_0_and_prints_the_head_when_nothing_differs(written, command):
    answer = command("verify", "--json")
    assert answer.exit_code == 0
    printed = json.loads(answer.stdout)
    ((hash_,),) = written.sql("SELECT encode(hash, 'hex') FROM ledger_batch WHERE seq = 4")
    assert (printed["clean"], printed["differences"]) == (True, [])
    assert (printed["head_seq"], printed["head_hash"], printed["rows"]) == (4, hash_, 13)


def test_the_command_names_what_differs_and_exits_with_1(written, command):
    written.tamper(f"UPDATE ledger_entry SET input_tokens = 0 WHERE {which(2, 0)}")
    answer = command("verify", "--json")
    assert answer.exit_code == 1
    assert {"kind": "entry_changed", "where": place(2, 0), "detail": "it doesn't have its fingerprint"} in json.loads(
        answer.stdout
    )["differences"]
    assert place(2, 0) in command("verify").stdout

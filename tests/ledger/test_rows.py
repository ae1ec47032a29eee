"""Rows in the form PostgreSQL itself gives them: what is hashed is what is stored."""

from datetime import UTC, datetime

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from metering.database import raw
from metering.ledger.rows import (
    COPY_HEADER,
    COPY_TRAILER,
    ENTRY_COLUMNS,
    FRAME_SCHEMA,
    INSTANT,
    encode_rows,
    fingerprints_of,
    row_prefix,
)
from metering.rules.quantities import QUANTITIES
from tests.ledger.conftest import Book
from tests.ledger.frames import a_frame, a_row

WIDE = 2**53
instants = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
counts = st.none() | st.sampled_from([0, 1, -1, WIDE - 1, WIDE, -WIDE, 2**63 - 1, -(2**63)]) | st.integers(-WIDE, WIDE)
texts = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
rows = st.fixed_dictionaries(
    {
        "identity": st.binary(min_size=16, max_size=16),
        "series": st.integers(1, 2**31 - 1),
        "tenant": st.integers(1, 2**31 - 1),
        "occurred_at": instants,
        "ended_at": instants,
        "first_token_at": st.none() | instants,
        "queue_ms": counts,
        **dict.fromkeys(QUANTITIES, counts),
        "attempt": counts,
        "kind": st.sampled_from([0, 1, 2]),
        "uncounted_requests": st.sampled_from([-1, 0, 1, 2**15 - 1, -(2**15)]),
        "corrects": st.none() | st.binary(min_size=16, max_size=16),
        "event_id": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
        "reservation": texts,
        "parent": texts,
        "reason": texts,
        "author": texts,
    }
)


@pytest.fixture
def scratch(book: Book):
    """A connection with an empty table of entries, numbered to keep their order."""
    with book.engine.connect() as connection:
        connection.execute(sa.text("CREATE TEMP TABLE scratch (LIKE ledger_entry, place int)"))
        yield raw(connection)


def own_output(scratch: psycopg.Connection, seq: int, several: list[dict]) -> list[bytes]:
    """The rows' tuples as PostgreSQL writes them, after taking them in as ordinary parameters."""
    scratch.execute("TRUNCATE scratch")
    marks = ", ".join(["%s"] * (len(ENTRY_COLUMNS) + 1))
    values = [
        (seq, *(row[name].hex() if isinstance(row[name], bytes) else row[name] for name in FRAME_SCHEMA), place)
        for place, row in enumerate(several)
    ]
    with scratch.cursor() as cursor:
        cursor.executemany(f"INSERT INTO scratch ({', '.join(ENTRY_COLUMNS)}, place) VALUES ({marks})", values)
        query = f"SELECT {', '.join(ENTRY_COLUMNS)} FROM scratch ORDER BY place"
        with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT binary)") as copy:
            messages = [bytes(message).removeprefix(COPY_HEADER) for message in copy]
    return [message for message in messages if message != COPY_TRAILER]


@given(st.lists(rows, max_size=12), st.integers(1, 2**62))
def test_encoded_rows_are_what_postgresql_copies_out_byte_for_byte(scratch, several, seq):
    encoded = [row_prefix(seq) + row for row in encode_rows(a_frame(several))]
    assert encoded == own_output(scratch, seq, several)


def test_rows_that_are_null_in_many_places_keep_their_order(scratch):
    several = [a_row(**{name: None if place >> at & 1 else at for at, name in enumerate(QUANTITIES[1:7])})
               for place in range(64)]  # fmt: skip
    assert [row_prefix(3) + row for row in encode_rows(a_frame(several))] == own_output(scratch, 3, several)


def test_an_empty_frame_has_no_rows():
    assert encode_rows(a_frame([])) == []


def test_the_series_stands_where_the_verifier_reads_it():
    (row,) = encode_rows(a_frame([a_row(series=0x01020304)]))
    assert row[24:28] == b"\x01\x02\x03\x04"


def test_times_keep_their_microseconds():
    assert FRAME_SCHEMA["occurred_at"] == INSTANT
    instant = datetime(2026, 10, 25, 0, 59, 59, 999_999, tzinfo=UTC)
    assert a_frame([a_row(occurred_at=instant)])["occurred_at"].to_list() == [instant]


def test_known_fingerprints():
    assert fingerprints_of([b"", b"row"]).tolist() == [3244421341483603138, -2734084670436536211]

"""An hour is posted as differences, and what was posted before stays readable."""

from collections import Counter
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from metering.carbon.posting import Marks, Meter, live_entries, post
from metering.database import transaction
from metering.rules.carbon.entries import Key, Sums
from metering.tables import carbon_batch, carbon_entry, carbon_gpu, carbon_hour

HOUR = datetime(2026, 10, 5, 12, tzinfo=UTC)
MARKS = Marks(7, 3, 1)
METER = Meter("node-1", "GPU-1", "d-1", "H100-SXM", None, 10, 9, 11, 3, "A", ("gap",), 90_000, (90_000, 91_000))


def an_entry(user="u-1", energy_uj=100, tier="A", factors=(1,)):
    key = Key("use", "dinum", "assistant", user, None, "albert-large", "chat", tier, factors)
    return key, Sums(1, energy_uj, 2 * energy_uj, energy_uj, 3 * energy_uj, 5, 4, 6, None, 7, 6, 8)


@pytest.fixture
def book(services):
    class Book:
        def post(self, *entries, meters=()):
            with transaction(services.engine) as connection:
                return post(connection, HOUR, entries, meters, MARKS)

        def live(self):
            with transaction(services.engine) as connection:
                return live_entries(connection, HOUR)

        def scalar(self, query):
            with transaction(services.engine) as connection:
                return connection.scalar(query)

    return Book()


def test_what_is_posted_is_what_is_live(book):
    entries = [an_entry("u-1"), an_entry("u-2", 0), an_entry("u-3", tier="U", factors=())]
    assert book.post(*entries, meters=[METER]) == 1
    assert book.live() == Counter(entries)
    assert book.scalar(sa.select(carbon_gpu.c.idle_powers_mw)) == [90_000, 91_000]
    assert book.scalar(sa.select(carbon_hour.c.batch_seq)) == 1


def test_the_same_again_posts_nothing(book):
    assert [book.post(an_entry(), meters=[METER]), book.post(an_entry(), meters=[METER])] == [1, None]
    assert book.scalar(sa.select(sa.func.count()).select_from(carbon_entry)) == 1


def test_an_hour_without_anything_is_posted_once_as_empty(book):
    assert [book.post(), book.post()] == [1, None]


def test_only_what_differs_is_reversed_and_posted_again(book):
    book.post(an_entry("u-1"), an_entry("u-2"), an_entry("u-3"))
    assert book.post(an_entry("u-1"), an_entry("u-2", 250), an_entry("u-4")) == 2
    assert book.live() == Counter([an_entry("u-1"), an_entry("u-2", 250), an_entry("u-4")])
    posted = sa.select(sa.func.count()).select_from(carbon_entry).where(carbon_entry.c.batch_seq == 2)
    assert book.scalar(posted.where(carbon_entry.c.is_reversal)) == 2
    assert book.scalar(posted) == 4
    assert book.scalar(sa.select(sa.func.sum(carbon_entry.c.gpu_energy_uj))) == 450
    before = sa.select(sa.func.sum(carbon_entry.c.gpu_energy_uj)).where(carbon_entry.c.batch_seq <= 1)
    assert book.scalar(before) == 300  # as of the first batch


def test_what_is_posted_taken_back_and_posted_again_is_live_once(book):
    for entries in ([an_entry()], [], [an_entry()], [an_entry(energy_uj=7)], [an_entry()]):
        book.post(*entries)
    assert book.live() == Counter([an_entry()])


def test_a_batch_says_what_was_known_and_sums_what_it_adds(book):
    book.post(an_entry("u-1"), an_entry("u-2"))
    with_sums = book.scalar(sa.select(carbon_batch.c.sums))
    assert with_sums == [2, 200, 400, 200, 600, 10, 8, 12, None, 14, 12, 16]
    assert book.scalar(sa.select(carbon_batch.c.ledger_seq)) == 7

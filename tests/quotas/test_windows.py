"""Windows partition time: no 60 s with more than their limit, days of 23 and 25 hours, months, terms and credits."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.events.decoding import decode
from metering.rules.periods import PARIS
from metering.services import Services
from tests.conftest import MakeEvent
from tests.quotas.clocked import ClockedStore, Desk
from tests.quotas.conftest import declare

CATALOGUE = """
categories:
- {id: chat, name: Chat}
models:
- {id: small, name: Small, category: chat, publisher: P, licence: MIT}
plans:
- id: free
  name: Free
  limits:
  - {scope: user, selector: "*", meter: requests, window: minute, value: 5}
  - {scope: tenant, selector: "*", meter: total_tokens, window: day, value: 100}
  - {scope: tenant, selector: "*", meter: total_tokens, window: month, value: 1000}
  - {scope: tenant, selector: "*", meter: total_tokens, window: credit, value: 100000}
tenants:
- {id: dinum, name: DINUM, plan: free}
conventions:
- id: agreement
  tenant: dinum
  title: Agreement
  funder: DINUM
  settlement: billed
  overage: block
  tier: soft
  outage: open
  signed_on: 2026-01-01
  starts_on: 2026-03-15
  ends_on: 2026-11-30
  effective_on: 2026-03-15
  limits:
  - {scope: tenant, selector: "*", meter: total_tokens, window: term, value: 5000}
"""
DAY, MONTH, TERM, CREDIT = (f"tenant total_tokens/{window}" for window in ("day", "month", "term", "credit"))


@pytest.fixture
def desk(services: Services) -> Iterator[Desk]:
    declare(services, CATALOGUE)
    with redis.Redis.from_url(services.stores.redis_url) as client:
        yield Desk(services, ClockedStore(client, datetime(2026, 3, 20, 9, tzinfo=UTC)))


def paris(*parts: int, fold: int = 0) -> datetime:
    return datetime(*parts, tzinfo=PARIS, fold=fold).astimezone(UTC)


def use(desk: Desk, reservation: str, tokens: int) -> None:
    assert desk.reserve(reservation, tokens)[0].status == "ok"
    desk.commit(reservation, input_tokens=tokens, output_tokens=0)


@given(steps_ms=st.lists(st.sampled_from([0, 1, 999, 4_000, 9_999, 10_000, 15_000, 59_999, 60_000]), max_size=40))
@settings(max_examples=30)
def test_no_sixty_seconds_have_more_than_the_limit(desk: Desk, steps_ms: list[int]) -> None:
    desk.store.move(hours=1)
    admitted: list[datetime] = []
    for number, step_ms in enumerate(steps_ms):
        desk.store.move(milliseconds=step_ms)
        reply, figures = desk.reserve(f"{desk.store.now.timestamp()} {number}", 0, ttl_s=600)
        if reply.status == "ok":
            admitted.append(desk.store.now)
        else:
            minute = next(one for one in figures if one.limit.window == "minute")
            assert 0 < minute.wait_ms <= 70_000
            assert len([at for at in admitted if desk.store.now - at < timedelta(seconds=70)]) >= 5
    for at in admitted:
        assert len([other for other in admitted if timedelta() <= other - at < timedelta(seconds=60)]) <= 5


def test_who_waits_as_long_as_was_said_is_admitted(desk: Desk) -> None:
    for number in range(5):
        desk.store.move(seconds=3)
        assert desk.reserve(f"r{number}", 0, ttl_s=600)[0].status == "ok"
    reply, figures = desk.reserve("late", 0)
    wait_ms = next(one.wait_ms for one in figures if one.flag == "refused")
    assert reply.status == "refused"
    desk.store.move(milliseconds=wait_ms - 1)
    assert desk.reserve("early", 0)[0].status == "refused"
    desk.store.move(milliseconds=1)
    assert desk.reserve("late", 0)[0].status == "ok"


@pytest.mark.parametrize(
    ("midnight", "hours"),
    [
        (paris(2026, 3, 29), 23), (paris(2026, 10, 25), 25), (paris(2026, 7, 1), 24), (paris(2026, 3, 31), 24),
        (paris(2027, 1, 1), 24), (paris(2028, 2, 29), 24),
    ],
)  # fmt: skip
def test_a_day_ends_at_midnight_in_paris(desk: Desk, midnight: datetime, hours: int) -> None:
    desk.store.set(midnight - timedelta(milliseconds=1))
    use(desk, "before", 60)
    desk.store.set(midnight)
    assert desk.standing()[DAY] == (0, 0)
    desk.store.move(hours=2)
    use(desk, "after", 70)
    reply, figures = desk.reserve("more", 40)
    day = next(one for one in figures if one.limit.window == "day")
    assert (reply.status, day.wait_ms) == ("refused", (hours - 2) * 3_600_000)
    desk.store.set(midnight + timedelta(hours=hours, milliseconds=-1))
    assert desk.standing()[DAY] == (70, 0)
    assert desk.reserve("more", 40)[0].status == "refused"
    desk.store.move(milliseconds=1)
    use(desk, "more", 40)
    assert desk.standing()[DAY] == (40, 0)


def test_month_term_and_credit_end_each_at_its_own_time(desk: Desk) -> None:
    desk.store.set(paris(2026, 3, 31, 23, 59))
    use(desk, "march", 10)
    assert {name: desk.standing()[name] for name in (MONTH, TERM, CREDIT)} == dict.fromkeys(
        (MONTH, TERM, CREDIT), (10, 0)
    )
    desk.store.set(paris(2026, 4, 1))
    use(desk, "april", 20)
    assert [desk.standing()[name] for name in (MONTH, TERM, CREDIT)] == [(20, 0), (30, 0), (30, 0)]
    desk.store.set(paris(2026, 12, 1) - timedelta(milliseconds=1))
    assert desk.standing()[TERM] == (0, 0)  # commits that nothing confirmed for a day
    use(desk, "november", 40)
    assert [desk.standing()[name] for name in (MONTH, TERM, CREDIT)] == [(40, 0)] * 3
    desk.store.move(milliseconds=1)
    stands = desk.standing()
    assert TERM not in stands  # other limits: the counters are built again, with what is committed
    assert (stands[MONTH], stands[CREDIT]) == ((0, 0), (40, 0))


def test_usage_counts_on_the_day_of_its_admission(desk: Desk) -> None:
    midnight = paris(2026, 5, 1)
    desk.store.set(midnight - timedelta(seconds=5))
    desk.reserve("over midnight", 30, 20, ttl_s=600)
    assert desk.standing()[DAY] == (0, 50)
    desk.store.set(midnight + timedelta(seconds=5))
    desk.reserve("today", 1, 0)
    assert (desk.standing()[DAY], desk.standing()[MONTH]) == ((0, 1), (0, 1))
    desk.commit("over midnight", input_tokens=30, output_tokens=20)
    stands = desk.standing()
    assert (stands[DAY], stands[MONTH], stands[TERM]) == ((0, 1), (0, 1), (50, 1))


def test_a_clock_that_goes_back_over_midnight_gives_nothing_away(desk: Desk) -> None:
    midnight = paris(2026, 5, 2)
    desk.store.set(midnight + timedelta(seconds=1))
    use(desk, "tomorrow", 90)
    desk.store.set(midnight - timedelta(seconds=30))
    assert desk.reserve("back", 20)[0].status == "refused"
    assert desk.reserve("a little", 10)[0].status == "ok"
    assert desk.standing()[DAY] == (90, 10)
    desk.store.set(midnight + timedelta(seconds=2))
    assert desk.standing()[DAY] == (90, 10)
    desk.release("a little")
    assert desk.standing()[DAY] == (90, 0)


def test_a_process_whose_clock_is_wrong_uses_the_windows_of_the_store(desk: Desk) -> None:
    desk.store.set(paris(2026, 6, 1, 0, 0, 1))
    use(desk, "first", 60)

    class Late(Desk):
        @property
        def now(self) -> datetime:
            return desk.store.now - timedelta(minutes=10)

    late = Late(desk.services, desk.store)
    assert late.reserve("second", 60)[0].status == "refused"
    assert late.standing()[DAY] == (60, 0)


def test_counters_of_windows_that_are_over_are_swept(desk: Desk) -> None:
    for number in range(40):
        desk.reserve(f"r{number}", 0, user=f"u{number}", ttl_s=10)
    field_count = desk.store.client.hlen("jauge:{dinum}:counters")
    assert field_count >= 40
    desk.store.move(days=3)
    for mark in range(60):
        desk.store.call("dinum", "settle", 0, mark, [], [])
    assert desk.store.client.hlen("jauge:{dinum}:counters") == 1  # what is said of all
    desk.store.move(days=1)
    for mark in range(5):
        desk.store.call("dinum", "settle", 0, mark, [], [])
    assert not desk.store.client.exists("jauge:{dinum}:holds", "jauge:{dinum}:expiries")
    assert desk.standing()[CREDIT] == (0, 0)


def test_a_limit_full_of_holds_that_are_over_has_room_at_once(desk: Desk) -> None:
    for number in range(100):
        assert desk.reserve(f"r{number}", 1, user=f"u{number}", ttl_s=10)[0].status == "ok"
    assert desk.reserve("no", 1)[0].status == "refused"
    desk.store.move(seconds=10)
    assert desk.reserve("all", 100)[0].status == "ok"


def test_who_needs_nothing_of_a_limit_is_not_stopped_by_it(desk: Desk) -> None:
    use(desk, "one", 100)
    desk.commit("more than there was", input_tokens=300, output_tokens=0)
    assert desk.reserve("tokens", 1)[0].status == "refused"
    assert desk.reserve("none", 0)[0].status == "ok"


def test_what_was_swept_is_not_made_anew_by_a_hold_that_lived_longer(desk: Desk) -> None:
    desk.reserve("long", 10, ttl_s=5 * 86_400)
    desk.store.move(days=3)
    for mark in range(5):
        desk.store.call("dinum", "settle", 0, mark, [], [])
    assert not desk.store.client.hexists("jauge:{dinum}:counters", "t|||3|da")
    assert desk.standing()[MONTH] == (0, 10)
    desk.release("long")
    assert not desk.store.client.hexists("jauge:{dinum}:counters", "t|||3|da")
    assert desk.standing()[MONTH] == (0, 0)


def test_a_window_that_has_not_begun_does_not_close_the_one_that_is_open(desk: Desk, make_event: MakeEvent) -> None:
    midnight = paris(2026, 7, 1)
    desk.store.set(midnight - timedelta(minutes=1))
    use(desk, "today", 60)
    ahead = (midnight + timedelta(minutes=4)).isoformat()
    event = make_event(
        user="bob", model_requested="small", model_served="small", input_tokens=20, output_tokens=0, time=ahead,
        started_at=ahead,
    )  # fmt: skip
    assert desk.services.intake.take(decode(json.dumps(event).encode(), "json", 1), "http").is_whole
    desk.settle()
    assert desk.standing()[DAY] == (80, 0)
    assert desk.reserve("more", 30)[0].status == "refused"
    desk.store.client.flushall()
    desk.store.set(desk.store.now)
    assert desk.standing()[DAY] == (20, 0)

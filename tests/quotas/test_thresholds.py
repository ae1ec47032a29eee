"""Those concerned are told when half, four fifths or all of a limit is used: once each, whatever dies meanwhile."""

import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.database import transaction
from metering.errors import Unavailable
from metering.events.decoding import decode
from metering.outbox.wording import MAIL_FIELDS
from metering.quotas import building
from metering.quotas.settling import Settler
from metering.rules.thresholds import threshold_reached
from metering.services import Services
from metering.tables import account, api_key, outbox, quota_cursor
from tests.people import add_agent
from tests.quotas.clocked import ClockedStore, Desk
from tests.quotas.conftest import declare

NOON = datetime(2026, 3, 2, 11, tzinfo=UTC)
LIMIT = '{scope: tenant, selector: "*", meter: total_tokens, window: month, value: 1000}'
_numbers = itertools.count(1)


def catalogue(*limits: str) -> str:
    return f"""
categories: [{{id: chat, name: Chat}}]
models: [{{id: small, name: Small, category: chat, publisher: P, licence: MIT, operations: [chat]}}]
plans:
- id: free
  name: Free
  limits: [{", ".join(limits)}]
tenants: [{{id: dinum, name: DINUM, plan: free}}]
"""


@pytest.fixture
def desk(services: Services) -> Iterator[Desk]:
    with services.redis() as client:
        opened = Desk(services, ClockedStore(client, NOON))
        begin(opened, LIMIT)
        yield opened


def begin(desk: Desk, *limits: str) -> None:
    """Other limits, of which counters are there."""
    declare(desk.services, catalogue(*limits))
    desk.standing()


def use(desk: Desk, tokens: int, *, is_settled: bool = True, **who: Any) -> str:
    """An event, by now, and what follows of it; returns its id."""
    number, at = next(_numbers), desk.now.isoformat()
    data = {
        "tenant": "dinum", "operation": "chat", "model_requested": "small", "model_served": "small", "user": "alice",
        "started_at": at, "status": "ok", "input_tokens": tokens, "output_tokens": 0, **who,
    }  # fmt: skip
    event = {
        "specversion": "1.0", "type": "jauge.usage.v1", "source": "t", "id": f"told-{number}", "time": at,
        "data": {name: value for name, value in data.items() if value is not None},
    }  # fmt: skip
    assert desk.services.intake.take(decode(json.dumps(event).encode(), "json", 1), "http").is_whole
    if is_settled:
        desk.settle()
    return f"told-{number}"


def messages(services: Services, channel: str = "webhook") -> list[sa.Row[Any]]:
    with services.engine.connect() as connection:
        query = sa.select(outbox).where(outbox.c.channel == channel).order_by(outbox.c.number)
        return list(connection.execute(query))


def told(desk: Desk) -> list[int]:
    """Thresholds in the order in which they were told."""
    return [row.payload["threshold"] for row in messages(desk.services)]


def test_each_threshold_is_told_once_to_managers_and_webhooks(desk: Desk) -> None:
    for tokens, thresholds in ((499, []), (1, [50]), (100, [50]), (200, [50, 80]), (199, [50, 80]), (1, [50, 80, 100]),
                               (5_000, [50, 80, 100])):  # fmt: skip
        use(desk, tokens)
        assert told(desk) == thresholds
    mails = messages(desk.services, "mail")
    assert [row.recipient for row in mails] == ["managers:dinum"] * 3
    assert all(set(row.payload) == set(MAIL_FIELDS[row.subject]) for row in mails)
    first = messages(desk.services)[0]
    assert (first.subject, first.recipient, first.tenant) == ("limit.threshold", "webhooks:dinum", "dinum")
    assert first.payload == {
        "threshold": 50, "scope": "tenant", "subject": None, "selector": "*", "meter": "total_tokens", "unit": "token",
        "window": "month", "value": 1000, "used": 500, "mode": "hard", "window_start": "2026-02-28T23:00:00Z",
        "window_end": "2026-03-31T22:00:00Z",
    }  # fmt: skip


@given(steps=st.lists(st.tuples(st.sampled_from([0, 40, 190, 310, 700]),
                                st.sampled_from(["settle", "settle again", "lose", "wait"])), max_size=8))  # fmt: skip
@settings(max_examples=15)
def test_whatever_is_settled_again_or_built_nothing_is_missed_or_told_twice(desk: Desk, steps: list[Any]) -> None:
    desk.store.move(days=1)
    begin(desk, LIMIT.replace("month", "day"))
    before = len(told(desk))
    used, expected, highest = 0, [], 0
    for tokens, what in steps:
        use(desk, tokens, is_settled=False)
        used += tokens
        if what == "wait":
            continue
        if what == "lose":
            desk.store.client.flushall()
            desk.standing()
        desk.settle(0 if what == "settle again" else None)
        now_at = threshold_reached(used, 1_000) or 0
        if now_at > highest:
            expected.append(now_at)
            highest = now_at
        assert told(desk)[before:] == expected


def test_who_uses_all_at_once_is_told_once_and_nothing_lower_later(desk: Desk) -> None:
    first = use(desk, 700, is_settled=False)
    use(desk, 350)
    assert told(desk) == [100]
    desk.services.corrections.void("t", first, reason="wrong", author="a")
    desk.settle()
    use(desk, 200)
    assert desk.standing()["tenant total_tokens/month"] == (550, 0)
    assert told(desk) == [100]


def test_another_month_and_another_value_are_told_of_anew(desk: Desk) -> None:
    use(desk, 800)
    begin(desk, LIMIT.replace("1000", "1500"))
    use(desk, 1)
    assert told(desk) == [80, 50]
    desk.store.move(days=30)
    use(desk, 1_500)
    assert told(desk) == [80, 50, 100]


def test_usage_of_a_window_that_is_over_is_not_told_of(desk: Desk) -> None:
    begin(desk, LIMIT.replace("month", "day"))
    use(desk, 500, is_settled=False)
    desk.store.move(days=1)
    desk.settle()
    assert told(desk) == []


@pytest.mark.parametrize(
    "limit",
    [
        LIMIT.replace("month", "minute"), LIMIT.replace("value: 1000", "value: 1000, mode: shadow"),
        LIMIT.replace("1000", "0"), LIMIT.replace("1000", "null"),
        '{scope: tenant, selector: "*", meter: concurrent_requests, window: now, value: 1}',
    ],
)  # fmt: skip
def test_nobody_is_told_of_limits_that_hold_nobody_or_for_a_moment_only(desk: Desk, limit: str) -> None:
    begin(desk, limit)
    desk.reserve("r1", 0)
    use(desk, 5_000)
    assert told(desk) == []


@pytest.mark.parametrize("window", ["day", "month", "credit"])
def test_soft_limits_of_every_longer_window_are_told_of(desk: Desk, window: str) -> None:
    begin(desk, LIMIT.replace("month", window).replace("1000", "1000, mode: soft"))
    use(desk, 1_000)
    (mail,) = messages(desk.services, "mail")
    assert (mail.payload["mode"], mail.payload["rule"]["window"], mail.payload["ends_at"] is None) == (
        "soft", window, window == "credit",
    )  # fmt: skip


def test_a_users_and_a_keys_limit_is_told_to_their_person_as_well(desk: Desk) -> None:
    services = desk.services
    begin(
        desk,
        LIMIT.replace("tenant", "user"), LIMIT.replace("tenant", "key").replace("1000", "2000"),
        LIMIT.replace("tenant", "project").replace("1000", "3000"),
    )  # fmt: skip
    for tenant, role, name in (("dinum", "member", "alice"), ("dinum", "manager", "boss"), ("dinum", "member", "gone"),
                               ("sante", "member", "stranger")):  # fmt: skip
        add_agent(services, tenant, role, name)
    with transaction(services.engine) as connection:
        connection.execute(account.update().where(account.c.id == "gone").values(status="suspended"))
        for number, (tenant, holder) in enumerate([("dinum", "alice"), ("dinum", None), ("sante", "stranger")]):
            connection.execute(
                api_key.insert().values(
                    id=f"k-{number}", tenant=tenant, account=holder, name="k", prefix="k", digest=bytes([number]) * 32
                )
            )

    def recipients() -> list[tuple[str, str | None]]:
        return [(row.recipient, row.payload["subject"]) for row in messages(services, "mail")]

    for user in ("alice", "boss", "gone", "stranger", "nobody"):
        use(desk, 500, user=user)
    assert recipients() == [
        ("managers:dinum", "alice"), ("account:alice", "alice"), ("managers:dinum", "boss"), ("managers:dinum", "gone"),
        ("managers:dinum", "stranger"), ("managers:dinum", "nobody"),
    ]  # fmt: skip
    before = len(recipients())
    for key in ("k-0", "k-1", "k-2"):
        use(desk, 1_000, user=None, api_key=key)
    assert recipients()[before:] == [
        ("managers:dinum", "k-0"), ("account:alice", "k-0"), ("managers:dinum", "k-1"), ("managers:dinum", "k-2"),
    ]  # fmt: skip
    use(desk, 1_500, user=None, project="assistant")
    assert recipients()[-1] == ("managers:dinum", "assistant")
    assert "@" not in str([row.payload for row in messages(services, "mail")])


def test_a_commit_is_told_of_when_its_event_is_recorded(desk: Desk) -> None:
    desk.reserve("r1", 600)
    desk.commit("r1", input_tokens=600, output_tokens=0)
    assert told(desk) == []
    use(desk, 600, reservation="r1")
    assert told(desk) == [50]


def test_a_worker_that_dies_before_it_is_done_misses_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    settler = Settler(desk.builder)
    use(desk, 500, is_settled=False)
    real = building.announce_thresholds

    def dies(*given: Any) -> None:
        real(*given)
        raise Unavailable("database_unavailable", "Away.")

    monkeypatch.setattr(building, "announce_thresholds", dies)
    with suppress(Unavailable):
        settler.round(desk.now)
    assert told(desk) == []
    assert desk.standing()["tenant total_tokens/month"] == (500, 0)  # counted already, and told of all the same
    monkeypatch.undo()
    assert settler.round(desk.now)
    assert told(desk) == [50]
    with transaction(desk.services.engine) as connection:  # it died before it noted how far it was
        connection.execute(quota_cursor.update().values(batch=0))
    assert settler.round(desk.now)
    assert told(desk) == [50]


def test_what_was_recorded_while_counters_were_lost_is_told_of_when_they_are_built(desk: Desk) -> None:
    desk.store.client.flushall()
    use(desk, 900)
    assert told(desk) == []
    assert desk.reserve("r1", 200)[0].status == "refused"
    assert told(desk) == [80]


def test_many_counters_of_a_round_are_all_told_of(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "PIECE", 3)
    monkeypatch.setattr(building, "ENTRIES", 2)
    begin(desk, LIMIT.replace("tenant", "user"), LIMIT.replace("tenant", "user").replace("month", "day"))
    for number in range(10):
        use(desk, 400 + 100 * (number % 2), user=f"u{number}", is_settled=False)
    desk.settle()
    found = {(row.payload["subject"], row.payload["window"]) for row in messages(desk.services)}
    assert found == {(f"u{number}", window) for number in range(1, 10, 2) for window in ("day", "month")}


def test_a_worker_whose_clock_is_behind_takes_no_day_for_the_next(desk: Desk) -> None:
    begin(desk, LIMIT.replace("month", "day"))
    before = desk.now.replace(hour=22, minute=59)
    desk.store.set(before)
    use(desk, 1, is_settled=False)
    desk.store.move(minutes=2)  # midnight has passed on the store's clock
    desk.reserve("r1", 900)
    desk.commit("r1", input_tokens=900, output_tokens=0)
    desk.builder.settle(0, before)
    assert desk.standing()["tenant total_tokens/day"] == (900, 0)
    assert told(desk) == []

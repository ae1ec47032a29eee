"""Holds before, truth after: what each call does to the counters."""

import itertools
import json

import pytest

from metering.errors import Conflict, NotFound
from metering.events.decoding import decode
from metering.quotas.service import Ask, Decision
from metering.rules.counting import Estimate
from metering.rules.limits import Request
from metering.services import Services
from tests.quotas.conftest import CATALOGUE, Gate, declare

ALICE = Request("dinum", user="alice", model="small", operation="chat")
_numbers = itertools.count(1)


def ask(prompt: int = 10, output: int = 50, *, request: Request = ALICE, reservation: str = "", **changes) -> Ask:
    return Ask(
        reservation or f"r-{next(_numbers)}", request, 60,
        Estimate(prompt_tokens=prompt, max_output_tokens=output, **changes),
    )  # fmt: skip


def standing(decision: Decision) -> dict[str, tuple[int, int]]:
    """Meter and window to used and held."""
    return {f"{it.limit.meter}/{it.limit.window}": (it.used, it.held) for it in decision.figures}


def look(gate: Gate, request: Request = ALICE) -> dict[str, tuple[int, int]]:
    return standing(gate.run(gate.service.reserve(ask(0, 0, request=request), is_dry=True)))


def record(services: Services, event: dict) -> None:
    assert services.intake.take(decode(json.dumps(event).encode(), "json", 1), "http").is_whole


def test_a_request_is_held_then_counted_as_it_was(gate: Gate) -> None:
    asked = ask(10, 50)
    decision = gate.run(gate.service.reserve(asked))
    assert (decision.is_allowed, decision.granted_output_tokens) == (True, 50)
    assert look(gate) == {
        "requests/minute": (0, 1), "total_tokens/day": (0, 60), "total_tokens/month": (0, 60),
        "concurrent_requests/now": (0, 1),
    }  # fmt: skip
    settled = gate.run(gate.service.commit(asked.reservation, ALICE, {"input_tokens": 12, "output_tokens": 20}))
    assert settled.status == "ok"
    assert look(gate) == {
        "requests/minute": (1, 0), "total_tokens/day": (32, 0), "total_tokens/month": (32, 0),
        "concurrent_requests/now": (0, 0),
    }  # fmt: skip


def test_the_output_is_lowered_to_what_remains(gate: Gate) -> None:
    assert gate.run(gate.service.reserve(ask(100, 5_000))).granted_output_tokens == 900
    decision = gate.run(gate.service.reserve(ask(10, 10)))
    assert (decision.is_allowed, decision.reason) == (False, "limit_reached")
    assert 0 < decision.retry_after_s <= 25 * 3600
    assert look(gate)["total_tokens/day"] == (0, 1000)


def test_a_refused_request_burns_nothing(gate: Gate) -> None:
    for _ in range(3):
        gate.run(gate.service.reserve(ask(1, 1)))
    before = look(gate)
    decision = gate.run(gate.service.reserve(ask(1, 1)))
    assert [it.limit.meter for it in decision.figures if it.flag == "refused"] == ["concurrent_requests"]
    assert look(gate) == before


def test_a_minute_never_has_more_than_its_limit(gate: Gate) -> None:
    for _ in range(5):
        asked = ask(1, 1)
        assert gate.run(gate.service.reserve(asked)).is_allowed
        gate.run(gate.service.commit(asked.reservation, ALICE, {"input_tokens": 1, "output_tokens": 1}))
    refused = gate.run(gate.service.reserve(ask(1, 1)))
    assert (refused.is_allowed, refused.reason) == (False, "limit_reached")
    assert 60 <= refused.retry_after_s <= 70
    other = Request("dinum", user="alice", model="large", operation="chat")
    assert gate.run(gate.service.reserve(ask(1, 1, request=other))).is_allowed


def test_a_repeat_is_answered_the_same_and_another_request_is_a_conflict(gate: Gate) -> None:
    first = gate.run(gate.service.reserve(ask(10, 50, reservation="same")))
    again = gate.run(gate.service.reserve(ask(10, 50, reservation="same")))
    assert standing(first) == standing(again)
    assert look(gate)["requests/minute"] == (0, 1)
    with pytest.raises(Conflict):
        gate.run(gate.service.reserve(ask(11, 50, reservation="same")))


def test_what_is_released_was_never_held(gate: Gate) -> None:
    before = look(gate)
    asked = ask()
    gate.run(gate.service.reserve(asked))
    assert gate.run(gate.service.release("dinum", asked.reservation)).status == "ok"
    assert gate.run(gate.service.release("dinum", asked.reservation)).status == "ok"
    assert look(gate) == before
    assert gate.run(gate.service.commit(asked.reservation, ALICE, {"input_tokens": 9})).status == "closed"
    assert look(gate) == before
    with pytest.raises(NotFound):
        gate.run(gate.service.release("dinum", "words"))


def test_more_than_was_held_counts_in_full(gate: Gate) -> None:
    asked = ask(10, 50)
    gate.run(gate.service.reserve(asked))
    gate.run(gate.service.commit(asked.reservation, ALICE, {"input_tokens": 10, "output_tokens": 3_000}))
    assert look(gate)["total_tokens/day"] == (3_010, 0)
    assert not gate.run(gate.service.reserve(ask(1, 1))).is_allowed


def test_a_commit_without_a_hold_counts(gate: Gate) -> None:
    look(gate)
    assert (
        gate.run(gate.service.commit("unheard-of", ALICE, {"input_tokens": 5, "output_tokens": 6})).status == "unknown"
    )
    assert gate.run(gate.service.commit("unheard-of", ALICE, {"input_tokens": 5, "output_tokens": 6})).status == "ok"
    assert look(gate)["total_tokens/day"] == (11, 0)


@pytest.mark.parametrize("order", ["commit, event", "event, commit", "event", "release, event", "nothing, event"])
def test_the_ledger_has_the_last_word(gate: Gate, services: Services, make_event, order: str) -> None:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    asked = ask(10, 50, reservation="settled")
    if order != "nothing, event":
        gate.run(gate.service.reserve(asked))
    settled = gate.builder.settle(0, now)
    event = make_event(
        user="alice", model_requested="small", model_served="small", project=None, api_key=None,
        reservation="settled", input_tokens=13, output_tokens=21, time=now.isoformat(), started_at=now.isoformat(),
    )  # fmt: skip
    for step in order.split(", "):
        if step == "commit":
            gate.run(gate.service.commit("settled", ALICE, {"input_tokens": 12, "output_tokens": 20}))
        elif step == "release":
            gate.run(gate.service.release("dinum", "settled"))
        elif step == "event":
            record(services, event)
            settled = gate.builder.settle(settled, now)
            assert gate.builder.settle(0, now) == settled  # again: nothing is counted twice
    if order != "nothing, event":
        assert look(gate) == {
            "requests/minute": (1, 0), "total_tokens/day": (34, 0), "total_tokens/month": (34, 0),
            "concurrent_requests/now": (0, 0),
        }  # fmt: skip
    else:
        assert look(gate)["total_tokens/month"] == (34, 0)


def test_lost_counters_are_built_from_the_ledger(gate: Gate, services: Services, make_event) -> None:
    from datetime import UTC, datetime

    import redis

    now = datetime.now(UTC)
    record(
        services,
        make_event(
            user="alice", model_requested="small", model_served="small", input_tokens=30, output_tokens=4,
            time=now.isoformat(), started_at=now.isoformat(),
        ),
    )  # fmt: skip
    gate.builder.settle(0, now)
    before = look(gate)
    assert before["total_tokens/day"] == (34, 0)
    with redis.Redis.from_url(services.stores.redis_url) as client:
        client.flushall()
        client.script_flush()
    assert look(gate) == before


def test_a_new_limit_begins_with_what_was_used(gate: Gate, services: Services, make_event) -> None:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    record(
        services,
        make_event(
            user="alice", model_requested="small", model_served="small", input_tokens=30, output_tokens=4,
            time=now.isoformat(), started_at=now.isoformat(),
        ),
    )  # fmt: skip
    gate.run(gate.service.reserve(ask(10, 20)))
    declare(
        services,
        CATALOGUE.replace(
            "tenants:", '  - {scope: user, selector: "*", meter: input_tokens, window: day, value: 40}\ntenants:'
        ),
    )
    assert look(gate)["input_tokens/day"] == (30, 0)
    assert look(gate)["total_tokens/day"] == (34, 30)
    assert not gate.run(gate.service.reserve(ask(11, 1))).is_allowed

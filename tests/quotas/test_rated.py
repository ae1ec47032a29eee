"""Limits in euros and in grams: held by rates, counted as the ledger says, and what envelopes do when used up."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from metering.events.decoding import decode
from metering.quotas.estimates import Estimated
from metering.quotas.service import Ask, Decision
from metering.quotas.verifying import verify_counters
from metering.rules.counting import Estimate
from metering.rules.limits import Request
from metering.services import Services
from metering.tables import outbox
from tests.quotas.clocked import ClockedStore, Desk
from tests.quotas.conftest import Gate, declare

NOON = datetime(2026, 3, 2, 11, tzinfo=UTC)
BASE = """
categories: [{id: chat, name: Chat}]
models:
- {id: small, name: S, category: chat, publisher: P, licence: MIT, operations: [chat], parameters: 24000000000}
- {id: gift, name: G, category: chat, publisher: P, licence: MIT, operations: [chat]}
price_books: [{id: list, name: List, currency: EUR, vat: rate, vat_percent: "20"}]
prices:
- {book: list, selector: "model:small", meter: input_tokens, price: "1", per: 1000000, valid_from: 2026-01-01T00:00:00Z}
- {book: list, selector: "*", meter: output_tokens, price: "3", per: 1000000, valid_from: 2026-01-01T00:00:00Z}
platform: {default_plan: free, price_book: list}
tenants: [{id: dinum, name: DINUM, plan: free}]
"""
INPUT, OUTPUT = 1_000, 3_000
"""nEUR of a token."""
_numbers = itertools.count(1)


def plan(*limits: str) -> str:
    return f"{BASE}\nplans: [{{id: free, name: Free, limits: [{', '.join(limits)}]}}]\n"


def convention(overage: str, eur: str, tokens_a_day: int = 5) -> str:
    free = f'{{scope: tenant, selector: "*", meter: total_tokens, window: day, value: {tokens_a_day}}}'
    return f"""{plan(free)}
conventions:
- id: c-1
  tenant: dinum
  title: C
  funder: F
  signed_on: 2026-01-01
  effective_on: 2026-01-01
  starts_on: 2026-01-01
  ends_on: 2030-12-31
  settlement: prepaid
  overage: {overage}
  envelope_eur: "{eur}"
  limits: [{{scope: tenant, selector: "*", meter: total_tokens, window: day, value: 1000000}}]
"""


def ask(gate: Gate, *, model: str = "small", prompt: int = 100, output: int = 100) -> Decision:
    request = Request("dinum", user="alice", model=model, operation="chat")
    estimate = Estimate(prompt_tokens=prompt, max_output_tokens=output)
    return gate.run(gate.service.reserve(Ask(f"r-{next(_numbers)}", request, 60, estimate)))


def use(services: Services, at: datetime, tokens: tuple[int, int], model: str = "small") -> None:
    event = {
        "specversion": "1.0", "type": "jauge.usage.v1", "source": "rated", "id": f"e-{next(_numbers)}",
        "time": at.isoformat(),
        "data": {
            "tenant": "dinum", "operation": "chat", "model_requested": model, "model_served": model, "user": "alice",
            "started_at": at.isoformat(), "status": "ok", "input_tokens": tokens[0], "output_tokens": tokens[1],
        },
    }  # fmt: skip
    assert services.intake.take(decode(json.dumps(event).encode(), "json", 1), "http").is_whole


def standing(figures: Any) -> dict[str, tuple[int, int, int | None]]:
    return {one.limit.meter: (one.used, one.held, one.remaining) for one in figures}


def test_money_and_carbon_are_held_at_rates_and_counted_as_recorded_whatever_is_lost(services: Services) -> None:
    with services.redis() as client:
        desk = Desk(services, ClockedStore(client, NOON))
        limits = (
            '{scope: tenant, selector: "*", meter: cost_neur, window: month, value: 1000000}',
            '{scope: user, selector: "model:*", meter: carbon_ugco2e, window: month, value: 9000000}',
        )
        declare(services, plan(*limits))
        reply, _figures = desk.reserve("r1", 100, 1_000)
        assert reply.granted == (1_000_000 - 100 * INPUT) // OUTPUT
        held = desk.standing()
        assert held["tenant cost_neur/month"] == (0, 100 * INPUT + reply.granted * OUTPUT)
        used_ug, held_ug = held["user carbon_ugco2e/month"]
        assert (used_ug, held_ug > 35 * reply.granted) == (0, True)  # about 36 µg a token
        desk.commit("r1", input_tokens=100, output_tokens=10)
        assert desk.standing()["tenant cost_neur/month"] == (100 * INPUT + 10 * OUTPUT, 0)
        desk.release("r1")
        for tokens in ((3, 7), (11, 2), (1, 1)):
            use(services, NOON, tokens)
        use(services, NOON, (50, 50), model="gift")  # nobody knows what it costs or emits: it isn't counted as 0 either
        desk.settle()
        before = desk.standing()
        assert before["tenant cost_neur/month"][0] == (100 + 15) * INPUT + (10 + 10) * OUTPUT
        verify_counters(desk.builder, lambda *found: pytest.fail(str(found)))
        client.flushall()
        recorded = desk.standing()
        assert recorded["tenant cost_neur/month"] == (15 * INPUT + 10 * OUTPUT, 0)
        carbon = recorded["user carbon_ugco2e/month"][0]
        assert abs(before["user carbon_ugco2e/month"][0] - carbon - used_in_commit(held_ug, reply.granted)) <= 2
        assert verify_counters(desk.builder, lambda *found: pytest.fail(str(found))).counters >= 2


def used_in_commit(held_ug: int, granted: int) -> int:
    """µg of the commit of 100 and 10 tokens, from what 100 and `granted` held; 2.36 µg is a token of input."""
    return round((held_ug - 236.6) / granted * 10 + 236.6)


@pytest.mark.parametrize(("meter", "code"), [("cost_neur", "unknown_price"), ("carbon_ugco2e", "unknown_carbon")])
def test_a_hard_limit_refuses_what_nobody_knows_and_a_soft_one_admits_it(gate: Gate, services: Services,
                                                                         meter: str, code: str) -> None:  # fmt: skip
    limit = f'{{scope: tenant, selector: "*", meter: {meter}, window: day, value: 100000000}}'
    declare(services, plan(limit))
    refused = ask(gate, model="gift")
    assert (refused.is_allowed, refused.reason, refused.retry_after_s) == (False, code, None)
    assert standing(refused.figures)[meter] == (0, 0, 100_000_000)
    assert ask(gate).is_allowed
    declare(services, plan(limit.replace("100000000", "100000000, mode: soft")))
    admitted = ask(gate, model="gift")
    assert admitted.is_allowed
    assert admitted.estimated == Estimated(None, None, None, None)


def test_answers_tell_what_a_request_costs_and_emits_about(gate: Gate, services: Services) -> None:
    declare(services, plan())
    decision = ask(gate, prompt=1_000, output=100)
    told = decision.estimated
    assert told is not None
    assert told.cost_neur == 1_000 * INPUT + 100 * OUTPUT
    assert told.carbon_lower_ugco2e < told.carbon_ugco2e < told.carbon_upper_ugco2e
    request = Request("dinum", user="alice", model="small", operation="chat")
    settled = gate.run(gate.service.commit("r-x", request, {"input_tokens": 10, "output_tokens": 1}))
    assert settled.estimated.cost_neur == 10 * INPUT + OUTPUT
    assert 0 < settled.estimated.carbon_ugco2e < told.carbon_ugco2e
    unknown = gate.run(gate.service.commit("r-y", request, {"input_tokens": 10, "output_tokens": None}))
    assert unknown.estimated.cost_neur is None


def test_an_envelope_blocks_throttles_or_goes_on_as_the_convention_says(gate: Gate, services: Services) -> None:
    declare(services, convention("block", "0.0004"))  # 400,000 nEUR
    assert ask(gate, prompt=100, output=100).is_allowed
    refused = ask(gate, prompt=1, output=0)
    assert (refused.is_allowed, refused.reason, refused.retry_after_s) == (False, "envelope_used_up", None)
    # Nobody knows what it costs, so nothing of it is asked for; but nothing is left either.
    assert ask(gate, model="gift", prompt=1, output=0).reason == "envelope_used_up"
    amended = convention("throttle", "0.0004", tokens_a_day=210).replace(
        "id: c-1", "id: c-1\n  version: 2\n  amends: x"
    )
    declare(services, amended)
    slow = ask(gate, prompt=3, output=100)
    assert (slow.is_allowed, slow.granted_output_tokens, slow.tier) == (True, 7, "free")
    assert ask(gate, prompt=1, output=0).reason == "limit_reached"
    third = convention("bill", "0.0004").replace("id: c-1", "id: c-1\n  version: 3\n  amends: y")
    declare(services, third)
    beyond = ask(gate, prompt=100, output=100)
    assert (beyond.is_allowed, beyond.granted_output_tokens, beyond.tier) == (True, 100, "guaranteed")
    assert [one.flag for one in beyond.figures if one.limit.meter == "cost_neur"] == ["over"]


def test_operators_are_told_of_envelopes_as_well_as_managers(services: Services) -> None:
    with services.redis() as client:
        desk = Desk(services, ClockedStore(client, NOON))
        declare(services, convention("block", "0.001"))
        desk.standing()
        use(services, NOON, (500, 0))
        desk.settle()
        with services.engine.connect() as connection:
            mails = connection.execute(outbox.select().where(outbox.c.channel == "mail")).all()
    assert sorted(one.recipient for one in mails) == ["managers:dinum", "operators"]
    assert mails[0].payload["rule"] == {"scope": "tenant", "selector": "*", "meter": "cost_neur", "window": "term"}


def test_a_throttled_stream_goes_on_as_far_as_free_access_does(gate: Gate, services: Services) -> None:
    declare(services, convention("throttle", "0.0004", tokens_a_day=300))
    request = Request("dinum", user="alice", model="small", operation="chat")
    held = gate.run(gate.service.reserve(Ask("stream", request, 60, Estimate(prompt_tokens=10, max_output_tokens=100))))
    assert held.is_allowed
    more = gate.run(gate.service.extend("stream", request, 60, 250))
    assert (more.is_allowed, more.granted_output_tokens) == (True, 130)  # what is left in the envelope
    last = gate.run(gate.service.extend("stream", request, 60, 300))
    assert (last.is_allowed, last.granted_output_tokens, last.tier) == (True, 290, "free")

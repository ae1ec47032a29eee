"""While the counters' store is away, the plan says what runs: a little, everything, or nothing."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from metering.quotas import service as module
from metering.quotas.calls import keys_of
from metering.quotas.service import Ask, Decision
from metering.rules.counting import Estimate
from metering.rules.limits import Request
from metering.services import Services
from tests.quotas.conftest import CATALOGUE, Gate, declare

NOBODY = "redis://127.0.0.1:1"
CALLS = module.LOCAL_REQUESTS_MAX + 5


@pytest.mark.parametrize(("outage", "admitted"), [("local", module.LOCAL_REQUESTS_MAX), ("open", CALLS), ("closed", 0)])
def test_the_plan_decides_while_the_store_is_away(services: Services, outage: str, admitted: int) -> None:
    declare(services, CATALOGUE.replace("  name: Free\n", f"  name: Free\n  outage: {outage}\n"))
    gate = Gate(services, NOBODY)
    request = Request("dinum", user="alice", model="small", operation="chat")
    asked = [Ask(f"r-{number}", request, 60, Estimate(max_output_tokens=7)) for number in range(CALLS)]
    decisions = [gate.run(gate.service.reserve(ask)) for ask in asked]
    allowed = [decision for decision in decisions if decision.is_allowed]
    assert len(allowed) == admitted
    assert {(one.reason, one.granted_output_tokens) for one in allowed} <= {("store_away_unlimited", 7)}
    refused = {(one.reason, one.retry_after_s) for one in decisions if not one.is_allowed}
    assert refused <= {("store_away", module.AWAY_RETRY_S)}
    gate.close()


def test_the_little_that_runs_ends_after_a_minute(services: Services) -> None:
    declare(services, CATALOGUE.replace("  name: Free\n", "  name: Free\n  outage: local\n"))
    gate = Gate(services, NOBODY)
    request = Request("dinum", user="alice", model="small", operation="chat")
    assert gate.run(gate.service.reserve(Ask("r-1", request, 60))).is_allowed
    known = gate.service._known["dinum"]
    known.away_since -= module.LOCAL_S_MAX  # as if it had been away for so long
    assert not gate.run(gate.service.reserve(Ask("r-2", request, 60))).is_allowed
    gate.close()


CLOSED = CATALOGUE.replace("  name: Free\n", "  name: Free\n  outage: closed\n")
COUNTERS = keys_of("dinum")[0]
DOUBT = 6
"""Place of the doubt's end in the counters' field `#`."""


@pytest.fixture
def gates(services: Services) -> Iterator[list[Gate]]:
    """Processes on the same counters, of a plan that is closed while they are away."""
    declare(services, CLOSED)
    opened = [Gate(services, services.stores.redis_url) for _ in range(3)]
    yield opened
    for gate in opened:
        gate.close()


def ask(gate: Gate, reservation: str) -> Decision:
    request = Request("dinum", user="alice", model="small", operation="chat")
    return gate.run(gate.service.reserve(Ask(reservation, request, 60)))


def test_all_processes_know_of_a_loss_that_one_has_met(gates: list[Gate], services: Services) -> None:
    met_it, fresh, later = gates
    assert ask(met_it, "r-1").is_allowed  # nothing was lost by counters that nobody had built
    with services.redis() as client:
        client.flushall()
        refused = [ask(fresh, "r-2"), ask(met_it, "r-3"), ask(later, "r-4")]
        assert {(one.reason, one.retry_after_s) for one in refused} == {("store_away", module.CLOSED_RETRY_S)}
        assert all(figure.held == 0 for one in refused for figure in one.figures)
        declare(services, CLOSED.replace("tenants:", OTHER_LIMIT))  # counters are built anew, and the doubt stays
        assert ask(later, "r-5").reason == "store_away"
        meta = msgspec.msgpack.decode(client.hget(COUNTERS, "#"))
        assert 0 < meta[DOUBT] - time.time() * 1000 <= module.TTL_S_MAX * 1000
        meta[DOUBT] = 1  # as if an hour had gone
        client.hset(COUNTERS, "#", msgspec.msgpack.encode(meta))
    assert all(ask(gate, f"r-{number}").is_allowed for number, gate in enumerate(gates, start=6))


OTHER_LIMIT = '  - {scope: tenant, selector: "*", meter: requests, window: month, value: 100}\ntenants:'


def test_who_is_not_closed_goes_on_after_a_loss(gates: list[Gate], services: Services) -> None:
    declare(services, CLOSED.replace("outage: closed", "outage: open"))
    assert ask(gates[0], "r-1").is_allowed
    with services.redis() as client:
        client.flushall()
    assert all(ask(gate, f"r-{number}").is_allowed for number, gate in enumerate(gates, start=2))

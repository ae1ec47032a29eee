"""While the counters' store is away, the plan says what runs: a little, everything, or nothing."""

import pytest

from metering.quotas import service as module
from metering.quotas.service import Ask
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

"""Valkey killed under load: each administration's plan decides meanwhile, and afterwards counters are the ledger's."""

import itertools
import shutil
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from metering.catalog.tokens import add_token
from metering.quotas.service import LOCAL_REQUESTS_MAX
from metering.quotas.verifying import verify_counters
from metering.services import Services, open_services
from metering.settings import Settings
from tests.client.conftest import Server
from tests.integration.doors import until
from tests.quotas.conftest import declare
from tests.quotas.valkeys import Valkey, one_valkey
from tests.quotas.workers import settling
from tests.threads import run_threads

AWAY_S = 4
"""How long the store is away; at 10 s it is the same, and takes longer."""
RETURN_S = 1
"""The same where only what comes back is looked at."""

FREE, BILLED, PREPAID = "dinum", "interieur", "sante"
TASKS = 3
"""Of each administration at once."""
PROMPT, OUTPUT = 12, 8
TOKENS = PROMPT + OUTPUT
"""Of each request, held and then used."""
LIMIT = 80 * TOKENS

CONVENTION = """
- id: {tenant}-1
  tenant: {tenant}
  title: Convention
  funder: {tenant}
  signed_on: 2026-01-01
  effective_on: 2026-01-01
  starts_on: 2026-01-01
  ends_on: 2036-12-31
  settlement: {settlement}
  overage: {overage}
  outage: {outage}
  envelope_eur: 1000
  limits: [{{scope: tenant, selector: "*", meter: total_tokens, window: month, value: {limit}, mode: {mode}}}]
"""
CATALOGUE = f"""
categories: [{{id: chat, name: Chat}}]
models: [{{id: small, name: Small, category: chat, publisher: P, licence: MIT, operations: [chat]}}]
plans:
- id: free
  name: Free
  limits: [{{scope: tenant, selector: "*", meter: total_tokens, window: month, value: {LIMIT}}}]
tenants:
- {{id: {FREE}, name: Free, plan: free}}
- {{id: {BILLED}, name: Billed, plan: free}}
- {{id: {PREPAID}, name: Prepaid, plan: free}}
conventions:
{CONVENTION.format(tenant=BILLED, settlement="billed", overage="bill", outage="open", limit=LIMIT, mode="soft")}
{CONVENTION.format(tenant=PREPAID, settlement="prepaid", overage="block", outage="closed", limit=LIMIT, mode="hard")}
"""


@dataclass(frozen=True)
class Asked:
    """A question and its answer: when (monotonic seconds), and what it came to."""

    tenant: str
    reservation: str
    began_s: float
    ended_s: float
    status: int
    reason: str


@dataclass
class Load:
    """Gateways that ask, tell what was used, and ask again."""

    url: str
    token: str
    asked: list[Asked] = field(default_factory=list)
    is_over: bool = False

    def run(self, tenant: str, task: int) -> None:
        with httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30) as client:
            for turn in itertools.takewhile(lambda _: not self.is_over, itertools.count()):
                self.request(client, tenant, f"{tenant}-{task}-{turn}", is_told_first=turn % 2 == 0)

    def request(self, client: httpx.Client, tenant: str, reservation: str, *, is_told_first: bool) -> None:
        who = {"reservation": reservation, "tenant": tenant, "model": "small"}
        estimates = {"prompt_tokens": PROMPT, "max_output_tokens": OUTPUT, "min_output_tokens": OUTPUT}
        began_s = time.monotonic()
        answer = client.post("/v1/quota/reserve", json=who | {"estimates": estimates, "ttl_s": 600})
        told = answer.json()
        self.asked.append(
            Asked(
                tenant, reservation, began_s, time.monotonic(), answer.status_code, told.get("reason", told.get("code"))
            )
        )
        if answer.status_code != 200:
            time.sleep(0.05)
            return
        used = {"input_tokens": PROMPT, "output_tokens": OUTPUT}
        # Whichever comes second changes nothing; while the counters are away, the event alone tells.
        steps = [partial(client.post, "/v1/quota/commit", json=who | {"quantities": used}),
                 partial(client.post, "/v1/events", json=[event(tenant, reservation, used)])]  # fmt: skip
        answers = [step().status_code for step in (steps[::-1] if is_told_first else steps)]
        assert set(answers) <= {200, 503}
        assert answers[0 if is_told_first else 1] == 200  # the event


def event(tenant: str, reservation: str, used: dict[str, int]) -> dict[str, Any]:
    at = datetime.now(UTC).isoformat()
    data = {"tenant": tenant, "operation": "chat", "model_requested": "small", "model_served": "small", "status": "ok",
            "started_at": at, "reservation": reservation, **used}  # fmt: skip
    return {"specversion": "1.0", "type": "jauge.usage.v1", "source": "gw", "id": reservation, "time": at, "data": data}


@dataclass
class Harm:
    """Kills the store, and lets it come back as an empty one or an older copy."""

    valkey: Valkey
    comes_back: str
    away_s: float
    killed_s: float = 0.0
    back_s: float = 0.0

    def run(self, load: Load) -> None:
        journal, copy = self.valkey.folder / "appendonlydir", self.valkey.folder / "copy"
        until(lambda: least_admitted(load) >= 5)
        shutil.copytree(journal, copy)
        until(lambda: least_admitted(load) >= 15)
        self.valkey.kill()
        self.killed_s = time.monotonic()
        time.sleep(self.away_s)
        shutil.rmtree(journal)
        if self.comes_back == "older":
            copy.rename(journal)
        self.back_s = time.monotonic()
        self.valkey.start()
        until(lambda: any(one.reason == "limit_reached" for one in list(load.asked)), 60)
        load.is_over = True


def least_admitted(load: Load) -> int:
    """How many requests ran of the administration that has the fewest."""
    admitted = Counter(one.tenant for one in list(load.asked) if one.status == 200)
    return min(admitted[tenant] for tenant in (FREE, BILLED, PREPAID))


@pytest.mark.parametrize(("comes_back", "away_s"), [("empty", AWAY_S), ("older", RETURN_S)])
def test_plans_decide_while_the_store_is_away_and_then_counters_are_the_ledgers(
    database_url: str, tmp_path: Path, comes_back: str, away_s: float
) -> None:
    with (
        one_valkey(tmp_path / "valkey") as valkey,
        open_services(Settings(database_url=database_url, redis_url=valkey.url)) as services,
        ExitStack() as stack,
        capture_logs() as logged,
    ):
        declare(services, CATALOGUE)
        server = Server(services)
        stack.callback(server.stop)
        server.start()
        load, harm = Load(server.url, add_token(services.engine, "gw", "gateway")), Harm(valkey, comes_back, away_s)
        with settling(services):
            tasks = [partial(load.run, tenant, task) for tenant in (FREE, BILLED, PREPAID) for task in range(TASKS)]
            run_threads([*tasks, partial(harm.run, load)])
        away = [one for one in load.asked if harm.killed_s <= one.began_s and one.ended_s <= harm.back_s]
        assert_plans_decide(away, logged)
        assert_limits_held(services, load, harm)


def assert_plans_decide(away: list[Asked], logged: list[Any]) -> None:
    """What ran while the store was away is what each plan lets run."""
    came_to = Counter((one.tenant, one.status, one.reason) for one in away)
    assert came_to.keys() <= {
        (FREE, 200, "store_away_unlimited"), (FREE, 503, "store_away"),
        (BILLED, 200, "store_away_unlimited"),
        (PREPAID, 503, "store_away"),
    }  # fmt: skip
    assert 0 < came_to[FREE, 200, "store_away_unlimited"] <= LOCAL_REQUESTS_MAX
    assert came_to[BILLED, 200, "store_away_unlimited"] > 0 < came_to[PREPAID, 503, "store_away"]
    journal = {one["reservation"] for one in logged if one["event"] == "admitted_uncounted"}
    assert {one.reservation for one in away if one.tenant == BILLED} <= journal


def assert_limits_held(services: Services, load: Load, harm: Harm) -> None:
    """No hard limit is exceeded by more than its plan allows; counters are what the ledger has."""
    admitted = Counter(one.tenant for one in load.asked if one.status == 200)
    uncounted = Counter(one.tenant for one in load.asked if one.reason == "store_away_unlimited")
    standing = {tenant: used_of(services, load, tenant) for tenant in (FREE, BILLED, PREPAID)}
    assert standing == {tenant: TOKENS * admitted[tenant] for tenant in standing}
    # Holds of requests that were under way are lost with the store.
    assert LIMIT - TOKENS < standing[FREE] <= LIMIT + TOKENS * (uncounted[FREE] + TASKS)
    assert standing[PREPAID] <= LIMIT
    after = [one for one in load.asked if one.tenant == PREPAID and one.began_s > harm.back_s]
    assert {one.reason for one in after} == {"store_away"}  # for an hour
    differences: list[tuple[str, str, str]] = []
    check = verify_counters(services.counters(), lambda *difference: differences.append(difference))
    assert (differences, check.tenants) == ([], 3)


def used_of(services: Services, load: Load, tenant: str) -> int:
    """What an administration has used of its month, as its limits tell."""
    token = add_token(services.engine, f"operator-{tenant}", "operator")
    asked = {"tenant": tenant, "model": "small"}
    answer = httpx.get(f"{load.url}/v1/limits", params=asked, headers={"Authorization": f"Bearer {token}"})
    (limit,) = (one for one in answer.json()["limits"] if one["meter"] != "cost_neur")  # which is the envelope
    assert limit["held"] == 0
    used: int = limit["used"]
    return used

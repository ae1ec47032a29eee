"""Counters on a cluster: the same tests as on one server, slots that move, and a primary that dies under load."""

import asyncio
from binascii import crc_hqx
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from metering.client import Refused
from metering.direct import DirectJauge
from metering.quotas.calls import keys_of
from metering.quotas.service import Ask, Decision
from metering.quotas.verifying import verify_counters
from metering.rules.counting import Estimate
from metering.rules.limits import Request
from metering.services import Services, open_services
from metering.settings import Settings
from metering.valkey import connect
from tests.client.conftest import Platform
from tests.integration.doors import until
from tests.quotas.conftest import Gate, declare
from tests.quotas.test_losses import (  # noqa: F401
    WIDE,
    desk,
    small_pieces,
    test_a_building_that_is_interrupted_or_repeated_is_whole_or_not_there,
    test_an_older_copy_is_found_by_who_knows_more_and_by_settling,
    test_two_processes_build_once,
)
from tests.quotas.test_machine import run_machine
from tests.quotas.test_parallel import test_parallel_clients_never_have_more_than_the_limit  # noqa: F401
from tests.quotas.valkeys import PRIMARIES, SLOTS, Cluster, a_cluster
from tests.quotas.workers import consuming, settling

LAST, OTHER, MOVING = "dinum", "sante", "finances"
"""Administrations whose slot the last primary has, another one, and the last as well."""
TENANT = "- {id: dinum, name: DINUM, plan: free}"


def slot_of(tag: str) -> int:
    return crc_hqx(tag.encode(), 0) % SLOTS


def primary_of(tag: str) -> int:
    return slot_of(tag) * PRIMARIES // SLOTS


assert primary_of(LAST) == primary_of(MOVING) == PRIMARIES - 1 != primary_of(OTHER)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with a_cluster(tmp_path_factory.mktemp("cluster")) as formed:
        yield formed


@pytest.fixture
def redis_url(cluster: Cluster) -> str:
    """An empty cluster: what tests and fixtures of other modules know as the server's address."""
    with connect(cluster.url) as client:
        client.flushall()
    return cluster.url


def test_counters_are_what_was_held_committed_and_recorded(services: Services) -> None:
    run_machine(services, examples=3)


def test_counters_follow_their_slot_to_another_node(services: Services, cluster: Cluster) -> None:
    declare(services, WIDE.replace(TENANT, TENANT.replace("dinum", MOVING)))
    gate = Gate(services, cluster.url)
    slot, request = slot_of(MOVING), Request(MOVING, user="alice", model="small", operation="chat")
    source, target = (cluster.nodes[number].client() for number in (PRIMARIES - 1, 0))
    there, elsewhere = source.execute_command("CLUSTER MYID"), target.execute_command("CLUSTER MYID")

    def reserve(reservation: str) -> Decision:
        return gate.run(gate.service.reserve(Ask(reservation, request, 600, Estimate(prompt_tokens=10))))

    def move(*keys: str) -> None:
        source.execute_command("MIGRATE", "127.0.0.1", cluster.nodes[0].port, "", 0, 1000, "KEYS", *keys)

    counters, *rest = keys_of(MOVING)
    assert reserve("r-1").reason == "within_limits"
    target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", there)
    source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", elsewhere)
    assert reserve("r-2").reason == "within_limits"
    move(counters)
    assert reserve("r-3").reason == "store_away_unlimited"  # in two places: nobody can answer, so the plan does
    move(*rest)
    assert reserve("r-4").reason == "within_limits"  # the target answers, where it is asked for it
    assert gate.builder.store.call(MOVING, "look").status == "ok"
    for client in (target, source):
        client.execute_command("CLUSTER SETSLOT", slot, "NODE", elsewhere)
    last = reserve("r-5")  # it has moved
    assert (last.reason, {one.held for one in last.figures if one.limit.window == "month"}) == ("within_limits", {40})
    assert gate.builder.store.call(MOVING, "look").status == "ok"
    gate.close()


class Load:
    """Requests of a gateway, one after another in each task, and what was committed of them."""

    def __init__(self, jauge: DirectJauge) -> None:
        self.jauge = jauge
        self.committed: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.is_over = False

    async def run(self, tenant: str, user: str) -> None:
        asked = {"tenant": tenant, "user": user, "model": "small", "prompt_tokens": 10, "max_output_tokens": 20}
        while not self.is_over:
            try:
                async with self.jauge.hold(**asked) as hold:
                    await asyncio.sleep(0.005)
                    await hold.commit({"input_tokens": 10, "output_tokens": 7})
                    self.committed[tenant] += 17
                    self.uncounted[tenant] += not hold.limits
            except Refused as refused:
                self.refused[tenant, refused.code] += 1
                await asyncio.sleep(0.05)


async def run_while_a_primary_dies(jauge: DirectJauge, cluster: Cluster) -> Load:
    load = Load(jauge)
    tasks = [asyncio.create_task(load.run(tenant, f"u{number}")) for tenant in (LAST, OTHER) for number in range(4)]
    await asyncio.sleep(1)
    cluster.nodes[PRIMARIES - 1].kill()
    replica = cluster.nodes[PRIMARIES].client()
    await asyncio.to_thread(until, lambda: replica.info("replication")["role"] == "master")
    await asyncio.sleep(1)
    load.is_over = True
    await asyncio.gather(*tasks)
    return load


def test_a_primary_that_dies_under_load_loses_nothing_that_was_committed(
    database_url: str, redis_url: str, cluster: Cluster, tmp_path: Path
) -> None:
    # The stream is on the node that dies as well.
    settings = Settings(database_url=database_url, redis_url=redis_url, stream_name=f"events:{{{LAST}}}")
    with open_services(settings) as services:
        tenants = f"{TENANT}\n{TENANT.replace('dinum', OTHER)}"
        declare(services, WIDE.replace(TENANT, tenants).replace("  name: Free\n", "  name: Free\n  outage: open\n"))

        async def gateway() -> Load:
            options = {"source": "gw", "spool": tmp_path / "spool", "timeout_s": 10}
            async with DirectJauge(database_url, redis_url, stream_name=settings.stream_name, **options) as jauge:
                return await run_while_a_primary_dies(jauge, cluster)

        with consuming(services), settling(services):
            load = asyncio.run(gateway())
            assert not any((tmp_path / "spool").iterdir())
            ledger = Platform("", "", tmp_path, services)
            until(lambda: sum(load.committed.values()) == sum(recorded(ledger).values()))
        assert recorded(ledger) == load.committed
        assert load.uncounted[LAST] > 0
        assert load.uncounted[OTHER] == 0  # the others' nodes went on
        assert not load.refused
        differences: list[tuple[str, str, str]] = []
        check = verify_counters(services.counters(), lambda *difference: differences.append(difference))
        assert (differences, check.tenants + check.unready) == ([], 2)


def recorded(ledger: Platform) -> Counter[str]:
    """Tokens of the ledger by administration."""
    tokens: Counter[str] = Counter()
    for entry in ledger.entries():
        tokens[entry["tenant"]] += entry["input_tokens"] + entry["output_tokens"]
    return tokens

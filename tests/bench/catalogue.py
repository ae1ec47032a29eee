"""What is measured of the catalogue: the check of a key, and how long a change takes to be known."""

import statistics
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import sqlalchemy as sa

from metering.catalog.keys import check_key
from metering.catalog.snapshot import CatalogReader, digest_of
from metering.catalog.tenants import add_tenant
from metering.database import engine_for, transaction
from metering.services import Services
from metering.tables import tenant
from tests.bench.measures import Line

CHECK_US_MAX = 2
VISIBLE_MS_MAX = 1_000
PROCESSES = 4


def key_check(services: Services, keys: int) -> Line:
    """µs of the check of a key in the snapshot, its administration and account included."""
    add_keys(services, keys)
    catalog = services.catalog.refresh()
    digests = [digest_of(f"secret-{number}") for number in range(1, keys + 1)]
    now = datetime.now(UTC)
    started = time.perf_counter_ns()
    for digest in digests:
        check_key(catalog, digest, now)
    each_us = (time.perf_counter_ns() - started) / 1000 / len(digests)
    return Line(f"check of a key, {keys:,} keys", each_us, "µs", "budget", CHECK_US_MAX, each_us / CHECK_US_MAX, "≤ 1")


def change_visible(services: Services) -> Line:
    """ms from the commit of a change until the last of several readers knows of it, at the number of keys there are."""
    readers = [CatalogReader(engine_for(services.stores.database_url, connections_max=2)) for _ in range(PROCESSES)]
    for reader in readers:
        reader.refresh()
    times_ms = []
    with ExitStack() as stack:
        for reader in readers:
            stack.enter_context(reader.watching())
        for turn in range(10):
            time.sleep(0.2)
            with transaction(services.engine) as connection:
                connection.execute(tenant.update().values(name=f"Turn {turn}"))
            committed = time.perf_counter()
            while any(reader.current().tenants["bench"].name != f"Turn {turn}" for reader in readers):
                time.sleep(0.0005)
            times_ms.append((time.perf_counter() - committed) * 1000)
    slowest_ms = max(times_ms)
    return Line(
        f"a change known to {PROCESSES} readers (slowest of 10; median {statistics.median(times_ms):.0f} ms)",
        slowest_ms, "ms", "budget", VISIBLE_MS_MAX, slowest_ms / VISIBLE_MS_MAX, "≤ 1",
    )  # fmt: skip


def add_keys(services: Services, keys: int) -> None:
    """One administration with an account and many keys; the secret of each is `secret-` and its number."""
    add_tenant(services.engine, "bench")
    with transaction(services.engine) as connection:
        connection.execute(sa.text("INSERT INTO account (id, tenant) VALUES ('u-bench', 'bench')"))
        connection.execute(
            sa.text(
                "INSERT INTO api_key (id, tenant, account, name, prefix, digest) SELECT 'k-' || n, 'bench', 'u-bench', "
                "'bench', 'sk-', sha256(convert_to('secret-' || n, 'UTF8')) FROM generate_series(1, :keys) AS n"
            ),
            {"keys": keys},
        )

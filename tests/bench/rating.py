"""What is measured of rating: a sealed month of many administrations and models, beside one scan of its files.

`python -m tests.bench.rating EVENTS` measures it alone.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import sqlalchemy as sa

from metering.billing.prices import tariffs_of
from metering.billing.rating import AsOf, rate_tenants, read_month
from metering.catalog.apply import apply, read_file
from metering.catalog.tenants import add_tenant
from metering.database import transaction
from metering.ledger.sealed import SealedMonth, open_month
from metering.ledger.sealing import seal_month
from metering.ledger.series import Series, SeriesRegistry
from metering.services import Services
from metering.tables import ledger_batch
from tests.bench.load import frames
from tests.bench.measures import Line

ADMINISTRATIONS, MODELS = 500, 30
MONTH = "2026-09"
FRAME_ROWS, FRAME_HOURS = 40_000, 720
ROUNDS = 3
RATIO_MAX = 3

CATALOGUE = """
categories:
  - {id: big, name: Big}
price_books:
  - {id: list, name: List, currency: EUR, vat: rate, vat_percent: "20"}
prices:
  - {book: list, selector: "*", meter: input_tokens, price: "0.2", per: 1_000_000, valid_from: 2026-01-01T00:00:00Z}
  - {book: list, selector: "*", meter: input_tokens, price: "0.3", per: 1_000_000, valid_from: 2026-09-15T10:00:00Z}
  - {book: list, selector: "*", meter: output_tokens, price: "0.6", per: 1_000_000, valid_from: 2026-01-01T00:00:00Z}
platform:
  default_plan: experimentation
  price_book: list
models:
""" + "\n".join(
    f"  - {{id: model-{number}, name: M, category: big, publisher: P, licence: MIT, operations: [chat]}}"
    for number in range(MODELS)
)
"""A change of price within the month: each administration and model has two parts."""

SCAN = """
    SELECT tenant, project, coalesce(model_served, model_requested) AS model, operation,
        sum(requests), sum(input_tokens), sum(output_tokens)
    FROM read_parquet($paths) GROUP BY ALL
"""
"""What anybody would ask of the files: the same keys, and the sums that prices are for."""


def month(
    services: Services, events: int, say: Callable[[str], None], *, administrations: int = ADMINISTRATIONS
) -> Line:
    """Seconds to rate a sealed month, from its files to its lines."""
    names = [f"t{number:03}" for number in range(administrations)]
    _fill(services, names, events, say)
    period = read_month(MONTH)
    with transaction(services.engine) as connection:
        last = connection.scalar(sa.select(sa.func.max(ledger_batch.c.seq))) or 0
        apply(connection, read_file(CATALOGUE.encode()))
    tariffs = tariffs_of(services.catalog.refresh())
    with tempfile.TemporaryDirectory() as folder:
        seal = seal_month(services.engine, MONTH, period.start, period.end, Path(folder), last_batch=last)
        sealed = open_month(seal, Path(folder))
        times, scans = [], []
        for _ in range(ROUNDS):
            scans.append(_scan_s(sealed))
            started = time.perf_counter()
            with transaction(services.engine, snapshot=True) as connection:
                rated = rate_tenants(connection, tariffs, names, period, AsOf(last), sealed)
            times.append(time.perf_counter() - started)
    lines = sum(len(one.month.lines) for one in rated)
    assert lines >= 3 * administrations
    ratio = statistics.median(own / scan for own, scan in zip(times, scans, strict=True))
    return Line(
        f"rating a sealed month, {administrations} × {MODELS}, {seal.rows:,} events, {lines:,} lines",
        statistics.median(times), "s", "one DuckDB scan of it", statistics.median(scans), ratio, f"≤ {RATIO_MAX}",
    )  # fmt: skip


def _scan_s(sealed: SealedMonth) -> float:
    started = time.perf_counter()
    with duckdb.connect() as connection:
        rows = connection.execute(SCAN, {"paths": sealed.paths}).fetchall()
    assert rows
    return time.perf_counter() - started


def _fill(services: Services, names: list[str], events: int, say: Callable[[str], None]) -> None:
    registry = SeriesRegistry(services.engine)
    tenants = {name: add_tenant(services.engine, name).number for name in names}
    series = [_series(name, f"model-{number}") for name in names for number in range(MODELS)]
    done, turn = 0, 0
    while done < events:
        rows, turn = min(FRAME_ROWS, events - done), turn + 1
        (frame,) = frames(registry, tenants, rows=rows, count=1, hours=FRAME_HOURS, seed=turn, series=series)
        services.committer.submit(frame).result()
        done += rows
        if turn % 50 == 0:
            say(f"{done:,} events of {events:,}")


def _series(tenant: str, model: str) -> Series:
    return Series(
        source="bench", tenant=tenant, project=f"{tenant}-p", user=None, api_key=None, application=None,
        operation="chat", endpoint=None, model_requested=model, model_served=model, category=None, deployment=None,
        streamed=True, status="ok", http_status=200, finish_reason="stop", error_code=None, count_source="provider",
    )  # fmt: skip


if __name__ == "__main__":
    from tests.bench.__main__ import say, stores, table

    with stores() as opened:
        print(table([month(opened, int(sys.argv[1]), say)]))

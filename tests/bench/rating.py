"""What is measured of rating: a sealed month of many administrations and models, beside one scan of its files.

The files are as sealing writes them, but don't come from the database: 20 million events take most of an hour to get
there, and rating doesn't see it. `python -m tests.bench.rating EVENTS` measures it alone.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl

from metering.billing.prices import tariffs_of
from metering.billing.rating import LATEST, Period, rate_tenants, read_month
from metering.catalog.apply import apply, read_file
from metering.database import transaction
from metering.ledger.manifest import FORM, SEALED_SCHEMA, Manifest, added_up, month_folder
from metering.ledger.sealed import HOUR, SealedMonth
from metering.ledger.sealing import FILE_ROWS_MAX, ORDER, Part, Seal, described, write_sealed
from metering.ledger.series import Series, SeriesRegistry
from metering.services import Services
from metering.tables import SERIES_FIELDS
from tests.bench.load import MONTH as MONTH_START
from tests.bench.load import frames
from tests.bench.measures import Line

ADMINISTRATIONS, MODELS = 500, 30
MONTH = "2026-09"
HOURS = 718
"""From the first of September in UTC to the end of September in Paris."""
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
    """Seconds to rate a sealed month, from its files to its lines; it and the scan take turns."""
    names = [f"t{number:03}" for number in range(administrations)]
    period = read_month(MONTH)
    with transaction(services.engine) as connection:
        apply(connection, read_file(CATALOGUE.encode()))
    tariffs = tariffs_of(services.catalog.refresh())
    with tempfile.TemporaryDirectory() as folder:
        sealed = _sealed(SeriesRegistry(services.engine), names, events, period, Path(folder), say)
        times, scans, lines = [], [], 0
        for _ in range(ROUNDS):
            scans.append(_scan_s(sealed))
            started = time.perf_counter()
            with transaction(services.engine, snapshot=True) as connection:
                rated = rate_tenants(connection, tariffs, names, period, LATEST, sealed)
            times.append(time.perf_counter() - started)
            lines = sum(len(one.month.lines) for one in rated)
            say(f"{times[-1]:.2f} s, {scans[-1]:.2f} s a scan")
    assert lines >= 3 * administrations
    return Line(
        f"rating a sealed month, {administrations} × {MODELS}, {sealed.seal.rows:,} events, {lines:,} lines",
        min(times), "s", "one DuckDB scan of it", min(scans), min(times) / min(scans), f"≤ {RATIO_MAX}",
    )  # fmt: skip


def _scan_s(sealed: SealedMonth) -> float:
    started = time.perf_counter()
    with duckdb.connect() as connection:
        rows = connection.execute(SCAN, {"paths": sealed.paths}).fetchall()
    assert rows
    return time.perf_counter() - started


def _sealed(
    registry: SeriesRegistry, names: list[str], events: int, period: Period, data: Path, say: Callable[[str], None]
) -> SealedMonth:
    """A month in files, each of the same number of hours and of one batch, and a seal that nobody recorded."""
    tenants = {name: number for number, name in enumerate(names, start=1)}
    series = [series_of(name, f"model-{number}") for name in names for number in range(MODELS)]
    count = -(-events // FILE_ROWS_MAX)
    hours = HOUR * (HOURS // count)
    place = month_folder(data, MONTH)
    place.mkdir(parents=True)
    made = frames(registry, tenants, rows=events // count, count=count, hours=hours // HOUR, series=series)
    numbers = registry.numbers(series)
    schema = {"series": pl.Int32(), **{name: SEALED_SCHEMA[name] for name in SERIES_FIELDS}}
    named = pl.DataFrame([(numbers[one], *one) for one in series], schema=schema, orient="row")
    files = []
    for batch, frame in enumerate(made, start=1):
        path = place / f"entries-{count}-{batch:04}.parquet"
        whole = frame.rename({"tenant": "tenant_number"}).join(named, on="series")
        entries = whole.with_columns(batch_seq=pl.lit(batch, pl.Int64())).select(*SEALED_SCHEMA)
        write_sealed(entries.sort(*ORDER), path)
        start = MONTH_START + (batch - 1) * hours
        files.append(described(path, Part(start, start + hours, frame.height)))
        say(f"file {batch} of {count}")
    manifest = Manifest(
        form=FORM, month=MONTH, start=period.start, end=period.end, last_batch=count, ledger_hash="",
        rows=sum(file.rows for file in files), sums=added_up(file.sums for file in files), files=tuple(files),
    )  # fmt: skip
    return SealedMonth(Seal(MONTH, period.start, period.end, count, manifest.rows, "", ""), manifest, place)


def series_of(tenant: str, model: str) -> Series:
    """Chat of an administration with a model, in a project of its own."""
    return Series(
        source="bench", tenant=tenant, project=f"{tenant}-p", user=None, api_key=None, application=None,
        operation="chat", endpoint=None, model_requested=model, model_served=model, category=None, deployment=None,
        streamed=True, status="ok", http_status=200, finish_reason="stop", error_code=None, count_source="provider",
    )  # fmt: skip


if __name__ == "__main__":
    from tests.bench.__main__ import say, stores, table

    with stores() as opened:
        print(table([month(opened, int(sys.argv[1]), say)]))

"""`make bench`: run the benchmarks and print their table; with --json, write the figures to a file as well."""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from metering import embedded
from metering.migrate import upgrade
from metering.services import Services, open_services
from metering.settings import Settings
from tests.bench import (
    carbon,
    catalogue,
    drawings,
    exports,
    gateways,
    invoices,
    measures,
    overview,
    peers,
    quotas,
    rating,
    sealing,
)  # fmt: skip
from tests.bench.load import DAYS
from tests.bench.measures import Line
from tests.bench.serving import served


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="entries that the ledger is filled to")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--small", action="store_true", help="a minute's run, to see that it runs")
    options = parser.parse_args()
    lines = run(20_000 if options.small else options.rows, small=options.small)
    print(table(lines))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "lines": [asdict(line) for line in lines]}, indent=2))


def run(rows: int, *, small: bool) -> list[Line]:
    """Every benchmark: first on a small ledger, then on one that grows to `rows` entries."""
    batches, calls = (1, 8) if small else (20, 80)
    with stores() as services, served(services) as url:
        lines = [
            measures.http_decode(calls),
            measures.ledger_append(services, batches),
            measures.file_ingest(services, max(calls // 8, 2)),
            measures.http_ingest(services, url, calls),
        ]
    with stores() as services:
        lines += [catalogue.key_check(services, 1_000 if small else 100_000), catalogue.change_visible(services)]
    with stores() as services:
        lines += quotas.reserve(services, seconds=0.5 if small else 5)
        lines.append(quotas.script(services, 500 if small else 20_000))
        lines.append(quotas.direct(services, 640 if small else 19_200))
    with stores() as services:
        lines += gateways.first_token(services, 8 if small else 200)
    with stores() as services:
        lines += peers.compare(services, peers.SMALL if small else peers.FULL)
    with stores() as services:
        lines += carbon.attribution(services, 10_000 if small else 1_000_000)
    with stores() as services:
        lines.append(rating.month(services, 2 * rows, say, administrations=20 if small else rating.ADMINISTRATIONS))
    with stores() as services:
        lines += invoices.invoices(services, 20 if small else 1_000)
    with stores() as services:
        lines += sealing.sealed_month(services, rows // 10, say)
        lines += exports.exports(services, rows // 10, say)
    with stores() as services:
        lines += charts(services, rows)
        lines += overview.first_byte(services, rows, turns=3 if small else 20)
        lines.append(measures.ledger_append(services, batches))
        lines.append(measures.verification(services))
    lines += drawings.drawings(2 if small else 30)
    return lines if small else [*lines, measures.cold_start()]


def charts(services: Services, rows: int) -> list[Line]:
    """One administration's chart as the ledger grows a hundred times; from the first, every hour of it has usage."""
    sizes = (rows // 100, rows // 10, rows)
    first, times = measures.days_ago(DAYS), []
    for size in sizes:
        measures.preload(services, size, say, hours=144 if size == sizes[0] else 20, first=first)
        times.append(measures.chart(services, first))
    return [measures.chart_line(times[at], sizes[at], times[2], sizes[2]) for at in (0, 1)]


@contextmanager
def stores() -> Iterator[Services]:
    """Services on an empty ledger."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, embedded.running(Path(folder)) as servers:
        settings = Settings(database_url=servers.database_url, redis_url=servers.redis_url)
        with open_services(settings) as services:
            upgrade(services.engine)
            yield services


def say(text: str) -> None:
    print(text, file=sys.stderr)


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, PostgreSQL 18 with fsync"


def table(lines: list[Line]) -> str:
    """A Markdown table."""
    rows = ["| work | figure | limit beside it | its figure | ratio | wanted |", "|---|---|---|---|---|---|"]
    for line in lines:
        figure, limit = (
            f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in (line.figure, line.limit_figure)
        )
        rows.append(
            f"| {line.work} | {figure} {line.unit} | {line.limit} | {limit} | {line.ratio:.2f} | {line.wanted} |"
        )
    return "\n".join([machine(), "", *rows])


if __name__ == "__main__":
    main()

"""What is measured of closing a month: an invoice with all its files, and whether memory grows with how many there are.

`python -m tests.bench.invoices INVOICES` measures it alone.
"""

import statistics
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from resource import getpagesize

import sqlalchemy as sa
import yaml

from metering.billing.closing import Closer
from metering.catalog.apply import apply, read_file
from metering.database import transaction
from metering.ledger.series import SeriesRegistry
from metering.services import Services
from metering.tables import tenant
from reports.documents import files_of
from tests.bench.load import frames
from tests.bench.measures import Line
from tests.bench.rating import CATALOGUE, HOURS, MONTH, series_of

MS_MAX = 50
MODELS = 5
EVENTS = 40
"""Of each administration: about 15 lines an invoice."""
AFTER = datetime(2026, 10, 15, tzinfo=UTC)


ISSUER = {
    "name": "Seller",
    "siret": "00022002000010",
    "vat_number": "FR84000220020",
    "address": {"lines": ["1 rue C"], "postcode": "75007", "city": "Paris"},
    "iban": "FR1420041010050500013M02606",
}
BILLING = {"address": {"lines": ["1 rue A"], "postcode": "3000", "city": "Berne", "country": "CH"}, "language": "en"}
START = date(2026, 1, 1)
TERM = {"signed_on": START, "effective_on": START, "starts_on": START, "ends_on": date(2027, 12, 31)}


def invoices(services: Services, count: int) -> list[Line]:
    """Milliseconds an invoice, from one to the next, written and on the disk; memory early on and at the end."""
    names = [f"t{number:04}" for number in range(count)]
    _fill(services, names)
    times: list[float] = []
    held: list[float] = []

    def note(done: int, total: int) -> None:
        times.append(time.perf_counter())
        if done in {max(2, total // 10), total}:
            held.append(_held_mb())

    with tempfile.TemporaryDirectory() as folder:
        closer = Closer(services.engine, Path(folder), files_of, grace_days=3)
        closer.finalise(MONTH, author="bench", now=AFTER, progress=note)
    assert len(times) == count
    each_ms = statistics.median(after - before for before, after in pairwise(times)) * 1000
    early, late = held
    return [
        Line(f"invoice with its files, median of {count:,}", each_ms, "ms", f"{MS_MAX} ms", MS_MAX, each_ms / MS_MAX,
             "≤ 1"),
        Line(f"memory after {count:,} invoices", late, "MB", "after a tenth of them", early, late / early, "≤ 1.1"),
    ]  # fmt: skip


def _fill(services: Services, names: list[str]) -> None:
    """Administrations with conventions that bill, and usage of each."""
    document = yaml.safe_load(CATALOGUE)
    document["platform"]["issuer"] = ISSUER
    document["tenants"] = [{"id": name, "name": name, "billing": BILLING} for name in names]
    document["conventions"] = [
        {"id": f"c-{name}", "tenant": name, "title": "T", "funder": "F", "settlement": "billed", "overage": "bill",
         "price_book": "list", **TERM}
        for name in names
    ]  # fmt: skip
    with transaction(services.engine) as connection:
        apply(connection, read_file(yaml.safe_dump(document).encode()))
        numbers = {row.id: row.number for row in connection.execute(sa.select(tenant.c.id, tenant.c.number))}
    services.catalog.refresh()
    series = [series_of(name, f"model-{number}") for name in names for number in range(MODELS)]
    rows = EVENTS * len(names)
    registry = SeriesRegistry(services.engine)
    for frame in frames(registry, numbers, rows=rows, count=1, hours=HOURS, series=series):
        services.committer.submit(frame).result()


def _held_mb() -> float:
    """Memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize() / 1e6


if __name__ == "__main__":
    from tests.bench.__main__ import stores, table

    with stores() as opened:
        print(table(invoices(opened, int(sys.argv[1]))))

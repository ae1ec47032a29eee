"""What is measured of sealed months: writing one, checking it row by row, and the room that its rows take.

`python -m tests.bench.sealing EVENTS` measures it alone.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from metering.billing.rating import read_month
from metering.database import transaction
from metering.ledger.seal_verify import verify_seals
from metering.ledger.sealed import open_month
from metering.ledger.sealing import seal_month
from metering.services import Services
from metering.tables import ledger_batch
from tests.bench.measures import Line, copied_out, preload

MONTH = "2026-09"
ROOM = """
    SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'ledger_entry'::regclass
"""


def sealed_month(services: Services, events: int, say: Callable[[str], None]) -> list[Line]:
    """Rows a second of sealing and of checking a month, beside reading its rows; bytes a row, beside the ledger's."""
    preload(services, events, say, hours=20)
    period = read_month(MONTH)
    with transaction(services.engine) as connection:
        last = connection.scalar(sa.select(sa.func.max(ledger_batch.c.seq))) or 0
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        seal = seal_month(services.engine, MONTH, period.start, period.end, Path(folder), last_batch=last)
        sealed_rate = seal.rows / (time.perf_counter() - started)
        started = time.perf_counter()
        result = verify_seals(services.engine, Path(folder), MONTH)
        checked_rate = result.rows / (time.perf_counter() - started)
        assert result.clean, result.differences
        room = sum(Path(path).stat().st_size for path in open_month(seal, Path(folder)).paths) / seal.rows
    rows, limit = copied_out(services)
    with transaction(services.engine) as connection:
        kept = float(connection.scalar(sa.text(ROOM)) or 0) / rows
    beside = "COPY of its rows out"
    return [
        Line(f"seal a month, {seal.rows:,} rows", sealed_rate, "rows/s", beside, limit, sealed_rate / limit, ""),
        Line(f"check a seal, {seal.rows:,} rows", checked_rate, "rows/s", beside, limit, checked_rate / limit, ""),
        Line("a sealed row on the disk", room, "bytes", "the ledger's, without identity", kept, room / kept, ""),
    ]


if __name__ == "__main__":
    from tests.bench.__main__ import say, stores, table

    with stores() as opened:
        print(table(sealed_month(opened, int(sys.argv[1]), say)))

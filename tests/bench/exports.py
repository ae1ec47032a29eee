"""What is measured of exports: usage by hour, agent, model and operation, as files.

`python -m tests.bench.exports EVENTS` measures it alone.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from metering.identity import Principal
from metering.services import Services
from reports.exports.making import make, parse_export
from tests.bench.measures import Line, copied_out, preload

ASKED = {
    "start": "2026-09-01",
    "end": "2026-10-01",
    "bucket": "hour",
    "group_by": "tenant,project,user,model,operation",
}
FORMS = ("csv", "parquet", "xlsx")


def exports(services: Services, events: int, say: Callable[[str], None]) -> list[Line]:
    """Rows a second of each form, beside reading the entries that they are sums of."""
    preload(services, events, say, hours=20)
    entries, limit = copied_out(services)
    lines = []
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            export = parse_export(ASKED | {"format": form}, Principal("operator", "operator"))
            started = time.perf_counter()
            made = make(services.export_sources(), export, Principal("operator", "operator"), Path(folder))
            rate = made.told["rows"] / (time.perf_counter() - started)
        work = f"export as {form}, {made.told['rows']:,} rows of {entries:,} entries"
        lines.append(Line(work, rate, "rows/s", "COPY of the entries out", limit, rate / limit, ""))
    return lines


if __name__ == "__main__":
    from tests.bench.__main__ import say, stores, table

    with stores() as opened:
        print(table(exports(opened, int(sys.argv[1]), say)))

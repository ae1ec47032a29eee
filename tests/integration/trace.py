"""A trace of requests with known totals, and what the ledger makes of it."""

import json
import random
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from metering.database import engine_for
from tests.conftest import TENANTS

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
PUBLIC = SHARED / "data" / "azure_llm_2023_code.csv"
TOOL = SHARED / "tools" / "trace_to_events.py"
MODELS = ("albert-small", "albert-large", "albert-code")

Totals = dict[tuple[str, str], tuple[int, int, int]]
"""Requests, input tokens and output tokens by tenant and model."""


@dataclass(frozen=True)
class Trace:
    """Events, one a line, and their totals."""

    lines: list[bytes]
    totals: Totals

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def file(self, path: Path) -> Path:
        path.write_bytes(b"\n".join(self.lines) + b"\n")
        return path


def a_trace(count: int, source: str = "trace") -> Trace:
    """A made-up trace; the same one for the same arguments."""
    rng = random.Random(count)
    lines: list[bytes] = []
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for number in range(count):
        tenant, model = TENANTS[number % len(TENANTS)], MODELS[number % len(MODELS)]
        used = (1, rng.randrange(8000), rng.randrange(2000))
        started = datetime(2025, 10, 25, 20, tzinfo=UTC) + timedelta(milliseconds=number * 1500)
        event = {
            "specversion": "1.0", "type": "jauge.usage.v1", "source": source, "id": f"{source}-{number}",
            "time": (started + timedelta(milliseconds=20 * used[2])).isoformat(),
            "data": {
                "tenant": tenant, "project": f"p{number % 2}", "user": f"u{number % 7}", "api_key": f"k{number % 3}",
                "operation": "chat", "model_requested": model, "model_served": model, "status": "ok",
                "started_at": started.isoformat(), "input_tokens": used[1], "output_tokens": used[2],
            },
        }  # fmt: skip
        lines.append(json.dumps(event).encode())
        sums[tenant, model] = [total + part for total, part in zip(sums[tenant, model], used, strict=True)]
    return Trace(lines, {key: (one[0], one[1], one[2]) for key, one in sums.items()})


def the_trace(repeat: int = 1) -> Trace:
    """The public trace of the shared folder where it is there, otherwise a made-up one of the same size."""
    if not (TOOL.exists() and PUBLIC.exists()):
        return a_trace(8_819 * repeat)
    command = [sys.executable, str(TOOL), str(PUBLIC), "--repeat", str(repeat)]
    lines = subprocess.run(command, capture_output=True, check=True).stdout.splitlines()
    text = subprocess.run([*command, "--totals"], capture_output=True, check=True, text=True).stdout
    rows = [line.split("\t") for line in text.splitlines()]
    totals = {(row[0], row[1]): tuple(int(part.partition("=")[2]) for part in row[2:]) for row in rows}
    whole = totals.pop(("all", "all"))
    assert whole == (8_819 * repeat, 18_059_974 * repeat, 245_896 * repeat)
    assert whole == tuple(map(sum, zip(*totals.values(), strict=True)))
    return Trace(lines, totals)  # type: ignore[arg-type]


def recorded_totals(database_url: str, table: str = "usage_hourly") -> Totals:
    """Totals in a rollup."""
    engine = engine_for(database_url)
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                f"SELECT tenant, model, sum(requests), sum(input_tokens), sum(output_tokens) FROM {table} GROUP BY 1, 2"
            )
        ).all()
    engine.dispose()
    return {(row[0], row[1]): (int(row[2]), int(row[3]), int(row[4])) for row in rows}

"""The explorer of a chart: what its script is given, and that script, made from the wheel that draws charts.

The script is ours (`explorer.js`) with Vega around it, bundled by `vl_convert`: nothing comes from another host, and no
script of others is in the repository. Bundling takes a second or two and holds the interpreter lock, so that a process
of its own does it, once, when the first reader opens an explorer.

The explorer draws the specification of the page's own chart, with the page's own figures: one reading, one ranking and
one wording for the drawing, the table and what a reader explores.
"""

import asyncio
import gzip
import hashlib
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reports import wording
from reports.figures import WIDE, Bars, bar_totals, bars_spec, rhythms, tick_label, value_label, value_ticks
from reports.wording import DURATIONS, Language

SOURCE = Path(__file__).parent / "explorer.js"
BUNDLING_TIMEOUT_S = 60.0


class BundlingError(Exception):
    """The script could not be made: the process died or took too long. The page stands without it."""


def explored(chart: Bars, language: Language) -> Mapping[str, Any]:
    """What the script draws from, as JSON, every text ready in the reader's language. Pure.

    spec: the chart's specification; labels: of each bucket; ticks: of the axis, by bucket, and which buckets may carry
    one, from the finest rhythm to the coarsest; scales: axes of values, from the lowest to one that holds every bar.
    """
    local = [start.astimezone(chart.zone) for start in chart.starts]
    return {
        "spec": bars_spec(chart, language, WIDE),
        "labels": [wording.bucket_label(start, chart.bucket, chart.zone, language) for start in chart.starts],
        "ticks": [tick_label(moment, chart.bucket, language, is_first=False) for moment in local],
        "rhythms": [[i for i, moment in enumerate(local) if chosen(moment)] for chosen in rhythms(chart.bucket)],
        "scales": _scales(chart, language),
    }


def _scales(chart: Bars, language: Language) -> list[dict[int, str]]:
    """Ticks with their labels: a part of the chart is drawn on the first scale that holds it."""
    top, reached = max(bar_totals(chart).values(), default=0), 0
    scales: list[dict[int, str]] = []
    while not scales or reached < top:
        ticks = value_ticks(reached + 1, WIDE.value_ticks_max, is_duration=chart.quantity in DURATIONS)
        scales.append({tick: value_label(tick, chart.quantity, language) for tick in ticks})
        reached = ticks[-1]
    return scales


@cache
def script_url() -> str:
    """Address of the script; it changes with ours and with the wheel, which is all that it is made of."""
    made_of = SOURCE.read_bytes() + version("vl-convert-python").encode()
    return f"/explorer.js?v={hashlib.sha256(made_of).hexdigest()[:12]}"


class Script:
    """The script, compressed by gzip: made when it is first asked for, by one process whoever else asks meanwhile."""

    def __init__(self) -> None:
        self._making: asyncio.Task[bytes] | None = None

    async def compressed(self) -> bytes:
        """Raises: BundlingError. Who asks next tries again."""
        if self._making is None or (self._making.done() and self._making.exception() is not None):
            self._making = asyncio.create_task(_made())
        # A reader who goes away takes nothing from those who still wait.
        return await asyncio.shield(self._making)


async def _made() -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "reports.explorer", stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(BUNDLING_TIMEOUT_S):
            made, _ = await process.communicate()
    except TimeoutError as error:
        raise BundlingError(f"not bundled within {BUNDLING_TIMEOUT_S} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise BundlingError(f"bundling ended with {process.returncode}")
    return made


def bundle() -> bytes:
    """The script, bundled here and now, and compressed. It holds the interpreter lock: for a process of its own."""
    import vl_convert  # noqa: PLC0415 - the process that serves pages must never load Vega's engine

    return gzip.compress(vl_convert.javascript_bundle(SOURCE.read_text()).encode(), mtime=0)


if __name__ == "__main__":
    sys.stdout.buffer.write(bundle())

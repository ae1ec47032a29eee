"""Progress bars of long commands, on standard error, and only where a person watches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn


@contextmanager
def progress(unit: Literal["bytes", "rows"], total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar, or a count where the total is unknown; yields the function that advances it."""
    done = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    with Progress(
        SpinnerColumn(),
        BarColumn(),
        done,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as bar:
        task = bar.add_task(unit, total=total)
        yield lambda amount: bar.advance(task, amount)

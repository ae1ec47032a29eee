"""Progress bars of long commands, on standard error, and only where a person watches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

Unit = Literal["bytes", "rows", "events", "hours", "documents"]


class Advance(Protocol):
    """Advances a bar by an amount; a total, once known, can be told with it."""

    def __call__(self, amount: int, total: int | None = None) -> None: ...


@contextmanager
def progress(unit: Unit, total: int | None) -> Iterator[Advance]:
    """A bar, or a count where the total is unknown; yields what advances it."""
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

        def advance(amount: int, total: int | None = None) -> None:
            bar.update(task, advance=amount, total=total)

        yield advance

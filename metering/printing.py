"""How commands read small values and print records."""

import csv
import json
import sys
from datetime import datetime
from typing import Any, Literal

import rich_click as click


def assignment(text: str) -> tuple[str, str]:
    """`NAME=VALUE` as a pair. Raises: UsageError."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{text}: expected NAME=VALUE.")
    return name.strip(), value.strip()


def whole(text: str) -> int:
    """A whole number. Raises: UsageError."""
    try:
        return int(text)
    except ValueError as error:
        raise click.UsageError(f"{text}: expected an integer.") from error


def print_counts(counts: dict[str, int], *, as_json: bool) -> None:
    """Named counts on one line."""
    click.echo(json.dumps(counts) if as_json else ", ".join(f"{name} {count:,}" for name, count in counts.items()))


def print_records(records: list[dict[str, Any]], form: Literal["table", "json", "csv"], columns: list[str]) -> None:
    """Columns of records as a table for people, as JSON or as CSV."""
    if form == "json":
        click.echo(json.dumps([{name: record[name] for name in columns} for record in records], default=str))
    elif form == "csv":
        writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    else:
        _print_table(records, columns)


def _print_table(records: list[dict[str, Any]], columns: list[str]) -> None:
    """Columns in which something is known, wide enough for their content."""
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that only tables need
    from rich.table import Table  # noqa: PLC0415

    if not records:
        click.echo("Nothing to show.")
        return
    table = Table(box=None, pad_edge=False)
    shown = [name for name in columns if any(record[name] is not None for record in records)]
    for name in shown:
        numeric = any(isinstance(record[name], int) for record in records)
        table.add_column(name, justify="right" if numeric else "left")
    for record in records:
        table.add_row(*(_cell(record[name]) for name in shown))
    Console(width=None if sys.stdout.isatty() else 400, soft_wrap=True).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return "" if value is None else str(value)

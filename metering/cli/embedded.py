"""Commands that start, stop and show the embedded servers."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click

from metering.cli.opening import EXIT_DIFFERS
from metering.errors import Unavailable


@click.group("embedded")
def embedded_group() -> None:
    """The embedded PostgreSQL and Valkey."""


def _show_servers(servers: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"running": servers is not None, **(asdict(servers) if servers else {})}, default=str))
    elif servers is None:
        click.echo("Not running.")
    else:
        for name, value in asdict(servers).items():
            click.echo(f"{name}: {value}")


@embedded_group.command("start")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def embedded_start(as_json: bool) -> None:
    """Start them and keep them running."""
    from metering.services import migrate_database

    with embedded_errors() as (embedded, data):
        servers = embedded.start(data)
        migrate_database(servers.database_url)
        _show_servers(servers, as_json)


@embedded_group.command("stop")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def embedded_stop(as_json: bool) -> None:
    """Stop them, even if commands still use them."""
    with embedded_errors() as (embedded, data):
        stopped = embedded.stop(data)
    click.echo(json.dumps({"stopped": stopped}) if as_json else "Stopped." if stopped else "Not running.")


@embedded_group.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def embedded_status(as_json: bool) -> None:
    """Print their addresses and process ids; exit with 1 if they don't run."""
    with embedded_errors() as (embedded, data):
        servers = embedded.status(data)
    _show_servers(servers, as_json)
    sys.exit(0 if servers else EXIT_DIFFERS)


@contextmanager
def embedded_errors() -> Iterator[tuple[Any, Path]]:
    """The module of the embedded servers and their folder; its errors become ours."""
    from metering import embedded
    from metering.settings import get_settings

    try:
        yield embedded, get_settings().data
    except embedded.EmbeddedError as error:
        raise Unavailable("embedded_failed", str(error)) from error

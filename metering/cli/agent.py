"""The command that runs on nodes with GPUs. It opens none of the service's stores."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.opening import EXIT_DIFFERS, EXIT_UNAVAILABLE, stop_on_signals

if TYPE_CHECKING:
    from httpx import Client

    from metering.agent.reading import Reader
    from metering.agent.running import Agent

TOKEN = "JAUGE_TOKEN"  # noqa: S105 - the name of a variable


class Assignment(click.ParamType[tuple[str, list[str]]]):
    """A deployment and its GPUs."""

    name = "name=gpu"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, list[str]]:
        from metering.agent.deployments import parse_assignment

        try:
            return parse_assignment(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


@click.command()
@click.option("--url", envvar="JAUGE_URL", show_envvar=True, help="Where Jauge is.")
@click.option(
    "--token-file",
    envvar="JAUGE_TOKEN_FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"File with a token of role gateway.  [default: the variable {TOKEN}]",
)
@click.option(
    "--spool",
    "folder",
    envvar="JAUGE_SPOOL",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    default=".jauge/agent",
    show_default=True,
    help="Folder of this agent's own, which outlives it.",
)
@click.option(
    "--interval", type=click.IntRange(1, 300), default=30, show_default=True, help="Seconds between readings."
)
@click.option("--dcgm", metavar="URL", help="Read the page of a DCGM exporter instead of asking the driver.")
@click.option(
    "--deployment",
    "stated",
    multiple=True,
    type=Assignment(),
    metavar="NAME=GPU,…",
    help="Deployment and the GPUs it runs on: UUIDs, or numbers from 0.",
)
@click.option(
    "--deployments",
    "deployments_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The same as a YAML file, read again when it changes.",
)
@click.option("--node", help="Name of this machine.  [default: its own]")
@click.option("--source", help="Source of the events.  [default: the node's name]")
@click.option("--site", help="Where the machine is, as the catalogue says.")
@click.option("--once", is_flag=True, help="Read and send once, and stop.")
@click.option("--dry-run", is_flag=True, help="Read once, print what would be sent, and stop.")
@click.option("--exit-without-gpu", is_flag=True, help="Stop where no GPU is found, instead of looking again.")
def agent(
    url: str | None, token_file: Path | None, folder: Path, interval: int, once: bool, dry_run: bool,
    exit_without_gpu: bool, **options: Any,
) -> None:  # fmt: skip
    """Send the energy counters of this machine's GPUs to Jauge, until SIGTERM.

    What can't be sent waits on disk. Exit codes: 0 done; 1 no GPU was found; 75 something still waits to be sent.
    """
    from metering.agent.assembly import Options, reader_for
    from metering.agent.memory import Memory, load
    from metering.agent.running import Agent
    from metering.agent.troubles import Troubles
    from metering.client.http import HttpCarrier

    _configure_logs()
    troubles = Troubles()
    try:
        reader = reader_for(Options(**options), Memory() if dry_run else load(folder, troubles), troubles)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error
    if dry_run:
        _show(reader)
        return
    if url is None:
        raise click.UsageError("Say where Jauge is: --url, or JAUGE_URL.")
    carrier = HttpCarrier(_connection(url, _token(token_file)))
    try:
        working = Agent(reader, folder, carrier, troubles)
    except OSError as error:
        raise click.UsageError(f"The folder of --spool can't be used: {error.strerror}.") from error
    _work(working, None if once else interval, exit_without_gpu=exit_without_gpu)


def _configure_logs() -> None:
    from metering.agent.troubles import Seldom
    from metering.logs import configure_logs

    configure_logs("json", "info")
    logging.getLogger("metering.client.sending").addFilter(Seldom())


def _token(token_file: Path | None) -> str:
    token = (token_file.read_text() if token_file is not None else os.environ.get(TOKEN, "")).strip()
    if not token:
        raise click.UsageError(f"A token is needed: --token-file, or {TOKEN}.")
    return token


def _connection(url: str, token: str) -> "Client":
    import httpx

    try:
        address = httpx.URL(url)
        token.encode("ascii")
    except (httpx.InvalidURL, UnicodeEncodeError):
        address = httpx.URL()
    if address.scheme not in {"http", "https"} or not address.host:
        raise click.UsageError("The address, or the token, isn't one: expected https://HOST, and a token of Jauge.")
    return httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"})


def _show(reader: "Reader") -> None:
    import msgspec

    events = reader.events()
    for event in events:
        click.echo(msgspec.json.encode(event))
    if not events:
        click.echo("no GPU found: nothing would be sent", err=True)


def _work(working: "Agent", interval_s: int | None, *, exit_without_gpu: bool) -> None:
    """Read once (interval_s is None), or until a signal."""
    stop = stop_on_signals()
    is_found = working.read() > 0
    if interval_s is not None and (is_found or not exit_without_gpu):
        working.run(stop, interval_s)
        is_found = True
    is_sent = working.close()
    sys.exit(EXIT_DIFFERS if not is_found else 0 if is_sent else EXIT_UNAVAILABLE)

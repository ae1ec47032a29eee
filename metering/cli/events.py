"""Commands that bring events in, from files and out of quarantine."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import rich_click as click

from metering.cli.opening import EXIT_DIFFERS, me, services
from metering.printing import assignment, print_counts, print_records


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def ingest(files: tuple[Path, ...], as_json: bool) -> None:
    """Record the events of FILES: NDJSON (.gz, .zst) or Parquet; `-` is standard input.

    Safe to repeat: an event that is in the ledger counts once. Refused events go to quarantine.
    """
    from metering.events.files import IngestSummary, size_of
    from metering.events.files import ingest as ingest_file
    from metering.progress import progress

    summary = IngestSummary()
    with services() as opened, progress("bytes", size_of(list(files))) as advance:
        for path in files:
            ingest_file(opened.intake, path, summary, advance)
    counts = asdict(summary)
    print_counts(counts, as_json=as_json)
    if summary.rejected or summary.conflict:
        click.echo("Refused events are in quarantine: `jauge quarantine list`.", err=True)
        sys.exit(EXIT_DIFFERS)


@click.group()
def quarantine() -> None:
    """Events that were refused."""


@quarantine.command("list")
@click.option("--after", default=0, help="Number after which the page begins.")
@click.option("--limit", default=100, type=click.IntRange(1, 1000), help="Events a page.")
@click.option("--all", "replayed", is_flag=True, help="Also those recorded since, or dismissed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quarantine_list(after: int, limit: int, replayed: bool, as_json: bool) -> None:
    """List refused events, oldest first."""
    from metering.events.quarantine import list_quarantined

    with services() as opened:
        items = list_quarantined(opened.engine, after=after, limit=limit, done=replayed)
    columns = ["number", "received_at", "channel", "code", "field", "occurrences", "reason"]
    if as_json:
        columns += ["event", "replayed_at", "dismissed_at", "dismissed_by", "dismissed_why"]
    print_records([asdict(item) for item in items], "json" if as_json else "table", columns)


@quarantine.command("replay")
@click.argument("numbers", nargs=-1, type=int)
@click.option("--all", "everything", is_flag=True, help="Replay everything in quarantine.")
@click.option(
    "--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field first, as data.tenant=dinum."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def quarantine_replay(numbers: tuple[int, ...], everything: bool, changes: tuple[str, ...], as_json: bool) -> None:
    """Offer refused events again, by NUMBER."""
    from metering.events.intake import replay

    if bool(numbers) == everything:
        raise click.UsageError("Give numbers, or --all.")
    changed = dict(assignment(text) for text in changes)
    with services() as opened:
        answer = replay(opened.intake, opened.engine, list(numbers) if numbers else None, changed)
    counts = {name: getattr(answer, name) for name in ("accepted", "duplicate", "conflict", "rejected")}
    print_counts(counts, as_json=as_json)
    sys.exit(0 if answer.is_whole else EXIT_DIFFERS)


@quarantine.command("dismiss")
@click.argument("numbers", nargs=-1, type=int, required=True)
@click.option("--reason", required=True, help="Why they need no mending.")
def quarantine_dismiss(numbers: tuple[int, ...], reason: str) -> None:
    """Decide that refused events need no mending, by NUMBER."""
    from metering.events.quarantine import dismiss

    if not reason.strip():
        raise click.UsageError("Give a reason.")
    with services() as opened:
        now = datetime.now(UTC)
        count = dismiss(opened.engine, list(numbers), why=reason.strip(), author=me().author, now=now)
    click.echo(f"{count} dismissed")

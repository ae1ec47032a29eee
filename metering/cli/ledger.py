"""Commands that correct, verify and read the ledger."""

import json
import sys
from dataclasses import asdict
from typing import Any

import rich_click as click

from metering.cli.opening import EXIT_DIFFERS, services
from metering.printing import assignment, print_records, whole

GROUPS = "tenant, project, user, api_key, model, operation"


@click.command()
@click.argument("source")
@click.argument("event_id")
@click.option(
    "--set", "quantities", multiple=True, required=True, metavar="QUANTITY=INTEGER", help="What it should be."
)
@click.option("--reason", required=True, help="Why.")
@click.option("--author", required=True, help="Who says so.")
@click.option("--id", "correction_id", help="Id of the correction; makes the command safe to repeat.")
def correct(
    source: str, event_id: str, quantities: tuple[str, ...], reason: str, author: str, correction_id: str | None
) -> None:
    """Correct quantities of the event EVENT_ID of SOURCE, by a new entry."""
    wanted = {name: whole(value) for name, value in map(assignment, quantities)}
    with services() as opened:
        done = opened.corrections.correct(source, event_id, wanted, reason=reason, author=author, id=correction_id)
    click.echo(json.dumps({"id": done.id, "quantities": dict(done.quantities)}))


@click.command()
@click.argument("source")
@click.argument("event_id")
@click.option("--reason", required=True, help="Why.")
@click.option("--author", required=True, help="Who says so.")
@click.option("--id", "correction_id", help="Id of the void; makes the command safe to repeat.")
def void(source: str, event_id: str, reason: str, author: str, correction_id: str | None) -> None:
    """Make the event EVENT_ID of SOURCE count for nothing, by a new entry."""
    with services() as opened:
        done = opened.corrections.void(source, event_id, reason=reason, author=author, id=correction_id)
    click.echo(json.dumps({"id": done.id, "quantities": dict(done.quantities)}))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(as_json: bool) -> None:
    """Recompute the chain and the rollups from the rows, and name what differs."""
    from metering.ledger.verify import verify as verify_ledger
    from metering.progress import progress

    with services() as opened, progress("rows", None) as advance:
        seen = 0

        def show(done: int, _total: int) -> None:
            nonlocal seen
            advance(done - seen)
            seen = done

        result = verify_ledger(opened.engine, show)
    if as_json:
        click.echo(json.dumps({"clean": result.clean, **asdict(result)}))
    else:
        for difference in result.differences:
            click.echo(f"{difference.kind}: {difference.where}: {difference.detail}")
        verdict = "nothing differs" if result.clean else f"{len(result.differences) + result.unnamed} differences"
        click.echo(
            f"{result.batches:,} batches, {result.rows:,} rows: {verdict}. Head: {result.head_seq} {result.head_hash}"
        )
    sys.exit(0 if result.clean else EXIT_DIFFERS)


@click.command()
@click.option("--from", "start", required=True, help="First date (Europe/Paris), or RFC 3339.")
@click.option("--to", "end", required=True, help="Exclusive end: a date (Europe/Paris), or RFC 3339.")
@click.option("--by", default="", help=f"Groups, separated by commas: {GROUPS}.")
@click.option("--bucket", type=click.Choice(["hour", "day", "month"]), help="Cut the period.")
@click.option("--tz", help="Time zone of dates and buckets.  [default: Europe/Paris]")
@click.option("--where", multiple=True, metavar="GROUP=VALUE", help="Only this value of a group; may be repeated.")
@click.option("--as-of", "as_of", help="As the ledger stood after this batch.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
def usage(
    start: str,
    end: str,
    by: str,
    bucket: str | None,
    tz: str | None,
    where: tuple[str, ...],
    as_of: str | None,
    form: Any,
) -> None:
    """Sum usage by period and group. Quantities are integers in base units; empty is unknown, 0 is a measurement."""
    from metering.database import transaction
    from reports.usage import GROUPS as KNOWN
    from reports.usage import parse_question, read_usage, record_fields, to_record

    filters: dict[str, list[str]] = {}
    for name, value in map(assignment, where):
        if name not in KNOWN:
            raise click.UsageError(f"--where takes one of {GROUPS}.")
        filters.setdefault(name, []).append(value)
    question = parse_question(
        {"start": start, "end": end, "bucket": bucket, "tz": tz, "group_by": by, "as_of": as_of, **filters}
    )
    with services() as opened, transaction(opened.engine, snapshot=True) as connection:
        records = [to_record(row, question) for row in read_usage(connection, question)]
    print_records(records, form, record_fields(question))

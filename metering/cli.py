"""The `jauge` command.

Exit codes: 0 done; 1 something was refused or differs; 2 a wrong call; 75 a store is away: try again.
Modules are imported by the commands that need them, so that short commands start fast.
"""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.errors import JaugeError, Unavailable
from metering.printing import assignment, print_counts, print_records, whole

if TYPE_CHECKING:
    from metering.services import Services

EXIT_DIFFERS = 1
EXIT_UNAVAILABLE = 75

GROUPS = "tenant, project, user, api_key, model, operation"


class Jauge(click.RichGroup):
    """A group whose errors end a command with a sentence and a code, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except JaugeError as error:
            place = f" ({error.field}: {error.expected})" if error.field and error.expected else ""
            click.echo(f"error: {error.detail}{place} [{error.code}]", err=True)
            ctx.exit(EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_DIFFERS)


@click.group(cls=Jauge)
@click.version_option(package_name="jauge")
def main() -> None:
    """Usage ledger of a sovereign AI platform.

    Without JAUGE_DATABASE_URL and JAUGE_REDIS_URL, commands use a PostgreSQL and a Valkey of their own,
    in `.jauge/` of the working folder.
    """


@contextmanager
def services() -> Iterator["Services"]:
    """The services that the settings name."""
    from metering.embedded import EmbeddedError
    from metering.logs import configure_logs
    from metering.services import open_services
    from metering.settings import get_settings

    settings = get_settings()
    configure_logs(settings.log_format, settings.log_level)
    try:
        with open_services(settings) as opened:
            yield opened
    except EmbeddedError as error:
        raise Unavailable("embedded_failed", str(error)) from error


def stop_on_signals() -> threading.Event:
    """An event that is set by Ctrl-C or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


# Running


@main.command()
@click.option("--host", help="Address to listen on (JAUGE_HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (JAUGE_PORT); 0 takes a free one.")
def serve(host: str | None, port: int | None) -> None:
    """Serve the API and the pages."""
    from metering.server import run_server

    with services() as opened:
        run_server(opened, host or opened.settings.host, opened.settings.port if port is None else port)


@main.command()
def worker() -> None:
    """Consume the event stream, and do what happens at set times."""
    from metering.events.stream import StreamConsumer
    from metering.scheduler import start_scheduler

    stop = stop_on_signals()
    with services() as opened:
        settings = opened.settings
        scheduler = start_scheduler(opened.engine, verify_at_hour=settings.verify_at_hour)
        StreamConsumer(
            opened.redis(),
            opened.intake,
            stream=settings.stream_name,
            claim_ms=settings.stream_claim_ms,
            events_max=settings.intake_events_max,
        ).run(stop)
        scheduler.shutdown()


@main.command()
@click.option("--events", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Play this file.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
def demo(file: Path | None, port: int | None) -> None:
    """Start everything with a simulated gateway, until Ctrl-C."""
    from metering.demo import run_demo

    run_demo(file, port)


@main.command()
def migrate() -> None:
    """Bring the database to the current version."""
    from metering.services import migrate_database, open_stores
    from metering.settings import get_settings

    with open_stores(get_settings()) as stores:
        migrate_database(stores.database_url)
    click.echo("The database is current.")


@main.command()
def health() -> None:
    """Check that the stores answer, the tables are current and a worker consumes; exit with 75 if not."""
    from metering.health import check_stores, check_worker

    with services() as opened, opened.redis() as client:
        check_stores(opened.engine, client)
        check_worker(client, opened.settings.stream_name)
    click.echo("ok")


# Events


@main.command()
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


@main.group()
def quarantine() -> None:
    """Events that were refused."""


@quarantine.command("list")
@click.option("--after", default=0, help="Number after which the page begins.")
@click.option("--limit", default=100, type=click.IntRange(1, 1000), help="Events a page.")
@click.option("--all", "replayed", is_flag=True, help="Also those that have entered the ledger since.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quarantine_list(after: int, limit: int, replayed: bool, as_json: bool) -> None:
    """List refused events, oldest first."""
    from metering.events.quarantine import list_quarantined

    with services() as opened:
        items = list_quarantined(opened.engine, after=after, limit=limit, replayed=replayed)
    columns = ["number", "received_at", "channel", "code", "field", "occurrences", "reason"]
    print_records(
        [asdict(item) for item in items], "json" if as_json else "table", [*columns, "event"][: None if as_json else -1]
    )


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


# The ledger


@main.command()
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


@main.command()
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


@main.command()
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


@main.command()
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


# People and servers


@main.group()
def tenants() -> None:
    """Administrations whose usage is accepted."""


@tenants.command("add")
@click.argument("tenant_id")
@click.option("--name", help="Name for people.")
def tenants_add(tenant_id: str, name: str | None) -> None:
    """Register the administration TENANT_ID; again changes nothing."""
    from metering.catalog.tenants import add_tenant

    with services() as opened:
        added = add_tenant(opened.engine, tenant_id, name)
    click.echo(f"{added.id}: {added.name}")


@tenants.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tenants_list(as_json: bool) -> None:
    """List administrations."""
    from metering.catalog.tenants import list_tenants

    with services() as opened:
        found = list_tenants(opened.engine)
    print_records([asdict(one) for one in found], "json" if as_json else "table", ["id", "name", "created_at"])


@main.group()
def tokens() -> None:
    """Service tokens of gateways and operators."""


@tokens.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(["gateway", "operator"]), required=True, help="What it allows.")
def tokens_add(name: str, role: Any) -> None:
    """Make the token NAME and print it, for the only time."""
    from metering.identity import add_token

    with services() as opened:
        click.echo(add_token(opened.engine, name, role))


@tokens.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tokens_list(as_json: bool) -> None:
    """List tokens, without their secret."""
    from metering.identity import list_tokens

    with services() as opened:
        found = list_tokens(opened.engine)
    print_records(
        [asdict(one) for one in found], "json" if as_json else "table", ["name", "role", "created_at", "revoked_at"]
    )


@tokens.command("revoke")
@click.argument("name")
def tokens_revoke(name: str) -> None:
    """Refuse the token NAME from now on."""
    from metering.identity import revoke_token

    with services() as opened:
        revoke_token(opened.engine, name)
    click.echo(f"{name}: revoked")


@main.group("embedded")
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

"""Commands of the catalogue: the file, its comparison, the record of changes, the overload level, messages."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.opening import me, services
from metering.printing import print_records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from metering.catalog.apply import Change, Wanted


@click.group()
def catalog() -> None:
    """Administrations, plans, conventions, models, access and notices, as one file."""


@catalog.command("apply")
@click.argument("file", type=click.File("rb"))
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and stop.")
def catalog_apply(file: Any, yes: bool, dry_run: bool) -> None:
    """Make the catalogue what FILE (YAML; `-` is standard input) says; what it doesn't name stays as it is.

    What would change is shown first. All of it is written, or nothing.
    """
    from metering.catalog.apply import read_file

    write_file(read_file(file.read()), yes=yes, dry_run=dry_run)


def write_file(wanted: "Wanted", *, yes: bool, dry_run: bool) -> None:
    """Show what documents of a file change, ask, and write them."""
    from metering.catalog.apply import apply, compare
    from metering.database import transaction

    with services() as opened:
        with transaction(opened.engine, actor=me()) as connection:
            changes = compare(connection, wanted)
        if not changes:
            click.echo("Nothing differs.")
            return
        print_changes(changes)
        if dry_run or not (yes or click.confirm(f"Write {len(changes)} changes?")):
            return
        with transaction(opened.engine, actor=me()) as connection:
            written = apply(connection, wanted)
    click.echo(f"{len(written)} changes written.")


def print_changes(changes: "Iterable[Change]") -> None:
    """Each document that differs, with the fields that do: before and after."""
    for change in changes:
        mark, colour = ("+", "green") if change.is_new else ("~", "yellow")
        click.secho(f"{mark} {change.kind} {'/'.join(change.key)}", fg=colour)
        for field, (before, after) in change.fields.items():
            if change.is_new and after not in (None, []):
                click.echo(f"    {field}: {_short(after)}")
            elif not change.is_new:
                click.echo(f"    {field}: {_short(before)} → {_short(after)}")


def _short(value: Any) -> str:
    import msgspec

    text = " ".join(str(msgspec.to_builtins(value)).split())
    return text if len(text) <= 100 else f"{text[:99]}…"


@catalog.command("export")
def catalog_export() -> None:
    """Print the catalogue as a file that `apply` takes."""
    from metering.catalog.apply import export
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, snapshot=True, actor=me()) as connection:
        click.echo(export(connection), nl=False)


@catalog.command("changes")
@click.option("--tenant", help="Only what concerns this administration.")
@click.option("--entity", help="Only changes of this table.")
@click.option("--before", type=int, help="Only changes before this number.")
@click.option("--limit", default=50, type=click.IntRange(1, 1000), show_default=True, help="Changes shown.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with what was before and after.")
def catalog_changes(tenant: str | None, entity: str | None, before: int | None, limit: int, as_json: bool) -> None:
    """List who changed what, newest first."""
    from metering.catalog.changes import list_changes
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        found = list_changes(connection, tenant=tenant, entity=entity, before=before, limit=limit)
    columns = ["number", "changed_at", "author", "action", "entity", "key", "tenant"]
    print_records(
        [asdict(one) for one in found],
        "json" if as_json else "table",
        [*columns, "before", "after"] if as_json else columns,
    )


@click.command()
@click.argument("level", type=click.Choice(["none", "batch", "free", "soft", "guaranteed"]))
@click.option("--reason", help="Why: those who wait or are refused are told.")
def overload(level: str, reason: str | None) -> None:
    """Set the overload LEVEL: which tiers are shed, and whether new accounts wait."""
    from msgspec.structs import replace

    from metering.catalog.kinds import KINDS, load, put
    from metering.database import transaction

    if level != "none" and not reason:
        raise click.UsageError("Give a --reason: those who wait are told.")
    kind = KINDS["platform"]
    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        (platform,) = load(connection, kind).values()
        put(connection, kind, replace(platform, overload=level, overload_reason=None if level == "none" else reason))
    click.echo(f"overload: {level}")


@click.group()
def messages() -> None:
    """Mails and calls of webhooks that wait, were sent, or failed."""


@messages.command("list")
@click.option("--state", type=click.Choice(["waiting", "sending", "sent", "dropped", "failed"]), help="Only these.")
@click.option("--after", default=0, help="Number after which the page begins.")
@click.option("--limit", default=100, type=click.IntRange(1, 1000), show_default=True, help="Messages a page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def messages_list(state: Any, after: int, limit: int, as_json: bool) -> None:
    """List messages, oldest first."""
    from metering.database import transaction
    from metering.outbox.queue import list_messages

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        found = list_messages(connection, state=state, after=after, limit=limit)
    columns = ["number", "created_at", "channel", "subject", "recipient", "state", "attempts", "due_at", "last_error"]
    print_records([asdict(one) for one in found], "json" if as_json else "table", columns)


@messages.command("retry")
@click.argument("number", type=int)
def messages_retry(number: int) -> None:
    """Send the message NUMBER again, which failed or was dropped."""
    from metering.database import transaction
    from metering.outbox.queue import retry_message

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        retry_message(connection, number, now=datetime.now(UTC))
    click.echo(f"{number}: waiting")

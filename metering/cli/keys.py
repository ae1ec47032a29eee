"""Commands about the API keys of an administration."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import rich_click as click

from metering.cli.asking import INSTANT, LINE, check_tenant, form_of, paged
from metering.cli.opening import me, operator, services
from metering.printing import print_counts, print_records


@click.group()
def keys() -> None:
    """API keys of an administration."""


@keys.command("list")
@click.argument("tenant")
@paged
def keys_list(tenant: str, after: str, limit: int, as_json: bool) -> None:
    """List the keys of TENANT, without their secrets."""
    from metering.catalog.issued_keys import list_keys
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        check_tenant(opened, tenant)
        found = list_keys(connection, tenant, operator(), now=datetime.now(UTC), after=after, limit=limit)
    columns = ["id", "name", "prefix", "project", "account", "status", "expires_at", "last_used_on"]
    print_records(
        [asdict(one) for one in found],
        form_of(as_json),
        [*columns, "created_at", "revoked_at"] if as_json else columns,
    )


@keys.command("add")
@click.argument("tenant")
@click.option("--name", required=True, type=LINE, help="What it is for.")
@click.option("--project", help="Project that its usage is for.")
@click.option(
    "--expires", "expires_at", type=INSTANT, help="Its end: a date (Europe/Paris), or RFC 3339.  [default: in a year]"
)
def keys_add(tenant: str, name: str, project: str | None, expires_at: datetime | None) -> None:
    """Make a key for a program of TENANT and print its secret, for the only time."""
    from metering.catalog.issued_keys import KeyAsked, create_key
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        check_tenant(opened, tenant)
        asked = KeyAsked(name, project, expires_at, for_program=True)
        made = create_key(connection, tenant, operator(), asked, now=datetime.now(UTC))
    click.echo(f"{made.id}, until {made.expires_at:%Y-%m-%d %H:%M} UTC:", err=True)
    click.echo(made.secret)


@keys.command("revoke")
@click.argument("tenant")
@click.argument("key_id", metavar="ID")
def keys_revoke(tenant: str, key_id: str) -> None:
    """Refuse the key ID of TENANT for good."""
    from metering.catalog.issued_keys import revoke_key
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        revoke_key(connection, tenant, operator(), key_id, now=datetime.now(UTC))
    click.echo(f"{key_id}: revoked")


@keys.command("import")
@click.argument("tenant")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def keys_import(tenant: str, path: Path, as_json: bool) -> None:
    """Take over the keys of FILE that a gateway has issued to TENANT; `-` is standard input.

    CSV with a header, or NDJSON: id, name, prefix, sha256 (of the secret), and where known project, account,
    expires_at. Safe to repeat: known keys stay as they are. Keys are written in calls of 10,000, each whole or not at
    all; after an error, which names the line, those of the calls before it stay.
    """
    from metering.cli.key_files import import_file
    from metering.progress import progress

    size = None if path == Path("-") else path.stat().st_size
    with services() as opened, progress("bytes", size) as advance, click.open_file(str(path), "rb") as file:
        check_tenant(opened, tenant)
        counts = import_file(opened.engine, me(), tenant, file, advance)
    print_counts(counts, as_json=as_json)

"""Commands that take over what another gateway has recorded."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.asking import INSTANT
from metering.cli.catalog import print_changes
from metering.cli.opening import EXIT_DIFFERS, me, services
from metering.printing import print_counts

if TYPE_CHECKING:
    from metering.imports.directory import Directory
    from metering.imports.opengatellm import Prepared


@click.group("import")
def import_group() -> None:
    """Take over what another gateway has recorded."""


@import_group.command("opengatellm")
@click.option(
    "--database-url", required=True, envvar="OPENGATELLM_DATABASE_URL", show_envvar=True, metavar="URL",
    help="The gateway's PostgreSQL; it is only read. A user that may SELECT is enough.",
)  # fmt: skip
@click.option("--tenant-map", type=click.File("rb"), help="YAML: which administrations its people belong to.")
@click.option("--auth-secret-file", type=click.File("rb"), help="The gateway's signing secret, to recognise its keys.")
@click.option("--until", type=INSTANT, help="Only usage before it: since then, Jauge is told by the gateway itself.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be taken over, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def import_opengatellm(
    database_url: str, tenant_map: Any, auth_secret_file: Any, until: datetime | None, yes: bool, dry_run: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Take over an OpenGateLLM (v0.1.6 of 2025 to the releases of 2026).

    Organisations, users, roles, limits, models and keys go into the catalogue, all of it or nothing, after what differs
    was shown; then each row of its usage becomes an event. Safe to repeat: known ones stay as they are, and a row that
    is in the ledger counts once. Costs and carbon are not taken over, nor counts that the gateway gets wrong: they are
    unknown (null) and show as uncounted.
    """
    from metering.database import transaction
    from metering.imports.attribution import TenantMap, read_tenant_map
    from metering.imports.opengatellm import prepare, read_gateway, take_over
    from metering.imports.past_usage import Span, import_usage
    from metering.imports.tables import gateway_engine
    from metering.progress import progress

    tenants = TenantMap() if tenant_map is None else read_tenant_map(tenant_map.read())
    secret = None if auth_secret_file is None else auth_secret_file.read().strip()
    with gateway_engine(database_url) as engine, services() as opened:
        gateway = read_gateway(engine)
        directory = gateway.directory
        with transaction(opened.engine, actor=me()) as connection:
            prepared = prepare(connection, directory, tenants, secret)
        if not as_json:
            print_changes(prepared.changes)
        _show(directory, prepared)
        if dry_run:
            print_counts({**prepared.counts, "rows of usage": directory.usage_rows}, as_json=as_json)
            return
        if not prepared.is_empty:
            if not (yes or click.confirm("Write this to the catalogue?", err=True)):
                return
            with transaction(opened.engine, actor=me()) as connection:
                prepared = take_over(connection, directory, tenants, secret, author=me().author, now=datetime.now(UTC))
        with progress("rows", directory.usage_rows) as advance:
            span = Span(directory.last_row, until)
            summary = import_usage(engine, gateway.shape, span, prepared.attribution, opened.intake, advance)
    print_counts({**prepared.counts, **asdict(summary)}, as_json=as_json)
    if summary.rejected or summary.conflict:
        click.echo("Refused events are in quarantine: `jauge quarantine list`.", err=True)
        sys.exit(EXIT_DIFFERS)


def _show(directory: "Directory", prepared: "Prepared") -> None:
    """What the gateway has and what stays behind; nothing of who its users are."""
    click.echo(
        f"OpenGateLLM of {directory.generation}: {len(directory.organisations):,} organisations,"
        f" {len(directory.users):,} users, {len(directory.roles):,} roles, {len(directory.models):,} models,"
        f" {len(directory.tokens):,} keys, {directory.usage_rows:,} rows of usage.",
        err=True,
    )
    new = ", ".join(f"{count:,} {name}" for name, count in prepared.counts.items() if count)
    click.echo(f"To write: {new}." if new else "Nothing differs in the catalogue.", err=True)
    users = directory.users.values()
    left = {
        **prepared.catalogue.left_out,
        "keys that can't be recognised by their digest": prepared.keys.unrecognised,
        "revoked keys": prepared.keys.revoked,
        "budgets of users": sum(user.has_budget for user in users),
        "rights of administrators": sum(directory.roles[user.role_id].is_admin for user in users),
    }
    for what, count in left.items():
        if count:
            click.echo(f"Left out, {what}: {count:,}", err=True)

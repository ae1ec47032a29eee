"""Commands about who may use the platform: administrations and service tokens."""

from dataclasses import asdict
from typing import Any

import rich_click as click

from metering.cli.opening import me, services
from metering.printing import print_records


@click.group()
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


@click.group()
def tokens() -> None:
    """Service tokens of gateways and operators."""


@tokens.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(["gateway", "operator"]), required=True, help="What it allows.")
def tokens_add(name: str, role: Any) -> None:
    """Make the token NAME and print it, for the only time."""
    from metering.catalog.tokens import add_token

    with services() as opened:
        click.echo(add_token(opened.engine, name, role, me()))


@tokens.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tokens_list(as_json: bool) -> None:
    """List tokens, without their secret."""
    from metering.catalog.tokens import list_tokens

    with services() as opened:
        found = list_tokens(opened.engine)
    print_records(
        [asdict(one) for one in found], "json" if as_json else "table", ["name", "role", "created_at", "revoked_at"]
    )


@tokens.command("revoke")
@click.argument("name")
def tokens_revoke(name: str) -> None:
    """Refuse the token NAME from now on."""
    from metering.catalog.tokens import revoke_token

    with services() as opened:
        revoke_token(opened.engine, name, me())
    click.echo(f"{name}: revoked")

"""Commands about who may use the platform: administrations and service tokens."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.asking import LINE, PARAGRAPH, consent, form_of
from metering.cli.opening import me, services
from metering.printing import print_records

if TYPE_CHECKING:
    from metering.services import Services


@click.group()
def tenants() -> None:
    """Administrations whose usage is accepted."""


@tenants.command("add")
@click.argument("tenant_id", metavar="ID")
@click.option("--name", type=LINE, help="Name for people.")
@click.option("--siret", help="14 digits of the French register of establishments.")
@click.option("--plan", help="What it may use without a convention.  [default: the platform's plan]")
def tenants_add(tenant_id: str, name: str | None, siret: str | None, plan: str | None) -> None:
    """Register the administration ID, or give it another plan; the same again changes nothing."""
    from metering.catalog.tenants import add_tenant

    with services() as opened:
        if plan is not None:
            _check_plan(opened, plan)
        added = add_tenant(opened.engine, tenant_id, name, siret)
        if plan is not None:
            _set_plan(opened, tenant_id, plan)
    click.echo(f"{added.id}: {added.name}")


def _check_plan(opened: "Services", plan: str) -> None:
    """Raises: Unprocessable. Asked before the administration is written, so that all is written or nothing."""
    from metering.catalog.kinds import KINDS, load
    from metering.database import transaction
    from metering.errors import Unprocessable

    with transaction(opened.engine, actor=me()) as connection:
        known = load(connection, KINDS["plans"])
    if (plan,) not in known:
        raise Unprocessable("unknown_plan", "There is no such plan.", field="plan", expected="a known plan")


def _set_plan(opened: "Services", tenant_id: str, plan: str) -> None:
    from msgspec.structs import replace

    from metering.catalog.kinds import KINDS, load, put
    from metering.database import transaction

    kind = KINDS["tenants"]
    with transaction(opened.engine, actor=me()) as connection:
        (found,) = load(connection, kind, kind.table.c.id == tenant_id).values()
        put(connection, kind, replace(found, plan=plan))


@tenants.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tenants_list(as_json: bool) -> None:
    """List administrations. Without a plan of its own, one has the platform's."""
    import msgspec

    from metering.catalog.accounts import administration_of
    from metering.catalog.kinds import KINDS, load
    from metering.catalog.tenants import list_tenants
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        # Listed first: an administration never goes away, so each one listed is there for what is read next.
        listed = [asdict(one) for one in list_tenants(opened.engine)]
        plans = {key: msgspec.structs.asdict(one)["plan"] for key, one in load(connection, KINDS["tenants"]).items()}
        found = [
            one | asdict(administration_of(connection, one["id"])) | {"plan": plans[(one["id"],)]} for one in listed
        ]
    print_records(found, form_of(as_json), ["id", "name", "siret", "status", "plan", "created_at"])


@tenants.command("suspend")
@click.argument("tenant_id", metavar="ID")
@click.option("--reason", required=True, type=PARAGRAPH, help="Why: its agents are told.")
def tenants_suspend(tenant_id: str, reason: str) -> None:
    """Refuse the keys and tokens of the administration ID until it is restored."""
    from metering.catalog.tenants import suspend_tenant
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        suspend_tenant(connection, tenant_id, reason, now=datetime.now(UTC))
    click.echo(f"{tenant_id}: suspended")


@tenants.command("restore")
@click.argument("tenant_id", metavar="ID")
def tenants_restore(tenant_id: str) -> None:
    """End the suspension of the administration ID."""
    from metering.catalog.tenants import restore_tenant
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        restore_tenant(connection, tenant_id)
    click.echo(f"{tenant_id}: active")


@tenants.command("delete")
@click.argument("tenant_id", metavar="ID")
@click.option("--reason", required=True, type=PARAGRAPH, help="Why.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def tenants_delete(tenant_id: str, reason: str, yes: bool) -> None:
    """Delete the administration ID with its people, keys and tokens, for good; its usage stays in the ledger."""
    from metering.catalog.tenants import delete_tenant
    from metering.database import transaction

    consent(f"Delete the administration {tenant_id} with its people and keys, for good?", yes)
    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        delete_tenant(connection, tenant_id, reason, now=datetime.now(UTC))
    click.echo(f"{tenant_id}: deleted")


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

"""Commands about the accounts of an administration."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import rich_click as click

from metering.cli.asking import LINE, PARAGRAPH, check_tenant, consent, form_of, paged
from metering.cli.opening import me, operator, services
from metering.printing import print_records


@click.group()
def accounts() -> None:
    """Accounts of an administration's agents."""


@accounts.command("list")
@click.argument("tenant")
@paged
def accounts_list(tenant: str, after: str, limit: int, as_json: bool) -> None:
    """List the accounts of TENANT, with who they are."""
    from metering.catalog.accounts import list_accounts
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        check_tenant(opened, tenant)
        found = [asdict(one) for one in list_accounts(connection, tenant, after=after, limit=limit)]
    columns = ["id", "role", "status", "status_reason", "suspended_by", "created_at", "name", "email", "language"]
    print_records(found, form_of(as_json), columns)


@accounts.command("invite")
@click.argument("tenant")
@click.option("--name", required=True, type=LINE, help="Who it is.")
@click.option("--email", required=True, help="Address that the code is mailed to.")
@click.option(
    "--role", type=click.Choice(["manager", "member"]), default="member", show_default=True, help="What it may do."
)
@click.option("--language", type=click.Choice(["fr", "en"]), default="fr", show_default=True, help="Of the mail.")
def accounts_invite(tenant: str, name: str, email: str, role: Any, language: Any) -> None:
    """Invite somebody to TENANT by mail."""
    from metering.catalog.access import Invited, checked_email, invite

    invited = Invited(name, checked_email(email), role, language)
    with services() as opened:
        check_tenant(opened, tenant)
        received = invite(opened.engine, opened.master_key, tenant, invited, actor=me(), now=datetime.now(UTC))
    click.echo(f"{received.id}: invited to {tenant}, as {role}")


@accounts.command("suspend")
@click.argument("tenant")
@click.argument("account")
@click.option("--reason", required=True, type=PARAGRAPH, help="Why: the agent is told.")
def accounts_suspend(tenant: str, account: str, reason: str) -> None:
    """Refuse the keys and tokens of ACCOUNT until it is restored; no manager can restore it."""
    from metering.catalog.accounts import suspend_account
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        suspend_account(connection, operator(), tenant, account, reason, now=datetime.now(UTC))
    click.echo(f"{account}: suspended")


@accounts.command("restore")
@click.argument("tenant")
@click.argument("account")
def accounts_restore(tenant: str, account: str) -> None:
    """End the suspension of ACCOUNT."""
    from metering.catalog.accounts import restore_account
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        restore_account(connection, operator(), tenant, account)
    click.echo(f"{account}: active")


@accounts.command("delete")
@click.argument("tenant")
@click.argument("account")
@click.option("--yes", is_flag=True, help="Don't ask.")
def accounts_delete(tenant: str, account: str, yes: bool) -> None:
    """Delete ACCOUNT with its keys and tokens, for good; the usage of the pseudonym stays."""
    from metering.catalog.accounts import delete_account
    from metering.database import transaction

    consent(f"Delete the account {account} of {tenant}, for good?", yes)
    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        delete_account(connection, operator(), tenant, account, now=datetime.now(UTC))
    click.echo(f"{account}: deleted")

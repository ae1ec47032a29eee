"""Commands about requests for an account."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import rich_click as click

from metering.cli.asking import PARAGRAPH, form_of, paged
from metering.cli.opening import me, services
from metering.printing import print_records


@click.group()
def access() -> None:
    """Requests for an account."""


@access.command("list")
@click.option(
    "--state",
    type=click.Choice(["pending", "delayed", "approved", "refused", "activated", "expired"]),
    help="Only these.",
)
@paged
def access_list(state: Any, after: str, limit: int, as_json: bool) -> None:
    """List requests, oldest first; JSON has what they are for."""
    from metering.catalog.access import list_requests
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        found = [asdict(one) for one in list_requests(connection, state=state, after=after, limit=limit)]
    columns = ["id", "created_at", "kind", "organisation", "siret", "name", "email", "state", "tenant", "role"]
    more = [
        "language",
        "motive",
        "experiment",
        "state_reason",
        "decided_by",
        "decided_at",
        "code_expires_at",
        "account",
    ]
    print_records(found, form_of(as_json), [*columns, *more] if as_json else columns)


@access.command("approve")
@click.argument("request_id", metavar="ID")
@click.option("--tenant", required=True, help="Administration that the account joins.")
@click.option(
    "--role",
    type=click.Choice(["manager", "member"]),
    help="What it may do.  [default: manager for a partner's first account, else member]",
)
def access_approve(request_id: str, tenant: str, role: Any) -> None:
    """Approve the request ID; the code to activate the account is mailed."""
    from metering.catalog.access import Decision

    _decide(request_id, Decision(approved=True, tenant=tenant, role=role))


@access.command("refuse")
@click.argument("request_id", metavar="ID")
@click.option("--reason", required=True, type=PARAGRAPH, help="Why: who asked is told.")
def access_refuse(request_id: str, reason: str) -> None:
    """Refuse the request ID."""
    from metering.catalog.access import Decision

    _decide(request_id, Decision(approved=False, reason=reason))


def _decide(request_id: str, decision: Any) -> None:
    from metering.catalog.access import decide
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, actor=me()) as connection:
        decided = decide(connection, opened.master_key, request_id, decision, author=me().author, now=datetime.now(UTC))
    place = "" if decided.tenant is None else f" for {decided.tenant}, as {decided.role}"
    click.echo(f"{decided.id}: {decided.state}{place}")

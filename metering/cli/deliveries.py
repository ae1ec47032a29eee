"""Commands of deliveries: what was drawn up and what came of it."""

from dataclasses import asdict
from datetime import UTC, datetime

import rich_click as click

from metering.cli.opening import services
from metering.printing import print_records

COLUMNS = ["number", "id", "period", "destination", "state", "attempts", "due_at", "error", "delivered_at", "path"]


@click.group()
def deliveries() -> None:
    """Exports that go to folders and buckets by themselves, as the file of JAUGE_DELIVERIES asks for."""


@deliveries.command("list")
@click.option("--before", type=int, help="Number before which the page begins.")
@click.option("--limit", default=100, type=click.IntRange(1, 1000), show_default=True, help="Deliveries a page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def deliveries_list(before: int | None, limit: int, as_json: bool) -> None:
    """List deliveries, newest first."""
    from metering.database import transaction
    from metering.exporting.delivering import list_deliveries

    with services() as opened, transaction(opened.engine) as connection:
        found = list_deliveries(connection, before=before, limit=limit)
    print_records([asdict(one) for one in found], "json" if as_json else "table", COLUMNS)


@deliveries.command("run")
def deliveries_run() -> None:
    """Draw up and deliver what is due now, as the worker does every minute."""
    with services() as opened:
        opened.deliverer().run(datetime.now(UTC))
    click.echo("done: see jauge deliveries list")


@deliveries.command("retry")
@click.argument("number", type=int)
def deliveries_retry(number: int) -> None:
    """Try the delivery NUMBER again, which failed or waits for its next attempt."""
    from metering.database import transaction
    from metering.exporting.delivering import retry_delivery

    with services() as opened, transaction(opened.engine) as connection:
        retry_delivery(connection, number, now=datetime.now(UTC))
    click.echo(f"{number}: waiting")

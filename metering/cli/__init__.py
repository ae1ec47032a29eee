"""The `jauge` command: what its parts offer, together.

Each module holds the commands of one subject. A command imports what it needs when it runs, so that short commands
start fast.
"""

from typing import Any

import rich_click as click

from metering.cli import (
    access,
    accounts,
    agent,
    carbon,
    carbon_reports,
    catalog,
    closing,
    deliveries,
    deposits,
    embedded,
    envelopes,
    events,
    exports,
    factors,
    imports,
    keys,
    ledger,
    limits,
    models,
    people,
    prices,
    reconciliation,
    retention,
    running,
)
from metering.cli.opening import EXIT_DIFFERS, EXIT_UNAVAILABLE
from metering.errors import JaugeError, Unavailable


class Jauge(click.RichGroup):
    """A group whose errors end a command with a sentence and a code, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except JaugeError as error:
            place = ": ".join(filter(None, (error.field, error.expected)))
            place = f" ({place})" if place else ""
            click.echo(f"error: {error.detail}{place} [{error.code}]", err=True)
            ctx.exit(EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_DIFFERS)


@click.group(cls=Jauge)
@click.version_option(package_name="jauge")
def main() -> None:
    """Usage ledger of a sovereign AI platform.

    Without JAUGE_DATABASE_URL and JAUGE_REDIS_URL, commands use a PostgreSQL and a Valkey of their own,
    in `.jauge/` of the working folder.
    """


for command in (
    running.serve,
    running.worker,
    running.demo,
    running.migrate,
    running.health,
    events.ingest,
    imports.import_group,
    events.quarantine,
    ledger.correct,
    ledger.void,
    ledger.verify,
    ledger.usage,
    exports.export_group,
    deliveries.deliveries,
    catalog.catalog,
    catalog.overload,
    catalog.messages,
    people.tenants,
    access.access,
    accounts.accounts,
    keys.keys,
    limits.limits,
    limits.reservations,
    limits.raises,
    limits.overrides,
    models.models,
    carbon.carbon,
    factors.factors,
    agent.agent,
    people.tokens,
    prices.prices,
    reconciliation.reconcile,
    retention.retention,
    envelopes.envelopes,
    closing.close,
    closing.invoice,
    embedded.embedded_group,
):
    main.add_command(command)

for command in (carbon_reports.report, carbon_reports.statement, carbon_reports.boamps):
    carbon.carbon.add_command(command)

for command in (deposits.deposit, deposits.package):
    closing.invoice.add_command(command)

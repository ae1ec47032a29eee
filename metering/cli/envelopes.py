"""Command of envelopes: what conventions still have, and how far it reaches."""

from datetime import UTC, datetime

import rich_click as click

from metering.cli.asking import form_of
from metering.cli.opening import me, services
from metering.printing import print_records


@click.command()
@click.argument("convention", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def envelopes(convention: str | None, as_json: bool) -> None:
    """Say what is left of CONVENTION's envelopes, or of those of all conventions, and when they run out.

    Consumed is what was rated and posted; the forecast goes to the end of the term.
    """
    import msgspec

    from metering.database import transaction
    from metering.quotas.envelopes import read_envelopes
    from metering.quotas.store import CounterStore

    records = []
    with services() as opened, opened.redis() as client:
        snapshot = opened.catalog.current()
        ids = sorted({one.id for versions in snapshot.conventions.values() for one in versions})
        with transaction(opened.engine, snapshot=True, actor=me()) as connection:
            for name in [convention] if convention else ids:
                found = read_envelopes(connection, snapshot, name, CounterStore(client), datetime.now(UTC))
                for part in found.parts:
                    ahead = part.forecast
                    records.append({
                        "convention": found.convention, "tenant": found.tenant, "ends_on": found.ends_on,
                        "overage": found.overage, **msgspec.to_builtins(part),
                        "forecast": ahead and ahead.value, "lower": ahead and ahead.lower,
                        "upper": ahead and ahead.upper, "runs_out_on": ahead and ahead.runs_out_on,
                        "earliest": ahead and ahead.earliest, "latest": ahead and ahead.latest,
                    })  # fmt: skip
    columns = [
        "convention", "tenant", "ends_on", "overage", "unit", "envelope", "consumed", "committed", "remaining",
        "unknown", "forecast", "lower", "upper", "runs_out_on", "earliest", "latest",
    ]  # fmt: skip
    print_records(records, form_of(as_json), columns)

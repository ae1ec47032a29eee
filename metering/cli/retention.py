"""Command of retention: what is kept no longer."""

from datetime import UTC, datetime

import rich_click as click

from metering.cli.asking import form_of
from metering.cli.opening import services
from metering.printing import print_records


@click.command()
@click.option("--apply", "applies", is_flag=True, help="Take it away; otherwise it is only counted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def retention(applies: bool, as_json: bool) -> None:
    """Count what the settings keep no longer, by kind; with --apply, take it away, as the worker does every day."""
    from metering.retention import due_now, retain
    from metering.services import keeping_of

    with services() as opened:
        act = retain if applies else due_now
        found = act(opened.engine, keeping_of(opened.settings), datetime.now(UTC))
    print_records([one._asdict() for one in found], form_of(as_json), ["kind", "before", "rows"])

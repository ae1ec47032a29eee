"""The command that compares what was counted in several places."""

import sys
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.opening import EXIT_DIFFERS, me, services
from metering.printing import print_records

if TYPE_CHECKING:
    from metering.ledger.verify import Difference
    from metering.reconciliation.proof import Proof
    from metering.services import Services


@click.command()
@click.argument("month")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="One day of it (Europe/Paris) only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reconcile(month: str, day: datetime | None, as_json: bool) -> None:
    """Compare what was counted of MONTH (as 2026-10): by gateways, ledger, rollups, counters, lines and documents.

    Exits with 1 if anything differs, and names it.
    """
    import msgspec

    from metering.billing.prices import tariffs_of
    from metering.billing.rating import read_month
    from metering.database import transaction
    from metering.reconciliation.proof import prove

    period, wanted = read_month(month), None if day is None else day.date()
    _check_within(month, wanted)
    with services() as opened:
        tariffs = tariffs_of(opened.catalog.current())
        with transaction(opened.engine, snapshot=True, actor=me()) as connection:
            proof = prove(connection, tariffs, period, wanted)
        counters, differing = _counters(opened)
    if as_json:
        named = [{"kind": one.kind, "where": one.where, "detail": one.detail} for one in differing]
        shown = msgspec.to_builtins(proof) | {"counters": counters | {"differences": named}}
        click.echo(msgspec.json.encode(shown))
    else:
        _print(proof)
        for one in differing:
            click.echo(f"{one.kind}: {one.where}: {one.detail}")
        click.echo(_told_of_counters(counters, len(differing)))
        click.echo("Nothing differs." if proof.is_clean and not differing else "What differs is named above.")
    sys.exit(0 if proof.is_clean and not differing else EXIT_DIFFERS)


def _check_within(month: str, day: date | None) -> None:
    if day is not None and f"{day:%Y-%m}" != month:
        raise click.UsageError(f"--day {day}: expected a day of {month}.")


def _counters(opened: "Services") -> tuple[dict[str, Any], list["Difference"]]:
    """Counters of windows that are open now, compared with the ledger; `error`: why they weren't."""
    from dataclasses import asdict

    from metering.errors import Unavailable
    from metering.ledger.verify import Verification
    from metering.quotas.verifying import verify_counters

    result = Verification()
    try:
        return asdict(verify_counters(opened.counters(), result.found)), result.differences
    except Unavailable as error:
        return {"error": error.code}, []


def _print(proof: "Proof") -> None:
    click.echo(f"{proof.period}, up to batch {proof.ledger_batch} of the ledger")
    records = [
        {
            "place": step.name,
            "against": step.against,
            "quantity": quantity,
            "expected": expected,
            "found": step.found[quantity],
            "difference": step.difference[quantity],
        }
        for step in proof.steps
        for quantity, expected in step.expected.items()
    ]
    print_records(records, "table", ["place", "against", "quantity", "expected", "found", "difference"])
    for step in proof.steps:
        click.echo(f"{step.name} / {step.against}: {step.covers}; {step.drifts:,} sums differ.")
        for one in step.named:
            where = ", ".join(f"{name}={value}" for name, value in one.where.items())
            click.echo(
                f"  {where}: {one.quantity} {_shown(one.expected)}, found {_shown(one.found)} ({one.difference:+,})"
            )


def _shown(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _told_of_counters(counters: dict[str, Any], differing: int) -> str:
    if "error" in counters:
        return f"counters / ledger: not compared [{counters['error']}]"
    told = f"{counters['counters']:,} counters of {counters['tenants']:,} administrations, of windows that are open now"
    return f"counters / ledger: {told}; {differing:,} differ."

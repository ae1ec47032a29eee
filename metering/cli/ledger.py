"""Commands that correct, verify and read the ledger."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.opening import EXIT_DIFFERS, EXIT_UNAVAILABLE, services
from metering.cli.questions import asks_about_a_period
from metering.errors import Unavailable
from metering.printing import assignment, print_records, whole

if TYPE_CHECKING:
    from metering.ledger.seal_verify import SealVerification
    from metering.ledger.verify import Verification
    from metering.services import Services
    from reports.usage import UsageQuestion


@click.command()
@click.argument("source")
@click.argument("event_id")
@click.option(
    "--set", "quantities", multiple=True, required=True, metavar="QUANTITY=INTEGER", help="What it should be."
)
@click.option("--reason", required=True, help="Why.")
@click.option("--author", required=True, help="Who says so.")
@click.option("--id", "correction_id", help="Id of the correction; makes the command safe to repeat.")
def correct(
    source: str, event_id: str, quantities: tuple[str, ...], reason: str, author: str, correction_id: str | None
) -> None:
    """Correct quantities of the event EVENT_ID of SOURCE, by a new entry."""
    wanted = {name: whole(value) for name, value in map(assignment, quantities)}
    with services() as opened:
        done = opened.corrections.correct(source, event_id, wanted, reason=reason, author=author, id=correction_id)
    click.echo(json.dumps({"id": done.id, "quantities": dict(done.quantities)}))


@click.command()
@click.argument("source")
@click.argument("event_id")
@click.option("--reason", required=True, help="Why.")
@click.option("--author", required=True, help="Who says so.")
@click.option("--id", "correction_id", help="Id of the void; makes the command safe to repeat.")
def void(source: str, event_id: str, reason: str, author: str, correction_id: str | None) -> None:
    """Make the event EVENT_ID of SOURCE count for nothing, by a new entry."""
    with services() as opened:
        done = opened.corrections.void(source, event_id, reason=reason, author=author, id=correction_id)
    click.echo(json.dumps({"id": done.id, "quantities": dict(done.quantities)}))


@click.command()
@click.option("--period", metavar="MONTH", help="Only the sealed files of this month (as 2026-10).")
@click.option("--repair", is_flag=True, help="Build counters that differ anew, from the ledger.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(period: str | None, repair: bool, as_json: bool) -> None:
    """Recompute the chains, the rollups and the energy of every hour, compare the counters, and name what differs.

    Sealed months are compared with their files, and with the ledger; documents with theirs.
    """
    if period is not None:
        sys.exit(_verify_seals(period, as_json=as_json))
    from metering.billing.documents_verification import verify_documents
    from metering.carbon.verification import verify_carbon
    from metering.ledger.seal_verify import verify_seals
    from metering.ledger.verify import verify as verify_ledger
    from metering.progress import progress

    with services() as opened, progress("rows", None) as advance:
        seen = 0

        def show(done: int, _total: int) -> None:
            nonlocal seen
            advance(done - seen)
            seen = done

        result = verify_ledger(opened.engine, show)
        counters = _compare_counters(opened, result, repair=repair)
        carbon = verify_carbon(opened.engine)
        sealed = verify_seals(opened.engine, opened.settings.data)
        documents = verify_documents(opened.engine, opened.settings.data)
    checked = (result, carbon, sealed, documents)
    is_clean = all(one.clean for one in checked)
    if as_json:
        parts = {"counters": counters, "carbon": asdict(carbon), "sealed": _seals_shown(sealed)}
        click.echo(json.dumps({"clean": is_clean, **asdict(result), **parts, "documents": _documents_shown(documents)}))
    else:
        for difference in (difference for one in checked for difference in one.differences):
            click.echo(f"{difference.kind}: {difference.where}: {difference.detail}")
        click.echo(f"{_verdict(result)} Head: {result.head_seq} {result.head_hash}")
        click.echo(_told_of_counters(counters))
        click.echo(f"Readings and carbon: {_verdict(carbon)}")
        click.echo(_told_of_seals(sealed))
        click.echo(f"{documents.batches:,} documents, {documents.rows:,} files: {_found_by(documents)}.")
    if not is_clean:
        sys.exit(EXIT_DIFFERS)
    sys.exit(EXIT_UNAVAILABLE if "error" in counters else 0)


def _verify_seals(month: str, *, as_json: bool) -> int:
    """Compare a sealed month with its files and the ledger; returns the exit code."""
    from metering.billing.rating import read_month
    from metering.ledger.seal_verify import verify_seals
    from metering.progress import progress

    read_month(month)
    with services() as opened, progress("rows", None) as advance:
        seen = 0

        def show(done: int, total: int) -> None:
            nonlocal seen
            advance(done - seen, total)
            seen = done

        result = verify_seals(opened.engine, opened.settings.data, month, show)
    if as_json:
        click.echo(json.dumps({"clean": result.clean, **_seals_shown(result)}))
    else:
        for difference in result.differences:
            click.echo(f"{difference.kind}: {difference.where}: {difference.detail}")
        click.echo(_told_of_seals(result))
    return 0 if result.clean else EXIT_DIFFERS


def _seals_shown(result: "SealVerification") -> dict[str, Any]:
    shown = asdict(result)
    return {name: shown[name] for name in ("months", "files", "rows", "differences", "counts", "unnamed")}


def _documents_shown(result: "Verification") -> dict[str, Any]:
    shown = asdict(result)
    del shown["batches"], shown["rows"]
    return {"documents": result.batches, "files": result.rows, **shown}


def _told_of_seals(result: "SealVerification") -> str:
    held = f"{result.months:,} sealed months, {result.files:,} files, {result.rows:,} rows"
    return f"{held}: {_found_by(result)}."


def _verdict(result: "Verification") -> str:
    return f"{result.batches:,} batches, {result.rows:,} rows: {_found_by(result)}."


def _found_by(result: "Verification") -> str:
    return "nothing differs" if result.clean else f"{result.found_so_far} differences"


def _compare_counters(opened: "Services", result: "Verification", *, repair: bool) -> dict[str, Any]:
    """What was compared of the counters; `error`: why they weren't."""
    from metering.quotas.verifying import verify_counters

    try:
        return asdict(verify_counters(opened.counters(), result.found, is_repairing=repair))
    except Unavailable as error:
        return {"error": error.code}


def _told_of_counters(counters: dict[str, Any]) -> str:
    if "error" in counters:
        return f"Counters: not compared with the ledger [{counters['error']}]"
    told = f"{counters['counters']:,} counters of {counters['tenants']:,} administrations: compared with the ledger"
    if counters["unready"]:
        told += f"; {counters['unready']:,} administrations' are yet to be built"
    if counters["repaired"]:
        told += f"; {counters['repaired']:,} administrations' were built anew"
    return f"{told}."


@click.command()
@asks_about_a_period
def usage(question: "UsageQuestion", form: Any) -> None:
    """Sum usage by period and group. Quantities are integers in base units; empty is unknown, 0 is a measurement."""
    from metering.database import transaction
    from reports.usage import read_usage, record_fields, to_record

    with services() as opened, transaction(opened.engine, snapshot=True) as connection:
        records = [to_record(row, question) for row in read_usage(connection, question)]
    print_records(records, form, record_fields(question))

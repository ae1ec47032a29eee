"""Commands that bring invoices to Chorus Pro: one by one, or as a package that a person deposits."""

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from metering.cli.opening import services

if TYPE_CHECKING:
    from metering.billing.deposits import Suffix
    from metering.rules.billing.documents import BillingDocument
    from metering.services import Services

RECEIPT = "chorus.json"
"""Suffix of receipts, beside the files of documents."""

_ubl = click.option("--ubl", "suffix", flag_value="ubl.xml", help="As UBL, instead of the PDF with its XML.")


@click.command()
@click.argument("number")
@_ubl
@click.option("--dry-run", is_flag=True, help="Say what would be deposited, and stop.")
@click.option("--again", is_flag=True, help="You have looked: a deposit whose answer was lost wasn't taken.")
def deposit(number: str, suffix: "Suffix | None", dry_run: bool, again: bool) -> None:
    """Deposit the invoice or credit note NUMBER at Chorus Pro, once; of one that is there, say how it is."""
    import httpx

    from metering.billing.chorus import ChorusPro, account_of
    from metering.billing.deposits import deposit_once, deposit_state, prepared
    from metering.billing.documents import document_path, find_document, read_file
    from metering.database import transaction

    form = suffix or "pdf"
    with services() as opened:
        with transaction(opened.engine) as connection:
            kept, document = find_document(connection, number)
        one = prepared(document, {form: read_file(opened.settings.data, kept, form)}, form)
        if dry_run:
            click.echo(f"{one.name}: {len(one.content):,} bytes, {one.syntax}; nothing was sent.")
            return
        receipt_path = document_path(opened.settings.data, document.period.month, number, RECEIPT)
        with httpx.Client() as http:
            chorus = ChorusPro(account_of(opened.settings), http)
            receipt = deposit_once(chorus, number, one, receipt_path, again=again)
            flow = deposit_state(chorus, receipt)
    assert flow is not None
    click.echo(f"{one.name}: flow {flow.number}, {flow.state}")


@click.command()
@click.argument("month")
@_ubl
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A tar.gz file.")
def package(month: str, suffix: "Suffix | None", output: Path) -> None:
    """Write the invoices and credit notes of MONTH (as 2026-10) as a package for Chorus Pro."""
    from metering.billing.deposits import package as packed

    form = suffix or "pdf"
    with services() as opened:
        found = _owed(opened, month, form)
    output.write_bytes(packed(found, form))
    click.echo(f"{output}: {len(found):,} documents.")


def _owed(opened: "Services", month: str, form: "Suffix") -> "list[tuple[BillingDocument, bytes]]":
    from metering.billing.documents import Filter, find_document, list_documents, read_file
    from metering.billing.rating import read_month
    from metering.database import transaction

    read_month(month)
    found: list[tuple[BillingDocument, bytes]] = []
    with transaction(opened.engine, snapshot=True) as connection:
        for kind in ("invoice", "credit_note"):
            after = 0
            while page := list_documents(connection, Filter(None, month, kind), after=after):
                after = page[-1].seq
                for kept in page:
                    _kept, document = find_document(connection, kept.number)
                    found.append((document, read_file(opened.settings.data, kept, form)))
    return found

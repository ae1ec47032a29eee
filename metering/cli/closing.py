"""Commands of months and documents: closing a month, listing and reading its documents."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from metering.cli.asking import PARAGRAPH, form_of, paged
from metering.cli.opening import me, services
from metering.printing import print_records

if TYPE_CHECKING:
    from metering.billing.closing_answers import ClosingShown
    from metering.billing.reviewing import Review
    from metering.services import Services

LISTED_MAX = 20
"""Lines of a review that are shown; JSON has all of them."""


@click.command()
@click.argument("month")
@click.option("--draft", "mode", flag_value="draft", help="Look at the month as it stands.")
@click.option("--final", "mode", flag_value="final", help="Seal it and write its documents, for good.")
@click.option("--zero-unpriced", type=PARAGRAPH, metavar="REASON", help="Why usage without a price costs nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def close(month: str, mode: str | None, zero_unpriced: str | None, as_json: bool) -> None:
    """Close MONTH (as 2026-10), or say how far months are closed (`jauge close status`)."""
    import msgspec

    from metering.billing.closing_answers import shown_month
    from metering.billing.periods import months_shown
    from metering.database import transaction
    from metering.progress import progress

    if (month == "status") == (mode is not None):
        raise click.UsageError("Expected a month with --draft or --final, or status.")
    with services() as opened:
        author, now = me().author, datetime.now(UTC)
        if mode == "draft":
            opened.closer().draft(month, author=author, now=now)
        elif mode == "final":
            with progress("documents", None) as advance:
                opened.closer().finalise(
                    month, author=author, now=now, zero_reason=zero_unpriced,
                    progress=lambda _done, total: advance(1, total),
                )  # fmt: skip
        with transaction(opened.engine) as connection:
            months = [month] if mode else months_shown(connection, now, 100, None)
            found = [shown_month(connection, one) for one in months]
    if as_json:
        click.echo(msgspec.json.encode(found[0] if mode else found))
    elif mode:
        _print_closing(found[0])
    else:
        columns = ["month", "state", "issued_on", "ledger_batch", "carbon_batch", "catalog_version", "author"]
        print_records([msgspec.to_builtins(one) for one in found], "table", columns)


def _print_closing(one: "ClosingShown") -> None:
    assert one.review is not None
    click.echo(
        f"{one.month} is {one.state}: batch {one.ledger_batch} of the ledger, {one.carbon_batch} of carbon, "
        f"change {one.catalog_version} of the catalogue"
    )
    _print_review(one.review)


def _print_review(found: "Review") -> None:
    import msgspec

    from metering.billing.answers import in_cents

    for total in found.totals:
        click.echo(
            f"{total.documents} × {total.kind}: net {in_cents(total.net_cents)}, VAT {in_cents(total.vat_cents)}, "
            f"in all {in_cents(total.gross_cents)} {total.currency}"
        )
    for one in found.corrections:
        click.echo(f"Late usage of {one.month}: {one.tenant} {in_cents(one.net_cents)} {one.currency}")
    for name, listed in (
        ("Unlike the month before", [one for one in found.compared if one.anomaly]),
        ("Without an amount", found.unpriced),
    ):
        if listed:
            click.secho(f"{name}:", fg="yellow")
            records = [msgspec.to_builtins(one) for one in listed[:LISTED_MAX]]
            print_records(records, "table", list(records[0]))
        if len(listed) > LISTED_MAX:
            click.echo(f"… and {len(listed) - LISTED_MAX} more")
    if not found.carbon_is_complete:
        click.echo("Carbon of the month is not complete.")
    for obstacle in found.obstacles[:LISTED_MAX]:
        click.secho(f"In the way: {obstacle.code}: {obstacle.subject}", fg="yellow")


@click.group()
def invoice() -> None:
    """Statements, invoices and credit notes."""


@invoice.command("list")
@click.option("--tenant", help="Of this administration.")
@click.option("--month", help="Of this month, as 2026-10.")
@click.option("--kind", type=click.Choice(["statement", "invoice", "credit_note"]), help="Of this kind.")
@paged
def invoice_list(
    tenant: str | None, month: str | None, kind: str | None, after: str, limit: int, as_json: bool
) -> None:
    """List documents, in the order in which they were made; --after is a `seq`."""
    import msgspec

    from metering.billing.closing_answers import shown_documents
    from metering.billing.documents import Filter, list_documents
    from metering.database import transaction
    from metering.printing import whole

    with services() as opened, transaction(opened.engine) as connection:
        wanted = Filter(tenant, month, kind)  # type: ignore[arg-type]
        found = list_documents(connection, wanted, after=whole(after or "0"), limit=limit)
    records = [msgspec.to_builtins(one) for one in shown_documents(found)]
    columns = ["seq", "number", "kind", "month", "tenant", "convention", "net", "vat", "gross", "currency"]
    print_records(records, form_of(as_json), [*columns, "preceding", *(["files"] if as_json else [])])


@invoice.command("show")
@click.argument("number")
@click.option("--pdf", "suffix", flag_value="pdf", help="As PDF; an invoice has its XML inside.")
@click.option("--xml", "suffix", flag_value="xml", help="As Factur-X (CII).")
@click.option("--ubl", "suffix", flag_value="ubl.xml", help="As UBL.")
@click.option("--csv", "suffix", flag_value="csv", help="Its lines as CSV.")
@click.option("--json", "suffix", flag_value="json", default=True, help="As JSON, whole.  [default]")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
def invoice_show(number: str, suffix: str, output: Path | None) -> None:
    """Print the document NUMBER as one of its files, byte for byte as it was made."""
    with services() as opened:
        content = _file_of(opened, number, suffix)
    if output is None:
        sys.stdout.buffer.write(content)
    else:
        output.write_bytes(content)


def _file_of(opened: "Services", number: str, suffix: str) -> bytes:
    from metering.billing.documents import find_document, read_file
    from metering.database import transaction

    with transaction(opened.engine) as connection:
        kept, _document = find_document(connection, number)
    return read_file(opened.settings.data, kept, suffix)

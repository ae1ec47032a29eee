"""Commands of prices: price books as one file, the prices in force, what a month comes to."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.asking import INSTANT, check_tenant, form_of
from metering.cli.catalog import write_file
from metering.cli.opening import me, services
from metering.printing import print_records

if TYPE_CHECKING:
    from metering.billing.answers import RatingShown, TotalShown, VatShown

KINDS_OF_PRICES = ("price_books", "prices")


@click.group()
def prices() -> None:
    """Price books, prices in force, and what months come to."""


@prices.command("apply")
@click.argument("file", type=click.File("rb"))
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and stop.")
def prices_apply(file: Any, yes: bool, dry_run: bool) -> None:
    """Add the price books and prices of FILE (YAML; `-` is standard input); those that are there stay as they are.

    What would be added is shown first. All of it is written, or nothing.
    """
    from metering.catalog.apply import read_file

    write_file(read_file(file.read(), KINDS_OF_PRICES), yes=yes, dry_run=dry_run)


@prices.command("export")
def prices_export() -> None:
    """Print price books and prices as a file that `apply` takes."""
    from metering.catalog.apply import export
    from metering.database import transaction

    with services() as opened, transaction(opened.engine, snapshot=True, actor=me()) as connection:
        click.echo(export(connection, KINDS_OF_PRICES), nl=False)


@prices.command("show")
@click.argument("book")
@click.option("--at", type=INSTANT, help="A date (midnight, Europe/Paris), or RFC 3339.  [default: now]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prices_show(book: str, at: datetime | None, as_json: bool) -> None:
    """List the prices of BOOK that are in force."""
    import msgspec

    from metering.billing.answers import shown_price
    from metering.billing.prices import tariffs_of
    from metering.errors import NotFound
    from metering.rules.rating.prices import Tariff

    with services() as opened:
        tariffs = tariffs_of(opened.catalog.current())
    if book not in tariffs.books:
        raise NotFound("unknown_book", "No such price book.", field="book")
    _own, found = Tariff([], tariffs.prices.get(book, [])).in_force(at or datetime.now(UTC))
    records = [msgspec.to_builtins(shown_price(one)) for one in found]
    columns = ["selector", "meter", "pricing", "price", "unit", "tiers", "free", "minimum", "cap", "valid_from"]
    if not as_json:
        for record in records:
            record["tiers"] = ", ".join(f"{_end(one['up_to'])}: {one['price']}" for one in record["tiers"]) or None
    print_records(records, form_of(as_json), [*columns, "valid_to", *(["per"] if as_json else [])])


def _end(up_to: int | None) -> str:
    return "beyond" if up_to is None else f"to {up_to:,}"


@prices.command("rate")
@click.argument("tenant")
@click.argument("month")
@click.option("--as-of", type=click.IntRange(min=0), help="As the ledger stood after this batch.")
@click.option("--carbon-as-of", type=click.IntRange(min=0), help="As carbon stood after this batch.")
@click.option("--catalog-version", type=click.IntRange(min=1), help="As the catalogue stood after this change.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prices_rate(
    tenant: str, month: str, as_of: int | None, carbon_as_of: int | None, catalog_version: int | None, as_json: bool
) -> None:
    """Say what MONTH (as 2026-10) of TENANT comes to: lines, totals, VAT, and usage without a price."""
    import msgspec

    from metering.billing.answers import shown_rating
    from metering.billing.prices import tariffs_as_of, tariffs_of
    from metering.billing.rating import AsOf, rate_tenant, read_month
    from metering.database import transaction

    period = read_month(month)
    with services() as opened:
        check_tenant(opened, tenant)
        now = tariffs_of(opened.catalog.current())
        with transaction(opened.engine, snapshot=True, actor=me()) as connection:
            tariffs = now if catalog_version is None else tariffs_as_of(connection, catalog_version)
            rating = shown_rating(rate_tenant(connection, tariffs, tenant, period, AsOf(as_of, carbon_as_of)))
    if as_json:
        click.echo(msgspec.json.encode(rating))
    else:
        _print_rating(rating)


def _print_rating(rating: "RatingShown") -> None:
    import msgspec

    click.echo(f"{rating.tenant} {rating.month}: {_follows_from(rating)}")
    if rating.lines:
        columns = [
            "project",
            "model",
            "meter",
            "kind",
            "quantity",
            "unit_price",
            "per",
            "amount",
            "currency",
            "billing",
        ]
        print_records([msgspec.to_builtins(line) for line in rating.lines], "table", columns)
    for total in rating.totals:
        click.echo(_told_of(total))
    if rating.unpriced:
        click.secho("Without an amount:", fg="yellow")
        columns = ["project", "model", "operation", "reason", "quantity", "amount", "billing"]
        print_records([msgspec.to_builtins(gap) for gap in rating.unpriced], "table", columns)


def _follows_from(rating: "RatingShown") -> str:
    carbon = "" if rating.carbon_batch is None else f", batch {rating.carbon_batch} of carbon"
    return f"batch {rating.ledger_batch} of the ledger{carbon}, change {rating.catalog_version} of the catalogue"


def _told_of(total: "TotalShown") -> str:
    if total.billing == "valued":
        return f"Valued, not billed: {total.net} {total.currency}"
    taxes = "".join(f", VAT {_tax(part)} {part.amount}" for part in total.vat)
    return f"Billed: {total.net} {total.currency}{taxes}, to pay {total.gross} {total.currency}"


def _tax(part: "VatShown") -> str:
    return f"{part.vat_percent} %" if part.vat == "rate" else f"({part.vat_reason})"

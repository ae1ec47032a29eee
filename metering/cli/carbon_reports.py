"""Commands that report carbon: sums for people and programs, statements, BoAmps reports."""

from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.opening import services
from metering.cli.questions import asks_about_a_period
from metering.printing import print_records

if TYPE_CHECKING:
    from reports.carbon import CarbonRow
    from reports.usage import UsageQuestion


@click.command("report")
@asks_about_a_period
def report(question: "UsageQuestion", form: Any) -> None:
    """Sum energy and emissions by period and group; periods begin and end with whole hours.

    The table has units and bounds; JSON and CSV have integers in µJ and ng CO2e. Empty is unknown.
    """
    from metering.database import transaction
    from reports.carbon import UNITS, carbon_fields, carbon_record, check_hours, per_unit, read_carbon

    check_hours(question)
    with services() as opened, transaction(opened.engine, snapshot=True) as connection:
        rows = read_carbon(connection, question)
        units = per_unit(connection, question, rows)
    records = [carbon_record(row, question) | unit for row, unit in zip(rows, units, strict=True)]
    if form == "table":
        told = [_told(row, record) for row, record in zip(rows, records, strict=True)]
        print_records(told, form, list(told[0]) if told else [])
    else:
        print_records(records, form, [*carbon_fields(question), *UNITS])


def _told(row: "CarbonRow", record: dict[str, Any]) -> dict[str, Any]:
    """A record for people: figures with their units and bounds, and how much of the energy was measured."""
    from reports import wording
    from reports.carbon_words import emissions_of, energy_of

    figures = row.figures
    start = {"bucket_start": record["bucket_start"]} if "bucket_start" in record else {}
    told: dict[str, Any] = {
        **start, **row.group, "requests": figures["requests"], "not measured": row.requests_unknown
    }  # fmt: skip
    energy = energy_of(figures, "en")
    told |= {"energy": energy.value, "energy, range": energy.between or None}
    names = {"emissions": "total", "use, grid": "location", "use, contract": "market", "manufacture": "embodied"}
    for heading, name in names.items():
        emissions = emissions_of(figures, name, "en", wording.mass)
        told[heading] = emissions.value
        if name == "total":
            told["emissions, range"] = emissions.between or None
    unit = record["per_1000_tokens_ng"]
    told["per 1,000 tokens"] = None if unit is None else wording.mass(unit, "en")
    whole = sum(row.tiers.values())
    metered = row.tiers.get("A", 0) + row.tiers.get("B", 0)
    told["metered"] = wording.share(metered, whole, "en") if whole > 0 else None
    return told


@click.command("statement")
@click.argument("tenant")
@click.argument("month")
@click.option("--as-of", "as_of", type=click.IntRange(0), help="As posted up to this batch of carbon.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def statement(tenant: str, month: str, as_of: int | None, as_json: bool) -> None:
    """Print the carbon statement of the administration TENANT for a MONTH, as 2026-10 (JAUGE_LANGUAGE)."""
    import msgspec

    from reports.carbon_statement import read_statement
    from reports.carbon_statement_text import statement_text

    with services() as opened:
        found = read_statement(opened.engine, tenant, month, as_of)
        text = statement_text(found, opened.settings.language)
    click.echo(msgspec.json.encode(found).decode() if as_json else text, nl=as_json)


@click.command("boamps")
@click.option("--from", "start", required=True, help="First date (Europe/Paris), or RFC 3339; a whole hour.")
@click.option("--to", "end", required=True, help="Exclusive end: a date (Europe/Paris), or RFC 3339; a whole hour.")
@click.option("--tenant", help="Of this administration alone.")
def boamps(start: str, end: str, tenant: str | None) -> None:
    """Print BoAmps reports as JSON, one for each model, and the models that have none."""
    from datetime import UTC, datetime

    import msgspec

    from reports.boamps import read_boamps
    from reports.carbon import check_hours
    from reports.usage import parse_question

    question = check_hours(parse_question({"start": start, "end": end, "tenant": tenant}))
    with services() as opened:
        exported = read_boamps(opened.engine, question, datetime.now(UTC))
    click.echo(msgspec.json.format(msgspec.json.encode(exported)).decode())

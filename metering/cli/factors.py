"""Commands about emission factors: what they are, and where they come from."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.asking import LINE, form_of
from metering.cli.opening import me, services
from metering.printing import print_records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from metering.carbon.importing import NewFactor, Recorded
    from metering.carbon.importing_files import FactorFile, FactorFormat, Wanted

KINDS = ("location", "market")
FORMATS = ("rte", "electricitymaps", "csv")
GAPS_SHOWN = 10
FILE_BYTES_MAX = 64 * 1024 * 1024


class Clock(click.ParamType["ZoneInfo"]):
    """A time zone by its IANA name."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "ZoneInfo":
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            return ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.fail("expected the IANA name of a time zone, as Europe/Paris.", param, ctx)


@click.group()
def factors() -> None:
    """Emission factors: grams of CO2e for a kilowatt-hour, by zone and time."""


@factors.command("import")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--packaged", is_flag=True, help="Instead of a FILE: the yearly means that come with the installation.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Who wrote FILE; csv: columns that you name.")
@click.option(
    "--kind", type=click.Choice(KINDS), default="location", show_default=True, help="Of the grid, or of a contract."
)
@click.option("--zone", help="Zone of rows that name none; of a file of several zones, the one to take.  [rte: FR]")
@click.option(
    "--source", type=LINE, help="Who says so; needed for csv.  [rte: rte-eco2mix; electricitymaps: electricitymaps]"
)
@click.option(
    "--version",
    "edition",
    type=LINE,
    help="Edition; another one where values were revised.  [rte: its Nature; else: 1]",
)
@click.option("--start-column", help="Column of the start; two are joined: date,hour.  [csv: starts_at]")
@click.option("--end-column", help="Column of the end.  [csv: ends_at, if the file has it]")
@click.option("--value-column", help="Column of g CO2e a kWh.  [csv: gco2e_per_kwh]")
@click.option("--tz", "clock", type=Clock(), help="Whose clock times without an offset are by.  [rte: Europe/Paris]")
@click.option("--dry-run", is_flag=True, help="Read and compare, and write nothing.")
def factors_import(
    file: Path | None, packaged: bool, form: Any, kind: Any, zone: str | None, source: str | None, edition: str | None,
    start_column: str | None, end_column: str | None, value_column: str | None, clock: "ZoneInfo | None", dry_run: bool,
) -> None:  # fmt: skip
    """Record emission factors of FILE; all of it or nothing.

    Safe to repeat: what is recorded stays. Hours that the new factors are of are posted anew by the worker: energy
    stays as it is, grams change.
    """
    from metering.carbon.importing_files import Wanted, layout_of, read_factors_file
    from metering.carbon.importing_packaged import packaged_factors

    if packaged == (file is not None):
        raise click.UsageError("Give a FILE, or --packaged.")
    if file is None:
        _record(packaged_factors(datetime.now(UTC)), dry_run=dry_run)
        return
    if form is None:
        raise click.UsageError("Say who wrote the file: --format.")
    layout = layout_of(form, starts=start_column, ends=end_column, value=value_column, clock=clock)
    wanted = Wanted(kind, _source_of(form, source), layout, zone or _zone_of(form), edition)
    read = read_factors_file(_content_of(file), wanted)
    _show(read, wanted)
    _record(read.factors, dry_run=dry_run)


def _source_of(form: "FactorFormat", source: str | None) -> str:
    from metering.carbon.importing_files import SOURCES

    known = source or SOURCES.get(form)
    if known is None:
        raise click.UsageError("Say whose factors these are: --source.")
    return known


def _zone_of(form: "FactorFormat") -> str | None:
    from metering.carbon.importing_files import ZONES

    return ZONES.get(form)


def _content_of(file: Path) -> bytes:
    from metering.errors import TooLarge

    if file.stat().st_size > FILE_BYTES_MAX:
        raise TooLarge("file_too_large", "The file is too large.", field="FILE", expected=f"{FILE_BYTES_MAX} bytes")
    return file.read_bytes()


def _record(new: "Sequence[NewFactor]", *, dry_run: bool) -> None:
    from metering.carbon.importing import record_factors
    from metering.database import transaction
    from metering.progress import progress

    with (
        services() as opened,
        progress("rows", len(new)) as advance,
        transaction(opened.engine, actor=me()) as connection,
    ):
        recorded = record_factors(connection, new, author=me().author, advance=advance, dry_run=dry_run)
    click.echo(_told_of(recorded, dry_run=dry_run))


def _told_of(recorded: "Recorded", *, dry_run: bool) -> str:
    done = "would be recorded" if dry_run else "recorded"
    return f"{recorded.new:,} factors {done}, {recorded.known:,} were there already."


def _show(read: "FactorFile", wanted: "Wanted") -> None:
    """What was read of a file: rows, then each zone's period and values, then what was met on the way."""
    from metering.carbon.importing_files import spans_of
    from metering.carbon.listing import grams

    click.echo(f"{read.rows:,} rows, {read.without_value:,} of them without a value.")
    for span in spans_of(read):
        click.echo(
            f"{span.zone} ({wanted.kind}, {wanted.source}, version {span.version}): {span.slots:,} slots from"
            f" {_local(span.starts_at)} to {_local(span.ends_at)}; g CO2e/kWh: lowest {grams(span.lowest)},"
            f" mean {grams(span.mean)}, highest {grams(span.highest)}."
        )
    if read.slots.skipped:
        click.echo(f"Not taken, of an hour that the clock left out in spring: {read.slots.skipped:,}.")
    if read.slots.doubled:
        click.echo(f"Taken for both hours of one name in autumn: {read.slots.doubled:,}.")
    gaps = read.slots.gaps()
    for zone, starts_at, ends_at in gaps[:GAPS_SHOWN]:
        click.echo(f"{zone}: no value from {_local(starts_at)} to {_local(ends_at)}.")
    if len(gaps) > GAPS_SHOWN:
        click.echo(f"… and {len(gaps) - GAPS_SHOWN:,} more gaps.")


def _local(instant: datetime) -> str:
    """An instant by the clock of the books, with its offset."""
    from metering.rules.periods import PARIS

    return instant.astimezone(PARIS).isoformat(timespec="minutes")


@factors.command("list")
@click.option("--zone", help="Only this zone.")
@click.option("--kind", type=click.Choice(KINDS), help="Only these.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def factors_list(zone: str | None, kind: Any, as_json: bool) -> None:
    """List what was imported, by zone, kind, source and version; values are in g CO2e a kWh."""
    from dataclasses import asdict

    from metering.carbon.listing import Asked, grams, list_sets
    from metering.database import transaction

    with services() as opened, transaction(opened.engine) as connection:
        found = list_sets(connection, Asked(zone, kind))
    records = [
        asdict(one) | {name: grams(getattr(one, name)) for name in ("lowest", "mean", "highest")} for one in found
    ]
    for record in () if as_json else records:
        record["is_last_resort"] = "yes" if record["is_last_resort"] else "no"
    columns = [
        "zone", "kind", "source", "version", "slots", "starts_at", "ends_at", "lowest", "mean", "highest",
        "is_last_resort",
    ]  # fmt: skip
    print_records(records, form_of(as_json), columns)

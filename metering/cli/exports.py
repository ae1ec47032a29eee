"""Commands that write figures as files: usage, charges in FOCUS, entries of a sales journal."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.opening import operator, services
from metering.cli.questions import GROUPS
from metering.printing import assignment

if TYPE_CHECKING:
    from metering.progress import Advance

FORMS = ("csv", "xlsx", "parquet", "json", "ndjson")


@click.group("export")
def export_group() -> None:
    """Write figures as files, each with a manifest beside it (FILE.manifest.json)."""


def writes_a_file(command: Any) -> Any:
    """The options of every export."""
    for option in (
        click.option(
            "--output",
            type=click.Path(path_type=Path),
            default=Path(),
            help="File, or folder that it is written to under its own name.  [default: this folder]",
        ),
        click.option("--language", type=click.Choice(["fr", "en"]), default="en", show_default=True,
                     help="Of headings, separators and decimal marks in CSV and XLSX."),
    ):  # fmt: skip
        command = option(command)
    return command


@export_group.command("usage")
@click.option("--from", "start", required=True, help="First date (Europe/Paris), or RFC 3339.")
@click.option("--to", "end", required=True, help="Exclusive end: a date (Europe/Paris), or RFC 3339.")
@click.option("--by", "group_by", default="", help=f"Groups, separated by commas: {GROUPS}.")
@click.option("--bucket", type=click.Choice(["hour", "day", "month"]), help="Cut the period.")
@click.option("--tz", help="Time zone of dates and buckets.  [default: Europe/Paris]")
@click.option("--where", multiple=True, metavar="GROUP=VALUE", help="Only this value of a group; may be repeated.")
@click.option("--as-of", "as_of", help="As it stood after this batch.")
@click.option("--amounts", is_flag=True, help="With the amounts of whole months, where they can be told exactly.")
@click.option("--format", "form", type=click.Choice(FORMS), default="csv", show_default=True)
@writes_a_file
def export_usage(output: Path, form: str, where: tuple[str, ...], amounts: bool, **asked: str | None) -> None:
    """Usage by period and group, as `jauge usage` sums it."""
    filters: dict[str, list[str]] = {}
    for name, value in map(assignment, where):
        if name not in GROUPS.split(", "):
            raise click.UsageError(f"--where takes one of {GROUPS}.")
        filters.setdefault(name, []).append(value)
    _export({**asked, **filters, "kind": "usage", "format": form, "amounts": "true" if amounts else None}, output)


@export_group.command("focus")
@click.argument("month")
@click.option("--tenant", help="Of this administration alone.")
@click.option("--version", "focus_version", type=click.Choice(["1.2", "1.4"]), default="1.2", show_default=True)
@click.option("--format", "form", type=click.Choice(FORMS), default="parquet", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path(), help="File or folder.")
def export_focus(month: str, form: str, output: Path, **asked: str | None) -> None:
    """Charges of the final documents of MONTH (as 2026-10), in the FinOps Open Cost and Usage Specification."""
    _export({**asked, "kind": "focus", "month": month, "format": form}, output)


@export_group.command("accounting")
@click.argument("month")
@click.option("--tenant", help="Of this administration alone.")
@click.option("--format", "form", type=click.Choice(FORMS), default="csv", show_default=True)
@writes_a_file
def export_accounting(month: str, form: str, output: Path, **asked: str | None) -> None:
    """Invoices and credit notes of MONTH (as 2026-10), as entries of a sales journal."""
    _export({**asked, "kind": "accounting", "month": month, "format": form}, output)


def _export(asked: dict[str, Any], output: Path) -> None:
    import shutil
    from tempfile import TemporaryDirectory

    from metering.progress import progress
    from reports.exports.making import make, parse_export

    export = parse_export(asked, operator())
    folder = output if output.is_dir() else output.parent
    folder.mkdir(parents=True, exist_ok=True)
    # Made beside where it goes, and moved there whole: nobody finds half of a file.
    with services() as opened, TemporaryDirectory(dir=folder, prefix=".export-") as made_in, progress(
        "rows", None
    ) as advance:  # fmt: skip
        made = make(opened.export_sources(), export, operator(), Path(made_in), _teller(advance))
        target = output / made.path.name if output.is_dir() else output
        beside = target.with_name(f"{target.name}.manifest.json")
        beside.write_bytes(made.manifest())
        shutil.move(made.path, target)
    click.echo(f"{target}: {made.told['rows']:,} rows, {made.size:,} bytes, sha256 {made.sha256}")


def _teller(advance: "Advance") -> Any:
    seen = 0

    def told(done: int, total: int | None) -> None:
        nonlocal seen
        advance(max(0, done - seen), total)
        seen = done

    return told

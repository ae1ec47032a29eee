"""Commands about carbon: hours worked out anew, estimates of the modelled path, and its fit."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from metering.cli.opening import services
from metering.printing import print_records

if TYPE_CHECKING:
    from metering.carbon.fitting import Form, Quality, Result

CSV = click.option("--csv", "source", type=click.File("rb"), required=True, help="Rows of a benchmark; - is stdin.")


@click.group()
def carbon() -> None:
    """Energy and carbon of requests."""


@carbon.command("restate")
@click.option("--from", "start", required=True, help="First hour: a date (Europe/Paris), or RFC 3339.")
@click.option("--to", "end", required=True, help="Exclusive end: a date (Europe/Paris), or RFC 3339.")
def carbon_restate(start: str, end: str) -> None:
    """Work posted hours out anew, after a change of sites, models or deployments, which no hour learns of by itself."""
    from metering.carbon.due import mark_again
    from metering.carbon.job import post_due
    from metering.database import transaction
    from metering.progress import progress
    from reports.usage import parse_question

    period = parse_question({"start": start, "end": end})
    with services() as opened:
        with transaction(opened.engine) as connection:
            marked = mark_again(connection, period.start, period.end)
        with progress("hours", marked) as advance:
            changed = post_due(opened.engine, datetime.now(UTC), advance)
    click.echo(f"{marked:,} hours marked, {changed:,} restated here; what a worker is at, it restates.")


@carbon.command("estimate")
@CSV
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
def carbon_estimate(source: Any, form: Any) -> None:
    """Estimate the energy of an output token for rows of models and GPUs, one answer a row, in their order.

    Columns, as ML.ENERGY names them: total_params_b and avg_batch_size or max_num_seqs are needed; active_params_b,
    architecture, weight_precision, gpu, n_gpus, task and avg_output_tokens tell more; what was measured isn't read.
    Energies are in J at the GPUs, the prompt's part included, with bounds that hold 9 in 10; empty (null) is unknown.
    """
    from metering.carbon.benchmark import estimate_row, read_rows
    from metering.carbon.fitted import shipped_fit

    fit = shipped_fit()
    names = ("energy_per_output_token_j", "lower_j", "upper_j")
    records: list[dict[str, Any]] = []
    for number, row in enumerate(read_rows(source.read()), start=1):
        estimate = estimate_row(row, fit)
        record: dict[str, Any] = {"row": number, "model_id": row.model_id, **dict.fromkeys(names)}
        if estimate is not None:
            record.update({name: float(getattr(estimate, name)) for name in names})
        records.append(record)
    print_records(records, form, list(names) if form == "json" else ["row", "model_id", *names])


@carbon.command("fit")
@CSV
@click.option("--output", type=click.File("wb"), help="Write the coefficients there, as they are shipped.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def carbon_fit(source: Any, output: Any, as_json: bool) -> None:
    """Fit the modelled path to measured rows, and say how far it and other forms are off."""
    from metering.carbon.benchmark import read_rows
    from metering.carbon.fitted import file_of
    from metering.carbon.fitting import FORMS, fit_rows, quality_of, table_of

    table = table_of(read_rows(source.read(), measured=True))
    result = fit_rows(table)
    if output is not None:
        output.write(file_of(result))
    if as_json:
        click.echo(json.dumps(asdict(result), default=str))
        return
    _print_forms({form: quality_of(table, form) for form in FORMS})
    _print_result(result)


def _print_forms(forms: "dict[Form, Quality]") -> None:
    """Forms by their errors as factors: fitted, and left out one at a time."""
    names = ["form", "fitted", "left_out_vendor", "left_out_model", "left_out_size"]
    records = [
        {"form": form.name, **{name: f"×{value:.3f}" for name, value in asdict(quality).items()}}
        for form, quality in forms.items()
    ]
    print_records(records, "table", names)


def _print_result(result: "Result") -> None:
    """Makers left out, coverage and coefficients."""
    click.echo()
    records = [
        {"vendor left out": name, "rows": rows, "error": f"×{error:.3f}", "inside 90 %": f"{covered:.1%}"}
        for name, (rows, error, covered) in result.vendors.items()
    ]
    print_records(records, "table", ["vendor left out", "rows", "error", "inside 90 %"])
    click.echo(f"All: {result.coverage:.1%} inside; {result.nested_coverage:.1%} where a maker told nothing of widths.")
    click.echo()
    for name, value in asdict(result.fit).items():
        click.echo(f"{name}: {json.dumps(value, default=str)}")

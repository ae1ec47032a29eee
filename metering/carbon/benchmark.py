"""Rows of a benchmark of energy (ML.ENERGY's columns): read with care, and estimated without what was measured.

Of a row, an estimate reads what is known before anything runs (model, GPUs, precision, task), the concurrency and the
length of answers. Power, throughput, latency and energy are never read for it.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation, localcontext
from typing import Final

from metering.carbon.serving import serving_of
from metering.errors import BadRequest, TooLarge, Unprocessable
from metering.rules.carbon.modelling import BILLION, Asked, Fit, Serving, half_width_of, request_energy, token_energies

REQUIRED = ("total_params_b",)
"""Columns without which nothing can be said of any row; one of CONCURRENCY is needed as well."""
CONCURRENCY = ("avg_batch_size", "max_num_seqs")
"""Requests in flight: as they were, else as many as were allowed (0.99 of it, on average, where both are known)."""
MEASURED = "energy_per_output_token_j"

PROMPT_TOKENS: Final[Mapping[str, int]] = {
    "gpqa": 200, "lm-arena-chat": 200, "image-chat": 1_000, "sourcegraph-fim": 4_000, "video-chat": 3_000,
}  # fmt: skip
"""Positions of a prompt by task. The rows don't tell them: stated priors, of the sizes that the tasks' data have."""
DEFAULT_PROMPT_TOKENS = 200
DEFAULT_OUTPUT_TOKENS = 1_000
"""Of a task or of rows that don't say; about the rows' median."""

ROWS_MAX = 100_000
NUMBER_MAX = 10**9
"""Bounds of what is read: beyond, it is no such file."""

_ARITHMETIC = Context(prec=24, rounding=ROUND_HALF_EVEN)
_DIGITS = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Row:
    """What an estimate reads of a row; None where it doesn't say. measured_j: for those who fit."""

    model_id: str
    serving: Serving | None
    concurrency_milli: int | None
    asked: Asked
    measured_j: Decimal | None

    @property
    def vendor(self) -> str:
        """Who made the model: its name up to the first slash."""
        return self.model_id.split("/")[0]


@dataclass(frozen=True, slots=True)
class RowEstimate:
    """J an output token, its prompt's and context's part included, with the bounds that hold nine rows of ten."""

    energy_per_output_token_j: Decimal
    lower_j: Decimal
    upper_j: Decimal


def read_rows(content: bytes, *, measured: bool = False) -> Sequence[Row]:
    """Rows of a CSV file with a header, in their order. measured: read what was measured as well, for a fit.

    Raises: BadRequest if it isn't one, or a column is missing; Unprocessable, with row and column, for a value that
    can't be; TooLarge. An empty value is one that isn't said.
    """
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        names = [name.strip() for name in reader.fieldnames or ()]
        _check_columns(names)
        reader.fieldnames = names
        rows = []
        for number, values in enumerate(reader, start=1):
            if number > ROWS_MAX:
                raise TooLarge("too_many_rows", "The file has too many rows.", expected=f"at most {ROWS_MAX:,}")
            rows.append(_row(number, values, measured))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRequest("invalid_csv", "The file can't be read.", expected="CSV in UTF-8 with a header") from error
    return rows


def estimate_row(row: Row, fit: Fit) -> RowEstimate | None:
    """The estimate of a row; None if it doesn't say enough."""
    if row.serving is None or row.concurrency_milli is None:
        return None
    energies = token_energies(row.serving, fit, row.concurrency_milli)
    with localcontext(_ARITHMETIC):
        joules = Decimal(request_energy(row.asked, energies).value) / (10**6 * row.asked.output)
        factor = half_width_of(row.serving, fit).exp()
        return RowEstimate(*(_rounded(one) for one in (joules, joules / factor, joules * factor)))


def _rounded(joules: Decimal) -> Decimal:
    """To a µJ, and never to nothing."""
    return max(joules.quantize(_DIGITS), _DIGITS)


def _check_columns(names: Sequence[str]) -> None:
    """Raises: BadRequest for a file without the columns that are needed, or with one twice."""
    missing = [name for name in REQUIRED if name not in names]
    if not missing and not set(CONCURRENCY) & set(names):
        missing = [" or ".join(CONCURRENCY)]
    if missing:
        raise BadRequest(
            "missing_column", "The file lacks a column.", field=missing[0], expected="a column of that name"
        )
    if len(set(names)) < len(names):
        raise BadRequest("repeated_column", "A column is there twice.", expected="each column once")


def _row(number: int, values: Mapping[str | None, str | list[str] | None], measured: bool) -> Row:
    if None in values or None in values.values():
        raise Unprocessable("invalid_row", f"Row {number} has another number of values than the header has.")
    texts = {str(name): str(value).strip() for name, value in values.items()}

    def of(name: str) -> Decimal | None:
        return _number(number, name, texts.get(name, ""))

    concurrency = next((value for value in map(of, CONCURRENCY) if value is not None), None)
    output = of("avg_output_tokens")
    prompt = PROMPT_TOKENS.get(texts.get("task", ""), DEFAULT_PROMPT_TOKENS)
    return Row(
        model_id=texts.get("model_id", ""),
        serving=_serving(number, texts, of("total_params_b"), of("active_params_b"), of("n_gpus")),
        concurrency_milli=None if concurrency is None else max(int(1_000 * concurrency), 1),
        asked=Asked(DEFAULT_OUTPUT_TOKENS if output is None else max(int(output), 1), prompt, prompt),
        measured_j=of(MEASURED) if measured else None,
    )


def _serving(
    number: int, texts: Mapping[str, str], total_b: Decimal | None, active_b: Decimal | None, gpus: Decimal | None
) -> Serving | None:
    """What a row's model runs on; None if its size isn't said, or how much of a mixture of experts a token uses."""
    if total_b is None or (active_b is None and "moe" in texts.get("architecture", "").lower()):
        return None
    if active_b is not None and active_b > total_b:
        raise _invalid(number, "active_params_b", "at most total_params_b")
    if gpus is not None and gpus != int(gpus):
        raise _invalid(number, "n_gpus", "a whole number")
    return serving_of(
        total_params=max(int(total_b * BILLION), 1),
        active_params=None if active_b is None else max(int(active_b * BILLION), 1),
        precision=texts.get("weight_precision") or None,
        kv_bytes_per_token=None,
        accelerator=texts.get("gpu") or None,
        accelerators=None if gpus is None else int(gpus),
    )


def _number(number: int, name: str, text: str) -> Decimal | None:
    """A number above 0; None if there is none. Raises: Unprocessable."""
    if not text:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise _invalid(number, name, "a number") from None
    if not value.is_finite() or not 0 < value <= NUMBER_MAX:
        raise _invalid(number, name, f"above 0, at most {NUMBER_MAX:,}")
    return value


def _invalid(number: int, name: str, expected: str) -> Unprocessable:
    return Unprocessable("invalid_value", f"Row {number} has a value that can't be.", field=name, expected=expected)

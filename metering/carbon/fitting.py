"""The fit of the modelled path: coefficients from measured rows, how far they are off, and the forms that were weighed.

Robust ridge regression of ln(J an output token): soft-L1 loss, because some rows were measured while something else
held the GPUs up; and a penalty on the distance to stated priors, because three makers can't tell all terms apart. A
form is judged by rows it wasn't fitted to: one maker, one model or one size of model left out at a time. It is a fit,
so it is done in floating point; its result is rounded, committed, and evaluated exactly (`rules.carbon.modelling`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from metering.carbon.benchmark import Row
from metering.carbon.serving import DEFAULT_GPU
from metering.errors import Unprocessable
from metering.rules.carbon.hardware import GPU_MODELS
from metering.rules.carbon.modelling import (
    BILLION,
    CONCURRENCY_MIN_MILLI,
    Fit,
    Serving,
    context_joules,
    prefill_joules,
)

Floats = npt.NDArray[np.float64]

PENALTY: Final = 20.0
"""Rows that a prior is worth, for a term that varies by one standard deviation."""
SOFT_FROM: Final = 0.5
"""Residuals (ln) from which the loss grows straight."""
COVERAGE: Final = 0.9
FEW_MAKERS: Final = 1.15
"""What widths are taken times: three makers tell too little of a fourth. With it, intervals that were made without a
maker hold nine of ten of its rows (`Result.nested_coverage`)."""
DIGITS = 4
ROWS_MIN = 50

Term = Callable[[Row, Serving, float], float]
"""What a term is of a row, given its requests in flight."""

TERMS: Final[Mapping[str, tuple[Term, float]]] = {
    "active_params": (lambda _row, of, _b: np.log(of.active_params / BILLION), 0.45),
    "weight_bytes": (lambda _row, of, _b: np.log(of.weight_bytes / BILLION), 0.25),
    "concurrency": (lambda _row, _of, b: np.log(b / 64), -0.7),
    "dense_gpus": (lambda _row, of, _b: 0.0 if of.is_sparse else np.log(of.gpus), 0.1),
    "sparse_gpus": (lambda _row, of, _b: np.log(of.gpus) if of.is_sparse else 0.0, 0.4),
    "sparse": (lambda _row, of, _b: float(of.is_sparse), 0.5),
    "b200": (lambda _row, of, _b: float(of.gpu_model == "B200"), 0.0),
    "gpus": (lambda _row, of, _b: np.log(of.gpus), 0.3),
    "concurrency_squared": (lambda _row, _of, b: np.log(b / 64) ** 2, 0.0),
    "sparse_concurrency": (lambda _row, of, b: np.log(b / 64) * of.is_sparse, 0.0),
    "gpus_concurrency": (lambda _row, of, b: np.log(b / 64) * np.log(of.gpus), 0.0),
    "size_concurrency": (lambda _row, of, b: np.log(b / 64) * np.log(of.active_params / 20 / BILLION), 0.0),
}
"""Terms and their priors. Reading weights takes energy in proportion to them, and steps have costs that don't grow: 0.7
in all. A step that is shared makes a token cheaper, by less than in proportion. More GPUs add what they wait for each
other, more so where experts are spread over them. A mixture of experts reads more weights than a token uses: between
none and (total/active)^0.45, which is 1 in ln."""

CHOSEN = ("active_params", "weight_bytes", "concurrency", "dense_gpus", "sparse_gpus", "sparse", "b200")
_POOLED = tuple("gpus" if name == "dense_gpus" else name for name in CHOSEN if name != "sparse_gpus")


@dataclass(frozen=True, slots=True)
class Form:
    """Terms beside the constant; whether prompts and contexts are taken off; what the penalty is."""

    name: str
    terms: tuple[str, ...]
    is_prompt_apart: bool = True
    penalty: float = PENALTY


FORMS = (
    Form("chosen", CHOSEN),
    Form("prompts and contexts in e(B)", CHOSEN, is_prompt_apart=False),
    Form("one term for GPUs", _POOLED),
    Form("without mixtures of experts", tuple(name for name in _POOLED if name != "sparse")),
    Form("with (ln B)²", (*CHOSEN, "concurrency_squared")),
    Form("with ln B × mixture", (*CHOSEN, "sparse_concurrency")),
    Form("with ln B × ln GPUs", (*CHOSEN, "gpus_concurrency")),
    Form("with ln B × ln active", (*CHOSEN, "size_concurrency")),
    Form("hardly any penalty", CHOSEN, penalty=0.1),
)
"""The form that is used, and those that were weighed against it."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as arrays: ln J measured, and J of prompt and context by data sheets; by row."""

    rows: Sequence[Row]
    log_joules: Floats
    apart_joules: Floats
    columns: Mapping[str, Floats]

    def design(self, form: Form) -> Floats:
        """Terms of a form by row, a constant first."""
        return np.column_stack([np.ones(len(self.rows)), *(self.columns[name] for name in form.terms)])


@dataclass(frozen=True, slots=True)
class Quality:
    """Geometric mean errors as factors: of rows fitted, and of rows left out by maker, model and size."""

    fitted: float
    left_out_vendor: float
    left_out_model: float
    left_out_size: float


@dataclass(frozen=True, slots=True)
class Result:
    """A fit and how good it is. vendors: rows, error and coverage of each maker, left out.

    nested_coverage: the same by intervals of which the maker told nothing.
    """

    fit: Fit
    rows: int
    quality: Quality
    vendors: Mapping[str, tuple[int, float, float]]
    coverage: float
    nested_coverage: float


def table_of(rows: Sequence[Row]) -> Table:
    """Rows that say everything. Raises: Unprocessable for too few."""
    whole = [row for row in rows if row.serving and row.concurrency_milli and row.measured_j]
    if len(whole) < ROWS_MIN or len({row.vendor for row in whole}) < 2:
        raise Unprocessable(
            "too_few_rows", "There are too few measured rows to fit.", expected=f"at least {ROWS_MIN}, of two makers"
        )
    columns = {name: np.array([term(*_known(row)) for row in whole]) for name, (term, _prior) in TERMS.items()}
    measured = np.log([float(row.measured_j or 0) for row in whole])
    return Table(whole, measured, np.array([_apart(row) for row in whole]), columns)


def fit_rows(table: Table) -> Result:
    """Fit the chosen form."""
    form = FORMS[0]
    everything = np.ones(len(table.rows), dtype=np.bool_)
    coefficients = dict(zip(("constant", *form.terms), _solve(table, form, everything), strict=True))
    vendors = vendors_of(table)
    left_out = residuals(table, form, vendors)
    width = _width(left_out)
    return Result(
        fit=_rounded(table, coefficients, width),
        rows=len(table.rows),
        quality=quality_of(table, form),
        vendors={name: _told(left_out[vendors == name], width) for name in sorted(set(vendors.tolist()))},
        coverage=_told(left_out, width)[2],
        nested_coverage=_nested_coverage(table, form, left_out),
    )


def quality_of(table: Table, form: Form) -> Quality:
    """How far a form is off."""
    groups = (vendors_of(table), _models_of(table), _sizes_of(table))
    everything = np.ones(len(table.rows), dtype=np.bool_)
    fitted = _predicted(table, form, _solve(table, form, everything)) - table.log_joules
    return Quality(error(fitted), *(error(residuals(table, form, one)) for one in groups))


def residuals(table: Table, form: Form, groups: npt.NDArray[np.str_]) -> Floats:
    """ln(estimated/measured) of each row by a fit to the rows of other groups."""
    found = np.zeros(len(groups))
    for group in sorted(set(groups.tolist())):
        is_out = groups == group
        found[is_out] = (_predicted(table, form, _solve(table, form, ~is_out)) - table.log_joules)[is_out]
    return found


def error(residual: Floats) -> float:
    """Geometric mean error, as a factor."""
    return float(np.exp(np.mean(np.abs(residual))))


def vendors_of(table: Table) -> npt.NDArray[np.str_]:
    return np.array([row.vendor for row in table.rows])


def _models_of(table: Table) -> npt.NDArray[np.str_]:
    return np.array([row.model_id for row in table.rows])


def _sizes_of(table: Table) -> npt.NDArray[np.str_]:
    return np.array([f"{of.total_params}/{of.active_params}" for row in table.rows if (of := row.serving)])


def _known(row: Row) -> tuple[Row, Serving, float]:
    assert row.serving is not None
    assert row.concurrency_milli is not None
    return row, row.serving, max(row.concurrency_milli, CONCURRENCY_MIN_MILLI) / 1_000


def _apart(row: Row) -> float:
    """J an output token of a row's prompt and context, by data sheets."""
    assert row.serving is not None
    prompt_j = row.asked.prefill / row.asked.output * float(prefill_joules(row.serving))
    return prompt_j + (row.asked.context + row.asked.output / 2) * float(context_joules(row.serving))


def _predicted(table: Table, form: Form, coefficients: Floats) -> Floats:
    """ln J of all rows."""
    joules = np.exp(table.design(form) @ coefficients)
    predicted: Floats = np.log(joules + table.apart_joules * form.is_prompt_apart)
    return predicted


def _solve(table: Table, form: Form, used: npt.NDArray[np.bool_]) -> Floats:
    """Coefficients, the constant first, fitted to some rows."""
    design = table.design(form)
    priors = np.array([0.0, *(TERMS[name][1] for name in form.terms)])
    priors[0] = np.median((table.log_joules - design @ priors)[used])
    pull = np.sqrt(form.penalty) * np.std(design, axis=0)
    apart = table.apart_joules[used] * form.is_prompt_apart

    def off(coefficients: Floats) -> Floats:
        joules = np.exp(design[used] @ coefficients) + apart
        return np.concatenate([np.log(joules) - table.log_joules[used], pull * (coefficients - priors)])

    found: Floats = least_squares(off, priors, loss="soft_l1", f_scale=SOFT_FROM).x
    return found


def _told(left_out: Floats, width: float) -> tuple[int, float, float]:
    """Rows, error and coverage of some residuals."""
    return len(left_out), error(left_out), float(np.mean(np.abs(left_out) <= width))


def _width(left_out: Floats) -> float:
    """Half a width that holds nine of ten left-out rows, and some more.

    Split conformal prediction: Lei et al. 2018, J. Am. Stat. Assoc. 113(523).
    """
    rank = int(np.ceil((len(left_out) + 1) * COVERAGE))
    return FEW_MAKERS * float(np.sort(np.abs(left_out))[min(rank, len(left_out)) - 1])


def _nested_coverage(table: Table, form: Form, left_out: Floats) -> float:
    """Coverage of each maker's rows by intervals from the others only, each of them left out in turn."""
    vendors = vendors_of(table)
    inside = 0
    for vendor in sorted(set(vendors.tolist())):
        others = _part(table, vendors != vendor)
        width = _width(residuals(others, form, vendors_of(others)))
        inside += int(np.sum(np.abs(left_out[vendors == vendor]) <= width))
    return inside / len(left_out)


def _part(table: Table, used: npt.NDArray[np.bool_]) -> Table:
    rows = [row for row, is_used in zip(table.rows, used, strict=True) if is_used]
    columns = {name: column[used] for name, column in table.columns.items()}
    return Table(rows, table.log_joules[used], table.apart_joules[used], columns)


def _rounded(table: Table, coefficients: Mapping[str, float], width: float) -> Fit:
    """The fit as it is committed."""

    def of(value: float) -> Decimal:
        return Decimal(f"{value:.{DIGITS}f}")

    servings = [row.serving for row in table.rows if row.serving]
    return Fit(
        **{name: of(value) for name, value in coefficients.items() if name != "b200"},
        gpu_models={DEFAULT_GPU.id: of(0), GPU_MODELS["B200"].id: of(coefficients["b200"])},
        reference_milliwatts=DEFAULT_GPU.power_limit_mw,
        reference_bandwidth_bytes=DEFAULT_GPU.sheet.bandwidth_bytes,
        half_width=of(width),
        active_params_domain=_domain([one.active_params for one in servings]),
        weight_bytes_domain=_domain([one.weight_bytes for one in servings]),
        gpus_domain=_domain([one.gpus for one in servings]),
    )


def _domain(values: Sequence[int]) -> tuple[int, int]:
    return min(values), max(values)

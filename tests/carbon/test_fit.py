"""The fit of the modelled path, and its estimates of a benchmark's rows."""

import csv
import io
import json
import math
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from metering.carbon.benchmark import PROMPT_TOKENS, estimate_row, read_rows
from metering.carbon.fitted import shipped, shipped_fit
from metering.carbon.fitting import FORMS, error, fit_rows, quality_of, residuals, table_of, vendors_of
from metering.cli import main
from metering.errors import BadRequest, TooLarge, Unprocessable

ROWS = Path(__file__).parents[3] / "shared" / "data" / "mlenergy_h100_b200.csv"
MEASURED = ("avg_power_w", "throughput_tok_s", "median_itl_ms", "energy_per_output_token_j", "energy_per_request_j")
A_ROW = {
    "task": "gpqa", "model_id": "acme/one", "architecture": "Dense Transformer", "total_params_b": "14.0",
    "active_params_b": "14.0", "weight_precision": "bfloat16", "gpu": "H100", "n_gpus": "1", "max_num_seqs": "64",
    "avg_batch_size": "59.5", "avg_power_w": "600", "throughput_tok_s": "2000", "median_itl_ms": "28",
    "avg_output_tokens": "7000.2", "energy_per_output_token_j": "0.28", "energy_per_request_j": "1960",
}  # fmt: skip

with_rows = pytest.mark.skipif(not ROWS.exists(), reason="the measured rows are not part of the repository")


def written(*rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def estimated(**changes):
    return estimate_row(read_rows(written(A_ROW | changes))[0], shipped_fit())


def run(*arguments, content=None):
    return CliRunner().invoke(main, ["carbon", *arguments], input=content)


@pytest.fixture(scope="module")
def table():
    return table_of(read_rows(ROWS.read_bytes(), measured=True))


# With the measured rows


@with_rows
def test_fitting_again_finds_what_is_shipped(table):
    result = fit_rows(table)
    numbers = msgspec.to_builtins(result)
    for name, value in numbers.pop("fit").items():
        if isinstance(value, str):
            assert float(shipped()["fit"][name]) == pytest.approx(float(value), abs=2e-4)  # of four digits
    assert float(shipped_fit().gpu_models["B200"]) == pytest.approx(float(result.fit.gpu_models["B200"]), abs=2e-4)
    assert shipped_fit().active_params_domain == result.fit.active_params_domain
    for name, told in numbers.pop("vendors").items():
        assert shipped()["vendors"][name] == pytest.approx(told, rel=5e-3)
    for name, value in (numbers.pop("quality") | numbers).items():
        assert (shipped()["quality"] | shipped())[name] == pytest.approx(value, rel=5e-3)


@with_rows
def test_one_maker_left_out_is_estimated_within_the_error_that_was_asked_for(table):
    vendors = vendors_of(table)
    left_out = residuals(table, FORMS[0], vendors)
    assert error(left_out) <= 1.30
    assert max(error(left_out[vendors == name]) for name in set(vendors.tolist())) <= 1.35


@with_rows
def test_nine_of_ten_rows_left_out_are_inside_their_intervals(table):
    result = fit_rows(table)
    assert 0.85 <= result.coverage <= 0.95
    assert 0.85 <= result.nested_coverage <= 0.95


@with_rows
def test_no_other_form_is_nearer_to_makers_that_are_left_out(table):
    chosen, *others = (quality_of(table, form).left_out_vendor for form in FORMS)
    assert chosen <= min(others)


@with_rows
def test_shipped_estimates_are_nearer_than_those_of_ecologits():
    from ecologits.impacts.llm import BATCH_SIZE, compute_llm_impacts_dag

    rows = [row for row in read_rows(ROWS.read_bytes(), measured=True) if row.measured_j is not None]
    ours, theirs = [], []
    for row in rows:
        serving, estimate = row.serving, estimate_row(row, shipped_fit())
        assert serving is not None
        assert estimate is not None
        dag = compute_llm_impacts_dag(
            model_active_parameter_count=serving.active_params / 1e9,
            model_total_parameter_count=serving.total_params / 1e9,
            output_token_count=1_000, request_latency=math.inf, if_electricity_mix_adpe=0, if_electricity_mix_pe=0,
            if_electricity_mix_gwp=0, if_electricity_mix_wue=0, datacenter_pue=1, datacenter_wue=0,
        )  # fmt: skip
        their_j = 3_600_000 * dag["gpu_energy"] * dag["gpu_required_count"] / 1_000
        ours.append(abs(math.log(float(estimate.energy_per_output_token_j / row.measured_j))))
        theirs.append(abs(math.log(their_j / float(row.measured_j))))
    assert BATCH_SIZE == 64
    assert math.exp(sum(theirs) / len(theirs)) == pytest.approx(2.34, abs=0.01)
    assert math.exp(sum(ours) / len(ours)) < 1.25


# Without them


def test_what_is_shipped_says_where_it_comes_from_and_how_good_it_is():
    told = shipped()
    assert "ML.ENERGY" in told["source"]
    assert told["rows"] == 580
    assert told["quality"]["left_out_vendor"] < 1.45
    assert 0.85 <= told["coverage"] <= 0.95


def test_what_was_measured_is_not_read():
    spoilt = dict.fromkeys(MEASURED, "NaN, never")
    assert estimated(**spoilt) == estimated()
    without = {name: value for name, value in A_ROW.items() if name not in MEASURED}
    assert estimate_row(read_rows(written(without))[0], shipped_fit()) == estimated()


def test_an_estimate_is_inside_its_interval_and_has_a_prompt_in_it():
    short, long = estimated(task="lm-arena-chat"), estimated(task="video-chat")
    assert short.lower_j < short.energy_per_output_token_j < short.upper_j
    assert long.energy_per_output_token_j > short.energy_per_output_token_j
    assert set(PROMPT_TOKENS) >= {"lm-arena-chat", "video-chat"}


@pytest.mark.parametrize(
    "changes",
    [
        {"gpu": "Zeta 9000"}, {"gpu": ""}, {"weight_precision": "fp3.14"}, {"weight_precision": ""}, {"task": "other"},
        {"total_params_b": "2000", "active_params_b": "50", "architecture": "MoE"}, {"n_gpus": ""}, {"task": ""},
        {"avg_output_tokens": ""}, {"active_params_b": ""}, {"avg_batch_size": "0.5"}, {"total_params_b": "1e9"},
        {"avg_batch_size": ""},
    ],
)  # fmt: skip
def test_a_row_that_says_less_or_something_new_is_estimated(changes):
    estimate = estimated(**changes)
    assert 0 < estimate.lower_j < estimate.energy_per_output_token_j < estimate.upper_j


@pytest.mark.parametrize(
    "changes",
    [
        {"total_params_b": ""},
        {"active_params_b": "", "architecture": "MoE"},
        {"avg_batch_size": "", "max_num_seqs": ""},
    ],
)
def test_a_row_that_does_not_say_enough_is_unknown_and_not_zero(changes):
    assert estimated(**changes) is None


def test_the_command_answers_in_the_order_of_the_rows_with_null_for_what_is_unknown():
    content = written(
        A_ROW | {"avg_batch_size": "8"}, A_ROW | {"total_params_b": ""}, A_ROW | {"avg_batch_size": "512"}
    )
    done = run("estimate", "--csv", "-", "--format", "json", content=content)
    assert done.exit_code == 0, done.output
    few, unknown, many = json.loads(done.output)
    names = ["energy_per_output_token_j", "lower_j", "upper_j"]
    assert [list(one) for one in (few, unknown, many)] == [names] * 3
    assert list(unknown.values()) == [None] * 3
    assert few["energy_per_output_token_j"] > many["energy_per_output_token_j"] > 0


def test_the_command_prints_a_table_for_people_and_csv():
    table = run("estimate", "--csv", "-", content=written(A_ROW))
    assert "energy_per_output_token_j" in table.output
    assert "acme/one" in table.output
    lines = list(
        csv.DictReader(io.StringIO(run("estimate", "--csv", "-", "--format", "csv", content=written(A_ROW)).output))
    )
    assert float(lines[0]["lower_j"]) < float(lines[0]["upper_j"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("avg_batch_size", "many"), ("avg_batch_size", "0"), ("avg_batch_size", "nan"), ("avg_batch_size", "1e99"),
        ("total_params_b", "-8"), ("total_params_b", "inf"), ("active_params_b", "15"), ("n_gpus", "1.5"),
        ("n_gpus", "0"), ("avg_output_tokens", "=1+1"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_with_its_row_and_column(column, value):
    with pytest.raises(Unprocessable) as refused:
        read_rows(written(A_ROW, A_ROW | {column: value}))
    assert refused.value.field == column
    assert "Row 2" in refused.value.detail
    assert value not in refused.value.detail


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "missing_column"),
        (b"a,b\n1,2\n", "missing_column"),
        (b"total_params_b\n8\n", "missing_column"),
        (b"total_params_b,avg_batch_size,avg_batch_size\n8,8,8\n", "repeated_column"),
        (b"\xff\xfe\x00", "invalid_csv"),
        (b'total_params_b,avg_batch_size\n"8,8\n', "invalid_csv"),
        (b"total_params_b,avg_batch_size\n8,\x008\n", "invalid_value"),
        (b"total_params_b,avg_batch_size\n8\n", "invalid_row"),
        (b"total_params_b,avg_batch_size\n8,8,8\n", "invalid_row"),
        (b"total_params_b,avg_batch_size\n" + b"9" * 200_000 + b",8\n", "invalid_csv"),
    ],
)
def test_a_file_that_is_no_such_file_is_refused(content, code):
    with pytest.raises((BadRequest, Unprocessable)) as refused:
        read_rows(content)
    assert refused.value.code == code


def test_a_file_without_end_is_refused(monkeypatch):
    monkeypatch.setattr("metering.carbon.benchmark.ROWS_MAX", 1)
    with pytest.raises(TooLarge):
        read_rows(written(A_ROW, A_ROW))


def test_a_refused_file_ends_the_command_with_a_sentence():
    done = run("estimate", "--csv", "-", content=written(A_ROW | {"n_gpus": "two"}))
    assert done.exit_code == 1
    assert "Row 1" in done.output
    assert "n_gpus" in done.output
    assert "two" not in done.output


def test_a_file_with_a_mark_of_its_order_of_bytes_and_no_rows_is_read():
    assert read_rows(b"\xef\xbb\xbftotal_params_b,max_num_seqs\n") == []


def test_too_few_rows_are_not_fitted():
    with pytest.raises(Unprocessable):
        table_of(read_rows(written(*[A_ROW] * 60), measured=True))

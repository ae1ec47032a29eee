"""The benchmarks run, and measure what they say; how fast is not a test's business."""

from tests.bench.__main__ import run, table


def test_the_benchmarks_run_small() -> None:
    lines = run(20_000, small=True)
    assert len(lines) == 15
    assert all(line.figure > 0 and line.limit_figure > 0 and line.ratio > 0 for line in lines)
    assert table(lines).count("\n") == len(lines) + 3

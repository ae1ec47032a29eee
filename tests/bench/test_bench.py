"""The benchmarks run, and measure what they say; how fast is not a test's business."""

import pytest

from tests.bench.__main__ import run, table


@pytest.mark.timeout(900)  # dozens of servers start and stop
def test_the_benchmarks_run_small() -> None:
    lines = run(20_000, small=True)
    assert len(lines) == 57
    measured = [line for line in lines if not line.work.startswith("first token later")]  # differences, of few turns
    assert len(measured) == len(lines) - 2
    assert all(line.figure > 0 and line.limit_figure > 0 and line.ratio > 0 for line in measured)
    assert table(lines).count("\n") == len(lines) + 3

"""Ranking, stacking, ticks and the specification of charts: exact, and blind to nothing that is unknown."""

import itertools
import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.rules.periods import PARIS, bucket_starts, day_bounds
from reports.figures import (
    BUCKETS_DRAWN_MAX,
    NARROW,
    SERIES_MAX,
    TOTAL_TOKENS,
    WIDE,
    Bars,
    bar_totals,
    bars,
    bars_spec,
    bucket_ticks,
    drawn_bucket,
    named_and_rest,
    quantity_of,
    rank,
    sum_of,
    value_ticks,
)
from reports.usage import UsageRow
from tests.pages.samples import row

START = day_bounds(date(2026, 9, 1))[0]
DAYS = bucket_starts(START, day_bounds(date(2026, 9, 30))[1], "day", PARIS)


def chart_of(rows: list[UsageRow], quantity: str = "requests", starts: list[datetime] = DAYS) -> Bars:
    return bars(
        rows,
        rank(rows, "model", quantity),
        group_by="model",
        quantity=quantity,
        starts=starts,
        bucket="day",
        zone=PARIS,
        describe=lambda bucket, series, value: f"{bucket}/{series}/{value}",
    )


def test_total_tokens_are_known_when_one_side_is() -> None:
    assert quantity_of(row(START, input_tokens=3, output_tokens=4), TOTAL_TOKENS) == 7
    assert quantity_of(row(START, input_tokens=3), TOTAL_TOKENS) == 3
    assert quantity_of(row(START), TOTAL_TOKENS) is None


def test_unknown_adds_nothing_and_stays_unknown_alone() -> None:
    assert sum_of([row(START, pages=2), row(START)], "pages") == 2
    assert sum_of([row(START)], "pages") is None
    assert sum_of([row(START, pages=0)], "pages") == 0


def test_the_ranking_puts_the_unknown_last_and_breaks_ties_by_name() -> None:
    rows = [
        row(START, {"model": "silent"}),
        row(START, {"model": "zero"}, pages=0),
        row(START, {"model": None}, pages=5),
        row(START, {"model": "b"}, pages=5),
        row(START, {"model": "a"}, pages=2, uncounted_requests=1),
        row(START, {"model": "a"}, pages=3),
    ]
    ranked = rank(rows, "model", "pages")
    assert [(it.name, it.total) for it in ranked] == [("a", 5), ("b", 5), (None, 5), ("zero", 0), ("silent", None)]
    assert ranked[0].uncounted == 1


def test_at_most_eight_series_and_the_rest() -> None:
    rows = [row(START, {"model": f"m{index:02d}"}, requests=100 - index) for index in range(12)]
    chart = chart_of(rows)
    assert (chart.series_count, chart.has_others) == (SERIES_MAX, True)
    rest = [segment for segment in chart.segments if segment.series == SERIES_MAX]
    assert [segment.value for segment in rest] == [92 + 91 + 90 + 89]
    assert rest[0].description == f"0/None/{92 + 91 + 90 + 89}"
    named, others = named_and_rest(rank(rows, "model", "requests"))
    assert (len(named), len(others)) == (8, 4)


@given(
    st.lists(
        st.tuples(st.integers(0, 29), st.integers(0, 14), st.none() | st.integers(0, 10**12)), min_size=1, max_size=60
    )
)
def test_bars_add_up_to_the_rows(cells: list[tuple[int, int, int | None]]) -> None:
    rows = [row(DAYS[day], {"model": f"m{model}"}, pages=value) for day, model, value in cells]
    chart = chart_of(rows, "pages")
    assert sum(bar_totals(chart).values()) == sum(value or 0 for _day, _model, value in cells)
    assert all(segment.value for segment in chart.segments)


def test_finer_rows_are_added_up_into_the_bars_drawn() -> None:
    night = day_bounds(date(2026, 10, 25))  # 25 hours long
    hours = bucket_starts(*night, "hour", PARIS)
    rows = [row(hour, {"model": "a"}, requests=1) for hour in hours]
    chart = chart_of(rows, starts=[night[0]])
    assert [segment.value for segment in chart.segments] == [25]


def test_bars_that_may_be_incomplete_are_flagged_except_for_requests() -> None:
    rows = [row(DAYS[3], {"model": "a"}, requests=4, input_tokens=9, uncounted_requests=2)]
    assert chart_of(rows, "input_tokens").flagged == (3,)
    assert chart_of(rows, "requests").flagged == ()


def test_a_bucket_too_fine_to_see_is_drawn_coarser() -> None:
    assert drawn_bucket(START, START + timedelta(hours=BUCKETS_DRAWN_MAX), "hour", PARIS) == "hour"
    assert drawn_bucket(START, START + timedelta(days=90), "hour", PARIS) == "day"
    assert drawn_bucket(START, START + timedelta(days=1_000), "day", PARIS) == "month"


@given(st.integers(0, 10**18), st.booleans())
def test_value_ticks_are_few_even_and_reach_the_top(top: int, is_duration: bool) -> None:
    ticks = value_ticks(top, 5, is_duration=is_duration)
    steps = {after - before for before, after in itertools.pairwise(ticks)}
    assert ticks[0] == 0
    assert ticks[-1] >= max(top, 1)
    assert 2 <= len(ticks) <= 6
    assert len(steps) == 1


def test_value_ticks_of_durations_are_round_hours_and_minutes() -> None:
    assert value_ticks(11_000_000, 5, is_duration=True) == [0, 3_600_000, 7_200_000, 10_800_000, 14_400_000]
    assert value_ticks(100_000, 5, is_duration=True) == [0, 30_000, 60_000, 90_000, 120_000]


@pytest.mark.parametrize(
    ("first", "last", "bucket", "expected"),
    [
        (date(2026, 9, 1), date(2026, 9, 30), "day", ["7 sept.", "14 sept.", "21 sept.", "28 sept."]),
        (date(2026, 9, 1), date(2026, 9, 1), "hour", ["1er sept.", "6 h", "12 h", "18 h"]),
        (date(2026, 1, 1), date(2026, 12, 31), "month", ["janv. 2026", "avr. 2026", "juil. 2026", "oct. 2026"]),
        (date(2026, 9, 1), date(2026, 9, 3), "day", ["1er sept.", "2 sept.", "3 sept."]),
    ],
)
def test_bucket_ticks_keep_civil_rhythms(first: date, last: date, bucket: str, expected: list[str]) -> None:
    starts = bucket_starts(day_bounds(first)[0], day_bounds(last)[1], bucket, PARIS)  # type: ignore[arg-type]
    labels = bucket_ticks(starts, bucket, PARIS, "fr", NARROW.bucket_ticks_max)  # type: ignore[arg-type]
    assert [label.replace("\u00a0", " ") for label in labels.values()] == expected


def test_ticks_stay_at_midnight_through_a_change_of_the_clock() -> None:
    starts = bucket_starts(
        datetime(2026, 10, 23, 22, tzinfo=UTC), datetime(2026, 10, 26, 23, tzinfo=UTC), "hour", PARIS
    )
    labels = bucket_ticks(starts, "hour", PARIS, "en", 4)
    assert [label.replace("\u00a0", " ") for label in labels.values()] == ["24 Oct", "25 Oct", "26 Oct"]
    assert [starts[index].astimezone(PARIS).hour for index in labels] == [0, 0, 0]


def test_the_specification_is_plain_data_and_names_no_address_but_its_schema() -> None:
    rows = [row(day, {"model": "a"}, requests=10, input_tokens=5, uncounted_requests=1) for day in DAYS]
    spec = bars_spec(chart_of(rows, "input_tokens"), "fr", WIDE)
    text = json.dumps(spec)
    assert text.count("://") == 1
    assert "url" not in spec.get("data", {})
    assert len(spec["layer"]) == 2
    assert [len(layer["data"]["values"]) for layer in spec["layer"]] == [30, 30]


def test_a_chart_of_nothing_has_axes_still() -> None:
    spec = bars_spec(chart_of([row(START, {"model": "a"})], "pages"), "fr", WIDE)
    assert spec["layer"][0]["data"]["values"] == []
    assert spec["layer"][0]["encoding"]["y"]["scale"]["domain"] == [0, 1]


def test_only_a_chart_that_can_be_hovered_over_carries_descriptions() -> None:
    chart = chart_of([row(START, {"model": "a"}, requests=3)])
    wide, narrow = (bars_spec(chart, "fr", layout)["layer"][0] for layout in (WIDE, NARROW))
    assert wide["data"]["values"][0]["description"] == "0/0/3"
    assert "description" not in narrow["data"]["values"][0]
    assert "description" not in narrow["encoding"]

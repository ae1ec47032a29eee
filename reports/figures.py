"""What a chart shows: ranking, stacking, axis ticks, and the Vega-Lite specification, as plain data.

Pure. Values stay integers in their base unit up to the drawing, and unknown (None) is never drawn as 0: an unknown
value has no bar. Labels are made here, in the reader's language and zone, so that the drawing knows neither.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from metering.rules.periods import Bucket, bucket_start, bucket_starts
from metering.rules.quantities import add
from reports import wording
from reports.usage import UsageRow
from reports.wording import DURATIONS, MASSES, Language

SERIES_MAX = 8
"""Groups drawn by name; the rest together are one more series."""

BUCKETS_DRAWN_MAX = 400
"""Bars in one chart: beyond it they are thinner than two pixels on a wide screen, and a coarser bucket is drawn."""

TOTAL_TOKENS = "total_tokens"
"""Input plus output tokens; cached and reasoning tokens are parts of these."""

_DURATION_STEPS_MS = tuple(
    unit_ms * count
    for unit_ms, counts in (
        (1, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
        (1_000, (1, 2, 5, 10, 15, 30)),
        (60_000, (1, 2, 5, 10, 15, 30)),
        (3_600_000, (1, 2, 5, 10, 20, 50)),
    )
    for count in counts
)


@dataclass(frozen=True, slots=True)
class Standing:
    """What one group of the period adds up to. `name` None: the events don't state it."""

    name: str | None
    total: int | None
    uncounted: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a bar: bucket and series by index, value in the quantity's base unit, what hovering it says."""

    bucket: int
    series: int
    value: int
    description: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Size of a chart in pixels, how many labels its axes have room for, and whether its readers can hover over it."""

    width_px: int
    height_px: int
    bucket_ticks_max: int
    value_ticks_max: int
    font_px: int
    has_hover: bool


WIDE = Layout(width_px=1040, height_px=320, bucket_ticks_max=16, value_ticks_max=5, font_px=13, has_hover=True)
NARROW = Layout(width_px=360, height_px=280, bucket_ticks_max=5, value_ticks_max=5, font_px=12, has_hover=False)


@dataclass(frozen=True, slots=True)
class Palette:
    """Paints of a chart, as SVG understands them; one fill for each of the eight series and one for the rest."""

    ink: str
    grid: str
    surface: str
    fills: tuple[str, ...]
    others: str


PAGE_PALETTE = Palette(
    # The page's style sheet decides, so that one drawing serves the light and the dark theme.
    ink="currentColor",
    grid="var(--grid)",
    surface="var(--surface)",
    fills=tuple(f"url(#fill-{index})" for index in range(1, SERIES_MAX + 1)),
    others="url(#fill-others)",
)


@dataclass(frozen=True, slots=True)
class Bars:
    """A stacked bar chart, before any drawing.

    starts: start of every bucket, in UTC, empty ones included; flagged: indices of the buckets whose bars may be
    incomplete; series_count: named series, the rest being one more when has_others.
    """

    starts: tuple[datetime, ...]
    bucket: Bucket
    zone: ZoneInfo
    quantity: str
    segments: tuple[Segment, ...]
    flagged: tuple[int, ...]
    series_count: int
    has_others: bool


def quantity_of(row: UsageRow, quantity: str) -> int | None:
    """Value of a row, None when unknown. Total tokens are known as soon as one side is: embeddings have no output."""
    if quantity == TOTAL_TOKENS:
        return add(row.quantities["input_tokens"], row.quantities["output_tokens"])
    return row.quantities[quantity]


def sum_of(rows: Sequence[UsageRow], quantity: str) -> int | None:
    """Sum of what is known; None when nothing is."""
    total: int | None = None
    for row in rows:
        total = add(total, quantity_of(row, quantity))
    return total


def rank(rows: Sequence[UsageRow], group_by: str | None, quantity: str) -> list[Standing]:
    """Groups by falling total, then by name; groups of unknown total come last."""
    members: defaultdict[str | None, list[UsageRow]] = defaultdict(list)
    for row in rows:
        members[row.group[group_by] if group_by else None].append(row)
    standings = [
        Standing(name, sum_of(group, quantity), sum_of(group, "uncounted_requests") or 0)
        for name, group in members.items()
    ]
    return sorted(standings, key=lambda it: (it.total is None, -(it.total or 0), it.name is None, it.name or ""))


def named_and_rest(standings: Sequence[Standing]) -> tuple[list[Standing], list[Standing]]:
    """The series drawn by name and those drawn together. A rest of one is still a rest: eight colours are all."""
    return list(standings[:SERIES_MAX]), list(standings[SERIES_MAX:])


def drawn_bucket(start: datetime, end: datetime, bucket: Bucket, zone: ZoneInfo) -> Bucket:
    """The bucket asked for, or the next coarser one that gives a legible number of bars."""
    coarser: tuple[Bucket, ...] = ("hour", "day", "month")
    for candidate in coarser[coarser.index(bucket) :]:
        if len(bucket_starts(start, end, candidate, zone)) <= BUCKETS_DRAWN_MAX:
            return candidate
    return "month"


def bars(  # noqa: PLR0913 - the chart's inputs, each of another kind
    rows: Sequence[UsageRow],
    standings: Sequence[Standing],
    *,
    group_by: str | None,
    quantity: str,
    starts: Sequence[datetime],
    bucket: Bucket,
    zone: ZoneInfo,
    describe: Callable[[int, int | None, int], str],
) -> Bars:
    """Stack rows into bars.

    starts: every bucket of the period, at the bucket drawn (rows of a finer one are added up);
    describe(bucket index, series index or None for the rest, value): text of one piece.
    """
    named, rest = named_and_rest(standings)
    series_of = {standing.name: index for index, standing in enumerate(named)}
    position = {start: index for index, start in enumerate(starts)}
    values: dict[tuple[int, int], int | None] = {}
    flagged: set[int] = set()
    for row in rows:
        assert row.bucket_start is not None
        index = position[bucket_start(row.bucket_start, bucket, zone)]
        series = series_of.get(row.group[group_by] if group_by else None, len(named))
        values[index, series] = add(values.get((index, series)), quantity_of(row, quantity))
        if row.quantities["uncounted_requests"]:
            flagged.add(index)
    segments = tuple(
        Segment(index, series, value, describe(index, series if series < len(named) else None, value))
        for (index, series), value in sorted(values.items())
        if value
    )
    # Every request is counted as a request, so nothing can be missing from that bar.
    incomplete = () if quantity == "requests" else tuple(sorted(flagged))
    return Bars(tuple(starts), bucket, zone, quantity, segments, incomplete, len(named), bool(rest))


def bar_totals(chart: Bars) -> dict[int, int]:
    """Height of every bar that has one, by bucket index."""
    totals: defaultdict[int, int] = defaultdict(int)
    for segment in chart.segments:
        totals[segment.bucket] += segment.value
    return dict(totals)


def value_ticks(top: int, count_max: int, *, is_duration: bool) -> list[int]:
    """Round values from 0 to the first one at or above `top`, at most count_max + 1 of them."""
    assert top >= 0
    steps = list(_DURATION_STEPS_MS) if is_duration else []
    scale = 3_600_000 * 100 if is_duration else 1
    while not steps or steps[-1] * count_max < top:
        steps.extend(scale * count for count in (1, 2, 5))
        scale *= 10
    step = next(step for step in steps if step * count_max >= top)
    return list(range(0, -(-max(top, 1) // step) * step + 1, step))


def bucket_ticks(
    starts: Sequence[datetime], bucket: Bucket, zone: ZoneInfo, language: Language, count_max: int
) -> dict[int, str]:
    """Label of the buckets that carry one, by index: the finest round rhythm that has room.

    Rhythms are civil (midnight, Monday, the first of the month), so they hold through changes of the clock.
    """
    local = [start.astimezone(zone) for start in starts]
    for chosen in rhythms(bucket):
        ticks = [index for index, moment in enumerate(local) if chosen(moment)]
        if 0 < len(ticks) <= count_max:
            break
    else:
        stride = -(-len(local) // count_max)
        ticks = list(range(0, len(local), stride))
    return {index: tick_label(local[index], bucket, language, is_first=index == ticks[0]) for index in ticks}


def rhythms(bucket: Bucket) -> list[Callable[[datetime], bool]]:
    """From the finest to the coarsest, which local bucket starts carry a label."""
    hours: list[Callable[[datetime], bool]] = [
        lambda _: True,
        lambda t: t.hour % 2 == 0,
        lambda t: t.hour % 3 == 0,
        lambda t: t.hour % 6 == 0,
        lambda t: t.hour % 12 == 0,
    ]
    days: list[Callable[[datetime], bool]] = [
        lambda t: t.hour == 0,
        lambda t: t.hour == 0 and t.toordinal() % 2 == 0,
        lambda t: t.hour == 0 and t.weekday() == 0,
        lambda t: t.hour == 0 and t.day in {1, 15},
    ]
    months: list[Callable[[datetime], bool]] = [
        lambda t: t.hour == 0 and t.day == 1,
        lambda t: t.hour == 0 and t.day == 1 and t.month % 3 == 1,
        lambda t: t.hour == 0 and t.day == 1 and t.month == 1,
    ]
    return {"hour": hours + days + months, "day": days + months, "month": months}[bucket]


def tick_label(local: datetime, bucket: Bucket, language: Language, *, is_first: bool) -> str:
    """What an axis says of a bucket that starts at a local time; among hours, the first says the day too."""
    if bucket == "month":
        return wording.month_short(local.date(), language)
    if bucket == "hour" and local.hour != 0 and not is_first:
        return wording.hour_short(local, language)
    label = wording.day_short(local.date(), language)
    if bucket == "hour" and local.hour != 0:
        return f"{label}, {wording.hour_short(local, language)}"
    return label


def bars_spec(chart: Bars, language: Language, layout: Layout, palette: Palette = PAGE_PALETTE) -> dict[str, Any]:
    """Vega-Lite 6 specification of a stacked bar chart. Holds no name but those inside the descriptions."""
    totals = bar_totals(chart)
    is_duration = chart.quantity in DURATIONS
    ticks = value_ticks(max(totals.values(), default=0), layout.value_ticks_max, is_duration=is_duration)
    labels = bucket_ticks(chart.starts, chart.bucket, chart.zone, language, layout.bucket_ticks_max)
    value_labels = {tick: value_label(tick, chart.quantity, language) for tick in ticks}
    x = {
        "field": "bucket",
        "type": "ordinal",
        "scale": {"domain": list(range(len(chart.starts))), "paddingInner": 0.18, "paddingOuter": 0.09},
        "axis": _axis(labels) | {"labelAngle": 0, "grid": False, "labelPadding": 6, "labelOverlap": "greedy"},
    }
    y = {
        "field": "value",
        "type": "quantitative",
        "scale": {"domain": [0, ticks[-1]], "nice": False},
        "axis": _axis(value_labels)
        | {"domain": False, "ticks": False, "labelPadding": 8}
        | _unit_above(chart, language),
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": layout.width_px,
        "height": layout.height_px,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": {"left": 4, "right": 12, "top": 12, "bottom": 4},
        "background": None,
        "layer": [_bar_layer(chart, layout, palette, x, y), *_flag_layers(chart, totals, palette, x, y)],
        "config": {
            "view": {"stroke": None},
            "axis": {
                "labelColor": palette.ink,
                "labelFontSize": layout.font_px,
                "titleColor": palette.ink,
                "titleFontSize": layout.font_px,
                "titleFontWeight": "normal",
                "gridColor": palette.grid,
                "domainColor": palette.ink,
                "tickColor": palette.ink,
                "tickSize": 4,
            },
        },
    }


def _bar_layer(
    chart: Bars, layout: Layout, palette: Palette, x: Mapping[str, object], y: Mapping[str, object]
) -> dict[str, Any]:
    series_count = chart.series_count + chart.has_others
    fills = [*palette.fills[: chart.series_count], *([palette.others] if chart.has_others else [])]
    mark: dict[str, Any] = {"type": "bar"}
    # A line of the page's own colour parts the pieces of a bar; on thin bars it would eat them.
    if len(chart.starts) * 8 <= layout.width_px:
        mark |= {"stroke": palette.surface, "strokeWidth": 1}
    described = {"description": {"field": "description", "type": "nominal"}} if layout.has_hover else {}
    # A chart of thousands of pieces is most of its page: nothing goes in that nobody can see.
    if not layout.has_hover:
        mark["aria"] = False
    return {
        "data": {
            "values": [
                {"bucket": it.bucket, "series": it.series, "value": it.value}
                | ({"description": it.description} if layout.has_hover else {})
                for it in chart.segments
            ]
        },
        "mark": mark,
        "encoding": {
            "x": x,
            "y": y,
            "order": {"field": "series", "type": "ordinal"},
            "fill": {
                "field": "series",
                "type": "ordinal",
                "legend": None,
                "scale": {"domain": list(range(series_count)), "range": fills},
            },
            **described,
        },
    }


def _flag_layers(
    chart: Bars, totals: Mapping[int, int], palette: Palette, x: Mapping[str, object], y: Mapping[str, object]
) -> list[dict[str, Any]]:
    if not chart.flagged:
        return []
    return [
        {
            "data": {"values": [{"bucket": index, "value": totals.get(index, 0)} for index in chart.flagged]},
            "mark": {
                "type": "point",
                "shape": "triangle-down",
                "filled": True,
                "fill": palette.ink,
                "opacity": 1,
                "size": 28,
                "yOffset": -7,
                "aria": False,
            },
            "encoding": {"x": x, "y": y},
        }
    ]


def value_label(value: int, quantity: str, language: Language) -> str:
    """What an axis says of a value in the quantity's base unit."""
    if quantity in DURATIONS:
        return wording.duration(value, language)
    return wording.axis_mass(value, language) if quantity in MASSES else wording.compact(value, language)


def _unit_above(chart: Bars, language: Language) -> dict[str, Any]:
    """The unit, level, above the value axis: a turned one is hard to read. Durations carry theirs."""
    if chart.quantity in DURATIONS:
        return {}
    title = "CO2e" if chart.quantity in MASSES else wording.QUANTITY_WORDS[chart.quantity][language][1]
    return {"title": title, "titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleX": 0, "titleY": -12}


def _axis(labels: Mapping[int, str]) -> dict[str, Any]:
    """An axis with these ticks and texts only. JSON is also valid in Vega's expression language."""
    texts = json.dumps({str(value): text for value, text in labels.items()})
    return {"values": list(labels), "labelExpr": f"{texts}[datum.value]", "title": None}

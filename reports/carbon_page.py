"""The page "Empreinte carbone": from a selection and the ledger of carbon's answer to texts and figures, ready to show.

Everything but `read_footprint` is pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from litestar.datastructures import State

from metering.database import transaction
from metering.identity import Principal, Role
from metering.rules.carbon.tiers import TIERS, Tier
from metering.rules.periods import bucket_start, bucket_starts
from metering.tables import tenant
from reports import wording
from reports.carbon import (
    CarbonRow,
    FactorSource,
    carbon_bounds,
    describe_factors,
    factors_used,
    last_carbon_batch,
    methods_used,
    per_unit,
    posted_until,
    read_carbon,
)
from reports.carbon_words import emissions_of, energy_of, measured, said_factor
from reports.choosing import capital, group_label, paged, presets, row_count, selects
from reports.figures import Bars, Segment, bar_totals, drawn_bucket
from reports.selection import DEFAULT_DAYS, FILTERS, ZONE, Selection
from reports.shown import (
    CarbonPage,
    DataTable,
    Empty,
    FactorRow,
    Figure,
    FootprintRow,
    FootprintTable,
    Headline,
    LegendEntry,
    Link,
    Measured,
    Method,
    QualityRow,
    TableRow,
)
from reports.usage import UsageQuestion, for_reader, known_values
from reports.wording import FIXED, Language, say

GROUPS_MAX = 100
SERIES = ("use", "manufacture")
"""What bars are made of, from below: emissions of use by the grid, and of making the machines."""
SERIES_SUMS = ("location_ng", "embodied_ng")
CARBON = "carbon_ng"


@dataclass(frozen=True, slots=True)
class GroupFootprint:
    """A group of the period, and its emissions for 1,000 tokens; None where that isn't known or makes no sense."""

    row: CarbonRow
    per_1000_tokens_ng: int | None


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the ledger of carbon answered.

    rows: by bucket; groups: of the whole period; whole: all of it, None while nothing is known. waiting, unallocated:
    what is nobody's, for operators. batch: the newest. bounds: where nothing is known, first and last hour outside the
    period of which something is. role: the reader's; administration: the name of theirs, None for the platform's staff.
    """

    rows: Sequence[CarbonRow]
    groups: Sequence[GroupFootprint]
    whole: CarbonRow | None
    waiting: CarbonRow | None
    unallocated: CarbonRow | None
    methods: Sequence[str]
    factors: Sequence[FactorSource]
    known_until: datetime | None
    batch: int
    bounds: tuple[datetime, datetime] | None
    choices: Mapping[str, Sequence[str]]
    role: Role = "operator"
    administration: str | None = None


ReadFootprint = Callable[[State, UsageQuestion, Principal], Footprint]


def read_footprint(state: State, asked: UsageQuestion, reader: Principal) -> Footprint:
    """Read everything the page shows, as far as the reader may, from one state of the ledger. Raises: JaugeError."""
    question = for_reader(asked, reader)
    grouped, summed = replace(question, bucket=None), replace(question, bucket=None, group_by=())
    platform = replace(summed, filters={name: one for name, one in summed.filters.items() if name == "model"})
    of_platform = reader.role == "operator"
    with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
        groups = read_carbon(connection, grouped) if question.group_by else []
        units = per_unit(connection, grouped, groups)
        whole = _first(read_carbon(connection, summed))
        numbers = factors_used(connection, summed)
        known = Footprint(
            rows=read_carbon(connection, replace(question, group_by=())),
            groups=[GroupFootprint(row, unit["per_1000_tokens_ng"]) for row, unit in zip(groups, units, strict=True)],
            whole=whole,
            waiting=_first(read_carbon(connection, platform, part="idle")) if of_platform else None,
            unallocated=_first(read_carbon(connection, platform, part="unallocated")) if of_platform else None,
            methods=methods_used(connection, summed),
            factors=(),
            known_until=posted_until(connection),
            batch=last_carbon_batch(connection),
            # Only an empty page leads elsewhere.
            bounds=carbon_bounds(connection, summed) if whole is None else None,
            choices={name: known_values(connection, name, reader) for name in FILTERS},
            role=reader.role,
            administration=connection.scalar(sa.select(tenant.c.name).where(tenant.c.id == reader.tenant)),
        )
    # Where factors come from is the platform's to say; which of them count was read as the reader.
    with transaction(state.engine) as connection:
        return replace(known, factors=describe_factors(connection, numbers))


def _first(rows: Sequence[CarbonRow]) -> CarbonRow | None:
    return rows[0] if rows else None


def build_carbon_page(selection: Selection, footprint: Footprint, *, today: date) -> CarbonPage:
    """The page for a selection and what the ledger of carbon answered. Pure."""
    language = selection.language
    page = CarbonPage(
        selection=selection,
        title=_title(footprint, language),
        period=wording.period(selection.first, selection.last, language),
        as_of=_as_of(selection, footprint),
        selects=selects(selection, footprint.choices),
        presets=presets(selection, today),
    )
    if footprint.whole is None:
        return replace(page, empty=_empty(selection, footprint, page.period))
    return replace(
        page,
        headlines=_headlines(footprint.whole, language),
        figure=_figure(selection, footprint, footprint.whole, page.period),
        quality=_quality(footprint.whole, language),
        groups=_groups(selection, footprint.groups) if selection.group_by else None,
        platform=_platform(footprint, language),
        table=_table(selection, footprint.rows, page.period),
        method=_method(selection, footprint.methods, footprint.factors),
    )


def _title(footprint: Footprint, language: Language) -> str:
    if footprint.role == "member":
        return say(language, "carbon.own")
    if footprint.administration is not None:
        return say(language, "carbon.of", administration=footprint.administration)
    return say(language, "carbon")


def _as_of(selection: Selection, footprint: Footprint) -> str:
    language = selection.language
    if selection.as_of is not None:
        return say(language, "carbon.known_until_asked", batch=wording.number(selection.as_of, language))
    if footprint.known_until is None:
        return say(language, "carbon.known_nothing")
    when = wording.moment(footprint.known_until, ZONE, language)
    return say(language, "carbon.known_until", when=when, batch=wording.number(footprint.batch, language))


def _empty(selection: Selection, footprint: Footprint, period: str) -> Empty:
    language = selection.language
    if footprint.known_until is None:
        return Empty(say(language, "carbon.empty.nothing"), (), is_new=False)
    links: list[Link] = []
    if selection.filters:
        links.append(Link(say(language, "empty.unfilter"), selection.url(filters={})))
    if footprint.bounds is not None:
        last = footprint.bounds[1].astimezone(ZONE).date()
        first = max(footprint.bounds[0].astimezone(ZONE).date(), last - timedelta(days=DEFAULT_DAYS - 1))
        said = wording.in_sentence(wording.period(first, last, language))
        label = say(language, "carbon.empty.latest", period=said)
        links.append(Link(label, selection.url(first=first, last=last, as_of=None)))
    key = "carbon.empty.filters" if selection.filters else "carbon.empty.period"
    return Empty(say(language, key, period=wording.in_sentence(period)), tuple(links), is_new=False)


def _headlines(whole: CarbonRow, language: Language) -> tuple[Headline, ...]:
    names = {"carbon.total": "total", "carbon.use": "location", "carbon.manufacture": "embodied"}
    emitted = {name: emissions_of(whole.figures, name, language, wording.mass) for name in (*names.values(), "market")}
    market = emitted["market"]
    return (
        *(
            _headline(key, emissions_of(whole.figures, name, language, wording.mass), language)
            for key, name in names.items()
        ),
        _headline("carbon.energy", energy_of(whole.figures, language), language),
        _headline(
            "carbon.market", market, language, say(language, "carbon.market.why") if market.value is None else ""
        ),
        _unmeasured_headline(whole, language),
    )


def _headline(key: str, value: Measured, language: Language, note: str = "") -> Headline:
    if value.value is None:
        return Headline(say(language, key), None, note=note)
    amount, _, unit = value.value.partition(FIXED)
    return Headline(say(language, key), amount, unit, note or value.between)


def _unmeasured_headline(whole: CarbonRow, language: Language) -> Headline:
    count, requests = whole.requests_unknown, whole.sums["requests"] or 0
    note = say(language, "carbon.unmeasured.none")
    if count and requests > 0:
        note = say(language, "carbon.unmeasured.why", share=wording.share(count, requests, language))
    unit = wording.unit(count, "requests", language)
    return Headline(say(language, "carbon.unmeasured_requests"), wording.number(count, language), unit, note)


# The chart


def _figure(selection: Selection, footprint: Footprint, whole: CarbonRow, period: str) -> Figure:
    language = selection.language
    chart = _chart(selection, footprint.rows)
    labels = [wording.bucket_label(start, chart.bucket, ZONE, language) for start in chart.starts]
    title = say(language, "carbon.chart.title", bucket=say(language, f"bucket.{chart.bucket}"))
    has_flags = chart.flagged and chart.segments
    return Figure(
        title=title,
        label=say(language, "chart.label", title=wording.in_sentence(title), period=wording.in_sentence(period)),
        finding=_finding(whole, chart, labels, language),
        notes=(say(language, "carbon.chart.flagged"),) if has_flags else (),
        chart=chart if chart.segments else None,
        legend=tuple(
            LegendEntry(say(language, f"carbon.series.{name}"), str(number)) for number, name in enumerate(SERIES, 1)
        ),
    )


def _chart(selection: Selection, rows: Sequence[CarbonRow]) -> Bars:
    """Bars of use and manufacture; those of buckets with a request that isn't measured are flagged."""
    language = selection.language
    drawn = drawn_bucket(selection.start, selection.end, selection.bucket, ZONE)
    starts = bucket_starts(selection.start, selection.end, drawn, ZONE)
    position = {start: index for index, start in enumerate(starts)}
    values: dict[tuple[int, int], int] = {}
    flagged: set[int] = set()
    for row in rows:
        assert row.bucket_start is not None
        index = position[bucket_start(row.bucket_start, drawn, ZONE)]
        for series, name in enumerate(SERIES_SUMS):
            values[index, series] = values.get((index, series), 0) + (row.sums[name] or 0)
        if row.requests_unknown:
            flagged.add(index)

    def describe(index: int, series: int, value: int) -> str:
        when = wording.bucket_label(starts[index], drawn, ZONE, language)
        return f"{when} · {say(language, f'carbon.series.{SERIES[series]}')} · {wording.mass(value, language)}"

    segments = tuple(
        Segment(index, series, value, describe(index, series, value))
        for (index, series), value in sorted(values.items())
        if value
    )
    return Bars(tuple(starts), drawn, ZONE, CARBON, segments, tuple(sorted(flagged)), len(SERIES), has_others=False)


def _finding(whole: CarbonRow, chart: Bars, labels: Sequence[str], language: Language) -> str:
    """One sentence that says what the chart shows: total, range and part of manufacture, and the highest bar."""
    use, made = whole.sums["location_ng"], whole.sums["embodied_ng"]
    total = emissions_of(whole.figures, "total", language, wording.mass)
    if total.value is not None and made is not None and (whole.total_ng[0] or 0) > 0:
        part = wording.share(made, whole.total_ng[0] or 0, language)
        sentence = say(language, "carbon.finding", total=total.value, range=total.between, share=part)
    elif use is not None:
        sentence = say(language, "carbon.finding.use", total=wording.mass(use, language))
    elif made is not None:
        sentence = say(language, "carbon.finding.manufacture", total=wording.mass(made, language))
    else:
        sentence = say(language, "carbon.finding.unknown")
    heights = bar_totals(chart)
    if len(labels) < 2 or not heights:
        return say(language, "finding.flat", sentence=sentence)
    peak = max(heights, key=lambda index: (heights[index], -index))
    when = say(language, f"when.{chart.bucket}", label=labels[peak])
    return say(language, "finding.peak", sentence=sentence, when=when, amount=wording.mass(heights[peak], language))


# Tables


def _quality(whole: CarbonRow, language: Language) -> tuple[QualityRow, ...]:
    """What each quality of data makes of the energy, best first; requests that aren't measured come last."""
    energy_uj = sum(whole.tiers.values())
    rows = []
    for tier in TIERS:
        amount = whole.tiers.get(tier)
        if tier != "U" and amount:
            rows.append(_quality_row(tier, wording.energy(amount, language), amount, energy_uj, language))
    requests = whole.sums["requests"] or 0
    if whole.requests_unknown and requests > 0:
        share = wording.share(whole.requests_unknown, requests, language)
        count = wording.number(whole.requests_unknown, language)
        said = say(language, "carbon.tier.requests", count=count, share=share)
        rows.append(QualityRow(say(language, "carbon.tier.U"), said, None, 0))
    return tuple(rows)


def _quality_row(tier: Tier, said: str, amount: int, whole: int, language: Language) -> QualityRow:
    share = wording.share(amount, whole, language)
    return QualityRow(say(language, f"carbon.tier.{tier}"), said, share, max(0, min(100, 100 * amount // whole)))


def _groups(selection: Selection, groups: Sequence[GroupFootprint]) -> FootprintTable:
    """Groups by falling emissions; those of which none are known come last."""
    language, group = selection.language, selection.group
    assert selection.group_by is not None

    def place(one: GroupFootprint) -> tuple[bool, int, str]:
        total = one.row.total_ng[0]
        return total is None, -(total or 0), one.row.group[group] or ""

    ordered = sorted(groups, key=place)
    shown = ordered[:GROUPS_MAX]
    word = say(language, f"group.{group}")
    names = ("total", "per_1000_tokens", "energy", "use", "market", "manufacture")
    return FootprintTable(
        title=say(language, "carbon.groups", group=word),
        headings=(
            capital(word),
            say(language, "column.requests"),
            say(language, "carbon.column.unmeasured"),
            *(say(language, f"carbon.column.{name}") for name in names),
        ),
        rows=tuple(_group_row(one, group, language) for one in shown),
        note=say(language, "carbon.groups.cut", count=len(shown)) if len(ordered) > len(shown) else "",
    )


def _group_row(one: GroupFootprint, group: str, language: Language) -> FootprintRow:
    row, unit = one.row, one.per_1000_tokens_ng
    return FootprintRow(
        group_label(row.group[group], group, language),
        (
            Measured(wording.number(row.sums["requests"] or 0, language)),
            Measured(wording.number(row.requests_unknown, language)),
            emissions_of(row.figures, "total", language),
            Measured(None if unit is None else wording.bare_mass(unit, language)),
            energy_of(row.figures, language),
            *(emissions_of(row.figures, name, language) for name in ("location", "market", "embodied")),
        ),
    )


def _platform(footprint: Footprint, language: Language) -> FootprintTable | None:
    """What is nobody's, for operators."""
    parts = {"idle": footprint.waiting, "unallocated": footprint.unallocated}
    rows = tuple(
        FootprintRow(
            say(language, f"carbon.platform.{name}"),
            (
                measured(row.sums["gpu_energy_uj"], None, None, wording.energy, language),
                energy_of(row.figures, language),
                emissions_of(row.figures, "total", language),
            ),
        )
        for name, row in parts.items()
        if row is not None
    )
    if not rows:
        return None
    headings = ("carbon.platform.what", "carbon.platform.gpu", "carbon.energy", "carbon.column.total")
    return FootprintTable(say(language, "carbon.platform"), tuple(say(language, key) for key in headings), rows)


def _table(selection: Selection, rows: Sequence[CarbonRow], period: str) -> DataTable:
    """The chart's values in figures."""
    language = selection.language
    keys = ("carbon.column.total", "carbon.column.use", "carbon.column.manufacture", "carbon.column.energy")
    bucket = say(language, f"bucket.{selection.bucket}")
    what = say(language, "carbon.total")
    shown, paging = paged(selection, rows)
    return DataTable(
        caption=say(language, "data.caption", what=what, bucket=bucket, period=wording.in_sentence(period)),
        count=row_count(rows, language),
        group_heading="",
        headings=(
            say(language, "column.requests"), say(language, "carbon.column.unmeasured"),
            *(say(language, key) for key in keys),
        ),
        rows=tuple(_table_row(selection, row) for row in shown),
        paging=paging,
    )  # fmt: skip


def _table_row(selection: Selection, row: CarbonRow) -> TableRow:
    language = selection.language
    assert row.bucket_start is not None
    return TableRow(
        when=wording.bucket_label(row.bucket_start, selection.bucket, ZONE, language),
        group="",
        values=(
            wording.number(row.sums["requests"] or 0, language),
            wording.number(row.requests_unknown, language),
            *(emissions_of(row.figures, name, language).value for name in ("total", "location", "embodied")),
            energy_of(row.figures, language).value,
        ),
    )


def _method(selection: Selection, methods: Sequence[str], factors: Sequence[FactorSource]) -> Method:
    return Method(", ".join(methods), tuple(_factor_row(one, selection) for one in factors))


def _factor_row(one: FactorSource, selection: Selection) -> FactorRow:
    language = selection.language
    first = max(one.starts_at, selection.start).astimezone(ZONE).date()
    last = (min(one.ends_at, selection.end).astimezone(ZONE) - timedelta(microseconds=1)).date()
    value, source = said_factor(one, language)
    kind = say(language, f"carbon.method.kind.{one.kind}")
    return FactorRow(one.zone, kind, value, source, wording.period(first, last, language))

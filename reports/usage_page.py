"""The page "Consommation": from a selection and the ledger's answer to texts and figures, ready to show.

Everything but `read_ledger` is pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from litestar.datastructures import State

from metering.database import transaction
from metering.identity import Principal, Role
from metering.rules.periods import Bucket, bucket_starts
from metering.tables import tenant
from reports import wording
from reports.choosing import capital, group_label, paged, presets, row_count, selects
from reports.explorer import explored
from reports.figures import (
    TOTAL_TOKENS,
    Bars,
    Standing,
    bar_totals,
    bars,
    drawn_bucket,
    named_and_rest,
    quantity_of,
    rank,
    sum_of,
)
from reports.notices import News, announcements, read_news
from reports.selection import DEFAULT_DAYS, FILTERS, ZONE, Selection
from reports.shown import (
    DataTable,
    Empty,
    Figure,
    Headline,
    LegendEntry,
    Link,
    RankedRow,
    Ranking,
    TableRow,
    UsagePage,
)
from reports.usage import UsageQuestion, UsageRow, for_reader, known_values, last_batch, read_usage, recorded_bounds
from reports.wording import Language, say

RANKING_ROWS_MAX = 100


@dataclass(frozen=True, slots=True)
class Reading:
    """What the ledger answered: rows by bucket then group, its newest batch (number, time), the first and last hour
    with usage, the values each filter offers, and what the reader is told.

    role: the reader's; administration: the name of theirs, None for the platform's staff.
    """

    rows: Sequence[UsageRow]
    newest: tuple[int, datetime] | None
    bounds: tuple[datetime, datetime] | None
    choices: Mapping[str, Sequence[str]]
    news: News
    role: Role = "operator"
    administration: str | None = None


Read = Callable[[State, UsageQuestion, Principal, datetime], Reading]


def read_ledger(state: State, question: UsageQuestion, reader: Principal, now: datetime) -> Reading:
    """Read everything the page shows, as far as the reader may, from one state of the ledger. Raises: JaugeError."""
    # One snapshot: the entry number printed is the one the figures go up to, even while events arrive.
    with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
        return Reading(
            rows=read_usage(connection, for_reader(question, reader)),
            newest=last_batch(connection),
            bounds=recorded_bounds(connection, reader),
            choices={name: known_values(connection, name, reader) for name in FILTERS},
            news=read_news(connection, reader, now),
            role=reader.role,
            administration=connection.scalar(sa.select(tenant.c.name).where(tenant.c.id == reader.tenant)),
        )


def build_page(selection: Selection, reading: Reading, *, today: date) -> UsagePage:
    """The page for a selection and what the ledger answered. Pure."""
    language = selection.language
    page = UsagePage(
        selection=selection,
        title=_title(reading, language),
        period=wording.period(selection.first, selection.last, language),
        as_of=_as_of(selection, reading),
        selects=selects(selection, reading.choices),
        presets=presets(selection, today),
        announcements=announcements(reading.news, language),
    )
    if not reading.rows:
        return replace(page, empty=_empty(selection, reading, page.period))
    standings = rank(reading.rows, selection.group_by, selection.quantity)
    figure = usage_figure(selection, reading.rows, standings, page.period)
    return replace(
        page,
        headlines=_headlines(reading.rows, language),
        figure=figure,
        explorer=explored(figure.chart, language) if selection.explores and figure.chart else None,
        ranking=_ranking(selection, standings) if selection.group_by else None,
        table=_table(selection, reading.rows, page.period),
    )


def _title(reading: Reading, language: Language) -> str:
    """Whose use the page shows: a member's own, an administration's, or everybody's."""
    if reading.role == "member":
        return say(language, "usage.own")
    if reading.administration is not None:
        return say(language, "usage.of", administration=reading.administration)
    return say(language, "usage")


def _as_of(selection: Selection, reading: Reading) -> str:
    language = selection.language
    if selection.as_of is not None:
        return say(language, "as_of_asked", seq=wording.number(selection.as_of, language))
    if reading.newest is None:
        return say(language, "as_of_nothing")
    seq, recorded_at = reading.newest
    when = wording.moment(recorded_at, ZONE, language)
    return say(language, "as_of", seq=wording.number(seq, language), when=when)


def _empty(selection: Selection, reading: Reading, period: str) -> Empty:
    language = selection.language
    if reading.bounds is None:
        is_new = reading.role == "operator"  # who connects a gateway; agents wait for their first request
        return Empty(say(language, "empty.nothing" if is_new else "empty.nothing_yet"), (), is_new=is_new)
    said = wording.in_sentence(period)
    last = reading.bounds[1].astimezone(ZONE).date()
    first = max(reading.bounds[0].astimezone(ZONE).date(), last - timedelta(days=DEFAULT_DAYS - 1))
    latest = Link(
        say(language, "empty.latest", period=wording.in_sentence(wording.period(first, last, language))),
        selection.url(first=first, last=last, as_of=None),
    )
    is_here = (first, last, None) == (selection.first, selection.last, selection.as_of)
    elsewhere = () if is_here else (latest,)
    if selection.filters:
        unfilter = Link(say(language, "empty.unfilter"), selection.url(filters={}))
        return Empty(say(language, "empty.filters", period=said), (unfilter, *elsewhere), is_new=False)
    return Empty(say(language, "empty.period", period=said), elsewhere, is_new=False)


def _headlines(rows: Sequence[UsageRow], language: Language) -> tuple[Headline, ...]:
    uncounted = sum_of(rows, "uncounted_requests")
    return (
        _headline(wording.quantity_name("requests", language), sum_of(rows, "requests"), "requests", language),
        # The heading says which tokens; the unit needn't again.
        *(
            _headline(wording.quantity_name(name, language), sum_of(rows, name), TOTAL_TOKENS, language)
            for name in ("input_tokens", "output_tokens")
        ),
        _headline(wording.quantity_name("audio_ms", language), sum_of(rows, "audio_ms"), "audio_ms", language),
        _headline(
            say(language, "uncounted"),
            uncounted,
            "requests",
            language,
            say(language, "uncounted.why") if uncounted else "",
        ),
        _failed_headline(rows, language),
    )


def _headline(label: str, total: int | None, unit_of: str, language: Language, note: str = "") -> Headline:
    if total is None:
        return Headline(label, None, note=note)
    unit = "" if unit_of in wording.DURATIONS else wording.unit(total, unit_of, language)
    return Headline(label, wording.bare_amount(total, unit_of, language), unit, note)


def _failed_headline(rows: Sequence[UsageRow], language: Language) -> Headline:
    parts = {name: sum_of(rows, f"requests_{name}") or 0 for name in ("error", "aborted", "refused")}
    said = {name: wording.number(value, language) for name, value in parts.items()}
    total = sum(parts.values())
    note = say(language, "failed.detail", **said) if total else ""
    return _headline(say(language, "failed"), total, "requests", language, note)


def usage_figure(selection: Selection, rows: Sequence[UsageRow], standings: Sequence[Standing], period: str) -> Figure:
    """The chart of rows, split as the selection says, with its words. standings: of the same rows."""
    language, quantity = selection.language, selection.quantity
    drawn = drawn_bucket(selection.start, selection.end, selection.bucket, ZONE)
    starts = bucket_starts(selection.start, selection.end, drawn, ZONE)
    labels = [wording.bucket_label(start, drawn, ZONE, language) for start in starts]
    named, rest = named_and_rest(standings)
    names = [_standing_label(standing, selection) for standing in named]

    def describe(bucket: int, series: int | None, value: int) -> str:
        name = _others(len(rest), language) if series is None else names[series]
        return f"{labels[bucket]} · {name} · {wording.amount_in_sentence(value, quantity, language)}"

    chart = bars(
        rows,
        standings,
        group_by=selection.group_by,
        quantity=quantity,
        starts=starts,
        bucket=drawn,
        zone=ZONE,
        describe=describe,
    )
    title = _chart_title(selection, drawn)
    return Figure(
        title=title,
        label=say(language, "chart.label", title=wording.in_sentence(title), period=wording.in_sentence(period)),
        finding=_finding(selection, standings, chart, labels),
        notes=_chart_notes(selection, chart),
        chart=chart if chart.segments else None,
        legend=_legend(names, len(rest), language) if selection.group_by and chart.segments else (),
    )


def _legend(names: Sequence[str], others_count: int, language: Language) -> tuple[LegendEntry, ...]:
    entries = [LegendEntry(name, str(number)) for number, name in enumerate(names, start=1)]
    if others_count:
        entries.append(LegendEntry(_others(others_count, language), "others"))
    return tuple(entries)


def _chart_title(selection: Selection, bucket: Bucket) -> str:
    language, quantity = selection.language, selection.quantity
    what, bucket_word = wording.quantity_name(quantity, language), say(language, f"bucket.{bucket}")
    if selection.group_by is None:
        return say(language, "chart.title", what=what, bucket=bucket_word)
    group_word = say(language, f"group.{selection.group}")
    return say(language, "chart.title_split", what=what, bucket=bucket_word, group=group_word)


def _chart_notes(selection: Selection, chart: Bars) -> tuple[str, ...]:
    language = selection.language
    notes: list[str] = []
    if chart.bucket != selection.bucket:
        count = len(bucket_starts(selection.start, selection.end, selection.bucket, ZONE))
        drawn, asked = (say(language, f"bucket.{bucket}") for bucket in (chart.bucket, selection.bucket))
        notes.append(say(language, "chart.coarser", count=wording.number(count, language), bucket=drawn, asked=asked))
    if chart.flagged and chart.segments:
        notes.append(say(language, "chart.flagged"))
    return tuple(notes)


def _finding(selection: Selection, standings: Sequence[Standing], chart: Bars, labels: Sequence[str]) -> str:
    """One sentence that says what the chart shows: the total or the leader's part of it, and the highest bar."""
    language, quantity = selection.language, selection.quantity
    known = [standing.total for standing in standings if standing.total is not None]
    if not known:
        return say(language, "finding.unknown")
    total = sum(known)
    spoken = wording.amount_in_sentence(total, quantity, language)
    leader = standings[0].total or 0
    if selection.group_by and len(standings) > 1 and total > 0:
        part = wording.share(leader, total, language)
        name = _standing_label(standings[0], selection)
        sentence = say(language, "finding.leader", leader=name, share=part, total=spoken)
    else:
        sentence = say(language, "finding.total", total=spoken)
    heights = bar_totals(chart)
    if len(labels) < 2 or not heights:
        return say(language, "finding.flat", sentence=sentence)
    peak = max(heights, key=lambda index: (heights[index], -index))
    when = say(language, f"when.{chart.bucket}", label=labels[peak])
    amount = wording.amount_in_sentence(heights[peak], quantity, language)
    return say(language, "finding.peak", sentence=sentence, when=when, amount=amount)


def _ranking(selection: Selection, standings: Sequence[Standing]) -> Ranking:
    language, quantity = selection.language, selection.quantity
    named, rest = named_and_rest(standings)
    whole = sum(standing.total or 0 for standing in standings)

    def row(position: str, name: str, standing: Standing, paint: str | None) -> RankedRow:
        has_share = standing.total is not None and whole > 0
        part = standing.total or 0
        return RankedRow(
            rank=position,
            name=name,
            amount=None if standing.total is None else wording.bare_amount(standing.total, quantity, language),
            share=wording.share(part, whole, language) if has_share else None,
            share_percent=max(0, min(100, 100 * part // whole)) if has_share else 0,
            uncounted=wording.number(standing.uncounted, language),
            paint=paint,
        )

    rows = [row(str(n), _standing_label(it, selection), it, str(n)) for n, it in enumerate(named, start=1)]
    if rest:
        rows.append(row("", _others(len(rest), language), _together(rest), "others"))
    shown = rest[:RANKING_ROWS_MAX]
    is_cut = len(rest) > len(shown)
    return Ranking(
        title=say(language, "ranking", group=say(language, f"group.{selection.group}")),
        heading=wording.quantity_name(quantity, language),
        rows=tuple(rows),
        rest=tuple(
            row(str(n), _standing_label(it, selection), it, None) for n, it in enumerate(shown, start=len(named) + 1)
        ),
        rest_summary=say(language, "ranking.rest", count=wording.number(len(rest), language)),
        cut_note=say(language, "ranking.cut", count=len(named) + len(shown)) if is_cut else "",
    )


def _together(standings: Sequence[Standing]) -> Standing:
    known = [standing.total for standing in standings if standing.total is not None]
    return Standing(None, sum(known) if known else None, sum(standing.uncounted for standing in standings))


def _table(selection: Selection, rows: Sequence[UsageRow], period: str) -> DataTable:
    language = selection.language
    columns = ["input_tokens", "output_tokens", "audio_ms"]
    if selection.quantity not in {"requests", *columns}:
        columns.append(selection.quantity)
    shown, paging = paged(selection, rows)
    bucket_word = say(language, f"bucket.{selection.bucket}")
    what = say(language, "usage")
    return DataTable(
        caption=say(language, "data.caption", what=what, bucket=bucket_word, period=wording.in_sentence(period)),
        count=row_count(rows, language),
        group_heading=capital(say(language, f"group.{selection.group}")) if selection.group_by else "",
        headings=(
            *(say(language, f"column.{name}") for name in ("requests", "failed", "uncounted")),
            *(wording.quantity_name(name, language) for name in columns),
        ),
        rows=tuple(_table_row(selection, row, columns) for row in shown),
        paging=paging,
    )


def _table_row(selection: Selection, row: UsageRow, columns: Sequence[str]) -> TableRow:
    language = selection.language
    assert row.bucket_start is not None
    failed = sum(row.quantities[f"requests_{status}"] or 0 for status in ("error", "aborted", "refused"))

    def text(value: int | None, quantity: str) -> str | None:
        return None if value is None else wording.bare_amount(value, quantity, language)

    return TableRow(
        when=wording.bucket_label(row.bucket_start, selection.bucket, ZONE, language),
        group=group_label(row.group[selection.group_by], selection.group, language) if selection.group_by else "",
        values=(
            text(row.quantities["requests"], "requests"),
            text(failed, "requests"),
            text(row.quantities["uncounted_requests"], "requests"),
            *(text(quantity_of(row, name), name) for name in columns),
        ),
    )


def _standing_label(standing: Standing, selection: Selection) -> str:
    if selection.group_by is None:
        return say(selection.language, "all")
    return group_label(standing.name, selection.group, selection.language)


def _others(count: int, language: Language) -> str:
    return say(language, "others.one") if count == 1 else say(language, "others", count=wording.number(count, language))

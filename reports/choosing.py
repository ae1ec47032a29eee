"""What pages of figures have in common: the form's lists, usual periods, names of groups, long tables, drawings."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TypeVar

from reports import wording
from reports.drawing import Drawing
from reports.figures import NARROW, WIDE, bars_spec
from reports.selection import BUCKETS, FILTERS, GROUPS, PAGE_QUANTITIES, Selection
from reports.shown import Choice, Figure, Link, Paging, Select
from reports.wording import Language, say

PRESET_DAYS = (7, 30, 90)
TABLE_ROWS_MAX = 200

Row = TypeVar("Row")


def selects(selection: Selection, choices: Mapping[str, Sequence[str]]) -> tuple[Select, ...]:
    """The lists of the form; choices: values that each filter offers."""
    language = selection.language
    lists: list[tuple[str, list[tuple[str, str]], str]] = []
    if selection.place.is_usage:
        names = [(name, wording.quantity_name(name, language)) for name in PAGE_QUANTITIES]
        lists.append(("quantity", names, selection.quantity))
    lists += [
        ("bucket", [(name, say(language, f"bucket.{name}")) for name in BUCKETS], selection.bucket),
        ("group_by", [(name, say(language, f"group.{name}")) for name in GROUPS], selection.group),
    ]
    for name in FILTERS:
        chosen = selection.filters.get(name, "")
        # The chosen value stays on offer even when the list is cut or no longer holds it.
        values = sorted({*choices[name], *([chosen] if chosen else [])})
        offered = [(value, group_label(value, name, language)) for value in values]
        lists.append((name, [("", say(language, "filter.any")), *offered], chosen))
    return tuple(
        Select(
            name,
            say(language, f"filter.{name}" if name in FILTERS else name),
            tuple(Choice(value, label, value == chosen) for value, label in offered),
        )
        for name, offered, chosen in lists
    )


def presets(selection: Selection, today: date) -> tuple[Link, ...]:
    """Periods that are often asked for."""
    language, month_first = selection.language, today.replace(day=1)
    last_month_end = month_first - timedelta(days=1)
    periods = [
        *((say(language, "preset.days", days=days), today - timedelta(days=days - 1), today) for days in PRESET_DAYS),
        (say(language, "preset.this_month"), month_first, today),
        (say(language, "preset.last_month"), last_month_end.replace(day=1), last_month_end),
    ]
    return tuple(
        Link(
            label,
            selection.url(first=first, last=last),
            is_current=(first, last) == (selection.first, selection.last),
        )
        for label, first, last in periods
    )


def group_label(value: str | None, group: str, language: Language) -> str:
    """Name of a group's member; operations have words of their own."""
    if value is None:
        return say(language, "unnamed")
    if group == "operation" and value in wording.OPERATION_WORDS:
        return wording.OPERATION_WORDS[value][language]
    return value


def capital(text: str) -> str:
    """A text with its first letter raised."""
    return text[:1].upper() + text[1:]


def paged(selection: Selection, rows: Sequence[Row]) -> tuple[Sequence[Row], Paging]:
    """The rows of the page that a reader chose of a long table, and where that is."""
    language = selection.language
    page_count = -(-len(rows) // TABLE_ROWS_MAX)
    page = min(max(selection.page, 1), page_count)
    return rows[(page - 1) * TABLE_ROWS_MAX : page * TABLE_ROWS_MAX], Paging(
        is_open=selection.page > 1,
        position=say(language, "data.page", page=page, pages=page_count) if page_count > 1 else "",
        previous_url=f"{selection.url(page=page - 1)}#data" if page > 1 else None,
        next_url=f"{selection.url(page=page + 1)}#data" if page < page_count else None,
    )


def row_count(rows: Sequence[object], language: Language) -> str:
    """How many rows a table has, in words."""
    count = len(rows)
    return (
        say(language, "data.count_one")
        if count == 1
        else say(language, "data.count", count=wording.number(count, language))
    )


def drawings_of(figure: Figure, language: Language) -> list[Drawing]:
    """The chart twice, for wide and for narrow screens; the style sheet shows the one that fits."""
    if figure.chart is None:
        return []
    return [
        Drawing(bars_spec(figure.chart, language, layout), figure.label, f"chart {name}")
        for layout, name in ((WIDE, "chart-wide"), (NARROW, "chart-narrow"))
    ]

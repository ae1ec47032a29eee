"""Sheets: pages of facts, tables and forms, with every text ready, which one template lays out.

The pages of documents, people, terms and administration are such sheets. Texts are plain: the template escapes them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlencode

from litestar import Request, Response

from metering.identity import Principal
from reports.cells import plain
from reports.frame import Frame, Outcome
from reports.rendering import answer_page
from reports.selection import ZONE
from reports.shown import Choice, Link
from reports.wording import Language, moment, say

FieldKind = Literal["text", "area", "date", "number", "email", "select", "check", "hidden"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a form. choices: of a list; hint: below it."""

    name: str
    label: str = ""
    kind: FieldKind = "text"
    value: str = ""
    hint: str = ""
    choices: tuple[Choice, ...] = ()
    is_required: bool = False
    length_max: int = 200

    @classmethod
    def area(cls, name: str, label: str, *, hint: str = "", is_required: bool = True) -> "Field":
        """A field of several lines."""
        return cls(name, label, "area", hint=hint, is_required=is_required, length_max=2_000)


@dataclass(frozen=True, slots=True)
class Form:
    """A form that acts: `action` is a path of ours.

    method get: it only asks for a page. is_grave: it can't be undone, and its button says so by its form.
    """

    action: str
    button: str
    fields: tuple[Field, ...] = ()
    title: str = ""
    notes: tuple[str, ...] = ()
    method: Literal["post", "get"] = "post"
    is_grave: bool = False

    def filled(self, outcome: Outcome | None) -> "Form":
        """The form with what was entered before it was refused."""
        if outcome is None or outcome.kind != "refused" or outcome.entered.get("form", self.action) != self.action:
            return self
        return replace(self, fields=tuple(_refilled(one, outcome.entered) for one in self.fields))


@dataclass(frozen=True, slots=True)
class Amount:
    """A number with its unit, set to the end of its cell; None is unknown."""

    text: str | None


Cell = str | Link | Amount | tuple[str, ...] | tuple[Link, ...] | None
"""A text, a link, a number, several lines or links, or what isn't known."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the first cell of a row names it. older, newer: addresses of neighbouring pages."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    older: str | None = None
    newer: str | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a sheet. empty: why there is no table, and what to do. secret: shown once, to be copied."""

    name: str
    title: str
    notes: tuple[str, ...] = ()
    warning: str = ""
    facts: tuple[tuple[str, Cell], ...] = ()
    table: Table | None = None
    empty: str = ""
    links: tuple[Link, ...] = ()
    forms: tuple[Form, ...] = ()
    text: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page. lead: what it is for; back: the page above it."""

    title: str
    lead: str
    blocks: Sequence[Block]
    back: Link | None = None
    period: str = ""


Build = Callable[[Language, Principal], Sheet]


async def answer_sheet(request: Request[Any, Any, Any], build: Build) -> Response[str]:
    """A sheet as a page, built in a thread, or the page that says what went wrong."""

    def context(language: Language, reader: Principal) -> Mapping[str, object]:
        return context_of(build(language, reader))

    return await answer_page(request, "sheet.html", context)


def context_of(sheet: Sheet) -> Mapping[str, object]:
    """What the template of sheets takes."""
    return {"sheet": sheet, "fill": fill, "kind_of": kind_of, "plain": plain}


def fill(form: Form, frame: Frame) -> Form:
    """A form as a page shows it: with what was entered before, if it was refused."""
    return form.filled(frame.outcome)


def kind_of(cell: Cell) -> str:
    """How a cell is laid out."""
    if cell is None:
        return "unknown"
    if isinstance(cell, str):
        return "text"
    if isinstance(cell, Amount):
        return "amount"
    if isinstance(cell, Link):
        return "link"
    return "links" if cell and isinstance(cell[0], Link) else "lines"


def _refilled(field: Field, entered: Mapping[str, str]) -> Field:
    if field.kind == "hidden" or field.name not in entered:
        return field
    value = entered[field.name]
    choices = tuple(replace(one, is_chosen=one.value == value) for one in field.choices)
    return replace(field, value=value, choices=choices)


def choices(pairs: Sequence[tuple[str, str]], chosen: str = "") -> tuple[Choice, ...]:
    """Choices of a list, by value and label."""
    return tuple(Choice(value, label, value == chosen) for value, label in pairs)


def at(instant: datetime | None, language: Language) -> str | None:
    """An instant in the books' zone, which the page prints; None stays unknown."""
    return None if instant is None else moment(instant, ZONE, language)


def address(path: str, language: Language, **parameters: str | None) -> str:
    """Address of a page of ours in a language; parameters that are None or empty are left out."""
    kept = {name: value for name, value in parameters.items() if value}
    return f"{path}?{urlencode({**kept, 'lang': language})}"


def confirm(language: Language, key: str) -> Field:
    """The box without which what can't be undone isn't done."""
    return Field("confirmed", say(language, key), "check", "yes", is_required=True)

"""Text that goes into files: characters that no file can show, cells that spreadsheets would run, CSV of a language.

Names of administrations, projects and models come from people and programs. A spreadsheet runs a cell that begins like
a formula, and control characters or overrides of the direction of writing make a name look like another. Pure.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal

from reports.wording import Language

Cell = str | int | Decimal | None
"""What stands in a file: a text, a number, or nothing where it isn't known."""

NAME_CHARACTERS_MAX = 200
"""More of a name is cut where people read it."""

_BLANKS = re.compile(r"[\t\n\r\x0b\x0c\x85\u2028\u2029]+")
# What XML 1.0 can't write, other controls, and what turns the direction of writing without being seen.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufff9-\ufffb\ufffe\uffff]"
)
_FORMULA = re.compile(r"[\s\u200b-\u200f\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20\u2212]")
SEPARATORS = {"fr": ";", "en": ","}


def plain(text: str) -> str:
    """A text on one line, in characters that every file can hold; one that can't be seen becomes U+FFFD."""
    return _UNSEEN.sub("\ufffd", _BLANKS.sub(" ", unicodedata.normalize("NFC", text)))


def short(text: str, most: int = NAME_CHARACTERS_MAX) -> str:
    """A plain text of so many characters at most; where it is cut it says so by an ellipsis."""
    seen = plain(text)
    return seen if len(seen) <= most else seen[: most - 1] + "…"


def neutral(text: str) -> str:
    """A text for a cell: one that a spreadsheet would take for a formula has an apostrophe before it."""
    seen = plain(text)
    return f"'{seen}" if _FORMULA.match(seen) else seen


def written(value: Cell, language: Language) -> str:
    """A cell's characters: text neutralised, numbers whole with the language's decimal mark, nothing for unknown."""
    if value is None:
        return ""
    if isinstance(value, str):
        return neutral(value)
    digits = f"{value:f}" if isinstance(value, Decimal) else str(value)
    return digits.replace(".", ",") if language == "fr" else digits


def csv_bytes(headings: Sequence[str], rows: Iterable[Sequence[Cell]], language: Language) -> bytes:
    """A file for the spreadsheet of a language: `;` and a decimal comma in French, UTF-8 that says so by its mark."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=SEPARATORS[language], lineterminator="\r\n")
    writer.writerow([neutral(heading) for heading in headings])
    writer.writerows([written(cell, language) for cell in row] for row in rows)
    return file.getvalue().encode("utf-8-sig")

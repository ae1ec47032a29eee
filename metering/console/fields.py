"""What fields of forms say: dates of the books, whole numbers, what must be there. Errors are those of the API."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, TypeVar

import msgspec

from metering.console.acting import Form
from metering.errors import Unprocessable
from metering.rules.periods import day_bounds

Made = TypeVar("Made")

CHARACTERS_MAX = 2_000


def text_of(form: Form, name: str, length_max: int = CHARACTERS_MAX) -> str:
    """A text that must be there. Raises: Unprocessable."""
    text = form.get(name, "")
    if not text or len(text) > length_max:
        raise Unprocessable(
            "missing_field", "A field is empty or too long.", field=name, expected=f"1 to {length_max} characters"
        )
    return text


def choice_of(form: Form, name: str, among: Sequence[str]) -> str:
    """One of a list. Raises: Unprocessable."""
    text = form.get(name, "")
    if text not in among:
        raise Unprocessable("not_a_choice", "Not one of the list.", field=name, expected=", ".join(among))
    return text


def number_of(form: Form, name: str) -> int | None:
    """A whole number; None where the field is empty. Raises: Unprocessable."""
    text = form.get(name, "").replace(" ", "").replace("\u202f", "").replace("\u00a0", "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 16):
        raise Unprocessable("not_a_number", "Not a whole number.", field=name, expected="digits, without a sign")
    return int(text)


def day_of(form: Form, name: str) -> date | None:
    """A day; None where the field is empty. Raises: Unprocessable."""
    text = form.get(name, "")
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if not date(2000, 1, 1) <= day <= date(2200, 1, 1):
        raise Unprocessable("invalid_date", "Not a date.", field=name, expected="YYYY-MM-DD")
    return day


def start_of(form: Form, name: str) -> datetime | None:
    """The beginning of a day of the books (Europe/Paris); None where the field is empty. Raises: Unprocessable."""
    day = day_of(form, name)
    return None if day is None else day_bounds(day)[0]


def end_of(form: Form, name: str) -> datetime | None:
    """The end of a day of the books, exclusive; None where the field is empty. Raises: Unprocessable."""
    day = day_of(form, name)
    return None if day is None else day_bounds(day)[1]


def check_confirmed(form: Form) -> None:
    """Raises: Unprocessable where somebody didn't say that they mean it."""
    if form.get("confirmed") != "yes":
        raise Unprocessable("not_confirmed", "It wasn't confirmed.", field="confirmed", expected="yes")


def made(kind: type[Made], values: dict[str, Any]) -> Made:
    """A document of the catalogue from what a form holds, by the same rules as over HTTP. Raises: Unprocessable."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        said = str(error)
        place = said.rpartition("`$.")[2].rstrip("`") if "`$." in said else said.partition(":")[0]
        raise Unprocessable("invalid_field", "A field doesn't fit.", field=place, expected=said[:200]) from error

"""The chart of a document: use by day as bars, and the same in words for those who don't see it. Pure."""

from collections.abc import Sequence
from typing import Any

from metering.rules.billing.documents import DayFigures
from metering.rules.periods import BOOKS_ZONE
from reports import wording
from reports.documents.words import say
from reports.wording import FIXED, Language

SCALE = 1_000
"""Heights of bars are in thousandths of the greatest."""

THOUSANDS: wording.Scale = ((10**9, "G"), (10**6, "M"), (10**3, "k"), (1, ""))


def days_shown(days: Sequence[DayFigures], period: str, language: Language) -> dict[str, Any] | None:
    """Bars of tokens, or of requests where no tokens are known; None without a day."""
    if not days:
        return None
    of_tokens = any(day.tokens is not None for day in days)
    values = [day.tokens if of_tokens else day.requests for day in days]
    unit = "tokens" if of_tokens else "requests"
    return {
        "title": say(language, "days"),
        **_told(days, values, unit, period, language),
        "unknown": say(language, "days.unknown") if None in values else None,
        "peak": _short(max(value or 0 for value in values), language),
        "bars": _bars(days, values, language),
    }


def _short(value: int, language: Language) -> str:
    """A number in three digits: 3,28 M."""
    size, letter = wording.scale_of(value, THOUSANDS)
    return f"{wording.scaled(value, size, language)}{FIXED}{letter}".strip()


def _bars(days: Sequence[DayFigures], values: Sequence[int | None], language: Language) -> list[dict[str, Any]]:
    highest = max((value or 0 for value in values), default=0)
    labelled = {0, len(days) - 1, *range(4, len(days) - 3, 5)}
    return [
        {
            "height": None if value is None else -(-value * SCALE // highest) if highest else 0,
            "label": wording.day_short(day.day, language) if at in labelled else "",
        }
        for at, (day, value) in enumerate(zip(days, values, strict=True))
    ]


def _told(
    days: Sequence[DayFigures], values: Sequence[int | None], unit: str, period: str, language: Language
) -> dict[str, str]:
    known = [(value, day.day) for value, day in zip(values, days, strict=True) if value is not None]
    peak, day = max(known, key=lambda one: (one[0], -one[1].toordinal()))
    word = say(language, f"days.{unit}")
    within = wording.in_sentence(period)
    if not peak:
        none = say(language, "days.alt_none", period=within)
        return {"alt": none, "caption": none}
    said = {
        "unit": word[0].upper() + word[1:],
        "total": f"{wording.number(sum(value for value, _day in known), language)}{FIXED}{word}",
        "peak": wording.number(peak, language),
        "day": wording.day(day, language),
    }
    return {
        "alt": say(language, "days.alt", period=within, **(said | {"unit": word})),
        "caption": say(language, "days.caption", zone=BOOKS_ZONE, **said),
    }

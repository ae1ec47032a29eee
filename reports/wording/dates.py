"""Days, hours and periods in a reader's language."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from metering.rules.periods import Bucket
from reports.wording.languages import FIXED, Language
from reports.wording.sentences import say

MONTHS: Mapping[Language, tuple[str, ...]] = {
    "fr": (
        *("janvier", "février", "mars", "avril", "mai", "juin"),
        *("juillet", "août", "septembre", "octobre", "novembre", "décembre"),
    ),
    "en": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
}
MONTHS_SHORT: Mapping[Language, tuple[str, ...]] = {
    "fr": ("janv.", "févr.", "mars", "avr.", "mai", "juin", "juil.", "août", "sept.", "oct.", "nov.", "déc."),
    "en": ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
}


def day(value: date, language: Language) -> str:
    """ "1er septembre 2026" or "1 September 2026"."""
    return f"{_day_number(value, language)} {MONTHS[language][value.month - 1]} {value.year}"


def day_short(value: date, language: Language) -> str:
    """ "1er sept." or "1 Sep"."""
    return f"{_day_number(value, language)}{FIXED}{MONTHS_SHORT[language][value.month - 1]}"


def month(value: date, language: Language) -> str:
    """ "septembre 2026"."""
    return f"{MONTHS[language][value.month - 1]} {value.year}"


def month_short(value: date, language: Language) -> str:
    """ "sept. 2026"."""
    return f"{MONTHS_SHORT[language][value.month - 1]}{FIXED}{value.year}"


def hour_short(value: datetime, language: Language) -> str:
    """ "14 h" or "14:00"."""
    return f"{value.hour}{FIXED}h" if language == "fr" else f"{value.hour:02d}:00"


def moment(value: datetime, zone: ZoneInfo, language: Language) -> str:
    """ "14 septembre 2026 à 14:03" in a zone; a time that comes twice in a night carries its UTC offset."""
    local = value.astimezone(zone)
    between = " à " if language == "fr" else " at "
    said = f"{day(local.date(), language)}{between}{local.hour:02d}:{local.minute:02d}"
    return f"{said} ({_offset(local)})" if _comes_twice(local) else said


def bucket_label(start: datetime, bucket: Bucket, zone: ZoneInfo, language: Language) -> str:
    """Name of the bucket that begins at an instant. An hour that comes twice in a night carries its UTC offset."""
    local = start.astimezone(zone)
    if bucket == "month":
        return month(local.date(), language)
    if bucket == "day":
        return day(local.date(), language)
    label = f"{day(local.date(), language)}, {hour_short(local, language)}"
    return f"{label} ({_offset(local)})" if _comes_twice(local) else label


def period(first: date, last: date, language: Language) -> str:
    """Two inclusive days, as they stand in a heading: what both share (year, month) is said once."""
    if first == last:
        return say(language, "day_of", first=day(first, language))
    if (first.year, first.month) == (last.year, last.month):
        opening = _day_number(first, language)
    elif first.year == last.year:
        opening = f"{_day_number(first, language)} {MONTHS[language][first.month - 1]}"
    else:
        opening = day(first, language)
    return say(language, "period_of", first=opening, last=day(last, language))


def in_sentence(text: str) -> str:
    """A heading's text with its first letter lowered, so that it can stand inside a sentence."""
    return text[:1].lower() + text[1:]


def _day_number(value: date, language: Language) -> str:
    return "1er" if language == "fr" and value.day == 1 else str(value.day)


def _comes_twice(local: datetime) -> bool:
    # The same wall time with the other fold has another offset only where the clock changes.
    folded = local.replace(fold=1 - local.fold)
    first, second = (local, folded) if local.fold == 0 else (folded, local)
    return (first.utcoffset() or timedelta()) > (second.utcoffset() or timedelta())


def _offset(local: datetime) -> str:
    minutes = int((local.utcoffset() or timedelta()).total_seconds()) // 60
    sign = "+" if minutes >= 0 else "\u2212"
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{sign}{hours}" + (f":{rest:02d}" if rest else "")

"""What a reader asks of a page of figures: the parameters of its address, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast, get_args
from urllib.parse import urlencode

from metering.rules.periods import PARIS, Bucket, day_bounds
from metering.rules.quantities import QUANTITIES
from reports import wording
from reports.figures import TOTAL_TOKENS
from reports.usage import UsageQuestion
from reports.wording import LANGUAGES, Language, say

ZONE = PARIS
"""Dates of the page are days of the books."""

BUCKETS: tuple[Bucket, ...] = get_args(Bucket)
NO_GROUP = "none"
GROUPS = ("model", "tenant", "project", "operation", "user", "api_key", NO_GROUP)
FILTERS = ("tenant", "model", "operation", "project")
PAGE_QUANTITIES = (QUANTITIES[0], TOTAL_TOKENS, *QUANTITIES[1:])
PARAMETERS = ("from", "to", "bucket", "group_by", "quantity", *FILTERS, "as_of", "page", "explore", "lang")
USAGE_ONLY = frozenset({"quantity", "explore"})


@dataclass(frozen=True, slots=True)
class Place:
    """A page of figures: its address, that of its figures for programs, and whether it is that of usage, on which
    readers choose a quantity and explore the chart."""

    path: str
    csv_path: str
    is_usage: bool

    @property
    def parameters(self) -> tuple[str, ...]:
        """What its address may hold."""
        return tuple(name for name in PARAMETERS if self.is_usage or name not in USAGE_ONLY)


USAGE = Place("/usage", "/v1/usage", is_usage=True)
CARBON = Place("/carbon", "/v1/carbon", is_usage=False)

DEFAULT_DAYS = 30
SPAN_DAYS_MAX: Mapping[Bucket, int] = {"hour": 92, "day": 1_100, "month": 7_400}
"""Longest period of each bucket: beyond it a table of that grain answers nobody's question."""
YEARS = range(2000, 2201)
FILTER_LENGTH_MAX = 200


@dataclass(frozen=True, slots=True)
class Selection:
    """What a reader chose of a page. Days are of the books' zone, both inclusive; filters: chosen values only;
    explores: the chart's explorer is open."""

    first: date
    last: date
    language: Language
    bucket: Bucket = "day"
    group: str = "model"
    quantity: str = "requests"
    filters: Mapping[str, str] = field(default_factory=dict)
    as_of: int | None = None
    page: int = 1
    explores: bool = False
    language_is_asked: bool = False
    place: Place = USAGE

    @property
    def group_by(self) -> str | None:
        return None if self.group == NO_GROUP else self.group

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def start(self) -> datetime:
        """First instant of the period, UTC."""
        return day_bounds(self.first, ZONE)[0]

    @property
    def end(self) -> datetime:
        """First instant after the period, UTC: the last day is included for people, exclusive for programs."""
        return day_bounds(self.last, ZONE)[1]

    def question(self) -> UsageQuestion:
        return UsageQuestion(
            start=self.start,
            end=self.end,
            bucket=self.bucket,
            zone=ZONE,
            group_by=(self.group_by,) if self.group_by else (),
            filters={name: (value,) for name, value in self.filters.items()},
            as_of=self.as_of,
        )

    def url(self, **changes: Any) -> str:
        """Address of this page with some choices changed; the table starts over unless a page is given."""
        chosen = replace(self, **({"page": 1} | changes))
        return f"{self.place.path}?{urlencode(chosen._parameters())}"

    def csv_url(self) -> str:
        """Address of the same figures for programs: instants with their offset, the end exclusive."""
        asked = {
            "start": self.start.astimezone(ZONE).isoformat(),
            "end": self.end.astimezone(ZONE).isoformat(),
            "bucket": self.bucket,
            "tz": ZONE.key,
            "group_by": self.group_by,
            **self.filters,
            "as_of": self.as_of,
            "format": "csv",
        }
        return f"{self.place.csv_path}?{urlencode({name: value for name, value in asked.items() if value is not None})}"

    def _parameters(self) -> dict[str, str]:
        shown: dict[str, Any] = {
            "from": self.first.isoformat(),
            "to": self.last.isoformat(),
            "bucket": self.bucket,
            "group_by": self.group,
            "quantity": self.quantity if self.place.is_usage else None,
            **self.filters,
            "as_of": self.as_of,
            "page": self.page if self.page > 1 else None,
            "explore": "1" if self.explores else None,
            "lang": self.language if self.language_is_asked else None,
        }
        return {name: str(value) for name, value in shown.items() if value is not None}


class BadSelection(Exception):
    """Parameters that can't be read; `sentences` says each of them to the reader."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = tuple(sentences)


def selection_from(
    pairs: Sequence[tuple[str, str]], *, today: date, language: Language, place: Place = USAGE
) -> Selection:
    """A selection from the query's (name, value) pairs. Empty values are as if absent, so a cleared field is no error.

    Raises: BadSelection, with everything that is wrong at once.
    """
    reader = _Reader(pairs, language, place.parameters)
    last = reader.day("to", today)
    first = reader.day("from", last - timedelta(days=DEFAULT_DAYS - 1))
    asked_language = reader.choice("lang", ("", *LANGUAGES), "")
    selection = Selection(
        first=first,
        last=last,
        bucket=cast(Bucket, reader.choice("bucket", BUCKETS, "day")),
        group=reader.choice("group_by", GROUPS, "model"),
        quantity=reader.choice("quantity", PAGE_QUANTITIES, "requests"),
        filters={name: value for name in FILTERS if (value := reader.text(name))},
        as_of=reader.whole("as_of"),
        page=reader.whole("page") or 1,
        explores=reader.choice("explore", ("", "1"), "") == "1",
        language=language,
        language_is_asked=bool(asked_language),
        place=place,
    )
    reader.check_period(selection)
    if reader.problems:
        raise BadSelection(reader.problems)
    return selection


class _Reader:
    """Reads parameters one by one and gathers what is wrong with them."""

    def __init__(self, pairs: Sequence[tuple[str, str]], language: Language, parameters: Sequence[str]) -> None:
        self._language = language
        self._values = {name: value.strip() for name, value in pairs if value.strip()}
        names = [name for name, value in pairs if value.strip()]
        self.problems: list[str] = []
        for name in dict.fromkeys(names):
            if name not in parameters:
                self._refuse("bad.unknown", name=name[:40])
            elif names.count(name) > 1:
                self._refuse("bad.repeated", name=name)

    def text(self, name: str) -> str:
        value = self._values.get(name, "")
        if len(value) > FILTER_LENGTH_MAX:
            self._refuse("bad.long", name=name, most=FILTER_LENGTH_MAX)
        return value

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        value = self._values.get(name, default)
        if value not in choices:
            self._refuse("bad.choice", name=name, expected=", ".join(filter(None, choices)))
            return default
        return value

    def whole(self, name: str) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 19):
            self._refuse("bad.number", name=name)
            return None
        return int(value)

    def day(self, name: str, default: date) -> date:
        value = self._values.get(name)
        if value is None:
            return default
        try:
            day = datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC).date()
        except ValueError:
            day = date.min
        if day.year not in YEARS:
            self._refuse("bad.date", name=name)
            return default
        return day

    def check_period(self, selection: Selection) -> None:
        language, most = self._language, SPAN_DAYS_MAX[selection.bucket]
        if selection.first > selection.last:
            first, last = wording.day(selection.first, language), wording.day(selection.last, language)
            self._refuse("bad.order", first=first, last=last)
        elif selection.days > most:
            days, bucket = wording.number(selection.days, language), say(language, f"bucket.{selection.bucket}")
            self._refuse("bad.span", days=days, bucket=bucket, most=wording.number(most, language))

    def _refuse(self, key: str, **values: object) -> None:
        self.problems.append(say(self._language, key, **values))


def language_of(asked: str | None, accept_language: str, otherwise: Language) -> Language:
    """`?lang=` decides, else the browser, else the setting. An unknown `lang` is refused later, in a known language."""
    for language in LANGUAGES:
        if asked == language:
            return language
    return wording.preferred_language(accept_language, otherwise)

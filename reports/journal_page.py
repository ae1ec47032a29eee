"""The pages "Journal des requêtes" and of one request: from requests and a trail to texts, ready to show. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

from metering.identity import Principal
from metering.rules.quantities import STATUSES
from reports import wording
from reports.choosing import group_label
from reports.journal import LoggedRequest
from reports.journal_api import Cost
from reports.selection import FILTER_LENGTH_MAX, ZONE, BadSelection
from reports.shown import Choice, Measured, Select
from reports.trail import EmissionsShown, Trail
from reports.wording import Language, say

PATH = "/requests"
FILTERS = ("tenant", "project", "user", "api_key", "model", "operation", "status")
PARAMETERS = ("from", "to", *FILTERS, "cursor", "lang")
DEFAULT_DAYS = 30
SHOWN_QUANTITIES = (
    "input_tokens", "output_tokens", "audio_ms", "embedding_inputs", "images", "pages", "documents", "searches",
    "web_searches", "storage_byte_hours",
)  # fmt: skip
COST_DECIMALS_MAX = 6


@dataclass(frozen=True, slots=True)
class JournalSelection:
    """What a reader chose of the journal; days are of the books' zone, both inclusive."""

    first: date
    last: date
    filters: Mapping[str, str]
    cursor: str | None

    def url(self, language: Language, cursor: str | None = None) -> str:
        """Address of a page of the same choice."""
        asked = {"from": self.first.isoformat(), "to": self.last.isoformat(), **self.filters, "cursor": cursor}
        shown = {name: value for name, value in asked.items() if value is not None} | {"lang": language}
        return f"{PATH}?{urlencode(shown)}"

    def question(self) -> dict[str, object]:
        """The same for the API: its end is exclusive."""
        period = {"start": self.first.isoformat(), "end": (self.last + timedelta(days=1)).isoformat()}
        return period | {name: [value] for name, value in self.filters.items()}

    def csv_url(self) -> str:
        return f"/v1/requests?{urlencode(self.question() | {'format': 'csv'}, doseq=True)}"


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request of the journal; marks say in words what is particular about it."""

    url: str
    started: str
    model: str
    operation: str
    who: tuple[str, ...]
    quantities: tuple[str, ...]
    duration: str
    status: str
    marks: tuple[str, ...]
    cost: str | None
    carbon: str | None


@dataclass(frozen=True, slots=True)
class JournalPage:
    """A page of the journal; older_url, newest_url None: there is no such page."""

    selection: JournalSelection
    period: str
    caption: str
    selects: tuple[Select, ...]
    rows: tuple[RequestRow, ...]
    older_url: str | None
    newest_url: str | None


@dataclass(frozen=True, slots=True)
class EmissionsRow:
    """What a request emitted in an hour."""

    hour: str
    tier: str
    energy: str | None
    total: Measured
    factors: str


@dataclass(frozen=True, slots=True)
class RequestPage:
    """One request; facts: heading and value, None where it isn't known."""

    title: str
    row: RequestRow
    facts: tuple[tuple[str, str | None], ...]
    batch: str
    hash: str
    sum_heading: str
    sum: str
    lines_heading: str
    lines: tuple[str, ...] | None
    documents: tuple[str, ...] | None
    corrections: tuple[tuple[str, str], ...]
    emissions: tuple[EmissionsRow, ...]


def journal_selection(pairs: Sequence[tuple[str, str]], *, today: date, language: Language) -> JournalSelection:
    """What an address asks of the journal; empty values are as if absent. Raises: BadSelection."""
    given = {name: value.strip() for name, value in pairs if value.strip()}
    problems = [say(language, "bad.unknown", name=name[:40]) for name in given if name not in PARAMETERS]
    problems += [
        say(language, "bad.long", name=name, most=FILTER_LENGTH_MAX)
        for name, value in given.items()
        if len(value) > FILTER_LENGTH_MAX
    ]
    days: dict[str, date] = {}
    for name in ("to", "from"):
        default = today if name == "to" else days["to"] - timedelta(days=DEFAULT_DAYS - 1)
        try:
            days[name] = date.fromisoformat(given[name]) if name in given else default
            if not 2000 <= days[name].year <= 2200:
                raise ValueError(given[name])
        except ValueError:
            days[name] = default
            problems.append(say(language, "bad.date", name=name))
    if days["from"] > days["to"]:
        first, last = wording.day(days["from"], language), wording.day(days["to"], language)
        problems.append(say(language, "bad.order", first=first, last=last))
    if given.get("status", "ok") not in STATUSES:
        problems.append(say(language, "bad.choice", name="status", expected=", ".join(STATUSES)))
    if problems:
        raise BadSelection(problems)
    filters = {name: given[name] for name in FILTERS if name in given}
    return JournalSelection(days["from"], days["to"], filters, given.get("cursor"))


def journal_page(
    selection: JournalSelection,
    found: Sequence[tuple[LoggedRequest, Cost | None]],
    next_cursor: str | None,
    choices: Mapping[str, Sequence[str]],
    reader: Principal,
    language: Language,
) -> JournalPage:
    """The journal for a selection. choices: values that each filter offers."""
    period = wording.period(selection.first, selection.last, language)
    return JournalPage(
        selection=selection,
        period=period,
        caption=say(language, "requests.caption", period=wording.in_sentence(period)),
        selects=tuple(_selects(selection, choices, reader, language)),
        rows=tuple(request_row(one, cost, language) for one, cost in found),
        older_url=None if next_cursor is None else selection.url(language, next_cursor),
        newest_url=None if selection.cursor is None else selection.url(language),
    )


def offered_filters(reader: Principal) -> tuple[str, ...]:
    """Filters that a reader has a choice of."""
    own = {"operator": (), "manager": ("tenant",), "member": ("tenant", "user")}.get(reader.role, ())
    return tuple(name for name in FILTERS if name not in own)


def _selects(
    selection: JournalSelection, choices: Mapping[str, Sequence[str]], reader: Principal, language: Language
) -> list[Select]:
    selects = []
    for name in offered_filters(reader):
        chosen = selection.filters.get(name, "")
        if name == "status":
            offered = [(value, say(language, f"requests.status.{value}")) for value in STATUSES]
        else:
            values = sorted({*choices.get(name, ()), *([chosen] if chosen else [])})
            offered = [(value, group_label(value, name, language)) for value in values]
        label = say(language, f"requests.filter.{name}" if name in {"user", "api_key", "status"} else f"filter.{name}")
        every = [("", say(language, "filter.any")), *offered]
        selects.append(Select(name, label, tuple(Choice(value, text, value == chosen) for value, text in every)))
    return selects


def request_row(one: LoggedRequest, cost: Cost | None, language: Language) -> RequestRow:
    """A request in words."""
    marks = [say(language, f"requests.{one.state}")] if one.state != "recorded" else []
    if one.uncounted:
        marks.append(say(language, "requests.uncounted"))
    return RequestRow(
        url=f"{PATH}/{one.id}?lang={language}",
        started=_instant(one.started_at, language),
        model=one.model,
        operation=group_label(one.operation, "operation", language),
        who=tuple(name for name in (one.project, one.user, one.api_key) if name is not None),
        quantities=_amounts(one.quantities, language),
        duration=wording.duration(max(0, (one.ended_at - one.started_at) // timedelta(milliseconds=1)), language),
        status=say(language, f"requests.status.{one.status}"),
        marks=tuple(marks),
        cost=None if cost is None else wording.money(cost.nano, cost.currency, language, COST_DECIMALS_MAX),
        carbon=None if one.carbon_ng is None else wording.bare_mass(one.carbon_ng, language),
    )


def _instant(value: datetime, language: Language) -> str:
    """A moment with its seconds."""
    return f"{wording.moment(value, ZONE, language)}:{value.astimezone(ZONE).second:02d}"


def _amounts(quantities: Mapping[str, int | None], language: Language) -> tuple[str, ...]:
    known = [(name, value) for name in SHOWN_QUANTITIES if (value := quantities[name]) is not None]
    return tuple(wording.amount_in_sentence(value, name, language) for name, value in known)


def request_page(one: LoggedRequest, cost: Cost | None, trail: Trail, language: Language) -> RequestPage:
    """One request and its trail. lines, documents None: they aren't the reader's."""
    is_whole = trail.sum is None or trail.sum.kind == "hour"
    lines = tuple(
        say(
            language, "requests.trail.line", quantity=wording.number(line.quantity, language), price=line.unit_price,
            unit=line.unit, amount=f"{line.amount} {line.currency}",
        )
        for line in trail.lines
    )  # fmt: skip
    documents = tuple(
        f"{say(language, f'requests.document.{one.kind}')} {one.number} ({wording.day(one.issued_on, language)})"
        for one in trail.documents
    )
    return RequestPage(
        title=say(language, "requests.one", event=one.event),
        row=request_row(one, cost, language),
        facts=_facts(one, language),
        batch=_batch(trail, language),
        hash=trail.batch.hash,
        sum_heading=say(language, "requests.trail.hour" if is_whole else "requests.trail.day"),
        sum=_sum(trail, language),
        lines_heading=say(language, "requests.trail.lines", month=_month(trail.month, language)),
        lines=lines if is_whole else None,
        documents=documents if is_whole else None,
        corrections=_corrections(trail, language),
        emissions=tuple(_emissions(hour, language) for hour in trail.emissions if hour.batch is not None),
    )


def _facts(one: LoggedRequest, language: Language) -> tuple[tuple[str, str | None], ...]:
    http = None if one.http_status is None else str(one.http_status)
    values = {
        "source": one.source, "event": one.event, "ended": _instant(one.ended_at, language), "tenant": one.tenant,
        "requested": one.model_requested, "http": http, "error": one.error_code,
    }  # fmt: skip
    return tuple(
        (say(language, f"requests.fact.{name}"), value)
        for name, value in values.items()
        if value is not None or name == "http"
    )


def _batch(trail: Trail, language: Language) -> str:
    rows = (
        say(language, "requests.trail.rows_one")
        if trail.batch.rows == 1
        else say(language, "requests.trail.rows", count=wording.number(trail.batch.rows, language))
    )
    when = wording.moment(trail.batch.recorded_at, ZONE, language)
    return say(
        language, "requests.trail.batch.said", seq=wording.number(trail.batch.seq, language), when=when, rows=rows
    )


def _sum(trail: Trail, language: Language) -> str:
    if trail.sum is None:
        return say(language, "requests.trail.no_sum")
    first, last = (wording.moment(edge, ZONE, language) for edge in (trail.sum.starts_at, trail.sum.ends_at))
    requests = wording.amount(trail.sum.quantities["requests"] or 0, "requests", language)
    known = ", ".join(_amounts(trail.sum.quantities, language)) or "—"
    return say(language, "requests.trail.sum.said", first=first, last=last, requests=requests, quantities=known)


def _month(month: str, language: Language) -> str:
    year, number = map(int, month.split("-"))
    return wording.month(date(year, number, 1), language)


def _corrections(trail: Trail, language: Language) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            say(language, f"requests.correction.{one.kind}"),
            say(
                language, "requests.correction.said", seq=wording.number(one.batch, language),
                when=wording.moment(one.recorded_at, ZONE, language), reason=one.reason,
            ),
        )
        for one in trail.corrections
    )  # fmt: skip


def _emissions(hour: EmissionsShown, language: Language) -> EmissionsRow:
    def mass(value: int | None) -> str | None:
        return None if value is None else wording.bare_mass(value, language)

    total, lower, upper = map(mass, (hour.total_ng, hour.total_lower_ng, hour.total_upper_ng))
    between = "" if lower is None or upper is None else wording.between(lower, upper, language)
    tier = "" if hour.tier is None else say(language, f"carbon.tier.{hour.tier}")
    due = say(language, "requests.emissions.due") if hour.is_due else ""
    return EmissionsRow(
        hour=wording.bucket_label(hour.hour.astimezone(UTC), "hour", ZONE, language),
        tier=" – ".join(filter(None, (tier, due))),
        energy=None if hour.energy_uj is None else wording.energy(hour.energy_uj, language),
        total=Measured(total, between),
        factors=", ".join(hour.factors),
    )

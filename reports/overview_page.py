"""The page "Vue d'ensemble": from what the ledger and other rooms told to texts and figures, ready to show. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from metering.identity import Principal
from reports import wording
from reports.carbon import CarbonRow
from reports.carbon_words import emissions_of
from reports.choosing import capital, group_label
from reports.figures import TOTAL_TOKENS, quantity_of, rank, sum_of
from reports.journal_api import Cost
from reports.limits_said import said_amount
from reports.notices import announcements
from reports.overview import Amounts, EnvelopeLeft, Overview, Told, together
from reports.quotas_page import NEAR_PERCENT, MeterRow, meter_row, said_days_left
from reports.selection import CARBON, ZONE, Selection
from reports.shown import Announcement, Empty, Figure, Headline, Link, Measured
from reports.usage import UsageRow
from reports.usage_page import usage_figure
from reports.wording import FIXED, Language, say

RANKED_ROWS = 10
CENT_DECIMALS = 2


@dataclass(frozen=True, slots=True)
class RankedUse:
    """An administration or project of the period. url, carbon_url: its figures and emissions; None without a name."""

    name: str
    url: str | None
    carbon_url: str | None
    requests: str
    tokens: str | None
    share: str | None
    uncounted: str
    emissions: Measured
    unmeasured: str


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A key that ends soon: whose it is, when, and in how many days."""

    name: str
    owner: str
    expires: str
    soon: str


@dataclass(frozen=True, slots=True)
class EnvelopeLine:
    """An envelope: how much of it is used, what is likely by the end, and what that doesn't hold."""

    title: str
    used: str | None
    percent: int | None
    likely: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """The page with every text ready. meters None: see limits_why."""

    title: str
    period: str
    as_of: str
    announcements: tuple[Announcement, ...]
    headlines: tuple[Headline, ...]
    notes: tuple[str, ...]
    figure: Figure | None
    ranking_title: str
    ranking_heading: str
    ranking: tuple[RankedUse, ...]
    all_url: str
    meters: tuple[MeterRow, ...] | None
    limits_why: str
    ending: tuple[KeyLine, ...]
    ending_why: str
    envelopes: tuple[EnvelopeLine, ...]
    empty: Empty | None


def overview_page(selection: Selection, found: Overview, told: Told, reader: Principal, now: datetime) -> OverviewPage:
    """The page for a reader at an instant."""
    language = selection.language
    if sum_of(found.use, TOTAL_TOKENS) is None:
        selection = replace(selection, quantity="requests")
    period = wording.period(selection.first, selection.last, language)
    meters = None if told.standings is None else tuple(meter_row(one, language) for one in told.standings)
    near = None if meters is None else tuple(one for one in meters if (one.percent or 0) >= NEAR_PERCENT)
    return OverviewPage(
        title=_title(found, reader, language),
        period=period,
        as_of=_as_of(found, language),
        announcements=announcements(found.news, language),
        headlines=(*_use_headlines(found, language), *_amount_headlines(told.amounts, reader, language)),
        notes=_notes(told.amounts, now.astimezone(ZONE).date(), language),
        figure=usage_figure(selection, found.use, rank(found.use, selection.group_by, selection.quantity), period)
        if found.use
        else None,
        ranking_title=say(language, "overview.ranking", group=say(language, f"group.{selection.group}")),
        ranking_heading=capital(say(language, f"group.{selection.group}")),
        ranking=_ranking(selection, found),
        all_url=selection.url(),
        meters=None if near is None else tuple(sorted(near, key=lambda one: -(one.percent or 0))),
        limits_why=_limits_why(near, reader, language),
        ending=tuple(
            KeyLine(
                one.name,
                one.tenant if reader.tenant is None else one.account or say(language, "quotas.key.program"),
                wording.moment(one.expires_at, ZONE, language),
                said_days_left(one.expires_at, now, language),
            )
            for one in found.ending
        ),
        ending_why=_ending_why(found, language),
        envelopes=tuple(_envelope(one, language) for one in told.envelopes),
        empty=None if found.use else _empty(selection, found, reader, period),
    )


def _title(found: Overview, reader: Principal, language: Language) -> str:
    if reader.role == "member":
        return say(language, "overview.own")
    if found.administration is not None:
        return say(language, "overview.of", administration=found.administration)
    return say(language, "overview")


def _as_of(found: Overview, language: Language) -> str:
    if found.newest is None:
        return say(language, "as_of_nothing")
    seq, recorded_at = found.newest
    said = say(language, "as_of", seq=wording.number(seq, language), when=wording.moment(recorded_at, ZONE, language))
    if found.posted_until is None:
        return f"{said} {say(language, 'carbon.known_nothing')}"
    until = wording.moment(found.posted_until, ZONE, language)
    return f"{said} {say(language, 'overview.carbon_until', when=until)}"


def _empty(selection: Selection, found: Overview, reader: Principal, period: str) -> Empty:
    language = selection.language
    if found.newest is None and reader.role == "operator":
        return Empty(say(language, "empty.nothing"), (), is_new=True)
    reason = say(language, "empty.period", period=wording.in_sentence(period))
    return Empty(reason, (Link(say(language, "overview.earlier"), selection.url()),), is_new=False)


# Figures of the period


def _use_headlines(found: Overview, language: Language) -> tuple[Headline, ...]:
    failed = sum(sum_of(found.use, f"requests_{status}") or 0 for status in ("error", "aborted", "refused"))
    uncounted = sum_of(found.use, "uncounted_requests") or 0
    missing = (
        say(language, "overview.uncounted", requests=wording.amount(uncounted, "requests", language))
        if uncounted
        else ""
    )
    parts = [
        wording.amount(value, name, language)
        for name in ("input_tokens", "output_tokens")
        if (value := sum_of(found.use, name)) is not None
    ]
    requests = sum_of(found.use, "requests") or 0
    return (
        Headline(
            wording.quantity_name("requests", language),
            wording.number(requests, language),
            wording.unit(requests, "requests", language),
            say(language, "overview.failed", count=wording.number(failed, language)) if failed else "",
        ),
        _quantity(found.use, TOTAL_TOKENS, " · ".join([*parts, *filter(None, [missing])]), language),
        _quantity(found.use, "audio_ms", "", language),
        _emissions(together(found.emissions), language),
    )


def _quantity(rows: Sequence[UsageRow], name: str, note: str, language: Language) -> Headline:
    total, label = sum_of(rows, name), wording.quantity_name(name, language)
    if total is None:
        return Headline(label, None, note=note)
    unit = "" if name in wording.DURATIONS else wording.unit(total, name, language)
    return Headline(label, wording.bare_amount(total, name, language), unit, note)


def _emissions(whole: CarbonRow | None, language: Language) -> Headline:
    label = say(language, "carbon.total")
    if whole is None:
        return Headline(label, None)
    said = emissions_of(whole.figures, "total", language, wording.mass)
    unknown = (
        say(language, "overview.unmeasured", requests=wording.amount(whole.requests_unknown, "requests", language))
        if whole.requests_unknown
        else ""
    )
    note = " · ".join(filter(None, [said.between, unknown]))
    if said.value is None:
        return Headline(label, None, note=note)
    amount, _, unit = said.value.partition(FIXED)
    return Headline(label, amount, unit, note)


def _amount_headlines(amounts: Amounts | None, reader: Principal, language: Language) -> tuple[Headline, ...]:
    """What will be invoiced, apart from what is only valued; a member is invoiced nothing."""
    if amounts is None:
        return ()
    month = wording.month(amounts.month, language)
    valued = Headline(say(language, "overview.valued", month=month), *_money(amounts.valued, amounts, language))
    if reader.role == "member":
        return (valued,)
    return Headline(say(language, "overview.billed", month=month), *_money(amounts.billed, amounts, language)), valued


def _money(costs: Sequence[Cost], amounts: Amounts, language: Language) -> tuple[str | None, str, str]:
    """Value, unit and note; unknown where nothing has an amount though something was used."""
    if not costs:
        is_unknown = amounts.gaps > 0 and not amounts.billed and not amounts.valued
        note = say(language, "overview.unpriced") if is_unknown else ""
        return (None if is_unknown else say(language, "overview.nothing")), "", note
    return (
        " + ".join(wording.money(one.nano, one.currency, language, CENT_DECIMALS) for one in costs),
        "",
        say(language, "overview.net"),
    )


def _notes(amounts: Amounts | None, today: date, language: Language) -> tuple[str, ...]:
    if amounts is None:
        return ()
    notes = [say(language, "overview.indicative", when=wording.day(today, language))]
    if amounts.gaps:
        notes.append(say(language, "overview.gaps", count=wording.number(amounts.gaps, language)))
    return tuple(notes)


def _ranking(selection: Selection, found: Overview) -> tuple[RankedUse, ...]:
    """The first groups by what the chart shows, with their emissions."""
    language, group = selection.language, selection.group
    members: dict[str | None, list[UsageRow]] = {}
    for row in found.use:
        members.setdefault(row.group[group], []).append(row)
    emitted: Mapping[str | None, CarbonRow] = {row.group[group]: row for row in found.emissions}
    standings = rank(found.use, group, selection.quantity)
    whole = sum(one.total or 0 for one in standings)
    asked = replace(selection, group="model", language_is_asked=True)
    return tuple(
        RankedUse(
            name=group_label(one.name, group, language),
            url=None if one.name is None else asked.url(filters={group: one.name}),
            carbon_url=None if one.name is None else replace(asked, place=CARBON).url(filters={group: one.name}),
            requests=wording.number(sum_of(members[one.name], "requests") or 0, language),
            tokens=_tokens(members[one.name], language),
            share=wording.share(one.total, whole, language) if one.total is not None and whole > 0 else None,
            uncounted=wording.number(one.uncounted, language),
            emissions=_group_emissions(emitted.get(one.name), language),
            unmeasured=wording.number(emitted[one.name].requests_unknown if one.name in emitted else 0, language),
        )
        for one in standings[:RANKED_ROWS]
    )


def _tokens(rows: Sequence[UsageRow], language: Language) -> str | None:
    known = [value for row in rows if (value := quantity_of(row, TOTAL_TOKENS)) is not None]
    return wording.number(sum(known), language) if known else None


def _group_emissions(row: CarbonRow | None, language: Language) -> Measured:
    return Measured(None) if row is None else emissions_of(row.figures, "total", language)


# What asks for attention


def _limits_why(near: Sequence[MeterRow] | None, reader: Principal, language: Language) -> str:
    if reader.tenant is None:
        return say(language, "overview.limits.choose")
    if near is None:
        return say(language, "overview.limits.away")
    return "" if near else say(language, "overview.limits.none", percent=NEAR_PERCENT)


def _ending_why(found: Overview, language: Language) -> str:
    if not found.ending:
        return say(language, "overview.keys.none")
    rest = found.ending_count - len(found.ending)
    return say(language, "overview.keys.more", count=wording.number(rest, language)) if rest else ""


def _envelope(one: EnvelopeLeft, language: Language) -> EnvelopeLine:
    def said(value: int) -> str:
        if one.meter == "cost_neur":
            return wording.money(value, "EUR", language, CENT_DECIMALS)
        return said_amount(value, one.meter, language)

    notes = []
    if one.runs_out_on is not None:
        notes.append(say(language, "overview.envelope.runs_out", when=wording.day(one.runs_out_on, language)))
    if one.unknown:
        notes.append(say(language, "overview.envelope.unknown", count=wording.number(one.unknown, language)))
    likely = say(language, "overview.envelope.unforeseen")
    if one.likely is not None:
        value, lower, upper = map(said, one.likely)
        likely = say(
            language, "overview.envelope.likely", value=value, range=wording.between(lower, upper, language),
            when=wording.day(one.ends_on, language),
        )  # fmt: skip
    used = percent = None
    if one.consumed is not None:
        used = say(language, "overview.envelope.used", used=said(one.consumed), envelope=said(one.envelope))
        percent = max(0, min(100, 100 * one.consumed // one.envelope)) if one.envelope else 100
    return EnvelopeLine(one.title, used, percent, likely, tuple(notes))

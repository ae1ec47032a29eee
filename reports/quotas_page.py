"""The page "Quotas et clés": limits with where they stand, keys, open holds and requests for a raise. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from metering.identity import Principal
from reports import wording
from reports.limits_said import said_amount, said_limit, said_place
from reports.selection import ZONE
from reports.standing import AskedRaise, HeldKey, OpenHold, Quotas, Standing
from reports.wording import Language, say

NEAR_PERCENT = 80
SOON_DAYS = 30
"""Keys that end within so many days say in how many."""


@dataclass(frozen=True, slots=True)
class MeterRow:
    """A limit and where it stands; percent 0 to 100, None without a value. mark: in words what the bar repeats."""

    limit: str
    place: str
    used: str
    held: str
    remaining: str
    reset: str
    percent: int | None
    mark: str


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key. revocable: its id, where it isn't revoked yet."""

    revocable: str | None
    name: str
    prefix: str
    owner: str
    expires: str
    soon: str
    used: str
    status: str


@dataclass(frozen=True, slots=True)
class HoldRow:
    """An open hold."""

    model: str | None
    who: str
    opened: str
    expires: str


@dataclass(frozen=True, slots=True)
class RaiseRow:
    """A request for a raise. withdrawable: its id, where its reader may take it back."""

    limit: str
    place: str
    asked: str
    study: str
    state: str
    reason: str
    withdrawable: str | None


@dataclass(frozen=True, slots=True)
class QuotasPage:
    """The page with every text ready. meters None: the counters are away; ends_charts: its reader may end links."""

    heading: str
    tenant: str
    meters: tuple[MeterRow, ...] | None
    keys: tuple[KeyRow, ...]
    holds: tuple[HoldRow, ...]
    raises: tuple[RaiseRow, ...]
    ends_charts: bool


def quotas_page(quotas: Quotas, reader: Principal, now: datetime, language: Language) -> QuotasPage:
    """The page of an administration's quotas at an instant; the limits that are nearest come first."""
    standings = quotas.standings
    meters = None if standings is None else [meter_row(one, language) for one in standings]
    return QuotasPage(
        heading=say(language, "quotas.of", administration=quotas.administration, plan=quotas.plan),
        tenant=quotas.tenant,
        meters=None if meters is None else tuple(sorted(meters, key=lambda one: -(one.percent or 0))),
        keys=tuple(_key(one, now, language) for one in quotas.keys),
        holds=tuple(_hold(one, language) for one in quotas.holds),
        raises=tuple(_raise(one, language) for one in quotas.raises),
        ends_charts=reader.role != "member",
    )


def meter_row(one: Standing, language: Language) -> MeterRow:
    """A limit and where it stands, in words."""
    rule = one.rule

    def said(amount: int) -> str:
        return said_amount(amount, rule.meter, language)

    reset = None if one.reset_at is None else wording.moment(one.reset_at, ZONE, language)
    taken, percent, mark = one.used + one.held, None, ""
    if rule.value is not None:
        percent = min(100, 100 * taken // rule.value) if rule.value else 100
        if taken > rule.value:
            mark = say(language, "quotas.over")
        elif percent >= NEAR_PERCENT:
            mark = say(language, "quotas.reached" if taken == rule.value else "quotas.near")
    return MeterRow(
        limit=said_limit(rule, language),
        place=said_place(rule, language),
        used=said(one.used),
        held=said(one.held),
        remaining=say(language, "quotas.unlimited") if one.remaining is None else said(one.remaining),
        reset=reset or say(language, "quotas.no_reset"),
        percent=percent,
        mark=mark,
    )


def _key(one: HeldKey, now: datetime, language: Language) -> KeyRow:
    soon = ""
    if one.expires_at is not None and one.status == "active" and one.expires_at <= now + timedelta(days=SOON_DAYS):
        soon = said_days_left(one.expires_at, now, language)
    owner = one.account or say(language, "quotas.key.program")
    return KeyRow(
        revocable=None if one.status == "revoked" else one.id,
        name=one.name,
        prefix=one.prefix,
        owner=owner if one.project is None else f"{owner}, {one.project}",
        expires=say(language, "quotas.key.no_end")
        if one.expires_at is None
        else wording.moment(one.expires_at, ZONE, language),
        soon=soon,
        used=say(language, "quotas.key.never") if one.last_used_on is None else wording.day(one.last_used_on, language),
        status=say(language, f"quotas.key.status.{one.status}"),
    )


def said_days_left(expires_at: datetime, now: datetime, language: Language) -> str:
    """In how many days something ends."""
    days = (expires_at - now).days
    return say(language, "quotas.key.days", days=days) if days > 1 else say(language, "quotas.key.day")


def _hold(one: OpenHold, language: Language) -> HoldRow:
    who = [name for name in (one.project, one.user, one.api_key) if name is not None]
    opened, expires = (wording.moment(instant, ZONE, language) for instant in (one.opened_at, one.expires_at))
    return HoldRow(one.model, ", ".join(who), opened, expires)


def _raise(one: AskedRaise, language: Language) -> RaiseRow:
    counts = {"refused": wording.number(one.refused, language), "requests": _requests(one.requests, language)}
    if one.peak is None:
        study = say(language, "quotas.raise.study.unmeasured", **counts)
    else:
        study = say(language, "quotas.raise.study.said", peak=said_amount(one.peak, one.rule.meter, language), **counts)
    return RaiseRow(
        limit=said_limit(one.rule, language),
        place=said_place(one.rule, language),
        asked=wording.moment(one.asked_at, ZONE, language),
        study=study,
        state=say(language, f"quotas.raise.state.{one.state}"),
        reason=one.reason or "",
        withdrawable=one.own,
    )


def _requests(count: int, language: Language) -> str:
    return wording.amount(count, "requests", language)

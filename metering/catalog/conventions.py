"""Which version of which convention holds on a day, and the terms of use that follow."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from metering.catalog.documents import Convention, Outage, Plan, Tier
from metering.catalog.snapshot import Snapshot
from metering.rules.periods import PARIS, day_bounds


@dataclass(frozen=True, slots=True)
class TermsOfUse:
    """How an administration may use the platform: tier and outage are the convention's where there is one."""

    plan: Plan
    convention: Convention | None
    tier: Tier
    outage: Outage


def convention_in_force(snapshot: Snapshot, tenant: str, day: date) -> Convention | None:
    """The version of a convention that holds for an administration on a day of the books, see `version_in_force`."""
    return version_in_force(snapshot.conventions.get(tenant, ()), day)


def version_in_force(versions: Iterable[Convention], day: date) -> Convention | None:
    """Of an administration's conventions, in all their versions, the one that holds on a day of the books.

    Of each convention the latest version that has taken effect counts, within its own term: an amendment may shorten
    it. Of several conventions the one whose term started last holds, alone: limits of two agreements would have to be
    added up or played against each other, which neither says; whoever wants both together amends one of them.
    """
    latest: dict[str, Convention] = {}
    for version in versions:
        known = latest.get(version.id)
        if version.effective_on <= day and (known is None or known.version < version.version):
            latest[version.id] = version
    holding = [one for one in latest.values() if one.starts_on <= day <= one.ends_on]
    return max(holding, key=lambda one: (one.starts_on, one.signed_on, one.id), default=None)


def terms_of_use(snapshot: Snapshot, tenant: str, now: datetime) -> TermsOfUse:
    """The plan of an administration, its convention of the day, and the tier and outage that hold."""
    plan = snapshot.plan_of(tenant)
    convention = convention_in_force(snapshot, tenant, now.astimezone(PARIS).date())
    chosen = convention or plan
    return TermsOfUse(plan, convention, chosen.tier, chosen.outage)


def term_bounds(convention: Convention) -> tuple[datetime, datetime]:
    """Start and end, in UTC, of the term."""
    return day_bounds(convention.starts_on)[0], day_bounds(convention.ends_on)[1]

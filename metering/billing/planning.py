"""From a closing to its documents: what the month comes to, what came late for months before, who is billed.

Everything is read as of the batches and the change of the catalogue that the closing names, and of documents only those
of months before. So the same closing gives the same documents, whatever was recorded since.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import sqlalchemy as sa

from metering.billing.documents import documents_of
from metering.billing.figures import carbon_of, days_of
from metering.billing.late import late_tenants
from metering.billing.parties import Parties, parties_as_of
from metering.billing.periods import Closing, final_closings, month_before
from metering.billing.prices import Tariffs, tariffs_as_of
from metering.billing.rating import AsOf, Rating, rate_tenants, read_month
from metering.billing.rating import Period as RatedPeriod
from metering.ledger.sealed import open_month
from metering.ledger.sealing import seal_of
from metering.rules.billing.composing import BOOKS_CURRENCY, Correction, Issue, TenantMonth, compose
from metering.rules.billing.correcting import (
    AccountKey,
    account_of,
    corrections,
    document_line,
    signed_lines,
)
from metering.rules.billing.documents import (
    BillingDocument,
    DocumentLine,
    Period,
    Preceding,
    Provenance,
    Unpriced,
)
from metering.rules.chain import GENESIS
from metering.rules.periods import PARIS
from metering.rules.rating.months import Gap, Month
from metering.tables import ledger_batch


@dataclass(frozen=True, slots=True)
class LateGap:
    """Usage without an amount that came after its month was closed."""

    tenant: str
    month: str
    gap: Gap
    amount: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Documents in the order in which they get their numbers, and what a review looks at.

    ratings, previous: of the month and the one before, of all administrations; corrections: by administration.
    """

    documents: tuple[BillingDocument, ...]
    parties: Parties
    ratings: Sequence[Rating]
    previous: Sequence[Rating]
    corrections: Mapping[str, Sequence[Correction]]
    late_gaps: Sequence[LateGap]


def plan_month(connection: sa.Connection, closing: Closing, data: Path) -> Plan:
    """The documents of a closing. connection: in a transaction of one state. data: the folder with sealed months.

    Raises: NotFound for batches to come; Conflict where the files of a sealed month aren't as they were sealed.
    """
    period = closing.period
    as_of = AsOf(closing.ledger_batch, closing.carbon_batch)
    tariffs = tariffs_as_of(connection, closing.catalog_version)
    parties = parties_as_of(connection, closing.catalog_version)
    tenants = sorted(parties.tenants)
    ratings = _rated(connection, data, tariffs, tenants, period, as_of)
    previous = _rated(connection, data, tariffs, tenants, read_month(month_before(closing.month)), as_of)
    late = _Late(connection, closing, parties, data)
    late.read()
    carbon = carbon_of(connection, period, closing.carbon_batch)
    days = days_of(connection, period, as_of)
    issue = _issue(connection, closing, parties)
    last_day = period.end.astimezone(PARIS).date() - timedelta(days=1)
    documents: list[BillingDocument] = []
    for rating in ratings:
        tenant = rating.tenant
        lines, unpriced = _by_account(closing.month, rating.month, parties, tenant)
        if tenant in days and not lines and not unpriced:
            unpriced[_default_account(tariffs, tenant, last_day)] = []
        month = TenantMonth(
            buyer=parties.buyer(tenant, last_day),
            lines=lines,
            unpriced=unpriced,
            corrections=late.corrections.get(tenant, ()),
            carbon=carbon.get(tenant),
            days=days.get(tenant, ()),
        )
        documents += compose(issue, month)
    return Plan(tuple(documents), parties, ratings, previous, late.corrections, late.gaps)


def _rated(
    connection: sa.Connection, data: Path, tariffs: Tariffs, tenants: Sequence[str], period: RatedPeriod, as_of: AsOf
) -> list[Rating]:
    """A month rated: from its files where it is sealed, which are far sooner read than entries as of a batch."""
    seal = seal_of(connection, period.month)
    return rate_tenants(connection, tariffs, tenants, period, as_of, None if seal is None else open_month(seal, data))


def _by_account(
    month: str, rated: Month, parties: Parties, tenant: str
) -> tuple[dict[AccountKey, list[DocumentLine]], dict[AccountKey, list[Unpriced]]]:
    """A rated month as lines of documents, and what it has without an amount, by account."""
    projects = parties.projects_of(tenant)
    lines: dict[AccountKey, list[DocumentLine]] = {}
    for one in rated.lines:
        lines.setdefault(account_of(one), []).append(document_line(month, one, projects, parties.models))
    amounts: dict[AccountKey, dict[tuple[str, str], int]] = {}
    for gap, amount in rated.gaps:
        sums = amounts.setdefault(_account_of_gap(gap), defaultdict(int))
        sums[gap.reason, gap.quantity] += amount
    unpriced = {
        account: [Unpriced(*key, amount) for key, amount in sorted(sums.items())] for account, sums in amounts.items()
    }
    return lines, unpriced


def _account_of_gap(gap: Gap) -> AccountKey:
    account = gap.account
    return AccountKey(account.convention, account.settlement, account.currency or BOOKS_CURRENCY)


def _default_account(tariffs: Tariffs, tenant: str, last_day: date) -> AccountKey:
    account = tariffs.terms_on(tenant, last_day).account
    return AccountKey(account.convention, account.settlement, account.currency or BOOKS_CURRENCY)


def _issue(connection: sa.Connection, closing: Closing, parties: Parties) -> Issue:
    issuer = parties.issuer
    known = sa.select(ledger_batch.c.hash).where(ledger_batch.c.seq == closing.ledger_batch)
    period = closing.period
    return Issue(
        issued_on=closing.issued_on,
        period=Period(period.month, period.start, period.end),
        seller=parties.seller,
        iban=issuer.iban if issuer else None,
        bic=issuer.bic if issuer else None,
        days_to_pay=issuer.days_to_pay if issuer else 0,
        provenance=Provenance(
            closing.ledger_batch,
            bytes(connection.scalar(known) or GENESIS).hex(),
            closing.carbon_batch or None,
            closing.catalog_version,
        ),
        exchange=parties.exchange_on(closing.issued_on),
    )


class _Late:
    """What came for closed months since the closing before: corrections, and usage without an amount."""

    def __init__(self, connection: sa.Connection, closing: Closing, parties: Parties, data: Path) -> None:
        self._connection = connection
        self._data = data
        self._closing = closing
        self._parties = parties
        self.corrections: dict[str, list[Correction]] = {}
        self.gaps: list[LateGap] = []

    def read(self) -> None:
        closed = final_closings(self._connection, before=self._closing.month)
        if not closed:
            return
        since = closed[-1]
        for month, tenants in late_tenants(self._connection, closed, since, self._closing).items():
            of_month = next(one for one in closed if one.month == month)
            self._correct(of_month, since, sorted(tenants))

    def _correct(self, of_month: Closing, since: Closing, tenants: list[str]) -> None:
        """A closed month again, with the prices of its own closing."""
        tariffs = tariffs_as_of(self._connection, of_month.catalog_version)
        now = AsOf(self._closing.ledger_batch, self._closing.carbon_batch)
        then = AsOf(since.ledger_batch, since.carbon_batch)
        rated, before = (
            _rated(self._connection, self._data, tariffs, tenants, of_month.period, as_of) for as_of in (now, then)
        )
        made = documents_of(self._connection, tenants, self._closing.month)
        for new, old in zip(rated, before, strict=True):
            tenant = new.tenant
            own = [one for one in made if one.buyer.id == tenant]
            lines, _ = _by_account(of_month.month, new.month, self._parties, tenant)
            found = _corrections(of_month.month, own, lines)
            self.corrections.setdefault(tenant, []).extend(found)
            known = dict(old.month.gaps)
            self.gaps += [
                LateGap(tenant, of_month.month, gap, amount - known.get(gap, 0))
                for gap, amount in new.month.gaps
                if amount > known.get(gap, 0)
            ]


def _corrections(
    month: str, made: Iterable[BillingDocument], lines: Mapping[AccountKey, Sequence[DocumentLine]]
) -> list[Correction]:
    """What an administration's documents say of a month, brought to its lines, by account."""
    documented: dict[AccountKey, list[DocumentLine]] = {}
    preceding: dict[AccountKey, Preceding] = {}
    for document in made:
        account = AccountKey(document.convention, document.settlement, document.currency)
        of_month = [line for line in signed_lines(document) if line.month == month]
        documented.setdefault(account, []).extend(of_month)
        if of_month and document.kind == "invoice" and document.number is not None:
            preceding[account] = Preceding(document.number, document.issued_on)
    found = []
    for account in sorted({*documented, *lines}, key=repr):
        changed = corrections(documented.get(account, ()), lines.get(account, ()))
        if changed:
            found.append(Correction(account, month, tuple(changed), preceding.get(account)))
    return found

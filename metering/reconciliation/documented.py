"""What documents say of a closed month, against the lines of that month as it was rated last."""

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from metering.billing.documents import documents_of
from metering.billing.periods import Closing, final_closings, is_closed, month_after
from metering.billing.prices import tariffs_as_of
from metering.billing.rating import AsOf, Period, Rating, rate_tenants
from metering.rules.billing.correcting import account_of, signed_lines
from metering.rules.billing.documents import BillingDocument
from metering.rules.reconciling import Cells, Key
from metering.tables import tenant

KEYS = ("tenant", "convention", "settlement")


@dataclass(frozen=True, slots=True)
class Documented:
    """Cents of lines by administration and account, one quantity a currency. until: the last month that was closed."""

    rated: Cells
    said: Cells
    quantities: tuple[str, ...]
    until: str


def documented(connection: sa.Connection, period: Period) -> Documented | None:
    """A month that is closed: as of the newest closing, which all that came late until then is in. None: it isn't."""
    closings = [one for one in final_closings(connection) if is_closed(connection, one.month)]
    own = next((one for one in closings if one.month == period.month), None)
    if own is None:
        return None
    newest = closings[-1]
    tenants = sorted(connection.scalars(sa.select(tenant.c.id)))
    said = _of_documents(documents_of(connection, tenants, month_after(newest.month)), period.month)
    rated = _of_ratings(_rated(connection, tenants, own, newest))
    quantities = sorted({name for cells in (rated, said) for sums in cells.values() for name in sums})
    return Documented(rated, said, tuple(quantities), newest.month)


def _rated(connection: sa.Connection, tenants: list[str], own: Closing, newest: Closing) -> list[Rating]:
    """With the prices of its own closing, as corrections are made."""
    as_of = AsOf(newest.ledger_batch, newest.carbon_batch)
    return rate_tenants(connection, tariffs_as_of(connection, own.catalog_version), tenants, own.period, as_of)


def _of_ratings(ratings: Iterable[Rating]) -> Cells:
    cents: dict[Key, dict[str, int | None]] = {}
    for rating in ratings:
        for one in rating.month.lines:
            account = account_of(one)
            key = (rating.tenant, account.convention or "", account.settlement)
            _add(cents, key, account.currency, one.line.cents)
    return cents


def _of_documents(documents: Iterable[BillingDocument], month: str) -> Cells:
    cents: dict[Key, dict[str, int | None]] = {}
    for document in documents:
        key = (document.buyer.id, document.convention or "", document.settlement)
        for line in signed_lines(document):
            if line.month == month:
                _add(cents, key, document.currency, line.net_cents)
    return cents


def _add(cells: dict[Key, dict[str, int | None]], key: Key, currency: str, cents: int) -> None:
    sums = cells.setdefault(key, {})
    name = f"cents {currency}"
    sums[name] = (sums.get(name) or 0) + cents

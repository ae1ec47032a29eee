"""What came late: administrations with entries, or carbon that is paid for, in months that were closed before."""

from collections.abc import Sequence

import sqlalchemy as sa

from metering.billing.periods import Closing
from metering.rules.periods import BOOKS_ZONE
from metering.tables import carbon_entry, ledger_entry, ledger_series


def late_tenants(
    connection: sa.Connection, closed: Sequence[Closing], since: Closing, until: Closing
) -> dict[str, set[str]]:
    """Closed months to the administrations of which something came after one closing and up to another.

    closed: in the order of months. What is before the first of them was never in the books.
    """
    start, end = closed[0].period.start, closed[-1].period.end
    entry, series, carbon = ledger_entry.c, ledger_series.c, carbon_entry.c
    usage = (
        sa.select(series.tenant, _month(entry.occurred_at))
        .join_from(ledger_entry, ledger_series, entry.series == series.number)
        .where(
            entry.batch_seq > since.ledger_batch, entry.batch_seq <= until.ledger_batch,
            entry.occurred_at >= start, entry.occurred_at < end,
        )
        .distinct()
    )  # fmt: skip
    posted = (
        sa.select(carbon.tenant, _month(carbon.hour))
        .where(
            carbon.batch_seq > since.carbon_batch, carbon.batch_seq <= until.carbon_batch, carbon.part == "use",
            carbon.hour >= start, carbon.hour < end, carbon.tenant.is_not(None),
        )
        .distinct()
    )  # fmt: skip
    found: dict[str, set[str]] = {}
    for tenant, month in (*connection.execute(usage), *connection.execute(posted)):
        found.setdefault(month, set()).add(tenant)
    return dict(sorted(found.items()))


def _month(instant: sa.ColumnElement[object]) -> sa.ColumnElement[str]:
    return sa.func.to_char(sa.func.timezone(BOOKS_ZONE, instant), "YYYY-MM")

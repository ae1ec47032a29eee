"""Amounts of months by project and model, for exports of usage."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from metering.billing.prices import tariffs_of
from metering.billing.rating import AsOf, rate_tenants, read_month
from metering.catalog.snapshot import CatalogReader
from metering.rules.billing.amounts import MonthAmount, MonthAmounts
from metering.tables import tenant

AmountsOf = Callable[[sa.Connection, str, Sequence[str], int | None], MonthAmounts]


def amounts_by(catalog: CatalogReader) -> AmountsOf:
    """What rates a month (`2026-10`) of administrations (none: all) as of a batch, by the catalogue as it is."""

    def amounts_of(connection: sa.Connection, month: str, tenants: Sequence[str], as_of: int | None) -> MonthAmounts:
        period = read_month(month)
        rated = tenants or list(connection.scalars(sa.select(tenant.c.id).order_by(tenant.c.id)))
        found = rate_tenants(connection, tariffs_of(catalog.current()), rated, period, AsOf(as_of))
        items = [
            MonthAmount(
                one.tenant, line.line.place.project, line.line.place.model, line.account.billing,
                line.account.currency or "", line.line.cents,
            )
            for one in found
            for line in one.month.lines
        ]  # fmt: skip
        return MonthAmounts("indicative" if period.end > datetime.now(UTC) else "rated", items)

    return amounts_of

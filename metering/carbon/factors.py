"""Emission factors as they are recorded."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa

from metering.rules.carbon.factors import EmissionFactor
from metering.tables import emission_factor


def read_factors(
    connection: sa.Connection, zones: Iterable[str], starts_at: datetime, ends_at: datetime
) -> Sequence[EmissionFactor]:
    """Factors of some zones that touch a period."""
    columns = [emission_factor.c[name] for name in EmissionFactor._fields]
    rows = connection.execute(
        sa.select(*columns).where(
            emission_factor.c.zone.in_(sorted(zones)),
            emission_factor.c.starts_at < ends_at,
            emission_factor.c.ends_at > starts_at,
        )
    )
    return [EmissionFactor(*row) for row in rows]

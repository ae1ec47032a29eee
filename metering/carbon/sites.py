"""Where nodes are: the zone of their grid, and the efficiency of the building."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from metering.rules.carbon.impacts import Bounded
from metering.tables import site as sites


@dataclass(frozen=True, slots=True)
class Site:
    """A site: zones of its location- and market-based factors (None: none is known), and its PUE in millionths."""

    id: str | None
    zone: str
    contract: str | None
    pue_ppm: Bounded


DEFAULT_SITE = Site(None, "FR", None, Bounded(1_400_000, 1_100_000, 1_600_000))
"""Of nodes that don't say where they are: France, and between a new large building and the mean of the Uptime
Institute's global survey of 2024 (1.56)."""


def read_sites(connection: sa.Connection) -> Mapping[str | None, Site]:
    """Sites by id; None is where nodes are that name none, or one that isn't known."""
    rows = connection.execute(sa.select(sites))
    found: dict[str | None, Site] = {
        row.id: Site(row.id, row.zone, row.contract, Bounded(row.pue_ppm, row.pue_lower_ppm, row.pue_upper_ppm))
        for row in rows
    }
    # With one site, that is where everything is.
    only = next(iter(found.values())) if len(found) == 1 else DEFAULT_SITE
    return found | {None: only}

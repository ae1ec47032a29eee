"""The worker's part: what the ledger records goes into the counters, batch by batch, for as long as it runs."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
import structlog

from metering.database import transaction
from metering.errors import JaugeError
from metering.quotas.building import CounterBuilder
from metering.tables import quota_cursor

ROUND_S = 0.2
AWAY_S = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settler:
    """Settles the ledger's batches. Several may run: they take turns, and none counts what another has."""

    builder: CounterBuilder

    def run(self, stop: threading.Event) -> None:
        """Settle until told to stop; while a store is away, wait for it."""
        while not stop.is_set():
            try:
                is_done = not self.round(datetime.now(UTC))
                stop.wait(ROUND_S if is_done else 0)
            except JaugeError as error:
                log.warning("not_settled", code=error.code)
                stop.wait(AWAY_S)

    def round(self, now: datetime) -> bool:
        """Settle the next batches; returns whether there were any. Raises: Unavailable."""
        with transaction(self.builder.engine) as connection:
            cursor = connection.scalar(sa.select(quota_cursor.c.batch))
        if cursor is None:
            return False
        settled = self.builder.settle(cursor, now)
        if settled == cursor:
            return False
        with transaction(self.builder.engine) as connection:
            # Another settler may be further.
            connection.execute(quota_cursor.update().values(batch=sa.func.greatest(quota_cursor.c.batch, settled)))
        return True

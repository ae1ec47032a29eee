"""Whether the parts of the service answer."""

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from metering import migrate
from metering.errors import Unavailable
from metering.valkey import outages

if TYPE_CHECKING:
    import redis

CONSUMER_SILENT_MS_MAX = 60_000


def check_stores(engine: sa.Engine, client: "redis.Redis") -> None:
    """Ask both stores. Raises: Unavailable if one is away, or the tables aren't current."""
    if not migrate.is_current(engine):
        raise Unavailable("database_outdated", "The database needs `jauge migrate`.", retry_after_s=30)
    try:
        client.ping()
    except outages() as error:
        raise Unavailable("stream_unavailable", "The stream's server is away.", retry_after_s=5) from error


def check_worker(client: "redis.Redis", stream: str) -> None:
    """Look for a consumer that has asked for entries in the last minute. Raises: Unavailable if there is none."""
    import redis  # noqa: PLC0415

    from metering.events.stream import GROUP  # noqa: PLC0415

    try:
        consumers: Any = client.xinfo_consumers(stream, GROUP)
    except redis.ResponseError:  # no group: no worker has ever joined
        consumers = []
    if not any(consumer["idle"] < CONSUMER_SILENT_MS_MAX for consumer in consumers):
        raise Unavailable("no_worker", "No worker consumes the stream.", retry_after_s=30)

"""Readings as tests need them."""

import itertools
from datetime import UTC, datetime
from typing import Any

from metering.carbon.readings import Reading
from metering.ledger.append import microseconds

_numbers = itertools.count(1)

NOON = datetime(2026, 10, 5, 12, tzinfo=UTC)


def a_reading(at: datetime = NOON, **changes: Any) -> Reading:
    """A reading, new at every call."""
    number = next(_numbers)
    fields: dict[str, Any] = {
        "source": "node-1",
        "event_id": f"reading-{number}",
        "at_us": microseconds(at),
        "node": "node-1",
        "gpu": "GPU-1",
        "epoch": "boot-1",
    }
    return Reading(**(fields | changes))


def an_energy_event(at: datetime = NOON, **changes: Any) -> dict[str, Any]:
    """An event that carries a reading, new at every call; fields of `data` can be set, None takes one away."""
    number = next(_numbers)
    data = {"node": "node-1", "gpu": "GPU-1", "epoch": "boot-1", "energy_mj": 1_000 * number, "power_mw": 300_000}
    data = {name: value for name, value in (data | changes).items() if value is not None}
    return {
        "specversion": "1.0",
        "type": "jauge.energy.v1",
        "source": "node-1",
        "id": f"reading-{number}",
        "time": at.isoformat(),
        "data": data,
    }

"""Hours with requests and readings, as tests of posting need them."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from metering.carbon.job import post_due
from metering.carbon.readings import Reading, Readings
from metering.database import transaction
from metering.events.decoding import decode
from metering.services import Services
from metering.tables import carbon_entry, emission_factor
from tests.carbon.readings import a_reading

HOUR = datetime(2026, 10, 5, 12, tzinfo=UTC)
LATER = HOUR + timedelta(days=1)
"""When everything of the hour is due."""


def a_request(number: int, starts_at: datetime, seconds: int = 30, **data: Any) -> dict[str, Any]:
    """An event of a request on the deployment of `readings_of`."""
    fields = {
        "tenant": "dinum", "project": "assistant", "user": f"u-{number % 3}", "api_key": "k-1", "operation": "chat",
        "model_requested": "albert-large", "model_served": "albert-large", "deployment": "albert-large-0",
        "started_at": starts_at.isoformat(), "first_token_at": (starts_at + timedelta(seconds=1)).isoformat(),
        "status": "ok", "input_tokens": 800, "output_tokens": 200,
    }  # fmt: skip
    ended = starts_at + timedelta(seconds=seconds)
    return {
        "specversion": "1.0", "type": "jauge.usage.v1", "source": "test", "id": f"r-{number}",
        "time": ended.isoformat(),
        "data": {name: value for name, value in (fields | data).items() if value is not None},
    }  # fmt: skip


def readings_of(
    starts_at: datetime, minutes: int, *, powers_w: Sequence[int] = (400,), gpus: int = 1, **changes: Any
) -> list[Reading]:
    """Readings of GPUs, one a minute, the last at the end; powers_w: of each minute in turn, over and over."""
    readings = []
    for gpu in range(gpus):
        energy_mj = 10**9
        for minute in range(minutes + 1):
            power_mw = powers_w[minute % len(powers_w)] * 1_000
            fields = {
                "gpu": f"GPU-{gpu}", "monotonic_us": minute * 60_000_000, "energy_mj": energy_mj, "power_mw": power_mw,
                "power_limit_mw": 700_000, "gpu_model": "H100-SXM", "deployment": "albert-large-0",
            } | changes  # fmt: skip
            event_id = f"{fields.get('node', 'node-1')}-{gpu}-{starts_at:%d%H}-{minute}"
            readings.append(a_reading(starts_at + timedelta(minutes=minute), event_id=event_id, **fields))
            energy_mj += 60 * power_mw
    return readings


def a_factor(services: Services, value: int, starts_at: datetime = HOUR, **changes: Any) -> None:
    """Record an emission factor of one hour, in µg CO2e/kWh."""
    row = {
        "zone": "FR", "kind": "location", "starts_at": starts_at, "ends_at": starts_at + timedelta(hours=1),
        "ugco2e_per_kwh": value, "source": "test", "version": "1", "is_last_resort": False, "author": "test",
    }  # fmt: skip
    with transaction(services.engine) as connection:
        connection.execute(emission_factor.insert().values(row | changes))


def record(services: Services, events: Iterable[dict[str, Any]] = (), readings: Iterable[Any] = ()) -> None:
    """Record events and readings."""
    body = json.dumps(list(events)).encode()
    if body != b"[]":
        assert services.intake.take(decode(body, "json", 10_000), "http").is_whole
    Readings(services.engine).append(list(readings))


def post_all(services: Services, now: datetime = LATER) -> int:
    """Post what is due."""
    return post_due(services.engine, now)


def sums(services: Services, *groups: str, **conditions: Any) -> dict[tuple[Any, ...], Any]:
    """Sums of GPU energy, facility energy and grams of the grid by some columns of entries."""
    columns = [carbon_entry.c[name] for name in groups]
    query = sa.select(
        *columns,
        *(sa.func.sum(carbon_entry.c[name]) for name in ("requests", "gpu_energy_uj", "energy_uj", "location_ng")),
    ).where(*(carbon_entry.c[name] == value for name, value in conditions.items()))
    with transaction(services.engine) as connection:
        rows = connection.execute(query.group_by(*columns)).all()
    return {tuple(row[: len(groups)]): tuple(row[len(groups) :]) for row in rows}

"""What is measured of carbon: an hour of requests shared among GPUs' energy, beside reading those requests."""

import time
from datetime import timedelta

import polars as pl

from metering.carbon.attribution import METER_SCHEMA, attribute, concurrency_milli
from metering.carbon.job import post_due
from metering.carbon.requests import read_requests
from metering.database import transaction
from metering.ledger.series import SeriesRegistry
from metering.rules.carbon.weights import default_costs
from metering.services import Services
from tests.bench.load import MODELS, MONTH, frames
from tests.bench.measures import BATCH_ROWS, Line, registered

HOUR = MONTH
END = HOUR + timedelta(hours=1)
READING_RATIO_MAX = 5
GPUS = 4
"""Of a deployment."""


def attribution(services: Services, requests: int) -> list[Line]:
    """Seconds to share an hour's energy among its requests, and to post the hour, beside reading the requests."""
    registry, tenants = SeriesRegistry(services.engine), registered(services)
    for turn in range(requests // BATCH_ROWS):
        (frame,) = frames(registry, tenants, rows=BATCH_ROWS, count=1, seed=turn)
        services.committer.submit(frame).result()
    with transaction(services.engine) as connection:
        started = time.perf_counter()
        read = read_requests(connection, HOUR)
        read_s = time.perf_counter() - started
    started = time.perf_counter()
    milli = concurrency_milli(read, HOUR, END)
    attributed = attribute(read, _meter(), {name: default_costs(one) for name, one in milli.items()})
    own_s = time.perf_counter() - started
    assert attributed.shares["dynamic_uj"].null_count() == 0
    started = time.perf_counter()
    assert post_due(services.engine, END + timedelta(days=1))
    post_s = time.perf_counter() - started
    return [_line("attribution", read.height, own_s, read_s), _line("posting", read.height, post_s, read_s)]


def _meter() -> pl.DataFrame:
    """Windows (METER_SCHEMA) of every deployment's GPUs, at 400 W with an idle power of 100 W."""
    minutes = [HOUR + timedelta(minutes=minute) for minute in range(60)]
    rows = [
        (f"{model}-{gpu}", f"{model}-r{replica}", at, at + timedelta(minutes=1), 60_000_000, 24 * 10**9, 23 * 10**9,
         25 * 10**9, "A", 100_000)
        for model in MODELS for replica in range(2) for gpu in range(GPUS) for at in minutes
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=METER_SCHEMA, orient="row")


def _line(what: str, requests: int, own_s: float, read_s: float) -> Line:
    return Line(
        f"{what} of an hour, {requests:,} requests", own_s, "s", "reading them into Polars", read_s, own_s / read_s,
        f"≤ {READING_RATIO_MAX}",
    )  # fmt: skip

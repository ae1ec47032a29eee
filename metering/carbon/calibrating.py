"""Calibration of what tokens cost, by model and kind of GPU, from the last week; it holds for the hours to come."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec
import polars as pl
import sqlalchemy as sa

from metering.carbon.attribution import attribute, concurrency_milli
from metering.carbon.calibration import Calibration, calibrate, work_of
from metering.carbon.costs import costs_of, models_served, read_sheets
from metering.carbon.idling import idle_constants, idle_powers
from metering.carbon.meters import meter_frame, read_gpus
from metering.carbon.requests import read_requests
from metering.database import transaction
from metering.rules.carbon.hardware import GPU_MODELS
from metering.rules.carbon.weights import TokenCosts, default_costs, prior_costs
from metering.tables import carbon_hour, carbon_weight

MEMORY = timedelta(days=7)
HOUR = timedelta(hours=1)

Pair = tuple[str, str | None]
"""A model and the kind of GPU that it ran on."""


def calibrate_all(engine: sa.Engine, now: datetime) -> dict[Pair, Calibration]:
    """Fit costs to the last week, keep those that tell more than data sheets, and say which. Raises: Unavailable."""
    work: dict[Pair, list[pl.DataFrame]] = defaultdict(list)
    concurrency: dict[Pair, list[int]] = defaultdict(list)
    for hour in _hours(engine, now):
        with transaction(engine, snapshot=True) as connection:
            for pair, frame, milli in _work_of_hour(connection, hour):
                work[pair].append(frame)
                concurrency[pair].append(milli)
    kept: dict[Pair, Calibration] = {}
    with transaction(engine) as connection:
        for pair, frames in sorted(work.items(), key=str):
            prior = _prior(connection, pair, sum(concurrency[pair]) // len(concurrency[pair]))
            calibration = calibrate(pl.concat(frames), prior)
            if calibration is not None:
                _keep(connection, pair, calibration, now)
                kept[pair] = calibration
    return kept


def _hours(engine: sa.Engine, now: datetime) -> list[datetime]:
    with transaction(engine) as connection:
        hours = carbon_hour.c.hour
        recent = sa.and_(carbon_hour.c.batch_seq.is_not(None), hours >= now - MEMORY, hours < now)
        return list(connection.scalars(sa.select(hours).where(recent).order_by(hours)))


def _work_of_hour(connection: sa.Connection, hour: datetime) -> Iterator[tuple[Pair, pl.DataFrame, int]]:
    """Work of each deployment in an hour, and its mean concurrency in thousandths."""
    requests, gpus = read_requests(connection, hour), read_gpus(connection, hour)
    if not gpus:
        return
    constants = idle_constants(connection, hour, idle_powers(gpus, requests))
    attributed = attribute(requests, meter_frame(gpus, constants), costs_of(connection, hour, requests, gpus))
    kinds = {one.last.deployment: one.last.gpu_model for one in gpus}
    milli = concurrency_milli(requests, hour, hour + HOUR)
    models = models_served(requests)
    for (deployment,), frame in work_of(requests, attributed.windows).partition_by("deployment", as_dict=True).items():
        yield (models[deployment], kinds.get(deployment)), frame, milli[deployment]


def _prior(connection: sa.Connection, pair: Pair, milli: int) -> TokenCosts:
    model, gpu = pair
    sheets = read_sheets(connection, [model])
    if model in sheets and gpu in GPU_MODELS:
        return prior_costs(sheets[model], GPU_MODELS[gpu].sheet, milli)
    return default_costs(milli)


def _keep(connection: sa.Connection, pair: Pair, calibration: Calibration, now: datetime) -> None:
    """Record costs. They hold from the next hour on, so that none that is posted changes."""
    model, gpu = pair
    report = msgspec.to_builtins(calibration)
    connection.execute(
        carbon_weight.insert().values(
            model=model,
            gpu_model=gpu or "",
            valid_from=now.replace(minute=0, second=0, microsecond=0) + HOUR,
            weights=report.pop("costs"),
            source=calibration.costs.source,
            report=report,
        )
    )

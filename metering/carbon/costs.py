"""What tokens cost on each deployment, relative to an output token: calibrated, else from data sheets."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on

from metering.carbon.attribution import concurrency_milli
from metering.carbon.meters import MeteredGpu
from metering.carbon.serving import kv_bytes_of, weight_bytes_of
from metering.rules.carbon.hardware import GPU_MODELS
from metering.rules.carbon.weights import ModelSheet, TokenCosts, default_costs, prior_costs
from metering.tables import carbon_weight, model


def costs_of(
    connection: sa.Connection, hour: datetime, requests: pl.DataFrame, gpus: Sequence[MeteredGpu]
) -> Mapping[str, TokenCosts]:
    """Costs by deployment with a request in flight in the hour."""
    served = models_served(requests)
    sheets = read_sheets(connection, served.values())
    calibrated = _calibrated(connection, hour)
    accelerators = {one.last.deployment: one.last.gpu_model for one in gpus if one.last.deployment}
    found: dict[str, TokenCosts] = {}
    for deployment, milli in concurrency_milli(requests, hour, hour + timedelta(hours=1)).items():
        name, gpu = served[deployment], accelerators.get(deployment)
        if (name, gpu) in calibrated:
            found[deployment] = calibrated[name, gpu]
        elif name in sheets and gpu in GPU_MODELS:
            found[deployment] = prior_costs(sheets[name], GPU_MODELS[gpu].sheet, milli)
        else:
            found[deployment] = default_costs(milli)
    return found


def models_served(requests: pl.DataFrame) -> Mapping[str, str]:
    """The model that each deployment served: the one most of its requests were for, and of equals the first."""
    counted = (
        requests.filter(pl.col("deployment").is_not_null())
        .group_by("deployment", "model")
        .len()
        .sort("len", "model", descending=[True, False])
        .unique("deployment", keep="first", maintain_order=True)
    )
    return dict(counted.select("deployment", "model").iter_rows())


def read_sheets(connection: sa.Connection, names: Iterable[str]) -> Mapping[str, ModelSheet]:
    """Data sheets of models whose parameters the catalogue knows."""
    rows = connection.execute(sa.select(model).where(model.c.id.in_(sorted(set(names))), model.c.parameters > 0))
    found = {}
    for row in rows:
        active = row.active_parameters or row.parameters
        kv_bytes = row.kv_bytes_per_token or kv_bytes_of(active)
        found[row.id] = ModelSheet(active, weight_bytes_of(row.parameters, row.precision), kv_bytes)
    return found


def _calibrated(connection: sa.Connection, hour: datetime) -> Mapping[tuple[str | None, str | None], TokenCosts]:
    """The last calibration that was valid in the hour, by model and GPU."""
    query = (
        sa.select(carbon_weight.c.model, carbon_weight.c.gpu_model, carbon_weight.c.weights)
        .ext(distinct_on(carbon_weight.c.model, carbon_weight.c.gpu_model))
        .where(carbon_weight.c.valid_from <= hour)
        .order_by(carbon_weight.c.model, carbon_weight.c.gpu_model, carbon_weight.c.number.desc())
    )
    rows = connection.execute(query)
    return {(row.model, row.gpu_model or None): msgspec.convert(row.weights, TokenCosts) for row in rows}

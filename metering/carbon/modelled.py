"""Requests whose energy nobody measured: the modelled path, in columns (`metering.rules.carbon.modelling` defines it).

Concurrency is that of a replica of the deployment in the hour, from the requests themselves; of the model, where they
name no deployment. A request that is in flight in several hours is charged in each for its time in it.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import polars as pl
import sqlalchemy as sa

from metering.carbon.attribution import INSTANT, concurrency_milli
from metering.carbon.fitted import shipped_fit
from metering.carbon.serving import serving_of
from metering.catalog.documents import Deployment, Model
from metering.catalog.kinds import KINDS, load
from metering.rules.carbon.impacts import Bounded
from metering.rules.carbon.modelling import (
    CONCURRENCY_PRIOR_MILLI,
    NJ_PER_UJ,
    PAGE_POSITIONS,
    PAGE_TOKENS,
    SPEECH_TOKENS_PER_WINDOW,
    Serving,
    TokenEnergies,
    token_energies,
)
from metering.rules.carbon.tiers import Tier
from metering.rules.carbon.weights import AUDIO_WINDOW_MS, AUDIO_WINDOW_POSITIONS, TOKENS_MAX
from metering.tables import deployment as deployments
from metering.tables import model as models

ESTIMATES_SCHEMA = {
    "energy_uj": pl.Int64(),
    "lower_uj": pl.Int64(),
    "upper_uj": pl.Int64(),
    "gpu_us": pl.Int64(),
    "tier": pl.String(),
}
"""GPU energy of a request with its bounds, time of one GPU, and C or D; nulls and U where nothing can be said."""

HOUR = timedelta(hours=1)
DEFAULT_PARAMS = 24 * 10**9
"""Of a model whose parameters the catalogue doesn't say: in the middle of those that are offered (stated prior)."""
DEFAULT_SPREAD = 8
"""What that may be off by, beside the rest: models have from a few to some hundred billion (stated prior)."""

_BOUNDS = ("energy_uj", "lower_uj", "upper_uj")
_KINDS = ("output", "prefill", "context")


class Runs(NamedTuple):
    """What a model runs on, as the catalogue says; None: it doesn't."""

    replicas: int
    accelerator: str | None
    accelerators: int | None


ANYWHERE = Runs(1, None, None)
"""Where the catalogue says nothing."""


class Place(NamedTuple):
    """Where requests went: a deployment, or None, and a model."""

    deployment: str | None
    model: str | None


class Known(NamedTuple):
    """What tokens take in an hour at a place, and how good that is."""

    energies: TokenEnergies
    tier: Tier


def read_known(connection: sa.Connection, hour: datetime, requests: pl.DataFrame) -> Mapping[Place, Known]:
    """What tokens take in an hour, by place; places whose model isn't in the catalogue are absent.

    requests: all of the hour, those that were measured included, since concurrency is theirs.
    """
    places = [Place(*row) for row in requests.select("deployment", "model").unique().rows()]
    catalogued = load(connection, KINDS["models"], _among(models.c.id, places, "model")).values()
    sheets: dict[str | None, Model] = {one.id: one for one in catalogued if isinstance(one, Model)}
    of_deployment, of_model = _runs(connection, hour, places)
    flying = _concurrency(requests, hour)
    found = {}
    for place in places:
        if place.model in sheets:
            runs = of_deployment.get(place.deployment) or of_model.get(place.model, ANYWHERE)
            if place.deployment is not None and place.deployment not in of_deployment:
                runs = runs._replace(replicas=1)  # its requests are one deployment's, whatever the model has besides
            found[place] = known(sheets[place.model], runs, flying.get(place))
    return found


def known(model: Model, runs: Runs, flying_milli: int | None) -> Known:
    """What tokens take of a model where so many requests are in flight; None: nobody knows how many."""
    concurrency = CONCURRENCY_PRIOR_MILLI if flying_milli is None else max(flying_milli // runs.replicas, 1)
    energies = token_energies(serving_from(model, runs), shipped_fit(), concurrency)
    if not model.parameters:
        return Known(_widened(energies), "D")
    return Known(energies, "D" if flying_milli is None else "C")


def serving_from(model: Model, runs: Runs) -> Serving:
    """What a model of the catalogue runs on."""
    return serving_of(
        total_params=model.parameters or DEFAULT_PARAMS,
        active_params=model.active_parameters if model.parameters else None,
        precision=model.precision,
        kv_bytes_per_token=model.kv_bytes_per_token,
        accelerator=runs.accelerator,
        accelerators=runs.accelerators,
    )


def estimate(requests: pl.DataFrame, places: Mapping[Place, Known], hour: datetime) -> pl.DataFrame:
    """Estimates (ESTIMATES_SCHEMA) of what is in the hour of each request, one row a request, in their order."""
    asked = requests.select("deployment", "model", *_asked(), *_parts(hour))
    whole = asked.join(_table(places), on=["deployment", "model"], how="left", nulls_equal=True, maintain_order="left")
    looks = pl.col("output").cast(pl.Int128) * (2 * pl.col("context") + pl.col("output"))
    costs = {
        bound: 2 * pl.col("output").cast(pl.Int128) * pl.col(f"output_{bound}")
        + 2 * pl.col("prefill").cast(pl.Int128) * pl.col(f"prefill_{bound}")
        + looks * pl.col(f"context_{bound}")
        for bound in _BOUNDS
    }
    unit = 2 * NJ_PER_UJ
    rounded = {
        "energy_uj": pl.max_horizontal((costs["energy_uj"] + NJ_PER_UJ) // unit, pl.lit(1)),
        "lower_uj": costs["lower_uj"] // unit,
        "upper_uj": pl.max_horizontal((costs["upper_uj"] + unit - 1) // unit, pl.lit(1)),
    }
    is_known = pl.col("draw_mw").is_not_null() & pl.col("output").is_not_null()
    energies = whole.select(
        *(pl.when(is_known).then(_within(cost)).cast(pl.Int64).alias(bound) for bound, cost in rounded.items()),
        "draw_mw",
        pl.when(is_known).then("tier").otherwise(pl.lit("U")).alias("tier"),
    )
    gpu_us = (2_000 * pl.col("energy_uj").cast(pl.Int128) + pl.col("draw_mw")) // (2 * pl.col("draw_mw"))
    return energies.with_columns(gpu_us=gpu_us.cast(pl.Int64)).select(*ESTIMATES_SCHEMA)


def _asked() -> list[pl.Expr]:
    """Tokens written, context and positions read of each request (`modelling.asked`); nulls where nothing is told."""
    is_ocr, is_speech = (pl.col("operation").eq_missing(pl.lit(name)) for name in ("ocr", "transcription"))
    pages = pl.when(is_ocr).then(pl.col("pages").fill_null(0)).otherwise(0)
    windows = (pl.col("audio_ms").fill_null(0) + AUDIO_WINDOW_MS - 1) // AUDIO_WINDOW_MS
    speech = pl.when(is_speech).then(SPEECH_TOKENS_PER_WINDOW * windows).otherwise(0)
    output = pl.coalesce("output_tokens", PAGE_TOKENS * pages + speech)
    context = pl.coalesce("input_tokens", PAGE_POSITIONS * pages)
    fresh = pl.max_horizontal(context - pl.col("cached_input_tokens").fill_null(0), pl.lit(0))
    prefill = fresh + AUDIO_WINDOW_POSITIONS * windows
    is_told = pl.col("operation").ne_missing(pl.lit("image")) & (pl.col("uncounted_requests").fill_null(0) == 0)
    is_told &= (output > 0) | (prefill > 0)
    return [
        pl.when(is_told).then(pl.min_horizontal(tokens, pl.lit(TOKENS_MAX))).cast(pl.Int64).alias(name)
        for name, tokens in (("output", output), ("context", context), ("prefill", prefill))
    ]


def _parts(hour: datetime) -> list[pl.Expr]:
    """Time of a request before the hour, until its end, and in all, in µs."""
    started = pl.col("started_at").to_physical()
    length = pl.max_horizontal(pl.col("ended_at").to_physical() - started, pl.lit(1))
    edges = pl.Series([hour, hour + HOUR], dtype=INSTANT).to_physical().to_list()
    before, until = ((pl.lit(edge) - started).clip(0).cast(pl.Int64) for edge in edges)
    return [
        pl.min_horizontal(before, length).alias("before_us"),
        pl.min_horizontal(until, length).alias("until_us"),
        length.alias("length_us"),
    ]


def _within(cost: pl.Expr) -> pl.Expr:
    """The part of a request's cost that is in the hour: over all hours, parts sum to the cost."""
    before, until = (cost * pl.col(name) // pl.col("length_us") for name in ("before_us", "until_us"))
    return until - before


def _table(places: Mapping[Place, Known]) -> pl.DataFrame:
    """What tokens take, by place: a column for each kind of token and bound, in nJ."""
    columns = [f"{kind}_{bound}" for bound in _BOUNDS for kind in _KINDS]
    schema = {
        "deployment": pl.String(), "model": pl.String(), "draw_mw": pl.Int64(), "tier": pl.String(),
        **dict.fromkeys(columns, pl.Int64()),
    }  # fmt: skip
    rows = [
        (*place, one.energies.draw_mw, one.tier, *(cost for bound in one.energies.by_bound() for cost in bound))
        for place, one in places.items()
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _concurrency(requests: pl.DataFrame, hour: datetime) -> Mapping[Place, int]:
    """Mean requests in flight while any was, in thousandths: a deployment's, else a model's without one."""
    unplaced = requests.filter(pl.col("deployment").is_null()).with_columns(deployment=pl.col("model"))
    of_deployment, of_model = (concurrency_milli(own, hour, hour + HOUR) for own in (requests, unplaced))
    places = (Place(*row) for row in requests.select("deployment", "model").unique().rows())
    found = {
        place: of_model.get(place.model or "") if place.deployment is None else of_deployment.get(place.deployment)
        for place in places
    }
    return {place: milli for place, milli in found.items() if milli is not None}


def _runs(
    connection: sa.Connection, hour: datetime, places: list[Place]
) -> tuple[Mapping[str | None, Runs], Mapping[str | None, Runs]]:
    """What runs in the hour, by deployment, and by model: all its replicas, of the kind that its first one is of."""
    wanted = sa.or_(_among(deployments.c.id, places, "deployment"), _among(deployments.c.model, places, "model"))
    is_there = sa.and_(
        deployments.c.starts_at < hour + HOUR, sa.or_(deployments.c.ends_at.is_(None), deployments.c.ends_at > hour)
    )
    of_deployment: dict[str | None, Runs] = {}
    of_model: dict[str | None, Runs] = {}
    for one in load(connection, KINDS["deployments"], wanted, is_there).values():
        assert isinstance(one, Deployment)
        runs = Runs(one.replicas, one.accelerator, one.accelerators)
        of_deployment[one.id] = runs
        first = of_model.get(one.model, runs._replace(replicas=0))
        of_model[one.model] = first._replace(replicas=first.replicas + runs.replicas)
    return of_deployment, of_model


def _among(column: sa.Column[Any], places: list[Place], part: str) -> sa.ColumnElement[bool]:
    return column.in_(sorted({name for place in places if (name := getattr(place, part)) is not None}))


def _widened(energies: TokenEnergies) -> TokenEnergies:
    """With bounds of a model that may be of any size."""
    output, prefill, context = (
        Bounded(one.value, one.lower // DEFAULT_SPREAD, one.upper * DEFAULT_SPREAD)
        for one in (energies.output_nj, energies.prefill_nj, energies.context_nj)
    )
    return TokenEnergies(output, prefill, context, energies.draw_mw)

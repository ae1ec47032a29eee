"""Carbon as BoAmps reports: the form in which Boavizta and its partners gather energy consumption of AI tasks.

Field names, required fields and permitted words are those of the data model's version 1.1.0
(https://github.com/Boavizta/BoAmps, `model/report_schema.json` and the schemas it refers to). There is one report for
each model. What isn't known is left out: operating systems and languages of inference servers, who supplies the power.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

import msgspec
import sqlalchemy as sa

from metering.database import Actor, transaction
from metering.rules.carbon.impacts import NG_PER_G, UJ_PER_KWH
from metering.rules.carbon.tiers import TIERS, Tier
from metering.tables import carbon_entry, carbon_gpu, deployment, emission_factor
from metering.tables import model as models
from reports.carbon import CarbonRow, last_carbon_batch, methods_used, posted_until, read_carbon
from reports.usage import UsageQuestion, read_usage

FORMAT_VERSION = "1.1.0"
SPECIFICATION = "https://github.com/Boavizta/BoAmps/tree/main/model"

FAMILIES: Mapping[str, str] = {
    "chat": "chatbot",
    "completion": "text completion",
    "embedding": "embedding",
    "rerank": "reranking",
    "transcription": "speech recognition",
    "ocr": "optical character recognition",
    "image": "image generation",
}
"""Families of tasks, by operation; another operation is its own."""
ALGORITHMS: Mapping[str, str] = {"chat": "llm", "completion": "llm", "embedding": "embeddings creation"}

DATA: tuple[tuple[str, str, str], ...] = (
    ("input", "token", "input_tokens"),
    ("input", "audio", "requests"),
    ("input", "image", "pages"),
    ("output", "token", "output_tokens"),
    ("output", "image", "images"),
)
"""What goes in and out: usage, type of data and the quantity that counts it; of audio, a piece a request."""

TRACKING: Mapping[str, tuple[Tier, ...]] = {"nvml": ("A", "B"), "modelled": ("C", "D")}
"""How the energy of GPUs is known, and the tiers of data that is known so."""

MARGINS_PERCENT: Mapping[str, int] = {"high": 10, "medium": 25, "low": 50}
"""What a report of each quality may be off by; one that may be off by more states none."""

Reason = Literal["not_measured", "hardware_unknown"]


class LeftOut(msgspec.Struct, frozen=True):
    """A model without a report: the energy of none of its requests is known, or nobody says what it runs on."""

    model: str | None
    requests: int
    reason: Reason


class BoampsReports(msgspec.Struct, frozen=True):
    """BoAmps reports, one a model, and the models that have none."""

    reports: list[dict[str, Any]]
    left_out: list[LeftOut]


@dataclass(frozen=True, slots=True)
class _Task:
    """What is known of a model's requests over a period, and of what they ran on."""

    row: CarbonRow
    operations: Sequence[str]
    quantities: Mapping[str, int | None]
    sheet: Mapping[str, Any]
    components: Sequence[Mapping[str, Any]]
    zones: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Frame:
    """What all reports of one answer share: the period, how much of it is posted, batch, method and time of writing."""

    question: UsageQuestion
    known_until: datetime
    batch: int
    methods: str
    now: datetime


def read_boamps(
    engine: sa.Engine, question: UsageQuestion, now: datetime, *, actor: Actor | None = None
) -> BoampsReports:
    """Reports on what a question lets through; actor: on whose behalf rows are read. Raises: JaugeError."""
    asked = replace(question, bucket=None, group_by=("model",))
    with transaction(engine, snapshot=True, actor=actor) as connection:
        rows = read_carbon(connection, asked)
        operations = read_carbon(connection, replace(asked, group_by=("model", "operation")))
        usage = {row.group["model"]: row.quantities for row in read_usage(connection, asked)}
        factors = _factors_by_model(connection, asked)
        until = posted_until(connection)
        methods = ", ".join(methods_used(connection, asked))
        frame = _Frame(asked, until or question.start, last_carbon_batch(connection), methods, now)
    # Data sheets, GPUs and factors are the platform's.
    with transaction(engine) as connection:
        sheets, components = _sheets(connection), _components(connection, asked)
        zones = _zones(connection, factors)
    reports, left_out = [], []
    for row in rows:
        name = row.group["model"] or ""
        used = sorted(one.group["operation"] or "" for one in operations if one.group["model"] == row.group["model"])
        quantities = usage.get(row.group["model"], {})
        task = _Task(row, used, quantities, sheets.get(name, {}), components.get(name, ()), zones.get(name, ()))
        if reason := _why_not(task):
            left_out.append(LeftOut(row.group["model"], row.sums["requests"] or 0, reason))
        else:
            reports.append(_report(task, frame))
    return BoampsReports(reports, left_out)


def _why_not(task: _Task) -> Reason | None:
    if not task.row.sums["energy_uj"]:
        return "not_measured"
    return None if task.components else "hardware_unknown"


# What is read


def _factors_by_model(connection: sa.Connection, question: UsageQuestion) -> Mapping[str, set[int]]:
    """Numbers of the emission factors that each model's figures rest on."""
    columns = carbon_entry.c
    number = sa.func.unnest(columns.factors)
    query = sa.select(columns.model, number).where(
        columns.part == "use",
        columns.hour >= question.start,
        columns.hour < question.end,
        *(columns[name].in_(values) for name, values in question.filters.items()),
    )
    found: dict[str, set[int]] = defaultdict(set)
    for name, factor in connection.execute(query.distinct()):
        found[name or ""].add(factor)
    return found


def _zones(connection: sa.Connection, factors: Mapping[str, Iterable[int]]) -> dict[str, list[str]]:
    """Zones of the grids that each model's energy was from."""
    columns = emission_factor.c
    numbers = sorted({number for of_model in factors.values() for number in of_model})
    query = sa.select(columns.number, columns.zone).where(
        columns.number == sa.any_(sa.literal(numbers, sa.ARRAY(sa.BigInteger))), columns.kind == "location"
    )
    zone_of = {row.number: row.zone for row in connection.execute(query)}
    return {
        name: sorted({zone_of[number] for number in of_model if number in zone_of})
        for name, of_model in factors.items()
    }


def _sheets(connection: sa.Connection) -> dict[str, Mapping[str, Any]]:
    columns = models.c
    rows = connection.execute(sa.select(columns.id, columns.name, columns.parameters, columns.precision))
    return {row.id: row._asdict() for row in rows}


def _components(connection: sa.Connection, question: UsageQuestion) -> dict[str, list[dict[str, Any]]]:
    """GPUs of each model: those whose meters were read in the period, else those that the catalogue says."""
    gpu, place = carbon_gpu.c, deployment.c
    read = (
        sa.select(place.model, gpu.gpu_model, sa.func.count(sa.distinct(sa.tuple_(gpu.node, gpu.gpu))))
        .join_from(carbon_gpu, deployment, gpu.deployment == place.id)
        .where(gpu.hour >= question.start, gpu.hour < question.end, gpu.gpu_model.is_not(None))
        .group_by(place.model, gpu.gpu_model)
    )
    said = (
        sa.select(place.model, place.accelerator, sa.func.sum(place.replicas * place.accelerators))
        .where(place.accelerator.is_not(None), place.accelerators.is_not(None), place.starts_at < question.end)
        .where(sa.or_(place.ends_at.is_(None), place.ends_at > question.start))
        .group_by(place.model, place.accelerator)
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for query in (said, read):
        of_query: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for name, kind, count in connection.execute(query.order_by(sa.literal_column("1, 2"))):
            of_query[name].append({"componentName": kind, "componentType": "gpu", "nbComponent": int(count)})
        found |= of_query
    return found


# What is written


def _report(task: _Task, frame: _Frame) -> dict[str, Any]:
    """A model's report. Reports of the same figures have the same id."""
    question, row = frame.question, task.row
    end = min(question.end, frame.known_until)
    filters = sorted((name, sorted(values)) for name, values in question.filters.items())
    said = [row.group["model"], question.start.isoformat(), question.end.isoformat(), filters, frame.batch]
    report: dict[str, Any] = {
        "header": {
            "formatVersion": FORMAT_VERSION,
            "formatVersionSpecificationUri": SPECIFICATION,
            "reportId": str(uuid5(NAMESPACE_URL, msgspec.json.encode(said).decode())),
            "reportDatetime": _moment(frame.now),
            "reportStatus": "final" if frame.known_until >= question.end else "draft",
            "publisher": {"confidentialityLevel": "internal"},
        },
        "task": _task(task),
        "measures": list(_measures(row, frame, (end - question.start).total_seconds())),
        "infrastructure": {"infraType": "other", "components": list(task.components)},
    }
    if environment := _environment(task):
        report["environment"] = environment
    sums = row.sums
    if quality := quality_of(sums["energy_uj"], sums["energy_lower_uj"], sums["energy_upper_uj"]):
        report["quality"] = quality
    return report


def _task(task: _Task) -> dict[str, Any]:
    row = task.row
    kinds = {ALGORITHMS[name] for name in task.operations if name in ALGORITHMS}
    algorithm = {
        "algorithmType": ", ".join(sorted(kinds)) or None,
        "foundationModelName": task.sheet.get("name") or row.group["model"],
        "parametersNumber": None if not task.sheet.get("parameters") else task.sheet["parameters"] / 10**9,
        "quantization": task.sheet.get("precision"),
    }
    tiers = ", ".join(f"{tier}: {row.tiers[tier] / UJ_PER_KWH:.6g} kWh" for tier in TIERS if row.tiers.get(tier))
    return {
        "taskStage": "inference",
        "taskFamily": ", ".join(FAMILIES.get(name, name) for name in task.operations),
        "nbRequest": (row.sums["requests"] or 0) - row.requests_unknown,
        "algorithms": [{name: value for name, value in algorithm.items() if value is not None}],
        "dataset": list(_dataset(task)) or [{"dataUsage": "input", "dataType": "other"}],
        "taskDescription": (
            f"Energy of GPUs, of their servers and of the building (PUE), by quality of data ({tiers}); "
            f"{row.requests_unknown} more requests aren't measured. Dates are UTC."
        ),
    }


def _dataset(task: _Task) -> Iterator[dict[str, Any]]:
    """What goes in and out, as the mean of a request."""
    requests = task.quantities.get("requests") or 0
    for usage, kind, quantity in DATA:
        amount = task.quantities.get(quantity)
        if kind == "audio" and task.quantities.get("audio_ms") is None:
            continue
        if amount and requests:
            yield {"dataUsage": usage, "dataType": kind, "dataQuantity": round(amount / requests, 3)}


def _measures(row: CarbonRow, frame: _Frame, duration_s: float) -> Iterator[dict[str, Any]]:
    """One measure for each way in which the energy is known; together they are all of it."""
    for tracking, tiers in TRACKING.items():
        energy_uj = sum(row.tiers.get(tier, 0) for tier in tiers)
        if energy_uj:
            yield {
                "measurementMethod": "jauge",
                "version": frame.methods,
                "gpuTrackingMode": tracking,
                "powerConsumption": energy_uj / UJ_PER_KWH,
                "measurementDuration": duration_s,
                "measurementDateTime": _moment(frame.question.start),
            }


def _environment(task: _Task) -> dict[str, Any] | None:
    """Zones of the grid as ISO 3166 or the factors' source names them, and the mean factor of the energy used."""
    location_ng, energy_uj = task.row.sums["location_ng"], task.row.sums["energy_uj"]
    if not task.zones or location_ng is None or not energy_uj:
        return None
    intensity = location_ng * UJ_PER_KWH / energy_uj / NG_PER_G
    return {"country": ", ".join(task.zones), "powerSourceCarbonIntensity": round(intensity, 3)}


def quality_of(value: int | None, lower: int | None, upper: int | None) -> str | None:
    """How far a value may be off by its bounds, in the form's words; None: by more than there is a word for."""
    if not value or lower is None or upper is None:
        return None
    margin = max(value - lower, upper - value)
    return next((name for name, percent in MARGINS_PERCENT.items() if 100 * margin <= percent * value), None)


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")

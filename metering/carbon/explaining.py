"""Any gram back to a counter: what one event answers for, with every reading, weight and factor behind it.

The rule for one window (`rules.carbon.sharing`) is worked out again here, apart from the columns that the hourly job
uses, from the readings and requests as they are known now.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import polars as pl
import sqlalchemy as sa

from metering.carbon.chains import instant
from metering.carbon.claims import PARTLY_KNOWN
from metering.carbon.costs import costs_of
from metering.carbon.due import REQUEST_MAX
from metering.carbon.hours import HOUR
from metering.carbon.meters import MeteredGpu, read_gpus
from metering.carbon.modelled import Place, estimate, read_known
from metering.carbon.posting import METHOD, live_entries
from metering.carbon.requests import read_requests
from metering.errors import NotFound
from metering.ledger.append import microseconds
from metering.rules.carbon.apportioning import rounded
from metering.rules.carbon.entries import Key, Sums
from metering.rules.carbon.impacts import Bounded
from metering.rules.carbon.integration import WindowEnergy
from metering.rules.carbon.modelling import asked
from metering.rules.carbon.sharing import Metered, Share, SharedWindow, share_window
from metering.rules.carbon.tiers import Tier, worst_tier
from metering.rules.carbon.weights import DEFAULT_COSTS, Request, TokenCosts
from metering.rules.chain import identity_of
from metering.tables import (
    CARBON_KEYS,
    carbon_gpu,
    carbon_hour,
    emission_factor,
    ledger_entry,
    ledger_identity,
    ledger_series,
)


class GpuReading(msgspec.Struct):
    """A reading that a window's energy is known from; counters as the node sent them."""

    at: datetime
    epoch: str
    energy_mj: int | None
    power_mw: int | None


class GpuWindow(msgspec.Struct):
    """A GPU in one window: its energy with bounds, how it is known, and the readings around it."""

    node: str
    gpu: str
    energy_uj: int | None
    energy_lower_uj: int
    energy_upper_uj: int
    tier: Tier
    flags: tuple[str, ...]
    idle_power_mw: int | None
    readings: list[GpuReading]


class ExplainedWindow(msgspec.Struct):
    """A window of the event's deployment, and the event's part of it.

    work: in thousandths of an output token, the event's and that of all requests; presence: in 2^-24 µs.
    """

    starts_at: datetime
    ends_at: datetime
    gpus: list[GpuWindow]
    energy_uj: int | None
    idle_uj: int
    unallocated_uj: int
    busy_us: int
    requests: int
    work: int
    work_of_all: int
    presence: int
    presence_of_all: int
    dynamic_uj: int | None
    busy_uj: int | None


class ModelledEnergy(msgspec.Struct):
    """GPU energy in the hour by the model, where no meter saw the request: what it asked for, and what tokens take.

    output, context, prefill: tokens written, looked back on, and read at once; *_nj: of one of each, with bounds.
    """

    tier: Tier
    output: int
    context: int
    prefill: int
    output_nj: Bounded
    prefill_nj: Bounded
    context_nj: Bounded
    energy_uj: int
    energy_lower_uj: int
    energy_upper_uj: int


class UsedFactor(msgspec.Struct):
    """An emission factor that counts in the hour."""

    number: int
    zone: str
    kind: str
    starts_at: datetime
    ends_at: datetime
    ugco2e_per_kwh: int
    source: str
    version: str


class ExplainedHour(msgspec.Struct):
    """What the event answers for in one hour, and the entry that it is a part of.

    Energy of the facility, grams and bounds are the entry's, in proportion to GPU energy. is_due: something new is
    known of the hour, which the entry doesn't say yet.
    """

    hour: datetime
    batch: int | None
    is_due: bool
    costs: TokenCosts
    windows: list[ExplainedWindow]
    modelled: ModelledEnergy | None
    gpu_energy_uj: int | None
    tier: str | None
    entry: dict[str, int | None] | None
    part: dict[str, int | None] | None
    factors: list[UsedFactor]


class Explanation(msgspec.Struct):
    """What an event answers for, hour by hour. Null is unknown."""

    source: str
    event: str
    method: str
    tenant: str
    model: str
    deployment: str | None
    started_at: datetime
    first_token_at: datetime | None
    ended_at: datetime
    input_tokens: int | None
    cached_input_tokens: int | None
    output_tokens: int | None
    hours: list[ExplainedHour]


def explain(
    connection: sa.Connection, source: str, event_id: str, *, tenant: str | None = None, user: str | None = None
) -> Explanation:
    """Explain an event's energy and grams; tenant, user: only if it is theirs.

    Raises: NotFound if there is no such event, it is void, or it was refused and so never reached a model.
    """
    identity = identity_of(source, event_id)
    occurred_at, ended_at = _period(connection, identity, tenant, user)
    hour = occurred_at.replace(minute=0, second=0, microsecond=0)
    hours, row = [], None
    while hour <= min(ended_at, occurred_at + REQUEST_MAX):
        requests = read_requests(connection, hour)
        own = requests.filter(pl.col("identity") == identity)
        if own.height:
            row = own.row(0, named=True)
            hours.append(_hour(connection, hour, row, requests))
        hour += HOUR
    if row is None:
        raise _unknown()
    return Explanation(
        source=source,
        event=event_id,
        method=METHOD,
        hours=hours,
        **{name: row[name] for name in Explanation.__struct_fields__ if name in row},
    )


def _period(
    connection: sa.Connection, identity: bytes, tenant: str | None, user: str | None
) -> tuple[datetime, datetime]:
    # The identity's index tells the batch, and the entries' own one is by batch.
    batch = sa.select(ledger_identity.c.batch_seq).where(ledger_identity.c.identity == identity.hex())
    query = (
        sa.select(ledger_entry.c.occurred_at, ledger_entry.c.ended_at)
        .join(ledger_series, ledger_series.c.number == ledger_entry.c.series)
        .where(ledger_entry.c.batch_seq == batch.scalar_subquery(), ledger_entry.c.identity == identity.hex())
    )
    if tenant is not None:
        query = query.where(ledger_series.c.tenant == tenant)
    if user is not None:
        query = query.where(ledger_series.c.user == user)
    found = connection.execute(query).first()
    if found is None:
        raise _unknown()
    return found.occurred_at, found.ended_at


def _unknown() -> NotFound:
    return NotFound("unknown_event", "No event of this source and id used a model.", field="event")


def _hour(connection: sa.Connection, hour: datetime, event: Mapping[str, Any], requests: pl.DataFrame) -> ExplainedHour:
    gpus = read_gpus(connection, hour)
    costs = costs_of(connection, hour, requests, gpus).get(event["deployment"], DEFAULT_COSTS)
    state = connection.execute(sa.select(carbon_hour).where(carbon_hour.c.hour == hour)).first()
    batch = None if state is None else state.batch_seq
    windows = list(_windows(gpus, _idle_powers(connection, batch), event, requests, costs))
    known = [window for window in windows if window.energy_uj is not None]
    modelled = None if known else _modelled(connection, hour, event, requests)
    gpu_energy_uj: int | None = sum((window.dynamic_uj or 0) + (window.busy_uj or 0) for window in known)
    if not known:
        gpu_energy_uj = None if modelled is None else modelled.energy_uj
    entry = _entry(connection, hour, event, _tiers(windows))
    key, sums = entry if entry is not None else (None, None)
    return ExplainedHour(
        hour=hour,
        batch=batch,
        is_due=state is None or state.is_due,
        costs=costs,
        windows=windows,
        modelled=modelled,
        gpu_energy_uj=gpu_energy_uj,
        tier=key and key.tier,
        entry=sums and sums._asdict(),
        part=_part(sums, gpu_energy_uj),
        factors=_factors(connection, key.factors if key else ()),
    )


def _windows(
    gpus: Sequence[MeteredGpu],
    idle_powers_mw: Mapping[tuple[str, str], int],
    event: Mapping[str, Any],
    requests: pl.DataFrame,
    costs: TokenCosts,
) -> Iterator[ExplainedWindow]:
    """Windows of the event's deployment in which it was in flight, each shared by the rule."""
    served = [
        _as_request(row)
        for row in requests.filter(pl.col("deployment").eq_missing(event["deployment"])).iter_rows(named=True)
    ]
    own = _as_request(event)
    by_period: dict[tuple[int, int], list[tuple[MeteredGpu, WindowEnergy]]] = {}
    for gpu in gpus:
        for window in gpu.windows:
            is_met = own.started_us < window.ends_us and own.end_us > window.starts_us
            if (
                is_met
                and event["deployment"] is not None
                and gpu.deployment_at(window.starts_us) == event["deployment"]
            ):
                by_period.setdefault((window.starts_us, window.ends_us), []).append((gpu, window))
    for _period, metered in sorted(by_period.items()):
        parts = [Metered(window, idle_powers_mw.get((gpu.node, gpu.gpu))) for gpu, window in metered]
        shared = share_window(parts, served, costs)
        yield _window(shared, own.identity, [_gpu(gpu, part) for (gpu, _), part in zip(metered, parts, strict=True)])


def _as_request(row: Mapping[str, Any]) -> Request:
    first_token = row["first_token_at"]
    return Request(
        bytes(row["identity"]),
        microseconds(row["started_at"]),
        microseconds(row["ended_at"]),
        None if first_token is None else microseconds(first_token),
        row["input_tokens"],
        row["cached_input_tokens"],
        row["output_tokens"],
        row["audio_ms"],
        row["uncounted_requests"] == 0,
    )


def _window(shared: SharedWindow, identity: bytes, gpus: list[GpuWindow]) -> ExplainedWindow:
    own = next(share for share in shared.shares if share.identity == identity)
    return ExplainedWindow(
        starts_at=instant(shared.starts_us),
        ends_at=instant(shared.ends_us),
        gpus=gpus,
        energy_uj=shared.energy_uj,
        idle_uj=shared.idle_uj,
        unallocated_uj=shared.unallocated_uj,
        busy_us=shared.busy_us,
        requests=len(shared.shares),
        work=_work(own),
        work_of_all=sum(map(_work, shared.shares)),
        presence=own.presence,
        presence_of_all=sum(share.presence for share in shared.shares),
        dynamic_uj=own.dynamic_uj,
        busy_uj=own.busy_uj,
    )


def _work(share: Share) -> int:
    return share.plain + share.weighed


def _gpu(gpu: MeteredGpu, metered: Metered) -> GpuWindow:
    window = metered.window
    around = [
        GpuReading(instant(one.at_us), one.epoch, one.energy_mj, one.power_mw)
        for one in gpu.readings_around(window.starts_us, window.ends_us)
    ]
    return GpuWindow(
        gpu.node,
        gpu.gpu,
        window.energy_uj,
        window.lower_uj,
        window.upper_uj,
        window.tier,
        window.flags,
        metered.idle_power_mw,
        around,
    )


def _modelled(
    connection: sa.Connection, hour: datetime, event: Mapping[str, Any], requests: pl.DataFrame
) -> ModelledEnergy | None:
    """The event by the model; None where that says nothing of it either."""
    place, counts = Place(event["deployment"], event["model"]), asked(event["operation"], event)
    known = read_known(connection, hour, requests).get(place)
    if known is None or counts is None:
        return None
    own = requests.filter(pl.col("identity") == event["identity"])
    estimated = estimate(own, {place: known}, hour).row(0, named=True)
    return ModelledEnergy(
        estimated["tier"],
        counts.output,
        counts.context,
        counts.prefill,
        known.energies.output_nj,
        known.energies.prefill_nj,
        known.energies.context_nj,
        estimated["energy_uj"],
        estimated["lower_uj"],
        estimated["upper_uj"],
    )


def _idle_powers(connection: sa.Connection, batch: int | None) -> Mapping[tuple[str, str], int]:
    """Idle power that was used when the hour was posted."""
    columns = (carbon_gpu.c.node, carbon_gpu.c.gpu, carbon_gpu.c.idle_constant_mw)
    rows = connection.execute(sa.select(*columns).where(carbon_gpu.c.batch_seq == batch))
    return {(node, gpu): power for node, gpu, power in rows if power is not None}


def _tiers(windows: Sequence[ExplainedWindow]) -> str:
    """Tiers that the event's entry may have."""
    if all(window.energy_uj is None for window in windows):
        return "CDU"
    worst = worst_tier(gpu.tier for window in windows for gpu in window.gpus)
    return PARTLY_KNOWN if worst == "U" else worst


def _entry(connection: sa.Connection, hour: datetime, event: Mapping[str, Any], tiers: str) -> tuple[Key, Sums] | None:
    """The live entry that the event is a part of; None before the hour is posted."""
    wanted = ("use", *(event[name] for name in CARBON_KEYS))
    live = (entry for entry in live_entries(connection, hour) if entry[0][: len(wanted)] == wanted)
    return next((entry for entry in live if entry[0].tier in tiers), None)


def _part(sums: Sums | None, gpu_energy_uj: int | None) -> dict[str, int | None] | None:
    """The event's part of its entry's figures, in proportion to GPU energy."""
    if sums is None or gpu_energy_uj is None or not sums.gpu_energy_uj:
        return None
    whole = sums.gpu_energy_uj
    figures = sums._asdict()
    del figures["requests"]
    return {name: None if value is None else rounded(value * gpu_energy_uj, whole) for name, value in figures.items()}


def _factors(connection: sa.Connection, numbers: Sequence[int]) -> list[UsedFactor]:
    columns = [emission_factor.c[name] for name in UsedFactor.__struct_fields__]
    query = sa.select(*columns).where(emission_factor.c.number.in_(numbers)).order_by(emission_factor.c.number)
    return [UsedFactor(*row) for row in connection.execute(query)]

"""Envelopes over HTTP and as answers: consumed, held by requests under way, what is left, and how far it reaches."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from litestar import Request, Router, get
from litestar.params import FromPath
from msgspec import Meta

from metering.billing.envelopes import EnvelopeUse, Part, convention_named, envelope_use
from metering.billing.prices import tariffs_of
from metering.catalog.documents import EUR_DECIMALS, GRAM_DECIMALS
from metering.catalog.routes.acting import clock
from metering.catalog.snapshot import Snapshot
from metering.database import transaction
from metering.errors import NotFound, Unavailable
from metering.identity import Principal
from metering.quotas.calls import Lost
from metering.quotas.store import CounterStore
from metering.rules import limits as rules
from metering.rules.counting import field_of, in_units
from metering.rules.limits import Meter
from metering.rules.periods import PARIS
from metering.web import TOKEN_SECURITY, caller_of, require

Amount = Annotated[str, Meta(description="A decimal number.")]
HELD_AT = 3
"""Where a period's counter has what is held."""


class ForecastShown(msgspec.Struct):
    """By the end of the term, if the days to come are as the trailing 28 were, weekday by weekday.

    runs_out_on: the first day on which the envelope doesn't suffice (null: not within the term); earliest, latest: if
    each day is as the highest, or as the lowest, of its weekday.
    """

    value: Amount
    lower: Amount
    upper: Amount
    runs_out_on: date | None
    earliest: date | None
    latest: date | None


class EnvelopePart(msgspec.Struct):
    """An envelope, in `unit`. consumed: exact, of what is recorded; null: not all of it is in EUR.

    committed: held by requests under way, estimated; null: the counters are away, or not built since nobody has asked.
    unknown: what has no amount and isn't in it: kinds of usage without a price, or requests whose carbon isn't posted
    or isn't known.
    """

    unit: Literal["EUR", "gCO2e"]
    envelope: Amount
    consumed: Amount | None
    committed: Amount | None
    remaining: Amount | None
    forecast: ForecastShown | None
    unknown: int


class Envelopes(msgspec.Struct):
    """What a convention has for its term. overage: what happens when it is used up."""

    convention: str
    version: int
    tenant: str
    title: str
    starts_on: date
    ends_on: date
    overage: str
    at: datetime
    parts: list[EnvelopePart]


def shown_envelopes(use: EnvelopeUse, held: Mapping[Meter, int] | None) -> Envelopes:
    """Envelopes as they leave. held: in base units of the meters; None: unknown."""
    convention = use.convention
    parts = [
        _part(one, unit, decimals, None if held is None else held.get(meter, 0))
        for one, unit, decimals, meter in _parts(use)
    ]
    return Envelopes(
        convention.id, convention.version, convention.tenant, convention.title, convention.starts_on,
        convention.ends_on, convention.overage, use.at.astimezone(UTC), parts,
    )  # fmt: skip


def read_envelopes(
    connection: sa.Connection, snapshot: Snapshot, name: str, store: CounterStore, now: datetime
) -> Envelopes:
    """Envelopes of a convention. Raises: NotFound."""
    convention = convention_named(snapshot.conventions, name, now.astimezone(PARIS).date())
    use = envelope_use(connection, tariffs_of(snapshot), convention, now)
    return shown_envelopes(use, held_by_requests(store, convention.tenant))


def held_by_requests(store: CounterStore, tenant: str) -> Mapping[Meter, int] | None:
    """What requests under way hold of the envelopes, in base units; None where counters are away or not built."""
    try:
        _about, flat, _holds = store.call(tenant, "all").figures
    except (Lost, Unavailable):
        return None
    counters = dict(zip(*[iter(flat)] * 2, strict=True))
    fields: dict[Meter, bytes] = {
        meter: field_of(rules.envelope(meter, 0, "hard"), rules.Request(tenant)).encode()
        for meter in sorted(rules.ENVELOPE_METERS)
    }
    return {
        meter: in_units(meter, msgspec.msgpack.decode(counters[field])[HELD_AT])
        for meter, field in fields.items()
        if field in counters
    }


def _parts(use: EnvelopeUse) -> list[tuple[Part, Literal["EUR", "gCO2e"], int, Meter]]:
    found: list[tuple[Part, Literal["EUR", "gCO2e"], int, Meter]] = []
    if use.money is not None:
        found.append((use.money, "EUR", EUR_DECIMALS, "cost_neur"))
    if use.carbon is not None:
        found.append((use.carbon, "gCO2e", GRAM_DECIMALS, "carbon_ugco2e"))
    return found


def _part(one: Part, unit: Literal["EUR", "gCO2e"], decimals: int, held: int | None) -> EnvelopePart:
    def amount(value: int | None) -> str | None:
        return None if value is None else _decimal(value, decimals)

    left = None if one.consumed is None else max(one.envelope - one.consumed - (held or 0), 0)
    ahead = one.forecast
    shown = None
    if ahead is not None:
        value, lower, upper = (_decimal(figure, decimals) for figure in (ahead.value, ahead.lower, ahead.upper))
        shown = ForecastShown(value, lower, upper, ahead.runs_out_on, ahead.earliest, ahead.latest)
    return EnvelopePart(
        unit, _decimal(one.envelope, decimals), amount(one.consumed), amount(held), amount(left), shown, one.unknown
    )


def _decimal(value: int, decimals: int) -> str:
    """A decimal number with two decimals at least."""
    text = f"{Decimal(value).scaleb(-decimals):f}"
    whole, _point, part = text.partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


@get("/v1/conventions/{convention:str}/envelope", summary="What is left of a convention's envelope",
     guards=[require("operator", "manager")], sync_to_thread=True)  # fmt: skip
def get_envelope(request: Request[Any, Any, Any], convention: FromPath[str]) -> Envelopes:
    caller, state = caller_of(request), request.app.state
    snapshot: Snapshot = state.catalog.current()
    _check_theirs(caller, snapshot, convention)
    with transaction(state.engine, snapshot=True, actor=caller.actor) as connection:
        return read_envelopes(connection, snapshot, convention, state.quotas.counters, clock())


def _check_theirs(caller: Principal, snapshot: Snapshot, name: str) -> None:
    """Raises: NotFound for a convention of others, as for one that isn't there."""
    own = [snapshot.conventions.get(caller.tenant, ())] if caller.tenant is not None else snapshot.conventions.values()
    if not any(one.id == name for versions in own for one in versions):
        raise NotFound("unknown_convention", "No such convention.", field="convention")


envelopes_router = Router("/", route_handlers=[get_envelope], security=TOKEN_SECURITY, tags=["billing"])

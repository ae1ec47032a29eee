"""Readings of GPUs' counters: recorded once, for ever, in a chain of their own."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.carbon.chains import append_link, instant
from metering.database import transaction
from metering.ledger.append import Outcome
from metering.rules.chain import identity_of
from metering.tables import energy_batch, energy_reading

ENERGY_LOCK = 0x454E45524759  # "ENERGY": held while a batch of readings is written, so that numbers commit in order

HostSource = Literal["wall", "rapl"]
"""How a node's energy is known: at the plug, GPUs included, or from the counters of its processors and memory."""


class Reading(NamedTuple):
    """What one GPU's counters said at one moment; null is unknown. Counters begin anew with the epoch."""

    source: str
    event_id: str
    at_us: int
    node: str
    gpu: str
    epoch: str
    monotonic_us: int | None = None
    energy_mj: int | None = None
    power_mw: int | None = None
    power_limit_mw: int | None = None
    gpu_model: str | None = None
    deployment: str | None = None
    site: str | None = None
    host_energy_mj: int | None = None
    host_source: HostSource | None = None


AT_US = sa.cast(sa.extract("epoch", energy_reading.c.at) * 1_000_000, sa.BigInteger).label("at_us")
READING_COLUMNS = [AT_US if name == "at_us" else energy_reading.c[name] for name in Reading._fields]
"""Columns of a `Reading`, in its order."""


class Readings:
    """The append-only record of readings."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def append(self, readings: Sequence[Reading]) -> list[Outcome]:
        """Write readings durably; says what became of each, in order. Safe to repeat. Raises: Unavailable."""
        if not readings:
            return []
        identities = [identity_of(reading.source, reading.event_id) for reading in readings]
        first = dict(zip(reversed(identities), reversed(readings), strict=True))
        with transaction(self._engine) as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ENERGY_LOCK)))
            recorded = _recorded(connection, sorted(first))
            if fresh := {identity: first[identity] for identity in sorted(first) if identity not in recorded}:
                _write(connection, fresh)
        return _outcomes(identities, readings, first, recorded)


def _outcomes(
    identities: Sequence[bytes],
    readings: Sequence[Reading],
    first: Mapping[bytes, Reading],
    recorded: Mapping[bytes, Reading],
) -> list[Outcome]:
    seen = set(recorded)
    outcomes = []
    for identity, reading in zip(identities, readings, strict=True):
        if identity not in seen:
            seen.add(identity)
            outcomes.append(Outcome.ACCEPTED)
        else:
            is_same = recorded.get(identity, first[identity]) == reading
            outcomes.append(Outcome.DUPLICATE if is_same else Outcome.CONFLICT)
    return outcomes


def _recorded(connection: sa.Connection, identities: Sequence[bytes]) -> dict[bytes, Reading]:
    """Readings that are recorded under these identities."""
    wanted = sa.cast([identity.hex() for identity in identities], pg.ARRAY(sa.Text))
    rows = connection.execute(
        sa.select(sa.func.uuid_send(energy_reading.c.identity), *READING_COLUMNS).where(
            energy_reading.c.identity == sa.any_(sa.cast(wanted, pg.ARRAY(pg.UUID(as_uuid=False))))
        )
    )
    return {bytes(row[0]): Reading(*row[1:]) for row in rows}


def _write(connection: sa.Connection, fresh: Mapping[bytes, Reading]) -> None:
    seq = append_link(connection, energy_batch, [msgspec.json.encode(reading) for reading in fresh.values()], sums=())
    rows = []
    for identity, reading in fresh.items():
        values = reading._asdict()
        at = instant(values.pop("at_us"))
        rows.append({"batch_seq": seq, "identity": identity.hex(), "at": at, **values})
    connection.execute(energy_reading.insert(), rows)

"""Refused events: what may be kept of them, so that an operator can list, mend and replay them.

Kept is only what the schema knows and whose value has the right form; a prompt has nowhere to be. A field of the
schema with another value is kept as `WITHHELD`: the event can't be replayed, as if it had never stated that field,
until somebody sets it.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, get_type_hints

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.database import transaction
from metering.events.envelope import PEOPLE, EnergyData, UsageData, UsageEvent, is_address, is_name, is_source
from metering.events.refusals import Refusal
from metering.tables import quarantine

Channel = Literal["http", "stream", "file", "replay"]

WITHHELD: Final = "(withheld)"
"""Stands for the value of a known field that didn't have the right form."""

_ENVELOPE_TYPES = {
    name: hint for name, hint in get_type_hints(UsageEvent, include_extras=True).items() if name != "data"
} | {"type": Literal["jauge.usage.v1", "jauge.energy.v1"]}
_DATA_TYPES = get_type_hints(EnergyData, include_extras=True) | get_type_hints(UsageData, include_extras=True)

FIELD_TYPES: Final[Mapping[str, Any]] = MappingProxyType(
    _ENVELOPE_TYPES | {f"data.{name}": kind for name, kind in _DATA_TYPES.items()}
)
"""Type of every field of the event, by its path."""

SOURCE_PATHS: Final = frozenset({"source", "data.endpoint"})
"""Fields that may hold a path beside a name."""
PEOPLE_PATHS: Final = frozenset(f"data.{name}" for name in PEOPLE)


def _loose(name: str, fields: Iterable[str]) -> "msgspec.json.Decoder[msgspec.Struct]":
    """Reads an object without its unknown fields, and each known one as the bytes it stands in."""
    struct = msgspec.defstruct(name, [(field, msgspec.Raw, msgspec.Raw()) for field in fields])
    return msgspec.json.Decoder(struct)


_envelope = _loose("LooseEvent", UsageEvent.__struct_fields__)
_data = _loose("LooseData", _DATA_TYPES)
_values = {path: msgspec.json.Decoder(kind) for path, kind in FIELD_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A refused event, as an operator sees it."""

    number: int
    received_at: datetime
    channel: str
    code: str
    field: str | None
    reason: str
    event: dict[str, Any] | None
    occurrences: int
    replayed_at: datetime | None
    dismissed_at: datetime | None
    dismissed_by: str | None
    dismissed_why: str | None


def is_waiting() -> sa.ColumnElement[bool]:
    """Whether a refused event still waits for somebody: neither in the ledger by now, nor dismissed."""
    return quarantine.c.replayed_at.is_(None) & quarantine.c.dismissed_at.is_(None)


def salvage(piece: bytes) -> dict[str, Any] | None:
    """What may be kept of a refused event; None if no field has the right form."""
    envelope = _fields(_envelope, piece)
    kept = {name: _salvaged(name, value) for name, value in envelope.items() if name != "data"}
    if "data" in envelope:
        data = _fields(_data, envelope["data"])
        if kept_data := {name: _salvaged(f"data.{name}", value) for name, value in data.items()}:
            kept["data"] = kept_data
    values = [*kept.values(), *kept.get("data", {}).values()]
    return kept if any(value != WITHHELD and not isinstance(value, dict) for value in values) else None


def is_withheld(event: Mapping[str, Any]) -> bool:
    """Whether an event lacks the value of a field that it stated."""
    return WITHHELD in event.values() or WITHHELD in event.get("data", {}).values()


def _fields(decoder: "msgspec.json.Decoder[msgspec.Struct]", piece: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        read = decoder.decode(piece)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: value for name in read.__struct_fields__ if bytes(value := getattr(read, name))}


def _salvaged(path: str, piece: msgspec.Raw) -> Any:
    """A value in its plainest form: a time, for one, could carry any number of digits."""
    try:
        value = msgspec.to_builtins(_values[path].decode(piece))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return WITHHELD
    return value if not isinstance(value, str) or _is_opaque(path, value) else WITHHELD


def _is_opaque(path: str, value: str) -> bool:
    if path in PEOPLE_PATHS and is_address(value):
        return False
    return is_name(value) or (path in SOURCE_PATHS and is_source(value))


def keep(engine: sa.Engine, refused: Iterable[tuple[Refusal, bytes]], channel: Channel) -> None:
    """Record refused events; the same one again only counts, and stays dismissed if it was. Raises: Unavailable."""
    occurrences: Counter[bytes] = Counter()
    rows: dict[bytes, dict[str, Any]] = {}
    for refusal, piece in refused:
        event = salvage(piece)
        digest = hashlib.sha256(msgspec.json.encode([refusal, event], order="sorted")).digest()
        occurrences[digest] += 1
        rows[digest] = {
            "channel": channel,
            "code": refusal.code,
            "field": refusal.field,
            "reason": refusal.reason,
            "event": event,
            "digest": digest,
        }
    if not rows:
        return
    new = insert(quarantine)
    counted = new.on_conflict_do_update(
        index_elements=["digest"],
        set_={"occurrences": quarantine.c.occurrences + new.excluded.occurrences, "replayed_at": None},
    )
    with transaction(engine) as connection:
        connection.execute(counted, [rows[digest] | {"occurrences": occurrences[digest]} for digest in sorted(rows)])


def newest_number(engine: sa.Engine) -> int:
    """Number of the last refused event; 0 while there is none."""
    with transaction(engine) as connection:
        return connection.scalar(sa.select(sa.func.max(quarantine.c.number))) or 0


def list_quarantined(
    engine: sa.Engine, *, after: int = 0, limit: int = 100, numbers: Sequence[int] | None = None, done: bool = False
) -> list[Quarantined]:
    """Refused events after a number, oldest first; done: those replayed since or dismissed too."""
    query = sa.select(quarantine).where(quarantine.c.number > after).order_by(quarantine.c.number).limit(limit)
    if numbers is not None:
        query = query.where(quarantine.c.number.in_(numbers))
    if not done:
        query = query.where(is_waiting())
    with transaction(engine) as connection:
        rows = connection.execute(query)
        return [Quarantined(**{name: row._mapping[name] for name in Quarantined.__slots__}) for row in rows]


def mark_replayed(engine: sa.Engine, numbers: Sequence[int]) -> None:
    """Record that these have entered the ledger."""
    with transaction(engine) as connection:
        connection.execute(
            quarantine.update().where(quarantine.c.number.in_(numbers)).values(replayed_at=sa.func.now())
        )


def dismiss(engine: sa.Engine, numbers: Sequence[int], *, why: str, author: str, now: datetime) -> int:
    """Decide that these need no mending, and say why. They stay listed on request, and are offered no more.

    Returns how many of them still waited; the others stay as they are. Raises: Unavailable.
    """
    chosen = quarantine.c.number.in_(numbers) & is_waiting()
    said = {"dismissed_at": now, "dismissed_by": author, "dismissed_why": why}
    with transaction(engine) as connection:
        return connection.execute(quarantine.update().where(chosen).values(said)).rowcount

"""Refused events: what may be kept of them, so that an operator can list, mend and replay them.

Kept is only what the schema knows and whose value has the right form; a prompt has nowhere to be.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_type_hints

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.database import transaction
from metering.events.envelope import UsageData, UsageEvent, is_name, is_source
from metering.events.refusals import Refusal
from metering.tables import quarantine

Channel = Literal["http", "stream", "file", "replay"]

_ENVELOPE_TYPES = {
    name: hint for name, hint in get_type_hints(UsageEvent, include_extras=True).items() if name != "data"
}
_DATA_TYPES = get_type_hints(UsageData, include_extras=True)


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


def salvage(piece: bytes) -> dict[str, Any] | None:
    """What may be kept of a refused event: fields of the schema with a value of the right form; None if there are none."""
    try:
        read = msgspec.json.decode(piece)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(read, dict):
        return None
    kept = _well_formed(read, _ENVELOPE_TYPES)
    data = read.get("data")
    if isinstance(data, dict) and (kept_data := _well_formed(data, _DATA_TYPES)):
        kept["data"] = kept_data
    return kept or None


def _well_formed(values: dict[str, Any], types: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, kind in types.items():
        if name in values and _has_form(name, values[name], kind):
            kept[name] = values[name]
    return kept


def _has_form(name: str, value: Any, kind: Any) -> bool:
    try:
        read = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return not isinstance(read, str) or is_name(read) or (name in {"source", "endpoint"} and is_source(read))


def keep(engine: sa.Engine, refused: Iterable[tuple[Refusal, bytes]], channel: Channel) -> None:
    """Record refused events; the same one again only counts. Raises: Unavailable."""
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


def list_quarantined(
    engine: sa.Engine, *, after: int = 0, limit: int = 100, numbers: Sequence[int] | None = None, replayed: bool = False
) -> list[Quarantined]:
    """Refused events after a number, oldest first; those replayed since only on request."""
    query = sa.select(quarantine).where(quarantine.c.number > after).order_by(quarantine.c.number).limit(limit)
    if numbers is not None:
        query = query.where(quarantine.c.number.in_(numbers))
    if not replayed:
        query = query.where(quarantine.c.replayed_at.is_(None))
    with transaction(engine) as connection:
        rows = connection.execute(query)
        return [Quarantined(**{name: row._mapping[name] for name in Quarantined.__slots__}) for row in rows]


def mark_replayed(engine: sa.Engine, numbers: Sequence[int]) -> None:
    """Record that these have entered the ledger."""
    with transaction(engine) as connection:
        connection.execute(
            quarantine.update().where(quarantine.c.number.in_(numbers)).values(replayed_at=sa.func.now())
        )

"""Corrections and voids: new entries with signed quantities, in the period of what they correct."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import sqlalchemy as sa

from metering.database import transaction
from metering.errors import Conflict, NotFound, Unprocessable
from metering.ledger.append import Ledger, Outcome
from metering.ledger.rows import CORRECTION, FRAME_SCHEMA, VOID
from metering.rules.chain import identity_of
from metering.rules.quantities import (
    QUANTITIES,
    QUANTITY_MAX,
    add,
    correction_delta,
    expected_quantities,
    net,
    subset_violation,
)
from metering.tables import ledger_entry, ledger_identity, ledger_series

CORRECTIONS_SOURCE = "jauge:corrections"
CORRECTIONS_LOCK = 0x434F5252454354  # "CORRECT": each reads what the one before has written
TEXT_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True)
class Correction:
    """A recorded correction: its own id, and the signed quantities it adds."""

    id: str
    quantities: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event in the ledger with what has been corrected since."""

    identity: bytes
    entry: Mapping[str, Any]
    net: dict[str, int | None]
    net_uncounted: int
    voided: bool


Change = Callable[[Recorded], tuple[dict[str, int], int]]
"""From an event as it counts now to the signed quantities, and uncounted requests, to add."""


class Corrections:
    """Writes corrections of one ledger."""

    def __init__(self, engine: sa.Engine, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger

    def correct(
        self, source: str, event_id: str, quantities: Mapping[str, int], *, reason: str, author: str, id: str | None = None
    ) -> Correction:  # fmt: skip
        """Set quantities of an event; those absent stay as they are. With an `id` of the caller's, safe to repeat.

        Raises: NotFound; Conflict if the event is void or the id is taken; Unprocessable; Unavailable.
        """
        _check_quantities(quantities)

        def change(recorded: Recorded) -> tuple[dict[str, int], int]:
            delta = correction_delta(recorded.net, quantities)
            if not delta:
                raise Unprocessable("nothing_to_correct", "The event has these quantities.", field="quantities")
            after = {name: add(recorded.net[name], delta.get(name)) for name in QUANTITIES}
            if (nested := subset_violation(after)) is not None:
                raise Unprocessable(
                    "part_exceeds_whole", f"{nested[0]} is a part of {nested[1]}.", field=f"quantities.{nested[0]}",
                    expected=f"at most {nested[1]}",
                )  # fmt: skip
            return delta, _uncounted(recorded.entry, after) - recorded.net_uncounted

        return self._record(source, event_id, CORRECTION, change, reason=reason, author=author, id=id)

    def void(self, source: str, event_id: str, *, reason: str, author: str, id: str | None = None) -> Correction:
        """Make an event count for nothing. With an `id` of the caller's, safe to repeat.

        Raises: NotFound; Conflict if the event is void already or the id is taken; Unprocessable; Unavailable.
        """

        def change(recorded: Recorded) -> tuple[dict[str, int], int]:
            return {name: -value for name, value in recorded.net.items() if value}, -recorded.net_uncounted

        return self._record(source, event_id, VOID, change, reason=reason, author=author, id=id)

    def _record(
        self, source: str, event_id: str, kind: int, change: Change, *, reason: str, author: str, id: str | None
    ) -> Correction:  # fmt: skip
        for name, text in (("reason", reason), ("author", author)):
            if not 0 < len(text.strip()) <= TEXT_LENGTH_MAX:
                raise Unprocessable(
                    "missing_field", "Needed.", field=name, expected=f"1 to {TEXT_LENGTH_MAX} characters"
                )
        own_id = id or secrets.token_hex(16)
        with transaction(self._engine) as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CORRECTIONS_LOCK)))
            identity = identity_of(source, event_id)
            if id is not None and (before := _earlier(connection, identity_of(CORRECTIONS_SOURCE, id), identity)):
                return Correction(id, before)
            recorded = _find(connection, identity)
            if recorded.voided:
                raise Conflict("event_is_void", "The event has been voided.", field="id")
            delta, uncounted = change(recorded)
            frame = _frame(recorded, own_id, kind, delta, uncounted, reason=reason.strip(), author=author.strip())
            outcome = self._ledger.append(frame)
        assert outcome == [Outcome.ACCEPTED]
        return Correction(own_id, delta)


def _check_quantities(quantities: Mapping[str, int]) -> None:
    for name, value in quantities.items():
        if name not in QUANTITIES:
            raise Unprocessable(
                "unknown_field", "Not a quantity.", field="quantities", expected=", ".join(QUANTITIES)
            )  # fmt: skip
        if not 0 <= value <= QUANTITY_MAX:
            raise Unprocessable(
                "out_of_range", "Not a quantity.", field=f"quantities.{name}", expected=f"0 to {QUANTITY_MAX}"
            )  # fmt: skip


def _find(connection: sa.Connection, identity: bytes) -> Recorded:
    entry = ledger_entry.c
    seq = connection.scalar(sa.select(ledger_identity.c.batch_seq).where(ledger_identity.c.identity == identity.hex()))
    first = connection.execute(
        sa.select(ledger_entry, ledger_series.c.operation, ledger_series.c.status)
        .join(ledger_series, ledger_series.c.number == entry.series)
        .where(entry.batch_seq == seq, entry.identity == identity.hex(), entry.corrects.is_(None))
    ).first()
    if first is None:
        raise NotFound("unknown_event", "No event of this source and id is in the ledger.", field="id")
    later = connection.execute(sa.select(ledger_entry).where(entry.corrects == identity.hex())).all()
    rows = [first._mapping, *(row._mapping for row in later)]
    return Recorded(
        identity=identity,
        entry=first._mapping,
        net=net([{name: row[name] for name in QUANTITIES} for row in rows]),
        net_uncounted=sum(row["uncounted_requests"] for row in rows),
        voided=any(row["kind"] == VOID for row in rows),
    )


def _earlier(connection: sa.Connection, own: bytes, target: bytes) -> dict[str, int] | None:
    """Quantities of a correction already recorded under this id. Raises: Conflict if it corrects another event."""
    entry = ledger_entry.c
    row = connection.execute(
        sa.select(ledger_entry)
        .join(ledger_identity, ledger_identity.c.batch_seq == entry.batch_seq)
        .where(ledger_identity.c.identity == own.hex(), entry.identity == own.hex())
    ).first()
    if row is None:
        return None
    if row.corrects is None or bytes.fromhex(row.corrects.replace("-", "")) != target:
        raise Conflict("correction_exists", "This id is that of a correction of another event.", field="correction_id")
    return {name: row._mapping[name] for name in QUANTITIES if row._mapping[name] is not None}


def _uncounted(entry: Mapping[str, Any], quantities: Mapping[str, int | None]) -> int:
    return int(any(quantities[name] is None for name in expected_quantities(entry["operation"], entry["status"])))


def _frame(
    recorded: Recorded, own_id: str, kind: int, delta: Mapping[str, int], uncounted: int, *, reason: str, author: str
) -> pl.DataFrame:  # fmt: skip
    kept = {name: recorded.entry[name] for name in ("series", "tenant", "occurred_at", "ended_at")}
    row: dict[str, object] = {
        **dict.fromkeys(FRAME_SCHEMA),
        **kept,
        **delta,
        "identity": identity_of(CORRECTIONS_SOURCE, own_id),
        "kind": kind,
        "uncounted_requests": uncounted,
        "corrects": recorded.identity,
        "event_id": own_id,
        "reason": reason,
        "author": author,
    }
    return pl.DataFrame([row], schema=FRAME_SCHEMA)

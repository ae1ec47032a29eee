"""Corrections and voids: new entries with signed quantities, in the period of what they correct."""

import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import sqlalchemy as sa

from metering.database import transaction
from metering.errors import Conflict, NotFound, Unprocessable
from metering.ledger.append import Ledger, Outcome, prepare
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
ID_LENGTH_MAX = 128


@dataclass(frozen=True, slots=True)
class Correction:
    """A recorded correction: its own id, and the signed quantities it adds."""

    id: str
    quantities: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event in the ledger with what has been corrected since."""

    entry: Mapping[str, Any]
    net: dict[str, int | None]
    net_uncounted: int
    voided: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What is asked for: a kind of entry, the quantities to set (none for a void), why, and by whom."""

    kind: int
    wanted: Mapping[str, int]
    reason: str
    author: str

    def delta(self, recorded: Recorded) -> tuple[dict[str, int], int]:
        """Signed quantities and uncounted requests to add to an event as it counts now. Raises: Unprocessable."""
        if self.kind == VOID:
            return {name: -value for name, value in recorded.net.items() if value}, -recorded.net_uncounted
        delta = correction_delta(recorded.net, self.wanted)
        if not delta:
            raise Unprocessable("nothing_to_correct", "The event has these quantities.", field="quantities")
        after = {name: add(recorded.net[name], delta.get(name)) for name in QUANTITIES}
        if (nested := subset_violation(after)) is not None:
            raise Unprocessable(
                "part_exceeds_whole", f"{nested[0]} is a part of {nested[1]}.", field=f"quantities.{nested[0]}",
                expected=f"at most {nested[1]}",
            )  # fmt: skip
        return delta, _uncounted(recorded.entry, after) - recorded.net_uncounted

    def made(self, before: Recorded, entry: Mapping[str, Any]) -> bool:
        """Whether this entry is what the change made of an event as it counted before."""
        if entry["kind"] != self.kind:
            return False
        delta = {name: entry[name] for name in QUANTITIES if entry[name] is not None}
        return self.kind == VOID or delta == correction_delta(before.net, self.wanted)


class Corrections:
    """Writes corrections of one ledger."""

    def __init__(self, engine: sa.Engine, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger

    def correct(
        self, source: str, event_id: str, quantities: Mapping[str, int], *,
        reason: str, author: str, id: str | None = None,  # noqa: A002 - the name it has over HTTP
    ) -> Correction:  # fmt: skip
        """Set quantities of an event; those absent stay as they are. With an `id` of the caller's, safe to repeat.

        Raises: NotFound; Conflict if the event is void or the id is taken; Unprocessable; Unavailable.
        """
        _check_quantities(quantities)
        return self._record(source, event_id, Change(CORRECTION, quantities, reason, author), id)

    def void(
        self, source: str, event_id: str, *, reason: str, author: str, id: str | None = None  # noqa: A002 - see `correct`
    ) -> Correction:  # fmt: skip
        """Make an event count for nothing. With an `id` of the caller's, safe to repeat.

        Raises: NotFound; Conflict if the event is void already or the id is taken; Unprocessable; Unavailable.
        """
        return self._record(source, event_id, Change(VOID, {}, reason, author), id)

    def _record(self, source: str, event_id: str, change: Change, given_id: str | None) -> Correction:
        texts = {"source": source, "id": event_id, "reason": change.reason, "author": change.author}
        for name, text in texts.items():
            _check_text(name, text, TEXT_LENGTH_MAX)
        if given_id is not None:
            _check_text("correction_id", given_id, ID_LENGTH_MAX)
        own_id = secrets.token_hex(16) if given_id is None else given_id
        with transaction(self._engine) as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CORRECTIONS_LOCK)))
            identity = identity_of(source, event_id)
            if (earlier := _earlier(connection, own_id, identity, change)) is not None:
                return earlier
            recorded = _recorded(*_rows_of(connection, identity))
            if recorded.voided:
                raise Conflict("event_is_void", "The event has been voided.", field="id")
            delta, uncounted = change.delta(recorded)
            frame = _frame(recorded, own_id, change, delta, uncounted)
            outcome = self._ledger.write_within(connection, prepare(frame))
            if outcome != [Outcome.ACCEPTED]:
                raise _taken()
        return Correction(own_id, delta)


def _taken() -> Conflict:
    return Conflict("correction_exists", "This id is that of another correction.", field="correction_id")


def _check_text(name: str, text: str, length_max: int) -> None:
    """Raises: Unprocessable for what is empty, too long, or can't be stored: control characters, halves of pairs."""
    if not text.strip() or len(text) > length_max:
        raise Unprocessable("missing_field", "Needed.", field=name, expected=f"1 to {length_max} characters")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        raise Unprocessable("invalid_name", "Not a line of text.", field=name, expected="no control characters")


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


def _rows_of(connection: sa.Connection, identity: bytes) -> list[Mapping[str, Any]]:
    """An event's row, then those of its corrections in their order. Raises: NotFound."""
    entry = ledger_entry.c
    seq = connection.scalar(sa.select(ledger_identity.c.batch_seq).where(ledger_identity.c.identity == identity.hex()))
    first = connection.execute(
        sa.select(ledger_entry, ledger_series.c.operation, ledger_series.c.status)
        .join(ledger_series, ledger_series.c.number == entry.series)
        .where(entry.batch_seq == seq, entry.identity == identity.hex(), entry.corrects.is_(None))
    ).first()
    if first is None:
        raise NotFound("unknown_event", "No event of this source and id is in the ledger.", field="id")
    # One correction a batch: each is a transaction of its own.
    later = connection.execute(
        sa.select(ledger_entry).where(entry.corrects == identity.hex()).order_by(entry.batch_seq)
    )
    return [dict(row._mapping) for row in (first, *later)]


def _recorded(first: Mapping[str, Any], *later: Mapping[str, Any]) -> Recorded:
    rows = (first, *later)
    return Recorded(
        entry=first,
        net=net([{name: row[name] for name in QUANTITIES} for row in rows]),
        net_uncounted=sum(row["uncounted_requests"] for row in rows),
        voided=any(row["kind"] == VOID for row in rows),
    )


def _earlier(connection: sa.Connection, own_id: str, target: bytes, change: Change) -> Correction | None:
    """The same change, if it is recorded under this id. Raises: Conflict if the id is that of another one."""
    own = identity_of(CORRECTIONS_SOURCE, own_id).hex()
    seq = connection.scalar(sa.select(ledger_identity.c.batch_seq).where(ledger_identity.c.identity == own))
    if seq is None:
        return None
    rows = _rows_of(connection, target)
    before = [row for row in rows if row["batch_seq"] < seq]
    entry = next((row for row in rows if row["identity"].replace("-", "") == own), None)
    if entry is None or not before or not change.made(_recorded(*before), entry):
        raise _taken()
    return Correction(own_id, {name: entry[name] for name in QUANTITIES if entry[name] is not None})


def _uncounted(entry: Mapping[str, Any], quantities: Mapping[str, int | None]) -> int:
    return int(any(quantities[name] is None for name in expected_quantities(entry["operation"], entry["status"])))


def _frame(recorded: Recorded, own_id: str, change: Change, delta: Mapping[str, int], uncounted: int) -> pl.DataFrame:
    kept = {name: recorded.entry[name] for name in ("series", "tenant", "occurred_at", "ended_at")}
    row: dict[str, object] = {
        **dict.fromkeys(FRAME_SCHEMA),
        **kept,
        **delta,
        "identity": identity_of(CORRECTIONS_SOURCE, own_id),
        "kind": change.kind,
        "uncounted_requests": uncounted,
        "corrects": bytes.fromhex(recorded.entry["identity"].replace("-", "")),
        "event_id": own_id,
        "reason": change.reason.strip(),
        "author": change.author.strip(),
    }
    return pl.DataFrame([row], schema=FRAME_SCHEMA)

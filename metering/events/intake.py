"""The one way in: events from HTTP, stream or file are checked, written, and answered one by one."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Literal

import msgspec
import polars as pl
import sqlalchemy as sa

from metering.carbon.readings import Reading, Readings
from metering.catalog.tenants import TenantDirectory
from metering.errors import Unprocessable
from metering.events import quarantine
from metering.events.decoding import Decoded, decode_one
from metering.events.energy import check_reading, to_reading
from metering.events.envelope import EnergyEvent, UsageEvent
from metering.events.quarantine import Channel, Quarantined
from metering.events.refusals import Refusal
from metering.events.validation import check_event, check_series, series_fields, suspects, to_entries
from metering.ledger.append import Outcome
from metering.ledger.committer import GroupCommitter
from metering.ledger.rows import FRAME_SCHEMA
from metering.ledger.series import Series, SeriesRegistry
from metering.metrics import EVENTS

TENANT = Series._fields.index("tenant")
UNKNOWN_TENANT = Refusal("unknown_tenant", "data.tenant", "a registered administration")


class EventResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one event of a call."""

    index: int
    status: Literal["accepted", "duplicate", "conflict", "rejected"]
    code: str | None = None
    field: str | None = None
    reason: str | None = None
    expected: str | None = None


class IntakeAnswer(msgspec.Struct, frozen=True):
    """What became of a call: counts, then every event in its order."""

    accepted: int
    duplicate: int
    conflict: int
    rejected: int
    events: list[EventResult]

    @property
    def is_whole(self) -> bool:
        """Whether every event is in the ledger."""
        return self.conflict == self.rejected == 0


@dataclass(frozen=True, slots=True)
class Pending:
    """A call whose good events are on their way to the ledger."""

    decoded: Decoded
    refused: dict[int, tuple[Refusal, bytes]]
    written: "Future[list[Outcome]] | None"
    offered: list[int]
    readings: dict[int, Reading]
    channel: Channel


class Intake:
    """Checks events and hands them to the ledger; keeps what is refused in quarantine."""

    def __init__(self, engine: sa.Engine, series: SeriesRegistry, committer: GroupCommitter) -> None:
        self._engine = engine
        self._series = series
        self._committer = committer
        self._tenants = TenantDirectory(engine)
        self._readings = Readings(engine)

    def take(self, decoded: Decoded, channel: Channel) -> IntakeAnswer:
        """Write a call's events; when this returns, those accepted are durable. Raises: Unavailable."""
        return self.finish(self.begin(decoded, channel))

    def begin(self, decoded: Decoded, channel: Channel) -> Pending:
        """Check events and queue the good ones; `finish` waits for them. Raises: Unavailable."""
        refused = {index: item for index, item in enumerate(decoded) if isinstance(item, tuple)}
        readings = _readings(decoded, refused)
        offered = [index for index, item in enumerate(decoded) if isinstance(item, UsageEvent)]
        events = [item for item in decoded if isinstance(item, UsageEvent)]
        entries = to_entries(events)
        fields = list(map(series_fields, events))
        tenants = self._tenants.numbers({one[TENANT] for one in fields})
        numbers, bad = self._numbers(fields, tenants)
        for at, refusal in (bad | _broken(events, entries)).items():
            refused[offered[at]] = (refusal, msgspec.json.encode(events[at]))
        entries = entries.hstack(
            [
                pl.Series("series", numbers, dtype=pl.Int32),
                pl.Series("tenant", [tenants.get(one[TENANT]) for one in fields], dtype=pl.Int32),
            ]
        )[list(FRAME_SCHEMA)]
        if refused:
            entries = entries.filter([index not in refused for index in offered])
            offered = [index for index in offered if index not in refused]
        written = self._committer.submit(entries) if offered else None
        return Pending(decoded, refused, written, offered, readings, channel)

    def finish(self, pending: Pending) -> IntakeAnswer:
        """Wait for the ledger, keep what was refused, and answer. Raises: Unavailable."""
        outcomes = pending.written.result() if pending.written is not None else []
        refused = dict(pending.refused)
        results: list[EventResult] = []
        places = [*pending.offered, *pending.readings]
        outcomes += self._readings.append(list(pending.readings.values()))
        for index, outcome in zip(places, outcomes, strict=True):
            if outcome is Outcome.CONFLICT:
                refused[index] = (Refusal("conflict", "id"), msgspec.json.encode(pending.decoded[index]))
            else:
                results.append(EventResult(index, "accepted" if outcome is Outcome.ACCEPTED else "duplicate"))
        if refused:
            quarantine.keep(self._engine, (refused[index] for index in sorted(refused)), pending.channel)
            results += [_refused_result(index, refusal) for index, (refusal, _piece) in refused.items()]
        if refused or pending.readings:
            results.sort(key=attrgetter("index"))
        return _answer(results, pending.channel)

    def _numbers(
        self, fields: list[tuple[Any, ...]], tenants: Mapping[str, int]
    ) -> tuple[list[int | None], dict[int, Refusal]]:
        """Number of every event's series, and why an event has none, by place.

        A series that has a number kept the rules when it got it, so only new ones are checked.
        """
        numbers = self._series.remembered(fields)
        if None not in numbers:
            return numbers, {}
        bad: dict[tuple[Any, ...], Refusal] = {}
        good: list[Series] = []
        for one in map(Series._make, dict.fromkeys(fields)):
            refusal = check_series(one) or (None if one.tenant in tenants else UNKNOWN_TENANT)
            if refusal is None:
                good.append(one)
            else:
                bad[one] = refusal
        found: Mapping[Any, int] = self._series.numbers(good)
        return list(map(found.get, fields)), {at: bad[one] for at, one in enumerate(fields) if one in bad}


def _readings(decoded: Decoded, refused: dict[int, tuple[Refusal, bytes]]) -> dict[int, Reading]:
    """Readings of a call that keep the rules, by place; the others join those refused."""
    now = datetime.now(UTC)
    found: dict[int, Reading] = {}
    for index, event in enumerate(decoded):
        if isinstance(event, EnergyEvent):
            refusal = check_reading(event, now)
            if refusal is None:
                found[index] = to_reading(event)
            else:
                refused[index] = (refusal, msgspec.json.encode(event))
    return found


def _broken(events: Sequence[UsageEvent], entries: pl.DataFrame) -> dict[int, Refusal]:
    """Why an event is refused, by place."""
    now = datetime.now(UTC)
    checked = ((at, check_event(events[at], now)) for at in suspects(entries, now))
    return {at: refusal for at, refusal in checked if refusal is not None}


def replay(intake: Intake, engine: sa.Engine, numbers: Sequence[int] | None, changes: dict[str, str]) -> IntakeAnswer:
    """Offer quarantined events again, with fields changed (`data.tenant` → value); mark those that entered the ledger.

    numbers: None for all. The index of an event in the answer is its number in quarantine. Raises: Unprocessable for a
    change that no event could carry; Unavailable.
    """
    values = {path: _parsed(path, text) for path, text in changes.items()}
    results: list[EventResult] = []
    after, last = 0, quarantine.newest_number(engine)  # what this replay itself refuses comes later
    while after < last and (page := quarantine.list_quarantined(engine, after=after, limit=1000, numbers=numbers)):
        after = page[-1].number
        results += _replay_page(intake, engine, [item for item in page if item.number <= last], values)
    return _answer(results, None)


def _replay_page(
    intake: Intake, engine: sa.Engine, page: list[Quarantined], values: dict[str, object]
) -> list[EventResult]:
    changed = {item.number: _changed(item.event, values) for item in page if item.event is not None}
    offered = [item for item in page if item.number in changed and not quarantine.is_withheld(changed[item.number])]
    answer = intake.take([decode_one(msgspec.json.encode(changed[item.number])) for item in offered], "replay")
    found = {item.number: result for item, result in zip(offered, answer.events, strict=True)}
    quarantine.mark_replayed(
        engine, [number for number, result in found.items() if result.status in {"accepted", "duplicate"}]
    )
    return [
        msgspec.structs.replace(found[item.number], index=item.number)
        if item.number in found
        else _refused_result(item.number, Refusal(item.code, item.field))
        for item in page
    ]


def _parsed(path: str, text: str) -> object:
    """Value of a change, in its field's type. Raises: Unprocessable."""
    if path not in quarantine.FIELD_TYPES:
        raise Unprocessable("unknown_field", "Not a field of the event.", field="changes", expected="as data.tenant")
    try:
        return msgspec.to_builtins(msgspec.convert(text, quarantine.FIELD_TYPES[path], strict=False))
    except msgspec.ValidationError as error:
        raise Unprocessable("wrong_type", "Not a value of this field.", field=f"changes.{path}") from error


def _changed(event: dict[str, Any], values: dict[str, object]) -> dict[str, Any]:
    changed = {**event, "data": dict(event.get("data", {}))}
    for path, value in values.items():
        parent, _, name = path.rpartition(".")
        (changed["data"] if parent else changed)[name] = value
    return changed


def _refused_result(index: int, refusal: Refusal) -> EventResult:
    status: Literal["conflict", "rejected"] = "conflict" if refusal.code == "conflict" else "rejected"
    return EventResult(index, status, refusal.code, refusal.field, refusal.reason, refusal.expected)


def _answer(results: list[EventResult], channel: Channel | None) -> IntakeAnswer:
    counts = dict.fromkeys(("accepted", "duplicate", "conflict", "rejected"), 0)
    for result in results:
        counts[result.status] += 1
    if channel is not None:
        for status, count in counts.items():
            EVENTS.labels(channel, status).inc(count)
    return IntakeAnswer(**counts, events=results)

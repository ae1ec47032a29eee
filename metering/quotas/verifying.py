"""Comparing counters with the ledger: what is used in a window that is open must be what is recorded, and committed.

An administration's counters are read in one call, so requests may run meanwhile; the ledger is read after it, up to
the mark that the counters had. Minutes are left out: they are over before anybody could compare them, and a request
counts in the minute that admitted it, which the ledger doesn't know.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import sqlalchemy as sa

from metering.database import transaction
from metering.quotas.building import CounterBuilder, counted_rows, entries_since, marked
from metering.quotas.calls import Lost
from metering.quotas.places import limits_digest
from metering.rules.quantities import QUANTITY_MAX
from metering.tables import ledger_batch, ledger_entry, ledger_series, quota_epoch

Found = Callable[[str, str, str], None]
"""Told of a difference: its kind, where it is, and what it is."""
Window = tuple[str, int]
"""A counter's field, and where its window starts (ms of the epoch; 0: it never begins anew)."""
Sums = dict[Window, int]

PERIOD = 4
"""Numbers of a period's counter; a minute's has more."""
AHEAD_MAX = timedelta(minutes=10)
"""How far ahead of the clock an event may be."""
APART_MAX = timedelta(minutes=1)
"""How far the clocks of a worker and of the database may be apart."""


@dataclass(slots=True)
class CounterCheck:
    """What was compared.

    unready: administrations whose counters are built anew before anybody is answered by them. repaired: those whose
    counters differed, and were built anew from the ledger.
    """

    tenants: int = 0
    counters: int = 0
    unready: int = 0
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class _Look:
    """An administration's counters at one moment, of windows that are open. counters: [start, end, used, held].

    committed, held: what holds have of them.
    """

    now: datetime
    epoch: int
    mark: int
    limits: int
    counters: Mapping[Window, Sequence[int]]
    committed: Sums
    held: Sums


def verify_counters(builder: CounterBuilder, found: Found, *, is_repairing: bool = False) -> CounterCheck:
    """Compare the counters of every administration that has any with the ledger. Raises: Unavailable.

    is_repairing: what differs is told all the same, and then built anew, under the lock of all who build.
    """
    check = CounterCheck()
    builder.catalog.refresh()
    with transaction(builder.engine) as connection:
        known = connection.execute(sa.select(quota_epoch).order_by(quota_epoch.c.tenant)).all()
    for row in known:
        try:
            look = _look(builder, row.tenant)
        except Lost:
            check.unready += 1
            continue
        is_older, differs = (look.epoch, look.mark) < (row.epoch, row.mark), False
        if is_older:
            found("counters_older", row.tenant, "they are an older copy: what was settled since is missing")
        elif look.limits != limits_digest(builder.catalog.current(), row.tenant, look.now):
            check.unready += 1
        else:
            compared, differs = _compare(builder, row.tenant, look, found)
            check.tenants += 1
            check.counters += compared
        if is_repairing and (is_older or differs):
            # An older copy's holds are older, too; those of one that only counted wrong are counted again.
            builder.build(row.tenant, (look.epoch, 0, 0), look.now, is_reset=is_older)
            check.repaired += 1
    return check


def _look(builder: CounterBuilder, tenant_id: str) -> _Look:
    """Raises: Lost, Unavailable."""
    reply = builder.store.call(tenant_id, "all")
    (mark, limits), flat, holds = reply.figures
    committed: Sums = defaultdict(int)
    held: Sums = defaultdict(int)
    for packed in holds:
        state, _digest, _granted, entries, *_rest = msgspec.msgpack.decode(packed)
        for field, is_minute, start, end, _meter, _per_output, amount in entries:
            if not is_minute and _is_open(start, end, reply.now):
                (committed if state == "c" else held)[field, start] += amount
    counters = {}
    for name, packed in zip(*[iter(flat)] * 2, strict=True):
        counter = msgspec.msgpack.decode(packed)
        if name != b"#" and len(counter) == PERIOD and _is_open(counter[0], counter[1], reply.now):
            counters[name.decode(), counter[0]] = counter
    return _Look(reply.now, reply.epoch, mark, limits, counters, committed, held)


def _compare(builder: CounterBuilder, tenant_id: str, look: _Look, found: Found) -> tuple[int, bool]:
    """Compare one administration's; returns how many counters, and whether any differs."""
    differs = False
    with transaction(builder.engine, snapshot=True) as connection:
        recorded = _recorded(connection, builder, tenant_id, look)
        windows = sorted(look.counters.keys() | recorded.keys() | look.committed.keys() | look.held.keys())
        early = _early(connection, builder, tenant_id, look, {start for _field, start in windows if start})
    for window in windows:
        _start, _end, used, held = look.counters.get(window, (0, 0, 0, 0))
        most = recorded.get(window, 0) + look.committed.get(window, 0)
        least = most - early.get(window, 0)
        where = f"{tenant_id}: {window[0]}"
        if abs(most) <= QUANTITY_MAX and not least <= used <= most:
            found("counter_differs", where, f"{used} are used, and {most} are recorded or committed")
            differs = True
        if held != look.held.get(window, 0):
            found("counter_differs", where, f"{held} are held, and open holds have {look.held.get(window, 0)}")
            differs = True
    return len(windows), differs


def _recorded(connection: sa.Connection, builder: CounterBuilder, tenant_id: str, look: _Look) -> Sums:
    """What the ledger has for the windows that are open, up to the mark of the counters."""
    sums: Sums = defaultdict(int)
    for place, amount in builder.periods(connection, tenant_id, look.now, look.now):
        sums[place.field, place.start_ms] += amount
    for mark, entries in marked(entries_since(connection, look.mark, tenant_id)):
        for entry in entries if mark > look.mark else ():
            for place, amount in builder.met(entry, look.now)[1]:
                if not place.is_minute and _is_open(place.start_ms, place.end_ms, look.now):
                    sums[place.field, place.start_ms] -= amount
    return sums


def _early(
    connection: sa.Connection, builder: CounterBuilder, tenant_id: str, look: _Look, starts: Set[int]
) -> Sums:  # fmt: skip
    """What may have been counted in the window before its own: recorded before that had begun."""
    begin = [datetime.fromtimestamp(start / 1000, UTC) for start in starts]
    near = (
        sa.and_(
            ledger_entry.c.occurred_at.between(at, at + AHEAD_MAX), ledger_batch.c.recorded_at < at + APART_MAX
        )
        for at in begin
    )  # fmt: skip
    query = (
        counted_rows()
        .add_columns(ledger_batch.c.recorded_at)
        .join(ledger_batch, ledger_batch.c.seq == ledger_entry.c.batch_seq)
        .where(ledger_series.c.tenant == tenant_id, sa.or_(sa.false(), *near))
    )
    sums: Sums = defaultdict(int)
    for entry in connection.execute(query).mappings():
        recorded_ms = (entry["recorded_at"] - APART_MAX).timestamp() * 1000
        for place, amount in builder.met(entry, look.now)[1]:
            if place.start_ms > recorded_ms:
                sums[place.field, place.start_ms] += amount
    return sums


def _is_open(start_ms: int, end_ms: int, now: datetime) -> bool:
    return end_ms == 0 or start_ms <= now.timestamp() * 1000 < end_ms

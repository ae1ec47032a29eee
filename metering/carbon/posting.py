"""Posting what an hour's energy and emissions are: new entries, and reversals of those that no longer hold."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from metering.carbon.chains import append_link
from metering.database import raw
from metering.rules.carbon.entries import Entry, Key, Sums
from metering.rules.carbon.tiers import Tier
from metering.tables import CARBON_KEYS, CARBON_SUMS, carbon_batch, carbon_entry, carbon_gpu, carbon_hour

METHOD = "1"
"""Version of the method: another whenever the same readings and events may give other figures."""

CARBON_LOCK = 0x434152424F4E  # "CARBON": held by the one who posts, so that batches commit in order

assert Key._fields == ("part", *CARBON_KEYS, "tier", "factors")
assert Sums._fields == CARBON_SUMS


class Meter(NamedTuple):
    """What a GPU's meter said of an hour, see `tables.carbon_gpu`; null is unknown."""

    node: str
    gpu: str
    deployment: str | None
    gpu_model: str | None
    site: str | None
    energy_uj: int | None
    energy_lower_uj: int | None
    energy_upper_uj: int | None
    host_uj: int | None
    tier: Tier
    flags: tuple[str, ...]
    idle_constant_mw: int | None
    idle_powers_mw: tuple[int, ...]


ENTRY_COLUMNS = [carbon_entry.c[name] for name in ("is_reversal", *Key._fields, *Sums._fields)]
METER_COLUMNS = [carbon_gpu.c[name] for name in Meter._fields]


@dataclass(frozen=True, slots=True)
class Marks:
    """What was known: the last batch of the ledger and of readings, and the last emission factor."""

    ledger_seq: int
    energy_seq: int
    factor_number: int


def post(
    connection: sa.Connection, hour: datetime, entries: Iterable[Entry], meters: Iterable[Meter], marks: Marks
) -> int | None:
    """Make an hour's live entries these, by posting what differs; the caller holds CARBON_LOCK.

    Returns the batch; None if nothing differs.
    """
    wanted = Counter(entries)
    live = live_entries(connection, hour)
    rows = [(False, key, sums) for key, sums in (wanted - live).elements()]
    rows += [(True, key, sums.negated()) for key, sums in (live - wanted).elements()]
    if not rows and _has_batch(connection, hour):
        return None
    said = list(meters)
    seq = append_link(
        connection,
        carbon_batch,
        canonical_rows(rows, said),
        _total(sums for _is_reversal, _key, sums in rows),
        hour=hour,
        method=METHOD,
        ledger_seq=marks.ledger_seq,
        energy_seq=marks.energy_seq,
        factor_number=marks.factor_number,
    )
    _copy(connection, carbon_entry, ((seq, hour, *_stored(*row)) for row in rows))
    _copy(connection, carbon_gpu, ((seq, hour, *_listed(meter)) for meter in said))
    posted = insert(carbon_hour).values(hour=hour, is_due=False, batch_seq=seq)
    connection.execute(posted.on_conflict_do_update(index_elements=["hour"], set_={"batch_seq": seq}))
    return seq


def live_entries(connection: sa.Connection, hour: datetime) -> Counter[Entry]:
    """Entries of an hour that are not taken back."""
    rows = connection.execute(sa.select(*ENTRY_COLUMNS).where(carbon_entry.c.hour == hour))
    live: Counter[Entry] = Counter()
    for is_reversal, key, sums in map(entry_of_row, rows):
        live[key, sums.negated() if is_reversal else sums] += -1 if is_reversal else 1
    return +live


def entry_of_row(row: Sequence[Any]) -> tuple[bool, Key, Sums]:
    """A row of ENTRY_COLUMNS: whether it is a reversal, its key and its sums."""
    is_reversal, *names, factors = row[: len(Key._fields) + 1]
    sums = (None if value is None else int(value) for value in row[len(Key._fields) + 1 :])
    return is_reversal, Key._make([*names, tuple(factors)]), Sums(*sums)


def meter_of_row(row: Sequence[Any]) -> Meter:
    """A row of METER_COLUMNS."""
    values = (
        tuple(value) if isinstance(value, list) else int(value) if isinstance(value, Decimal) else value
        for value in row
    )
    return Meter._make(values)


def canonical_rows(rows: Iterable[tuple[bool, Key, Sums]], meters: Iterable[Meter]) -> list[bytes]:
    """What a batch commits to: whether each entry is a reversal, entries and meters as JSON, each kind in order."""
    return sorted(map(msgspec.json.encode, rows)) + sorted(map(msgspec.json.encode, meters))


def _has_batch(connection: sa.Connection, hour: datetime) -> bool:
    query = sa.select(carbon_hour.c.batch_seq).where(carbon_hour.c.hour == hour)
    return connection.scalar(query) is not None


def _total(rows: Iterable[Sums]) -> list[int | None]:
    total: list[int | None] = [None] * len(CARBON_SUMS)
    for sums in rows:
        for place, value in enumerate(sums):
            if value is not None:
                total[place] = (total[place] or 0) + value
    return total


def _stored(is_reversal: bool, key: Key, sums: Sums) -> Iterator[object]:
    values = key._asdict() | sums._asdict() | {"is_reversal": is_reversal, "factors": list(key.factors)}
    return (values[column.name] for column in carbon_entry.columns if column.name not in {"batch_seq", "hour"})


def _listed(meter: Meter) -> Iterator[object]:
    return (list(value) if isinstance(value, tuple) else value for value in meter)


def _copy(connection: sa.Connection, table: sa.Table, rows: Iterable[Iterable[object]]) -> None:
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    with raw(connection).cursor() as cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(tuple(row))

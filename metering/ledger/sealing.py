"""Sealing a month: its entries as files that anybody can read and check, for longer than the database keeps them.

A file is written under another name, brought to the disk, and only then given its own; what has its own name is whole.
So a run that was killed goes on where it stopped, and the month counts as sealed once its manifest's hash is recorded.
What comes later for the month stays in the database, with a batch above the seal's.
"""

import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from metering.database import raw, transaction
from metering.errors import Conflict, NotFound, Unavailable
from metering.ledger.append import microseconds
from metering.ledger.manifest import (
    FORM,
    MANIFEST_NAME,
    SEALED_SCHEMA,
    Manifest,
    SealedFile,
    added_up,
    month_folder,
    sha256_of,
    sums_of,
)
from metering.ledger.rows import ENTRY_COLUMNS, FRAME_SCHEMA, INSTANT
from metering.rules.chain import GENESIS, seal_link
from metering.rules.quantities import QUANTITIES
from metering.tables import SERIES_FIELDS, ledger_batch, ledger_entry, ledger_seal, ledger_series

FILE_ROWS_MAX = 500_000
"""Rows of a file, and so what is held at a time; more only where a single minute has more."""

ROW_GROUP_ROWS = 100_000
ORDER = ("tenant", "occurred_at", "identity")
SEALING_LOCK = 0x5345414C  # "SEAL": seals are recorded one after another

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Seal:
    """A sealed month as it is recorded: everything up to last_batch is in files. hash: of this seal and all before."""

    month: str
    start: datetime
    end: datetime
    last_batch: int
    rows: int
    manifest_sha256: str
    hash: str

    def is_of(self, manifest: bytes) -> bool:
        """Whether these are the bytes of the manifest that was sealed."""
        return hashlib.sha256(manifest).hexdigest() == self.manifest_sha256


class Part(NamedTuple):
    """Entries that begin in [start, end): what goes into one file."""

    start: datetime
    end: datetime
    rows: int


def seal_of(connection: sa.Connection, month: str) -> Seal | None:
    """The seal of a month (`2026-10`), if it is sealed."""
    return next(iter(seals(connection, month)), None)


def seals(connection: sa.Connection, month: str | None = None) -> list[Seal]:
    """Every seal, or that of a month, in the order in which they were recorded."""
    query = sa.select(ledger_seal).order_by(ledger_seal.c.number)
    if month is not None:
        query = query.where(ledger_seal.c.month == month)
    return [
        Seal(
            row.month,
            row.start_at,
            row.end_at,
            row.last_batch,
            row.row_count,
            row.manifest_sha256.hex(),
            row.hash.hex(),
        )
        for row in connection.execute(query)
    ]


def seal_month(
    engine: sa.Engine,
    month: str,
    start: datetime,
    end: datetime,
    folder: Path,
    *,
    last_batch: int,
    progress: Progress = lambda _done, _total: None,
) -> Seal:
    """Write a month's entries up to a batch below the data folder, and record the seal; safe to repeat.

    month: as 2026-10; start, end: its bounds in UTC; progress: is told rows written and rows in all.
    Raises: Conflict if the month was sealed at another batch; NotFound for a batch to come; Unavailable.
    """
    place = month_folder(folder, month)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            if (known := _recorded(engine, month, last_batch)) is not None:
                return known
            ledger_hash = _chain_at(engine, last_batch)
            files = _write_parts(engine, place, start, end, last_batch, progress)
            manifest = Manifest(
                form=FORM, month=month, start=start, end=end, last_batch=last_batch, ledger_hash=ledger_hash.hex(),
                rows=sum(file.rows for file in files), sums=added_up(file.sums for file in files), files=files,
            )  # fmt: skip
            _write(place / MANIFEST_NAME, manifest.to_bytes())
            _remove_others(place, {MANIFEST_NAME, *(file.name for file in files)})
            return _record(engine, manifest)
    except OSError as error:
        raise Unavailable("storage_failed", "Sealed files can't be written.", retry_after_s=60) from error


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold a month's folder: the system lets go of it when the process ends, however it ends."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _recorded(engine: sa.Engine, month: str, last_batch: int) -> Seal | None:
    with transaction(engine) as connection:
        known = seal_of(connection, month)
    if known is not None and known.last_batch != last_batch:
        raise Conflict(
            "month_sealed", "The month is sealed already.", field="last_batch", expected=str(known.last_batch)
        )
    return known


def _chain_at(engine: sa.Engine, last_batch: int) -> bytes:
    if last_batch == 0:
        return GENESIS
    with transaction(engine) as connection:
        found = connection.scalar(sa.select(ledger_batch.c.hash).where(ledger_batch.c.seq == last_batch))
    if found is None:
        raise NotFound("unknown_batch", "There is no such batch.", field="last_batch")
    return bytes(found)


def _write_parts(
    engine: sa.Engine, place: Path, start: datetime, end: datetime, last_batch: int, progress: Progress
) -> tuple[SealedFile, ...]:
    parts = _plan(engine, start, end, last_batch)
    total, done = sum(part.rows for part in parts), 0
    files = []
    for number, part in enumerate(parts, start=1):
        path = place / f"entries-{last_batch}-{number:04}.parquet"
        if not path.exists():
            frame = read_part(engine, part.start, part.end, last_batch)
            assert frame.height == part.rows, "rows up to a batch never change"
            write_sealed(frame, path)
        files.append(described(path, part))
        done += part.rows
        progress(done, total)
    return tuple(files)


def _plan(engine: sa.Engine, start: datetime, end: datetime, last_batch: int) -> list[Part]:
    """Stretches of whole minutes, each with as many entries as a file may have; the same for the same batch."""
    minute = sa.func.date_trunc("minute", ledger_entry.c.occurred_at, "UTC").label("minute")
    query = (
        sa.select(minute, sa.func.count())
        .where(*_within(start, end, last_batch))
        .group_by(minute)
        .order_by(minute)
    )  # fmt: skip
    parts: list[Part] = []
    with transaction(engine) as connection:
        for begins, rows in connection.execute(query):
            ends = begins + timedelta(minutes=1)
            if parts and parts[-1].rows + rows <= FILE_ROWS_MAX:
                parts[-1] = Part(parts[-1].start, ends, parts[-1].rows + rows)
            else:
                parts.append(Part(begins, ends, rows))
    return parts


def _within(start: datetime, end: datetime, last_batch: int) -> Sequence[sa.ColumnElement[bool]]:
    entry = ledger_entry.c
    return entry.occurred_at >= start, entry.occurred_at < end, entry.batch_seq <= last_batch


def read_part(engine: sa.Engine, start: datetime, end: datetime, last_batch: int) -> pl.DataFrame:
    """Entries of the database that began in [start, end), up to a batch: SEALED_SCHEMA, by administration and time."""
    text = {name: pl.String() for name, kind in FRAME_SCHEMA.items() if kind == pl.Binary()}
    instants = [name for name, kind in FRAME_SCHEMA.items() if kind == INSTANT]
    schema = {"batch_seq": pl.Int64(), **FRAME_SCHEMA, **text, **dict.fromkeys(instants, pl.Int64())}
    columns = ", ".join(f"(extract(epoch FROM {n}) * 1000000)::bigint" if n in instants else n for n in ENTRY_COLUMNS)
    query = (
        f"COPY (SELECT {columns} FROM ledger_entry WHERE occurred_at >= '{start.isoformat()}' "  # noqa: S608 - names of our own
        f"AND occurred_at < '{end.isoformat()}' AND batch_seq <= {last_batch}) "
        f"TO STDOUT (FORMAT csv)"
    )
    with transaction(engine) as connection:
        with raw(connection).cursor().copy(query.encode()) as copy:
            rows = b"".join(copy)
        # Both sides tell null, which is nothing, from a text that is empty, which is in quotes.
        entries = (
            pl.read_csv(io.BytesIO(rows), has_header=False, schema=schema) if rows else pl.DataFrame(schema=schema)
        )
        named = _series(connection, entries["series"].unique().to_list())
    return (
        entries.with_columns(
            *(pl.col(name).str.replace_all("-", "", literal=True).str.decode("hex") for name in text),
            *(pl.col(name).cast(INSTANT) for name in instants),
        )
        .rename({"tenant": "tenant_number"})
        .join(named, on="series", how="left", validate="m:1")
        .select(*SEALED_SCHEMA)
        .sort(*ORDER)
    )


def _series(connection: sa.Connection, numbers: list[int]) -> pl.DataFrame:
    """Names of series, by their number."""
    wanted = sa.literal(numbers, pg.ARRAY(sa.Integer))
    columns = [ledger_series.c[name] for name in ("number", *SERIES_FIELDS)]
    rows = connection.execute(sa.select(*columns).where(ledger_series.c.number == sa.any_(wanted)))
    schema = {"series": pl.Int32(), **{name: SEALED_SCHEMA[name] for name in SERIES_FIELDS}}
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")


def write_sealed(frame: pl.DataFrame, path: Path) -> None:
    """Write a file of entries, SEALED_SCHEMA by ORDER, whole or not at all. Raises: OSError."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=3, row_group_size=ROW_GROUP_ROWS)
    _write(path, buffer.getvalue())


def described(path: Path, part: Part) -> SealedFile:
    """What a manifest says of a file that is written. Raises: OSError."""
    frame = pl.read_parquet(path, columns=["batch_seq", *QUANTITIES])
    batches: list[int] = frame["batch_seq"].unique().sort().to_list()
    return SealedFile(
        name=path.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        rows=frame.height,
        start=part.start,
        end=part.end,
        first_batch=batches[0],
        last_batch=batches[-1],
        sums=sums_of(frame),
    )


def _write(path: Path, content: bytes) -> None:
    """All of it under its name, or nothing."""
    draft = path.with_name(f"{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_others(place: Path, kept: set[str]) -> None:
    """What was left by attempts that ended early: drafts, and files up to another batch."""
    for path in place.iterdir():
        if path.name not in kept:
            path.unlink()


def _record(engine: sa.Engine, manifest: Manifest) -> Seal:
    """Add the seal to the chain of seals. What was recorded meanwhile by another machine stays."""
    digest = hashlib.sha256(manifest.to_bytes()).digest()
    with transaction(engine) as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SEALING_LOCK)))
        if (known := seal_of(connection, manifest.month)) is not None:
            if known.manifest_sha256 != digest.hex():
                raise Conflict("month_sealed", "The month was sealed meanwhile, with other content.", field="month")
            return known
        columns = ledger_seal.c
        last = connection.execute(
            sa.select(columns.number, columns.hash).order_by(columns.number.desc()).limit(1)
        ).first()
        number, previous = (1, GENESIS) if last is None else (last.number + 1, bytes(last.hash))
        now = connection.scalar(sa.select(sa.func.clock_timestamp()))
        assert isinstance(now, datetime)
        connection.execute(
            ledger_seal.insert().values(
                number=number,
                month=manifest.month,
                start_at=manifest.start,
                end_at=manifest.end,
                last_batch=manifest.last_batch,
                row_count=manifest.rows,
                manifest_sha256=digest,
                sealed_at=now,
                hash=seal_link(previous, number, microseconds(now), digest),
            )
        )
        sealed = seal_of(connection, manifest.month)
        assert sealed is not None
        return sealed

"""Verification of sealed months: their files, manifests and seals, against each other and against the ledger.

Whoever changes a file, a manifest, a seal or a row would have to change all of them, and every hash that follows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import sqlalchemy as sa

from metering.database import transaction
from metering.errors import NotFound
from metering.ledger.append import microseconds
from metering.ledger.manifest import (
    MANIFEST_NAME,
    SEALED_SCHEMA,
    Manifest,
    SealedFile,
    added_up,
    month_folder,
    read_manifest,
    sha256_of,
    sums_of,
)
from metering.ledger.sealed import SealedMonth, entries_between, sums_by_key
from metering.ledger.sealing import Seal, read_part, seals
from metering.ledger.verify import Verification
from metering.rules.chain import GENESIS, seal_link
from metering.rules.periods import PARIS
from metering.rules.quantities import add
from metering.tables import HOURLY_KEYS, ROLLUP_SUMS, ledger_batch, ledger_entry, ledger_seal, usage_daily, usage_hourly

Progress = Callable[[int, int], None]
Cells = dict[tuple[Any, ...], dict[str, int | None]]


@dataclass(slots=True)
class SealVerification(Verification):
    """What was checked of sealed months. rows: of their files, each compared with the ledger's."""

    months: int = 0
    files: int = 0


def verify_seals(
    engine: sa.Engine, data: Path, month: str | None = None, progress: Progress = lambda _done, _total: None
) -> SealVerification:
    """Check the chain of seals, and the files of one month or of all; `progress` is told rows checked and in all.

    Raises: NotFound for a month that isn't sealed; Unavailable.
    """
    result = SealVerification()
    with transaction(engine, snapshot=True) as connection:
        _check_chain(connection, result)
        found = seals(connection, month)
        if month is not None and not found:
            raise NotFound("not_sealed", f"{month} isn't sealed.", field="period")
        ledger = {
            seal.month: connection.scalar(sa.select(ledger_batch.c.hash).where(ledger_batch.c.seq == seal.last_batch))
            for seal in found
        }
    total = sum(seal.rows for seal in found)
    for seal in found:
        result.months += 1
        recorded = ledger[seal.month] or (GENESIS if seal.last_batch == 0 else b"")
        if (manifest := _check_manifest(data, seal, bytes(recorded), result)) is not None:
            _check_month(engine, SealedMonth(seal, manifest, month_folder(data, seal.month)), result, progress, total)
    return result


def _check_chain(connection: sa.Connection, result: SealVerification) -> None:
    """Every seal's hash must follow from the one before and from its own."""
    previous, expected = GENESIS, 1
    for row in connection.execute(sa.select(ledger_seal).order_by(ledger_seal.c.number)):
        digest = bytes(row.manifest_sha256)
        if row.number != expected:
            result.found("seal_missing", f"seal {expected}", f"the chain goes on with seal {row.number}")
        elif seal_link(previous, row.number, microseconds(row.sealed_at), digest) != bytes(row.hash):
            result.found("seal_changed", row.month, "the seal doesn't have its hash")
        previous, expected = bytes(row.hash), row.number + 1


def _check_manifest(data: Path, seal: Seal, recorded: bytes, result: SealVerification) -> Manifest | None:
    """The manifest against its seal, and what both say of the ledger against its chain; None if it can't be read."""
    where = f"{seal.month}, {MANIFEST_NAME}"
    try:
        content = (month_folder(data, seal.month) / MANIFEST_NAME).read_bytes()
    except OSError:
        result.found("manifest_missing", where, "it can't be read")
        return None
    if not seal.is_of(content):
        result.found("manifest_changed", where, "it doesn't have the hash that was recorded")
    try:
        manifest = read_manifest(content)
    except msgspec.DecodeError:
        return None
    said = (manifest.month, manifest.start, manifest.end, manifest.last_batch, manifest.rows)
    if seal.is_of(content) and said != (seal.month, seal.start, seal.end, seal.last_batch, seal.rows):
        result.found("seal_changed", seal.month, "the seal doesn't say what its manifest says")
    if manifest.ledger_hash != recorded.hex():
        result.found(
            "chain_differs", f"{seal.month}, batch {seal.last_batch}", "the ledger's chain has another hash there"
        )
    files = manifest.files
    if manifest.rows != sum(file.rows for file in files) or manifest.sums != added_up(file.sums for file in files):
        result.found("manifest_changed", where, "its sums aren't those of its files")
    return manifest


def _check_month(
    engine: sa.Engine, month: SealedMonth, result: SealVerification, progress: Progress, total: int
) -> None:
    found_before = result.found_so_far
    for file in month.manifest.files:
        result.files += 1
        frame = _check_file(month, file, result)
        if frame is not None:
            result.rows += frame.height
            kept = read_part(engine, file.start, file.end, month.seal.last_batch)
            _compare(month.seal.month, frame, kept, result)
        progress(result.rows, total)
    names = {MANIFEST_NAME, *(file.name for file in month.manifest.files)}
    for path in sorted(month.folder.iterdir()):
        if path.name not in names:
            result.found("file_added", f"{month.seal.month}, {path.name}", "the manifest doesn't name it")
    with transaction(engine, snapshot=True) as connection:
        _check_count(connection, month, result)
        if result.found_so_far == found_before:  # else the sums differ, and what they differ by has been named
            _check_rollups(connection, month, result)


def _check_file(month: SealedMonth, file: SealedFile, result: SealVerification) -> pl.DataFrame | None:
    """A file's content; None if it can't be read."""
    where = f"{month.seal.month}, {file.name}"
    path = month.folder / file.name
    try:
        changed = sha256_of(path) != file.sha256
    except OSError:
        result.found("file_missing", where, "it can't be read")
        return None
    if changed:
        result.found("file_changed", where, "it doesn't have the hash that its manifest names")
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError):
        frame = pl.DataFrame()
    if dict(frame.schema) != SEALED_SCHEMA:
        if not changed:
            result.found("file_changed", where, "it isn't a file of entries")
        return None
    if (frame.height, sums_of(frame)) != (file.rows, file.sums):
        result.found("sums_differ", where, "its sums aren't those that its manifest names")
    return frame


def _compare(month: str, frame: pl.DataFrame, kept: pl.DataFrame, result: SealVerification) -> None:
    """Rows of a file against those of the database, name by name."""
    if frame.equals(kept):
        return
    sides = (
        ("entry_missing", kept, frame, "the ledger has it, and its file hasn't"),
        ("entry_added", frame, kept, "its file has it, and the ledger hasn't"),
    )
    for kind, one, other, detail in sides:
        for identity in one.join(other, on="identity", how="anti")["identity"].sort().to_list():
            result.found(kind, f"{month}, entry {identity.hex()}", detail)
    both = kept.join(frame, on="identity", suffix=" in its file").sort("identity")
    others = [name for name in SEALED_SCHEMA if name != "identity"]
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name} in its file")) for name in others)
    for identity in both.filter(differs)["identity"].to_list():
        result.found("entry_changed", f"{month}, entry {identity.hex()}", "its file and the ledger differ")


def _check_count(connection: sa.Connection, month: SealedMonth, result: SealVerification) -> None:
    """Rows of the month in the database: those of minutes that no file is for are seen here only."""
    entry, seal = ledger_entry.c, month.seal
    count = connection.scalar(
        sa.select(sa.func.count()).where(
            entry.occurred_at >= seal.start, entry.occurred_at < seal.end, entry.batch_seq <= seal.last_batch
        )
    )
    if count != month.manifest.rows:
        detail = f"the ledger has {count:,} rows up to batch {seal.last_batch}, and {month.manifest.rows:,} are sealed"
        result.found("rows_differ", seal.month, detail)


def _check_rollups(connection: sa.Connection, month: SealedMonth, result: SealVerification) -> None:
    """Both rollups against what is sealed and what came later, by administration, project, model and operation."""
    sealed: Cells = {
        tuple(row[:4]): dict(zip(ROLLUP_SUMS, row[6:], strict=True)) for row in sums_by_key(month, ROLLUP_SUMS)
    }
    start, end = month.seal.start, month.seal.end
    late = entries_between(start, end, after=month.seal.last_batch, last=None).c
    for key, sums in _grouped(connection, late, ()).items():
        before = sealed.get(key, dict.fromkeys(ROLLUP_SUMS))
        sealed[key] = {name: add(before[name], sums[name]) for name in ROLLUP_SUMS}
    hourly, daily = usage_hourly.c, usage_daily.c
    days = (daily.day >= start.astimezone(PARIS).date(), daily.day < end.astimezone(PARIS).date())
    rollups = (
        ("usage_hourly", hourly, (hourly.hour >= start, hourly.hour < end)),
        ("usage_daily", daily, days),
    )
    for name, columns, within in rollups:
        stored = _grouped(connection, columns, within)
        for key in sorted(sealed.keys() | stored.keys(), key=repr):
            if sealed.get(key) != stored.get(key):
                place = ", ".join(f"{one}={value}" for one, value in zip(HOURLY_KEYS, key, strict=True))
                result.found("rollup_differs", f"{month.seal.month}, {name}: {place}", "not the sums of its rows")


def _grouped(connection: sa.Connection, columns: Any, within: tuple[sa.ColumnElement[bool], ...]) -> Cells:
    """Sums by administration, project, model and operation."""
    keys = [columns[name] for name in HOURLY_KEYS]
    query = sa.select(*keys, *(sa.func.sum(columns[name]) for name in ROLLUP_SUMS)).where(*within).group_by(*keys)
    cells: Cells = {}
    for row in connection.execute(query):
        sums = (None if value is None else int(value) for value in row[4:])
        cells[tuple(row[:4])] = dict(zip(ROLLUP_SUMS, sums, strict=True))
    return cells

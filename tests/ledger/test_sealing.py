"""Sealed months: files that hold what the ledger holds, the same however often they were begun."""

import hashlib
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from metering.database import transaction
from metering.errors import Conflict, NotFound
from metering.ledger import sealing
from metering.ledger.manifest import SEALED_SCHEMA, read_manifest
from metering.ledger.rows import EVENT, FRAME_SCHEMA, encode_rows, fingerprints_of
from metering.ledger.sealing import Seal, seal_month, seal_of
from metering.rules.chain import identity_of
from metering.rules.periods import month_bounds
from tests.ledger.conftest import Book
from tests.ledger.frames import a_row, a_series

START, END = month_bounds(2026, 10)
"""The month in which the clock is set back: 31 days and an hour."""
BATCHES = 6


@pytest.fixture
def october(book: Book, monkeypatch: pytest.MonkeyPatch) -> Book:
    """Five batches of October, with what is just inside and outside of it, and a sixth that comes late."""
    monkeypatch.setattr(sealing, "FILE_ROWS_MAX", 40)
    book.registry.numbers([a_series(tenant="sante", project="p", user="u", http_status=200, streamed=True)])
    for batch in range(3):
        book.append(
            *(
                a_row(
                    f"{batch}-{n}", occurred_at=START + timedelta(days=10 * batch, minutes=n), series=1 + n % 2,
                    input_tokens=n, parent=('', 'é "quoted", to', None)[n % 3], queue_ms=n if n % 2 else None,
                )
                for n in range(30)
            )
        )  # fmt: skip
    edges = (START - timedelta(microseconds=1), START, END - timedelta(microseconds=1), END)
    book.append(*(a_row(occurred_at=at, input_tokens=2**53 - 1, pages=0) for at in edges))
    book.corrections.correct("test", "0-1", {"input_tokens": 0}, reason='a "why", long', author="who", id="c1")
    book.append(a_row("late", occurred_at=START + timedelta(days=3), input_tokens=1))
    return book


def sealed(book: Book, data: Path, last_batch: int = BATCHES - 1) -> Seal:
    return seal_month(book.engine, "2026-10", START, END, data, last_batch=last_batch)


def contents(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data / "sealed" / "2026-10").iterdir()}


def test_a_sealed_month_holds_its_rows_and_nothing_else(october: Book, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    seal = seal_month(
        october.engine, "2026-10", START, END, tmp_path, last_batch=5, progress=lambda *done: told.append(done)
    )
    files = contents(tmp_path)
    manifest = read_manifest(files["manifest.json"])
    assert hashlib.sha256(files["manifest.json"]).hexdigest() == seal.manifest_sha256
    assert {file.name: file.sha256 for file in manifest.files} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "manifest.json"
    }
    assert (manifest.rows, seal.rows, told[-1]) == (93, 93, (93, 93))  # 3 x 30, two of the edges, a correction
    assert [file.rows for file in manifest.files] == [40, 40, 13]
    assert sum(file.rows for file in manifest.files) == seal.rows
    known = 3 * sum(range(30)) - 1 + 2 * (2**53 - 1)
    assert (manifest.sums["input_tokens"], manifest.sums["pages"], manifest.sums["images"]) == (str(known), "0", None)
    assert [[file.first_batch, file.last_batch] for file in manifest.files] == [[1, 5], [2, 3], [3, 4]]
    entries = pl.read_parquet(tmp_path / "sealed" / "2026-10" / "*.parquet")
    assert dict(entries.schema) == SEALED_SCHEMA
    assert set(entries.filter(pl.col("tenant") == "sante").select("project", "user", "http_status").rows()) == {
        ("p", "u", 200)
    }
    rows = encode_rows(entries.rename({"tenant": "tenant_name", "tenant_number": "tenant"}).select(*FRAME_SCHEMA))
    recorded = october.sql("SELECT uuid_send(identity), fingerprint FROM ledger_identity")
    fingerprints = dict(zip(entries["identity"], fingerprints_of(rows).tolist(), strict=True))
    assert fingerprints.items() <= {bytes(identity): one for identity, one in recorded}.items()
    assert identity_of("test", "late") not in fingerprints
    assert entries.filter(pl.col("kind") != EVENT)["reason"].to_list() == ['a "why", long']


def test_a_month_is_sealed_once(october: Book, tmp_path: Path) -> None:
    first = sealed(october, tmp_path)
    assert sealed(october, tmp_path) == first
    with pytest.raises(Conflict):
        sealed(october, tmp_path, 6)
    with pytest.raises(NotFound):
        seal_month(october.engine, "2026-11", END, END + timedelta(days=30), tmp_path, last_batch=7)
    following = seal_month(october.engine, "2026-11", END, END + timedelta(days=30), tmp_path, last_batch=6)
    assert following.rows == 1
    assert following.hash != first.hash


class Killed(BaseException):
    """Ends a run where it stands."""


def test_a_run_that_ended_anywhere_goes_on_to_the_same_bytes(
    october: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file has four points: before and after it is on the disk, under its name, and its folder on the disk."""
    points = 0

    def counted(call, *arguments):
        nonlocal points
        points += 1
        if points == last:
            raise Killed
        return call(*arguments)

    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: counted(fsync, descriptor))
    monkeypatch.setattr(Path, "replace", lambda path, target: counted(replace, path, target))
    monkeypatch.setattr(sealing, "_record", lambda *_: None)
    last = 0
    sealed(october, tmp_path / "whole")
    whole, everywhere = contents(tmp_path / "whole"), points
    assert everywhere == 3 * 4
    for last in range(1, everywhere + 1):
        points, data = 0, tmp_path / str(last)
        with pytest.raises(Killed):
            sealed(october, data, 6 if last % 2 else 5)  # what another batch left behind is no part of it
        points = everywhere
        sealed(october, data)
        assert contents(data) == whole


RUN = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from metering.database import engine_for
from metering.ledger import sealing

sealing.FILE_ROWS_MAX = 40
url, data, at, start, end = sys.argv[1:]
fsync, calls = os.fsync, []
def killing(descriptor):
    calls.append(descriptor)
    if len(calls) == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)
os.fsync = killing
bounds = map(datetime.fromisoformat, (start, end))
sealing.seal_month(engine_for(url), "2026-10", *bounds, Path(data), last_batch=5)
"""


def test_a_run_that_is_killed_leaves_no_lock_and_no_half_file(october: Book, tmp_path: Path) -> None:
    for at in (3, 5):  # while the second file is written; then, as the third is there, the manifest
        arguments = [october.url, str(tmp_path), str(at), START.isoformat(), END.isoformat()]
        ended = subprocess.run([sys.executable, "-c", RUN, *arguments], timeout=240, check=False)
        assert ended.returncode == -signal.SIGKILL
        with transaction(october.engine) as connection:
            assert seal_of(connection, "2026-10") is None
    begun = contents(tmp_path)
    seal = sealed(october, tmp_path)
    assert begun.items() - contents(tmp_path).items() == {("manifest.json.draft", begun["manifest.json.draft"])}
    assert hashlib.sha256(contents(tmp_path)["manifest.json"]).hexdigest() == seal.manifest_sha256

"""Whatever is changed of a sealed month is found and named: a file, its manifest, its seal, or the ledger's rows."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from metering import cli
from metering.database import transaction
from metering.errors import Conflict, NotFound
from metering.ledger.seal_verify import verify_seals
from metering.ledger.sealed import open_month
from metering.ledger.sealing import seal_of
from metering.rules.chain import identity_of
from metering.settings import get_settings
from tests.ledger.conftest import Book
from tests.ledger.test_sealing import START, october, sealed

__all__ = ["october"]  # a fixture

SECOND = "entries-5-0002.parquet"


def named(book: Book, data: Path) -> set[tuple[str, str]]:
    return {(found.kind, found.where) for found in verify_seals(book.engine, data, "2026-10").differences}


def rewritten(frame: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    """A change of the second file's rows."""

    def change(folder: Path) -> None:
        frame(pl.read_parquet(folder / SECOND)).write_parquet(folder / SECOND)

    return change


def flipped(folder: Path) -> None:
    content = bytearray((folder / SECOND).read_bytes())
    content[-20] ^= 1  # of the name of what wrote it
    (folder / SECOND).write_bytes(content)


def entry(event_id: str) -> str:
    return f"2026-10, entry {identity_of('test', event_id).hex()}"


OF_FILE = {("file_changed", f"2026-10, {SECOND}")}
OF_SUMS = OF_FILE | {("sums_differ", f"2026-10, {SECOND}")}
OF_MANIFEST = {("manifest_changed", "2026-10, manifest.json")}
changed_row = pl.when(pl.col("event_id") == "1-20").then(pl.col("input_tokens") + 1).otherwise("input_tokens")
FILES = {
    "a bit": (flipped, OF_FILE),
    "gone": (lambda folder: (folder / SECOND).unlink(), {("file_missing", f"2026-10, {SECOND}")}),
    "no Parquet": (lambda folder: (folder / SECOND).write_bytes(b"PAR1"), OF_FILE),
    "a value": (
        rewritten(lambda rows: rows.with_columns(changed_row.alias("input_tokens"))),
        OF_SUMS | {("entry_changed", entry("1-20"))},
    ),
    "a row less": (
        rewritten(lambda rows: rows.filter(pl.col("event_id") != "1-20")),
        OF_SUMS | {("entry_missing", entry("1-20"))},
    ),
    "one too many": (lambda folder: (folder / "x.parquet").touch(), {("file_added", "2026-10, x.parquet")}),
    "no manifest": (
        lambda folder: (folder / "manifest.json").unlink(),
        {("manifest_missing", "2026-10, manifest.json")},
    ),
    "a word of the manifest": (
        lambda folder: (folder / "manifest.json").write_text(
            (folder / "manifest.json").read_text().replace('"rows": 13', '"rows": 14')
        ),
        OF_MANIFEST | {("sums_differ", "2026-10, entries-5-0003.parquet")},
    ),
}
TABLES = {
    "a value": ("UPDATE ledger_entry SET pages = 7 WHERE event_id = '1-20'", {("entry_changed", entry("1-20"))}),
    "a row less": (
        "DELETE FROM ledger_entry WHERE event_id = '1-20'",
        {("entry_added", entry("1-20")), ("rows_differ", "2026-10")},
    ),
    "a row between files": (
        "UPDATE ledger_entry SET batch_seq = 5 WHERE event_id = 'late'",
        {("entry_missing", entry("late")), ("rows_differ", "2026-10")},
    ),
    "the chain": (
        "UPDATE ledger_batch SET hash = sha256('x') WHERE seq = 5",
        {("chain_differs", "2026-10, batch 5")},
    ),
    "the manifest's hash": (
        "UPDATE ledger_seal SET manifest_sha256 = sha256('x')",
        {("seal_changed", "2026-10")} | OF_MANIFEST,
    ),
    "the seal": ("UPDATE ledger_seal SET row_count = 4", {("seal_changed", "2026-10")}),
    "a sum": (
        "UPDATE usage_daily SET pages = 7 WHERE tenant = 'sante' AND day = '2026-10-01'",
        {("rollup_differs", "2026-10, usage_daily: tenant=sante, project=p, model=small, operation=chat")},
    ),
}


def test_a_changed_file_is_named(october: Book, tmp_path: Path) -> None:
    seal = sealed(october, tmp_path)
    folder = tmp_path / "sealed" / "2026-10"
    shutil.copytree(folder, tmp_path / "kept")
    for what, (change, expected) in FILES.items():
        assert named(october, tmp_path) == set(), what  # with an entry that came late
        change(folder)
        assert named(october, tmp_path) == expected, what
        if what not in {"a bit", "one too many"}:  # which only a hash can tell
            with pytest.raises(Conflict):
                open_month(seal, tmp_path)
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "kept", folder)


@pytest.mark.parametrize("what", TABLES)
def test_a_changed_table_is_named(october: Book, tmp_path: Path, what: str) -> None:
    statement, expected = TABLES[what]
    sealed(october, tmp_path)
    october.tamper(statement)
    found = named(october, tmp_path)
    assert found >= expected
    assert {kind for kind, _where in found} <= {kind for kind, _where in expected} | {"chain_differs", "rows_differ"}


def test_the_command_says_what_differs(october: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAUGE_DATABASE_URL", october.url)
    monkeypatch.setenv("JAUGE_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("JAUGE_DATA", str(tmp_path))
    get_settings.cache_clear()
    try:
        missing = CliRunner().invoke(cli.main, ["verify", "--period", "2026-10"])
        assert (missing.exit_code, "[not_sealed]" in missing.stderr) == (1, True)
        sealed(october, tmp_path)
        sound = CliRunner().invoke(cli.main, ["verify", "--period", "2026-10"])
        assert (sound.exit_code, sound.stdout) == (0, "1 sealed months, 3 files, 93 rows: nothing differs.\n")
        flipped(tmp_path / "sealed" / "2026-10")
        changed = CliRunner().invoke(cli.main, ["verify", "--period", "2026-10"])
        assert (changed.exit_code, changed.stdout.splitlines()[0].split(":")[0]) == (1, "file_changed")
        whole = CliRunner().invoke(cli.main, ["verify"])
        assert (whole.exit_code, "1 sealed months" in whole.stdout) == (1, True)
    finally:
        get_settings.cache_clear()


def test_a_month_that_is_not_sealed_is_said(october: Book, tmp_path: Path) -> None:
    with transaction(october.engine) as connection:
        assert seal_of(connection, "2026-10") is None
    with pytest.raises(NotFound):
        verify_seals(october.engine, tmp_path, "2026-10")
    assert verify_seals(october.engine, tmp_path).months == 0
    assert START.hour == 22

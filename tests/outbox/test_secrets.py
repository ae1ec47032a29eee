"""The master key and what is derived from it."""

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from metering.errors import Unavailable
from metering.outbox.secrets import KEY_FILE, MasterKey, code_digest, load_master_key
from metering.settings import Settings

KEY = MasterKey(b"k" * 32)
EXPIRES_AT = datetime(2026, 10, 5, 8, 0, 0, 123456, tzinfo=UTC)


def test_parts_are_told_apart_wherever_they_are_cut():
    derived = {
        KEY.derive("a", "bc"), KEY.derive("ab", "c"), KEY.derive("a", "b", "c"), KEY.derive("a", "bc", ""),
        KEY.derive("abc"), KEY.derive("a", b"\0bc"), MasterKey(b"l" * 32).derive("a", "bc"),
    }  # fmt: skip
    assert len(derived) == 7
    assert KEY.derive("a", "bc") == KEY.derive("a", b"bc")


def test_a_code_depends_on_the_request_and_its_end_and_not_on_the_zone_it_is_written_in():
    code = KEY.activation_code("r-1", EXPIRES_AT)
    assert code == KEY.activation_code("r-1", EXPIRES_AT.astimezone(timezone(timedelta(hours=2))))
    others = {
        KEY.activation_code("r-2", EXPIRES_AT),
        KEY.activation_code("r-1", EXPIRES_AT + timedelta(microseconds=1)),
        MasterKey(b"l" * 32).activation_code("r-1", EXPIRES_AT),
    }
    assert len(others | {code}) == 4
    assert len(code) == 27
    assert set(code) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(code_digest(code)) == 32


def test_the_key_isnt_shown():
    assert "k" * 5 not in f"{KEY!r} {KEY}"


def test_the_folder_gets_one_key_that_only_its_owner_reads(tmp_path: Path):
    settings = Settings(data=tmp_path / "data")
    with ThreadPoolExecutor(8) as pool:
        derived = list(pool.map(lambda _: load_master_key(settings).derive("test"), range(8)))
    assert len(set(derived)) == 1
    assert derived[0] == load_master_key(settings).derive("test")
    assert [path.name for path in settings.data.iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((settings.data / KEY_FILE).stat().st_mode) == 0o600
    assert len((settings.data / KEY_FILE).read_text().strip()) >= 43


def test_a_key_that_others_could_read_is_closed_to_them(tmp_path: Path):
    settings = Settings(data=tmp_path)
    before = load_master_key(settings).derive("test")
    (tmp_path / KEY_FILE).chmod(0o644)
    assert load_master_key(settings).derive("test") == before
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def test_with_an_external_database_the_key_must_be_given(tmp_path: Path):
    settings = Settings(data=tmp_path, database_url="postgresql://elsewhere/jauge")
    with pytest.raises(Unavailable) as refused:
        load_master_key(settings).activation_code("r-1", EXPIRES_AT)
    assert refused.value.code == "no_secret_key"
    assert not list(tmp_path.iterdir())
    given = load_master_key(settings.model_copy(update={"secret_key": Settings(secret_key="s" * 32).secret_key}))
    assert given.derive("test") == MasterKey(b"s" * 32).derive("test")


def test_a_short_key_is_refused():
    with pytest.raises(ValidationError):
        Settings(secret_key="s" * 31)

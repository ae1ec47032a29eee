"""The months that are worked out in the documentation come out as it says."""

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from metering.cli import main
from metering.rules.periods import PARIS
from metering.settings import Settings, get_settings

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "worked-month.md"
COMMAND = "$ jauge "
ANYTHING = "…"
"""Stands for what differs from run to run, or is left out; alone on a line, for any lines."""


@pytest.fixture
def elsewhere(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder with nothing but the page's files, and empty stores."""
    for name in ("database_url", "redis_url", "secret_key"):
        monkeypatch.setenv(f"JAUGE_{name.upper()}", getattr(settings, name).get_secret_value())
    (tmp_path / "worked-month").symlink_to(DOCS / "worked-month")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metering.logs.configure_logs", lambda *_: None)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def shown_commands() -> Iterator[tuple[str, str]]:
    """Each command of the page, and what it prints there; numbers are of this year, as those of a run are."""
    year = datetime.now(UTC).astimezone(PARIS).year
    text = re.sub(r"\b([AFR])2026-", rf"\g<1>{year}-", PAGE.read_text())
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in block.split(COMMAND)[1:]:
            command, _, printed = part.partition("\n")
            yield command, printed


def said(printed: str) -> str:
    return "\n".join(line.rstrip() for line in printed.removeprefix("\ufeff").splitlines())


def matches(shown: str, printed: str) -> bool:
    parts = (re.escape(part) for part in said(shown).split(ANYTHING))
    return re.fullmatch(".*".join(parts), said(printed), re.DOTALL) is not None


def test_the_worked_months_come_out_as_shown(elsewhere: None) -> None:
    commands = list(shown_commands())
    assert len(commands) == 14  # none is missed
    for command, shown in commands:
        answer = CliRunner().invoke(main, shlex.split(command))
        assert answer.exit_code == 0, (command, answer.stderr)
        assert matches(shown, answer.stdout), (command, answer.stdout)

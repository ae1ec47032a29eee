"""What the documentation shows is true."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("metering/*.md"), *ROOT.glob("reports/*.md")]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_examples_in_python_give_what_they_show(page: Path) -> None:
    assert doctest.testfile(str(page), module_relative=False).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_command_is_known() -> None:
    from metering.cli import main

    shown = {name for page in PAGES for name in re.findall(r"\$ (?:.* )?jauge ([a-z]+)", page.read_text())}
    assert shown
    assert shown <= set(main.commands)

"""The pictures of the guides: that they are made, small, shown and described."""

import re
from pathlib import Path

import pytest

from tests.gateways.pictures import GUIDES, asgi, take_pictures

FOLDER = Path(__file__).parents[2] / "docs" / "gateways"
BYTES_MAX = 100_000


def test_a_picture_is_taken_of_what_was_recorded(tmp_path: Path) -> None:
    """Of the quickest; what all set-ups record is tested elsewhere."""
    take_pictures(tmp_path, {"asgi": asgi})
    assert 10_000 < (tmp_path / "asgi.png").stat().st_size < BYTES_MAX


@pytest.mark.parametrize("guide", GUIDES)
def test_each_guide_shows_its_picture_in_words_too(guide: str) -> None:
    (described,) = re.findall(rf"^!\[(.+)\]\({guide}\.png\)$", (FOLDER / f"{guide}.md").read_text(), re.MULTILINE)
    assert len(described) > 30
    assert (FOLDER / f"{guide}.png").stat().st_size < BYTES_MAX

"""The style sheet: colours that can be told from their ground in both themes, and nothing fetched from elsewhere."""

import re

import pytest

from reports.figures import SERIES_MAX
from reports.pages import STATIC

STYLE = (STATIC / "jauge.css").read_text()
SERIES = (*(f"series-{number}" for number in range(1, SERIES_MAX + 1)), "series-others")


def colours(theme: str) -> dict[str, str]:
    """Colours of a theme by variable; what the dark one doesn't set stays as in the light one."""
    light, dark = re.findall(r":root {(.*?)}", STYLE, re.DOTALL)
    found = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", light))
    return found if theme == "light" else found | dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", dark))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_series_stand_out_from_the_surface(theme: str) -> None:
    """3 to 1 for what isn't text (WCAG 2.2, 1.4.11)."""
    found = colours(theme)
    assert {
        name: contrast(found[name], found["surface"]) for name in SERIES if contrast(found[name], found["surface"]) < 3
    } == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "accent", "warning", "incident"])
@pytest.mark.parametrize("ground", ["ground", "surface"])
def test_text_is_legible_on_every_ground(theme: str, ink: str, ground: str) -> None:
    """4.5 to 1 (WCAG 2.2, 1.4.3); axe-core doesn't look at text inside drawings."""
    assert contrast(colours(theme)[ink], colours(theme)[ground]) >= 4.5


def test_no_style_comes_from_elsewhere() -> None:
    assert "url(" not in STYLE
    assert "@import" not in STYLE

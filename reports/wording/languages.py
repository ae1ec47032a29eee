"""The languages of readers, the characters that hold their texts together, and which one a browser asks for."""

from collections.abc import Mapping
from typing import Literal, get_args

Language = Literal["fr", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

Words = Mapping[str, str]
"""Sentences by key, with fields to fill in."""

NARROW = "\u202f"
"""Narrow no-break space: groups digits in French and precedes ; ? ! and %."""
FIXED = "\u00a0"
"""No-break space: holds a number and its unit on one line, and precedes the colon in French."""


def preferred_language(accept_language: str, otherwise: Language) -> Language:
    """Language that an Accept-Language header (RFC 9110, 12.5.4) puts first, of those we have; else `otherwise`."""
    best: tuple[float, Language] | None = None
    for part in accept_language.split(","):
        tag, _, parameters = part.partition(";")
        primary = tag.strip().lower().split("-")[0]
        weight = _weight(parameters)
        for language in LANGUAGES:
            if primary == language and weight > 0 and (best is None or weight > best[0]):
                best = (weight, language)
    return otherwise if best is None else best[1]


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0

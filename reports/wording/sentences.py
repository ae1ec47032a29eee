"""Every sentence of the pages: one module of words for each, joined here."""

from collections.abc import Mapping
from types import ModuleType

from reports.wording import (
    activation,
    admin,
    admin_books,
    carbon,
    documents,
    figures,
    frame,
    journal,
    limits,
    method,
    notices,
    overview,
    people,
    signing,
    usage,
)
from reports.wording.languages import LANGUAGES, Language, Words

PAGES: tuple[ModuleType, ...] = (
    activation,
    admin,
    admin_books,
    carbon,
    documents,
    figures,
    frame,
    journal,
    limits,
    method,
    notices,
    overview,
    people,
    signing,
    usage,
)
"""Modules with the words of a page, or of what several have in common."""


def _joined(name: str) -> Words:
    words: dict[str, str] = {}
    for page in PAGES:
        own: Words = getattr(page, name)
        assert not words.keys() & own.keys(), f"{page.__name__} repeats a key"
        words |= own
    return words


DICTIONARIES: Mapping[Language, Words] = {"fr": _joined("FRENCH"), "en": _joined("ENGLISH")}
assert set(DICTIONARIES) == set(LANGUAGES)


def say(language: Language, key: str, **values: object) -> str:
    """A sentence of the dictionary with its values put in. Raises: KeyError for an unknown key."""
    return DICTIONARIES[language][key].format(**values)

"""Numbers of documents: a series for each kind, counted from 1 in each year of issue, without a gap."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from metering.rules.billing.documents import DocumentKind

SERIES: Mapping[DocumentKind, str] = MappingProxyType({"statement": "R", "invoice": "F", "credit_note": "A"})
"""Relevé, facture, avoir."""

NUMBER_PATTERN = "^[A-Z]{1,3}[0-9]{4}-[0-9]{6,}$"

_number = re.compile(NUMBER_PATTERN)


def number_of(kind: DocumentKind, year: int, serial: int) -> str:
    """A number as F2026-000123: sorts as it counts up to a million a year, and has no more than 35 characters."""
    assert serial > 0
    return f"{SERIES[kind]}{year:04d}-{serial:06d}"


def is_number(text: str) -> bool:
    """Whether a text has the form of a number, and so is safe as the name of a file."""
    return _number.fullmatch(text) is not None

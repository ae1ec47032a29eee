"""A table that leaves as a file: its columns, its rows, and what it follows from. Pure.

A value is a str, an int, a Decimal, a bool or None (not known, or nothing to say); an instant is RFC 3339 text. Rows of
one sheet are the same in every form that it takes, so they have one hash: SHA-256 of the rows as NDJSON, which is the
form `ndjson` itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

from metering.rules.periods import PARIS
from reports.wording import Language

ColumnKind = Literal["text", "json", "count", "decimal", "instant", "date"]
"""count: an integer of any size; decimal: exact, with `scale` decimals; json: a text that is JSON."""

Value = str | int | Decimal | bool | None

Form = Literal["csv", "xlsx", "parquet", "json", "ndjson"]

DIGITS = 38
"""Of a decimal number at most: what Parquet's DECIMAL holds."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; heading: what people are shown in a language instead of its name."""

    name: str
    kind: ColumnKind
    scale: int = 0
    headings: Mapping[Language, str] = field(default_factory=dict)

    def heading(self, language: Language) -> str:
        """Its heading in a language."""
        return self.headings.get(language, self.name)


@dataclass(frozen=True, slots=True)
class About:
    """What a sheet is of, so that it can be made again: the same question as of the same batch gives the same rows.

    start and end: the period, exclusive. ledger_batch and ledger_hash: the last batch of the ledger that is in it, and
    the hash that chains it to all before. asked: what else was asked for.
    """

    kind: str
    start: datetime
    end: datetime
    ledger_batch: int
    ledger_hash: str
    zone: ZoneInfo = PARIS
    asked: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """It as it stands in files."""
        return {
            "export": self.kind,
            "period_start": self.start.astimezone(self.zone).isoformat(),
            "period_end": self.end.astimezone(self.zone).isoformat(),
            "time_zone": self.zone.key,
            "ledger_batch": self.ledger_batch,
            "ledger_hash": self.ledger_hash,
            **self.asked,
        }

    def name(self, form: Form) -> str:
        """A file's name: the same for the same sheet."""
        first, last = (edge.astimezone(self.zone).date().isoformat() for edge in (self.start, self.end))
        owner = f"{tenant}_" if isinstance(tenant := self.asked.get("tenant"), str) else ""
        return f"{self.kind}_{owner}{first}_{last}_batch-{self.ledger_batch}.{form}"


@dataclass(frozen=True, slots=True)
class Sheet:
    """Rows in the order of their columns; they are read once."""

    about: About
    columns: tuple[Column, ...]
    rows: Iterator[Sequence[Value]]

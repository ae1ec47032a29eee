"""Months of the books as they are closed: in order, each once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

import sqlalchemy as sa

from metering.billing.rating import Period, read_month
from metering.rules.periods import PARIS
from metering.tables import month_closed, month_closing

State = Literal["open", "draft", "finalising", "final"]


@dataclass(frozen=True, slots=True)
class Closing:
    """A closing that was begun, and all that its documents follow from: made again, it gives the same.

    carbon_batch: 0 is before the first; zero_reason: why usage without a price may cost nothing.
    """

    number: int
    month: str
    is_final: bool
    ledger_batch: int
    carbon_batch: int
    catalog_version: int
    issued_on: date
    author: str
    zero_reason: str | None
    started_at: datetime

    @property
    def period(self) -> Period:
        return read_month(self.month)


_COLUMNS = [month_closing.c[name] for name in Closing.__dataclass_fields__]


def final_closings(connection: sa.Connection, before: str = "9999") -> list[Closing]:
    """Final closings of months before one, in the order of months."""
    query = sa.select(*_COLUMNS).where(month_closing.c.is_final, month_closing.c.month < before)
    return [Closing(**row._mapping) for row in connection.execute(query.order_by(month_closing.c.month))]


def final_closing(connection: sa.Connection, month: str) -> Closing | None:
    """The closing that a month's documents are of, once it was begun."""
    query = sa.select(*_COLUMNS).where(month_closing.c.is_final, month_closing.c.month == month)
    row = connection.execute(query).first()
    return None if row is None else Closing(**row._mapping)


def latest_closing(connection: sa.Connection, month: str) -> tuple[Closing, dict[str, object]] | None:
    """The final closing of a month, or its last draft, with the review."""
    query = sa.select(*_COLUMNS, month_closing.c.review).where(month_closing.c.month == month)
    order = month_closing.c.is_final.desc(), month_closing.c.number.desc()
    row = connection.execute(query.order_by(*order).limit(1)).first()
    if row is None:
        return None
    *values, review = row
    return Closing(*values), review


def is_closed(connection: sa.Connection, month: str) -> bool:
    """Whether a month is sealed, and has all of its documents."""
    return connection.scalar(sa.select(sa.exists().where(month_closed.c.month == month))) is True


def unfinished(connection: sa.Connection) -> Closing | None:
    """The final closing that was begun and hasn't ended: there is one at most, as months close in order."""
    ended = sa.exists().where(month_closed.c.closing == month_closing.c.number)
    row = connection.execute(sa.select(*_COLUMNS).where(month_closing.c.is_final, ~ended)).first()
    return None if row is None else Closing(**row._mapping)


def month_after(month: str) -> str:
    """The next month."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def month_before(month: str) -> str:
    """The month before."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year - (number == 1):04d}-{(number - 2) % 12 + 1:02d}"


def month_of(instant: datetime) -> str:
    """The month of the books that an instant is in."""
    return f"{instant.astimezone(PARIS):%Y-%m}"


def months_shown(connection: sa.Connection, now: datetime, limit: int, before: str | None) -> Sequence[str]:
    """Months that were closed or drafted, and the last that is over; newest first."""
    known = set(connection.scalars(sa.select(month_closing.c.month).distinct()))
    known |= {month_before(month_of(now))}
    return sorted((month for month in known if before is None or month < before), reverse=True)[:limit]

"""Deliveries: exports that go to a folder or a bucket by themselves, each once.

What is to be delivered is drawn up when its period is over, as of a batch of the ledger, so that every attempt writes
the same file under the same name. Its manifest is written last: what has one is whole.
"""

import os
import shutil
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from metering.database import alone, transaction
from metering.errors import Conflict, JaugeError, NotFound, Unavailable, Unprocessable
from metering.exporting.asking import ExportAsked
from metering.exporting.destinations import (
    DELIVERER,
    DeliveriesFile,
    Delivery,
    Place,
    asked_for,
    place_of,
    read_deliveries,
)
from metering.outbox.delivery import RETRY_DELAYS_S
from metering.rules.periods import PARIS, day_bounds
from metering.tables import delivery, month_closed, month_closing
from reports.exports.making import Made, Sources, make, parse_export
from reports.exports.usage_sheet import last_batch_of

DELIVERY_LOCK = 0x44454C49  # "DELI": one delivers at a time
DAY_GRACE = timedelta(hours=6)
"""After the end of a day, for usage that comes late; what comes later still is in the month's."""
MANIFEST_SUFFIX = ".manifest.json"

DeliveryState = Literal["waiting", "delivered", "failed"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """An export to be delivered. Fields are those of the table `delivery`."""

    number: int
    id: str
    period: str
    destination: str
    asked: dict[str, Any]
    as_of: int
    state: DeliveryState
    attempts: int
    due_at: datetime
    error: str | None
    manifest: dict[str, Any] | None
    path: str | None
    created_at: datetime
    delivered_at: datetime | None

    @classmethod
    def of(cls, row: sa.Row[Any]) -> "Due":
        """From a row of all columns."""
        return cls(**row._mapping)


@dataclass(frozen=True, slots=True)
class Deliverer:
    """Delivers what a file of the operator's asks for; it is read anew each time. folder: of data."""

    sources: Sources
    folder: Path
    file: Path

    def run(self, now: datetime) -> None:
        """Draw up what is to be delivered, and deliver what is due. Raises: Unprocessable, Unavailable."""
        read = read_deliveries(self.file)
        engine = self.sources.engine
        with alone(engine, DELIVERY_LOCK) as has_it:
            if not has_it:
                return
            shutil.rmtree(self._drafts, ignore_errors=True)  # of one that was killed
            with transaction(engine) as connection:
                for one in read.deliveries:
                    _draw_up(connection, one, now)
            while (due := self._next(now)) is not None:
                self._attempt(due, read, now)

    @property
    def _drafts(self) -> Path:
        return self.folder / "deliveries"

    def _next(self, now: datetime) -> Due | None:
        columns = delivery.c
        query = sa.select(delivery).where(columns.state == "waiting", columns.due_at <= now)
        with transaction(self.sources.engine) as connection:
            row = connection.execute(query.order_by(columns.due_at, columns.number).limit(1)).first()
        return None if row is None else Due.of(row)

    def _attempt(self, due: Due, read: DeliveriesFile, now: datetime) -> None:
        """Deliver once, and note what came of it."""
        try:
            values = self._deliver(due, read) | {"state": "delivered", "delivered_at": now, "error": None}
        except Exception as error:
            code = code_of(error)
            may_pass = not isinstance(error, JaugeError) or isinstance(error, Unavailable)
            log.warning("not_delivered", delivery=due.id, period=due.period, code=code, attempts=due.attempts + 1)
            values = {"state": "failed", "error": code}
            if may_pass and due.attempts < len(RETRY_DELAYS_S):
                values = {"error": code, "due_at": now + timedelta(seconds=RETRY_DELAYS_S[due.attempts])}
        changed = delivery.update().where(delivery.c.number == due.number)
        with transaction(self.sources.engine) as connection:
            connection.execute(changed.values(attempts=delivery.c.attempts + 1, **values))

    def _deliver(self, due: Due, read: DeliveriesFile) -> dict[str, Any]:
        destination = read.destinations.get(due.destination)
        if destination is None:
            raise Unavailable("unknown_destination", "The file of deliveries has no such destination any more.")
        asked = msgspec.convert(due.asked, ExportAsked)
        pinned = {"as_of": str(due.as_of)} if asked.kind == "usage" else {}
        export = parse_export(asked.params() | pinned, DELIVERER)
        self._drafts.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._drafts) as folder:
            made = make(self.sources, export, DELIVERER, Path(folder))
            path = put(place_of(destination), f"{due.id}/{due.period}", made)
        log.info("delivered", delivery=due.id, period=due.period, bytes=made.size)
        return {"manifest": msgspec.json.decode(made.manifest()), "path": path}


def put(place: Place, folder: str, made: Made) -> str:
    """Write a file, then its manifest; returns where the file is, below the destination."""
    import obstore  # noqa: PLC0415 - what few need

    name = f"{folder}/{made.path.name}"
    below = os.path.join(place.prefix, name)  # noqa: PTH118 - a key, not a path
    obstore.put(place.store, below, made.path)
    obstore.put(place.store, below + MANIFEST_SUFFIX, made.manifest())
    return name


def code_of(error: Exception) -> str:
    """What an error is called; never its text, which can hold what a server answered."""
    from obstore import exceptions as stores  # noqa: PLC0415

    if isinstance(error, JaugeError):
        return error.code
    if isinstance(error, stores.PermissionDeniedError | stores.UnauthenticatedError | PermissionError):
        return "access_denied"
    if isinstance(error, stores.NotFoundError | FileNotFoundError):
        return "not_found"
    if isinstance(error, stores.BaseError):
        return "store_failed"
    return "storage" if isinstance(error, OSError) else "internal"


def list_deliveries(connection: sa.Connection, *, before: int | None = None, limit: int = 100) -> list[Due]:
    """What was drawn up, newest first."""
    query = sa.select(delivery).order_by(delivery.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(delivery.c.number < before)
    return [Due.of(row) for row in connection.execute(query)]


def retry_delivery(connection: sa.Connection, number: int, *, now: datetime) -> Due:
    """Try one again that was given up, or waits for its next attempt. Raises: NotFound; Conflict if it is delivered."""
    columns = delivery.c
    again = delivery.update().where(columns.number == number, columns.state != "delivered")
    row = connection.execute(again.values(state="waiting", attempts=0, due_at=now).returning(delivery)).first()
    if row is not None:
        return Due.of(row)
    if connection.scalar(sa.select(columns.number).where(columns.number == number)) is None:
        raise NotFound("unknown_delivery", f"No delivery has the number {number}.", field="number")
    raise Conflict("delivered", f"Delivery {number} has been made.", field="number")


def _draw_up(connection: sa.Connection, one: Delivery, now: datetime) -> None:
    """Record what is to be delivered of periods that are over and weren't drawn up."""
    known = set(connection.scalars(sa.select(delivery.c.period).where(delivery.c.id == one.id)))
    over = _months(connection, one) if one.every == "month" else _days(connection, one, now)
    rows = [
        {
            "id": one.id,
            "period": period,
            "destination": one.to,
            "asked": msgspec.to_builtins(asked_for(one, period)),
            "as_of": batch,
            "due_at": now,
            "created_at": now,
        }
        for period, batch in over
        if period not in known
    ]
    if rows:
        connection.execute(insert(delivery).values(rows))


def _months(connection: sa.Connection, one: Delivery) -> list[tuple[str, int]]:
    """Months that are closed, with the batch of their seal."""
    closing = month_closing.c
    query = sa.select(closing.month, closing.ledger_batch).join_from(month_closing, month_closed)
    found = connection.execute(query.where(closing.month >= one.since).order_by(closing.month))
    return [(row.month, row.ledger_batch) for row in found]


def _days(connection: sa.Connection, one: Delivery, now: datetime) -> list[tuple[str, int]]:
    """Days that are over, with the newest batch: what it has of them stays as it is."""
    batch = last_batch_of(connection, None)
    day, last = date.fromisoformat(one.since), now.astimezone(PARIS).date()
    found = []
    while day < last and day_bounds(day)[1] + DAY_GRACE <= now:
        found.append((day.isoformat(), batch))
        day += timedelta(days=1)
    return found


def deliverer_of(sources: Sources, folder: Path, file: Path | None) -> Deliverer:
    """What delivers. Raises: Unprocessable where settings name no file."""
    if file is None:
        raise Unprocessable("no_deliveries", "Settings name no file of deliveries.", field="JAUGE_DELIVERIES")
    return Deliverer(sources, folder, file)

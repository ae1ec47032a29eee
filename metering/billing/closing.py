"""Closing a month: looked at as a draft, then sealed and written for good.

A closing is recorded before anything follows from it, with all that its documents follow from. Then the month is
sealed, and each document is made in a transaction of its own, in a fixed order. So whatever dies in between, the next
run goes on with the next document, and numbers and files come out as if nothing had happened.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import sqlalchemy as sa

from metering.billing.documents import Render, counted, issue
from metering.billing.periods import (
    Closing,
    final_closing,
    final_closings,
    is_closed,
    month_after,
    unfinished,
)
from metering.billing.planning import Plan, plan_month
from metering.billing.rating import read_month
from metering.billing.reviewing import Obstacle, Review, review
from metering.database import alone, transaction
from metering.errors import Conflict, Unavailable, Unprocessable
from metering.ledger.sealing import Seal, seal_month
from metering.outbox.queue import enqueue_mail
from metering.rules.periods import PARIS
from metering.tables import (
    carbon_batch,
    catalog_change,
    ledger_batch,
    month_closed,
    month_closing,
)

CLOSING_LOCK = 0x434C4F53  # "CLOS": one closes at a time
OBSTACLES_NAMED = 5

Progress = Callable[[int, int], None]


def _silent(_done: int, _total: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Closer:
    """Closes months. folder: of data, with sealed files and documents; render: files of a document.

    grace_days: how long after its end a month stays open for what comes late.
    """

    engine: sa.Engine
    folder: Path
    render: Render
    grace_days: int

    def draft(self, month: str, *, author: str, now: datetime, tells_operators: bool = False) -> tuple[Closing, Review]:
        """Look at a month as it stands: what its documents would be. It is kept, and can be made again.

        Raises: Conflict where the month is final, or its turn hasn't come; Unprocessable.
        """
        with self._alone(), transaction(self.engine, snapshot=True) as connection:
            self._check_turn(connection, month, now)
            if final_closing(connection, month) is not None:
                raise Conflict("month_final", "The month is final.", field="month")
            closing, found = self._begin(connection, month, author=author, now=now, is_final=False)
            if tells_operators:
                payload = {"month": month, "obstacles": len(found.obstacles)}
                enqueue_mail(connection, month, recipient="operators", subject="drafts_ready", payload=payload)
            return closing, found

    def begin_final(self, month: str, *, author: str, now: datetime, zero_reason: str | None = None) -> Closing:
        """Decide a month's closing for good, and leave the rest to the worker; safe to repeat.

        zero_reason: why usage without a price costs nothing.
        Raises: Conflict where its turn hasn't come or something stands in the way; Unprocessable; Unavailable.
        """
        with self._alone():
            return self._final(month, author=author, now=now, zero_reason=zero_reason)

    def finalise(
        self,
        month: str,
        *,
        author: str,
        now: datetime,
        zero_reason: str | None = None,
        progress: Progress = _silent,
    ) -> Closing:
        """Seal a month and write its documents for good; safe to repeat, and goes on where it stopped.

        progress: is told documents made, and in all. The rest, and what is raised, as of `begin_final`.
        """
        with self._alone():
            closing = self._final(month, author=author, now=now, zero_reason=zero_reason)
            with transaction(self.engine) as connection:
                is_complete = is_closed(connection, month)
            if not is_complete:
                self._complete(closing, progress)
            return closing

    def resume(self, now: datetime) -> Closing | None:
        """Complete the final closing that somebody began and didn't end, if there is one."""
        with transaction(self.engine) as connection:
            begun = unfinished(connection)
        return None if begun is None else self.finalise(begun.month, author=begun.author, now=now)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with alone(self.engine, CLOSING_LOCK) as has_it:
            if not has_it:
                raise Unavailable("closing_elsewhere", "A month is being closed.", retry_after_s=5)
            yield

    def _final(self, month: str, *, author: str, now: datetime, zero_reason: str | None) -> Closing:
        """The final closing of a month, begun where it wasn't yet."""
        with transaction(self.engine, snapshot=True) as connection:
            closing = final_closing(connection, month)
            if closing is None:
                self._check_turn(connection, month, now)
                self._check_over(month, now)
                closing, found = self._begin(
                    connection, month, author=author, now=now, is_final=True, zero_reason=zero_reason
                )
                _check_ready(found, zero_reason)
            return closing

    def _check_turn(self, connection: sa.Connection, month: str, now: datetime) -> None:
        period = read_month(month)
        if now < period.start:
            raise Unprocessable("month_to_come", "The month hasn't begun.", field="month")
        finals = final_closings(connection)
        if finals and month not in {one.month for one in finals} | {(due := month_after(finals[-1].month))}:
            raise Conflict("not_its_turn", "Months are closed in order.", field="month", expected=due)
        if finals and not is_closed(connection, finals[-1].month) and month != finals[-1].month:
            raise Conflict("not_its_turn", "A month is not complete yet.", field="month", expected=finals[-1].month)

    def _check_over(self, month: str, now: datetime) -> None:
        if now < read_month(month).end + timedelta(days=self.grace_days):
            raise Conflict(
                "month_not_over",
                "The month is not over, or usage of it may still come.",
                field="month",
                expected=f"{self.grace_days} days after its end",
            )

    def _begin(
        self,
        connection: sa.Connection,
        month: str,
        *,
        author: str,
        now: datetime,
        is_final: bool,
        zero_reason: str | None = None,
    ) -> tuple[Closing, Review]:
        """Record a closing, as of the latest batches and the latest change of the catalogue."""
        values = {
            "month": month,
            "is_final": is_final,
            "ledger_batch": _latest(connection, ledger_batch.c.seq),
            "carbon_batch": _latest(connection, carbon_batch.c.seq),
            "catalog_version": _latest(connection, catalog_change.c.number),
            "issued_on": now.astimezone(PARIS).date(),
            "author": author,
            "zero_reason": zero_reason,
            "started_at": now,
        }
        found = review(plan_month(connection, Closing(number=0, **values), self.folder))  # type: ignore[arg-type]
        added = month_closing.insert().values(review=msgspec.to_builtins(found), **values)
        number = connection.scalar(added.returning(month_closing.c.number))
        return Closing(number=number, **values), found  # type: ignore[arg-type]

    def _complete(self, closing: Closing, progress: Progress) -> None:
        period = closing.period
        seal = seal_month(
            self.engine, closing.month, period.start, period.end, self.folder, last_batch=closing.ledger_batch
        )
        with transaction(self.engine, snapshot=True) as connection:
            plan = plan_month(connection, closing, self.folder)
        for place, draft in enumerate(plan.documents):
            with transaction(self.engine) as connection:
                issue(connection, closing, place, draft, self.render, self.folder)
            progress(place + 1, len(plan.documents))
        with transaction(self.engine) as connection:
            _end(connection, closing, plan, seal)


def _latest(connection: sa.Connection, column: sa.ColumnElement[int]) -> int:
    return connection.scalar(sa.select(sa.func.coalesce(sa.func.max(column), 0))) or 0


def _check_ready(found: Review, zero_reason: str | None) -> None:
    """Raises: Conflict where something stands in the way: the transaction that began is undone."""
    left: list[Obstacle] = [one for one in found.obstacles if zero_reason is None or one.code != "unpriced"]
    if left:
        named = ", ".join(f"{one.code} ({one.subject})" for one in left[:OBSTACLES_NAMED])
        more = len(left) - OBSTACLES_NAMED
        raise Conflict(
            "month_not_ready",
            f"Something stands in the way: {named}{f', and {more} more' if more > 0 else ''}.",
            field=left[0].code,
        )


def _end(connection: sa.Connection, closing: Closing, plan: Plan, seal: Seal) -> None:
    """Record that a month is closed, and tell the managers of those who have documents."""
    made = counted(connection, closing)
    assert made == len(plan.documents)
    connection.execute(
        month_closed.insert().values(
            month=closing.month,
            closing=closing.number,
            manifest_sha256=seal.manifest_sha256,
            sealed_rows=seal.rows,
            documents=made,
            ended_at=sa.func.clock_timestamp(),
        )
    )
    for tenant in sorted({one.buyer.id for one in plan.documents}):
        own = sum(one.buyer.id == tenant for one in plan.documents)
        payload = {"month": closing.month, "documents": own}
        enqueue_mail(
            connection, closing.month, recipient=f"managers:{tenant}", subject="documents_final", payload=payload,
            tenant=tenant,
        )  # fmt: skip

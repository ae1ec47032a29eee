"""The worker's part: exports that were asked for become files.

An export is taken under a lease, which is prolonged as long as its file is being made. Who dies leaves it to be made
again when the lease ends: as of the same batch, so with the same bytes. Each attempt has a folder and a number of its
own, and only the one that has the lease may say what came of it: an older one that wakes up again changes nothing.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from metering.database import Actor, transaction
from metering.errors import JaugeError, Unavailable
from metering.exporting.asking import UNDER_WAY, Job
from metering.outbox.queue import enqueue_mail
from metering.tables import export_job
from reports.exports.making import Made, Sources, make

EXPORTER = Actor("jauge:exporter")
LEASE = timedelta(seconds=60)
ATTEMPTS_MAX = 5
RETRY_DELAY = timedelta(seconds=30)
POLL_S = 1.0
TIDY_EVERY = timedelta(minutes=1)
MAIL_ROWS_MIN = 200_000
"""Of an export whose end is told by mail: what is smaller needs no waiting for."""
FORGOTTEN_AFTER = timedelta(days=90)

log = structlog.get_logger(__name__)


class _CalledOff(Exception):
    """Nobody wants the file any more, or another has taken it over, or the worker stops."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """Makes exports, one at a time; several may run, in any processes that share the folder.

    folder: of data. keep: how long a file can be fetched. lease: after which an export is taken over.
    """

    sources: Sources
    folder: Path
    keep: timedelta
    lease: timedelta = LEASE
    mail_rows_min: int = MAIL_ROWS_MIN

    def run(self, stop: threading.Event) -> None:
        """Make what is asked until told to stop; outages of the database are waited out."""
        tidied_at = datetime.min.replace(tzinfo=UTC)
        while not stop.is_set():
            busy = False
            try:
                if datetime.now(UTC) - tidied_at >= TIDY_EVERY:
                    tidied_at = datetime.now(UTC)
                    self.tidy(tidied_at)
                busy = self.work_next(datetime.now(UTC), stop)
            except JaugeError as error:
                log.warning("exports_wait", code=error.code)
            except Exception as error:  # its kind only: its text could hold what is exported
                log.error("export_failed", error=type(error).__name__)
            if not busy:
                stop.wait(POLL_S)

    def work_next(self, now: datetime, stop: threading.Event) -> bool:
        """Make the export that has waited longest; returns whether there was one. Raises: Unavailable."""
        with transaction(self.sources.engine, actor=EXPORTER) as connection:
            job = _claim(connection, now, self.lease)
        if job is None:
            return False
        shutil.rmtree(folder_of(self.folder, job.id), ignore_errors=True)  # what earlier attempts left
        place = folder_of(self.folder, job.id) / str(job.attempts)
        place.mkdir(mode=0o700, parents=True)
        is_kept = False
        try:
            is_kept = self._work(job, place, stop)
        finally:
            if not is_kept:
                shutil.rmtree(place, ignore_errors=True)
        return True

    def _work(self, job: Job, place: Path, stop: threading.Event) -> bool:
        """Make a file and say what came of it; returns whether the file counts."""
        with _Lease(self.sources.engine, job, self.lease, stop).kept() as lease:
            try:
                made = make(self.sources, job.export(), job.reader, place, lease.told)
                _keep(made.path)
            except _CalledOff:
                return self._end(job, state="waiting", due_at=datetime.now(UTC)) if stop.is_set() else False
            except (JaugeError, OSError) as error:
                return self._failed(job, error)
            except Exception as error:
                self._failed(job, error)
                raise
        return self._ready(job, made)

    def _ready(self, job: Job, made: Made) -> bool:
        now = datetime.now(UTC)
        expires_at = now + self.keep
        manifest = msgspec.json.decode(made.manifest())
        with transaction(self.sources.engine, actor=EXPORTER) as connection:
            rows = made.told["rows"]
            is_noted = _note(
                connection, job, state="ready", manifest=manifest, rows_done=rows, rows_total=rows, ended_at=now,
                expires_at=expires_at, error=None,
            )  # fmt: skip
            if is_noted and job.account is not None and rows >= self.mail_rows_min:
                payload = {"file": made.path.name, "rows": rows, "expires_at": expires_at, "export": job.id}
                enqueue_mail(
                    connection, job.id, recipient=f"account:{job.account}", subject="export_ready", payload=payload,
                    tenant=job.tenant,
                )  # fmt: skip
        log.info("export_made", export=job.id, rows=rows, bytes=made.size, counts=is_noted)
        return is_noted

    def _failed(self, job: Job, error: Exception) -> bool:
        """What may pass is tried again; what can't, is told by its code."""
        code = error.code if isinstance(error, JaugeError) else "storage" if isinstance(error, OSError) else "internal"
        log.warning("export_not_made", export=job.id, code=code, attempts=job.attempts)
        may_pass = isinstance(error, Unavailable) or not isinstance(error, JaugeError)
        now = datetime.now(UTC)
        if may_pass and job.attempts < ATTEMPTS_MAX:
            return self._end(job, state="waiting", due_at=now + RETRY_DELAY, error=code)
        return self._end(job, state="failed", ended_at=now, error=code)

    def _end(self, job: Job, **values: Any) -> bool:
        """Note that an attempt made no file."""
        with transaction(self.sources.engine, actor=EXPORTER) as connection:
            _note(connection, job, **values)
        return False

    def tidy(self, now: datetime) -> None:
        """Take away files whose time is over, that were called off or that the dead left. Raises: Unavailable."""
        place = self.folder / "exports"
        present = [path.name for path in place.iterdir()] if place.is_dir() else []
        columns = export_job.c
        with transaction(self.sources.engine, actor=EXPORTER) as connection:
            is_over = sa.and_(columns.state == "ready", columns.expires_at <= now)
            connection.execute(export_job.update().where(is_over).values(state="expired"))
            ended = ("failed", "cancelled", "expired")
            is_old = sa.and_(columns.state.in_(ended), columns.created_at < now - FORGOTTEN_AFTER)
            connection.execute(export_job.delete().where(is_old))
            # A folder is made after its export is taken: what is there and isn't wanted now is wanted by nobody.
            wanted = set(connection.scalars(sa.select(columns.id).where(columns.state.in_(["running", "ready"]))))
        for name in set(present) - wanted:
            shutil.rmtree(place / name, ignore_errors=True)


def folder_of(data: Path, export_id: str) -> Path:
    """Folder of an export."""
    return data / "exports" / export_id


def file_of(data: Path, job: Job) -> Path:
    """File of an export that is ready."""
    assert job.manifest is not None
    return folder_of(data, job.id) / str(job.attempts) / str(job.manifest["file"])


@dataclass
class _Lease:
    """Holds an export while its file is made: prolongs the lease, tells progress, and notices what calls it off."""

    engine: sa.Engine
    job: Job
    lease: timedelta
    stop: threading.Event
    done: int = 0
    total: int | None = None
    lost: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def kept(self) -> Iterator["_Lease"]:
        """Prolong the lease as long as the block runs."""
        thread = threading.Thread(target=self._keep, name="export-lease")
        thread.start()
        try:
            yield self
        finally:
            self.ended.set()
            thread.join()

    def told(self, done: int, total: int | None) -> None:
        """Hear of progress. Raises: _CalledOff."""
        self.done, self.total = done, total
        if self.lost.is_set() or self.stop.is_set():
            raise _CalledOff

    def _keep(self) -> None:
        while not self.ended.wait(self.lease.total_seconds() / 5):
            try:
                with transaction(self.engine, actor=EXPORTER) as connection:
                    due_at = datetime.now(UTC) + self.lease
                    if not _note(connection, self.job, due_at=due_at, rows_done=self.done, rows_total=self.total):
                        self.lost.set()
                        return
            except JaugeError as error:  # the next round may come in time; if not, another takes over
                log.warning("export_lease_not_kept", code=error.code)


def _claim(connection: sa.Connection, now: datetime, lease: timedelta) -> Job | None:
    """Take the export that is due first."""
    columns = export_job.c
    first = (
        sa.select(columns.number)
        .where(columns.state.in_(UNDER_WAY), columns.due_at <= now)
        .order_by(columns.due_at, columns.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    given_up = columns.attempts >= ATTEMPTS_MAX  # each of them ended without a word
    row = connection.execute(
        export_job.update()
        .where(columns.number == first.scalar_subquery())
        .values(
            state=sa.case((given_up, "failed"), else_="running"),
            error=sa.case((given_up, "never_ended"), else_=columns.error),
            ended_at=sa.case((given_up, now)),
            attempts=columns.attempts + 1,
            due_at=now + lease,
            rows_done=0,
            rows_total=None,
        )
        .returning(export_job)
    ).first()
    return None if row is None or row.state == "failed" else Job.of(row)


def _note(connection: sa.Connection, job: Job, **values: Any) -> bool:
    """Write down what an attempt has come to; False where it isn't the one that counts any more."""
    columns = export_job.c
    noted = connection.execute(
        export_job.update()
        .where(columns.number == job.number, columns.state == "running", columns.attempts == job.attempts)
        .values(**values)
    )
    return noted.rowcount == 1


def _keep(path: Path) -> None:
    """A file that is said to be ready outlives a loss of power."""
    for one in (path, path.parent):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""What happens at set times. Every job may run on several workers at once, and again after a stop: none counts runs."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import sqlalchemy as sa
import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from metering.catalog.access import expire_requests, release_delayed
from metering.catalog.announcing import announce_notices, announce_retirements, announce_terms
from metering.catalog.issued_keys import announce_expiring_keys
from metering.errors import JaugeError
from metering.ledger.verify import verify
from metering.metrics import LEDGER_VERIFIED
from metering.outbox.secrets import MasterKey
from metering.rules.periods import BOOKS_ZONE

Job = Callable[[datetime], object]

log = structlog.get_logger(__name__)


def start_scheduler(engine: sa.Engine, master_key: MasterKey, *, verify_at_hour: int) -> BackgroundScheduler:
    """Tell what is to be told and move what waits, every minute; verify the whole ledger once a day."""
    scheduler = BackgroundScheduler(timezone=BOOKS_ZONE)
    scheduler.add_job(
        lambda: verify_and_report(engine), "cron", hour=verify_at_hour, coalesce=True, misfire_grace_time=3600
    )
    for name, job in minute_jobs(engine, master_key).items():
        scheduler.add_job(partial(run_job, name, job), "interval", minutes=1, next_run_time=datetime.now(UTC))
    scheduler.start()
    return scheduler


def minute_jobs(engine: sa.Engine, master_key: MasterKey) -> dict[str, Job]:
    """What the worker does every minute, by name; each takes the time."""
    return {
        "announce_retirements": partial(announce_retirements, engine),
        "announce_notices": partial(announce_notices, engine),
        "announce_terms": partial(announce_terms, engine),
        "announce_expiring_keys": partial(announce_expiring_keys, engine),
        "release_delayed": partial(release_delayed, engine, master_key),
        "expire_requests": partial(expire_requests, engine),
    }


def run_job(name: str, job: Job) -> None:
    """Run a job now; an error is logged by its code, and the next minute tries again."""
    try:
        job(datetime.now(UTC))
    except JaugeError as error:
        log.error("job_failed", job=name, code=error.code)


def verify_and_report(engine: sa.Engine) -> None:
    """Verify the ledger; say what came of it in the log and the metrics."""
    try:
        result = verify(engine)
    except JaugeError as error:
        log.error("verification_failed", code=error.code)
        return
    LEDGER_VERIFIED.set(int(result.clean))
    for difference in result.differences:
        log.error("ledger_differs", kind=difference.kind, where=difference.where)
    log.info("ledger_verified", rows=result.rows, head_seq=result.head_seq, differences=len(result.differences))

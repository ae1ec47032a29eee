"""What happens at set times. Every job may run on several workers at once, and again after a stop: none counts runs."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import sqlalchemy as sa
import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from metering.billing.closing import Closer
from metering.billing.due import draft_due
from metering.billing.running_out import announce_envelopes
from metering.carbon.calibrating import calibrate_all
from metering.carbon.importing_packaged import ensure_packaged_factors
from metering.carbon.job import post_due
from metering.carbon.verification import verify_carbon
from metering.catalog.access import expire_requests, release_delayed
from metering.catalog.announcing import announce_notices, announce_retirements, announce_terms
from metering.catalog.issued_keys import announce_expiring_keys
from metering.catalog.sessions import Lives, forget_sessions
from metering.errors import JaugeError
from metering.ledger.verify import NAMED_MAX, Verification, verify
from metering.metrics import VERIFIED
from metering.outbox.secrets import MasterKey
from metering.quotas.building import CounterBuilder
from metering.quotas.verifying import verify_counters
from metering.reconciliation.watching import reconcile_month
from metering.retention import Keeping, retain
from metering.rules.periods import BOOKS_ZONE

Job = Callable[[datetime], object]

log = structlog.get_logger(__name__)


def start_scheduler(
    master_key: MasterKey,
    counters: CounterBuilder,
    closer: Closer,
    *,
    sessions: Lives,
    keeping: Keeping,
    verify_at_hour: int,
    deliver: Job | None = None,
) -> BackgroundScheduler:
    """Tell what is due, move what waits and post carbon, every minute; verify, calibrate, warn and tidy, daily.

    deliver: exports, where settings ask for it.
    """
    scheduler, engine = BackgroundScheduler(timezone=BOOKS_ZONE), closer.engine
    verifications = (
        partial(verify_and_report, verify, engine, "ledger"),
        partial(verify_and_report, verify_carbon, engine, "carbon"),
        partial(compare_and_report, counters),
    )
    for verification in verifications:
        scheduler.add_job(verification, "cron", hour=verify_at_hour, coalesce=True, misfire_grace_time=3600)
    warning = partial(run_job, "announce_envelopes", partial(announce_envelopes, engine, counters.catalog))
    scheduler.add_job(warning, "cron", hour=verify_at_hour, coalesce=True, misfire_grace_time=3600)
    calibrating = partial(run_job, "calibrate_carbon", partial(calibrate_all, engine))
    reconciling = partial(run_job, "reconcile", partial(reconcile_month, engine, counters.catalog))
    scheduler.add_job(reconciling, "cron", hour=verify_at_hour, coalesce=True, misfire_grace_time=3600)
    scheduler.add_job(calibrating, "cron", hour=verify_at_hour, coalesce=True, misfire_grace_time=3600)
    retaining = partial(run_job, "retain", partial(retain, engine, keeping))
    scheduler.add_job(retaining, "cron", hour=verify_at_hour, coalesce=True, misfire_grace_time=3600)
    delivering: dict[str, Job] = {} if deliver is None else {"deliver": deliver}
    for name, job in {**minute_jobs(engine, master_key, closer, sessions), **delivering}.items():
        scheduler.add_job(partial(run_job, name, job), "interval", minutes=1, next_run_time=datetime.now(UTC))
    scheduler.start()
    return scheduler


def minute_jobs(engine: sa.Engine, master_key: MasterKey, closer: Closer, sessions: Lives) -> dict[str, Job]:
    """What the worker does every minute, by name; each takes the time."""
    return {
        "announce_retirements": partial(announce_retirements, engine),
        "announce_notices": partial(announce_notices, engine),
        "announce_terms": partial(announce_terms, engine),
        "announce_expiring_keys": partial(announce_expiring_keys, engine),
        "release_delayed": partial(release_delayed, engine, master_key),
        "expire_requests": partial(expire_requests, engine),
        "package_factors": partial(ensure_packaged_factors, engine),
        "post_carbon": partial(post_due, engine),
        "complete_closing": closer.resume,
        "draft_month": partial(draft_due, closer),
        "forget_sessions": partial(forget_sessions, engine, sessions),
    }


def run_job(name: str, job: Job) -> None:
    """Run a job now; an error is logged by its code, and the next minute tries again."""
    try:
        job(datetime.now(UTC))
    except JaugeError as error:
        log.error("job_failed", job=name, code=error.code)


def verify_and_report(verification: Callable[[sa.Engine], Verification], engine: sa.Engine, name: str) -> None:
    """Verify the ledger, or carbon; say what came of it in the log and the metrics."""
    try:
        result = verification(engine)
    except JaugeError as error:
        log.error("verification_failed", of=name, code=error.code)
        return
    VERIFIED[name].set(int(result.clean))
    for difference in result.differences:
        log.error(f"{name}_differs", kind=difference.kind, where=difference.where)
    log.info(f"{name}_verified", rows=result.rows, head_seq=result.head_seq, differences=len(result.differences))


def compare_and_report(counters: CounterBuilder) -> None:
    """Compare the counters with the ledger, and build anew those that differ; say what came of it in the log."""
    differences: list[tuple[str, str]] = []
    try:
        check = verify_counters(
            counters, lambda kind, where, _detail: differences.append((kind, where)), is_repairing=True
        )
    except JaugeError as error:
        log.error("counters_not_compared", code=error.code)
        return
    for kind, where in differences[:NAMED_MAX]:
        log.error("counters_differ", kind=kind, where=where)
    log.info(
        "counters_compared", counters=check.counters, unready=check.unready, differences=len(differences),
        repaired=check.repaired,
    )  # fmt: skip

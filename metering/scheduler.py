"""What happens at set times."""

import sqlalchemy as sa
import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from metering.errors import JaugeError
from metering.ledger.verify import verify
from metering.metrics import LEDGER_VERIFIED
from metering.rules.periods import BOOKS_ZONE

log = structlog.get_logger(__name__)


def start_scheduler(engine: sa.Engine, *, verify_at_hour: int) -> BackgroundScheduler:
    """Verify the whole ledger once a day; a difference is logged as an error and shows in the metrics."""
    scheduler = BackgroundScheduler(timezone=BOOKS_ZONE)
    scheduler.add_job(
        lambda: verify_and_report(engine), "cron", hour=verify_at_hour, coalesce=True, misfire_grace_time=3600
    )
    scheduler.start()
    return scheduler


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

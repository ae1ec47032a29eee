"""Sends what is due.

A message is taken in one transaction, sent outside any, and noted in another. While it is being sent it is under a
lease: nobody else takes it. Who dies between sending and noting leaves it to be sent again when the lease ends, under
the same id, so that the receiver can tell.
"""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import sqlalchemy as sa
import structlog
from prometheus_client import Counter as Metric

from metering.database import Actor, transaction
from metering.errors import JaugeError
from metering.outbox.calls import WebhookCourier
from metering.outbox.mail import Addressee, Folder, MailCourier, SmtpServer
from metering.outbox.messages import SENT, Channel, Courier, Message, Outcome
from metering.outbox.queue import fan_out, is_group
from metering.outbox.secrets import MasterKey
from metering.settings import Settings
from metering.tables import outbox

POSTMAN = Actor("jauge:postman")
LEASE = timedelta(minutes=5)
"""Longer than any attempt takes."""
RETRY_DELAYS_S = (10, 60, 300, 1_800, 7_200, *[21_600] * 7)
"""Waits after the first, second … attempt, to which up to a fifth is added by chance; two days in all."""
ATTEMPTS_MAX = len(RETRY_DELAYS_S) + 1
POLL_S = 1.0
LANES: tuple[Channel, ...] = ("mail", "webhook", "webhook", "webhook")
"""What is sent at a time: one webhook fills one lane, and no webhook holds up mails."""

MESSAGES = Metric("jauge_outbox_messages_total", "Attempts to send a message.", ["channel", "outcome"])

Result = Literal["sent", "dropped", "failed", "retried", "fanned_out"]
Couriers = Mapping[Channel, Courier]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """What came of messages. retried: to be tried again. fanned_out: groups turned into a message a member."""

    sent: int = 0
    dropped: int = 0
    failed: int = 0
    retried: int = 0
    fanned_out: int = 0

    @property
    def total(self) -> int:
        """How many there were."""
        return self.sent + self.dropped + self.failed + self.retried + self.fanned_out


def couriers_for(settings: Settings, keys: MasterKey) -> dict[Channel, Courier]:
    """The couriers that settings ask for. Raises: Unprocessable for an address of a mail server that can't be read."""
    if settings.smtp_url is None:
        log.warning("mails_are_written_to_a_folder", folder="mail")
    return {
        "mail": MailCourier(
            keys,
            Folder(settings.data / "mail")
            if settings.smtp_url is None
            else SmtpServer.of(settings.smtp_url.get_secret_value()),
            sender=settings.mail_from,
            public_url=settings.public_url,
            operator=Addressee(settings.operator_mail, settings.language) if settings.operator_mail else None,
        ),
        "webhook": WebhookCourier(keys, private_allowed=settings.webhook_private),
    }


def deliver_due(engine: sa.Engine, couriers: Couriers, now: datetime, limit: int = 100) -> DeliveryCounts:
    """Send up to `limit` messages that are due, of the couriers' channels. Raises: Unavailable."""
    begun = time.monotonic()
    results: Counter[str] = Counter()
    for _ in range(limit):
        result = _deliver_next(engine, couriers, now + timedelta(seconds=time.monotonic() - begun))
        if result is None:
            break
        results[result] += 1
    return DeliveryCounts(**results)


class Postman:
    """Delivers until told to stop. Several may run, in any processes."""

    def __init__(self, engine: sa.Engine, couriers: Couriers) -> None:
        self._engine = engine
        self._couriers = couriers

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set and what is under way has ended; outages of the database are waited out."""
        threads = [
            threading.Thread(target=self._run_lane, args=(channel, stop), name=f"postman-{number}")
            for number, channel in enumerate(LANES)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run_lane(self, channel: Channel, stop: threading.Event) -> None:
        couriers = {channel: self._couriers[channel]}
        while not stop.is_set():
            try:
                busy = deliver_due(self._engine, couriers, datetime.now(UTC), limit=1).total > 0
            except JaugeError as error:
                log.warning("delivery_waits", code=error.code)
                busy = False
            except Exception as error:  # its kind only: its text could hold what was to be sent
                log.error("delivery_failed", error=type(error).__name__)
                busy = False
            if not busy:
                stop.wait(POLL_S)


def _deliver_next(engine: sa.Engine, couriers: Couriers, now: datetime) -> Result | None:
    """Take one message, send it and note what came of it; None if none is due."""
    begun = time.monotonic()
    with transaction(engine, actor=POSTMAN) as connection:
        message = _claim(connection, list(couriers), now)
    if message is None:
        return None
    courier = couriers[message.channel]
    outcome = _attempt(engine, courier, message, now)
    now += timedelta(seconds=time.monotonic() - begun)
    with transaction(engine, actor=POSTMAN) as connection:
        if _note(connection, message, outcome, now) and outcome.final:
            courier.conclude(connection, message, outcome, now)
    result = _result_of(message, outcome)
    MESSAGES.labels(message.channel, result).inc()
    if outcome.code is not None:
        log.warning(
            "message_not_sent", number=message.number, channel=message.channel, subject=message.subject,
            outcome=result, code=outcome.code, attempts=message.attempts,
        )  # fmt: skip
    return result


def _claim(connection: sa.Connection, channels: list[Channel], now: datetime) -> Message | None:
    """Take the message that is due first; not one to a webhook that is being called, so a slow one fills one lane."""
    under_way = sa.select(outbox.c.recipient).where(
        outbox.c.state == "sending", outbox.c.due_at > now, outbox.c.channel == "webhook"
    )
    first_due = (
        sa.select(outbox.c.number)
        .where(
            outbox.c.state.in_(["waiting", "sending"]),
            outbox.c.due_at <= now,
            outbox.c.channel.in_(channels),
            outbox.c.recipient.not_in(under_way),
        )
        .order_by(outbox.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = connection.execute(
        outbox.update()
        .where(outbox.c.number == first_due.scalar_subquery())
        .values(state="sending", attempts=outbox.c.attempts + 1, due_at=now + LEASE)
        .returning(outbox)
    ).first()
    return None if row is None else Message.of(row)


def _attempt(engine: sa.Engine, courier: Courier, message: Message, now: datetime) -> Outcome:
    """Send a message once. A fault of ours is an outcome too, so that one message never holds up the others."""
    if message.attempts > ATTEMPTS_MAX:  # those before ended without being noted
        return Outcome("failed", "never_noted")
    try:
        with transaction(engine, actor=POSTMAN) as connection:
            if is_group(message.recipient):
                fan_out(connection, message, now)
                return SENT
            prepared = courier.prepare(connection, message, now)
        outcome = prepared if isinstance(prepared, Outcome) else prepared()
    except JaugeError as error:
        outcome = Outcome("waiting", error.code)
    except Exception as error:  # its kind only: its text could hold an address
        log.error("delivery_failed", number=message.number, subject=message.subject, error=type(error).__name__)
        outcome = Outcome("waiting", "internal_error")
    if not outcome.final and message.attempts >= ATTEMPTS_MAX:
        return Outcome("failed", outcome.code)
    return outcome


def _result_of(message: Message, outcome: Outcome) -> Result:
    if outcome.state == "waiting":
        return "retried"
    return "fanned_out" if outcome == SENT and is_group(message.recipient) else outcome.state


def _note(connection: sa.Connection, message: Message, outcome: Outcome, now: datetime) -> bool:
    """Note what came of an attempt; False if the lease ended meanwhile and somebody else has taken the message.

    A reason is words about a person: it isn't kept once it is told, or nobody is there to be told.
    """
    payload = dict(message.payload)
    if outcome.state in {"sent", "dropped"} and "reason" in payload:
        payload["reason"] = None
    noted = connection.execute(
        outbox.update()
        .where(outbox.c.number == message.number, outbox.c.state == "sending", outbox.c.attempts == message.attempts)
        .values(
            state=outcome.state,
            last_error=outcome.code,
            payload=payload,
            due_at=now if outcome.final else now + _delay(message.attempts),
            done_at=now if outcome.final else None,
        )
    )
    return noted.rowcount == 1


def _delay(attempts: int) -> timedelta:
    """Wait after an attempt; by chance a little more, so that what failed together isn't tried again together."""
    delay_ms = RETRY_DELAYS_S[attempts - 1] * 1_000
    return timedelta(milliseconds=delay_ms + secrets.randbelow(delay_ms // 5))

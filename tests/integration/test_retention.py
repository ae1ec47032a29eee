"""What is kept no longer goes, when its setting says so; all the rest stays."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from metering.cli import main
from metering.database import transaction
from metering.events.decoding import decode_one
from metering.events.quarantine import dismiss, list_quarantined, mark_replayed
from metering.outbox.queue import enqueue_mail, retry_message
from metering.retention import Due, Keeping, due_now, retain
from metering.services import Services, keeping_of
from metering.settings import Settings, get_settings
from metering.tables import outbox, quarantine
from tests.conftest import MakeEvent

NOW = datetime(2027, 10, 5, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FOR_EVER = Keeping(None, None)
MONTH = Keeping(30 * DAY, 30 * DAY)


@pytest.fixture
def refused(services: Services, make_event: MakeEvent) -> Services:
    """Refused events: 1 waits, 2 and 3 were dismissed 31 and 29 days ago, 4 was replayed, 31 days ago."""
    pieces = [json.dumps(make_event(tenant=f"atlantis-{number}")).encode() for number in range(4)]
    services.intake.take([decode_one(piece) for piece in pieces], "http")
    for number, days in ((2, 31), (3, 29)):
        dismiss(services.engine, [number], why="A trial.", author="a", now=NOW - days * DAY)
    mark_replayed(services.engine, [4])
    with transaction(services.engine) as connection:
        replayed = quarantine.update().where(quarantine.c.number == 4).values(replayed_at=NOW - 31 * DAY)
        connection.execute(replayed)
    return services


def tell(services: Services, key: str, state: str, days: int) -> bool:
    """Record a mail, in a state since some days; returns whether it is new."""
    payload = {"month": "2026-10", "obstacles": 0}
    with transaction(services.engine) as connection:
        is_new = enqueue_mail(connection, key, recipient="operators", subject="drafts_ready", payload=payload)
        done = outbox.update().where(outbox.c.key.endswith(f"/{key}"))
        if is_new:
            connection.execute(done.values(state=state, done_at=NOW - days * DAY))
    return is_new


def said(services: Services) -> dict[str, bool]:
    """Keys of mails, and whether it is known what they said."""
    with transaction(services.engine) as connection:
        rows = connection.execute(sa.select(outbox.c.key, outbox.c.payload).where(outbox.c.subject == "drafts_ready"))
        return {key.rpartition("/")[2]: payload != {} for key, payload in rows}


def test_refused_events_go_once_nobody_needs_them(refused: Services) -> None:
    edge = NOW - 30 * DAY
    assert due_now(refused.engine, MONTH, NOW)[0] == Due("quarantine", edge, 2)
    assert [one.number for one in list_quarantined(refused.engine, done=True)] == [1, 2, 3, 4]
    assert retain(refused.engine, MONTH, NOW)[0] == Due("quarantine", edge, 2)
    assert [one.number for one in list_quarantined(refused.engine, done=True)] == [1, 3]
    assert retain(refused.engine, MONTH, NOW)[0].rows == 0


def test_what_mails_said_goes_and_that_they_were_told_stays(services: Services) -> None:
    for key, state, days in (("old", "sent", 31), ("new", "sent", 29), ("failed", "failed", 31)):
        assert tell(services, key, state, days)
    assert due_now(services.engine, MONTH, NOW)[1] == Due("messages", NOW - 30 * DAY, 1)
    assert retain(services.engine, MONTH, NOW)[1].rows == 1
    assert said(services) == {"old": False, "new": True, "failed": True}
    assert not tell(services, "old", "sent", 0)
    assert retain(services.engine, MONTH, NOW)[1].rows == 0
    with transaction(services.engine) as connection:
        number = connection.scalar(sa.select(outbox.c.number).where(outbox.c.key.endswith("/failed"))) or 0
        retry_message(connection, number, now=NOW)
    assert retain(services.engine, MONTH, NOW + 365 * DAY)[1].rows == 1
    assert said(services)["failed"]


def test_nothing_goes_unless_a_setting_says_so(refused: Services, settings: Settings) -> None:
    tell(refused, "old", "sent", 9_999)
    assert keeping_of(settings) == FOR_EVER
    assert due_now(refused.engine, FOR_EVER, NOW) == retain(refused.engine, FOR_EVER, NOW)
    assert due_now(refused.engine, FOR_EVER, NOW) == [Due("quarantine", None, 0), Due("messages", None, 0)]
    assert len(list_quarantined(refused.engine, done=True)) == 4
    assert said(refused) == {"old": True}
    days = settings.model_copy(update={"quarantine_keep_days": 30, "messages_keep_days": 7})
    assert keeping_of(days) == Keeping(30 * DAY, 7 * DAY)


def test_the_command_counts_first(refused: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("database_url", "redis_url"):
        monkeypatch.setenv(f"JAUGE_{name.upper()}", getattr(settings, name).get_secret_value())
    monkeypatch.setenv("JAUGE_QUARANTINE_KEEP_DAYS", "30")
    monkeypatch.setattr("metering.logs.configure_logs", lambda *_: None)
    long_ago = datetime.now(UTC) - 31 * DAY
    with transaction(refused.engine) as connection:
        connection.execute(quarantine.update().where(quarantine.c.number == 2).values(dismissed_at=long_ago))
        connection.execute(quarantine.update().where(quarantine.c.number == 4).values(replayed_at=long_ago))
    get_settings.cache_clear()
    try:
        assert rows_of() == rows_of() == {"quarantine": 2, "messages": 0}
        assert rows_of("--apply") == {"quarantine": 2, "messages": 0}
        assert rows_of() == {"quarantine": 0, "messages": 0}
    finally:
        get_settings.cache_clear()


def rows_of(*options: str) -> dict[str, int]:
    """What `jauge retention` says, by kind."""
    answer = CliRunner().invoke(main, ["retention", "--json", *options])
    assert answer.exit_code == 0, answer.output
    return {one["kind"]: one["rows"] for one in json.loads(answer.stdout.splitlines()[-1])}

"""Told once: whoever rolls back, fails, dies or works at the same time."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
import structlog

from metering.database import Actor, transaction
from metering.errors import Conflict, NotFound
from metering.outbox.delivery import ATTEMPTS_MAX, LEASE, RETRY_DELAYS_S, Postman, deliver_due
from metering.outbox.mail import MailCourier
from metering.outbox.messages import SENT, Outcome
from metering.outbox.queue import EVENT_TYPES, enqueue_event, enqueue_mail, list_messages, retry_message
from metering.tables import outbox, person
from tests.outbox.conftest import soon

DINUM = Actor("u-1", "dinum")


class Killed(BaseException):
    """The end of a worker."""


def test_what_is_rolled_back_is_not_told(office, mail_server):
    def do_and_fail() -> None:
        with transaction(office.engine) as connection:
            assert enqueue_mail(connection, "k", recipient="operators", subject="account_deleted", payload={})
            raise Killed

    with pytest.raises(Killed):
        do_and_fail()
    assert office.deliver().total == 0
    assert not mail_server.mails


def test_what_is_committed_is_told_once(office, mail_server):
    assert office.mail()
    assert not office.mail()
    assert office.mail("another matter")
    assert office.deliver().sent == 2
    assert office.deliver().total == 0
    assert len(mail_server.mails) == 2


def test_one_key_serves_a_mail_and_an_event_and_several_recipients(office, receiver):
    office.webhook(receiver.url)
    assert all([office.mail("k"), office.mail("k", recipient="account:u-2"), office.event(key="k")])
    assert all([office.event("notice.published", "dinum", "k"), office.event("notice.published", "sante", "k")])


def test_a_payload_that_lacks_a_field_or_has_another_is_refused(office):
    for payload in ({}, {"reason": None, "email": "a@b.example"}):
        with pytest.raises(ValueError, match="takes reason"):
            office.mail(payload=payload)
    with pytest.raises(ValueError, match="no recipient"):
        office.mail(recipient="agent1@dinum.example")
    with pytest.raises(ValueError, match="no type"):
        office.event("key.eaten")


def test_an_administration_adds_to_the_outbox_and_cant_look_into_it(office, mail_server, receiver):
    _, secret = office.webhook(receiver.url, tenant=None)
    with transaction(office.engine, actor=DINUM) as connection:
        mail = {"recipient": "managers:dinum", "subject": "account_suspended", "payload": {"reason": None}}
        assert enqueue_mail(connection, "k", **mail, tenant="dinum")
        assert not enqueue_mail(connection, "k", **mail, tenant="dinum")
        assert enqueue_event(connection, "key.created", tenant="dinum", key="k", payload={"key": "k-1"})
    for statement in (
        sa.select(outbox), outbox.update().values(state="sent"), outbox.delete(), outbox.insert().returning(outbox),
    ):  # fmt: skip
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            with transaction(office.engine, actor=DINUM) as connection:
                connection.execute(statement)
    for tenant in ("sante", None):
        with pytest.raises(sa.exc.ProgrammingError, match="row-level security"):
            with transaction(office.engine, actor=DINUM) as connection:
                enqueue_event(connection, "key.created", tenant=tenant, key="k2", payload={})
    assert office.deliver().sent == 2
    assert [body["data"] for body in receiver.verified(secret)] == [{"key": "k-1", "tenant": "dinum"}]
    assert mail_server.recipients == ["agent1@dinum.example"]


def test_two_postmen_bring_each_message_once(office):
    with transaction(office.engine) as connection:
        for number in range(200):
            payload = {"name": f"n{number}", "prefix": "jauge_ab"}
            enqueue_mail(connection, f"k{number}", recipient="account:u-1", subject="key_revoked", payload=payload)
    brought, begin = Counter(), threading.Barrier(2)

    class Bag:
        def send(self, mail):
            brought[mail["Message-ID"], mail["Subject"]] += 1
            return SENT

    courier = MailCourier(office.keys, Bag(), sender="jauge@plateforme.example", public_url="", operator=None)

    def deliver(_: int) -> int:
        begin.wait()
        return deliver_due(office.engine, {"mail": courier}, soon(), limit=1_000).sent

    with ThreadPoolExecutor(2) as postmen:
        shares = list(postmen.map(deliver, range(2)))
    assert sum(shares) == 200
    assert min(shares) > 0
    assert len(brought) == 200
    assert set(brought.values()) == {1}


def test_a_server_that_is_down_is_tried_again_later(office, mail_server):
    office.mail()
    now, away = soon(), "smtp://127.0.0.1:1"
    for attempt, delay_s in enumerate(RETRY_DELAYS_S[:3], start=1):
        assert office.deliver(now, smtp_url=type(office.settings.smtp_url)(away)).retried == 1
        (message,) = office.messages()
        assert (message.state, message.attempts, message.last_error) == ("waiting", attempt, "connect_failed")
        assert delay_s <= (message.due_at - now).total_seconds() < delay_s * 1.2 + 2
        assert office.deliver(message.due_at - timedelta(seconds=1)).total == 0
        now = message.due_at
    assert office.deliver(now).sent == 1
    (message,) = office.messages()
    assert (message.state, message.attempts, message.last_error) == ("sent", 4, None)
    assert len(mail_server.mails) == 1


def test_after_two_days_of_refusals_a_message_has_failed_and_an_operator_can_send_it_again(office, mail_server):
    office.mail()
    first = now = soon()
    mail_server.replies = ["451 Later"] * ATTEMPTS_MAX
    for _ in range(ATTEMPTS_MAX):
        assert office.deliver(now).total == 1
        (message,) = office.messages()
        now = message.due_at
    assert (message.state, message.attempts) == ("failed", 13)
    assert timedelta(hours=44) < message.done_at - first < timedelta(hours=56)
    assert office.deliver(now + timedelta(days=9)).total == 0
    with transaction(office.engine) as connection:
        retry_message(connection, message.number, now=now)
    assert office.deliver(now).sent == 1
    with transaction(office.engine) as connection:
        with pytest.raises(Conflict):
            retry_message(connection, message.number, now=now)
        with pytest.raises(NotFound):
            retry_message(connection, message.number + 1, now=now)


def test_a_worker_killed_between_sending_and_noting_repeats_the_same_mail(office, mail_server, monkeypatch):
    office.mail()
    now = soon()

    def killed(*_args, **_kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("metering.outbox.delivery._note", killed)
        with pytest.raises(Killed):
            office.deliver(now)
    assert office.messages()[0].state == "sending"
    assert office.deliver(now + LEASE - timedelta(seconds=5)).total == 0
    assert office.deliver(now + LEASE + timedelta(seconds=5)).sent == 1
    first, second = mail_server.mails
    assert first["Message-ID"] == second["Message-ID"]


def test_a_message_that_kills_its_workers_is_given_up(office, monkeypatch):
    office.mail()
    now = soon()
    monkeypatch.setattr(MailCourier, "prepare", lambda *_: (_ for _ in ()).throw(Killed))
    for _ in range(ATTEMPTS_MAX):
        with pytest.raises(Killed):
            office.deliver(now)
        now += LEASE + timedelta(seconds=1)
    assert office.deliver(now).failed == 1
    assert office.messages()[0].last_error == "never_noted"


def test_who_lost_the_lease_notes_nothing(office, mail_server, monkeypatch):
    office.mail()
    now = soon()

    def outlasted(*_args):
        """The lease ends; another takes the message, and is killed."""
        monkeypatch.setattr(MailCourier, "prepare", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            office.deliver(now + LEASE + timedelta(seconds=5))
        return Outcome("dropped", "too_late")

    monkeypatch.setattr(MailCourier, "prepare", outlasted)
    office.deliver(now)
    (message,) = office.messages()
    assert (message.state, message.attempts, message.last_error) == ("sending", 2, None)


def test_a_fault_of_ours_waits_and_tells_no_address(office, mail_server, monkeypatch):
    office.mail("one")
    office.mail("two", recipient="account:u-2")
    monkeypatch.setattr("metering.outbox.mail.render", lambda *_: {}["agent1@dinum.example"])
    with structlog.testing.capture_logs() as logs:
        assert office.deliver().retried == 2
    assert {message.last_error for message in office.messages()} == {"internal_error"}
    assert "agent1@" not in f"{logs} {office.everything()}"


def test_the_outbox_holds_no_name_address_or_secret(office, mail_server, receiver):
    code = office.access()
    _, secret = office.webhook(receiver.url)
    office.mail(recipient="access_request:r-1", subject="access_approved", payload={"request": "r-1"})
    office.mail(recipient="accounts")
    office.event()
    mail_server.replies = ["451 agent1@dinum.example is busy"]
    receiver.statuses = [500]
    office.deliver()
    stored = office.everything()
    assert "account:u-2" in stored
    for private in ("@", "Nom1", "Secret", "Ada", code, secret, secret.removeprefix("whsec_")):
        assert private not in stored


def test_a_postman_brings_what_comes_and_stops_when_told(office, mail_server, receiver):
    _, secret = office.webhook(receiver.url)
    stop = threading.Event()
    thread = threading.Thread(target=Postman(office.engine, office.couriers()).run, args=(stop,))
    thread.start()
    try:
        office.mail()
        office.event()
        ready = threading.Event()
        for _ in range(200):
            if mail_server.mails and receiver.calls:
                break
            ready.wait(0.05)
    finally:
        stop.set()
        thread.join(timeout=20)
    assert not thread.is_alive()
    assert len(mail_server.mails) == 1
    assert len(receiver.verified(secret)) == 1
    assert {message.state for message in office.messages()} == {"sent"}


def test_messages_are_listed_by_state_and_page(office, mail_server):
    for number in range(3):
        office.mail(f"k{number}")
    office.deliver()
    office.mail("k9")
    with transaction(office.engine) as connection:
        assert [message.state for message in list_messages(connection, state="waiting")] == ["waiting"]
        first = list_messages(connection, limit=2)
        assert len(first) == 2
        assert len(list_messages(connection, after=first[-1].number)) == 2


def test_instants_of_a_payload_are_kept_as_text(office):
    at = datetime(2026, 10, 5, 8, tzinfo=UTC)
    office.mail(subject="key_expiring", payload={"name": "Clé", "prefix": "jauge_ab", "expires_at": at})
    assert office.messages()[0].payload["expires_at"] == "2026-10-05T08:00:00Z"


def test_deleting_a_person_doesnt_need_the_outbox(office):
    office.mail()
    with transaction(office.engine, actor=DINUM) as connection:
        assert connection.execute(person.delete().where(person.c.account == "u-1")).rowcount == 1


def test_types_of_events_are_named_alike():
    assert len(set(EVENT_TYPES)) == 17
    assert all(event_type.count(".") == 1 and event_type.islower() for event_type in EVENT_TYPES)

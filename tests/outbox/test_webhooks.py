"""Webhooks: signed, to public addresses only, to those who subscribed."""

import socket
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from metering.database import Actor, transaction
from metering.errors import Conflict, NotFound, Unavailable, Unprocessable
from metering.outbox.addresses import is_public
from metering.outbox.queue import PUBLIC_EVENT_TYPES
from metering.outbox.secrets import MasterKey
from metering.outbox.webhooks import (
    ROTATION,
    WEBHOOKS_MAX,
    add_webhook,
    check_url,
    disable_webhook,
    list_webhooks,
    rotate_webhook,
)
from metering.tables import catalog_change, webhook
from tests.outbox.conftest import STAFF, soon

LATER = timedelta(days=3)


@pytest.fixture
def names(monkeypatch):
    """Answers of the name service: name → addresses; each answer is given once, the last one for ever."""
    answers: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def answer(host, port, *args, **kwargs):
        if host not in answers:
            return real(host, port, *args, **kwargs)
        addresses = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        return [entry for address in addresses for entry in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return answers


def test_a_call_is_signed_and_says_what_happened_when(office, receiver):
    _, secret = office.webhook(receiver.url)
    office.event()
    assert office.deliver().sent == 1
    (body,) = receiver.verified(secret)
    assert body["type"] == "key.created"
    assert body["data"] == {"key": "k-1", "tenant": "dinum"}
    assert abs(datetime.fromisoformat(body["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)
    headers, _ = receiver.calls[0]
    assert headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        receiver.verified("whsec_" + "A" * 44)


def test_a_repeat_has_the_same_id_and_body(office, receiver):
    office.webhook(receiver.url)
    office.event()
    receiver.statuses = [503, 301]
    now = soon()
    for code in ("http_503", "http_301", None):
        office.deliver(now)
        message = office.messages()[-1]
        assert message.last_error == code
        now = message.due_at
    assert message.state == "sent"
    assert len({headers["webhook-id"] for headers, _ in receiver.calls}) == 1
    assert len({body for _, body in receiver.calls}) == 1
    assert len(receiver.calls) == 3  # and none elsewhere


def test_a_webhook_that_is_gone_is_disabled(office, receiver):
    webhook_id, _ = office.webhook(receiver.url)
    office.event(key="one")
    office.event(key="two")
    receiver.statuses = [410]
    counts = office.deliver()
    assert (counts.dropped, counts.sent) == (2, 0)
    assert len(receiver.calls) == 1
    assert {message.last_error for message in office.messages()[2:]} == {"address_gone", "webhook_disabled"}
    with transaction(office.engine) as connection:
        assert list_webhooks(connection, "dinum")[0].disabled_at is not None
        authors = connection.scalars(sa.select(catalog_change.c.author).where(catalog_change.c.key == webhook_id))
        assert list(authors) == ["operator:test", "jauge:postman"]


def test_only_those_who_subscribed_and_may_know_are_told(office, receiver):
    told = {
        "dinum all": office.webhook(receiver.url, "dinum")[1],
        "dinum revoked": office.webhook(receiver.url, "dinum", ("key.revoked", "notice.published"))[1],
        "sante all": office.webhook(receiver.url, "sante")[1],
        "operator all": office.webhook(receiver.url, None)[1],
    }

    def who(event_type: str, tenant: str | None) -> set[str]:
        receiver.calls.clear()
        office.event(event_type, tenant)
        office.deliver()
        return {name for name, secret in told.items() for call in receiver.calls if signed(secret, call)}

    assert who("key.created", "dinum") == {"dinum all", "operator all"}
    assert who("key.revoked", "dinum") == {"dinum all", "dinum revoked", "operator all"}
    assert who("access.requested", None) == {"operator all"}
    assert who("notice.published", "sante") == {"sante all", "operator all"}
    assert who("notice.published", None) == set(told)
    assert {"notice.published", "terms.published", "model.retiring"} == PUBLIC_EVENT_TYPES


def signed(secret: str, call) -> bool:
    try:
        Verifier(secret).verify(call[1], call[0])
    except WebhookVerificationError:
        return False
    return True


def test_after_a_rotation_both_secrets_verify_for_a_day(office, receiver):
    webhook_id, old = office.webhook(receiver.url)
    now = soon()
    with transaction(office.engine, actor=STAFF) as connection:
        new = rotate_webhook(connection, office.keys, webhook_id, tenant="dinum", now=now)
    assert new != old
    office.event()
    office.deliver(now)
    assert receiver.verified(old) == receiver.verified(new)
    with transaction(office.engine, actor=STAFF) as connection:
        connection.execute(webhook.update().values(old_salt_until=now - timedelta(seconds=1)))
    receiver.calls.clear()
    office.event(key="two")
    office.deliver(now)
    assert receiver.verified(new)
    with pytest.raises(WebhookVerificationError):
        receiver.verified(old)
    assert timedelta(hours=24) == ROTATION


def test_an_administration_keeps_its_own_webhooks_and_no_others(office, receiver):
    others, _ = office.webhook(receiver.url, "sante")
    url = check_url(receiver.url, private_allowed=True)
    now = soon()
    with transaction(office.engine, actor=Actor("u-1", "dinum")) as connection:
        added, secret = add_webhook(connection, office.keys, tenant="dinum", url=url, events=["key.created"])
        assert secret.startswith("whsec_")
        assert list_webhooks(connection, "dinum") == [added]
        assert list_webhooks(connection, "sante") == []
        for tenant in ("dinum", "sante"):
            with pytest.raises(NotFound):
                disable_webhook(connection, others, tenant=tenant, now=now)
        disable_webhook(connection, added.id, tenant="dinum", now=now)
        disable_webhook(connection, added.id, tenant="dinum", now=now + LATER)
        assert list_webhooks(connection, "dinum")[0].disabled_at == now
        with pytest.raises(Conflict):
            rotate_webhook(connection, office.keys, added.id, tenant="dinum", now=now)
    office.event()
    office.deliver()
    assert not receiver.calls


def test_what_cant_be_registered_is_refused(office, receiver):
    url = check_url(receiver.url, private_allowed=True)

    def add(keys=office.keys, events=()):
        with transaction(office.engine, actor=STAFF) as connection:
            add_webhook(connection, keys, tenant="dinum", url=url, events=events)

    with pytest.raises(Unprocessable) as refused:
        add(events=["key.created", "key.eaten"])
    assert refused.value.code == "unknown_event_type"
    with pytest.raises(Unavailable):
        add(keys=MasterKey(None))
    for _ in range(WEBHOOKS_MAX):
        add()
    with pytest.raises(Unprocessable) as refused:
        add()
    assert refused.value.code == "too_many_webhooks"


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.32.7/",
        "ftp://192.0.32.7/",
        "https://",
        "https:///path",
        "https://user:password@192.0.32.7/",
        "https://192.0.32.7/#fragment",
        "https://192.0.32.7:99999/",
        "https://192.0.32.7:0/",
        "https://192.0.32.7/a b",
        "https://192.0.32.7/\r\nHost: x",
        "https://192.0.32.7\\@127.0.0.1/",
        "https://192.0.32.7/" + "a" * 2_000,
    ],
)
def test_an_address_of_another_form_is_refused(url):
    with pytest.raises(Unprocessable) as refused:
        check_url(url, private_allowed=False)
    assert refused.value.code == "invalid_webhook_url"
    assert "192.0" not in f"{refused.value.detail} {refused.value.expected}"


def test_public_addresses_are_accepted(names):
    names["hooks.example"] = [["192.0.32.7", "2606:4700::1111"]]
    assert check_url("https://192.0.32.7/hook?x=1", private_allowed=False)
    assert check_url("https://hooks.example:8443/hook", private_allowed=False)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:192.0.32.7",
        "::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::",
    ],
)  # fmt: skip
def test_addresses_of_the_inside_are_refused(address, names):
    assert not is_public(address)
    names["inside.example"] = [["192.0.32.7", address]]
    bracketed = f"[{address}]" if ":" in address else address
    for host in (bracketed, "inside.example"):
        with pytest.raises(Unprocessable) as refused:
            check_url(f"https://{host}/", private_allowed=False)
        assert refused.value.code == "private_address"


def test_a_name_that_leads_nowhere_is_refused(monkeypatch):
    def unknown(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unprocessable) as refused:
        check_url("https://nowhere.example/", private_allowed=False)
    assert refused.value.code == "unknown_host"


def test_a_name_that_turns_inside_after_its_registration_is_not_called(office, tls_receiver, names):
    port = tls_receiver.url.rpartition(":")[2]
    names["hooks.example"] = [["192.0.32.7"], ["127.0.0.1"]]
    url = check_url(f"https://hooks.example:{port}", private_allowed=False)
    with transaction(office.engine, actor=STAFF) as connection:
        add_webhook(connection, office.keys, tenant="dinum", url=url, events=[])
    office.event()
    assert office.deliver(webhook_private=False).retried == 1
    assert office.messages()[-1].last_error == "address_refused"
    assert not tls_receiver.calls


def test_plain_http_is_not_called_once_it_is_forbidden(office, receiver):
    office.webhook(receiver.url)
    office.event()
    office.deliver(webhook_private=False)
    assert office.messages()[-1].last_error == "address_refused"
    assert not receiver.calls


def test_the_connection_goes_to_the_checked_address_and_the_certificate_is_the_names(office, tls_receiver, names):
    url = tls_receiver.url.replace("127.0.0.1", "hooks.example")
    names["hooks.example"] = [["127.0.0.1"], ["127.0.0.1"], ["192.0.32.7"]]
    _, secret = office.webhook(url)
    office.event()
    assert office.deliver().sent == 1
    assert tls_receiver.verified(secret)
    assert tls_receiver.calls[0][0]["host"] == url.split("/")[2]
    assert names["hooks.example"] == [["192.0.32.7"]]


def test_a_certificate_of_another_name_is_refused(office, tls_receiver):
    office.webhook(tls_receiver.url)
    office.event()
    assert office.deliver().retried == 1
    assert office.messages()[-1].last_error == "tls_failed"
    assert not tls_receiver.calls


def test_the_next_address_is_tried_where_one_is_dead(office, receiver, names):
    names["hooks.example"] = [["::1", "127.0.0.1"]]
    _, secret = office.webhook(receiver.url.replace("127.0.0.1", "hooks.example"))
    office.event()
    assert office.deliver().sent == 1
    assert receiver.verified(secret)


def test_a_receiver_that_answers_drop_by_drop_is_left_in_time(office, monkeypatch):
    monkeypatch.setattr("metering.outbox.calls.CALL_S_MAX", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                while not stop.wait(0.05):
                    connection.send(b"H")
            except OSError:
                return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    office.webhook(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    office.event()
    begun = time.monotonic()
    assert office.deliver().retried == 1
    assert time.monotonic() - begun < 5
    assert office.messages()[-1].last_error == "timeout"
    stop.set()
    thread.join(timeout=5)
    listener.close()


def test_a_webhook_that_is_being_called_is_not_called_a_second_time_meanwhile(office, receiver):
    office.webhook(receiver.url)
    other, _ = office.webhook(receiver.url)
    office.event()
    now = soon()
    with transaction(office.engine) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO outbox (key, channel, recipient, subject, payload, state, due_at) VALUES "
                "('under way', 'webhook', :recipient, 'key.created', '{}', 'sending', :until)"
            ),
            {"recipient": f"webhook:{other}", "until": now + timedelta(minutes=4)},
        )
    assert office.deliver(now).sent == 1
    assert len(receiver.calls) == 1
    assert office.deliver(now + timedelta(minutes=4)).sent == 2


def test_an_administration_that_is_deleted_is_told_nothing_more(office, receiver):
    office.webhook(receiver.url)
    with transaction(office.engine) as connection:
        connection.execute(sa.text("UPDATE tenant SET status = 'deleted' WHERE id = 'dinum'"))
    office.event()
    office.event("notice.published", tenant=None)
    assert office.deliver().sent == 0
    assert not receiver.calls

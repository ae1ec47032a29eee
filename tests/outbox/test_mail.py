"""Mails: their text, their addresses, the server."""

import re
import smtplib
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from metering.database import transaction
from metering.errors import Unprocessable
from metering.outbox.mail import SmtpServer
from metering.outbox.secrets import MasterKey
from metering.outbox.wording import CODE_SUBJECTS, MAIL_FIELDS, day, instant, limit, render
from metering.rules.limits import KINDS, METERS, SCOPES, WINDOWS
from metering.tables import account, person
from tests.outbox.conftest import OPERATOR, STAFF, MailServer, free_port

RULE = {"scope": "user", "selector": "model:albert-large", "meter": "total_tokens", "window": "minute"}
MARKED = {
    "request": "REQUEST", "reason": "REASON", "tenant_name": "TENANTNAME", "tenant": "TENANT", "name": "NAME",
    "prefix": "PREFIX", "successor": "SUCCESSOR", "version": "VERSION", "title_fr": "TITLE", "title_en": "TITLE",
    "text_fr": "TEXT", "text_en": "TEXT", "subject": "SUBJECT", "code": "CODE", "link": "LINK", "period": "PERIOD",
    "places": "PLACES", "title": "TITLE", "month": "MONTH", "obstacles": "OBSTACLES", "documents": "DOCUMENTS",
    "file": "FILE", "rows": "ROWS", "export": "EXPORT",
    "public_url": "https://jauge.example",
}  # fmt: skip
CHOSEN = {
    "kind": "model", "document": "terms", "state": "approved", "rule": RULE, "value": 20_000, "days": 30,
    "threshold": 80, "used": 16_000, "mode": "hard", "drifts": 3,
    "meter": "cost_neur", "envelope": 10**12, "consumed": 5 * 10**11, "overage": "block",
}  # fmt: skip
INSTANTS = ("expires_at", "ends_at", "starts_at", "effective_at", "enforced_at", "retires_at", "code_expires_at")
DAYS = ("runs_out_on", "earliest", "latest", "ends_on")
OPTIONAL = {"reason", "ends_at", "subject", "successor"}


def values_for(subject: str) -> dict[str, object]:
    values = MARKED | CHOSEN | {name: f"20{number}6-10-05T08:00:00Z" for number, name in enumerate(INSTANTS, start=2)}
    values |= {name: f"2026-10-{number}" for number, name in enumerate(DAYS, start=11)}
    if subject == "access_to_validate":
        values["kind"] = "individual"
    added = {"public_url"} | ({"code", "link", "code_expires_at"} if subject in CODE_SUBJECTS else set())
    return {name: values[name] for name in {*MAIL_FIELDS[subject], *added}}


@pytest.mark.parametrize("language", ["fr", "en"])
@pytest.mark.parametrize("subject", MAIL_FIELDS)
def test_every_mail_says_all_that_it_is_given(subject, language):
    values = values_for(subject)
    title, text = render(subject, language, values)
    for name, value in values.items():
        if name in MARKED and not name.endswith("_fr" if language == "en" else "_en"):
            assert value in title + text, name
        if name in INSTANTS:
            assert instant(value, language) in text, name
        if name in DAYS:
            assert day(value, language) in text, name
    assert not re.search(r"[{}]|None", title + text)
    assert text.startswith("Bonjour,\n\n" if language == "fr" else "Hello,\n\n")
    assert "\n\n\n" not in text
    assert "\n" not in title


@pytest.mark.parametrize("language", ["fr", "en"])
@pytest.mark.parametrize("subject", [name for name, fields in MAIL_FIELDS.items() if OPTIONAL & {*fields}])
def test_what_is_unknown_is_left_out_with_its_label(subject, language):
    values = values_for(subject)
    whole = render(subject, language, values)[1]
    text = render(subject, language, values | {name: None for name in OPTIONAL if name in values})[1]
    assert "None" not in text
    assert "\n\n\n" not in text
    assert len(text.splitlines()) < len(whole.splitlines())


@pytest.mark.parametrize("subject", [name for name in MAIL_FIELDS if name not in {"notice_published"}])
def test_the_two_languages_say_it_differently(subject):
    assert render(subject, "fr", values_for(subject)) != render(subject, "en", values_for(subject))


def test_instants_are_in_the_time_of_the_books_and_say_so():
    assert instant("2026-10-25T00:30:00Z", "fr") == "25 octobre 2026 à 02:30 (Europe/Paris, UTC+02:00)"
    assert instant("2026-10-25T01:30:00Z", "en") == "25 October 2026 at 02:30 (Europe/Paris, UTC+01:00)"


def test_limits_are_said_in_units_that_people_read():
    assert limit(RULE, 20_000, "fr") == "20\u202f000 jetons par minute, par agent (modèle\u00a0: albert-large)"
    each = RULE | {"selector": "category:*", "meter": "cost_neur", "window": "month", "scope": "tenant"}
    assert limit(each, 12_500_000_000, "en") == "12.5 euros a month, for the administration (each category)"
    assert limit(each, 1_000 * 10**9, "fr").startswith("1\u202f000 euros par mois")
    assert limit(RULE | {"selector": "*"}, None, "en") == "unlimited: tokens a minute, per user"


def test_every_limit_can_be_said():
    for language in ("fr", "en"):
        rules = [
            {"scope": scope, "selector": f"{kind}:x", "meter": meter, "window": window}
            for scope in SCOPES
            for kind in KINDS
            for meter in METERS
            for window in WINDOWS
        ]
        assert len({limit(rule, 5, language) for rule in rules}) > len(rules) / 2


def test_a_mail_reaches_the_person_in_their_language(office, mail_server):
    office.mail(recipient="account:u-2")
    assert office.deliver().sent == 1
    (mail,) = mail_server.mails
    assert mail_server.recipients == ["agent2@dinum.example"]
    assert mail["To"] == "agent2@dinum.example"
    assert mail["From"] == "Jauge <jauge@plateforme.example>"
    assert mail["Subject"] == "Your account is suspended"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@plateforme.example>")
    assert "Reason: Essai" in mail.get_content()


def test_accents_survive_the_way(office, mail_server):
    office.mail(payload={"reason": "Déménagement – œuvre à l’été"})
    office.deliver()
    assert "Motif : Déménagement – œuvre à l’été" in mail_server.mails[0].get_content()
    assert mail_server.mails[0]["Subject"] == "Votre compte est suspendu"


def test_the_operator_is_told_or_nobody(office, mail_server):
    office.mail("one", recipient="operators", subject="raise_received", payload={"request": "q-1", "tenant": "dinum"})
    office.deliver()
    assert mail_server.recipients == [OPERATOR]
    office.mail("two", recipient="operators", subject="raise_received", payload={"request": "q-2", "tenant": "dinum"})
    assert office.deliver(operator_mail=None).dropped == 1
    assert office.messages()[-1].last_error == "address_erased"


def test_managers_of_one_administration_are_told_each(office, mail_server):
    with transaction(office.engine, actor=STAFF) as connection:
        connection.execute(account.insert().values(id="u-9", tenant="dinum", role="manager", status="suspended"))
    office.mail(recipient="managers:dinum", subject="key_revoked", payload={"name": "Clé", "prefix": "jauge_ab"})
    counts = office.deliver()
    assert (counts.fanned_out, counts.sent) == (1, 1)
    assert mail_server.recipients == ["agent1@dinum.example"]


@pytest.mark.parametrize(("recipient", "told"), [("accounts", [1, 2, 3]), ("accounts:dinum", [1, 2])])
def test_all_accounts_are_told_once_each(office, mail_server, recipient, told):
    office.mail(recipient=recipient)
    office.mail(recipient=recipient)
    office.deliver()
    office.deliver()
    numbers = sorted(int(re.search(r"\d", address).group()) for address in mail_server.recipients)
    assert numbers == told


def test_an_erased_person_is_not_told(office, mail_server):
    office.mail()
    with transaction(office.engine, actor=STAFF) as connection:
        connection.execute(person.delete().where(person.c.account == "u-1"))
    assert office.deliver().dropped == 1
    assert not mail_server.mails
    assert [(message.state, message.last_error) for message in office.messages()] == [("dropped", "address_erased")]


def test_the_code_is_in_the_mail_and_nowhere_else(office, mail_server):
    code = office.access()
    office.mail(recipient="access_request:r-1", subject="access_approved", payload={"request": "r-1"})
    assert office.deliver().sent == 1
    text = mail_server.mails[0].get_content()
    assert {f"https://jauge.example/activation?code={code}", code} <= {*text.splitlines()}
    assert code not in office.everything()


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "activated"},
        {"code_expires_at": datetime.now(UTC) - timedelta(hours=1)},
        {"code_digest": b"made with another master key"},
        {"code_digest": None},
    ],
    ids=["used", "expired", "another key", "none"],
)
def test_a_code_that_would_not_work_is_not_sent(office, mail_server, changes):
    office.access(**changes)
    office.mail(recipient="access_request:r-1", subject="invitation", payload={"request": "r-1", "tenant_name": "D"})
    assert office.deliver().dropped == 1
    assert office.messages()[0].last_error == "code_unusable"
    assert not mail_server.mails


def test_without_a_master_key_mails_with_codes_wait_and_the_others_leave(office, mail_server):
    office.access()
    office.mail(recipient="access_request:r-1", subject="access_approved", payload={"request": "r-1"})
    office.mail()
    office.keys = MasterKey(None)
    counts = office.deliver()
    assert (counts.sent, counts.retried) == (1, 1)
    assert office.messages()[0].last_error == "no_secret_key"


def test_the_farewell_is_the_last_use_of_an_address(office, mail_server):
    with transaction(office.engine, actor=STAFF) as connection:
        connection.execute(account.update().where(account.c.id == "u-1").values(status="deleted"))
    office.mail(subject="account_deleted", payload={})
    mail_server.replies = ["451 Later"]
    office.deliver()
    assert people(office) == ["u-1", "u-2", "u-3"]
    office.deliver(datetime.now(UTC) + timedelta(minutes=1))
    assert mail_server.recipients == ["agent1@dinum.example"]
    assert people(office) == ["u-2", "u-3"]


def test_a_farewell_erases_nobody_who_is_still_there(office, mail_server):
    office.mail(subject="account_deleted", payload={})
    office.deliver()
    assert people(office) == ["u-1", "u-2", "u-3"]


def people(office) -> list[str]:
    with transaction(office.engine) as connection:
        return list(connection.scalars(sa.select(person.c.account).order_by(person.c.account)))


def test_an_address_that_is_more_than_an_address_gets_nothing(office, mail_server):
    addresses = [
        "a@b.example\nBcc: other@b.example", "a@b.example\r\nSubject: x", "a@b.example, other@b.example",
        "Name <a@b.example>", '"a b"@b.example', "a\u2028@b.example", "a@b.example ", "a@b.example\n", "no address",
        "é@b.example", "a" * 300 + "@b.example",
    ]  # fmt: skip
    for number, address in enumerate(addresses):
        with transaction(office.engine, actor=STAFF) as connection:
            connection.execute(person.update().where(person.c.account == "u-1").values(email=address))
        office.mail(f"k{number}")
        assert office.deliver().dropped == 1, address
        assert office.messages()[-1].last_error == "address_unusable"
    assert not mail_server.mails


def test_a_value_with_line_ends_adds_no_header(office, mail_server):
    sneaky = "Clé\r\nBcc: other@b.example\r\n\r\nTexte\u2028X-Other: 1"
    office.mail(subject="key_revoked", payload={"name": sneaky, "prefix": "jauge_ab"})
    assert office.deliver().sent == 1
    (mail,) = mail_server.mails
    assert mail["Bcc"] is None
    assert mail["X-Other"] is None
    assert mail_server.recipients == ["agent1@dinum.example"]
    assert mail["Subject"] == "Une clé d’API est révoquée : Clé Bcc: other@b.example Texte X-Other: 1"


def test_a_refused_mailbox_is_given_up_at_once_and_a_busy_one_is_not(office, mail_server):
    mail_server.replies = ["550 No such user", "451 Greylisted"]
    office.mail("one")
    office.mail("two", recipient="account:u-2")
    office.deliver()
    assert [(message.state, message.last_error) for message in office.messages()] == [
        ("failed", "smtp_refused"),
        ("waiting", "smtp_refused"),
    ]
    assert "No such user" not in office.everything()


def test_without_a_server_mails_are_files_that_only_their_owner_reads(office, tmp_path: Path):
    office.mail()
    assert office.deliver(smtp_url=None, data=tmp_path).sent == 1
    (file,) = (tmp_path / "mail").iterdir()
    assert b"To: agent1@dinum.example" in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "url", ["http://host", "smtp://", "smtp://host:port", "smtp://user@host", "smtp://host/path", "host:25"]
)
def test_an_address_of_a_server_that_cant_be_read_is_refused_without_being_shown(url):
    with pytest.raises(Unprocessable) as refused:
        SmtpServer.of(url)
    assert refused.value.code == "invalid_smtp_url"


def test_addresses_of_servers_are_read_as_written():
    assert SmtpServer.of("smtp://us%40er:p%2Fw@mail.example") == SmtpServer("mail.example", 587, False, "us@er", "p/w")
    assert SmtpServer.of("smtps://mail.example") == SmtpServer("mail.example", 465, True)
    assert "p%2Fw" not in repr(SmtpServer.of("smtp://user:p%2Fw@mail.example"))


def a_mail():
    mail = smtplib.email.message.EmailMessage()
    mail["From"], mail["To"], mail["Message-ID"] = "a@b.example", "c@d.example", "<1@b.example>"
    mail.set_content("Bonjour")
    return mail


def test_a_password_goes_over_tls_only(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    received, logins = MailServer(), []

    def login(server, session, envelope, mechanism, data):
        logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"pass", handled=False)

    settings = {"authenticator": login, "auth_require_tls": False}
    plain = Controller(received, hostname="127.0.0.1", port=free_port(), **settings)
    secure = Controller(received, hostname="127.0.0.1", port=free_port(), tls_context=certificate.context(), **settings)
    plain.start()
    secure.start()
    try:
        refused = SmtpServer("localhost", plain.port, False, "user", "pass").send(a_mail())
        assert (refused.code, logins, received.mails) == ("smtp_unsupported", [], [])
        assert SmtpServer("localhost", secure.port, False, "user", "wrong").send(a_mail()).code == "smtp_535"
        assert SmtpServer("127.0.0.1", secure.port, False, "user", "pass").send(a_mail()).code == "tls_failed"
        assert SmtpServer("localhost", secure.port, False, "user", "pass").send(a_mail()).state == "sent"
        assert set(logins) == {(b"user", b"wrong"), (b"user", b"pass")}
        assert len(received.mails) == 1
    finally:
        plain.stop()
        secure.stop()

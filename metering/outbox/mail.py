"""Mails: whom they go to, what they are made of, and the server or folder that takes them."""

import os
import re
import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import partial
from hmac import compare_digest
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlencode, urlsplit

import sqlalchemy as sa

from metering.errors import Unprocessable
from metering.outbox.messages import SENT, Message, Outcome, Sending
from metering.outbox.secrets import MasterKey, code_digest
from metering.outbox.wording import CODE_SUBJECTS, Language, render
from metering.tables import access_request, account, person

SMTP_S_MAX = 10
"""For each step of the conversation with the server."""
PORTS = {"smtp": 587, "smtps": 465}
PERMANENT = 500
"""SMTP replies from here on say that trying again is of no use."""

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
"""What is put into a header: printable ASCII without spaces, quotes and line ends."""


class Transport(Protocol):
    """Takes mails."""

    def send(self, mail: EmailMessage) -> Outcome:
        """Hand a mail over."""


@dataclass(frozen=True, slots=True)
class Addressee:
    """Where a mail goes, and the language it is in."""

    address: str = field(repr=False)
    language: Language


class MailCourier:
    """Writes mails and hands them to a transport.

    sender: `Name <address>`. operator: where mails to `operators` go. public_url: where the pages are.
    """

    def __init__(
        self, keys: MasterKey, transport: Transport, *, sender: str, public_url: str, operator: Addressee | None
    ) -> None:
        self._keys = keys
        self._transport = transport
        self._sender = sender
        self._domain = parseaddr(sender)[1].rpartition("@")[2]
        self._public_url = public_url.rstrip("/")
        self._operator = operator

    def prepare(self, connection: sa.Connection, message: Message, now: datetime) -> Sending | Outcome:
        """Look the address up and write the mail. Raises: Unavailable if it holds a code and there is no master key."""
        addressee = self._addressee(connection, message)
        if addressee is None:
            return Outcome("dropped", "address_erased")
        if len(addressee.address) > 254 or not _ADDRESS.fullmatch(addressee.address):
            return Outcome("dropped", "address_unusable")
        values = {**message.payload, "public_url": self._public_url}
        if message.subject in CODE_SUBJECTS:
            code_values = self._code_values(connection, str(message.payload["request"]), now)
            if code_values is None:
                return Outcome("dropped", "code_unusable")
            values |= code_values
        return partial(self._transport.send, self._write(message, addressee, values, now))

    def conclude(self, connection: sa.Connection, message: Message, outcome: Outcome, now: datetime) -> None:  # noqa: ARG002
        """Erase the person of a deleted account: the mail that says so is the last use of the address."""
        if message.subject == "account_deleted":
            deleted = sa.select(account.c.id).where(account.c.id == message.recipient_id, account.c.status == "deleted")
            connection.execute(person.delete().where(person.c.account.in_(deleted)))

    def _addressee(self, connection: sa.Connection, message: Message) -> Addressee | None:
        if message.recipient == "operators":
            return self._operator
        of_account = sa.select(person.c.email, person.c.language).where(person.c.account == message.recipient_id)
        of_request = sa.select(access_request.c.email, access_request.c.language).where(
            access_request.c.id == message.recipient_id
        )
        row = connection.execute(of_account if message.recipient.startswith("account:") else of_request).first()
        return None if row is None or row.email is None else Addressee(row.email, row.language)

    def _code_values(self, connection: sa.Connection, request_id: str, now: datetime) -> dict[str, Any] | None:
        """The code of an approved request; None once it is used, expired, or wouldn't be accepted any more."""
        row = connection.execute(sa.select(access_request).where(access_request.c.id == request_id)).first()
        if row is None or row.state != "approved" or row.code_expires_at is None or row.code_expires_at <= now:
            return None
        code = self._keys.activation_code(request_id, row.code_expires_at)
        if not compare_digest(code_digest(code), bytes(row.code_digest or b"")):
            return None
        link = f"{self._public_url}/activation?{urlencode({'code': code})}"
        return {"code": code, "link": link, "code_expires_at": row.code_expires_at}

    def _write(
        self, message: Message, addressee: Addressee, values: Mapping[str, Any], now: datetime
    ) -> EmailMessage:  # fmt: skip
        title, text = render(message.subject, addressee.language, values)
        mail = EmailMessage(policy=SMTP)
        mail["From"] = self._sender
        mail["To"] = addressee.address
        mail["Subject"] = title
        mail["Date"] = format_datetime(now)
        mail["Message-ID"] = f"<{message.stable_id}@{self._domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["Content-Language"] = addressee.language
        mail.set_content(text, cte="quoted-printable")
        return mail


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A server that takes mails. tls: from the first byte; otherwise STARTTLS, required where there is a password."""

    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> "SmtpServer":
        """From `smtp://[USER:PASSWORD@]HOST[:PORT]` or `smtps://…`. Raises: Unprocessable."""
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS[parts.scheme]
            if not parts.hostname or parts.path.strip("/") or (parts.username is None) != (parts.password is None):
                raise ValueError
        except (ValueError, KeyError):
            raise Unprocessable(
                "invalid_smtp_url", "The mail server's address can't be read.", field="JAUGE_SMTP_URL",
                expected="smtp://USER:PASSWORD@HOST:PORT or smtps://…",
            ) from None  # fmt: skip
        user, password = (part and unquote(part) for part in (parts.username, parts.password))
        return cls(parts.hostname, port, parts.scheme == "smtps", user, password)

    def send(self, mail: EmailMessage) -> Outcome:
        """Hand a mail to the server."""
        try:
            self._converse(mail)
        except OSError as error:  # the base of what smtplib and ssl raise, too
            return _outcome_of(error)
        return SENT

    def _converse(self, mail: EmailMessage) -> None:
        with self._connect() as server:
            if self.user is not None and self.password is not None:
                server.login(self.user, self.password)
            server.send_message(mail)

    def _connect(self) -> smtplib.SMTP:
        """A connection over TLS, except with a server that doesn't offer it and needs no password."""
        if self.tls:
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, self.port, timeout=SMTP_S_MAX, context=context)
        server = smtplib.SMTP(self.host, self.port, timeout=SMTP_S_MAX)
        try:
            server.ehlo()
            if self.password is not None or server.has_extn("starttls"):
                server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
        return server


def _outcome_of(error: OSError) -> Outcome:
    """What an error of the conversation means. Only a refused recipient is for good: the rest may be mended."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        for_good = any(reply >= PERMANENT for reply, _text in error.recipients.values())
        return Outcome("failed" if for_good else "waiting", "smtp_refused")
    if isinstance(error, smtplib.SMTPResponseException):
        return Outcome("waiting", f"smtp_{error.smtp_code}")
    codes = {
        smtplib.SMTPNotSupportedError: "smtp_unsupported",
        ssl.SSLError: "tls_failed",
        TimeoutError: "timeout",
    }
    return Outcome("waiting", next((code for kind, code in codes.items() if isinstance(error, kind)), "connect_failed"))


class Folder:
    """Keeps mails as files, where no server is configured: for development."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, mail: EmailMessage) -> Outcome:
        """Write a mail under its Message-ID; a repeat replaces it."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = mail["Message-ID"].strip("<>").partition("@")[0]
        descriptor = os.open(self._path / f"{name}.eml", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(mail.as_bytes())
        return SENT

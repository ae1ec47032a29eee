"""Two administrations with people, a mail server and a receiver of webhooks on the loopback."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller
from standardwebhooks import Webhook as Verifier

from metering.catalog.tenants import add_tenant
from metering.database import Actor, engine_for, transaction
from metering.outbox.delivery import DeliveryCounts, couriers_for, deliver_due
from metering.outbox.messages import Channel, Courier, Message
from metering.outbox.queue import enqueue_event, enqueue_mail, list_messages
from metering.outbox.secrets import MasterKey, code_digest
from metering.outbox.webhooks import add_webhook, check_url
from metering.settings import Settings
from metering.tables import access_request, account, outbox, person

STAFF = Actor("operator:test")
SECRET = "a master key of the tests, long enough"
OPERATOR = "operateur@plateforme.example"


def soon() -> datetime:
    """A moment after everything that was recorded so far is due."""
    return datetime.now(UTC) + timedelta(seconds=1)


@dataclass
class MailServer:
    """What a mail server was given; `replies` are given to the next recipients, then 250."""

    url: str = ""
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        if self.replies:
            return self.replies.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        self.recipients.extend(envelope.rcpt_tos)
        return "250 OK"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    controller = Controller(server, hostname="127.0.0.1", port=free_port())
    controller.start()
    server.url = f"smtp://127.0.0.1:{controller.port}"
    yield server
    controller.stop()


@dataclass
class Receiver:
    """What a receiver of webhooks was sent; `statuses` are answered first, then 204."""

    url: str
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def verified(self, secret: str) -> list[Any]:
        """Bodies of all calls, each with a good signature."""
        return [Verifier(secret).verify(body, headers) for headers, body in self.calls]


@dataclass(frozen=True)
class Certificate:
    """A certificate for `hooks.example` and `localhost`, signed by itself, with its key."""

    file: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example,DNS:localhost",
            "-keyout", made.key, "-out", made.file,
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return made


def serve_receiver(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.calls.append((dict(self.headers.items()), body))
            status = receiver.statuses.pop(0) if receiver.statuses else 204
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{receiver.url}/elsewhere")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def server_bind(self) -> None:
            """Without asking for the machine's full name, which takes a while."""
            TCPServer.server_bind(self)
            self.server_name, self.server_port = "localhost", self.server_address[1]

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away is part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield receiver
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    yield from serve_receiver()


@pytest.fixture
def tls_receiver(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver over TLS, whose certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    yield from serve_receiver(certificate.context())


@dataclass
class Office:
    """A database with people, and what is needed to write to them."""

    engine: sa.Engine
    settings: Settings
    keys: MasterKey
    made: dict[str, dict[Channel, Courier]] = field(default_factory=dict)

    def couriers(self, **changes: Any) -> dict[Channel, Courier]:
        """Couriers for changed settings; made once, because reading what certificates to trust takes a while."""
        name = f"{id(self.keys)} {changes}"
        if name not in self.made:
            self.made[name] = couriers_for(self.settings.model_copy(update=changes), self.keys)
        return self.made[name]

    def mail(self, key: str = "one", **changes: Any) -> bool:
        values = {"recipient": "account:u-1", "subject": "account_suspended", "payload": {"reason": "Essai"}} | changes
        with transaction(self.engine, actor=STAFF) as connection:
            return enqueue_mail(connection, key, **values)

    def event(self, event_type: str = "key.created", tenant: str | None = "dinum", key: str = "one") -> bool:
        with transaction(self.engine, actor=STAFF) as connection:
            return enqueue_event(connection, event_type, tenant=tenant, key=key, payload={"key": "k-1"})

    def webhook(self, url: str, tenant: str | None = "dinum", events: tuple[str, ...] = ()) -> tuple[str, str]:
        """Register a webhook; its id and its secret."""
        checked = check_url(url, private_allowed=True)
        with transaction(self.engine, actor=STAFF) as connection:
            added, secret = add_webhook(connection, self.keys, tenant=tenant, url=checked, events=events)
        return added.id, secret

    def deliver(self, now: datetime | None = None, **changes: Any) -> DeliveryCounts:
        return deliver_due(self.engine, self.couriers(**changes), now or soon(), limit=1_000)

    def messages(self) -> list[Message]:
        with transaction(self.engine) as connection:
            return list_messages(connection, limit=1_000)

    def access(self, request_id: str = "r-1", **changes: Any) -> str:
        """An approved request for access; the code that activates it."""
        expires_at = datetime.now(UTC) + timedelta(days=7)
        code = self.keys.activation_code(request_id, expires_at)
        values = {
            "id": request_id, "kind": "individual", "organisation": "DINUM", "name": "Ada Martin", "language": "fr",
            "email": "ada.martin@dinum.example", "motive": "Essai", "state": "approved", "code_expires_at": expires_at,
            "code_digest": code_digest(code),
        } | changes  # fmt: skip
        with transaction(self.engine, actor=STAFF) as connection:
            connection.execute(access_request.insert().values(values))
        return code

    def everything(self) -> str:
        """The outbox, as text."""
        with transaction(self.engine) as connection:
            return " ".join(connection.scalars(sa.text(f"SELECT row_to_json({outbox.name})::text FROM {outbox.name}")))


@pytest.fixture
def office(settings: Settings, mail_server: MailServer) -> Iterator[Office]:
    engine = engine_for(settings.database_url.get_secret_value())
    for tenant in ("dinum", "sante"):
        add_tenant(engine, tenant)
    people = [("u-1", "dinum", "manager", "fr"), ("u-2", "dinum", "member", "en"), ("u-3", "sante", "manager", "fr")]
    with transaction(engine, actor=STAFF) as connection:
        for number, (account_id, tenant, role, language) in enumerate(people, start=1):
            connection.execute(account.insert().values(id=account_id, tenant=tenant, role=role))
            email, name = f"agent{number}@{tenant}.example", f"Nom{number} Secret"
            connection.execute(
                person.insert().values(account=account_id, tenant=tenant, name=name, email=email, language=language)
            )
    changes = {
        "smtp_url": type(settings.database_url)(mail_server.url), "webhook_private": True, "operator_mail": OPERATOR,
        "public_url": "https://jauge.example", "mail_from": "Jauge <jauge@plateforme.example>",
    }  # fmt: skip
    yield Office(engine, settings.model_copy(update=changes), MasterKey(SECRET.encode()))
    engine.dispose()

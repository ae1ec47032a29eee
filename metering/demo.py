"""`jauge demo`: the whole service with a simulated gateway, on one machine."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Literal

import rich_click as click
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on

from metering.accounts import die_with
from metering.catalog.apply import Change, Wanted, apply, read_file
from metering.catalog.changes import hold_catalog
from metering.catalog.documents import Document, Notice, Retirement
from metering.catalog.issued_keys import SECRET_PREFIX
from metering.catalog.kinds import KINDS, Kind, load
from metering.catalog.tokens import add_token, revoke_token
from metering.console.demo_people import check_demo_host
from metering.database import Actor, transaction
from metering.demo_closing import close_month_before
from metering.errors import Unavailable
from metering.logs import configure_logs
from metering.outbox.secrets import key_of_folder
from metering.progress import Unit, progress
from metering.services import Services, open_services
from metering.settings import Settings, get_settings
from metering.simulator import (
    APPLICATIONS,
    NODES_SOURCE,
    Application,
    Counter,
    HttpDoor,
    Nodes,
    QuotaDesk,
    SimulatedGateway,
    StreamDoor,
)
from metering.simulator.population import RETIRING_MODEL
from metering.tables import account, api_key, energy_reading, person

LIVE_EVENTS_PER_S = 0.5
"""Enough to see the page move; a day of it stays in proportion to the days of the history."""
SHOWN_TENANT = "interieur"
"""Administration whose manager and agent the console may be seen as: it has a convention, and invoices."""

PersonKind = Literal["manager", "member"]

PEOPLE: Mapping[PersonKind, Mapping[str, str]] = {
    "manager": {"name": "Camille Durand", "email": "camille.durand@interieur.example"},
    "member": {"name": "Dominique Petit", "email": "dominique.petit@interieur.example"},
}
"""Who they are; made up."""
KEY_NAME = "Réponse au courrier"
KEY_LIVES: Mapping[PersonKind, timedelta] = {"manager": timedelta(days=20), "member": timedelta(days=200)}

START_S_MAX = 120
STOP_S_MAX = 25
LOG_TAIL_LINES = 20


def run_demo(file: Path | None, port: int | None) -> None:
    """Start the stores, the server, the worker and a gateway that plays a file, or 30 days and then live traffic.

    Returns on Ctrl-C. Raises: Unavailable if a part doesn't start or ends early; Unprocessable on a host that others
    reach: whoever opens the console may be anybody of the demo.
    """
    settings = get_settings()
    check_demo_host(settings.model_copy(update={"demo_accounts": demo_accounts()}), settings.host)
    configure_logs("text", "warning")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with open_services(settings) as services, ExitStack() as stack:
        apply_catalogue(services.engine, datetime.now(UTC))
        add_people(services.engine, datetime.now(UTC))
        chosen_port = _free_port(settings.host, settings.port if port is None else port)
        url = f"http://{settings.host}:{chosen_port}"
        server = stack.enter_context(_child(services, url, "serve", "--port", str(chosen_port)))
        worker = stack.enter_context(_child(services, url, "worker"))
        _await_answer(url, server, stop)
        click.echo(
            f"\n  Jauge: {url}  (the bar on top shows it as an operator, a manager or an agent)\n"
            f"  API:   {url}/docs\n  Logs:  {settings.data.resolve()}\n\n  Ctrl-C stops everything.\n"
        )
        token = stack.enter_context(_gateway_token(services))
        threading.Thread(target=_watch, args=((server, worker), stop), daemon=True).start()
        _play(services, url, token, file, stop)
        for name, child in (("serve", server), ("worker", worker)):
            _raise_if_ended(name, child, settings)


def apply_catalogue(engine: sa.Engine, now: datetime) -> list[Change]:
    """Write the demo's catalogue, and return what changed: nothing, when it is there already.

    What has dates near the present is written by the first start only, so that its dates stay; so is what can't be
    changed, which the data of an older demo may have in another form.
    """
    wanted = read_file((files("metering.simulator") / "catalogue.yaml").read_bytes())
    changing = [(kind, document) for kind, document in wanted.documents if not kind.is_final]
    once = [(kind, document) for kind, document in wanted.documents if kind.is_final] + _dated_documents(now)
    with transaction(engine, actor=Actor("demo")) as connection:
        new = [(kind, document) for kind, document in once if kind.key_of(document) not in load(connection, kind)]
        order = list(KINDS)
        return apply(connection, Wanted(sorted([*changing, *new], key=lambda item: order.index(item[0].name))))


def demo_accounts() -> dict[PersonKind, str]:
    """Accounts of the console's switch, by kind: those who call most through an application of one administration."""
    manager, member = (caller.user for caller in _shown_application().callers[:2])
    assert manager is not None
    assert member is not None
    return {"manager": manager, "member": member}


def _shown_application() -> Application:
    return next(one for one in APPLICATIONS if one.tenant == SHOWN_TENANT and not one.pipeline)


def add_people(engine: sa.Engine, now: datetime) -> None:
    """Give the agents of the switch their accounts, and the keys they call with; what is there stays as it is."""
    with transaction(engine, actor=Actor("demo")) as connection:
        hold_catalog(connection)
        for kind, account_id in demo_accounts().items():
            known = connection.scalar(sa.select(account.c.id).where(account.c.id == account_id))
            if known is None:
                own = {"tenant": SHOWN_TENANT, "account": account_id, "language": "fr"}
                connection.execute(account.insert().values(id=account_id, tenant=SHOWN_TENANT, role=kind))
                connection.execute(person.insert().values(**own, **PEOPLE[kind]))
                connection.execute(api_key.insert().values(**_key_of(kind, account_id, now)))


def _key_of(kind: PersonKind, account_id: str, now: datetime) -> dict[str, object]:
    """The key that the simulated gateway names; nobody has its secret. The manager's is about to expire."""
    application = _shown_application()
    caller = next(one for one in application.callers if one.user == account_id)
    return {
        "id": caller.api_key, "tenant": SHOWN_TENANT, "account": account_id, "project": application.project,
        "name": KEY_NAME, "prefix": SECRET_PREFIX, "digest": secrets.token_bytes(32),
        "expires_at": now + KEY_LIVES[kind],
    }  # fmt: skip


def _dated_documents(now: datetime) -> list[tuple[Kind, Document]]:
    """A model that retires in three weeks, and a maintenance in two days."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    retirement = Retirement(
        kind="model",
        subject=RETIRING_MODEL,
        successor="albert-small",
        announced_at=midnight - timedelta(days=40),
        retires_at=midnight + timedelta(days=21),
    )
    notice = Notice(
        id="maintenance-demo",
        kind="maintenance",
        title_fr="Maintenance du grand modèle",
        title_en="Maintenance of the large model",
        text_fr="Une réplique sur trois d’albert-large est mise à jour : les réponses peuvent être plus lentes.",
        text_en="One replica in three of albert-large is updated: answers may be slower.",
        starts_at=midnight + timedelta(days=2, hours=20),
        ends_at=midnight + timedelta(days=2, hours=22),
    )
    return [(KINDS["retirements"], retirement), (KINDS["notices"], notice)]


def _play(services: Services, url: str, token: str, file: Path | None, stop: threading.Event) -> None:
    doors = (HttpDoor(url, token), StreamDoor(services.stores.redis_url, services.settings.stream_name))
    nodes = Nodes(last_counters(services.engine))
    with ExitStack() as stack:
        gateway = SimulatedGateway(doors, watch=nodes.watch)
        stack.callback(gateway.close)
        if file is not None:
            with _bar("bytes") as show:
                gateway.play_file(file, show, stop=stop)
        else:
            with _bar("events") as show:
                gateway.send_history(show, stop=stop)
            stack.enter_context(_agents(nodes, HttpDoor(url, token), stop))
            stack.enter_context(_closing(services, stop))
        tally = gateway.tally
        click.echo(
            f"  {tally.accepted + tally.streamed:,} events sent; the console shows them as they enter the ledger."
        )
        if file is None:
            desk = QuotaDesk(url, token)
            gateway.run_live(stop, rate_per_s=LIVE_EVENTS_PER_S, admit=desk.admit)
            desk.close()
        stop.wait()


def last_counters(engine: sa.Engine) -> dict[str, Counter]:
    """Where the counters of the simulated GPUs stood at the last reading, by UUID."""
    reading = energy_reading.c
    query = (
        sa.select(reading.gpu, reading.at, reading.energy_mj, reading.host_energy_mj)
        .where(reading.source == NODES_SOURCE)
        .ext(distinct_on(reading.node, reading.gpu))
        .order_by(reading.node, reading.gpu, reading.at.desc())
    )
    with transaction(engine) as connection:
        return {gpu: Counter(*counter) for gpu, *counter in connection.execute(query)}


@contextmanager
def _agents(nodes: Nodes, door: HttpDoor, stop: threading.Event) -> Iterator[None]:
    """Readings of the simulated GPUs, sent beside the gateway's events until the demo stops.

    By HTTP alone: what was answered is recorded, so a demo that starts again goes on from what the database has.
    """
    sender = SimulatedGateway((door,))
    thread = threading.Thread(target=sender.send_readings, args=(nodes, stop), name="agents")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sender.close()


@contextmanager
def _closing(services: Services, stop: threading.Event) -> Iterator[None]:
    """The month before, closed beside the gateway's events once it is complete, so that there are documents."""
    thread = threading.Thread(target=close_month_before, args=(services, stop), name="closing")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _bar(unit: Unit) -> Iterator[Callable[[int, int], None]]:
    """A progress bar in the form the gateway reports: done, and in all."""
    seen = 0
    with progress(unit, None) as advance:

        def show(done: int, total: int) -> None:
            nonlocal seen
            advance(done - seen, total)
            seen = done

        yield show


@contextmanager
def _gateway_token(services: Services) -> Iterator[str]:
    """A token for as long as the demo runs."""
    name = f"demo-{secrets.token_hex(4)}"
    token = add_token(services.engine, name, "gateway")
    try:
        yield token
    finally:
        revoke_token(services.engine, name)


@contextmanager
def _child(services: Services, url: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `jauge` command on the same stores, its output in a log of the data folder; stopped when the block ends."""
    settings, parent_pid = services.settings, os.getpid()
    environment = os.environ | {
        "JAUGE_DATABASE_URL": services.stores.database_url,
        "JAUGE_REDIS_URL": services.stores.redis_url,
        "JAUGE_READ_ACCESS": "open",
        "JAUGE_LOG_FORMAT": "text",
        "JAUGE_HOST": settings.host,
        "JAUGE_PUBLIC_URL": url,
        "JAUGE_DEMO_ACCOUNTS": json.dumps(demo_accounts()),
    }
    if settings.secret_key is None:  # to its children the embedded database is somebody else's
        environment["JAUGE_SECRET_KEY"] = key_of_folder(settings.data).decode()
    with _log_of(settings, command[0]).open("ab") as log:
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "metering", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches the demo alone, which stops its children in order
            preexec_fn=lambda: die_with(parent_pid, signal.SIGTERM),  # noqa: PLW1509
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _log_of(settings: Settings, command: str) -> Path:
    settings.data.mkdir(parents=True, exist_ok=True)
    return settings.data / f"demo-{command}.log"


def _await_answer(url: str, server: subprocess.Popen[bytes], stop: threading.Event) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline and not stop.is_set():
        _raise_if_ended("serve", server, get_settings())
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):  # noqa: S310 - our own address
                return
        except (urllib.error.URLError, OSError):
            stop.wait(0.1)
    if not stop.is_set():
        raise Unavailable(
            "demo_failed", f"The server does not answer at {url}; see {_log_of(get_settings(), 'serve')}."
        )


def _watch(children: tuple[subprocess.Popen[bytes], ...], stop: threading.Event) -> None:
    """Stop the demo when one of its children ends."""
    while all(child.poll() is None for child in children):
        if stop.wait(0.5):
            return
    stop.set()


def _raise_if_ended(name: str, child: subprocess.Popen[bytes], settings: Settings) -> None:
    if child.poll() is None:
        return
    tail = "\n".join(_log_of(settings, name).read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
    raise Unavailable("demo_failed", f"`jauge {name}` ended with code {child.returncode}. Its last lines:\n{tail}")


def _free_port(host: str, wanted: int) -> int:
    """The wanted port, or a free one if it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise Unavailable("no_port", f"No port is free on {host}.")

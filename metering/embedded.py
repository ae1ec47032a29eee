"""The embedded default: a PostgreSQL and a Valkey of our own, started from wheels, shared by every command.

Without JAUGE_DATABASE_URL and JAUGE_REDIS_URL a command wraps its work in `with running(data_dir) as servers`.
The first one starts a detached supervisor (`metering.supervisor`), the last one to leave lets it stop everything.

What decides, and why a SIGKILL cannot break it (the kernel releases a lock when its holder dies):
- `users.lock`: each user holds it shared; the supervisor stops when it gets it exclusively, and keeps it to its end,
  so that a command arriving meanwhile waits and then starts afresh.
- `supervisor.lock` ("the helm"): taken by whoever starts the servers and inherited by the supervisor it starts,
  so that there is never a moment without an owner, nor two owners.
- `status.json` is locked by the supervisor that wrote it: a file nobody locks is a leftover, whatever pid it names.
"""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_S_MAX = 30
STOP_S_MAX = 60  # a fast shutdown writes a checkpoint, which takes a while after a large import
KILL_S = 5  # what each harsher signal gets before the next one
POLL_S = 0.01

# From polite to final. PostgreSQL: fast, then immediate shutdown; Valkey saves on SIGTERM.
STOP_SIGNALS = {
    "postgres": (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
    "valkey": (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL),
}


class EmbeddedError(Exception):
    """The embedded servers cannot be used; the message says what failed, where the log is and what to do."""


@dataclass(frozen=True, slots=True)
class Servers:
    """A running instance: libpq and redis-py URLs over unix sockets, and the processes behind them."""

    database_url: str
    redis_url: str
    supervisor_pid: int
    postgres_pid: int
    valkey_pid: int
    data_dir: Path


class Layout:
    """Where each thing lies in the data folder (an absolute path without links)."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.postgres = data / "postgres"
        self.valkey = data / "valkey"
        self.run = data / "run"  # the sockets: a 0700 folder, or a link to one when this path is too long for a socket
        self.users = data / "users.lock"  # locked shared by each user
        self.helm = data / "supervisor.lock"  # locked by the supervisor, or by the command about to start one
        self.status = data / "status.json"  # locked by its writer, there only while both servers answer
        self.keep = data / "keep"  # marker of `start`: keep running without users
        self.stop = data / "stop"  # marker of `stop`: a file and not a signal, because no pid can be mistaken then

    def log(self, name: str) -> Path:
        """The log of `postgres`, `valkey` or `supervisor`."""
        return self.data / f"{name}.log"


@contextmanager
def running(data_dir: Path, start_s_max: int = START_S_MAX) -> Iterator[Servers]:
    """Use the servers of a data folder, starting them when none run.

    When the last user leaves, however it ends, they are stopped within a second, unless `start` asked to keep them.
    Raises EmbeddedError when they do not answer within `start_s_max` seconds.
    """
    at = _open_layout(data_dir)
    limit = time.monotonic() + start_s_max
    user = open_lock(at.users)
    try:
        while not try_lock(user, fcntl.LOCK_SH):  # a supervisor that is leaving holds it to its end
            _wait(at, limit)
        yield _attach(at, limit)
    finally:
        os.close(user)
        with suppress(EmbeddedError):  # leaving must not hide the reason we leave for
            _stop_orphans(at, unused_only=True)


def start(data_dir: Path) -> Servers:
    """Start the servers if need be, and keep them running until `stop`. Raises EmbeddedError as `running` does."""
    with running(data_dir) as servers:
        try:
            Layout(servers.data_dir).keep.touch()  # before we leave, or the supervisor could stop in between
        except OSError as error:
            raise _unusable(servers.data_dir, error) from error
        return servers


def stop(data_dir: Path) -> bool:
    """Stop the servers, even while commands use them; return whether anything ran.

    Raises EmbeddedError when they do not end in time.
    """
    at = _existing_layout(data_dir)
    if at is None:
        return False
    limit = time.monotonic() + STOP_S_MAX + 3 * KILL_S
    ran = False
    try:
        while (helm := _take_helm(at)) is None:
            ran = True
            at.stop.touch()  # each time round: a command that was just starting has removed it
            _wait(at, limit, "stop")
        try:
            at.stop.unlink(missing_ok=True)
            return stop_servers(at) or ran
        finally:
            os.close(helm)
    except OSError as error:
        raise _unusable(at.data, error) from error


def status(data_dir: Path) -> Servers | None:
    """Return the running instance, or None. Raises EmbeddedError when the data folder cannot be used.

    Servers whose supervisor was killed count as not running: nothing watches over them, so they are stopped here,
    unless a command still uses them.
    """
    at = _existing_layout(data_dir)
    if at is None:
        return None
    limit = time.monotonic() + 1  # a lost status file is written again within a second
    while (servers := read_status(at)) is None:
        if (helm := _take_helm(at)) is not None:
            os.close(helm)
            _stop_orphans(at, unused_only=True)
            return None
        if time.monotonic() > limit:
            return None  # starting or stopping
        time.sleep(POLL_S)
    return servers


def open_lock(path: Path) -> int:
    """Open a lock file, to be closed by the caller. Raises EmbeddedError when the data folder cannot be written."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path.parent, error) from error


def try_lock(fd: int, kind: int) -> bool:
    """Try a flock (LOCK_SH or LOCK_EX) without waiting; return whether we have it."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_status(at: Layout) -> Servers | None:
    """Return what a living supervisor published, or None. A file nobody locks, or cut short, says nothing."""
    try:
        with at.status.open("rb") as file:
            if try_lock(file.fileno(), fcntl.LOCK_SH):
                return None
            fields = json.load(file)
            return Servers(**{**fields, "data_dir": Path(fields["data_dir"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    except OSError as error:
        raise _unusable(at.data, error) from error


def log_tail(path: Path, lines_max: int = 12) -> str:
    """Return the place and the last lines of a log, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()[-lines_max:]
    except OSError as error:
        return f"Log: {path} ({error.strerror})"
    return "\n  ".join([f"Log: {path}", *lines])


def stop_servers(at: Layout) -> bool:
    """Stop each server process of this data folder, politely first; return whether there was one.

    The caller holds the helm. Processes are found by their command line, not by a pid file, so that a pid used again
    for something else is never hit. Raises EmbeddedError when one survives everything.
    """
    begun = time.monotonic()
    sent: set[tuple[int, int]] = set()
    while found := _find_servers(at):
        waited_s = time.monotonic() - begun
        step = 0 if waited_s < STOP_S_MAX else 1 if waited_s < STOP_S_MAX + KILL_S else 2
        if waited_s > STOP_S_MAX + 2 * KILL_S:
            raise EmbeddedError(f"Processes {sorted(found)} of {at.data} do not end. Stop them by hand.")
        for pid, name in found.items():
            if (pid, step) not in sent:
                sent.add((pid, step))
                try:
                    os.kill(pid, STOP_SIGNALS[name][step])
                except ProcessLookupError:
                    continue  # it has just ended
                except PermissionError as error:
                    raise EmbeddedError(f"Process {pid} of {at.data} is another user's. Stop it by hand.") from error
        time.sleep(5 * POLL_S)
    return bool(sent)


def _find_servers(at: Layout) -> dict[int, str]:
    """Return pid → program of the servers that work on this data folder (zombies have no command line)."""
    found = {}
    for pid, words in _processes():
        for name, program, folder in (("postgres", "postgres", at.postgres), ("valkey", "valkey-server", at.valkey)):
            if words[0].endswith(f"/{program}") and str(folder) in words:
                found[pid] = name
    return found


def _processes() -> Iterator[tuple[int, list[str]]]:
    """List every process we can see, with the words of its command line."""
    if sys.platform == "linux":
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):  # ended meanwhile
                    yield int(entry.name), os.fsdecode((entry / "cmdline").read_bytes()).split("\0")
        return
    listing = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, check=False).stdout  # noqa: S607
    for line in os.fsdecode(listing).splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), command.split(" ")


def _stop_orphans(at: Layout, *, unused_only: bool) -> None:
    """Stop servers left behind by a killed supervisor (`unused_only`: not while a command uses them)."""
    if read_status(at) is not None or not _find_servers(at):
        return
    helm = _take_helm(at)
    if helm is None:  # they have a supervisor
        return
    users = open_lock(at.users)
    try:
        if not unused_only or try_lock(users, fcntl.LOCK_EX):
            stop_servers(at)
    finally:
        os.close(users)
        os.close(helm)


def _open_layout(data_dir: Path) -> Layout:
    """Create the data folder if need be; only the folder itself is made private."""
    try:
        data = data_dir.resolve()
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(data_dir, error) from error
    return Layout(data)


def _existing_layout(data_dir: Path) -> Layout | None:
    """Return the layout of a folder that was used before, or None; creates nothing."""
    at = Layout(data_dir.resolve())
    try:
        at.helm.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(data_dir, error) from error
    return at


def _unusable(data: Path, error: OSError) -> EmbeddedError:
    return EmbeddedError(
        f"Cannot use {data} as data folder: {error.strerror}. Choose another folder with JAUGE_DATA, "
        "or set JAUGE_DATABASE_URL and JAUGE_REDIS_URL."
    )


def _wait(at: Layout, limit: float, verb: str = "start") -> None:
    """Sleep one step. Raises EmbeddedError past the limit."""
    if time.monotonic() > limit:
        logs = "\n".join(log_tail(at.log(name), 5) for name in ("supervisor", "postgres", "valkey"))
        raise EmbeddedError(f"The embedded servers of {at.data} did not {verb} in time; try again.\n{logs}")
    time.sleep(POLL_S)


def _take_helm(at: Layout) -> int | None:
    """Become the one who may start or stop servers, or return None when somebody else is."""
    helm = open_lock(at.helm)
    if try_lock(helm, fcntl.LOCK_EX):
        return helm
    os.close(helm)
    return None


def _attach(at: Layout, limit: float) -> Servers:
    """Return the running instance, or start one; the caller holds the users lock."""
    while (servers := read_status(at)) is None:
        if (helm := _take_helm(at)) is None:  # somebody starts or stops them
            _wait(at, limit)
            continue
        try:
            return _launch(at, helm, limit)
        except OSError as error:
            raise _unusable(at.data, error) from error
        finally:
            os.close(helm)
    return servers


def _launch(at: Layout, helm: int, limit: float) -> Servers:
    """Start a supervisor, which inherits the helm, and wait until both servers answer."""
    stop_servers(at)
    for leftover in (at.status, at.keep, at.stop):
        leftover.unlink(missing_ok=True)
    command = [sys.executable, "-m", "metering.supervisor", str(at.data), str(helm)]
    root = Path(__file__).parent.parent  # `-m` looks in the working folder: ours, not one that could hide our modules
    with os.fdopen(open_lock(at.log("supervisor")), "wb") as log:  # private, as locks are
        log.truncate()
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=(helm,),
            start_new_session=True,
        )
    with process:
        assert process.stdout is not None
        # The pipe closes when the servers answer, after a text when they do not.
        while not select.select([process.stdout], [], [], POLL_S)[0]:
            _wait(at, limit)
        failure = process.stdout.read().decode(errors="replace")
    servers = None if failure else read_status(at)
    if servers is None:
        raise EmbeddedError(failure or f"The supervisor ended at once.\n{log_tail(at.log('supervisor'))}")
    return servers

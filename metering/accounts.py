"""Who the embedded servers run as, and how a program is started under that account."""

import ctypes
import logging
import os
import pwd
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metering.embedded import EmbeddedError, Layout

LOG_BYTES_MAX = 8 << 20
NOBODY = 65534
LINUX = sys.platform == "linux"
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1

logger = logging.getLogger("jauge.supervisor")
libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Account:
    """Who the servers run as, seen from outside.

    PostgreSQL refuses root, and a user without a name (`docker run --user 1234`). In a user namespace of our own
    both bear another, unprivileged name, while every file keeps its owner.
    """

    uid: int
    gid: int
    namespace: bool = False

    def enter(self) -> None:
        """Take on the account, between fork and exec. Raises OSError when the system refuses."""
        if self.namespace:
            uid, gid = os.geteuid(), os.getegid()
            if libc.unshare(CLONE_NEWUSER) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{INSIDE_UID} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{INSIDE_UID} {gid} 1")
        elif self.uid != os.geteuid():
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)

    def own(self, folder: Path) -> None:
        """Create a private folder of this account, or give it an existing one."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != self.uid:
            for path in (*folder.rglob("*"), folder):  # the folder last: it tells that all is done
                os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_work(self, at: Layout, program: Path) -> bool:
        """Try it: reach the data folder and run the program, as the servers will."""
        script = ["/bin/sh", "-c", 'cd "$1" && "$2" --version', "sh", str(at.data), str(program)]
        try:
            return run_once(at, self, "supervisor", script)
        except subprocess.SubprocessError as error:  # how Popen reports an exception before exec
            logger.info("%s refused: %s", self, error)
            return False


def has_name(uid: int) -> bool:
    """Whether the system knows this user."""
    with suppress(KeyError):
        return bool(pwd.getpwuid(uid).pw_name)
    return False


INSIDE_UID = next((uid for uid in (1000, NOBODY, 1) if has_name(uid)), 1000)


def choose_account(at: Layout, program: Path) -> Account:
    """Choose who the servers run as. Raises EmbeddedError when no account reaches the files."""
    uid, gid = os.geteuid(), os.getegid()
    candidates = [Account(uid, gid)] if uid != 0 else [Account(NOBODY, NOBODY)]
    if LINUX and (uid == 0 or not has_name(uid)):
        candidates.insert(0, Account(uid, gid, namespace=True))
    if uid == 0 and at.postgres.exists() and (owner := at.postgres.stat()).st_uid not in (0, NOBODY):
        candidates = [Account(owner.st_uid, owner.st_gid)]  # root helps a user: the files stay the user's
    for account in candidates:
        if account.uid == NOBODY != uid:
            at.data.chmod(at.data.stat().st_mode | 0o011)  # our own folder, never a parent; what is inside is private
        if account.can_work(at, program):
            return account
    raise EmbeddedError(
        f"PostgreSQL refuses to run as root, and no other account may enter {at.data} and run {program}. "
        "Choose a data folder open to other users with JAUGE_DATA, or run as an ordinary user."
    )


def die_with(parent_pid: int, death_signal: int) -> None:
    """Between fork and exec: have this process signalled when its parent dies (Linux; elsewhere nothing)."""
    if LINUX:
        libc.prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent_pid:  # it died before
            os._exit(1)


def spawn(at: Layout, account: Account, name: str, argv: list[str], death_signal: int) -> subprocess.Popen[bytes]:
    """Start a program as the account, its output in the log of that name, to be signalled when we die (Linux)."""
    supervisor_pid = os.getpid()

    def prepare() -> None:
        account.enter()
        die_with(supervisor_pid, death_signal)  # after the change of user, which would clear it

    path = at.log(name)
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.old"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    with path.open("ab") as log:
        return subprocess.Popen(  # noqa: S603
            argv,
            cwd="/",
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            preexec_fn=prepare,  # noqa: PLW1509
        )


def run_once(at: Layout, account: Account, name: str, argv: list[str], text: bytes = b"") -> bool:
    """Run a program to its end with this input; return whether it succeeded."""
    process = spawn(at, account, name, argv, signal.SIGKILL)
    process.communicate(text)
    return process.returncode == 0

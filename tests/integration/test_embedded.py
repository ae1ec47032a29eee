"""The embedded servers, for real: each test has its own data folder, and leaves no process behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis

from metering.embedded import EmbeddedError, Servers, running, start, status, stop

ROOT = Path(__file__).parents[2]
LINUX = sys.platform == "linux"
AS_ROOT = os.geteuid() == 0
NOBODY = 65534

USER = """
import dataclasses, json, sys
from pathlib import Path
from metering.embedded import EmbeddedError, running
try:
    with running(Path(sys.argv[1])) as servers:
        print(json.dumps(dataclasses.asdict(servers), default=str), flush=True)
        sys.stdin.read()
except EmbeddedError as error:
    print(json.dumps({"error": str(error)}), flush=True)
"""

# Runs the rest of its command line as root of a user namespace that refuses further user namespaces.
NO_NAMESPACES = """
import ctypes, os, sys
from pathlib import Path
pid, (ready, set_ready), (mapped, set_mapped) = os.getpid(), os.pipe(), os.pipe()
if os.fork() == 0:  # stays outside, where one may map many users
    os.read(ready, 1)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text("0 0 65536")
    os.write(set_mapped, b"1")
    os._exit(0)
assert ctypes.CDLL(None).unshare(0x10000000) == 0
os.write(set_ready, b"1")
os.read(mapped, 1)
Path("/proc/sys/user/max_user_namespaces").write_text("0")
os.execv(sys.argv[1], sys.argv[1:])
"""

USERS: list["User"] = []


class User:
    """A process that uses the servers until its input is closed."""

    def __init__(
        self, data: Path, prefix: tuple[str, ...] = (), uid: int | None = None, python: str = sys.executable
    ) -> None:
        USERS.append(self)
        self.process = subprocess.Popen(
            [*prefix, python, "-c", USER, str(data)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )

    def answer(self) -> dict[str, str]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def servers(self) -> Servers:
        fields = self.answer()
        assert "error" not in fields, fields["error"]
        return Servers(**{**fields, "data_dir": Path(fields["data_dir"])})  # type: ignore[arg-type]

    def leave(self) -> None:
        self.process.communicate()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def remove(folder: Path) -> None:
    """Remove a folder from under its servers, which remove files of it themselves as they stop."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition: Callable[[], bool], limit_s: int = 8) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    if LINUX:
        with suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False
    return bool(subprocess.run(["ps", "-o", "pid=", "-p", str(pid)], capture_output=True, check=False).stdout)


def pids(servers: Servers) -> list[int]:
    return [servers.supervisor_pid, servers.postgres_pid, servers.valkey_pid]


def gone(servers: Servers) -> bool:
    return not any(alive(pid) for pid in pids(servers))


def mentioning(data: Path) -> dict[int, str]:
    """Every process with this folder in its command line."""
    listing = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
    lines = [line.strip().partition(" ") for line in listing.splitlines() if str(data) in line]
    return {int(pid): command for pid, _, command in lines}


def write(servers: Servers, number: int) -> None:
    with psycopg.connect(servers.database_url) as link:
        link.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        link.execute("INSERT INTO kept VALUES (%s)", (number,))
    with redis.Redis.from_url(servers.redis_url) as client:
        client.sadd("kept", number)


def read(servers: Servers) -> tuple[list[int], list[int]]:
    with psycopg.connect(servers.database_url) as link:
        rows = [number for (number,) in link.execute("SELECT number FROM kept ORDER BY number")]
    with redis.Redis.from_url(servers.redis_url) as client:
        members: set[bytes] = client.smembers("kept")
    return rows, sorted(int(member) for member in members)


def setting(servers: Servers, name: str) -> str:
    with psycopg.connect(servers.database_url) as link:
        row = link.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


@pytest.fixture(autouse=True)
def _no_users_left() -> Iterator[None]:
    yield
    while USERS:
        USERS.pop().kill()


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "d"
    yield path
    if path.is_dir():
        stop(path)
    wait_for(lambda: not mentioning(path))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder other users may enter (pytest's own are private)."""
    folder = Path(tempfile.mkdtemp(prefix="jauge-test-")).resolve()
    folder.chmod(0o755)
    yield folder
    stop(folder / "d")
    shutil.rmtree(folder)


def test_both_servers_answer_as_configured(data: Path) -> None:
    with running(data) as servers:
        with psycopg.connect(servers.database_url) as link:
            assert link.execute("SELECT current_user, current_database()").fetchone() == ("jauge", "jauge")
            encoding = "SELECT pg_encoding_to_char(encoding), datlocale FROM pg_database WHERE datname = 'jauge'"
            assert link.execute(encoding).fetchone() == ("UTF8", "C.UTF-8")
        expected = {"data_checksums": "on", "TimeZone": "UTC", "fsync": "on", "full_page_writes": "on"}
        expected |= {"shared_buffers": "1GB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
        expected |= {"max_connections": "100", "listen_addresses": "", "server_version_num": "180004"}
        assert {name: setting(servers, name) for name in expected} == expected
        assert setting(servers, "wal_compression") == "off"
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.ping()
            wanted = {"appendonly": "yes", "appendfsync": "everysec", "port": "0", "maxmemory-policy": "noeviction"}
            assert client.config_get(*wanted) == wanted
        assert (data / "run").stat().st_mode & 0o777 == 0o700
    wait_for(lambda: gone(servers))


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_nothing_listens_on_tcp(data: Path) -> None:
    def sockets(pid: int) -> set[str]:
        links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
        return {link[8:-1] for link in links if link.startswith("socket:[")}

    with running(data) as servers:
        tcp = "".join(Path(f"/proc/{servers.postgres_pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
        unix = Path(f"/proc/{servers.postgres_pid}/net/unix").read_text()
        for pid in (servers.postgres_pid, servers.valkey_pid):
            assert any(inode in unix for inode in sockets(pid)), "the check itself sees no socket"
            assert not [inode for inode in sockets(pid) if f" {inode} " in tcp]


def test_two_commands_at_once_share_one_instance_until_the_last_leaves(data: Path) -> None:
    users = [User(data), User(data), User(data)]
    first, second, third = [user.servers() for user in users]
    assert first == second == third
    users[0].leave()
    users[1].kill()
    time.sleep(1)
    write(first, 1)
    assert not [pid for pid in pids(first) if not alive(pid)]
    users[2].leave()
    wait_for(lambda: gone(first))
    assert not (data / "status.json").exists()
    assert not (data / "run").exists()


def test_a_killed_command_leaves_nothing_running(data: Path) -> None:
    user = User(data)
    servers = user.servers()
    user.kill()
    wait_for(lambda: gone(servers), 4)


def test_a_command_killed_while_starting_leaves_nothing_running(data: Path) -> None:
    user = User(data)
    wait_for(lambda: bool(list(data.glob("postgres.new-*"))))
    user.kill()
    wait_for(lambda: not mentioning(data), 4)


def test_commands_that_arrive_while_the_servers_leave_get_new_ones(data: Path) -> None:
    seen = set()
    for number, pause_s in enumerate((0, 0.1, 0.15, 0.2, 0.22, 0.25, 0.3, 0.5)):
        time.sleep(pause_s)
        with running(data) as servers:
            write(servers, number)
            assert read(servers)[0] == list(range(number + 1))
            seen.add(servers.supervisor_pid)
    assert len(seen) > 1, "no pause was long enough to test anything"


@pytest.mark.skipif(not LINUX, reason="elsewhere the next command stops them")
def test_a_killed_supervisor_takes_its_servers_along_at_once_and_cleanly(data: Path) -> None:
    with running(data) as servers:
        os.kill(servers.supervisor_pid, signal.SIGKILL)
        wait_for(lambda: gone(servers))
    assert "database system is shut down" in (data / "postgres.log").read_text().splitlines()[-1]
    assert "ready to exit" in (data / "valkey.log").read_text().splitlines()[-1]


def test_a_killed_supervisor_does_not_hinder_the_next_start(data: Path) -> None:
    user = User(data)
    before = user.servers()
    write(before, 1)
    os.kill(before.supervisor_pid, signal.SIGKILL)
    wait_for(lambda: not alive(before.supervisor_pid))
    with running(data) as after:  # while the old ones are stopping
        assert not set(pids(before)) & set(pids(after))
        assert read(after) == ([1], [1])
        assert not [pid for pid in pids(before) if alive(pid)]
    user.leave()
    wait_for(lambda: gone(after))


@pytest.mark.skipif(not LINUX, reason="reads /proc")
@pytest.mark.parametrize("command", ["running", "status", "stop"])
def test_orphans_are_found_and_stopped(data: Path, command: str) -> None:
    with running(data) as servers:
        write(servers, 1)
        lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in (servers.postgres_pid, servers.valkey_pid)]
    wait_for(lambda: gone(servers))
    (data / "run").mkdir(mode=0o700)
    prefix = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if AS_ROOT else []
    with (data / "orphans.log").open("wb") as log:
        orphans = [subprocess.Popen([*prefix, *line.split("\0")[:-1]], stdout=log, stderr=log) for line in lines]
    ready = b"eady to accept connections"  # before that a server that is stopped says that it failed
    wait_for(lambda: (data / "orphans.log").read_bytes().count(ready) == 2)
    if command == "running":
        with running(data) as after:
            assert read(after) == ([1], [1])
            assert [orphan.poll() for orphan in orphans] == [0, 0]
    elif command == "status":
        assert status(data) is None
    else:
        assert stop(data)
    assert [orphan.wait(5) for orphan in orphans] == [0, 0]


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_killed_server_is_restarted_with_its_data(data: Path, name: str) -> None:
    with running(data) as before:
        write(before, 1)
        time.sleep(1.2)  # Valkey flushes its file each second
        victim = before.postgres_pid if name == "postgres" else before.valkey_pid
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: (now := status(data)) is not None and now != before)
        after = status(data)
        assert after is not None
        changed = {key for key in ("supervisor", "postgres", "valkey") if pid_of(after, key) != pid_of(before, key)}
        assert changed == {name}
        assert (after.database_url, after.redis_url) == (before.database_url, before.redis_url)
        assert read(after) == ([1], [1])


def pid_of(servers: Servers, name: str) -> int:
    return int(getattr(servers, f"{name}_pid"))


def test_start_keeps_status_tells_stop_ends(data: Path) -> None:
    assert status(data) is None
    assert not stop(data)
    assert not data.exists(), "asking creates nothing"
    servers = start(data)
    with running(data) as shared:
        assert shared == servers
    time.sleep(1)
    assert status(data) == servers
    assert not gone(servers)
    assert stop(data)
    assert gone(servers)
    assert status(data) is None
    assert not stop(data)
    with running(data) as fresh:  # the wish to keep ended with `stop`
        assert fresh != servers
    wait_for(lambda: gone(fresh))


def test_stop_ends_servers_in_use_and_the_next_command_starts_afresh(data: Path) -> None:
    user = User(data)
    servers = user.servers()
    write(servers, 1)
    assert stop(data)
    assert gone(servers)
    with running(data) as fresh:
        assert read(fresh) == ([1], [1])
    user.leave()


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("é " + "x" * 60) / ("y" * 60) / "d"
    try:
        with running(deep) as servers:
            write(servers, 1)
            assert read(servers) == ([1], [1])
            sockets = (deep / "run").resolve()
            assert len(os.fsencode(deep / "run")) > 107
            assert len(os.fsencode(sockets)) < 90
            assert sockets.stat().st_mode & 0o777 == 0o700
        wait_for(lambda: gone(servers))
        assert not sockets.exists()
        user = User(deep)  # nor does it stay when everything was killed
        servers = user.servers()
        sockets = (deep / "run").resolve()
        os.kill(servers.supervisor_pid, signal.SIGKILL)
        user.kill()
        wait_for(lambda: not alive(servers.supervisor_pid))
        with running(deep):
            assert not sockets.exists()
    finally:
        stop(deep)


@pytest.mark.parametrize("name", ["a, b", 'a "b" é%20?&'])
def test_a_path_with_signs_that_mean_something_elsewhere(tmp_path: Path, name: str) -> None:
    with running(tmp_path / name) as servers:
        write(servers, 1)
        assert read(servers) == ([1], [1])
    assert stop(tmp_path / name)


def test_an_interrupted_initialisation_is_done_again(data: Path) -> None:
    user = User(data)
    wait_for(lambda: any(list(folder.iterdir()) for folder in data.glob("postgres.new-*")))
    user.kill()
    (supervisor,) = [pid for pid, command in mentioning(data).items() if "metering.supervisor" in command]
    os.kill(supervisor, signal.SIGKILL)
    assert not (data / "postgres").exists(), "killed too late to test anything"
    with running(data) as servers:
        write(servers, 1)
        assert not list(data.glob("postgres.new-*"))


def test_a_lost_or_damaged_status_file_is_written_again(data: Path) -> None:
    with running(data) as servers:
        for harm in (Path.unlink, lambda path: path.write_text('{"database'), replace_by_copy):
            harm(data / "status.json")
            with running(data) as again:
                assert again == servers
        assert status(data) == servers


def replace_by_copy(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.rename(path)


def test_a_leftover_status_file_misleads_nobody(data: Path) -> None:
    user = User(data)
    servers = user.servers()
    text = (data / "status.json").read_text()
    user.leave()
    wait_for(lambda: gone(servers))
    (data / "status.json").write_text(text.replace(str(servers.supervisor_pid), str(os.getpid())))
    assert status(data) is None
    with running(data) as fresh:
        assert fresh.supervisor_pid != os.getpid()
        write(fresh, 1)


@pytest.mark.parametrize("content", ["{pid}\n{rest}", ""], ids=["pid of another program", "empty"])
def test_a_leftover_postmaster_pid_does_not_block(data: Path, content: str) -> None:
    with running(data) as servers:
        _, rest = (data / "postgres" / "postmaster.pid").read_text().split("\n", 1)
    wait_for(lambda: gone(servers))
    (data / "postgres" / "postmaster.pid").write_text(content.format(pid=os.getpid(), rest=rest))
    with running(data) as fresh:
        write(fresh, 1)


def test_removing_the_data_folder_stops_the_servers(data: Path) -> None:
    with running(data) as servers:
        remove(data)
        wait_for(lambda: gone(servers))


def test_a_new_folder_in_the_place_of_a_removed_one_belongs_to_its_new_servers(data: Path) -> None:
    with running(data) as servers:
        remove(data)
        data.mkdir()
        (data / "supervisor.lock").touch()
        wait_for(lambda: gone(servers))
        assert [path.name for path in data.iterdir()] == ["supervisor.lock"]
        with running(data) as fresh:
            write(fresh, 1)


def test_unusable_data_folders_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below", Path("/proc/jauge") if LINUX else Path("/dev/null/jauge")):
        with pytest.raises(EmbeddedError, match="JAUGE_DATA"), running(path):
            pass
    for path in (file, file / "below"):
        with pytest.raises(EmbeddedError, match="JAUGE_DATA"):
            status(path)


def test_a_folder_of_another_postgres_version_is_refused(data: Path) -> None:
    (data / "postgres").mkdir(parents=True)
    (data / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match=r"version 17, this is 18.*JAUGE_DATA"), running(data):
        pass


def test_a_server_that_does_not_start_shows_its_log(data: Path) -> None:
    with running(data) as servers:
        pass
    wait_for(lambda: gone(servers))
    (data / "postgres" / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(EmbeddedError, match=r"(?s)postgres\.log.*pg_control"), running(data):
        pass
    wait_for(lambda: not mentioning(data))


@pytest.mark.skipif(not (AS_ROOT and LINUX), reason="root only")
def test_root_changes_no_folder_and_the_servers_have_no_privilege(tmp_path: Path) -> None:
    parent = tmp_path / "private"
    parent.mkdir(mode=0o700)
    folders = [parent, *parent.parents]
    before = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in folders]
    with running(parent / "d") as servers:
        write(servers, 1)
        for pid in (servers.postgres_pid, servers.valkey_pid):
            assert "CapEff:\t0000000000000000" in Path(f"/proc/{pid}/status").read_text()
        assert Path(f"/proc/{servers.postgres_pid}/uid_map").read_text().split() == ["1000", "0", "1"]
        assert {path.stat().st_uid for path in (parent / "d").rglob("*")} == {0}
    wait_for(lambda: gone(servers))
    assert [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in folders] == before


@pytest.mark.skipif(not (AS_ROOT and LINUX), reason="root only")
def test_root_without_namespaces_uses_nobody(open_folder: Path, tmp_path: Path) -> None:
    prefix = (sys.executable, "-c", NO_NAMESPACES)
    with running(open_folder / "d") as servers:  # first with: the folder changes hands
        write(servers, 1)
    wait_for(lambda: gone(servers))
    user = User(open_folder / "d", prefix)
    servers = user.servers()
    for pid in (servers.postgres_pid, servers.valkey_pid):
        assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
    assert read(servers) == ([1], [1])
    user.leave()
    wait_for(lambda: gone(servers))
    with running(open_folder / "d") as servers:  # and back
        assert read(servers) == ([1], [1])
        assert Path(f"/proc/{servers.postgres_pid}").stat().st_uid == 0
    (tmp_path / "private").mkdir(mode=0o700)
    refused = User(tmp_path / "private" / "d", prefix)
    assert "refuses to run as root" in refused.answer()["error"]
    refused.leave()


def python_for(uid: int) -> str:
    """An interpreter this user may run: ours can lie in root's home folder."""
    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        with suppress(OSError):
            if subprocess.run([path, "-c", "import tomllib"], user=uid, check=False).returncode == 0:
                return path
    pytest.skip("no interpreter for another user")


@pytest.mark.skipif(not AS_ROOT, reason="needs root to become somebody else")
def test_an_ordinary_user_and_root_helping_out(open_folder: Path) -> None:
    python = python_for(1234)
    closed = open_folder / "closed"
    closed.mkdir(mode=0o555)
    refused = User(closed, uid=1234, python=python)
    assert "JAUGE_DATA" in refused.answer()["error"]
    refused.leave()
    os.chown(open_folder, 1234, 1234)
    user = User(open_folder / "d", uid=1234, python=python)
    servers = user.servers()
    assert Path(f"/proc/{servers.postgres_pid}").stat().st_uid == 1234
    user.leave()
    wait_for(lambda: gone(servers))
    with running(open_folder / "d") as servers:
        write(servers, 1)
        assert Path(f"/proc/{servers.postgres_pid}").stat().st_uid == 1234
    wait_for(lambda: gone(servers))
    user = User(open_folder / "d", uid=1234, python=python)
    assert read(user.servers()) == ([1], [1])
    user.leave()

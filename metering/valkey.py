"""Addresses of Valkey or Redis, one server or a cluster, and the client that threads share.

A cluster is `redis+cluster://` (or `rediss+cluster://`) and some of its nodes, separated by commas: whichever is there
tells of the others.
"""

import threading
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    import redis

CLUSTER = "+cluster"


def is_cluster(url: str) -> bool:
    """Whether an address is a cluster's."""
    return urlsplit(url).scheme.endswith(CLUSTER)


def servers_of(url: str) -> list[str]:
    """Addresses of the servers that an address names, one each."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    scheme = parts.scheme.removesuffix(CLUSTER)
    return [urlunsplit(parts._replace(scheme=scheme, netloc=f"{login}{at}{host}")) for host in hosts.split(",")]


def connect(url: str, **options: Any) -> "redis.Redis":
    """A client for threads; it connects when it is first used. options: those of redis-py.

    A cluster's has the same calls. What both raise: `outages`.
    """
    import redis  # noqa: PLC0415 - a fifth of a second that most commands don't need

    if is_cluster(url):
        return cast("redis.Redis", LateCluster(servers_of(url), options))
    client: redis.Redis = redis.Redis.from_url(url, **options)
    return client


def outages() -> tuple[type[Exception], ...]:
    """What a client raises of a server, or a cluster, that can't be asked now."""
    import redis  # noqa: PLC0415

    return redis.RedisError, redis.exceptions.RedisClusterException


class LateCluster:
    """A cluster's client that connects when it is first used, as one server's does."""

    def __init__(self, servers: list[str], options: dict[str, Any]) -> None:
        self._servers = servers
        self._options = options
        self._connecting = threading.Lock()
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
        return getattr(self._client, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, if there are any."""
        if self._client is not None:
            self._client.close()

    def _connect(self) -> Any:
        from redis import cluster, connection  # noqa: PLC0415

        read: Any = connection.parse_url
        node: Any = cluster.ClusterNode
        named = [dict(read(url)) for url in self._servers]
        nodes = [node(one.pop("host"), one.pop("port", 6379)) for one in named]
        return cluster.RedisCluster(startup_nodes=nodes, require_full_coverage=False, **named[0], **self._options)

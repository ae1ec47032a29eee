"""Which server has an administration's counters: the only one, or one node of a cluster.

A cluster's nodes tell who has which of its 16,384 slots. A map that is out of date costs a redirection, after which
it is read anew; so nothing watches the cluster.
"""

import asyncio
import random
import time
from binascii import crc_hqx
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import hiredis

from metering.quotas.line import Address, Line, LineLost
from metering.valkey import is_cluster, servers_of

SLOTS = 16_384
LEARN_S = 0.1
"""A map that is so young is not read again: while a node is away, every question that it would answer asks for that."""


class Servers(Protocol):
    """Where counters are."""

    def line_of(self, tag: str) -> Line:
        """The line to the server that has the keys of a hash tag, as far as is known."""

    async def learn(self) -> None:
        """Find out anew which server has what. Raises: LineLost if nobody tells."""

    def redirected(self, place: str) -> Line:
        """The line to the server that an answer names as `host:port`."""

    def close(self) -> None:
        """End the connections."""


def servers_at(url: str) -> Servers:
    """The servers of an address. Raises: ValueError for one that can't be read."""
    addresses = [_address(server) for server in servers_of(url)]
    return Cluster(addresses) if is_cluster(url) else OneServer(addresses[0])


class OneServer:
    """All keys in one place."""

    def __init__(self, address: Address) -> None:
        self._line = Line(address)

    def line_of(self, _tag: str) -> Line:
        return self._line

    async def learn(self) -> None:
        return None

    def redirected(self, _place: str) -> Line:
        return self._line

    def close(self) -> None:
        self._line.close()


class Cluster:
    """Keys by slot; a line to each node that was met."""

    def __init__(self, named: Sequence[Address]) -> None:
        self._named = named
        self._lines = {(one.host, one.port): Line(one) for one in named}
        self._owners = [next(iter(self._lines.values()))] * SLOTS  # until it is learnt: any node redirects
        self._learnt_at = 0.0
        self._learning = asyncio.Lock()

    def line_of(self, tag: str) -> Line:
        return self._owners[crc_hqx(tag.encode(), 0) % SLOTS]

    async def learn(self) -> None:
        async with self._learning:
            if time.monotonic() - self._learnt_at < LEARN_S:
                return
            lines = list(self._lines.values())
            random.shuffle(lines)
            for line in lines:
                with suppress(LineLost):
                    answer = await line.ask("CLUSTER", "SLOTS")
                    if not isinstance(answer, hiredis.ReplyError):
                        self._note(answer, line.address.host)
                        return
            raise LineLost

    def redirected(self, place: str) -> Line:
        host, _colon, port = place.rpartition(":")
        return self._line_to(host or self._named[0].host, int(port))

    def close(self) -> None:
        for line in self._lines.values():
            line.close()

    def _note(self, slots: Sequence[Sequence[Any]], told_by: str) -> None:
        """A map: first slot, last slot and its nodes, the primary first. One without a host is the one that tells."""
        for first, last, (host, port, *_rest), *_replicas in slots:
            line = self._line_to(host.decode() if host else told_by, port)
            self._owners[first : last + 1] = [line] * (last + 1 - first)
        self._learnt_at = time.monotonic()

    def _line_to(self, host: str, port: int) -> Line:
        place = (host, port)
        if place not in self._lines:
            self._lines[place] = Line(replace(self._named[0], host=host, port=port))
        return self._lines[place]


def _address(url: str) -> Address:
    from redis.asyncio.connection import SSLConnection, parse_url  # noqa: PLC0415 - a fifth of a second

    options: dict[str, Any] = dict(parse_url(url))
    is_tls = options.pop("connection_class", None) is SSLConnection
    password = options.get("password")
    return Address(
        host=options.get("host", "localhost"),
        port=options.get("port", 6379),
        path=options.get("path"),
        login=(options.get("username", "default"), password) if password else (),
        database=options.get("db", 0),
        tls=SSLConnection(**options).ssl_context.get() if is_tls else None,
    )

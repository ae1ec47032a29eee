"""The counters' store: the script, called from threads or from an event loop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import hiredis

from metering.errors import Unavailable
from metering.quotas.calls import SCRIPT, SCRIPT_SHA, Reply, arguments, keys_of, read_reply
from metering.quotas.line import LineLost, LineSilent
from metering.quotas.nodes import servers_at

if TYPE_CHECKING:
    import redis

REDIRECTIONS_MAX = 5
"""Answers that point elsewhere, one after another: a slot that moves takes two."""

_AWAY = frozenset(
    {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN",
     "WRONGPASS"}
)  # fmt: skip
"""How answers begin of a server that can't write now, or not for us."""


@contextmanager
def reading_outages() -> Iterator[None]:
    """Turn what redis-py says of a store that is away into an error of ours."""
    import redis  # noqa: PLC0415 - a fifth of a second that most commands don't need
    from redis import exceptions as told  # noqa: PLC0415

    away = (
        redis.ConnectionError, redis.TimeoutError, told.ReadOnlyError, told.OutOfMemoryError, told.ClusterError,
        told.TryAgainError, told.RedisClusterException,
    )  # fmt: skip
    try:
        yield
    except away as error:
        raise _away() from error
    except redis.ResponseError as error:
        if str(error).partition(" ")[0] not in _AWAY:
            raise
        raise _away() from error


class CounterStore:
    """Calls from threads: for building, settling and commands."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client

    def call(self, tenant: str, operation: str, *given: Any) -> Reply:
        """Call the script for an administration. Raises: Lost, OtherLimits, ClockMoved, Unavailable."""
        import redis  # noqa: PLC0415

        execute: Any = self._client.execute_command
        command = (3, *keys_of(tenant), *arguments(operation, *given))
        with reading_outages():
            try:
                answer = execute("EVALSHA", SCRIPT_SHA, *command)
            except redis.exceptions.NoScriptError:
                answer = execute("EVAL", SCRIPT, *command)
        return read_reply(answer)


class AsyncCounterStore:
    """Calls from an event loop, over one connection to each server; for one loop."""

    def __init__(self, url: str) -> None:
        self._servers = servers_at(url)

    async def call(self, tenant: str, operation: str, *given: Any) -> Reply:
        """Call the script for an administration. Raises: Lost, OtherLimits, ClockMoved, Unavailable."""
        command = (3, *keys_of(tenant), *arguments(operation, *given))
        try:
            answer = await self._servers.line_of(tenant).ask("EVALSHA", SCRIPT_SHA, *command)
            if isinstance(answer, hiredis.ReplyError):
                answer = await self._follow(tenant, command, answer)
        except LineLost as lost:
            answer = await self._ask_once_more(tenant, command, lost)
        return read_reply(answer)

    async def close(self) -> None:
        """Close the connections; nobody may be waiting."""
        self._servers.close()
        await asyncio.sleep(0)  # the loop closes them in its next turn

    async def _ask_once_more(self, tenant: str, command: tuple[Any, ...], lost: LineLost) -> Any:
        """Ask again, perhaps another server, where a connection was lost. Raises: Unavailable.

        The command may have been carried out: its reservation tells that it is the same, and the total of an extension
        holds nothing twice.
        """
        if isinstance(lost, LineSilent):  # who asks has waited long enough
            raise _away() from lost
        try:
            await self._servers.learn()
            answer = await self._servers.line_of(tenant).ask("EVALSHA", SCRIPT_SHA, *command)
            return await self._follow(tenant, command, answer)
        except LineLost as again:
            raise _away() from again

    async def _follow(self, tenant: str, command: tuple[Any, ...], answer: Any) -> Any:
        """Go where an error points, until there is an answer. Raises: LineLost, Unavailable."""
        line, script, is_moving = self._servers.line_of(tenant), ("EVALSHA", SCRIPT_SHA), False
        for _ in range(REDIRECTIONS_MAX):
            if not isinstance(answer, hiredis.ReplyError):
                return answer
            word, _space, rest = str(answer).partition(" ")
            if word in {"MOVED", "ASK"}:
                line, is_moving = self._servers.redirected(rest.split(" ")[1]), word == "ASK"
                if not is_moving:
                    await self._servers.learn()
            elif word == "NOSCRIPT":  # the server is new, or was restarted
                script = ("EVAL", SCRIPT)
            elif word in _AWAY:
                raise _away() from answer
            else:
                raise answer
            answers = [line.ask("ASKING")] if is_moving else []
            answer = (await asyncio.gather(*answers, line.ask(*script, *command)))[-1]
        raise _away()


def _away() -> Unavailable:
    return Unavailable("counters_unavailable", "The counters' store is away.", retry_after_s=5)

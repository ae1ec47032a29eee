"""The client for gateways in Python beside Jauge's stores: the holds of `metering.client`, without a server between.

It asks the counters itself, with the catalogue in its own memory, and adds usage events to the stream that the worker
reads. Whoever runs it can read and write both stores: it is for gateways in the same zone of trust.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, Unpack

import msgspec
import structlog

from metering.catalog.snapshot import CatalogReader
from metering.client.clients import AsyncGateway, Options
from metering.client.protocol import NO_ANSWER, Answer, Call
from metering.client.sending import RESOLVE
from metering.database import engine_for
from metering.errors import JaugeError
from metering.quotas.answers import (
    STATUSES,
    CommitRequest,
    ExtendRequest,
    QuotaAnswer,
    ReleaseRequest,
    ReserveRequest,
    answer_commit,
    answer_extend,
    answer_release,
    answer_reserve,
)
from metering.quotas.building import CounterBuilder
from metering.quotas.service import QuotaService
from metering.quotas.store import AsyncCounterStore, CounterStore
from metering.valkey import connect, is_cluster, outages

STREAM = "jauge:events"

ENTRY_BYTES_MAX = 512 * 1024
"""Bytes of events in one entry of the stream; the worker reads twice as much."""

COPY_MS_MAX = 1_000
"""How long a replica may take to have an entry."""

log = structlog.get_logger(__name__)


class DirectJauge(AsyncGateway):
    """The client for code that awaits, on the stores themselves; for one event loop.

    While the counters are away, the plan decides; `on_outage` does where the catalogue was never read, or no answer
    comes in time.
    """

    def __init__(
        self, database_url: str, redis_url: str, *, stream_name: str = STREAM, **options: Unpack[Options]
    ) -> None:
        self._engine = engine_for(database_url)
        catalog = CatalogReader(self._engine)
        store = CounterStore(connect(redis_url, socket_connect_timeout=5))
        quotas = QuotaService(catalog, AsyncCounterStore(redis_url), CounterBuilder(self._engine, catalog, store))
        super().__init__(Clerk(catalog, quotas), Stream(redis_url, stream_name, catalog), **options)
        self._watching = ExitStack()
        self._watching.enter_context(catalog.watching())

    async def aclose(self) -> None:
        """Send what is spooled, for a few seconds; the rest is sent by the next process on this folder."""
        await super().aclose()
        await asyncio.to_thread(self._watching.close)
        self._engine.dispose()


class Clerk:
    """Answers calls as the routes do, in this process."""

    def __init__(self, catalog: CatalogReader, quotas: QuotaService) -> None:
        self.catalog = catalog
        self.quotas = quotas
        self._answers: Mapping[str, Callable[[Any], Awaitable[Answer]]] = {
            "/v1/quota/reserve": self._reserve,
            "/v1/quota/extend": self._extend,
            "/v1/quota/commit": self._commit,
            "/v1/quota/release": self._release,
        }

    async def post(self, call: Call) -> Answer:
        """The answer to a call; NO_ANSWER where it takes too long."""
        try:
            async with asyncio.timeout(call.timeout_s):
                if self.catalog.loaded is None:  # reading it whole takes longer than a turn of the loop may
                    await asyncio.to_thread(self.catalog.refresh)
                return await self._answers[call.path](call.body)
        except TimeoutError:
            return NO_ANSWER
        except msgspec.ValidationError:
            return Answer(400, {"code": "invalid_request"})
        except JaugeError as error:
            return _problem(error)
        except Exception as error:  # a fault of ours stops requests no more than Jauge's absence does
            bare = RuntimeError(type(error).__name__)  # messages of drivers can quote values
            log.error("fault", error=type(error).__name__, exc_info=bare.with_traceback(error.__traceback__))
            return Answer(500, {"code": "internal"})

    async def aclose(self) -> None:
        """Leave no connection open."""
        await self.quotas.close()

    async def _reserve(self, body: Mapping[str, Any]) -> Answer:
        return _decided(await answer_reserve(self, msgspec.convert(body, ReserveRequest)))

    async def _extend(self, body: Mapping[str, Any]) -> Answer:
        return _decided(await answer_extend(self, msgspec.convert(body, ExtendRequest)))

    async def _commit(self, body: Mapping[str, Any]) -> Answer:
        settled = await answer_commit(self, msgspec.convert(body, CommitRequest))
        return Answer(200, {"status": settled.status})

    async def _release(self, body: Mapping[str, Any]) -> Answer:
        settled = await answer_release(self, msgspec.convert(body, ReleaseRequest))
        return Answer(200, {"status": settled.status})


class Stream:
    """Adds events to the stream, and answers as the ledger's door does: accepted is what the stream has."""

    def __init__(self, redis_url: str, name: str, catalog: CatalogReader) -> None:
        self._client = connect(redis_url, socket_connect_timeout=5)
        self._is_cluster = is_cluster(redis_url)
        self._name = name
        self._catalog = catalog

    def post(self, call: Call) -> Answer:
        """The answer to a call; NO_ANSWER where the stream is away."""
        if call.path == RESOLVE:
            return self._resolve(call.body)
        assert isinstance(call.body, bytes)
        if len(call.body) > ENTRY_BYTES_MAX:
            return Answer(413, {"code": "entry_too_large"})
        try:
            self._client.xadd(self._name, {"body": call.body})
            if self._is_cluster and not self._is_copied():
                return NO_ANSWER
        except outages() as error:
            log.warning("stream_unavailable", error=type(error).__name__)
            return NO_ANSWER
        events = call.body.count(b"\n") + 1
        return Answer(200, {"events": [{"index": at, "status": "accepted"} for at in range(events)]})

    def close(self) -> None:
        """Leave no connection open."""
        self._client.close()

    def _is_copied(self) -> bool:
        """Whether a replica has the entry as well, where there is one: a primary that dies has not told all it had."""
        cluster: Any = self._client
        if cluster.get_node_from_key(self._name, replica=True) is None:
            return True
        # Nobody else uses this client, so it is the connection of the entry that asks.
        copies: int = cluster.wait(1, COPY_MS_MAX, target_nodes=cluster.get_node_from_key(self._name))
        if copies == 0:
            cluster.nodes_manager.initialize()  # there may be no replica any more
        return copies > 0

    def _resolve(self, question: Any) -> Answer:
        # The web framework comes with it: seconds, for events of keys that nobody could look at.
        from metering.catalog.routes.models import Question, answer_question  # noqa: PLC0415

        try:
            asked = msgspec.convert(question, Question)
            _found, answer = answer_question(self._catalog, asked, datetime.now(UTC))
        except JaugeError as error:
            return _problem(error)
        return Answer(200, msgspec.to_builtins(answer))


def _decided(answer: QuotaAnswer) -> Answer:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    body: dict[str, Any] = msgspec.to_builtins(answer)
    if answer.allowed:
        return Answer(200, body, headers)
    return Answer(STATUSES[answer.reason], {"code": answer.reason, **body}, headers)


def _problem(error: JaugeError) -> Answer:
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    return Answer(error.status, error.problem(), headers)

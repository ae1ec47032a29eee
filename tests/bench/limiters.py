"""Jauge and its peers behind one question: may this request run, under four limits, on the same Valkey?

Four limits, as the State's gateway has them for an agent and a model: requests and tokens, a minute and a day. Every
peer is used as its authors recommend, by its asynchronous API, on redis-py with hiredis and a pool of connections.
One that has no call for several limits is asked for them one after another, in the gateway's order (requests a
minute, requests a day, tokens a minute, tokens a day), up to the first that refuses.
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import throttled.asyncio as throttled
from limits import RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import STRATEGIES
from pyrate_limiter import Duration, Rate, RedisBucket, RedisStateStore, SingleBucketFactory, StateBucket
from pyrate_limiter import Limiter as PyrateLimiter
from redis.asyncio import ConnectionPool, Redis

from metering.quotas.calls import Reply
from metering.quotas.service import Ask, QuotaService
from metering.quotas.store import AsyncCounterStore
from metering.rules.counting import Estimate
from metering.rules.limits import Request
from metering.services import Services

TTL_S = 600


@dataclass(frozen=True, slots=True)
class Bounds:
    """Values of the four limits, in requests and tokens."""

    requests_minute: int
    requests_day: int
    tokens_minute: int
    tokens_day: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Who is held to what. prefix: of names in the store; for Jauge the administration whose plan has the bounds."""

    prefix: str
    users: Sequence[str]
    bounds: Bounds


class Limiter(Protocol):
    """One way to hold four limits."""

    async def admits(self, user: str, tokens: int) -> bool:
        """Whether a request of so many tokens may run; if so, it is counted."""

    async def counted(self, user: str) -> int:
        """Requests that the limit on requests a minute has counted."""


class Quotas:
    """Jauge's service, as its routes use it: the catalogue in memory and one call of the script."""

    def __init__(self, scene: Scene, services: Services) -> None:
        self._quotas = services.quotas()
        self._requests = {user: Request(scene.prefix, None, user, None, "small", None, "chat") for user in scene.users}
        self._numbers = itertools.count()

    async def admits(self, user: str, tokens: int) -> bool:
        return (await self._quotas.reserve(self._ask(user, tokens))).is_allowed

    async def counted(self, user: str) -> int:
        figures = (await self._quotas.reserve(self._ask(user, 1), is_dry=True)).figures
        return max(one.used + one.held for one in figures if one.limit.meter == "requests")

    def _ask(self, user: str, tokens: int) -> Ask:
        return Ask(self._reservation(), self._requests[user], TTL_S, Estimate(prompt_tokens=tokens))

    def _reservation(self) -> str:
        return f"{os.getpid()}-{next(self._numbers)}"


class Script(Quotas):
    """Jauge's script alone, by the same connection: what the service gave it for a user's first request, given again.

    It tells what the service takes; requests after the first are as large as that one.
    """

    def __init__(self, scene: Scene, services: Services) -> None:
        super().__init__(scene, services)
        self._tenant = scene.prefix
        self._store = AsyncCounterStore(services.stores.redis_url)
        self._listener = _Remembering(services.stores.redis_url)
        self._quotas = QuotaService(services.catalog, self._listener, services.counters())
        self._given: dict[str, tuple[Any, ...]] = {}

    async def admits(self, user: str, tokens: int) -> bool:
        if user not in self._given:
            ask = self._ask(user, tokens)
            decision = await self._quotas.reserve(ask)
            self._given[user] = self._listener.given.pop(ask.reservation)
            return decision.is_allowed
        seen, _reservation, *given = self._given[user]
        return (await self._store.call(self._tenant, "reserve", seen, self._reservation(), *given)).status == "ok"


class _Remembering(AsyncCounterStore):
    """Remembers what it was given, by reservation."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.given: dict[str, tuple[Any, ...]] = {}

    async def call(self, tenant: str, operation: str, *given: Any) -> Reply:
        self.given[given[1]] = given
        return await super().call(tenant, operation, *given)


class Limits:
    """`limits` as OpenGateLLM uses it (https://limits.readthedocs.io): one strategy, one hit a limit.

    The gateway asks for the TTL of each key after its hit as well, which is left out here.
    """

    def __init__(self, scene: Scene, redis_url: str, strategy: str) -> None:
        pool = ConnectionPool.from_url(redis_url)
        storage = RedisStorage(f"async+redis+{redis_url}", implementation="redispy", connection_pool=pool)
        self._strategy = STRATEGIES[strategy](storage)
        self._prefix = scene.prefix
        self._hits = (
            ("rpm", RateLimitItemPerMinute(scene.bounds.requests_minute), False),
            ("rpd", RateLimitItemPerDay(scene.bounds.requests_day), False),
            ("tpm", RateLimitItemPerMinute(scene.bounds.tokens_minute), True),
            ("tpd", RateLimitItemPerDay(scene.bounds.tokens_day), True),
        )

    async def admits(self, user: str, tokens: int) -> bool:
        for name, item, is_tokens in self._hits:
            if not await self._strategy.hit(item, self._key(name, user), cost=tokens if is_tokens else 1):
                return False
        return True

    async def counted(self, user: str) -> int:
        name, item, _is_tokens = self._hits[0]
        return item.amount - (await self._strategy.get_window_stats(item, self._key(name, user))).remaining

    def _key(self, name: str, user: str) -> str:
        return f"{self._prefix}:{name}:{user}"


class ThrottledPy:
    """`throttled-py` (https://throttled-py.readthedocs.io): a `Throttled` a limit on one `RedisStore`.

    Its sliding window, of its algorithms the one that promises what ours does: its default, the token bucket, lets
    twice the limit through in 60 s.
    """

    def __init__(self, scene: Scene, redis_url: str) -> None:
        self._prefix = scene.prefix
        using, store = throttled.RateLimiterType.SLIDING_WINDOW.value, throttled.RedisStore(server=redis_url)
        quotas = (
            ("rpm", throttled.per_min(scene.bounds.requests_minute), False),
            ("rpd", throttled.per_day(scene.bounds.requests_day), False),
            ("tpm", throttled.per_min(scene.bounds.tokens_minute), True),
            ("tpd", throttled.per_day(scene.bounds.tokens_day), True),
        )
        self._limits = [
            (name, throttled.Throttled(using=using, quota=quota, store=store), is_tokens)
            for name, quota, is_tokens in quotas
        ]

    async def admits(self, user: str, tokens: int) -> bool:
        for name, limit, is_tokens in self._limits:
            if (await limit.limit(self._key(name, user), cost=tokens if is_tokens else 1)).limited:
                return False
        return True

    async def counted(self, user: str) -> int:
        name, limit, _is_tokens = self._limits[0]
        state = await limit.peek(self._key(name, user))
        return state.limit - state.remaining

    def _key(self, name: str, user: str) -> str:
        return f"{self._prefix}:{name}:{user}"


class Pyrate:
    """`pyrate-limiter` (https://pyratelimiter.readthedocs.io): one bucket for a user's requests, one for their tokens.

    Several rates of one bucket are one call of its script, so a request takes two. Buckets are its log (`RedisBucket`,
    its default), or GCRA (`StateBucket`), which it recommends for long windows, and which lets twice the limit through
    in 60 s. A `Limiter` lets its callers in one by one, so each bucket has its own. Nothing grows old within the run,
    so nothing is leaked.
    """

    def __init__(self, scene: Scene, redis_url: str, bucket: type[RedisBucket] | type[StateBucket]) -> None:
        self._client = Redis.from_url(redis_url)
        self._prefix = scene.prefix
        self._kind = bucket
        bounds = scene.bounds
        self._rates = {
            "requests": [Rate(bounds.requests_minute, Duration.MINUTE), Rate(bounds.requests_day, Duration.DAY)],
            "tokens": [Rate(bounds.tokens_minute, Duration.MINUTE), Rate(bounds.tokens_day, Duration.DAY)],
        }
        self._limiters: dict[tuple[str, str], PyrateLimiter] = {}

    async def admits(self, user: str, tokens: int) -> bool:
        for what, weight in (("requests", 1), ("tokens", tokens)):
            limiter = await self._limiter(what, user)
            if not await limiter.try_acquire_async(user, weight, blocking=False):
                return False
        return True

    async def counted(self, user: str) -> int:
        return int(await (await self._bucket("requests", user)).count())

    async def _limiter(self, what: str, user: str) -> PyrateLimiter:
        if (what, user) not in self._limiters:
            bucket = await self._bucket(what, user)
            # Another client may have made one meanwhile, which then is everybody's.
            self._limiters.setdefault((what, user), PyrateLimiter(SingleBucketFactory(bucket, schedule_leak=False)))
        return self._limiters[what, user]

    async def _bucket(self, what: str, user: str) -> Any:
        rates, key = self._rates[what], f"{self._prefix}:{what}:{user}"
        if self._kind is RedisBucket:
            return await RedisBucket.init(rates, self._client, key)
        return StateBucket(rates, store=RedisStateStore(self._client, key))


LIMITERS = {
    "quotas": "Jauge",
    "script": "Jauge's script alone",
    "limits-moving": "`limits`, moving window",
    "limits-fixed": "`limits`, fixed window",
    "throttled": "`throttled-py`, sliding window",
    "pyrate-log": "`pyrate-limiter`, log",
    "pyrate-gcra": "`pyrate-limiter`, GCRA",
}
"""Name to title."""
OURS = ("quotas", "script")


def limiter(name: str, scene: Scene, services: Services) -> Limiter:
    """A limiter of `LIMITERS`, for the event loop that runs."""
    redis_url = services.stores.redis_url
    made: dict[str, Any] = {
        "quotas": lambda: Quotas(scene, services),
        "script": lambda: Script(scene, services),
        "limits-moving": lambda: Limits(scene, redis_url, "moving-window"),
        "limits-fixed": lambda: Limits(scene, redis_url, "fixed-window"),
        "throttled": lambda: ThrottledPy(scene, redis_url),
        "pyrate-log": lambda: Pyrate(scene, redis_url, RedisBucket),
        "pyrate-gcra": lambda: Pyrate(scene, redis_url, StateBucket),
    }
    return made[name]()

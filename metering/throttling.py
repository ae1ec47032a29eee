"""How often a secret may be tried: attempts are counted in Valkey, by address and, at signing in, by what they claim.

Secrets are those of signing in, tokens that the catalogue doesn't know, and codes of activation; each is counted apart.
Attempts that succeed don't count, so that an office behind one address signs in as it likes. An attempt is counted
before it is made: who tries a thousand at once is refused like who tries one after another. What is counted is kept as
a hash. While the store is away nothing is counted: secrets can't be guessed by trying, and people must get in.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from litestar.connection import ASGIConnection

from metering.errors import Forbidden, TooMany
from metering.valkey import outages

log = structlog.get_logger(__name__)

PREFIX = "jauge:signing:"
CLAIMED_LENGTH = 14
"""How much of a token tells which one is claimed: its kind and eight characters, as the database's prefix of keys."""


@dataclass(frozen=True, slots=True)
class Bound:
    """So many attempts within a time that begins with the first."""

    attempts: int
    within_s: int


BY_ADDRESS = Bound(30, 900)
BY_CLAIM = Bound(10, 900)
TOKENS_BY_ADDRESS = Bound(100, 900)
"""Of tokens that nobody has: more than at signing in, since a program goes on asking. A token that the catalogue knows
isn't tried but found, and works from the same address all the while."""
BEGUN_BY_ADDRESS = Bound(300, 900)
"""Of sign-ins that are begun at the provider, all of which count: each is kept for some minutes."""


@dataclass(frozen=True, slots=True)
class Trying:
    """Whose attempts are counted together. kind: what of; who: an address, or what is claimed."""

    kind: str
    who: str
    bound: Bound

    @property
    def key(self) -> str:
        """Where they are counted."""
        return f"{PREFIX}{self.kind}:{hashlib.sha256(self.who.encode()).hexdigest()[:32]}"


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """Where a request comes from, as proxies that the settings trust tell it."""
    return None if connection.client is None else connection.client.host


def by_address(address: str | None, kind: str = "address", bound: Bound = BY_ADDRESS) -> Trying:
    """Attempts from an address: of IPv6 from the whole /64, which is one subscriber's."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return Trying(kind, address or "", bound)
    length = 64 if parsed.version == 6 else 32
    return Trying(kind, str(ipaddress.ip_network(f"{parsed}/{length}", strict=False)), bound)


def by_claim(token: str) -> Trying:
    """Attempts at one token, by how it begins."""
    return Trying("claim", token[:CLAIMED_LENGTH], BY_CLAIM)


class Throttle:
    """Counts attempts."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @contextmanager
    def trying(self, *them: Trying) -> Iterator[None]:
        """An attempt, which counts unless the secret proves right. Raises: TooMany."""
        for one in them:
            self.count(one)
        try:
            yield
        except Forbidden:  # it was right, and what it is of may not
            self._take_back(them)
            raise
        self._take_back(them)

    def count(self, one: Trying) -> None:
        """Count an attempt. Raises: TooMany."""
        try:
            self._client.set(one.key, 0, ex=one.bound.within_s, nx=True)
            tried = int(self._client.incr(one.key))
            left_s = int(self._client.ttl(one.key))
        except outages() as error:
            log.warning("attempts_not_counted", error=type(error).__name__)
            return
        if tried > one.bound.attempts:
            raise TooMany(
                "too_many_attempts", "There were too many attempts.", retry_after_s=max(left_s, 1),
                expected=f"at most {one.bound.attempts} within {one.bound.within_s} s",
            )  # fmt: skip

    def _take_back(self, them: Iterable[Trying]) -> None:
        try:
            for one in them:
                self._client.decr(one.key)
        except outages() as error:
            log.warning("attempts_not_counted", error=type(error).__name__)

"""What is kept for a browser while somebody signs in: in Valkey, for some minutes, readable with its cookie only."""

import hashlib
import secrets
from typing import Any

from metering.console.cookies import Purpose
from metering.errors import Unavailable
from metering.hiding import hide, shown
from metering.valkey import outages

PREFIX = "jauge:signing:kept:"
SECRET_BYTES = 32


class Keeper:
    """Keeps texts, each under a secret of its own."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def keep(self, purpose: Purpose, text: str, life_s: int) -> str:
        """Keep a text for a time, and return the secret that it is found with. Raises: Unavailable."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        try:
            self._client.set(_key(purpose, secret), hide(secret, text), ex=life_s)
        except outages():
            raise _away() from None
        return secret

    def look(self, purpose: Purpose, secret: str) -> str | None:
        """What is kept under a secret; None: nothing any more. Raises: Unavailable."""
        return self._read(self._client.get, purpose, secret)

    def take(self, purpose: Purpose, secret: str) -> str | None:
        """What is kept under a secret, for the only time. Raises: Unavailable."""
        return self._read(self._client.getdel, purpose, secret)

    def _read(self, command: Any, purpose: Purpose, secret: str) -> str | None:
        try:
            found = command(_key(purpose, secret))
        except outages():
            raise _away() from None
        return None if found is None else shown(secret, found.decode())


def _key(purpose: Purpose, secret: str) -> str:
    return f"{PREFIX}{purpose}:" + hashlib.sha256(secret.encode()).hexdigest()


def _away() -> Unavailable:
    return Unavailable("store_unavailable", "Sign-in isn't possible for the moment.", retry_after_s=5)

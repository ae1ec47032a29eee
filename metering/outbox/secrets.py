"""Secrets that are computed when they are needed, and so never stored: all come from one master key."""

import base64
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from metering.errors import Unavailable
from metering.settings import Settings

KEY_FILE = "secret-key"
CODE_BYTES = 20
"""160 bits: nothing to guess."""
_DOMAIN = b"jauge/1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger(__name__)


class MasterKey:
    """The one secret that others are derived from; None where none is configured."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "MasterKey(…)"

    def derive(self, purpose: str, *parts: bytes | str) -> bytes:
        """32 bytes for a purpose and what they are for: HMAC-SHA256 over each part with its length before it.

        Raises: Unavailable where no master key is configured.
        """
        if self._secret is None:
            raise Unavailable("no_secret_key", "JAUGE_SECRET_KEY isn't set.")
        encoded = bytearray()
        for part in (_DOMAIN, purpose, *parts):
            piece = part.encode() if isinstance(part, str) else part
            encoded += len(piece).to_bytes(8, "big") + piece
        return hmac.digest(self._secret, encoded, "sha256")

    def activation_code(self, request_id: str, expires_at: datetime) -> str:
        """Code that activates what an access request was approved for; url-safe, 27 characters. Raises: Unavailable."""
        expires_us = (expires_at - _EPOCH) // timedelta(microseconds=1)
        code = self.derive("activation", request_id, str(expires_us))[:CODE_BYTES]
        return base64.urlsafe_b64encode(code).decode().rstrip("=")

    def webhook_secret(self, webhook_id: str, salt: bytes) -> str:
        """Secret that signs the calls of a webhook, in the form of Standard Webhooks. Raises: Unavailable."""
        return "whsec_" + base64.b64encode(self.derive("webhook", webhook_id, salt)).decode()


def code_digest(code: str) -> bytes:
    """What is stored of a code: its SHA-256."""
    return hashlib.sha256(code.encode()).digest()


def load_master_key(settings: Settings) -> MasterKey:
    """The key of the settings; with the embedded database, one made in its folder at the first need.

    With an external database and no setting there is none: a key on one machine would be missing on the next.
    """
    if settings.secret_key is not None:
        return MasterKey(settings.secret_key.get_secret_value().encode())
    if settings.database_url is not None:
        return MasterKey(None)
    return MasterKey(key_of_folder(settings.data))


def key_of_folder(folder: Path) -> bytes:
    """The key in a data folder, made if there is none yet."""
    path = folder / KEY_FILE
    if not path.exists():
        _make_key(path)
    if path.stat().st_mode & 0o077:
        log.warning("secret_key_was_readable", file=KEY_FILE)
        path.chmod(0o600)
    return path.read_bytes().strip()


def _make_key(path: Path) -> None:
    """Write a new key, whole or not at all; where two processes do so at once, the first one's stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()

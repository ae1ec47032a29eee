"""Digests of the keys that an OpenGateLLM has issued.

The gateway keeps of a key its first and last 8 characters. The key is a JSON Web Token signed with the gateway's own
secret (`auth_secret_key`, before 2026 `master_key`) over claims that it does keep, so whoever has that secret can make
the key again. What is made is compared with the characters that were kept: the last 8 are 48 bits of the signature.

Source: `JwtKeyEncoder` and `IdentityAccessManager._encode_token` of the gateway; `jose/jws.py` of python-jose, which
has written the header in both orders.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping

from metering.imports.directory import Token

KEY_PREFIX = "sk-"
PREFIX_CHARACTERS = 8

_HEADERS = ({"alg": "HS256", "typ": "JWT"}, {"typ": "JWT", "alg": "HS256"})
_END_CLAIMS = ("expires", "expires_at")


def digest_of_token(token: Token, secret: bytes) -> str | None:
    """SHA-256 of a key, in hexadecimal; None if this secret didn't sign it."""
    for key in _candidates(token, secret):
        if f"{key[:8]}...{key[-8:]}" == token.shown:
            return hashlib.sha256(key.encode()).hexdigest()
    return None


def _candidates(token: Token, secret: bytes) -> Iterator[str]:
    ends_at_s = None if token.expires_at is None else int(token.expires_at.timestamp())
    for end_claim in _END_CLAIMS:
        claims = {"user_id": token.user_id, "token_id": token.id, end_claim: ends_at_s}
        for header in _HEADERS:
            signed = f"{_part(header)}.{_part(claims)}"
            signature = hmac.digest(secret, signed.encode(), "sha256")
            yield f"{KEY_PREFIX}{signed}.{_base64(signature)}"


def _part(content: Mapping[str, object]) -> str:
    return _base64(json.dumps(content, separators=(",", ":")).encode())


def _base64(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()

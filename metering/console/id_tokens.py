"""What an identity provider signed, checked: by whom, for whom, for which attempt, and until when."""

from collections.abc import Collection, Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from metering.errors import Forbidden

LEEWAY_S = 60
"""How far the provider's clock may be from ours."""
AGE_S_MAX = 600
"""How long after it was issued an identity token may arrive: it is fetched at once."""

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"})
"""Signatures by a key of the provider's own. Those by the shared secret, and none at all, aren't among them."""


class UnknownKeyError(Exception):
    """The provider's keys, as they are known, don't hold the one that signed."""


def check_id_token(
    text: str, keys: KeySet, *, issuer: str, audience: str, nonce: str, algorithms: Collection[str], now: int
) -> Mapping[str, Any]:
    """Claims of an identity token. Raises: UnknownKeyError; Forbidden, whose detail says which claim doesn't hold."""
    claims = _signed_claims(text, keys, algorithms)
    registry = jwt.JWTClaimsRegistry(
        now=now, leeway=LEEWAY_S, iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience},
        exp={"essential": True}, iat={"essential": True}, sub={"essential": True},
        nonce={"essential": True, "value": nonce},
    )  # fmt: skip
    _validate(registry, claims)
    is_shared = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if is_shared else audience) != audience:
        raise _refusal("azp")
    if claims["iat"] < now - AGE_S_MAX:
        raise _refusal("iat")
    if not isinstance(claims["sub"], str):
        raise _refusal("sub")
    return claims


def check_userinfo(
    text: str, keys: KeySet, *, issuer: str, audience: str, algorithms: Collection[str], now: int
) -> Mapping[str, Any]:
    """Claims of a signed answer about somebody. Raises: UnknownKeyError; Forbidden."""
    claims = _signed_claims(text, keys, algorithms)
    registry = jwt.JWTClaimsRegistry(
        now=now, leeway=LEEWAY_S, iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience}
    )
    _validate(registry, claims)
    return claims


def _signed_claims(text: str, keys: KeySet, algorithms: Collection[str]) -> Mapping[str, Any]:
    try:
        return jwt.decode(text, keys, algorithms=list(algorithms)).claims
    except InvalidKeyIdError:
        raise UnknownKeyError from None
    except (JoseError, ValueError) as error:
        raise _refusal(getattr(error, "error", "unreadable")) from None


def _validate(registry: jwt.JWTClaimsRegistry, claims: Mapping[str, Any]) -> None:
    try:
        registry.validate(dict(claims))
    except JoseError as error:
        raise _refusal(str(getattr(error, "claim", None) or error.error)) from None


def _refusal(what: str) -> Forbidden:
    return Forbidden("identity_token", f"What the identity provider signed doesn't hold ({what}).")

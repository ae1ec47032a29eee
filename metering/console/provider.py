"""An OpenID Connect provider: the authorization code flow with PKCE, as ProConnect's profile wants it.

Its addresses and keys are read once an hour, and its keys once more where one isn't known. Nothing that it answers is
logged: only what went wrong, by name.
"""

import hashlib
import secrets
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from metering.console.id_tokens import UnknownKeyError, check_id_token, check_userinfo
from metering.errors import Forbidden, Unavailable

TIMEOUT_S = 10
KNOWN_S = 3600
"""How long addresses and keys of a provider are taken as they were read."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """What we are at a provider, and what we ask it for. name: as people know it."""

    name: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: str
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that somebody began: what must come back with the answer, and with the identity."""

    state: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identified:
    """Who the provider says it is. claims: of the identity token and of its answer about the person."""

    claims: Mapping[str, Any] = field(repr=False)
    id_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Known:
    metadata: Mapping[str, Any]
    keys: KeySet
    until: float


class Provider:
    """One provider, for all threads."""

    def __init__(self, profile: Profile, now: Callable[[], float] = time.time) -> None:
        self.profile = profile
        self._now = now
        self._client = httpx.Client(timeout=TIMEOUT_S)
        self._reading = threading.Lock()
        self._known: _Known | None = None

    def begin(self, redirect_uri: str) -> tuple[str, Begun]:
        """Address at the provider that a browser is led to, and what to remember of it. Raises: Unavailable."""
        begun = Begun(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))
        challenge = urlsafe_b64encode(hashlib.sha256(begun.verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code", "client_id": self.profile.client_id, "redirect_uri": redirect_uri,
            "scope": self.profile.scopes, "state": begun.state, "nonce": begun.nonce, "code_challenge": challenge,
            "code_challenge_method": "S256",
        }  # fmt: skip
        return _with(self._metadata()["authorization_endpoint"], asked), begun

    def finish(self, code: str, begun: Begun, redirect_uri: str) -> Identified:
        """Who came back with a code. Raises: Forbidden, if anything doesn't hold; Unavailable."""
        given = self._exchange(code, begun, redirect_uri)
        id_token = str(given.get("id_token", ""))
        identity = self._checked(lambda keys: check_id_token(id_token, keys, nonce=begun.nonce, **self._expected()))
        person = self._person(str(given.get("access_token", "")))
        if person.get("sub") != identity["sub"]:
            raise Forbidden("identity_token", "The identity provider speaks of two people (sub).")
        return Identified({**identity, **person}, id_token)

    def end_session_url(self, id_token: str, back: str) -> str | None:
        """Address at which a browser signs out at the provider too; None: it has none, or can't be asked."""
        try:
            address = self._metadata().get("end_session_endpoint")
        except Unavailable:
            return None
        # Nothing follows from the way back, so the state is one that nobody remembers; ProConnect wants one.
        asked = {"id_token_hint": id_token, "post_logout_redirect_uri": back, "state": secrets.token_urlsafe(32)}
        return None if address is None else _with(address, asked)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _expected(self) -> dict[str, Any]:
        own = self.profile
        return {
            "issuer": own.issuer, "audience": own.client_id, "algorithms": own.algorithms, "now": int(self._now())
        }  # fmt: skip

    def _exchange(self, code: str, begun: Begun, redirect_uri: str) -> Mapping[str, Any]:
        own, metadata = self.profile, self._metadata()
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri,
            "code_verifier": begun.verifier,
        }  # fmt: skip
        login: httpx.BasicAuth | None = None
        if "client_secret_post" in metadata.get("token_endpoint_auth_methods_supported", ()):
            form |= {"client_id": own.client_id, "client_secret": own.client_secret}
        else:  # what a provider takes that names nothing
            login = httpx.BasicAuth(own.client_id, own.client_secret)
        answer = self._ask("POST", metadata["token_endpoint"], data=form, auth=login)
        return _document(answer)

    def _person(self, access_token: str) -> Mapping[str, Any]:
        """What the provider says of a person: as JSON, or signed, as ProConnect does."""
        headers = {"Authorization": f"Bearer {access_token}"}
        answer = self._ask("GET", self._metadata()["userinfo_endpoint"], headers=headers)
        if answer.headers.get("content-type", "").partition(";")[0].strip() == "application/jwt":
            return self._checked(lambda keys: check_userinfo(answer.text, keys, **self._expected()))
        return _document(answer)

    def _checked(self, check: Callable[[KeySet], Mapping[str, Any]]) -> Mapping[str, Any]:
        """What a check makes of the provider's keys; they are read again where one is missing, once."""
        try:
            return check(self._read_or_known().keys)
        except UnknownKeyError:
            pass
        try:
            return check(self._read_or_known(anew=True).keys)
        except UnknownKeyError:
            raise Forbidden("identity_token", "The identity provider signed with a key that it doesn't name.") from None

    def _metadata(self) -> Mapping[str, Any]:
        return self._read_or_known().metadata

    def _read_or_known(self, *, anew: bool = False) -> _Known:
        with self._reading:
            if self._known is None or anew or self._now() >= self._known.until:
                self._known = self._read()
            return self._known

    def _read(self) -> _Known:
        issuer = self.profile.issuer
        metadata = _document(self._ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
        needed = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri")
        if metadata.get("issuer") != issuer or not all(isinstance(metadata.get(name), str) for name in needed):
            raise _away("the provider describes itself as another one")
        keys = _document(self._ask("GET", metadata["jwks_uri"]))
        try:
            return _Known(metadata, KeySet.import_key_set(dict(keys)), self._now() + KNOWN_S)  # type: ignore[arg-type]
        except (JoseError, KeyError, TypeError, ValueError):
            raise _away("its keys can't be read") from None

    def _ask(self, method: str, url: str, **options: Any) -> httpx.Response:
        """An answer of success. Raises: Forbidden for a refusal of the provider's; Unavailable."""
        try:
            answer = self._client.request(method, url, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _away(type(error).__name__) from None
        if answer.status_code in {400, 401, 403}:
            raise Forbidden("provider_refused", f"The identity provider refused (HTTP {answer.status_code}).")
        if answer.status_code != httpx.codes.OK:
            raise _away(f"HTTP {answer.status_code}")
        return answer


def _document(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        raise _away("its answer isn't JSON") from None
    if not isinstance(document, dict):
        raise _away("its answer isn't an object")
    return document


def _with(address: str, values: Mapping[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(values)}"


def _away(why: str) -> Unavailable:
    log.warning("identity_provider_away", why=why)
    return Unavailable("provider_unavailable", "The identity provider can't be reached.", retry_after_s=30)

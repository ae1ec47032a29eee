"""A client of Chorus Pro: the State's portal takes deposits of invoices and says what became of them.

Two credentials go with each call: a token of PISTE (OAuth 2, client credentials), and the technical account's name
and password. None of them is ever logged or part of an error; neither is an answer's text. A call may answer 200 and
still refuse, by a `codeRetour` that isn't 0.
"""

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from metering.errors import Unavailable, Unprocessable
from metering.settings import Settings

Syntax = Literal["IN_DP_E2_CII_FACTURX", "IN_DP_E1_UBL_INVOICE"]
"""What a deposited file is: a PDF with its CII inside, or UBL."""

DEPOSIT_PATH = "/cpro/factures/v1/deposer/flux"
STATUS_PATH = "/cpro/transverses/v1/consulterCR"
TIMEOUT_S = 30.0
ATTEMPTS_MAX = 4
WAIT_S = 1.0
"""Before a second attempt; twice as long before each after that."""
WAIT_S_MAX = 60.0
TOKEN_MARGIN_S = 60.0
NOT_TAKEN = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})
"""Answers that say that nothing was done."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where Chorus Pro is, and who we are there."""

    url: str
    token_url: str
    client_id: str
    client_secret: str
    login: str
    password: str

    def __repr__(self) -> str:
        return f"Account({self.url})"


def account_of(settings: Settings) -> Account:
    """Who the settings say we are. Raises: Unprocessable where one of them is missing."""
    secrets = (settings.chorus_client_secret, settings.chorus_password)
    named = (settings.chorus_url, settings.chorus_token_url, settings.chorus_client_id, settings.chorus_login)
    if not all(named) or not all(secrets):
        raise Unprocessable("chorus_unset", "Chorus Pro isn't set up.", expected="all settings JAUGE_CHORUS_*")
    url, token_url, client_id, login = (value or "" for value in named)
    secret, password = (value.get_secret_value() if value else "" for value in secrets)
    return Account(url, token_url, client_id, secret, login, password)


@dataclass(frozen=True, slots=True)
class Flow:
    """What Chorus Pro calls a deposit. state: its own word for it, null until it is asked for."""

    number: str
    deposited_on: str | None
    state: str | None = None


class DepositUnknown(Unavailable):
    """The answer was lost: the deposit may have been taken."""


class ChorusPro:
    """Calls, one after the other. A call is repeated only where nothing of it can have been done."""

    def __init__(
        self,
        account: Account,
        http: httpx.Client,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._account, self._http, self._sleep, self._clock = account, http, sleep, clock
        self._token, self._token_until = "", 0.0

    def deposit(self, name: str, content: bytes, syntax: Syntax) -> Flow:
        """Deposit a file. Raises: Unavailable where it wasn't taken, DepositUnknown, Unprocessable."""
        body = {
            "idUtilisateurCourant": 0,
            "fichierFlux": base64.b64encode(content).decode(),
            "nomFichier": name,
            "syntaxeFlux": syntax,
            "avecSignature": False,
        }
        answer = self._call(DEPOSIT_PATH, body, is_safe=False)
        return Flow(_text(answer, "numeroFluxDepot"), answer.get("dateDepot"))

    def status(self, number: str) -> Flow:
        """What became of a deposit. Raises: Unavailable, Unprocessable."""
        answer = self._call(STATUS_PATH, {"numeroFluxDepot": number}, is_safe=True)
        return Flow(number, answer.get("dateDepotFlux"), _text(answer, "etatCourantFlux"))

    def _call(self, path: str, body: Mapping[str, Any], *, is_safe: bool) -> dict[str, Any]:
        account = base64.b64encode(f"{self._account.login}:{self._account.password}".encode()).decode()
        headers = {"Authorization": f"Bearer {self._fresh_token()}", "cpro-account": account}
        answer = self._send(self._account.url.rstrip("/") + path, is_safe=is_safe, json=body, headers=headers)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._token = ""
        if answer.is_server_error and not is_safe:
            raise _unknown()
        content = _read(answer)
        code = content.get("codeRetour", 0)
        if not answer.is_success or code != 0:
            said = code if isinstance(code, int) and answer.is_success else f"HTTP {answer.status_code}"
            raise Unprocessable("chorus_refused", f"Chorus Pro refused the call ({said}).")
        return content

    def _fresh_token(self) -> str:
        if self._token and self._clock() < self._token_until:
            return self._token
        form = {
            "grant_type": "client_credentials",
            "client_id": self._account.client_id,
            "client_secret": self._account.client_secret,
            "scope": "openid",
        }
        answer = self._send(self._account.token_url, is_safe=True, data=form)
        content = _read(answer) if answer.is_success else {}
        token = content.get("access_token")
        if not isinstance(token, str):
            raise Unprocessable("chorus_credentials", f"PISTE gave no token (HTTP {answer.status_code}).")
        self._token = token
        self._token_until = self._clock() + float(content.get("expires_in", 0)) - TOKEN_MARGIN_S
        return self._token

    def _send(self, url: str, *, is_safe: bool, **request: Any) -> httpx.Response:
        """An answer, after some attempts. is_safe: whether a call that may have been taken is repeated."""
        wait_s = WAIT_S
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                answer = self._http.post(url, timeout=TIMEOUT_S, **request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                pause_s = wait_s
            except httpx.HTTPError:
                if not is_safe:
                    raise _unknown() from None
                pause_s = wait_s
            else:
                is_over = answer.status_code not in NOT_TAKEN and not (is_safe and answer.is_server_error)
                if is_over:
                    return answer
                pause_s = _asked_wait(answer, wait_s)
            if attempt < ATTEMPTS_MAX:
                self._sleep(min(pause_s, WAIT_S_MAX))
                wait_s *= 2
        raise Unavailable("chorus_away", "Chorus Pro doesn't answer, and took nothing.", retry_after_s=300)


def _unknown() -> DepositUnknown:
    return DepositUnknown("chorus_unknown", "Chorus Pro's answer was lost: the deposit may have been taken.")


def _asked_wait(answer: httpx.Response, otherwise_s: float) -> float:
    asked = answer.headers.get("Retry-After", "")
    return float(asked) if asked.isascii() and asked.isdecimal() else otherwise_s


def _read(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {}


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    if isinstance(value, str | int) and str(value):
        return str(value)
    raise _unknown()

"""A real OpenID Connect provider on the loopback, whose answers a test may change on their way out."""

import hashlib
import json
import os
import threading
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import flask
import httpx
from werkzeug.serving import make_server

CLIENT, SECRET = "jauge-tests", "a secret that no log may hold"
Change = Callable[[dict[str, Any]], "dict[str, Any] | bytes"]


@dataclass
class ProviderServer:
    """The served provider. changes: by path, what an answer becomes; bytes are sent as a signed document (JWT)."""

    issuer: str
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)
    changes: dict[str, Change] = field(default_factory=dict)

    def add(self, subject: str, **claims: Any) -> None:
        """Somebody who can sign in there."""
        httpx.put(f"{self.issuer}/users/{subject}", json=claims).raise_for_status()

    def consent(self, url: str, subject: str) -> str:
        """What somebody does there with a browser: they sign in. Returns where they are led back to."""
        answer = httpx.post(url, data={"sub": subject})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def form_of(self, path: str) -> dict[str, str]:
        """The last form that was sent to a path."""
        return {name: value for name, (value,) in next(form for at, form in reversed(self.asked) if at == path).items()}

    def forget(self) -> None:
        self.asked.clear()
        self.changes.clear()


def check_possession(app: flask.Flask) -> None:
    """Give a code's token to who can show the verifier of its challenge only (RFC 7636), which the package doesn't."""
    challenges: dict[str, str] = {}

    @app.after_request
    def remember(response: flask.Response) -> flask.Response:
        if flask.request.path == "/oauth2/authorize" and response.status_code == 302:
            challenges[query_of(response.location)["code"]] = flask.request.args["code_challenge"]
        return response

    @app.before_request
    def check() -> tuple[dict[str, str], int] | None:
        if flask.request.path != "/oauth2/token":
            return None
        sent = flask.request.form
        shown = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        if challenges.get(sent.get("code", "")) == urlsafe_b64encode(shown).rstrip(b"=").decode():
            return None
        return {"error": "invalid_grant"}, 400


@contextmanager
def serving_provider(*, life: timedelta = timedelta(hours=1)) -> Iterator[ProviderServer]:
    """The provider of oidc-provider-mock. life: of its tokens."""
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from oidc_provider_mock import app as provider_app
    app = provider_app(require_nonce=True, access_token_max_age=life)
    check_possession(app)
    served = ProviderServer("")

    @app.after_request
    def change(response: flask.Response) -> flask.Response:
        served.asked.append((flask.request.path, flask.request.form.to_dict(flat=False)))
        if (changed := served.changes.get(flask.request.path)) is not None:
            told = changed(json.loads(response.get_data()))
            response.content_type = "application/jwt" if isinstance(told, bytes) else "application/json"
            response.set_data(told if isinstance(told, bytes) else json.dumps(told))
        return response

    server = make_server("127.0.0.1", 0, app, threaded=True)
    served.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join(timeout=20)


def query_of(url: str) -> dict[str, str]:
    """Parameters of an address."""
    return {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}

"""Cookies of the pages: the one that holds a session's secret, and those of somebody who is signing in."""

from typing import Any, Literal

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie

from metering.browsers import cookie_name, is_https
from metering.settings import Settings

Purpose = Literal["attempt", "person"]
"""Of what is kept while somebody signs in: an attempt at the provider, or who it says a person without account is."""


def session_cookie(settings: Settings, secret: str) -> Cookie:
    """No script reads it, no other site sends it with a form, and it goes when the browser closes."""
    return _cookie(settings, cookie_name(settings), secret)


def no_session_cookie(settings: Settings) -> Cookie:
    """Takes the cookie away."""
    return _gone(session_cookie(settings, ""))


def kept_cookie(settings: Settings, purpose: Purpose, secret: str) -> Cookie:
    """Holds the secret of what is kept for a browser. It must come back with the provider's answer, hence lax."""
    return _cookie(settings, _kept_name(settings, purpose), secret)


def no_kept_cookie(settings: Settings, purpose: Purpose) -> Cookie:
    """Takes the cookie away."""
    return _gone(kept_cookie(settings, purpose, ""))


def kept_secret(connection: ASGIConnection[Any, Any, Any, Any], purpose: Purpose) -> str | None:
    """The secret of what is kept for a browser, if it sends one."""
    return connection.cookies.get(_kept_name(connection.app.state.settings, purpose)) or None


def _kept_name(settings: Settings, purpose: Purpose) -> str:
    return f"{cookie_name(settings)}-{purpose}"


def _cookie(settings: Settings, name: str, value: str) -> Cookie:
    return Cookie(key=name, value=value, path="/", secure=is_https(settings), httponly=True, samesite="lax")


def _gone(cookie: Cookie) -> Cookie:
    cookie.max_age = 0
    return cookie

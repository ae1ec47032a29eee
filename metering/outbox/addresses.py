"""Where webhooks may lead: to public addresses over https, so that nobody reaches the platform's inside through us.

A name is resolved once, all its addresses are checked, and the connection goes to one of those: a name that answers
differently the second time gains nothing.
"""

import ipaddress
import socket
from typing import NewType

import httpx

from metering.errors import Unprocessable

URL_LENGTH_MAX = 2_000
PORT_MAX = 65_535
_HTTPS_PORT = 443
_HTTP_PORT = 80

_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")
_IPV6_TO_IPV4 = ipaddress.IPv6Network("2002::/16")

CheckedUrl = NewType("CheckedUrl", str)
"""The address of a webhook that `check_url` found good."""


def check_url(url: str, *, private_allowed: bool) -> CheckedUrl:
    """Check the address of a webhook; asks the name service, so call it outside any transaction.

    private_allowed: accept plain http and addresses of the inside, for development.
    Raises: Unprocessable.
    """
    parsed = parse_url(url, private_allowed=private_allowed)
    try:
        found = socket.getaddrinfo(parsed.host, port_of(parsed), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unprocessable("unknown_host", "The name of the host leads nowhere.", field="url") from error
    if not private_allowed and not all(is_public(str(entry[4][0])) for entry in found):
        raise Unprocessable("private_address", "The address isn't public.", field="url", expected="a public address")
    return CheckedUrl(url)


def parse_url(url: str, *, private_allowed: bool) -> httpx.URL:
    """Read the address of a webhook. Raises: Unprocessable for one of another form."""
    schemes = ("https", "http") if private_allowed else ("https",)
    try:
        parsed = httpx.URL(url)
        good = (
            len(url) <= URL_LENGTH_MAX
            and url.isprintable()
            and " " not in url
            and parsed.scheme in schemes
            and bool(parsed.host)
            and 0 < port_of(parsed) <= PORT_MAX
            and not parsed.userinfo
            and not parsed.fragment
        )
    except (httpx.InvalidURL, UnicodeError):
        good = False
    if not good:
        raise Unprocessable(
            "invalid_webhook_url", "The address can't be called.", field="url",
            expected=f"{' or '.join(schemes)}://HOST/…, at most {URL_LENGTH_MAX} characters, no password, no fragment",
        )  # fmt: skip
    return parsed


def port_of(url: httpx.URL) -> int:
    """Port that a URL leads to."""
    default = _HTTPS_PORT if url.scheme == "https" else _HTTP_PORT
    return default if url.port is None else url.port


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet at large.

    Of IPv6, only global unicast: what else is routed (IPv4 inside IPv6, translation prefixes) may lead to the inside.
    """
    parsed = ipaddress.ip_address(address)
    if not parsed.is_global or parsed.is_multicast:
        return False
    return isinstance(parsed, ipaddress.IPv4Address) or (parsed in _IPV6_UNICAST and parsed not in _IPV6_TO_IPV4)

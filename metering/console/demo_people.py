"""The demo's switch between its kinds of people: a sign-in without a password, on the loopback and nowhere else.

`jauge demo` names the accounts in a setting; without it there is no such sign-in, and a server that others reach
refuses to start with it.
"""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from litestar import MediaType, Request, Response, Router, post

from metering.catalog.snapshot import TokenEntry
from metering.catalog.tokens import principal_of
from metering.console.acting import form_of
from metering.console.guards import require_own_page
from metering.console.returning import safe_path
from metering.console.signing_in import BODY_BYTES_MAX, welcome
from metering.errors import Forbidden, JaugeError, NotFound, Unprocessable
from metering.identity import Principal
from metering.settings import Settings
from reports.frame import SIGN_IN_DEMO
from reports.rendering import answer_error

OPERATOR = Principal("demo", "operator")


@post(SIGN_IN_DEMO, guards=[require_own_page], include_in_schema=False, media_type=MediaType.HTML)
async def become(request: Request[Any, Any, Any]) -> Response[Any]:
    form = await form_of(request)
    who = _person(request, form.get("who", ""))
    return await welcome(request, who, "demo", safe_path(form.get("next")))


def _person(request: Request[Any, Any, Any], kind: str) -> Principal:
    """Somebody of the demo. Raises: NotFound where there is no demo; Forbidden for a host that isn't the loopback's.

    The host is looked at, since a name of somebody else's that leads to the loopback makes our pages theirs.
    """
    accounts = request.app.state.settings.demo_accounts
    if not accounts or kind not in {"operator", *accounts}:
        raise NotFound("no_demo", "There is no such sign-in.")
    if not is_loopback(urlsplit(f"//{request.headers.get('host', '')}").hostname or ""):
        raise Forbidden("csrf", "The demo answers under names of the loopback only.", field="Host")
    if kind == "operator":
        return OPERATOR
    catalog = request.app.state.catalog.current()
    account = catalog.accounts[accounts[kind]]
    return principal_of(TokenEntry(account.id, "account", account.tenant, account.id, None, None), catalog)


def check_demo_host(settings: Settings, host: str) -> None:
    """Raises: Unprocessable if others than this machine could reach a sign-in without a password."""
    if settings.demo_accounts and not is_loopback(host):
        raise Unprocessable(
            "demo_not_private", "The demo signs people in without a password.", field="host",
            expected="an address of the loopback",
        )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether a host is this machine to itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


demo_router = Router(
    "/",
    route_handlers=[become],
    exception_handlers={JaugeError: answer_error},
    request_max_body_size=BODY_BYTES_MAX,
)

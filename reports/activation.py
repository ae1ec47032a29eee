"""The page that an activation mail leads to, at `/activation`.

Opening it only puts the code of its address into a form: programs that check the links of mails open them too, and
must not use a code up. Sending the form activates, and shows the token, this once. Nothing but the form repeats a code.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlencode

import structlog
from litestar import MediaType, Request, Response, Router, get, post
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State
from litestar.enums import RequestEncodingType

from metering.errors import JaugeError, Unavailable
from reports.frame import asked_language, frame_of
from reports.rendering import SECURITY_HEADERS, render, request_id_of
from reports.selection import ZONE
from reports.wording import LANGUAGES, Language, moment, say

log = structlog.get_logger(__name__)

PATH = "/activation"
CODE_LENGTH_MAX = 200
BODY_BYTES_MAX = 4096
"""Of the form: it holds a code."""

HEADERS: Mapping[str, str] = {
    **SECURITY_HEADERS,
    # The address holds a code, and the answer a token: neither goes further.
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

REFUSALS: Mapping[str, tuple[str, str]] = {
    "unknown_code": ("activation.unknown", "activation.check"),
    "code_used": ("activation.used", "activation.again"),
    "code_expired": ("activation.expired", "activation.again"),
    "too_many_attempts": ("refused.too_many_attempts", "activation.later"),
    "tenant_suspended": ("activation.tenant_suspended", "activation.ask_operator"),
    "account_suspended": ("activation.account_suspended", "activation.ask_manager"),
}
"""By the code of the error: what is wrong, and what to do."""


class Activated(Protocol):
    """An account that was opened, or got a new token."""

    @property
    def account(self) -> str:
        """Its pseudonym."""

    @property
    def tenant(self) -> str:
        """Id of its administration."""

    @property
    def token(self) -> str:
        """The secret."""

    @property
    def expires_at(self) -> datetime:
        """End of the token."""


Activate = Callable[[Request[Any, Any, Any], str], Activated]
"""Uses a code up. Raises: JaugeError. Called in a thread, with the request that sent it."""


def activation_pages(activate: Activate) -> Router:
    """The page and its form. Needs `settings` in the application's state."""

    @get(PATH, include_in_schema=False, media_type=MediaType.HTML, name="activation_page")
    async def activation_page(request: Request[Any, Any, Any]) -> Response[str]:
        return _form(request, request.query_params.get("code", "").strip())

    @post(PATH, include_in_schema=False, media_type=MediaType.HTML, name="activation_form")
    async def activation_form(request: Request[Any, Any, Any], state: State) -> Response[str]:
        code = await _sent_code(request)
        if not code:
            return _form(request, "", is_missing=True)
        try:
            activated = await sync_to_thread(activate, request, code)
        except JaugeError as error:
            return _refusal(request, error)
        return _welcome(request, activated, state.settings.public_url.rstrip("/"))

    return Router(
        path="/",
        route_handlers=[activation_page, activation_form],
        request_max_body_size=BODY_BYTES_MAX,
    )


async def _sent_code(request: Request[Any, Any, Any]) -> str:
    """The code of the form, without the spaces that copying adds; empty where the body is no form or has none."""
    if request.content_type[0] != RequestEncodingType.URL_ENCODED:
        return ""
    return str((await request.form()).get("code", "")).strip()


def _form(request: Request[Any, Any, Any], code: str, *, is_missing: bool = False) -> Response[str]:
    """The field with a code in it. is_missing: the form was sent without one."""
    fitting = code if len(code) <= CODE_LENGTH_MAX else ""
    status = 400 if is_missing else 200
    return _answer(request, "form", status=status, code=fitting, is_missing=is_missing, code_length_max=CODE_LENGTH_MAX)


def _welcome(request: Request[Any, Any, Any], activated: Activated, public_url: str) -> Response[str]:
    """The token, and what to do with it. public_url: where the calls that are shown go."""
    until = moment(activated.expires_at, ZONE, asked_language(request))
    return _answer(request, "welcome", activated=activated, until=until, public_url=public_url)


def _refusal(request: Request[Any, Any, Any], error: JaugeError) -> Response[str]:
    language, request_id = asked_language(request), request_id_of(request)
    log.warning("account_not_activated", code=error.code, request_id=request_id)
    if isinstance(error, Unavailable):
        sentences = [say(language, "error.unavailable"), say(language, "activation.later")]
    elif error.code in REFUSALS:
        sentences = [say(language, key) for key in REFUSALS[error.code]]
    else:
        sentences = [say(language, "error.rule", detail=error.detail)]
    response = _answer(request, "refusal", status=error.status, sentences=sentences, request_id=request_id)
    if error.retry_after_s is not None:
        response.set_header("Retry-After", str(error.retry_after_s))
    return response


def _answer(
    request: Request[Any, Any, Any], view: str, *, status: int = 200, code: str = "", **values: object
) -> Response[str]:
    """One of the views of the page. code: stays in the form when the reader changes its language."""
    language = asked_language(request)
    kept = {"code": code} if code else {}
    urls: dict[Language, str] = {other: f"{PATH}?{urlencode({**kept, 'lang': other})}" for other in LANGUAGES}
    html = render("activation.html", frame_of(request, language, urls), view=view, path=PATH, code=code, **values)
    headers = {**HEADERS, "Content-Language": language}
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=headers)

"""How a page becomes an answer: its template in the frame, its headers, and the page that says what went wrong."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import MediaType, Request, Response
from litestar.concurrency import sync_to_thread

from metering.errors import Forbidden, JaugeError, NotFound, Unavailable
from metering.identity import Principal
from reports.explorer import script_url
from reports.frame import Frame, asked_language, frame_of, own_urls
from reports.selection import ZONE, BadSelection
from reports.wording import LANGUAGES, Language, say

log = structlog.get_logger(__name__)

HERE = Path(__file__).parent
STATIC = HERE / "static"

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; font-src 'self'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # What one administration consumes must not stay in a shared cache.
    "Cache-Control": "private, no-store",
    "Vary": "Accept-Language, Cookie",
}
SCRIPT_POLICY = f"{SECURITY_HEADERS['Content-Security-Policy']}; script-src 'self'"
"""Policy of a page with an open explorer: scripts of our own address, none inline and none that makes code of text."""


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style_url"] = f"/static/jauge.css?v={_fingerprint('jauge.css')}"
    environment.globals["state_style_url"] = f"/static/state.css?v={_fingerprint('state.css')}"
    environment.globals["explorer_url"] = script_url()
    environment.globals["icon_url"] = f"/static/icon.svg?v={_fingerprint('icon.svg')}"
    return environment


def _fingerprint(name: str) -> str:
    """Changes with the file, so that browsers may keep it for as long as they like."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def render(template: str, frame: Frame, **context: object) -> str:
    """HTML of a template. Every page gets its frame, the words of its language and the zone."""
    language = frame.language
    return (
        _templates()
        .get_template(template)
        .render(t=partial(say, language), language=language, frame=frame, zone=ZONE.key, **context)
    )


def html(text: str, language: Language, *, status: int = 200) -> Response[str]:
    """HTML as an answer, with the headers of every page."""
    headers = {**SECURITY_HEADERS, "Content-Language": language}
    return Response(text, status_code=status, media_type=MediaType.HTML, headers=headers)


Build = Callable[[Language, Principal], Mapping[str, object]]
"""What a page shows to a reader in a language: the values of its template. Raises: JaugeError, BadSelection."""


async def answer_page(request: Request[Any, Any, Any], template: str, build: Build) -> Response[str]:
    """A page, built in a thread, or the page that says what went wrong."""
    language = asked_language(request)
    try:
        context = await sync_to_thread(build, language, request.scope["state"]["principal"])
    except BadSelection as error:
        return answer_bad(request, error)
    except JaugeError as error:
        return answer_error(request, error)
    return html(render(template, frame_of(request, language), **context), language)


def answer_error(request: Request[Any, Any, Any], error: JaugeError, back_url: str | None = None) -> Response[str]:
    """The page that says what went wrong. back_url: of the page without its parameters, by default."""
    language, request_id = asked_language(request), request_id_of(request)
    log.warning("page_not_shown", code=error.code, request_id=request_id)
    back = back_url or f"{request.url.path}?lang={language}"
    frame = frame_of(request, language, {other: f"{request.url.path}?lang={other}" for other in LANGUAGES})
    text = render_error(frame, [sentence_of(error, language)], request_id, back, has_bad_parameters=False)
    # 422 is for programs that sent a document; a page's parameters are its address.
    response = html(text, language, status=400 if error.status == 422 else error.status)
    if error.retry_after_s is not None:
        response.set_header("Retry-After", str(error.retry_after_s))
    return response


def answer_fault(request: Request[Any, Any, Any], status: int) -> Response[str]:
    """The page that says that a request came to nothing, by its status alone: nothing of a fault is shown.

    Its frame has no reader and leads to no page: what is at fault may be what they are read from.
    """
    language, request_id = asked_language(request), request_id_of(request)
    key = "error.fault" if status >= 500 else "error.no_page" if status in {404, 405} else "error.request_wrong"
    frame = Frame(language, own_urls(request), path=request.url.path)
    text = render_error(frame, [say(language, key)], request_id, f"/?lang={language}", has_bad_parameters=False)
    return html(text, language, status=status)


def answer_bad(request: Request[Any, Any, Any], error: BadSelection) -> Response[str]:
    """The page that says which parameters of an address can't be read."""
    language, path = asked_language(request), request.url.path
    frame = frame_of(request, language, {other: f"{path}?lang={other}" for other in LANGUAGES})
    back = f"{path}?lang={language}"
    text = render_error(frame, error.sentences, request_id_of(request), back, has_bad_parameters=True)
    return html(text, language, status=400)


def render_error(
    frame: Frame, sentences: Sequence[str], request_id: str, back_url: str, *, has_bad_parameters: bool
) -> str:
    """HTML of the page that says what went wrong, and under which request id the log knows it."""
    return render(
        "error.html",
        frame,
        sentences=sentences,
        request_id=request_id,
        has_bad_parameters=has_bad_parameters,
        back_url=back_url,
    )


_SENTENCES: Mapping[str, str] = {
    "not_yours": "error.not_yours",
    "wrong_role": "error.wrong_role",
    "csrf": "error.csrf",
    "account_suspended": "error.account_suspended",
    "tenant_suspended": "error.tenant_suspended",
}


def sentence_of(error: JaugeError, language: Language) -> str:
    """What an error means for the reader of a page."""
    if isinstance(error, Unavailable):
        return say(language, "error.unavailable")
    if isinstance(error, Forbidden):
        return say(language, _SENTENCES.get(error.code, "error.not_yours"))
    if isinstance(error, NotFound):
        return say(language, "error.not_found")
    return say(language, "error.rule", detail=error.detail)


def request_id_of(request: Request[Any, Any, Any]) -> str:
    """The id under which the log knows a request; a new one where no middleware gave it any."""
    return str(request.scope["state"].get("request_id") or uuid4().hex)

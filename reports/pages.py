"""The page "Consommation", at `/`, and what all pages share.

A request goes one way: its parameters become a Selection, the ledger's answer a Reading, both a UsagePage (every text
ready, in the reader's language), and that HTML. Everything but the reading and the drawing is pure. Without a drawing
the page still stands: figures, ranking and table don't need it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import MediaType, Request, Response, Router, get
from litestar.concurrency import sync_to_thread
from litestar.datastructures import CacheControlHeader, State
from litestar.static_files import create_static_files_router
from litestar.types import Guard

from metering.errors import Forbidden, JaugeError, Unavailable
from metering.identity import Principal
from reports.drawing import Drawer, DrawingError
from reports.selection import ZONE, BadSelection, language_of, selection_from
from reports.shown import UsagePage
from reports.usage_page import Read, build_page, drawings_of, read_ledger
from reports.wording import LANGUAGES, Language, say

log = structlog.get_logger(__name__)

HERE = Path(__file__).parent
STATIC = HERE / "static"

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # What one administration consumes must not stay in a shared cache.
    "Cache-Control": "private, no-store",
    "Vary": "Accept-Language",
}


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
    environment.globals["icon_url"] = f"/static/icon.svg?v={_fingerprint('icon.svg')}"
    return environment


def _fingerprint(name: str) -> str:
    """Changes with the file, so that browsers may keep it for as long as they like."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def render(template: str, language: Language, language_urls: Mapping[Language, str], **context: object) -> str:
    """HTML of a template. Every page gets the words, the zone and the addresses of itself in each language."""
    return (
        _templates()
        .get_template(template)
        .render(
            t=partial(say, language),
            language=language,
            language_urls=language_urls,
            zone=ZONE.key,
            **context,
        )
    )


def render_usage(page: UsagePage, svgs: Sequence[str] | None) -> str:
    """The page "Consommation". `svgs` None: the chart could not be drawn, and the page says so."""
    selection = page.selection
    urls = {other: selection.url(language=other, language_is_asked=True) for other in LANGUAGES}
    return render("usage.html", selection.language, urls, page=page, selection=selection, svgs=svgs)


def render_error(language: Language, sentences: Sequence[str], request_id: str, *, has_bad_parameters: bool) -> str:
    """The page that says what went wrong, and under which request id the log knows it."""
    urls: dict[Language, str] = {other: f"/?lang={other}" for other in LANGUAGES}
    return render(
        "error.html",
        language,
        urls,
        sentences=sentences,
        request_id=request_id,
        has_bad_parameters=has_bad_parameters,
        back_url=f"/?lang={language}",
    )


def request_id_of(request: Request[Any, Any, Any]) -> str:
    """The id under which the log knows a request; a new one where no middleware gave it any."""
    return str(request.scope["state"].get("request_id") or uuid4().hex)


def _now() -> datetime:
    return datetime.now(UTC)


def pages_router(
    drawer: Drawer,
    *,
    guards: Sequence[Guard] = (),
    read: Read = read_ledger,
    now: Callable[[], datetime] = _now,
) -> Router:
    """The pages and their static files. Needs `engine` and `settings` in the application's state.

    drawer: started and closed by the application; guards: checked before a page, not before static files (an error
    page needs its style too).
    """

    @get("/", guards=list(guards), include_in_schema=False, media_type=MediaType.HTML, name="usage_page")
    async def usage_page(request: Request[Any, Any, Any], state: State) -> Response[str]:
        asked = request.query_params.get("lang")
        accepted = request.headers.get("accept-language", "")
        language = language_of(asked, accepted, state.settings.language)
        request_id = request_id_of(request)
        try:
            moment = now()
            today = moment.astimezone(ZONE).date()
            selection = selection_from(list(request.query_params.multi_items()), today=today, language=language)
            reader: Principal = request.scope["state"]["principal"]
            page = await sync_to_thread(
                lambda: build_page(selection, read(state, selection.question(), reader, moment), today=today)
            )
        except BadSelection as error:
            html = render_error(language, error.sentences, request_id, has_bad_parameters=True)
            return _html(html, language, status=400)
        except JaugeError as error:
            return _failure(error, language, request_id)
        return _html(render_usage(page, await _drawn(drawer, page)), language)

    static_files = create_static_files_router(
        path="/static",
        directories=[STATIC],
        name="static",
        cache_control=CacheControlHeader(public=True, max_age=31_536_000, immutable=True),
    )
    return Router(path="/", route_handlers=[usage_page, static_files])


async def _drawn(drawer: Drawer, page: UsagePage) -> list[str] | None:
    if page.figure is None:
        return []
    try:
        drawings = drawings_of(page.figure, page.selection.language)
        return await drawer.draw(drawings) if drawings else []
    except DrawingError as error:
        log.warning("chart_not_drawn", error=str(error))
        return None


def _failure(error: JaugeError, language: Language, request_id: str) -> Response[str]:
    if isinstance(error, Unavailable):
        sentence = say(language, "error.unavailable")
    elif isinstance(error, Forbidden):
        sentence = say(language, "error.not_yours")
    else:
        sentence = say(language, "error.rule", detail=error.detail)
    log.warning("page_not_shown", code=error.code, request_id=request_id)
    html = render_error(language, [sentence], request_id, has_bad_parameters=False)
    # 422 is for programs that sent a document; a page's parameters are its address.
    status = 400 if error.status == 422 else error.status
    response = _html(html, language, status=status)
    if error.retry_after_s is not None:
        response.set_header("Retry-After", str(error.retry_after_s))
    return response


def _html(html: str, language: Language, *, status: int = 200) -> Response[str]:
    headers = {**SECURITY_HEADERS, "Content-Language": language}
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=headers)

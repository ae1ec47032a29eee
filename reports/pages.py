"""The pages "Consommation", at `/usage`, and "Empreinte carbone", at `/carbon`, and the static files of all pages.

A request goes one way: its parameters become a Selection, the ledger's answer a Reading or a Footprint, both a page
(every text ready, in the reader's language), and that HTML. Everything but the reading and the drawing is pure. Without
a drawing the page still stands: figures and tables don't need it.
"""

import gzip
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeVar

import structlog
from litestar import MediaType, Request, Response, Router, get
from litestar.concurrency import sync_to_thread
from litestar.datastructures import CacheControlHeader, State
from litestar.static_files import create_static_files_router
from litestar.types import Guard

from metering.errors import JaugeError, Unavailable
from metering.identity import Principal
from reports.carbon_page import ReadFootprint, build_carbon_page, read_footprint
from reports.choosing import drawings_of
from reports.drawing import Drawer, DrawingError
from reports.explorer import BundlingError, Script
from reports.frame import Frame, asked_language, frame_of
from reports.rendering import SCRIPT_POLICY, STATIC, answer_bad, answer_error, html, render
from reports.selection import CARBON, USAGE, ZONE, BadSelection, Place, Selection, selection_from
from reports.shown import CarbonPage, UsagePage
from reports.usage_page import Read, build_page, read_ledger
from reports.wording import LANGUAGES

log = structlog.get_logger(__name__)

KEPT = CacheControlHeader(public=True, max_age=31_536_000, immutable=True)
"""Of files whose address changes with them."""

Page = TypeVar("Page", UsagePage, CarbonPage)


def render_usage(page: UsagePage, svgs: Sequence[str] | None, frame: Frame) -> str:
    """The page "Consommation". `svgs` None: the chart could not be drawn, and the page says so."""
    return render("usage.html", frame, page=page, selection=page.selection, svgs=svgs)


def render_carbon(page: CarbonPage, svgs: Sequence[str] | None, frame: Frame) -> str:
    """The page "Empreinte carbone". `svgs` None: the chart could not be drawn, and the page says so."""
    return render("carbon.html", frame, page=page, selection=page.selection, svgs=svgs)


def _now() -> datetime:
    return datetime.now(UTC)


def pages_router(
    drawer: Drawer,
    *,
    guards: Sequence[Guard] = (),
    read: Read = read_ledger,
    read_carbon: ReadFootprint = read_footprint,
    now: Callable[[], datetime] = _now,
) -> Router:
    """The pages and their static files. Needs `engine` and `settings` in the application's state.

    drawer: started and closed by the application; guards: checked before a page, not before static files (an error
    page needs its style too).
    """

    @get("/usage", guards=list(guards), include_in_schema=False, media_type=MediaType.HTML, name="usage_page")
    async def usage_page(request: Request[Any, Any, Any], state: State) -> Response[str]:
        moment = now()
        today = moment.astimezone(ZONE).date()

        def build(selection: Selection, reader: Principal) -> UsagePage:
            return build_page(selection, read(state, selection.question(), reader, moment), today=today)

        return await _answer(request, USAGE, today, build, render_usage, drawer)

    @get("/carbon", guards=list(guards), include_in_schema=False, media_type=MediaType.HTML, name="carbon_page")
    async def carbon_page(request: Request[Any, Any, Any], state: State) -> Response[str]:
        today = now().astimezone(ZONE).date()

        def build(selection: Selection, reader: Principal) -> CarbonPage:
            return build_carbon_page(selection, read_carbon(state, selection.question(), reader), today=today)

        return await _answer(request, CARBON, today, build, render_carbon, drawer)

    script = Script()

    @get("/explorer.js", include_in_schema=False, cache_control=KEPT)
    async def explorer_script(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await _script(script, request)

    static_files = create_static_files_router(
        path="/static",
        directories=[STATIC],
        name="static",
        cache_control=KEPT,
    )
    return Router(path="/", route_handlers=[usage_page, carbon_page, explorer_script, static_files])


async def _script(script: Script, request: Request[Any, Any, Any]) -> Response[bytes]:
    """The explorer's script, to those who can't read gzip as it is."""
    try:
        body = await script.compressed()
    except BundlingError as error:
        log.warning("explorer_not_bundled", error=str(error))
        raise Unavailable("explorer_unavailable", "The explorer's script can't be made.", retry_after_s=5) from error
    headers = {"Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    else:
        body = gzip.decompress(body)
    return Response(body, media_type="text/javascript; charset=utf-8", headers=headers)


async def _answer(
    request: Request[Any, Any, Any],
    place: Place,
    today: date,
    build: Callable[[Selection, Principal], Page],
    show: Callable[[Page, Sequence[str] | None, Frame], str],
    drawer: Drawer,
) -> Response[str]:
    """A page of figures for what its address asks, or the page that says what is wrong."""
    language = asked_language(request)
    try:
        pairs = list(request.query_params.multi_items())
        selection = selection_from(pairs, today=today, language=language, place=place)
        reader: Principal = request.scope["state"]["principal"]
        page = await sync_to_thread(build, selection, reader)
    except BadSelection as error:
        return answer_bad(request, error)
    except JaugeError as error:
        return answer_error(request, error)
    urls = {other: selection.url(language=other, language_is_asked=True) for other in LANGUAGES}
    answer = html(show(page, await _drawn(drawer, page), frame_of(request, language, urls)), language)
    if selection.explores:
        answer.set_header("Content-Security-Policy", SCRIPT_POLICY)
    return answer


async def _drawn(drawer: Drawer, page: UsagePage | CarbonPage) -> list[str] | None:
    if page.figure is None:
        return []
    try:
        drawings = drawings_of(page.figure, page.selection.language)
        return await drawer.draw(drawings) if drawings else []
    except DrawingError as error:
        log.warning("chart_not_drawn", error=str(error))
        return None

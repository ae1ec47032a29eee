"""A page with one chart, at `/embed/LINK`, that other sites may frame: the link says what it shows, until when."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from litestar import MediaType, Request, Response, Router, get
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State
from litestar.params import FromPath

from metering.errors import JaugeError
from metering.identity import Principal
from reports.choosing import drawings_of
from reports.drawing import Drawer, DrawingError
from reports.frame import asked_language, frame_of
from reports.rendering import SECURITY_HEADERS, answer_error, html, render
from reports.selection import DEFAULT_DAYS, ZONE, Selection
from reports.shown import UsagePage
from reports.usage_page import build_page, read_ledger
from reports.wording import Language

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Embed:
    """What a link shows: a quantity of an administration, or of one project of it."""

    tenant: str
    project: str | None
    quantity: str


Open = Callable[[State, str, datetime], Embed]
"""What a link shows at an instant. Raises: JaugeError where it isn't ours, or has ended."""


def embed_pages(drawer: Drawer, opened: Open) -> Router:
    """The page; its address is all that it needs to know."""

    @get("/embed/{link:str}", include_in_schema=False, media_type=MediaType.HTML)
    async def embed_page(request: Request[Any, Any, Any], state: State, link: FromPath[str]) -> Response[str]:
        language, now = asked_language(request), datetime.now(UTC)
        try:
            page = await sync_to_thread(lambda: _read(state, opened(state, link, now), now, language))
        except JaugeError as error:
            return _framed(answer_error(request, error, f"/?lang={language}"), state)
        svgs: list[str] | None = []
        if page.figure is not None:
            try:
                svgs = await drawer.draw(drawings_of(page.figure, language))
            except DrawingError as error:
                log.warning("chart_not_drawn", error=str(error))
                svgs = None
        text = render("embed.html", frame_of(request, language), page=page, svgs=svgs)
        return _framed(html(text, language), state)

    return Router("/", route_handlers=[embed_page])


def _read(state: State, embed: Embed, now: datetime, language: Language) -> UsagePage:
    """The last 30 days, by model, of what the link names and nothing else."""
    last = now.astimezone(ZONE).date()
    filters = {"tenant": embed.tenant} | ({} if embed.project is None else {"project": embed.project})
    first = last - timedelta(days=DEFAULT_DAYS - 1)
    selection = Selection(first, last, language, quantity=embed.quantity, filters=filters)
    reader = Principal("embed", "manager", embed.tenant)
    return build_page(selection, read_ledger(state, selection.question(), reader, now), today=last)


def _framed(answer: Response[str], state: State) -> Response[str]:
    """The same answer, which the sites of the settings may frame."""
    policy = SECURITY_HEADERS["Content-Security-Policy"].replace(
        "frame-ancestors 'none'", f"frame-ancestors {state.settings.embed_ancestors}"
    )
    answer.set_header("Content-Security-Policy", policy)
    return answer

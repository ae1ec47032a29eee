"""The route of the page "Vue d'ensemble", at `/`."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from litestar import Litestar, MediaType, Request, Response, Router, get
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State
from litestar.types import Guard

from metering.errors import JaugeError
from metering.identity import Principal
from reports.choosing import drawings_of
from reports.drawing import Drawer, DrawingError
from reports.frame import asked_language, frame_of
from reports.kept import Kept
from reports.overview import Overview, Tell, Told, overview_selection, read_overview
from reports.overview_page import OverviewPage, overview_page
from reports.rendering import answer_error, html, render
from reports.standing import Standing
from reports.wording import Language

log = structlog.get_logger(__name__)

PATH = "/"
EVERYBODY = Principal("everybody", "operator")
"""All operators see the same; what they see of a large ledger is read ahead."""


@dataclass(frozen=True, slots=True)
class OverviewSources:
    """What other rooms tell of amounts and envelopes, and of where limits stand (None: away, or nobody's)."""

    told: Tell
    standings: Callable[[State, Principal, str | None], Awaitable[tuple[Sequence[Standing], Sequence[Any]] | None]]


class OverviewPages:
    """The page, and what it reads ahead while the application runs."""

    def __init__(self, drawer: Drawer, sources: OverviewSources) -> None:
        self._drawer, self._sources = drawer, sources
        self._kept: Kept[tuple[Overview, Told]] = Kept()

    def running(self, app: Litestar) -> AbstractAsyncContextManager[None]:
        """For the application's lifespan."""
        return self._kept.running(lambda: self._read(app.state, EVERYBODY, datetime.now(UTC)))

    def router(self, *, guards: Sequence[Guard] = ()) -> Router:
        """The route."""

        @get(PATH, guards=list(guards), include_in_schema=False, media_type=MediaType.HTML, name="overview_page")
        async def overview(request: Request[Any, Any, Any], state: State) -> Response[str]:
            language, reader = asked_language(request), request.scope["state"]["principal"]
            try:
                page = await self._page(state, reader, language)
            except JaugeError as error:
                return answer_error(request, error)
            svgs = await self._drawn(page, language)
            return html(render("overview.html", frame_of(request, language), page=page, svgs=svgs), language)

        return Router("/", route_handlers=[overview])

    async def _page(self, state: State, reader: Principal, language: Language) -> OverviewPage:
        now = datetime.now(UTC)

        def read() -> tuple[Overview, Told]:
            return self._read(state, reader, now)

        if reader.role == "operator":
            found, told = await self._kept.get(read)
        else:
            found, told = await sync_to_thread(read)
            standings = await self._sources.standings(state, reader, reader.tenant)
            told = replace(told, standings=None if standings is None else standings[0])
        return overview_page(overview_selection(now, reader, language), found, told, reader, now)

    def _read(self, state: State, reader: Principal, now: datetime) -> tuple[Overview, Told]:
        found = read_overview(state, overview_selection(now, reader, "fr"), reader, now)
        return found, self._sources.told(state, reader, now)

    async def _drawn(self, page: OverviewPage, language: Language) -> list[str] | None:
        if page.figure is None:
            return []
        try:
            drawings = drawings_of(page.figure, language)
            return await self._drawer.draw(drawings) if drawings else []
        except DrawingError as error:
            log.warning("chart_not_drawn", error=str(error))
            return None

"""The routes of the pages "Journal des requêtes" and of one request."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from litestar import MediaType, Request, Response, Router, get
from litestar.datastructures import State
from litestar.params import FromPath
from litestar.types import Guard

from metering.database import transaction
from metering.identity import Principal
from reports.journal import read_cursor, read_journal, written
from reports.journal_api import Costs, journal_question
from reports.journal_page import PATH, JournalPage, journal_page, journal_selection, offered_filters, request_page
from reports.rendering import answer_page
from reports.selection import ZONE
from reports.trail import TrailSources, read_trail
from reports.usage import known_values
from reports.wording import Language

ROWS = 50
"""Requests of a page."""


def journal_pages(costs: Costs, sources: TrailSources, *, guards: Sequence[Guard] = ()) -> Router:
    """The journal and the page of a request."""

    @get(PATH, include_in_schema=False, media_type=MediaType.HTML)
    async def requests_page(request: Request[Any, Any, Any], state: State) -> Response[str]:
        pairs = request.query_params.multi_items()

        def build(language: Language, reader: Principal) -> Mapping[str, object]:
            return {"page": _read(state, list(pairs), reader, language, costs)}

        return await answer_page(request, "requests.html", build)

    @get(f"{PATH}/{{request_id:str}}", include_in_schema=False, media_type=MediaType.HTML)
    async def request_page_of(
        request: Request[Any, Any, Any], state: State, request_id: FromPath[str]
    ) -> Response[str]:
        def build(language: Language, reader: Principal) -> Mapping[str, object]:
            found, trail = read_trail(state, reader, request_id, sources)
            (cost,) = costs(state, [found])
            return {"page": request_page(found, cost, trail, language)}

        return await answer_page(request, "request.html", build)

    return Router("/", route_handlers=[requests_page, request_page_of], guards=list(guards))


def _read(
    state: State, pairs: Sequence[tuple[str, str]], reader: Principal, language: Language, costs: Costs
) -> JournalPage:
    now = datetime.now(UTC)
    selection = journal_selection(pairs, today=now.astimezone(ZONE).date(), language=language)
    asked = dict(selection.question())
    status = asked.pop("status", None)
    question = journal_question(asked, status, reader, now)  # type: ignore[arg-type]
    after = read_cursor(selection.cursor)
    names = [name for name in offered_filters(reader) if name != "status"]
    with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
        found = read_journal(connection, question, after=after, limit=ROWS + 1)
        choices = {name: known_values(connection, name, reader) for name in names}
    shown = found[:ROWS]
    next_cursor = written(shown[-1].place) if len(found) > ROWS else None
    priced = list(zip(shown, costs(state, shown), strict=True))
    return journal_page(selection, priced, next_cursor, choices, reader, language)

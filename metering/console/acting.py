"""How a page acts: a form is sent, something is done, and the browser is led to a page that says what came of it.

`console.keys` has an example. The page at `back` shows the sentence above its content (`frame.outcome`), and an error
likewise: of an error with the code X the sentence `refused.X` where there is one. Its form finds what was entered in
`frame.outcome.entered`, and the field at fault in `frame.outcome.place`. What is shown once (a secret) can't wait in a
session: such a handler answers with a page itself.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

import structlog
from litestar import Request, Response
from litestar.concurrency import sync_to_thread
from litestar.response import Redirect

from metering.browsers import session_of
from metering.catalog.sessions import Sessions
from metering.errors import JaugeError
from metering.visiting import CSRF_FIELD, Said
from reports.frame import asked_language, frame_of, refusal_of
from reports.rendering import html, render
from reports.sheets import Sheet, address, context_of
from reports.wording import LANGUAGES, Language

Form = Mapping[str, str]
"""What a form holds: the last value of each field, without the space around it."""

log = structlog.get_logger(__name__)


async def acted(
    request: Request[Any, Any, Any],
    form: Form,
    act: Callable[[Form], Said],
    *,
    back: str,
    refused_back: str | None = None,
) -> Response[Any]:
    """Do what a form asks, in a thread, and lead back to a page. `act` may raise any JaugeError.

    back: path of ours, with or without parameters; refused_back: of the form's page, where that is another one. What
    was entered comes back with an error.
    """
    sessions: Sessions = request.app.state.sessions
    session = session_of(request)
    assert session is not None
    try:
        said = await sync_to_thread(act, form)
    except JaugeError as error:
        return await _refused(request, form, error, refused_back or back)
    await sync_to_thread(sessions.say, session, said)
    return lead_to(request, back)


async def shown_once(
    request: Request[Any, Any, Any], form: Form, act: Callable[[Form, Language], Sheet], *, back: str
) -> Response[Any]:
    """Do what a form asks, and answer with a page that can't be had again: it shows a secret.

    An error leads back to a page, as in `acted`.
    """
    language = asked_language(request)
    try:
        sheet = await sync_to_thread(act, form, language)
    except JaugeError as error:
        return await _refused(request, form, error, back)
    frame = frame_of(request, language, {other: address(back, other) for other in LANGUAGES})
    return html(render("sheet.html", frame, **context_of(sheet)), language)


async def _refused(request: Request[Any, Any, Any], form: Form, error: JaugeError, back: str) -> Redirect:
    """Lead back, with what is wrong and what was entered."""
    session = session_of(request)
    assert session is not None
    log.info("action_refused", code=error.code)
    refusal = refusal_of(error)
    # The database has no place for NUL, which no person types.
    entered = {name: value for name, value in form.items() if "\x00" not in value}
    said = Said(refusal.kind, refusal.key, refusal.values, refusal.place, entered)
    await sync_to_thread(request.app.state.sessions.say, session, said)
    return lead_to(request, back)


async def form_of(request: Request[Any, Any, Any]) -> Form:
    """The fields of a form, without what proves where it comes from. Files are left out."""
    sent = await request.form()
    pairs = [(name, value) for name, value in sent.multi_items() if name != CSRF_FIELD]
    return {name: value.strip() for name, value in pairs if isinstance(value, str)}


def lead_to(request: Request[Any, Any, Any], path: str) -> Redirect:
    """The answer to a form: the browser asks for a page (303), in the language that the form was in."""
    language = request.query_params.get("lang")
    if language not in LANGUAGES:
        return Redirect(path, status_code=303)
    place, _, query = path.partition("?")
    kept = [(name, value) for name, value in parse_qsl(query) if name != "lang"]
    return Redirect(f"{place}?{urlencode([*kept, ('lang', language)])}", status_code=303)

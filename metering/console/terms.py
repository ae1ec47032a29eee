"""The page "Conditions": what must be accepted, and accepting it."""

from typing import Any

from litestar import MediaType, Request, Response, Router, get, post

from metering.catalog import documents
from metering.catalog.routes.acting import acting, clock
from metering.catalog.routes.me import AcceptanceBody
from metering.catalog.snapshot import Snapshot
from metering.catalog.terms import accept, acceptances
from metering.console.acting import Form as Sent
from metering.console.acting import acted, form_of
from metering.console.fields import made
from metering.console.guards import require_form_of, require_page
from metering.console.signing_in import to_sign_in
from metering.errors import Forbidden, Unauthorized
from metering.identity import Principal
from metering.rules.access import acceptable
from metering.visiting import Said
from metering.web import BODY_BYTES_MAX, caller_of, knowing_changes
from reports.rendering import answer_error
from reports.sheets import Block, Cell, Field, Form, Sheet, answer_sheet, at
from reports.wording import Language, say

PAGE = "/terms"


@get(PAGE, include_in_schema=False, media_type=MediaType.HTML,
     guards=[require_page("operator", "manager", "member")])  # fmt: skip
async def terms_page(request: Request[Any, Any, Any]) -> Response[str]:
    """The current and coming versions, and which of them the reader has accepted."""

    def build(language: Language, reader: Principal) -> Sheet:
        snapshot: Snapshot = request.app.state.catalog.current()
        accepted = {}
        if reader.account is not None:
            with acting(request) as connection:
                accepted = acceptances(connection, reader)
        blocks = [
            _block(number, one, accepted.get((one.document, one.version)), reader, language)
            for number, one in enumerate(acceptable(snapshot.terms, clock()))
        ]
        none = Block("none", say(language, "terms.none"), empty=say(language, "terms.none.why"))
        return Sheet(say(language, "terms"), say(language, "terms.what"), blocks or [none])

    return await answer_sheet(request, build)


def _block(number: int, one: documents.Terms, since: Any, reader: Principal, language: Language) -> Block:
    facts: list[tuple[str, Cell]] = [
        (say(language, "terms.version"), one.version),
        (say(language, "terms.effective"), at(one.effective_at, language)),
        (say(language, "terms.enforced"), at(one.enforced_at, language)),
    ]
    forms: tuple[Form, ...] = ()
    if since is not None:
        facts.append((say(language, "terms.accepted"), at(since, language)))
    elif reader.account is not None:
        about = (
            Field("document", kind="hidden", value=one.document),
            Field("version", kind="hidden", value=one.version),
        )
        forms = (Form("/terms/accept", say(language, "terms.accept"), about),)
    title, text = (one.title_fr, one.text_fr) if language == "fr" else (one.title_en, one.text_en)
    return Block(f"terms-{number}", title, facts=tuple(facts), text=text, forms=forms)


@post("/terms/accept", guards=[require_form_of("manager", "member")], include_in_schema=False)
async def accept_terms(request: Request[Any, Any, Any]) -> Response[Any]:
    """Accept a version that was read."""

    def act(form: Sent) -> Said:
        body = made(AcceptanceBody, {"document": form.get("document", ""), "version": form.get("version", "")})
        catalog = request.app.state.catalog.current()
        with acting(request) as connection:
            accept(connection, catalog, caller_of(request), (body.document, body.version), clock())
        return Said("done", "terms.done")

    return await acted(request, await form_of(request), act, back=PAGE)


terms_forms = Router(
    "/",
    route_handlers=[terms_page, accept_terms],
    middleware=[knowing_changes],
    exception_handlers={Unauthorized: to_sign_in, Forbidden: answer_error},
    request_max_body_size=BODY_BYTES_MAX,
)

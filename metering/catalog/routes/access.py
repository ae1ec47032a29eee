"""Asking for access, deciding on it, and activating an account, over HTTP."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from litestar import Request, Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta
from stdnum.fr import siret as siret_number

from metering.catalog import access
from metering.catalog.access import AccessRequest, Decision, Invited, Received, RequestState, checked_email
from metering.catalog.activation import Activation, activate
from metering.catalog.deciding import Asked, Role
from metering.catalog.documents import Document, Email, Id, Language, Line, Paragraph, Siret
from metering.catalog.routes.acting import AfterId, Page, PageLimit, acting, clock, page_of
from metering.throttling import address_of, by_address
from metering.web import BODY_BYTES_MAX, TOKEN_SECURITY, caller_of, caller_within, require

InState = Annotated[RequestState | None, QueryParameter(name="state", description="Only those in this state.")]


class AccessRequestBody(Document, frozen=True, kw_only=True):
    """Who asks for an account, for whom and what for."""

    kind: Literal["individual", "partner"]
    organisation: Line
    siret: Siret | None = None
    name: Line
    email: Email
    language: Language = "fr"
    motive: Paragraph
    experiment: Id | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.siret is not None and not siret_number.is_valid(self.siret):
            yield "siret", "a SIRET, whose check digit is right"


class DecisionBody(Document, frozen=True, kw_only=True):
    """Approve, for an administration, or refuse. By default, a partner's first account manages its administration."""

    decision: Literal["approve", "refuse"]
    reason: Paragraph | None = None
    tenant: Id | None = None
    role: Role | None = None


class InvitationBody(Document, frozen=True, kw_only=True):
    """Whom to invite to the administration."""

    name: Line
    email: Email
    role: Role = "member"
    language: Language = "fr"


class ActivationBody(Document, frozen=True, kw_only=True):
    """The code of the mail."""

    code: Annotated[str, Meta(min_length=1, max_length=200)]


class AccessRequestPage(Page[AccessRequest]):
    """Requests, oldest first, and where the next page begins."""


@post(
    "/v1/access-requests",
    summary="Ask for an account",
    description="What becomes of it is told by mail. The answer never depends on who has an account.",
    status_code=202,
    sync_to_thread=True,
    security=[],
)
def post_access_request(request: Request[Any, Any, Any], data: JSONBody[AccessRequestBody]) -> Received:
    state = request.app.state
    asked = Asked(
        data.kind, data.organisation, data.siret, data.name, checked_email(data.email), data.language, data.motive,
        data.experiment,
    )  # fmt: skip
    return access.request_access(state.engine, state.master_key, asked, clock())


@post(
    "/v1/activations",
    summary="Open the account that a mailed code stands for",
    description="The token is shown this once. Who has an account there already gets a new token for it.",
    status_code=201,
    sync_to_thread=True,
    security=[],
)
def post_activation(request: Request[Any, Any, Any], data: JSONBody[ActivationBody]) -> Activation:
    return activate_from(request, data.code)


def activate_from(request: Request[Any, Any, Any], code: str) -> Activation:
    """Open the account that a code stands for. Raises: as `activate`; TooMany for one attempt too many."""
    state = request.app.state
    with state.throttle.trying(by_address(address_of(request), "activation")):
        return activate(state.engine, code, clock())


@get("/v1/admin/access-requests", summary="Requests for an account", sync_to_thread=True)
def get_access_requests(
    request: Request[Any, Any, Any],
    in_state: InState = None,
    after: AfterId = "",
    limit: PageLimit = 100,
) -> AccessRequestPage:
    with acting(request) as connection:
        items = access.list_requests(connection, state=in_state, after=after, limit=limit)
    return page_of(AccessRequestPage, items, limit)


@post(
    "/v1/admin/access-requests/{request_id:str}/decision",
    summary="Approve or refuse a request",
    status_code=200,
    sync_to_thread=True,
)
def post_decision(
    request: Request[Any, Any, Any], request_id: FromPath[str], data: JSONBody[DecisionBody]
) -> AccessRequest:  # fmt: skip
    decision = Decision(data.decision == "approve", data.reason, data.tenant, data.role)
    author, master_key = caller_of(request).actor.author, request.app.state.master_key
    with acting(request) as connection:
        return access.decide(connection, master_key, request_id, decision, author=author, now=clock())


@post("/v1/tenants/{tenant:str}/invitations", summary="Invite somebody by mail", status_code=202, sync_to_thread=True)
def post_invitation(request: Request[Any, Any, Any], tenant: FromPath[str], data: JSONBody[InvitationBody]) -> Received:
    actor, state = caller_within(request, tenant).actor, request.app.state
    invited = Invited(data.name, checked_email(data.email), data.role, data.language)
    return access.invite(state.engine, state.master_key, tenant, invited, actor=actor, now=clock())


access_router = Router(
    "/",
    route_handlers=[
        post_access_request,
        post_activation,
        Router(
            "/",
            route_handlers=[get_access_requests, post_decision],
            guards=[require("operator")],
            security=TOKEN_SECURITY,
        ),
        Router("/", route_handlers=[post_invitation], guards=[require("operator", "manager")], security=TOKEN_SECURITY),
    ],
    request_max_body_size=BODY_BYTES_MAX,
    tags=["access"],
)

"""The record of changes, webhooks, messages and tokens."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, JSONBody, PathParameter, QueryParameter

from metering.catalog.changes import RecordedChange, list_changes
from metering.catalog.documents import Address, Document, Id
from metering.catalog.routes.acting import PageLimit, acting, clock
from metering.catalog.tokens import Token, add_token, list_tokens, revoke_token
from metering.outbox.addresses import check_url
from metering.outbox.messages import Message, State
from metering.outbox.queue import list_messages, retry_message
from metering.outbox.webhooks import Webhook, add_webhook, disable_webhook, list_webhooks, rotate_webhook
from metering.web import BODY_BYTES_MAX, TOKEN_SECURITY, caller_of, caller_within, require

Number = Annotated[int, PathParameter(ge=0, le=2**63 - 1)]
AfterNumber = Annotated[int, QueryParameter(ge=0, le=2**63 - 1, description="next_after of the page before.")]
BeforeNumber = Annotated[int | None, QueryParameter(ge=0, le=2**63 - 1, description="next_before of the page before.")]
Entity = Annotated[str | None, QueryParameter(max_length=64, description="Only changes of this table.")]


class ChangePage(msgspec.Struct):
    """Changes, newest first, and where the next page begins."""

    items: list[RecordedChange]
    next_before: int | None


class WebhookRequest(Document, frozen=True, kw_only=True):
    """Where to call, for which types of events; none is all."""

    url: Address
    events: list[str] = msgspec.field(default_factory=list)


class WebhookSecret(msgspec.Struct):
    """A webhook's secret, shown once."""

    id: str
    secret: str


class WebhookList(msgspec.Struct):
    """Webhooks, oldest first."""

    items: list[Webhook]


class MessagePage(msgspec.Struct):
    """Messages, oldest first, and where the next page begins."""

    items: list[Message]
    next_after: int | None


class TokenRequest(Document, frozen=True, kw_only=True):
    """A token for a service or an operator."""

    name: Id
    role: Literal["gateway", "operator"]


class TokenSecret(msgspec.Struct):
    """A token's secret, shown once."""

    name: str
    token: str


class TokenList(msgspec.Struct):
    """Tokens by name, without their secrets."""

    items: list[Token]


def _changes(
    request: Request[Any, Any, Any], tenant: str | None, entity: str | None, before: int | None, limit: int
) -> ChangePage:
    with acting(request) as connection:
        items = list_changes(connection, tenant=tenant, entity=entity, before=before, limit=limit)
    return ChangePage(items, items[-1].number if len(items) == limit else None)


@get("/v1/admin/changes", summary="Every change of the catalogue", sync_to_thread=True)
def get_changes(
    request: Request[Any, Any, Any], entity: Entity = None, before: BeforeNumber = None, limit: PageLimit = 100
) -> ChangePage:
    return _changes(request, None, entity, before, limit)


@get("/v1/tenants/{tenant:str}/changes", summary="Every change that concerns an administration", sync_to_thread=True)
def get_tenant_changes(
    request: Request[Any, Any, Any],
    tenant: FromPath[str],
    entity: Entity = None,
    before: BeforeNumber = None,
    limit: PageLimit = 100,
) -> ChangePage:
    caller_within(request, tenant)
    return _changes(request, tenant, entity, before, limit)


def _add_webhook(request: Request[Any, Any, Any], tenant: str | None, data: WebhookRequest) -> WebhookSecret:
    state = request.app.state
    url = check_url(data.url, private_allowed=state.settings.webhook_private)
    with acting(request) as connection:
        added, secret = add_webhook(connection, state.master_key, tenant=tenant, url=url, events=data.events)
    return WebhookSecret(added.id, secret)


def _rotate_webhook(request: Request[Any, Any, Any], tenant: str | None, webhook_id: str) -> WebhookSecret:
    with acting(request) as connection:
        secret = rotate_webhook(connection, request.app.state.master_key, webhook_id, tenant=tenant, now=clock())
    return WebhookSecret(webhook_id, secret)


def _disable_webhook(request: Request[Any, Any, Any], tenant: str | None, webhook_id: str) -> None:
    with acting(request) as connection:
        disable_webhook(connection, webhook_id, tenant=tenant, now=clock())


def _webhooks(request: Request[Any, Any, Any], tenant: str | None) -> WebhookList:
    with acting(request) as connection:
        return WebhookList(list_webhooks(connection, tenant))


@get("/v1/tenants/{tenant:str}/webhooks", summary="Webhooks of an administration", sync_to_thread=True)
def get_tenant_webhooks(request: Request[Any, Any, Any], tenant: FromPath[str]) -> WebhookList:
    caller_within(request, tenant)
    return _webhooks(request, tenant)


@post("/v1/tenants/{tenant:str}/webhooks", summary="Add a webhook; its secret is shown once", sync_to_thread=True)
def post_tenant_webhook(
    request: Request[Any, Any, Any], tenant: FromPath[str], data: JSONBody[WebhookRequest]
) -> WebhookSecret:
    caller_within(request, tenant)
    return _add_webhook(request, tenant, data)


@post("/v1/tenants/{tenant:str}/webhooks/{webhook:str}/rotation", summary="Give a new secret", sync_to_thread=True)
def post_tenant_rotation(
    request: Request[Any, Any, Any], tenant: FromPath[str], webhook: FromPath[str]
) -> WebhookSecret:
    caller_within(request, tenant)
    return _rotate_webhook(request, tenant, webhook)


@delete("/v1/tenants/{tenant:str}/webhooks/{webhook:str}", summary="Disable a webhook", sync_to_thread=True)
def delete_tenant_webhook(request: Request[Any, Any, Any], tenant: FromPath[str], webhook: FromPath[str]) -> None:
    caller_within(request, tenant)
    _disable_webhook(request, tenant, webhook)


@get("/v1/admin/webhooks", summary="The operator's webhooks, told of everybody's events", sync_to_thread=True)
def get_webhooks(request: Request[Any, Any, Any]) -> WebhookList:
    return _webhooks(request, None)


@post("/v1/admin/webhooks", summary="Add a webhook; its secret is shown once", sync_to_thread=True)
def post_webhook(request: Request[Any, Any, Any], data: JSONBody[WebhookRequest]) -> WebhookSecret:
    return _add_webhook(request, None, data)


@post("/v1/admin/webhooks/{webhook:str}/rotation", summary="Give a new secret", sync_to_thread=True)
def post_rotation(request: Request[Any, Any, Any], webhook: FromPath[str]) -> WebhookSecret:
    return _rotate_webhook(request, None, webhook)


@delete("/v1/admin/webhooks/{webhook:str}", summary="Disable a webhook", sync_to_thread=True)
def delete_webhook(request: Request[Any, Any, Any], webhook: FromPath[str]) -> None:
    _disable_webhook(request, None, webhook)


@get("/v1/admin/messages", summary="Mails and calls of webhooks", sync_to_thread=True)
def get_messages(
    request: Request[Any, Any, Any],
    in_state: Annotated[State | None, QueryParameter(name="state", description="Only those in this state.")] = None,
    after: AfterNumber = 0,
    limit: PageLimit = 100,
) -> MessagePage:
    with acting(request) as connection:
        items = list_messages(connection, state=in_state, after=after, limit=limit)
    return MessagePage(items, items[-1].number if len(items) == limit else None)


@post("/v1/admin/messages/{number:int}/retry", summary="Send a message again", status_code=204, sync_to_thread=True)
def post_retry(request: Request[Any, Any, Any], number: Number) -> None:
    with acting(request) as connection:
        retry_message(connection, number, now=clock())


@get("/v1/admin/tokens", summary="Tokens, without their secrets", sync_to_thread=True)
def get_tokens(request: Request[Any, Any, Any]) -> TokenList:
    return TokenList(list_tokens(request.app.state.engine, caller_of(request).actor))


@post("/v1/admin/tokens", summary="Make a token; it is shown once", sync_to_thread=True)
def post_token(request: Request[Any, Any, Any], data: JSONBody[TokenRequest]) -> TokenSecret:
    secret = add_token(request.app.state.engine, data.name, data.role, caller_of(request).actor)
    return TokenSecret(data.name, secret)


@delete("/v1/admin/tokens/{name:str}", summary="Refuse a token from now on", sync_to_thread=True)
def delete_token(request: Request[Any, Any, Any], name: FromPath[str]) -> None:
    revoke_token(request.app.state.engine, name, caller_of(request).actor)


service_router = Router(
    "/",
    route_handlers=[
        Router(
            "/",
            route_handlers=[
                get_tenant_changes, get_tenant_webhooks, post_tenant_webhook, post_tenant_rotation,
                delete_tenant_webhook,
            ],
            guards=[require("operator", "manager")],
        ),
        Router(
            "/",
            route_handlers=[
                get_changes, get_webhooks, post_webhook, post_rotation, delete_webhook, get_messages, post_retry,
                get_tokens, post_token, delete_token,
            ],
            guards=[require("operator")],
        ),
    ],
    security=TOKEN_SECURITY,
    request_max_body_size=BODY_BYTES_MAX,
    tags=["service"],
)  # fmt: skip

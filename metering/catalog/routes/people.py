"""Accounts of an administration, and the suspension and end of administrations, over HTTP."""

from typing import Any

from litestar import Request, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody

from metering.catalog import accounts, tenants
from metering.catalog.accounts import Account
from metering.catalog.documents import Document, Paragraph
from metering.catalog.routes.acting import AfterId, Page, PageLimit, acting, clock, page_of
from metering.web import BODY_BYTES_MAX, TOKEN_SECURITY, caller_within, require


class AccountPage(Page[Account]):
    """Accounts in the order of ids, and where the next page begins."""


class RoleBody(Document, frozen=True, kw_only=True):
    """What an account may do."""

    role: accounts.Role


class ReasonBody(Document, frozen=True, kw_only=True):
    """Why; those concerned are told."""

    reason: Paragraph


@get("/v1/tenants/{tenant:str}/accounts", summary="Accounts, with who they are", sync_to_thread=True)
def get_accounts(
    request: Request[Any, Any, Any], tenant: FromPath[str], after: AfterId = "", limit: PageLimit = 100
) -> AccountPage:  # fmt: skip
    caller_within(request, tenant)
    with acting(request) as connection:
        items = accounts.list_accounts(connection, tenant, after=after, limit=limit)
    return page_of(AccountPage, items, limit)


@patch("/v1/tenants/{tenant:str}/accounts/{account:str}", summary="Change what an account may do", sync_to_thread=True)
def patch_account(
    request: Request[Any, Any, Any], tenant: FromPath[str], account: FromPath[str], data: JSONBody[RoleBody]
) -> Account:
    caller = caller_within(request, tenant)
    with acting(request) as connection:
        return accounts.set_role(connection, caller, tenant, account, data.role)


@delete(
    "/v1/tenants/{tenant:str}/accounts/{account:str}",
    summary="Delete an account",
    description="Keys and tokens are refused at once, name and address erased. The usage of the pseudonym stays.",
    sync_to_thread=True,
)
def delete_account(request: Request[Any, Any, Any], tenant: FromPath[str], account: FromPath[str]) -> None:
    caller = caller_within(request, tenant)
    with acting(request) as connection:
        accounts.delete_account(connection, caller, tenant, account, now=clock())


@post(
    "/v1/tenants/{tenant:str}/accounts/{account:str}/suspension",
    summary="Suspend an account",
    description="Its keys and tokens are refused. What an operator suspends, no manager restores.",
    status_code=200,
    sync_to_thread=True,
)
def post_suspension(
    request: Request[Any, Any, Any], tenant: FromPath[str], account: FromPath[str], data: JSONBody[ReasonBody]
) -> Account:
    caller = caller_within(request, tenant)
    with acting(request) as connection:
        return accounts.suspend_account(connection, caller, tenant, account, data.reason, now=clock())


@delete(
    "/v1/tenants/{tenant:str}/accounts/{account:str}/suspension", summary="End a suspension", sync_to_thread=True
)  # fmt: skip
def delete_suspension(request: Request[Any, Any, Any], tenant: FromPath[str], account: FromPath[str]) -> None:
    caller = caller_within(request, tenant)
    with acting(request) as connection:
        accounts.restore_account(connection, caller, tenant, account)


@post(
    "/v1/admin/tenants/{tenant:str}/suspension",
    summary="Suspend an administration",
    status_code=204,
    sync_to_thread=True,
)
def post_tenant_suspension(request: Request[Any, Any, Any], tenant: FromPath[str], data: JSONBody[ReasonBody]) -> None:
    with acting(request) as connection:
        tenants.suspend_tenant(connection, tenant, data.reason, now=clock())


@delete("/v1/admin/tenants/{tenant:str}/suspension", summary="End a suspension", sync_to_thread=True)
def delete_tenant_suspension(request: Request[Any, Any, Any], tenant: FromPath[str]) -> None:
    with acting(request) as connection:
        tenants.restore_tenant(connection, tenant)


@delete(
    "/v1/admin/tenants/{tenant:str}",
    summary="Delete an administration with all its people",
    description="Its ledger stays as it is, and events of requests already made are still recorded.",
    sync_to_thread=True,
)
def delete_tenant(request: Request[Any, Any, Any], tenant: FromPath[str], data: JSONBody[ReasonBody]) -> None:
    with acting(request) as connection:
        tenants.delete_tenant(connection, tenant, data.reason, now=clock())


people_router = Router(
    "/",
    route_handlers=[
        Router(
            "/",
            route_handlers=[get_accounts, patch_account, delete_account, post_suspension, delete_suspension],
            guards=[require("operator", "manager")],
        ),
        Router(
            "/",
            route_handlers=[post_tenant_suspension, delete_tenant_suspension, delete_tenant],
            guards=[require("operator")],
        ),
    ],
    security=TOKEN_SECURITY,
    request_max_body_size=BODY_BYTES_MAX,
    tags=["people"],
)

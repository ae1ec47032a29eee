"""Prices and ratings over HTTP: what is paid, and what a month comes to. Books and prices are written as documents."""

from datetime import datetime
from typing import Annotated, Any

from litestar import Request, Router, get
from litestar.params import QueryParameter

from metering.billing.answers import PricesShown, RatingShown, shown_prices, shown_rating
from metering.billing.prices import Tariffs, tariffs_as_of, tariffs_of
from metering.billing.rating import AsOf, rate_tenant, read_month
from metering.catalog.documents import is_bounded
from metering.catalog.routes.acting import clock
from metering.database import transaction
from metering.errors import Unprocessable
from metering.web import TOKEN_SECURITY, caller_of, caller_within, require

BATCH_MAX = 2**63 - 1

TenantNamed = Annotated[
    str | None, QueryParameter(min_length=1, max_length=64, description="The administration; one's own if absent.")
]
Number = Annotated[int | None, QueryParameter(ge=0, le=BATCH_MAX, description="As it stood after this one.")]


@get("/v1/prices", summary="What is paid: the prices in force", guards=[require("operator", "manager", "member")],
     sync_to_thread=True)  # fmt: skip
def get_prices(
    request: Request[Any, Any, Any],
    tenant: TenantNamed = None,
    at: Annotated[datetime | None, QueryParameter(description="RFC 3339; now if absent.")] = None,
) -> PricesShown:
    """Without `tenant`, an operator is told what those pay who have no convention."""
    asked = tenant or caller_of(request).tenant
    if asked is not None:
        caller_within(request, asked)
    if at is not None and (at.tzinfo is None or not is_bounded(at)):
        raise Unprocessable("invalid_time", "Not an instant.", field="at", expected="RFC 3339 with an offset")
    return shown_prices(tariffs_of(request.app.state.catalog.current()), asked, at or clock())


@get("/v1/rating", summary="What a month of an administration comes to", guards=[require("operator", "manager")],
     sync_to_thread=True)  # fmt: skip
def get_rating(
    request: Request[Any, Any, Any],
    month: Annotated[str, QueryParameter(description="A month of the books (Europe/Paris), as 2026-10.")],
    tenant: TenantNamed = None,
    as_of: Number = None,
    carbon_as_of: Number = None,
    catalog_version: Number = None,
) -> RatingShown:
    asked = tenant or caller_of(request).tenant
    if asked is None:
        raise Unprocessable("missing_field", "A rating is of one administration.", field="tenant")
    caller = caller_within(request, asked)
    period = read_month(month)
    tariffs = _tariffs(request, catalog_version)
    with transaction(request.app.state.engine, snapshot=True, actor=caller.actor) as connection:
        return shown_rating(rate_tenant(connection, tariffs, asked, period, AsOf(as_of, carbon_as_of)))


def _tariffs(request: Request[Any, Any, Any], version: int | None) -> Tariffs:
    """The catalogue now, or as it was; its record is the platform's, and of others nothing is in the answer."""
    if version is None:
        return tariffs_of(request.app.state.catalog.current())
    with transaction(request.app.state.engine, snapshot=True) as connection:
        return tariffs_as_of(connection, version)


billing_router = Router("/", route_handlers=[get_prices, get_rating], security=TOKEN_SECURITY, tags=["billing"])

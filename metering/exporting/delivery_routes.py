"""Deliveries over HTTP, for operators: what was drawn up, and what came of it."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Router, get, post
from litestar.params import PathParameter, QueryParameter

from metering.catalog.routes.acting import PageLimit, acting, clock
from metering.exporting.delivering import Due, list_deliveries, retry_delivery
from metering.web import TOKEN_SECURITY, require

Number = Annotated[int, PathParameter(ge=0, le=2**63 - 1)]
BeforeNumber = Annotated[int | None, QueryParameter(ge=0, le=2**63 - 1, description="next_before of the page before.")]


class DeliveryPage(msgspec.Struct):
    """Deliveries, newest first, and where the next page begins."""

    items: list[Due]
    next_before: int | None


@get("/v1/admin/deliveries", summary="Exports that are delivered to folders and buckets", sync_to_thread=True)
def get_deliveries(
    request: Request[Any, Any, Any], before: BeforeNumber = None, limit: PageLimit = 100
) -> DeliveryPage:  # fmt: skip
    with acting(request) as connection:
        items = list_deliveries(connection, before=before, limit=limit)
    return DeliveryPage(items, items[-1].number if len(items) == limit else None)


@post("/v1/admin/deliveries/{number:int}/retry", summary="Try a delivery again", status_code=200, sync_to_thread=True)
def post_delivery_retry(request: Request[Any, Any, Any], number: Number) -> Due:
    with acting(request) as connection:
        return retry_delivery(connection, number, now=clock())


deliveries_router = Router(
    "/",
    route_handlers=[get_deliveries, post_delivery_retry],
    guards=[require("operator")],
    security=TOKEN_SECURITY,
    tags=["exports"],
)

"""Reconciliation over HTTP: gateways post their totals, operators read the proof."""

from datetime import date
from typing import Annotated, Any

from litestar import Request, Router, get, put
from litestar.params import FromPath, JSONBody, PathParameter, QueryParameter

from metering.billing.prices import tariffs_of
from metering.billing.rating import read_month
from metering.database import transaction
from metering.reconciliation.posting import GatewayDay, GatewayDayPosted, post_day
from metering.reconciliation.proof import Proof, prove
from metering.web import TOKEN_SECURITY, require

SourceNamed = Annotated[
    str, PathParameter(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$", description="As in events.")
]


@put("/v1/reconciliation/{source:str}/{day:date}", summary="Post what a gateway counted on a day",
     guards=[require("gateway")], sync_to_thread=True)  # fmt: skip
def put_gateway_day(
    request: Request[Any, Any, Any], source: SourceNamed, day: FromPath[date], data: JSONBody[GatewayDay]
) -> GatewayDayPosted:
    """Safe to repeat: the same totals are the same version, others the next one."""
    with transaction(request.app.state.engine) as connection:
        return post_day(connection, source, day, data)


@get("/v1/admin/reconciliation", summary="Compare what was counted of a month in several places",
     guards=[require("operator")], sync_to_thread=True)  # fmt: skip
def get_reconciliation(
    request: Request[Any, Any, Any],
    month: Annotated[str, QueryParameter(description="A month of the books (Europe/Paris), as 2026-10.")],
) -> Proof:
    period = read_month(month)
    tariffs = tariffs_of(request.app.state.catalog.current())
    with transaction(request.app.state.engine, snapshot=True) as connection:
        return prove(connection, tariffs, period)


reconciliation_router = Router(
    "/", route_handlers=[put_gateway_day, get_reconciliation], security=TOKEN_SECURITY, tags=["reconciliation"]
)

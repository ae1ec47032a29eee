"""Carbon over HTTP: any gram back to a counter, and the emission factors on the way."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, get
from litestar.params import Parameter

from metering.carbon.explaining import Explanation, explain
from metering.carbon.listing import Asked, ListedFactor, list_factors
from metering.database import transaction
from metering.errors import Unprocessable
from metering.identity import Principal
from metering.rules.carbon.factors import FactorKind


@get("/v1/carbon/explain/{event:str}", summary="What an event's energy and grams follow from", sync_to_thread=True)
def get_explanation(
    request: Request[Any, Any, Any],
    event: Annotated[str, Parameter(description="Id of the event.")],
    source: Annotated[str, Parameter(description="Its source; both together are its identity.")],
) -> Explanation:
    reader: Principal = request.scope["state"]["principal"]
    user = reader.account if reader.role == "member" else None
    # Readings and other requests' times are the platform's: the event is looked up as the caller's, and no name of
    # another administration is in the answer.
    with transaction(request.app.state.engine, snapshot=True) as connection:
        return explain(connection, source, event, tenant=reader.tenant, user=user)


class FactorPage(msgspec.Struct):
    """Emission factors by number, and where the next page begins."""

    items: list[ListedFactor]
    next_after: int | None


@get("/v1/emission-factors", summary="Emissions of a kilowatt-hour by zone and time", sync_to_thread=True)
def get_emission_factors(
    request: Request[Any, Any, Any],
    zone: Annotated[str | None, Parameter(max_length=128, description="Only this zone.")] = None,
    kind: Annotated[FactorKind | None, Parameter(description="Of the grid, or of a contract.")] = None,
    start: Annotated[datetime | None, Parameter(description="Only those valid after it; RFC 3339.")] = None,
    end: Annotated[datetime | None, Parameter(description="Only those valid before it; RFC 3339.")] = None,
    after: Annotated[int, Parameter(ge=0, le=2**63 - 1, description="Number after which the page begins.")] = 0,
    limit: Annotated[int, Parameter(ge=1, le=1000, description="Factors a page.")] = 100,
) -> FactorPage:
    asked = Asked(zone, kind, _with_offset("start", start), _with_offset("end", end))
    with transaction(request.app.state.engine) as connection:
        items = list_factors(connection, asked, after=after, limit=limit)
    return FactorPage(items, items[-1].number if len(items) == limit else None)


def _with_offset(field: str, instant: datetime | None) -> datetime | None:
    if instant is not None and instant.tzinfo is None:
        raise Unprocessable(
            "invalid_instant", "A time needs an offset.", field=field, expected="RFC 3339 with an offset"
        )
    return instant


def carbon_router(**options: Any) -> Router:
    """Routes of carbon; options are Litestar's for a router (guards, security)."""
    return Router("/", route_handlers=[get_explanation, get_emission_factors], tags=["carbon"], **options)

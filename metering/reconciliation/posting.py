"""What gateways say that they served on a day: versions that are added, and never changed."""

from datetime import date
from itertools import pairwise
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import Meta, Struct, to_builtins

from metering.errors import Unprocessable
from metering.rules.quantities import QUANTITY_MAX
from metering.tables import gateway_total

TOTALS_MAX = 100_000
POSTING_LOCK = 0x544F54414C  # "TOTAL": versions are numbered one after another

Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Amount = Annotated[int, Meta(ge=0, le=QUANTITY_MAX)]


class GatewayTotal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, order=True):
    """What was served of a model to an administration: as many requests as events were sent, whatever their status.

    A quantity that the gateway doesn't count is absent, and isn't compared.
    """

    tenant: Name
    model: Name
    requests: Amount
    input_tokens: Amount | None = None
    output_tokens: Amount | None = None


class GatewayDay(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All totals of a source on a day of the books (Europe/Paris) by the start of requests; none: it served nothing."""

    totals: Annotated[list[GatewayTotal], Meta(max_length=TOTALS_MAX)]


class GatewayDayPosted(Struct, frozen=True, kw_only=True):
    """The version that holds from now on; the same totals again are the same version."""

    source: str
    day: date
    version: int
    totals: int


def post_day(connection: sa.Connection, source: str, day: date, posted: GatewayDay) -> GatewayDayPosted:
    """Record a day's totals as its newest version. Raises: Unprocessable for a pair that is there twice."""
    totals = sorted(posted.totals, key=lambda one: (one.tenant, one.model))
    for one, following in pairwise(totals):
        if (one.tenant, one.model) == (following.tenant, following.model):
            raise Unprocessable(
                "duplicate_total", "An administration and a model are there twice.", field="totals",
                expected="one total for each tenant and model",
            )  # fmt: skip
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(POSTING_LOCK)))
    written: list[dict[str, Any]] = to_builtins(totals)
    columns = gateway_total.c
    last = connection.execute(
        sa.select(columns.version, columns.totals)
        .where(columns.source == source, columns.day == day)
        .order_by(columns.version.desc())
        .limit(1)
    ).first()
    version = 1 if last is None else last.version
    if last is None or last.totals != written:
        version = 1 if last is None else last.version + 1
        connection.execute(gateway_total.insert().values(source=source, day=day, version=version, totals=written))
    return GatewayDayPosted(source=source, day=day, version=version, totals=len(totals))

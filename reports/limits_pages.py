"""The routes of the pages "Quotas et clés" and "Modèles"."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import MediaType, Request, Response, Router, get
from litestar.datastructures import State
from litestar.types import Guard

from metering.database import transaction
from metering.errors import Forbidden
from metering.identity import Principal
from reports.carbon import per_unit, read_carbon
from reports.models_page import models_page
from reports.quotas_page import quotas_page
from reports.rendering import answer_page
from reports.selection import ZONE
from reports.standing import OfferedModel, Quotas, Standing
from reports.usage import UsageQuestion, for_reader, known_values
from reports.wording import Language

CARBON_DAYS = 30


@dataclass(frozen=True, slots=True)
class LimitSources:
    """What other rooms tell. standings: where limits stand; None: the counters are away, or nobody is asked about.

    quotas: an administration's, with these standings and holds. Raises: NotFound. models: as offered to a reader.
    """

    standings: Callable[[State, Principal, str | None], Awaitable[tuple[Sequence[Standing], Sequence[Any]] | None]]
    quotas: Callable[[State, Principal, str, tuple[Sequence[Standing], Sequence[Any]] | None, datetime], Quotas]
    models: Callable[[State, Principal, datetime], Sequence[OfferedModel]]


def limits_pages(sources: LimitSources, *, guards: Sequence[Guard] = ()) -> Router:
    """The pages of limits and of models."""

    @get("/quotas", include_in_schema=False, media_type=MediaType.HTML)
    async def quotas(request: Request[Any, Any, Any], state: State) -> Response[str]:
        reader: Principal = request.scope["state"]["principal"]
        tenant = reader.tenant or request.query_params.get("tenant") or None
        standings = await sources.standings(state, reader, tenant)
        now = datetime.now(UTC)

        def build(language: Language, reader: Principal) -> Mapping[str, object]:
            if request.query_params.get("tenant", tenant) not in {tenant, ""}:
                raise Forbidden("not_yours", "That isn't yours to read.", field="tenant", expected="your own")
            with transaction(state.engine, actor=reader.actor) as connection:
                tenants = known_values(connection, "tenant", reader) if reader.tenant is None else []
            page = None if tenant is None else sources.quotas(state, reader, tenant, standings, now)
            shown = None if page is None else quotas_page(page, reader, now, language)
            return {"page": shown, "tenants": tenants, "public_url": state.settings.public_url.rstrip("/")}

        return await answer_page(request, "quotas.html", build)

    @get("/models", include_in_schema=False, media_type=MediaType.HTML)
    async def models(request: Request[Any, Any, Any], state: State) -> Response[str]:
        now = datetime.now(UTC)

        def build(language: Language, reader: Principal) -> Mapping[str, object]:
            return {"models": models_page(sources.models(state, reader, now), _carbon(state, reader, now), language)}

        return await answer_page(request, "models.html", build)

    return Router("/", route_handlers=[quotas, models], guards=list(guards))


def _carbon(state: State, reader: Principal, now: datetime) -> dict[str, int]:
    """Model to emissions of 1,000 tokens of a reader's use, in ng CO2e, where they are known."""
    end = now.replace(minute=0, second=0, microsecond=0)
    question = for_reader(UsageQuestion(end - timedelta(days=CARBON_DAYS), end, None, ZONE, ("model",)), reader)
    with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
        rows = read_carbon(connection, question)
        units = per_unit(connection, question, rows)
    found = {row.group["model"]: unit["per_1000_tokens_ng"] for row, unit in zip(rows, units, strict=True)}
    return {model: value for model, value in found.items() if model is not None and value is not None}

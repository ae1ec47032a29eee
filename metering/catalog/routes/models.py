"""Models and notices as every caller sees them, and the gateway's question: which model, for whom, until when."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from litestar import Request, Response, Router, get, post
from litestar.params import JSONBody, PathParameter

from metering.catalog.conventions import terms_of_use
from metering.catalog.documents import Id, Instant, ModelName, Retirement, Tier
from metering.catalog.keys import check_key
from metering.catalog.models import (
    Resolution,
    Status,
    check_operation,
    look_up,
    notices_for,
    resolve,
    retirement_headers,
    retirements_announced,
)
from metering.catalog.routes.acting import acting, clock
from metering.catalog.snapshot import CatalogReader, Snapshot
from metering.rules.quantities import Operation
from metering.rules.retirement import Retiring
from metering.tables import deployment
from metering.web import BODY_BYTES_MAX, TOKEN_SECURITY, caller_of, require

KeyDigest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of the key, in hexadecimal.")]

Name = Annotated[
    Path,
    # A name may have slashes, as a path has; but it is no URI, which OpenAPI would say of a path.
    PathParameter(description="Model, alias or category.", schema_extra={"format": None}),
]


class RetirementShown(msgspec.Struct):
    """The end of a model or category: from `retires_at` on it is refused."""

    kind: Retiring
    subject: str
    successor: str | None
    announced_at: Instant
    retires_at: Instant


class NoticeShown(msgspec.Struct):
    """What agents are told, in both languages."""

    id: str
    kind: str
    title_fr: str
    title_en: str
    text_fr: str
    text_en: str
    starts_at: Instant
    ends_at: Instant | None


class ModelShown(msgspec.Struct, kw_only=True):
    """A model that is offered, or was. `deployments`: replicas that run now; `aliases`: its other names."""

    id: str
    name: str
    category: str
    publisher: str
    licence: str
    licence_url: str | None
    parameters: int | None
    active_parameters: int | None
    precision: str | None
    context_tokens: int | None
    kv_bytes_per_token: int | None
    operations: list[Operation]
    aliases: list[str]
    deployments: int
    status: Status
    available_from: Instant | None
    retirement: RetirementShown | None


class NamedModel(ModelShown, kw_only=True):
    """The model that answers to a name. `status` and `retirement` are those of what was named."""

    requested: str
    named: Retiring


class ModelList(msgspec.Struct):
    """Models by id."""

    items: list[ModelShown]


class NoticeList(msgspec.Struct):
    """Notices that are live or to come, and every announced end of a model or category."""

    items: list[NoticeShown]
    retirements: list[RetirementShown]


class Question(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Who asks for which model (a model, an alias or a category), and what for."""

    key_sha256: KeyDigest
    model: ModelName
    operation: Operation | None = None


class Answer(msgspec.Struct, kw_only=True):
    """Whose key it is, and which model answers. `catalog_version`: the last change that was known."""

    tenant: Id
    project: Id | None
    user: Id | None
    api_key: Id
    plan: Id
    tier: Tier
    model_requested: str
    model: str
    category: str
    retirement: RetirementShown | None
    notices: list[NoticeShown]
    catalog_version: int


@get("/v1/models", summary="Models that are offered, or were", sync_to_thread=True)
def get_models(request: Request[Any, Any, Any]) -> ModelList:
    catalog, now = _catalog(request).current(), clock()
    aliases, replicas = _aliases(catalog), _live_replicas(request, now)
    named = [look_up(catalog, name, now) for name in sorted(catalog.models)]
    return ModelList(
        [ModelShown(**_fields(one, now, aliases, replicas), retirement=_shown(one.retirement)) for one in named]
    )


@get("/v1/models/{name:path}", summary="The model that answers to a name", sync_to_thread=True)
def get_model(request: Request[Any, Any, Any], name: Name) -> Response[NamedModel]:
    catalog, now = _catalog(request).current(), clock()
    found = look_up(catalog, str(name).removeprefix("/"), now)
    answer = NamedModel(
        **_fields(found, now, _aliases(catalog), _live_replicas(request, now)),
        retirement=_shown(found.retirement),
        requested=found.requested,
        named=found.kind,
    )
    return Response(answer, headers=retirement_headers(found.retirement))


@get("/v1/notices", summary="What agents are told: maintenance, incidents, retirements", sync_to_thread=True)
def get_notices(request: Request[Any, Any, Any]) -> NoticeList:
    catalog, now = _catalog(request).current(), clock()
    retirements = [_retirement(one) for one in retirements_announced(catalog, now)]
    return NoticeList(_notices(catalog, caller_of(request).tenant, now), retirements)


@post(
    "/v1/gateway/resolve",
    summary="Whose key it is, and which model answers",
    description="Answered from memory. A model or category that retired is 410, and names its successor.",
    guards=[require("gateway", "operator")],
    status_code=200,
    sync_to_thread=True,
)
def post_resolve(request: Request[Any, Any, Any], data: JSONBody[Question]) -> Response[Answer]:
    found, answer = answer_question(_catalog(request), data, clock())
    return Response(answer, headers=retirement_headers(found.retirement))


def answer_question(reader: CatalogReader, question: Question, now: datetime) -> tuple[Resolution, Answer]:
    """Answer to a gateway. Raises: Unauthorized, Forbidden, NotFound, Gone, Unprocessable."""
    digest = bytes.fromhex(question.key_sha256)
    reader.find_key(digest)  # one that was made a moment ago, by another process, is known from here on
    catalog = reader.current()
    key = check_key(catalog, digest, now).key
    found = resolve(catalog, question.model, tenant=key.tenant, now=now)
    check_operation(found.model, question.operation)
    terms = terms_of_use(catalog, key.tenant, now)
    return found, Answer(
        tenant=key.tenant,
        project=key.project,
        user=key.account,
        api_key=key.id,
        plan=terms.plan.id,
        tier=terms.tier,
        model_requested=question.model,
        model=found.model.id,
        category=found.model.category,
        retirement=_shown(found.retirement),
        notices=_notices(catalog, key.tenant, now),
        catalog_version=catalog.version,
    )


def _catalog(request: Request[Any, Any, Any]) -> CatalogReader:
    reader: CatalogReader = request.app.state.catalog
    return reader


def _fields(
    found: Resolution, now: datetime, aliases: Mapping[str, list[str]], replicas: Mapping[str, int]
) -> dict[str, Any]:
    """What is shown of a model but its retirement."""
    model = found.model
    return msgspec.structs.asdict(model) | {
        "aliases": aliases.get(model.id, []),
        "deployments": replicas.get(model.id, 0),
        "status": found.status(now),
    }


def _aliases(catalog: Snapshot) -> Mapping[str, list[str]]:
    """Model to its other names."""
    found: dict[str, list[str]] = defaultdict(list)
    for alias in catalog.aliases.values():
        if alias.model is not None:
            found[alias.model].append(alias.id)
    return found


def _live_replicas(request: Request[Any, Any, Any], now: datetime) -> Mapping[str, int]:
    """Model to the number of its replicas that run."""
    runs = sa.and_(deployment.c.starts_at <= now, sa.or_(deployment.c.ends_at.is_(None), now < deployment.c.ends_at))
    query = sa.select(deployment.c.model, sa.func.sum(deployment.c.replicas)).where(runs).group_by(deployment.c.model)
    with acting(request) as connection:
        return {model: int(replicas) for model, replicas in connection.execute(query)}


def _notices(catalog: Snapshot, tenant: str | None, now: datetime) -> list[NoticeShown]:
    """Without the administrations that a notice is for: nobody learns of others."""
    return [
        NoticeShown(**{name: getattr(one, name) for name in NoticeShown.__struct_fields__})
        for one in notices_for(catalog, tenant, now)
    ]


def _shown(retirement: Retirement | None) -> RetirementShown | None:
    return None if retirement is None else _retirement(retirement)


def _retirement(retirement: Retirement) -> RetirementShown:
    return RetirementShown(**msgspec.structs.asdict(retirement))


models_router = Router(
    "/",
    route_handlers=[
        Router(
            "/",
            route_handlers=[get_models, get_model, get_notices],
            guards=[require("operator", "manager", "member", "gateway")],
        ),
        post_resolve,
    ],
    security=TOKEN_SECURITY,
    request_max_body_size=BODY_BYTES_MAX,
    tags=["models"],
)

"""The catalogue that an OpenGateLLM's directory comes to: models, a plan for each role, administrations."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
import sqlalchemy as sa

from metering.catalog.apply import Wanted
from metering.catalog.documents import Alias, Category, Document, Limit, Model, Plan, Tenant
from metering.catalog.kinds import KINDS, Key, load
from metering.imports.attribution import Attribution
from metering.imports.directory import Directory, Role, RoleLimit
from metering.imports.names import is_model_name, plan_of_role
from metering.imports.tables import Generation
from metering.rules.limits import Meter, Window
from metering.rules.quantities import Operation

UNKNOWN = "unknown"
"""Publisher and licence of a model: the gateway doesn't know them, and a guess would be read as a promise."""

OPERATIONS: Mapping[str, Sequence[Operation]] = MappingProxyType(
    {
        "text-generation": ("chat", "completion"),
        "image-text-to-text": ("chat", "completion", "ocr"),
        "automatic-speech-recognition": ("transcription",),
        "text-embeddings-inference": ("embedding", "search", "file_ingest"),
        "text-classification": ("rerank",),
    }
)
"""Type of a model to what it may be called for. The gateway's index of documents is searched and filled by a model."""

_ANY_OPERATION = tuple(sorted({operation for offered in OPERATIONS.values() for operation in offered}))
"""Of a model whose type isn't known: the first releases have types in a file, and check them on their own."""

_WEB_SEARCH = "web-search"
"""A model by name only: releases of 2025 limit searches on the web by it."""

_REQUESTS: Mapping[str, Window] = MappingProxyType({"rpm": "minute", "rpd": "day"})
_TOKENS: Mapping[str, Window] = MappingProxyType({"tpm": "minute", "tpd": "day"})
_TOKEN_METER: Mapping[Generation, Meter] = MappingProxyType({"2025": "input_tokens", "2026": "total_tokens"})
"""What the gateway's limits on tokens count: until 2026 those of the prompt only."""

_spaces = re.compile(r"[\s\x00-\x1f\x7f]+")

Place = tuple[str, Meter, Window]


@dataclass(frozen=True, slots=True)
class WantedCatalogue:
    """What the catalogue should hold, and what couldn't be taken over: why, and how often."""

    wanted: Wanted
    left_out: Mapping[str, int]


def named_models(directory: Directory) -> list[str]:
    """The gateway's models that the catalogue can hold."""
    return [name for name in directory.models if is_model_name(name) and name != _WEB_SEARCH]


def line(text: str | None, otherwise: str) -> str:
    """A text of the gateway's as one line of ours: at most 200 characters, without line breaks."""
    cleaned = _spaces.sub(" ", text or "").strip()[:200].strip()
    return cleaned or otherwise


def wanted_catalogue(
    connection: sa.Connection, directory: Directory, attribution: Attribution
) -> WantedCatalogue:  # fmt: skip
    """The documents of a directory. What the catalogue knows stays as it is, but for the limits of roles."""
    left_out: Counter[str] = Counter()
    models = named_models(directory)
    left_out["models whose name no event can carry"] = len(directory.models.keys() - {*models, _WEB_SEARCH})
    for role in directory.roles.values():
        left_out["limits of unknown models or kinds"] += sum(_place(one, directory) is None for one in role.limits)
    documents: dict[str, list[Document]] = {
        "categories": [
            Category(id=f"og-{kind}", name=kind) for kind in sorted({_kind(directory, one) for one in models})
        ],
        "models": [_model(directory, name) for name in models],
        "aliases": list(_aliases(directory, set(models), left_out)),
        "plans": [_plan(role, directory) for role in directory.roles.values()],
        "tenants": list(_tenants(directory, attribution)),
    }
    return WantedCatalogue(
        Wanted([(KINDS[name], one) for name, found in documents.items() for one in _settled(connection, name, found)]),
        {reason: count for reason, count in left_out.items() if count},
    )


def _settled(connection: sa.Connection, name: str, found: Sequence[Document]) -> Iterator[Document]:
    """Documents as they should be: what is known stays, since an operator may have completed it."""
    kind = KINDS[name]
    known: dict[Key, Document] = load(connection, kind)
    for document in found:
        there = known.get(kind.key_of(document))
        if there is None:
            yield document
        elif isinstance(document, Plan) and isinstance(there, Plan):
            yield msgspec.structs.replace(there, limits=document.limits)


def _kind(directory: Directory, name: str) -> str:
    kind = directory.models[name]
    return kind if kind in OPERATIONS else "other"


def _model(directory: Directory, name: str) -> Model:
    kind = _kind(directory, name)
    return Model(
        id=name, name=name, category=f"og-{kind}", publisher=UNKNOWN, licence=UNKNOWN,
        operations=list(OPERATIONS.get(kind, _ANY_OPERATION)),
    )  # fmt: skip


def _aliases(directory: Directory, models: set[str], left_out: Counter[str]) -> Iterator[Document]:
    for alias, name in directory.aliases.items():
        if name in models and is_model_name(alias) and alias not in models:
            yield Alias(id=alias, model=name)
        else:
            left_out["aliases"] += 1


def _plan(role: Role, directory: Directory) -> Plan:
    limits = [_limit(place, value) for place, value in limits_of_role(role, directory).items()]
    return Plan(id=plan_of_role(role.id), name=line(role.name, plan_of_role(role.id)), limits=limits)


def _limit(place: Place, value: int | None) -> Limit:
    selector, meter, window = place
    return Limit(scope="user", selector=selector, meter=meter, window=window, value=value)


def limits_of_role(role: Role, directory: Directory) -> dict[Place, int | None]:
    """What each user of a role may use. A model that a role has no limit on requests for is forbidden to it."""
    if role.is_admin:
        return {}
    values: dict[Place, int | None] = {("model:*", "requests", window): 0 for window in _REQUESTS.values()}
    for limit in role.limits:
        if (place := _place(limit, directory)) is not None:
            values[place] = None if limit.value is None else max(limit.value, 0)
    return values


def _place(limit: RoleLimit, directory: Directory) -> Place | None:
    """What a limit of the gateway is on; None for a model or kind of limit that isn't known."""
    if limit.model == _WEB_SEARCH:
        selector = "operation:web_search"
    elif limit.model in directory.models and is_model_name(limit.model):
        selector = f"model:{limit.model}"
    else:
        return None
    if limit.kind in _REQUESTS:
        return selector, "requests", _REQUESTS[limit.kind]
    if limit.kind in _TOKENS:
        return selector, _TOKEN_METER[directory.generation], _TOKENS[limit.kind]
    return None


def differing_limits(role: Role, others: Role, directory: Directory) -> Iterator[Limit]:
    """Limits that hold for a user of a role where those of another hold for everybody."""
    own, common = limits_of_role(role, directory), limits_of_role(others, directory)
    for place in sorted({**own, **common}):
        value = _value(own, place)
        if value != _value(common, place):
            yield _limit(place, value)


def _value(limits: Mapping[Place, int | None], place: Place) -> int | None:
    """What limits say at a place: where they name nothing, what they say of each model."""
    selector, meter, window = place
    each = limits.get(("model:*", meter, window)) if selector.startswith("model:") else None
    return limits.get(place, each)


def role_of_tenants(directory: Directory, attribution: Attribution) -> dict[str, int]:
    """The role that most users of an administration have; of as many, the oldest."""
    counts: dict[str, Counter[int]] = {}
    for user in directory.users.values():
        counts.setdefault(attribution.tenant_of(user.id), Counter())[user.role_id] += 1
    return {
        tenant: min(roles, key=lambda role_id: (-roles[role_id], role_id))
        for tenant, roles in counts.items()
    }  # fmt: skip


def _tenants(directory: Directory, attribution: Attribution) -> Iterator[Document]:
    roles = role_of_tenants(directory, attribution)
    for tenant_id, name in sorted(attribution.names.items()):
        plan = plan_of_role(roles[tenant_id]) if tenant_id in roles else None
        yield Tenant(id=tenant_id, name=line(name, tenant_id), plan=plan)

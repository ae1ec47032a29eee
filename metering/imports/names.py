"""What an OpenGateLLM calls by number, as Jauge names it: the import and the adapter must agree. Pure."""

from metering.events.envelope import NAME_LENGTH_MAX, is_name, is_source
from metering.gateways.requests import operation_of
from metering.rules.quantities import QUANTITY_MAX, Operation

UNATTRIBUTED = "og-none"
"""Administration of users without an organisation, and of usage whose user is gone."""

UNKNOWN_MODEL = "unknown"
"""What an event names where the gateway names no model, or one that no event can carry."""


def tenant_of_organisation(organisation_id: int | None) -> str:
    """Id of an organisation's administration, unless a tenant map says otherwise."""
    return UNATTRIBUTED if organisation_id is None else f"og-org-{organisation_id}"


def account_of_user(user_id: int) -> str:
    """Pseudonym of a user: the `user` of events."""
    return f"og-user-{user_id}"


def key_of_token(token_id: int) -> str:
    """Id of a key: the `api_key` of events."""
    return f"og-key-{token_id}"


def plan_of_role(role_id: int) -> str:
    """Id of the plan with a role's limits."""
    return f"og-role-{role_id}"


def deployment_of_provider(provider_id: int) -> str:
    """Id of a provider, which is a place where a model runs: the `deployment` of events."""
    return f"og-provider-{provider_id}"


def model_name(name: str | None) -> str:
    """A model's name as an event carries it; what has another form may be a client's words, and isn't kept."""
    return name if name is not None and is_model_name(name) else UNKNOWN_MODEL


def is_model_name(name: str) -> bool:
    """Whether events and the catalogue can carry a model's name."""
    return len(name) <= NAME_LENGTH_MAX and is_name(name)


def operation_of_endpoint(endpoint: str | None) -> Operation:
    """What an endpoint is for. The first releases had `/v1/ocr-beta` and `/v1/parse-beta`."""
    return operation_of((endpoint or "").removesuffix("-beta")) or "other"


def endpoint_name(endpoint: str | None) -> str | None:
    """A path as an event carries it; None for one that no event can carry."""
    return endpoint if endpoint and len(endpoint) <= NAME_LENGTH_MAX and is_source(endpoint) else None


def measured(value: float | None) -> int | None:
    """A count of the gateway's tokenizer that an event can carry; its 0 is a default, and says nothing.

    Completions are floating-point numbers in the gateway's database.
    """
    return whole(value) or None


def whole(value: float | None) -> int | None:
    """A number as a quantity of an event; None for what isn't one."""
    if value is None or not 0 <= value <= QUANTITY_MAX or value != int(value):
        return None
    return int(value)

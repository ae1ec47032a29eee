"""A refusal, as clients of OpenAI's API read it, or those of Anthropic's."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

MESSAGES: Mapping[str, str] = MappingProxyType(
    {
        "account_suspended": "The account is suspended.",
        "body_too_large": "The request is too large.",
        "envelope_used_up": "The envelope of the convention is used up.",
        "experiment_over": "The experiment with this model is over.",
        "experiment_restricted": "This model is for some administrations only.",
        "forbidden": "A limit of zero forbids it.",
        "invalid_key": "The API key isn't valid.",
        "limit_reached": "A limit is reached.",
        "malformed_form": "The form can't be read.",
        "malformed_json": "The body isn't a JSON object.",
        "missing_key": "An API key is needed: Authorization: Bearer KEY.",
        "missing_model": "The request names no model.",
        "model_not_available_yet": "This model isn't available yet.",
        "model_retired": "This model has been retired.",
        "operation_not_offered": "The model can't be called for this.",
        "quota_unavailable": "Limits can't be checked right now.",
        "shed": "The platform is overloaded.",
        "spool_full": "Usage can't be recorded right now.",
        "store_away": "Limits can't be checked right now.",
        "tenant_suspended": "The administration is suspended.",
        "terms_not_accepted": "The terms of use have to be accepted first.",
        "unknown_carbon": "A limit is in grams of CO2e, and nobody knows what this emits.",
        "unknown_model": "The model doesn't exist.",
        "unknown_price": "A limit is in euros, and this has no price in euros.",
    }
)
TYPES: Mapping[int, str] = MappingProxyType(
    {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
)


ANTHROPIC_TYPES: Mapping[int, str] = MappingProxyType({**TYPES, 404: "not_found_error", 413: "request_too_large"})
"""As platform.claude.com/docs, "Claude API errors", has them."""


def body_of(status: int, code: str) -> bytes:
    """The body of a refusal: `{"error": {message, type, param, code}}`."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    error = {"message": _message(code), "type": kind, "param": None, "code": code}
    return msgspec.json.encode({"error": error})


def anthropic_body_of(status: int, code: str) -> bytes:
    """The same for Anthropic's API: `{"type": "error", "error": {type, message}}`, which has no place for a code."""
    away = "overloaded_error" if code == "shed" else "api_error"
    kind = ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else away)
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": _message(code)}})


def _message(code: str) -> str:
    return MESSAGES.get(code, "The request is refused.")


def messages_of(status: int, body: bytes, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The refusal as ASGI sends it, with headers to pass on."""
    own = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    if status == 401:
        own["www-authenticate"] = "Bearer"
    return [
        {"type": "http.response.start", "status": status, "headers": encoded(own)},
        {"type": "http.response.body", "body": body},
    ]


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

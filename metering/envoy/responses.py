"""What Envoy is answered: a code and a limit for each descriptor; headers and a refusal's body for the client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from metering.catalog.models import retirement_headers
from metering.envoy.messages import OK, OVER_LIMIT, UINT32_MAX, UNIT_OF_WINDOW, RateLimitResponse
from metering.quotas.answers import STATUSES
from metering.quotas.calls import Figure
from metering.quotas.headers import headers_of, remaining, reset_s
from metering.quotas.routes import DETAILS, OPENAI_TYPES
from metering.quotas.service import Decision

REFUSED = frozenset({"refused", "forbidden"})
"""Flags of the limits that refuse a request."""

_body = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request may not run, for its client."""

    status: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is answered to a descriptor. figure: the limit that it is told of; reservation: what is held."""

    refusal: Refusal | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    figure: Figure | None = None
    reset_s: int = 0
    reservation: str | None = None


def verdict_of(decision: Decision, now: datetime, reservation: str | None = None) -> Verdict:
    """A decision as an answer. now: where no store told the time."""
    at, reason = decision.now or now, decision.reason
    refusal = None if decision.is_allowed else Refusal(STATUSES[reason], reason, DETAILS[reason])
    headers = headers_of(decision, at) | retirement_headers(decision.retirement)
    limited = [figure for figure in decision.figures if figure.limit.value is not None]
    if not limited:
        return Verdict(refusal, headers, reservation=reservation)
    figure = min(limited, key=_nearness)
    return Verdict(refusal, headers, figure, decision.retry_after_s or reset_s(figure, at), reservation)


def response_of(verdicts: Sequence[Verdict]) -> Any:
    """The RateLimitResponse. Its headers are those of the first refusal, or else of the first verdict that has any."""
    response = RateLimitResponse(overall_code=OK, statuses=[_status(verdict) for verdict in verdicts])
    telling = next((verdict for verdict in verdicts if verdict.headers), Verdict())
    refused = next((verdict for verdict in verdicts if verdict.refusal is not None), None)
    if refused is not None and refused.refusal is not None:
        telling = refused
        response.overall_code = OVER_LIMIT
        response.raw_body = _body.encode(_error(refused.refusal))
        response.response_headers_to_add.add(key="Content-Type", value="application/json")
    elif (held := next((one.reservation for one in verdicts if one.reservation), None)) is not None:
        # What tells of usage later asks for it: of a request that was refused, nothing is told.
        response.dynamic_metadata.fields.add(key="reservation", value={"string_value": held})
    for name, value in telling.headers.items():
        response.response_headers_to_add.add(key=name, value=value)
    return response


def _nearness(figure: Figure) -> tuple[bool, bool, int]:
    """Lowest is told of: what refuses, then requests, then where the least is left."""
    return figure.flag not in REFUSED, figure.limit.meter != "requests", remaining(figure)


def _status(verdict: Verdict) -> dict[str, Any]:
    """A DescriptorStatus. Envoy's numbers end at 2^32-1: a larger one is told as that; headers have it whole."""
    status: dict[str, Any] = {"code": OK if verdict.refusal is None else OVER_LIMIT}
    if verdict.figure is not None:
        limit = verdict.figure.limit
        status["current_limit"] = {
            "requests_per_unit": min(limit.value or 0, UINT32_MAX),
            "unit": UNIT_OF_WINDOW.get(limit.window, 0),
            "name": f"{limit.scope}-{limit.meter}-{limit.window}",
        }
        status["limit_remaining"] = min(remaining(verdict.figure), UINT32_MAX)
        status["duration_until_reset"] = {"seconds": verdict.reset_s}
    return status


def _error(refusal: Refusal) -> dict[str, Any]:
    """A refusal in the shape that clients of OpenAI's API read: it is they who get it."""
    kind = OPENAI_TYPES.get(refusal.status, "invalid_request_error")
    return {"error": {"message": refusal.detail, "type": kind, "param": None, "code": refusal.code}}

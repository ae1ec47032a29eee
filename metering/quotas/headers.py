"""What a decision says in HTTP headers, for the gateway to pass on.

`RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers-10, for limits on requests; the
`x-ratelimit-*` fields that clients of OpenAI's API read, for requests and tokens.
"""

from datetime import datetime
from operator import attrgetter

from metering.quotas.calls import Figure
from metering.quotas.service import Decision

MINUTE_S = 60
_COUNTED = frozenset({"requests", "input_tokens", "output_tokens", "total_tokens"})
_remaining = attrgetter("remaining")


def headers_of(decision: Decision, now: datetime) -> dict[str, str]:
    """Headers of a decision; nothing of limits that are unlimited."""
    headers: dict[str, str] = {}
    requests: list[Figure] = []
    tokens: list[Figure] = []
    for figure in decision.figures:
        if figure.remaining is not None and figure.limit.meter in _COUNTED:
            (requests if figure.limit.meter == "requests" else tokens).append(figure)
    if requests:
        headers["RateLimit-Policy"] = ", ".join([_policy(figure, now) for figure in requests])
        headers["RateLimit"] = ", ".join([_standing(figure, now) for figure in requests])
    for name, figures in (("requests", requests), ("tokens", tokens)):
        if figures:
            tightest = min(figures, key=_remaining)
            headers[f"x-ratelimit-limit-{name}"] = str(tightest.limit.value)
            headers[f"x-ratelimit-remaining-{name}"] = str(tightest.remaining)
            headers[f"x-ratelimit-reset-{name}"] = f"{reset_s(tightest, now)}s"
    if decision.retry_after_s is not None:
        headers["Retry-After"] = str(decision.retry_after_s)
    return headers


def remaining(figure: Figure) -> int:
    """What is left of a limit, in the meter's base unit; never below 0. The limit must have a value."""
    return figure.remaining or 0


def reset_s(figure: Figure, now: datetime) -> int:
    """Seconds until a limit's window begins anew; for a minute the whole of it."""
    if figure.reset_at is None:
        return MINUTE_S if figure.limit.window == "minute" else 0
    return max(int((figure.reset_at - now).total_seconds()), 0)


def _policy(figure: Figure, now: datetime) -> str:
    limit = figure.limit
    window_s = MINUTE_S if limit.window == "minute" else reset_s(figure, now)
    return f'"{limit.scope}-{limit.window}";q={limit.value};w={window_s}'


def _standing(figure: Figure, now: datetime) -> str:
    limit = figure.limit
    return f'"{limit.scope}-{limit.window}";r={figure.remaining};t={reset_s(figure, now)}'

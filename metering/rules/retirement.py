"""How long what is being replaced stays reachable, and when its users are told.

From the commercial API's conditions: a replaced model stays reachable 30 days under its explicit name, a replaced
category 90 days; customers are told by mail.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

Retiring = Literal["model", "category"]

REACHABLE_DAYS: dict[Retiring, int] = {"model": 30, "category": 90}
"""Least number of days between the announcement and the end."""

TOLD_DAYS: Sequence[int] = (90, 30, 7)
"""Days before the end at which users are told again, after the announcement itself."""

USED_DAYS = 90
"""Who used it within so many days before is told."""


def earliest_end(kind: Retiring, announced_at: datetime) -> datetime:
    """The first instant at which something announced then may end."""
    return announced_at + timedelta(days=REACHABLE_DAYS[kind])


def step_due(announced_at: datetime, retires_at: datetime, now: datetime) -> int | None:
    """The latest step that has begun: the announcement (0) or days before the end; None before and after all.

    Only the latest counts: a worker that was away, or a short announcement, never sends two mails that say the same.
    """
    if not announced_at <= now < retires_at:
        return None
    begun = [days for days in TOLD_DAYS if announced_at < retires_at - timedelta(days=days) <= now]
    return min(begun, default=0)

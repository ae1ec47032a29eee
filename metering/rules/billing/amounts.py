"""What parts of a month come to, as sums of rated lines. Pure."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

AmountState = Literal["indicative", "rated"]
"""indicative: the month isn't over; rated: it is. What is final stands on documents."""


class MonthAmount(NamedTuple):
    """What a line comes to, without tax. project and model are null for a minimum or a cap."""

    tenant: str
    project: str | None
    model: str | None
    billing: Literal["billed", "valued"]
    currency: str
    net_cents: int


class MonthAmounts(NamedTuple):
    """What a month comes to, and how sure that is."""

    state: AmountState
    items: Sequence[MonthAmount]

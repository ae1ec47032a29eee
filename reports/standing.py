"""What the pages "Quotas et clés" and "Modèles" are told by rooms that reports don't import. Amounts in base units."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class LimitRule:
    """A limit: value None is unlimited, 0 forbids. selector: see `rules.limits`."""

    scope: str
    subject: str | None
    selector: str
    meter: str
    window: str
    mode: str
    value: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a limit stands. remaining None: it has no value; reset_at None: it is never reset."""

    rule: LimitRule
    used: int
    held: int
    remaining: int | None
    reset_at: datetime | None


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key without its secret. account None: a program's."""

    id: str
    name: str
    prefix: str
    project: str | None
    account: str | None
    expires_at: datetime | None
    status: str
    last_used_on: date | None


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A request under way."""

    model: str | None
    project: str | None
    user: str | None
    api_key: str | None
    opened_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AskedRaise:
    """A request for a higher limit. peak: highest day of its study; None: its use isn't measured.

    own: its id, where its reader asked for it and may take it back.
    """

    rule: LimitRule
    asked_at: datetime
    peak: int | None
    requests: int
    refused: int
    state: str
    reason: str | None
    own: str | None


@dataclass(frozen=True, slots=True)
class Quotas:
    """An administration's limits, as far as a reader is concerned. standings None: the counters are away."""

    tenant: str
    administration: str
    plan: str
    standings: Sequence[Standing] | None
    keys: Sequence[HeldKey]
    holds: Sequence[OpenHold]
    raises: Sequence[AskedRaise]


@dataclass(frozen=True, slots=True)
class OfferedPrice:
    """A price in 10^-9 of a currency for `per` base units, `unit` in words; is_tiered: it is that of the first tier."""

    meter: str
    nano: int
    unit: str
    currency: str
    is_tiered: bool


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model as it is offered to a reader."""

    id: str
    name: str
    category: str
    publisher: str
    licence: str
    licence_url: str | None
    context_tokens: int | None
    operations: Sequence[str]
    aliases: Sequence[str]
    status: str
    available_from: datetime | None
    retires_at: datetime | None
    successor: str | None
    prices: Sequence[OfferedPrice]
    limits: Sequence[LimitRule]

"""What somebody looks at before a month is final: totals, differences, anomalies, and what stands in the way."""

from collections.abc import Iterator, Sequence

import msgspec

from metering.billing.planning import Plan
from metering.billing.rating import Rating
from metering.rules.billing.composing import BOOKS_CURRENCY
from metering.rules.billing.documents import BillingDocument
from metering.rules.billing.reviewing import Anomaly, Kind, Measure, differences

BLOCKING = frozenset({"no_price_book", "unknown_model", "no_price"})
"""Reasons why usage has no amount that somebody can do something about: with a price, or by saying that it is free."""


class KindTotal(msgspec.Struct, frozen=True):
    """Documents of one kind and currency."""

    kind: str
    currency: str
    documents: int
    net_cents: int
    vat_cents: int
    gross_cents: int


class Compared(msgspec.Struct, frozen=True):
    """An administration's use of a meter beside the month before, in base units and cents; anomaly: why to look."""

    tenant: str
    meter: str
    currency: str
    used_before: int
    used: int
    cents_before: int
    cents: int
    anomaly: Anomaly | None


class UnpricedUsage(msgspec.Struct, frozen=True):
    """Usage without an amount; is_blocking: until it has a price, or is said to cost nothing."""

    tenant: str
    month: str
    project: str | None
    model: str | None
    operation: str
    reason: str
    quantity: str
    amount: int
    is_blocking: bool


class Corrected(msgspec.Struct, frozen=True):
    """A closed month of an administration that usage came late for."""

    tenant: str
    month: str
    convention: str | None
    currency: str
    net_cents: int


class Obstacle(msgspec.Struct, frozen=True):
    """What stands in the way of final documents: a code, and whom or what it is about."""

    code: str
    subject: str


class Review(msgspec.Struct, frozen=True):
    """A draft, looked at. carbon_is_complete: whether all of the month's carbon is posted."""

    totals: list[KindTotal]
    compared: list[Compared]
    unpriced: list[UnpricedUsage]
    corrections: list[Corrected]
    carbon_is_complete: bool
    obstacles: list[Obstacle]


def review(plan: Plan) -> Review:
    """What a plan has to look at."""
    unpriced = list(_unpriced(plan))
    compared = [
        Compared(*one.kind, one.before.used, one.now.used, one.before.cents, one.now.cents, one.anomaly)
        for one in differences(_measures(plan.previous), _measures(plan.ratings))
    ]
    corrected = [
        Corrected(tenant, one.month, one.account.convention, one.account.currency, one.net_cents)
        for tenant, found in sorted(plan.corrections.items())
        for one in found
    ]
    carbon = [one.carbon.is_complete for one in plan.documents if one.carbon is not None]
    obstacles = list(dict.fromkeys((*_obstacles(plan), *(_blocked(one) for one in unpriced if one.is_blocking))))
    return Review(_totals(plan.documents), compared, unpriced, corrected, bool(carbon) and all(carbon), obstacles)


def _totals(documents: Sequence[BillingDocument]) -> list[KindTotal]:
    found: dict[tuple[str, str], list[int]] = {}
    for one in documents:
        sums = found.setdefault((one.kind, one.currency), [0, 0, 0, 0])
        for at, amount in enumerate((1, one.net_cents, one.vat_cents, one.gross_cents)):
            sums[at] += amount
    return [KindTotal(*key, *sums) for key, sums in sorted(found.items())]


def _measures(ratings: Sequence[Rating]) -> dict[Kind, Measure]:
    found: dict[Kind, Measure] = {}
    for rating in ratings:
        for one in rating.month.lines:
            kind = Kind(rating.tenant, one.line.price.meter, one.account.currency or BOOKS_CURRENCY)
            known = found.get(kind, Measure())
            found[kind] = Measure(known.used + one.line.used, known.cents + one.line.cents)
    return found


def _unpriced(plan: Plan) -> Iterator[UnpricedUsage]:
    of_month = [(one.tenant, one.period.month, *gap) for one in plan.ratings for gap in one.month.gaps]
    late = [(one.tenant, one.month, one.gap, one.amount) for one in plan.late_gaps]
    for tenant, month, gap, amount in (*of_month, *late):
        place = gap.place
        yield UnpricedUsage(
            tenant, month, place.project, place.model, gap.operation, gap.reason, gap.quantity, amount,
            gap.reason in BLOCKING,
        )  # fmt: skip


def _blocked(one: UnpricedUsage) -> Obstacle:
    return Obstacle("unpriced", f"{one.tenant} {one.model or one.operation} {one.quantity}")


def _obstacles(plan: Plan) -> Iterator[Obstacle]:
    issuer = plan.parties.issuer
    if issuer is None and plan.documents:
        yield Obstacle("no_issuer", "platform")
    for one in plan.documents:
        if one.kind == "statement":
            continue
        if one.buyer.address is None:
            yield Obstacle("no_address", one.buyer.id)
        if issuer is not None and issuer.vat_number is None and one.vat_cents:
            yield Obstacle("no_vat_number", "platform")
        if one.currency != BOOKS_CURRENCY and one.vat_cents and one.exchanged_vat is None:
            yield Obstacle("no_exchange_rate", one.currency)

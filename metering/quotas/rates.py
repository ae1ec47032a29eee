"""What uses count for in money and carbon, at rates: from the catalogue in memory, and so the same whoever asks.

Rates are whole numbers a base unit, rounded up, so that an estimate is a few products and sums of entries count for
what the entries do. Prices are the indicative ones of the use's day of the books, as they were when it began.
"""

from collections.abc import Sequence
from datetime import date, timedelta

import msgspec
import xxhash

from metering.billing.costs import cost_rates, linear_cost
from metering.billing.prices import Tariffs, tariffs_of
from metering.carbon.rates import ESTIMATED_UGCO2E_PER_KWH, PER, carbon_rates
from metering.catalog.snapshot import Snapshot
from metering.rules.carbon.apportioning import rounded_up
from metering.rules.counting import COUNTED_PER_UNIT, Linear, Rates
from metering.rules.limits import Request
from metering.rules.periods import PARIS, day_bounds

METHOD = 1
"""Of rates and what is counted with them: another one builds counters anew."""

CURRENCY = "EUR"
KEPT_MAX = 20_000

_NO_REQUEST = "storage"
"""What is stored isn't asked for: no limit can refuse it, and a byte-hour costs far less than a nEUR."""


class _Memory:
    """What is known of the parts of a snapshot that rates follow from; others begin anew."""

    __slots__ = ("parts", "rates", "tariffs")

    def __init__(self, snapshot: Snapshot) -> None:
        self.parts = _parts(snapshot)
        self.tariffs = tariffs_of(snapshot)
        self.rates: dict[tuple[str, str | None, str | None, date], Rates] = {}


_memory: _Memory | None = None


def rates_of(snapshot: Snapshot, request: Request, day: date) -> Rates:
    """What a use by a request counts for on a day of the books; its model is named as counters name it."""
    rates = _remember(snapshot).rates
    key = (request.tenant, request.model, request.operation, day)
    found = rates.get(key)
    if found is None:
        if len(rates) >= KEPT_MAX:
            rates.clear()
        found = rates[key] = _rates(snapshot, request, day)
    return found


def rate_days(snapshot: Snapshot, tenant: str, before: date) -> Sequence[date]:
    """Days before another one from which on other prices count for an administration, the first first."""
    tariffs = _remember(snapshot).tariffs
    begins, ends = day_bounds(date(2000, 1, 1))[0], day_bounds(before)[0]
    cuts = (instant.astimezone(PARIS) for instant in tariffs.cuts([tenant], begins, ends))
    # A price that begins within a day counts from the next one on.
    days = {at.date() if at.time() == at.time().min else at.date() + timedelta(days=1) for at in cuts}
    return sorted(day for day in days if day < before)


def rates_digest(snapshot: Snapshot, tenant: str) -> str:
    """Tells the rates of an administration from others."""
    conventions = snapshot.conventions.get(tenant, ())
    books = {snapshot.platform.price_book, *(one.price_book for one in conventions)}
    said = [
        METHOD, ESTIMATED_UGCO2E_PER_KWH, snapshot.platform.price_book, conventions,
        [one for name, one in sorted(snapshot.price_books.items()) if name in books],
        [one for one in snapshot.prices if one.book in books],
        [snapshot.models[name] for name in sorted(snapshot.models)],
    ]  # fmt: skip
    return xxhash.xxh3_64_hexdigest(msgspec.json.encode(said))


def _remember(snapshot: Snapshot) -> _Memory:
    global _memory  # noqa: PLW0603 - one name, replaced whole: threads see the one or the other
    memory = _memory
    if memory is None or any(one is not other for one, other in zip(memory.parts, _parts(snapshot), strict=True)):
        memory = _memory = _Memory(snapshot)
    return memory


def _parts(snapshot: Snapshot) -> tuple[object, ...]:
    """Snapshots share what hasn't changed."""
    return (
        snapshot.platform, snapshot.price_books, snapshot.prices, snapshot.conventions, snapshot.categories,
        snapshot.models, snapshot.aliases,
    )  # fmt: skip


def _rates(snapshot: Snapshot, request: Request, day: date) -> Rates:
    if request.operation is None or request.operation == _NO_REQUEST:
        return Rates({}, {}, {}, {})
    return Rates(_cost(snapshot, request, request.operation, day), *_carbon(snapshot, request, request.operation))


def _cost(snapshot: Snapshot, request: Request, operation: str, day: date) -> Linear | None:
    tariffs: Tariffs = _remember(snapshot).tariffs
    rates = cost_rates(tariffs, request.tenant, request.model or "", operation, day_bounds(day)[0])
    return None if rates is None or rates.currency != CURRENCY else linear_cost(rates)


def _carbon(snapshot: Snapshot, request: Request, operation: str) -> Sequence[Linear | None]:
    """ng CO2e of one of each quantity: the figures, their lower and their upper bounds."""
    model = snapshot.models.get(request.model or "")
    if model is None:
        return None, None, None
    scale = COUNTED_PER_UNIT["carbon_ugco2e"]
    return [
        {name: rounded_up(scale * rate, PER) for name, rate in rates.items()} or None
        for rates in carbon_rates(model, operation, ESTIMATED_UGCO2E_PER_KWH)
    ]

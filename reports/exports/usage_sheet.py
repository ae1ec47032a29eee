"""Usage as a sheet: the rows of /v1/usage, and the amounts of whole months where they can be told exactly.

An amount is of a line, and a line is of a month, an administration, a project and a model: finer cuts have no amount of
their own, as tiers, free quantities and rounding are of the month. Minimum and cap are of no project and no model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

import sqlalchemy as sa

from metering.errors import Unprocessable
from metering.rules.billing.amounts import AmountState, MonthAmount, MonthAmounts
from metering.rules.periods import BOOKS_ZONE, PARIS, month_bounds
from metering.tables import ROLLUP_SUMS, ledger_batch
from reports.exports.sheets import About, Column, Sheet, Value
from reports.exports.words import HEADINGS
from reports.usage import UsageQuestion, UsageRow, stream_usage

AMOUNT_GROUPS = frozenset({"tenant", "project", "model"})
MONTHS_MAX = 36
CENTS = 2


AmountsOf = Callable[[sa.Connection, str, Sequence[str], int | None], MonthAmounts]
"""Takes a connection, a month, the administrations (none: all) and the last batch of the ledger that counts."""


@dataclass(frozen=True, slots=True)
class UsageSheetQuestion:
    """A question about usage, and whether amounts are asked for."""

    usage: UsageQuestion
    with_amounts: bool = False


def usage_columns(question: UsageSheetQuestion) -> tuple[Column, ...]:
    """Columns of a sheet of usage."""
    usage = question.usage
    columns = [Column("bucket_start", "instant", headings=HEADINGS["bucket_start"])] if usage.bucket else []
    columns += [Column(name, "text", headings=HEADINGS[name]) for name in usage.group_by]
    columns += [Column(name, "count", headings=HEADINGS[name]) for name in ROLLUP_SUMS]
    if question.with_amounts:
        amounts = ("billed_amount", "valued_amount")
        columns += [Column(name, "decimal", CENTS, headings=HEADINGS[name]) for name in amounts]
        columns += [Column(name, "text", headings=HEADINGS[name]) for name in ("currency", "amount_state")]
    return tuple(columns)


def usage_sheet(connection: sa.Connection, question: UsageSheetQuestion, amounts_of: AmountsOf | None) -> Sheet:
    """A sheet of usage; its rows are read from the connection as they are asked for, and its hash is yet to be told.

    connection: in a transaction of one state. Raises: NotFound, Unprocessable.
    """
    batch = last_batch_of(connection, question.usage.as_of)
    usage = _cheapest(connection, question.usage, batch)
    if question.with_amounts:
        check_amounts(usage)
        assert amounts_of is not None
        rows = _with_amounts(connection, usage, amounts_of)
    else:
        rows = (_values(row, usage) for row in stream_usage(connection, usage))
    about = About("usage", usage.start, usage.end, batch, "", usage.zone, _asked(question))
    return Sheet(about, usage_columns(question), rows)


def _cheapest(connection: sa.Connection, usage: UsageQuestion, batch: int) -> UsageQuestion:
    """The same question without its batch where that is the newest: rollups then answer it, instead of entries."""
    return replace(usage, as_of=None) if batch == last_batch_of(connection, None) else usage


def last_batch_of(connection: sa.Connection, as_of: int | None) -> int:
    """Number of the last batch of the ledger until one, or of the newest; 0 while there is none."""
    query = sa.select(sa.func.coalesce(sa.func.max(ledger_batch.c.seq), 0))
    return int(connection.scalar(query if as_of is None else query.where(ledger_batch.c.seq <= as_of)) or 0)


def check_amounts(usage: UsageQuestion) -> None:
    """Raises: Unprocessable where amounts can't be told exactly."""
    if usage.zone.key != BOOKS_ZONE:
        raise _inexact("tz", BOOKS_ZONE)
    if not _months(usage):
        raise _inexact("start", f"whole months of {BOOKS_ZONE}, at most {MONTHS_MAX}")
    if usage.bucket != "month" and (usage.bucket is not None or len(_months(usage)) > 1):
        raise _inexact("bucket", "month")
    if not set(usage.group_by) <= AMOUNT_GROUPS:
        raise _inexact("group_by", "tenant, project, model")
    if not set(usage.filters) <= AMOUNT_GROUPS:
        raise _inexact("where", "tenant, project, model")
    if "tenant" not in usage.group_by and len(usage.filters.get("tenant", ())) != 1:
        raise _inexact("group_by", "tenant, or one administration alone")


def _inexact(field: str, expected: str) -> Unprocessable:
    return Unprocessable("no_exact_amount", "Such a cut has no exact amount.", field=field, expected=expected)


def _months(usage: UsageQuestion) -> list[tuple[str, datetime, datetime]]:
    """The months of the books that a period is made of; none, where it isn't made of whole months."""
    found: list[tuple[str, datetime, datetime]] = []
    at = usage.start
    while at < usage.end and len(found) < MONTHS_MAX:
        day = at.astimezone(PARIS)
        start, end = month_bounds(day.year, day.month)
        if start != at:
            return []
        found.append((f"{day:%Y-%m}", start, end))
        at = end
    return found if at == usage.end else []


_Key = tuple[str | None, ...]


def _with_amounts(connection: sa.Connection, usage: UsageQuestion, amounts_of: AmountsOf) -> Iterator[list[Value]]:
    """Rows month by month, so that the amounts of one are in memory at a time; what has an amount alone comes last."""
    for month, start, end in _months(usage):
        rated = amounts_of(connection, month, usage.filters.get("tenant", ()), usage.as_of)
        amounts = _amounts_by_key(usage, rated.items)
        of_month = replace(usage, start=start, end=end)
        for row in stream_usage(connection, of_month):
            yield [*_values(row, usage), *_told(amounts.pop(tuple(row.group.values()), None), rated.state)]
        for key, found in sorted(amounts.items(), key=lambda one: repr(one[0])):
            alone = UsageRow(start.astimezone(UTC), dict(zip(usage.group_by, key, strict=True)), NOTHING_USED)
            yield [*_values(alone, usage), *_told(found, rated.state)]


NOTHING_USED = {name: 0 if name == "requests" else None for name in ROLLUP_SUMS}

_Amount = dict[str, int]
"""Cents by `billing/currency`."""


def _amounts_by_key(usage: UsageQuestion, items: Sequence[MonthAmount]) -> dict[_Key, _Amount]:
    found: dict[_Key, _Amount] = {}
    for item in items:
        if any(getattr(item, name) not in values for name, values in usage.filters.items()):
            continue
        amount = found.setdefault(tuple(getattr(item, name) for name in usage.group_by), {})
        place = f"{item.billing}/{item.currency}"
        amount[place] = amount.get(place, 0) + item.net_cents
    return found


def _told(amount: _Amount | None, state: AmountState) -> list[Value]:
    """Billed, valued, currency, state. Two currencies in one row, after a change of the convention, have no sum."""
    if amount is None:
        return [None, None, None, None]
    currencies = {place.partition("/")[2] for place in amount}
    if len(currencies) > 1:
        return [None, None, "+".join(sorted(currencies)), state]
    (currency,) = currencies
    cents = [amount.get(f"{billing}/{currency}") for billing in ("billed", "valued")]
    return [*(None if one is None else Decimal(one).scaleb(-CENTS) for one in cents), currency, state]


def _values(row: UsageRow, usage: UsageQuestion) -> list[Value]:
    start: list[Value] = []
    if usage.bucket and row.bucket_start is not None:
        start = [row.bucket_start.astimezone(usage.zone).isoformat()]
    return [*start, *row.group.values(), *row.quantities.values()]


def _asked(question: UsageSheetQuestion) -> Mapping[str, object]:
    usage = question.usage
    asked: dict[str, object] = {"bucket": usage.bucket, "group_by": list(usage.group_by)}
    if len(usage.filters.get("tenant", ())) == 1:
        asked["tenant"] = usage.filters["tenant"][0]
    filters = {name: list(values) for name, values in usage.filters.items()}
    return asked | ({"where": filters} if filters else {}) | ({"amounts": True} if question.with_amounts else {})

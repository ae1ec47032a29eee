"""What the overview is told, in one state of the ledger: use and emissions of the last days, keys, and what is due.

Everything is read from rollups and the ledger of carbon, never from entries. Amounts, limits and envelopes come from
rooms that reports don't import (`metering/overseeing.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from litestar.datastructures import State

from metering.database import transaction
from metering.identity import Principal
from metering.rules.quantities import add
from metering.tables import CARBON_SUMS, STATUS_COUNTS, api_key, tenant
from reports.carbon import CarbonRow, posted_until, read_carbon
from reports.journal_api import Cost
from reports.notices import News, read_news
from reports.selection import DEFAULT_DAYS, ZONE, Selection
from reports.standing import Standing
from reports.usage import UsageRow, for_reader, last_batch, read_usage
from reports.wording import Language

QUANTITIES = ("requests", "input_tokens", "output_tokens", "audio_ms", "uncounted_requests", *STATUS_COUNTS)
EXPIRY_DAYS = 30
KEYS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class EndingKey:
    """A key that ends soon."""

    name: str
    tenant: str
    account: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a month (its first day) comes to so far, without tax, by currency.

    billed: what will be invoiced; valued: what is paid otherwise, or not at all. gaps: kinds of use without an amount.
    """

    month: date
    billed: Sequence[Cost] = ()
    valued: Sequence[Cost] = ()
    gaps: int = 0


@dataclass(frozen=True, slots=True)
class EnvelopeLeft:
    """An envelope of a convention, in base units of a meter (nEUR, µg CO2e), with its forecast to the end of the term.

    consumed None: not all of it is in EUR. likely: the forecast with its bounds, None while nothing can be said.
    unknown: what has no amount, and isn't in it.
    """

    convention: str
    title: str
    ends_on: date
    meter: str
    envelope: int
    consumed: int | None
    likely: tuple[int, int, int] | None
    runs_out_on: date | None
    unknown: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What the ledger answered. use: by day, then administration (operators) or project.

    emissions: by the same, of the whole period. posted_until: end of the last hour whose emissions are known. ending:
    the first KEYS_SHOWN of ending_count keys. administration: the reader's, None for the platform's staff.
    """

    use: Sequence[UsageRow]
    emissions: Sequence[CarbonRow]
    newest: tuple[int, datetime] | None
    posted_until: datetime | None
    ending: Sequence[EndingKey]
    ending_count: int
    news: News
    administration: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What other rooms tell. standings None: the counters are away, or limits aren't one administration's."""

    amounts: Amounts | None = None
    envelopes: Sequence[EnvelopeLeft] = ()
    standings: Sequence[Standing] | None = field(default=None)


Tell = Callable[[State, Principal, datetime], Told]
"""Amounts and envelopes, as far as they are a reader's; limits are asked for in the event loop."""


def overview_selection(now: datetime, reader: Principal, language: Language) -> Selection:
    """The period and the cut that the page shows, as the page "Consommation" would be asked for it."""
    last = now.astimezone(ZONE).date()
    group = "tenant" if reader.role == "operator" else "project"
    return Selection(last - timedelta(days=DEFAULT_DAYS - 1), last, language, group=group, quantity="total_tokens")


def read_overview(state: State, selection: Selection, reader: Principal, now: datetime) -> Overview:
    """Read what the page shows, as far as the reader may, from one state of the ledger. Raises: JaugeError."""
    question = for_reader(selection.question(), reader)
    with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
        ending, count = _ending_keys(connection, reader, now)
        return Overview(
            use=read_usage(connection, question, quantities=QUANTITIES),
            emissions=read_carbon(connection, replace(question, bucket=None)),
            newest=last_batch(connection),
            posted_until=posted_until(connection),
            ending=ending,
            ending_count=count,
            news=read_news(connection, reader, now),
            administration=connection.scalar(sa.select(tenant.c.name).where(tenant.c.id == reader.tenant)),
        )


def _ending_keys(connection: sa.Connection, reader: Principal, now: datetime) -> tuple[list[EndingKey], int]:
    """Keys in use that end within EXPIRY_DAYS, the first ones first, and how many there are: a member's own."""
    columns = api_key.c
    conditions = [
        columns.revoked_at.is_(None), columns.expires_at > now, columns.expires_at <= now + timedelta(days=EXPIRY_DAYS)
    ]  # fmt: skip
    if reader.tenant is not None:
        conditions.append(columns.tenant == reader.tenant)
    if reader.role == "member":
        conditions.append(columns.account == reader.account)
    query = sa.select(columns.name, columns.tenant, columns.account, columns.expires_at).where(*conditions)
    found = connection.execute(query.order_by(columns.expires_at, columns.id).limit(KEYS_SHOWN))
    keys = [EndingKey(*row) for row in found]
    count = connection.scalar(sa.select(sa.func.count()).select_from(api_key).where(*conditions))
    return keys, count or 0


def together(rows: Sequence[CarbonRow]) -> CarbonRow | None:
    """The sum of rows; None of none."""
    if not rows:
        return None
    sums: dict[str, int | None] = dict.fromkeys(CARBON_SUMS)
    for row in rows:
        sums = {name: add(sums[name], row.sums[name]) for name in CARBON_SUMS}
    return CarbonRow(None, {}, sums, sum(row.requests_unknown for row in rows), {})

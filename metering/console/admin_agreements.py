"""Administration: conventions with what is left of their envelopes, and prices as they are and will be."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from litestar import MediaType, Request, Response, get
from litestar.params import FromPath

from metering.billing.answers import shown_price
from metering.billing.envelopes import convention_named
from metering.billing.prices import tariffs_of
from metering.catalog import documents
from metering.catalog.kinds import KINDS, load
from metering.catalog.routes.acting import acting, clock
from metering.catalog.snapshot import Snapshot
from metering.console.administration import back_to_admin, heads
from metering.database import transaction
from metering.identity import Principal
from metering.quotas.envelopes import EnvelopePart, read_envelopes
from metering.rules.periods import PARIS
from metering.web import caller_of
from reports import wording
from reports.sheets import Amount, Block, Cell, Sheet, Table, address, answer_sheet, at
from reports.shown import Link
from reports.wording import Language, say

CONVENTIONS = "/admin/conventions"
PRICES = "/admin/prices"


@get(CONVENTIONS, include_in_schema=False, media_type=MediaType.HTML)
async def conventions_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Every convention, each in the version that holds or comes next."""

    def build(language: Language, _reader: Principal) -> Sheet:
        snapshot: Snapshot = request.app.state.catalog.current()
        today = clock().astimezone(PARIS).date()
        names = sorted({one.id for some in snapshot.conventions.values() for one in some})
        found = [convention_named(snapshot.conventions, name, today) for name in names]
        table = Table(
            say(language, "admin.conventions.caption"),
            heads(language, "admin.conventions.title", "filter.tenant", "admin.conventions.settlement",
                  "admin.conventions.term", "admin.conventions.version"),
            tuple(
                (Link(one.title, address(f"{CONVENTIONS}/{quote(one.id, safe='')}", language)), one.tenant,
                 say(language, f"admin.settlement.{one.settlement}"), _term(one, language), str(one.version))
                for one in found
            ),
        )  # fmt: skip
        block = Block("conventions", say(language, "admin.conventions"), (say(language, "admin.conventions.how"),),
                      table=table, empty=say(language, "admin.conventions.none"))  # fmt: skip
        title, what = say(language, "admin.conventions"), say(language, "admin.conventions.what")
        return Sheet(title, what, [block], back_to_admin(language))

    return await answer_sheet(request, build)


def _term(one: documents.Convention, language: Language) -> str:
    return f"{wording.day(one.starts_on, language)} – {wording.day(one.ends_on, language)}"


@get(f"{CONVENTIONS}/{{convention:str}}", include_in_schema=False, media_type=MediaType.HTML)
async def convention_page(request: Request[Any, Any, Any], convention: FromPath[str]) -> Response[str]:
    """A convention, with its envelopes and how far they reach."""

    def build(language: Language, _reader: Principal) -> Sheet:
        state, now = request.app.state, clock()
        snapshot: Snapshot = state.catalog.current()
        one = convention_named(snapshot.conventions, convention, now.astimezone(PARIS).date())
        with transaction(state.engine, snapshot=True, actor=caller_of(request).actor) as connection:
            envelopes = read_envelopes(connection, snapshot, convention, state.quotas.counters, now)
        facts: tuple[tuple[str, Cell], ...] = (
            (say(language, "filter.tenant"), one.tenant),
            (say(language, "admin.conventions.funder"), one.funder),
            (say(language, "admin.conventions.settlement"), say(language, f"admin.settlement.{one.settlement}")),
            (say(language, "admin.conventions.overage"), say(language, f"admin.overage.{one.overage}")),
            (say(language, "admin.conventions.signed"), wording.day(one.signed_on, language)),
            (say(language, "admin.conventions.term"), _term(one, language)),
            (say(language, "admin.conventions.book"), one.price_book),
            (say(language, "admin.conventions.version"), str(one.version)),
        )
        blocks = [Block("convention", say(language, "admin.conventions.one"), facts=facts)]
        blocks += [_envelope(part, language) for part in envelopes.parts]
        if not envelopes.parts:
            empty = say(language, "admin.envelope.none")
            blocks.append(Block("envelope", say(language, "admin.envelope"), empty=empty))
        back = Link(say(language, "admin.conventions"), address(CONVENTIONS, language))
        return Sheet(one.title, say(language, "admin.conventions.what"), blocks, back)

    return await answer_sheet(request, build)


def _envelope(part: EnvelopePart, language: Language) -> Block:
    def amount(value: str | None) -> Amount:
        return Amount(None if value is None else _decimal(value, part.unit, language))

    facts: list[tuple[str, Cell]] = [
        (say(language, "admin.envelope.whole"), amount(part.envelope)),
        (say(language, "admin.envelope.consumed"), amount(part.consumed)),
        (say(language, "admin.envelope.committed"), amount(part.committed)),
        (say(language, "admin.envelope.remaining"), amount(part.remaining)),
        (say(language, "admin.envelope.unknown"), wording.number(part.unknown, language)),
    ]
    if part.forecast is None:
        facts.append((say(language, "admin.envelope.forecast"), None))
    else:
        ahead = part.forecast
        low, high = (_decimal(value, part.unit, language) for value in (ahead.lower, ahead.upper))
        runs_out = None if ahead.runs_out_on is None else wording.day(ahead.runs_out_on, language)
        facts += [
            (say(language, "admin.envelope.forecast"), (_decimal(ahead.value, part.unit, language), f"{low} – {high}")),
            (say(language, "admin.envelope.runs_out"), runs_out or say(language, "admin.envelope.lasts")),
        ]
    name = "money" if part.unit == "EUR" else "carbon"
    return Block(
        name, say(language, f"admin.envelope.{name}"), (say(language, "admin.envelope.how"),), facts=tuple(facts)
    )


def _decimal(text: str, unit: str, language: Language) -> str:
    """A decimal number of grams of CO2e, or of a currency."""
    value = Decimal(text)
    if unit == "gCO2e":
        return f"{wording.digits(value, language)}{wording.FIXED}g CO2e"
    return wording.money(int(value.scaleb(wording.NANO_DECIMALS)), unit, language)


@get(PRICES, include_in_schema=False, media_type=MediaType.HTML)
async def prices_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Price books: what is paid now, what comes, and what was."""

    def build(language: Language, _reader: Principal) -> Sheet:
        now = clock()
        with acting(request) as connection:
            books = [
                one for one in load(connection, KINDS["price_books"]).values() if isinstance(one, documents.PriceBook)
            ]
        snapshot: Snapshot = request.app.state.catalog.current()
        tariffs = tariffs_of(snapshot)
        blocks = [_book(number, one, tariffs, now, language) for number, one in enumerate(books)]
        none = Block("none", say(language, "admin.prices.none"), empty=say(language, "admin.prices.none.why"))
        title, what = say(language, "admin.prices"), say(language, "admin.prices.what")
        return Sheet(title, what, blocks or [none], back_to_admin(language))

    return await answer_sheet(request, build)


def _book(number: int, book: documents.PriceBook, tariffs: Any, now: datetime, language: Language) -> Block:
    rows = []
    for price in sorted(tariffs.prices.get(book.id, ()), key=lambda one: (one.selector, one.meter, one.valid_from)):
        shown = shown_price(price)
        state = (
            "coming" if now < price.valid_from else "now" if price.valid_to is None or now < price.valid_to else "over"
        )
        said = shown.price or say(language, "admin.prices.tiers", count=len(shown.tiers))
        rows.append((
            shown.selector, say(language, f"models.meter.{shown.meter}"),
            Amount(f"{_decimal(said, book.currency, language) if shown.price else said} / {shown.unit}"),
            say(language, f"admin.prices.{state}"),
            at(shown.valid_from, language) or say(language, "admin.prices.always"),
            at(shown.valid_to, language) or say(language, "admin.no_end"),
        ))  # fmt: skip
    table = Table(
        say(language, "admin.prices.caption"),
        heads(language, "admin.prices.selector", "admin.prices.meter", "admin.prices.price", "admin.state",
              "admin.starts", "admin.ends"),
        tuple(rows),
    )  # fmt: skip
    notes = (say(language, "admin.prices.how"),)
    title = f"{book.name} ({book.id}, {book.currency})"
    return Block(f"book-{number}", title, notes, table=table, empty=say(language, "admin.prices.empty"))

"""Administration: months of the books, from open over a draft with its review to final."""

from typing import Any

from litestar import MediaType, Request, Response, get, post
from litestar.params import FromPath

from metering.billing.closing import Closer
from metering.billing.closing_answers import ClosingShown, shown_month
from metering.billing.closing_routes import Finalising
from metering.billing.documents import counted
from metering.billing.periods import final_closing, months_shown
from metering.billing.rating import read_month
from metering.billing.reviewing import Review
from metering.catalog.routes.acting import acting, clock
from metering.console.acting import Form as Sent
from metering.console.administration import back_to_admin, done, heads
from metering.console.fields import check_confirmed, made
from metering.identity import Principal
from metering.visiting import Said
from metering.web import caller_of
from reports import wording
from reports.documents.amounts import amount
from reports.sheets import Amount, Block, Cell, Field, Form, Sheet, Table, address, answer_sheet, at, confirm
from reports.shown import Link
from reports.wording import Language, say

PAGE = "/admin/months"
MONTHS_SHOWN = 36
ROWS_SHOWN = 200
"""Of the differences and of the unpriced usage of a review."""


@get(PAGE, include_in_schema=False, media_type=MediaType.HTML)
async def months_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Every month and how far it is."""

    def build(language: Language, _reader: Principal) -> Sheet:
        with acting(request) as connection:
            months = months_shown(connection, clock(), MONTHS_SHOWN, None)
            found = [shown_month(connection, month) for month in months]
        table = Table(
            say(language, "admin.months.caption"),
            heads(language, "documents.month", "admin.state", "admin.months.when", "admin.months.author",
                  "admin.months.obstacles"),
            tuple(_row(one, language) for one in found),
        )  # fmt: skip
        block = Block("months", say(language, "admin.months"), (say(language, "admin.months.order"),), table=table)
        title, what = say(language, "admin.months"), say(language, "admin.months.what")
        return Sheet(title, what, [block], back_to_admin(language))

    return await answer_sheet(request, build)


def _row(one: ClosingShown, language: Language) -> tuple[Cell, ...]:
    obstacles = None if one.review is None else wording.number(len(one.review.obstacles), language)
    return (
        Link(one.month, address(f"{PAGE}/{one.month}", language)), say(language, f"admin.months.{one.state}"),
        at(one.started_at, language), one.author, Amount(obstacles),
    )  # fmt: skip


@get(f"{PAGE}/{{month:str}}", include_in_schema=False, media_type=MediaType.HTML)
async def month_page(request: Request[Any, Any, Any], month: FromPath[str]) -> Response[str]:
    """A month with its review, and the next step."""

    def build(language: Language, _reader: Principal) -> Sheet:
        read_month(month)
        with acting(request) as connection:
            found = shown_month(connection, month)
            closing = final_closing(connection, month)
            written = 0 if closing is None else counted(connection, closing)
        blocks = [_state(found, written, language)]
        if found.review is not None:
            blocks += _review(found.review, language)
        blocks += _next(found, language)
        back = Link(say(language, "admin.months"), address(PAGE, language))
        return Sheet(f"{say(language, 'admin.months.one')} {month}", say(language, "admin.months.what"), blocks, back)

    return await answer_sheet(request, build)


def _state(found: ClosingShown, written: int, language: Language) -> Block:
    facts: list[tuple[str, Cell]] = [
        (say(language, "admin.state"), say(language, f"admin.months.{found.state}")),
        (say(language, "admin.months.when"), at(found.started_at, language)),
        (say(language, "admin.months.author"), found.author),
    ]
    if found.review is not None and found.state in {"finalising", "final"}:
        every = sum(one.documents for one in found.review.totals)
        facts.append((say(language, "admin.months.documents"),
                      say(language, "admin.months.progress", written=written, every=every)))  # fmt: skip
    if found.zero_reason is not None:
        facts.append((say(language, "admin.months.zero"), found.zero_reason))
    links = []
    if found.state == "finalising":
        links.append(Link(say(language, "admin.months.again"), address(f"{PAGE}/{found.month}", language)))
    if written:
        links.append(Link(say(language, "admin.months.see"), address("/documents", language, month=found.month)))
    return Block("state", say(language, "admin.state"), facts=tuple(facts), links=tuple(links))


def _review(review: Review, language: Language) -> list[Block]:
    incomplete = "" if review.carbon_is_complete else say(language, "admin.months.carbon")
    totals = Table(
        say(language, "admin.months.totals.caption"),
        heads(language, "documents.kind", "admin.months.documents", "documents.net", "documents.vat",
              "admin.months.gross"),
        tuple(
            (say(language, f"documents.kind.{one.kind}"), Amount(wording.number(one.documents, language)),
             *(Amount(amount(cents, one.currency, language))
               for cents in (one.net_cents, one.vat_cents, one.gross_cents)))
            for one in review.totals
        ),
    )  # fmt: skip
    return [
        _obstacles(review, language),
        Block("totals", say(language, "admin.months.totals"), warning=incomplete, table=totals,
              empty=say(language, "admin.months.totals.none")),
        _compared(review, language), _unpriced(review, language), _corrections(review, language),
    ]  # fmt: skip


def _obstacles(review: Review, language: Language) -> Block:
    table = Table(
        say(language, "admin.months.obstacles.caption"), heads(language, "admin.months.code", "admin.months.subject"),
        tuple((one.code, one.subject) for one in review.obstacles[:ROWS_SHOWN]),
    )  # fmt: skip
    empty = say(language, "admin.months.obstacles.none")
    return Block("obstacles", say(language, "admin.months.obstacles"), table=table, empty=empty)


def _compared(review: Review, language: Language) -> Block:
    """The differences that somebody should look at come first."""
    ordered = sorted(review.compared, key=lambda one: (one.anomaly is None, -abs(one.cents - one.cents_before)))
    table = Table(
        say(language, "admin.months.compared.caption"),
        heads(language, "filter.tenant", "admin.prices.meter", "admin.months.before", "admin.months.after",
              "admin.months.anomaly"),
        tuple(
            (one.tenant, say(language, f"models.meter.{one.meter}"),
             *(Amount(amount(cents, one.currency, language)) for cents in (one.cents_before, one.cents)),
             say(language, f"admin.anomaly.{one.anomaly or 'none'}"))
            for one in ordered[:ROWS_SHOWN]
        ),
    )  # fmt: skip
    empty = say(language, "admin.months.compared.none")
    return Block("compared", say(language, "admin.months.compared"), table=table, empty=empty)


def _unpriced(review: Review, language: Language) -> Block:
    table = Table(
        say(language, "admin.months.unpriced.caption"),
        heads(language, "filter.tenant", "admin.months.model", "admin.months.why", "admin.months.amount",
              "admin.months.blocking"),
        tuple(
            (one.tenant, one.model, one.reason, Amount(f"{wording.number(one.amount, language)} {one.quantity}"),
             say(language, "admin.yes" if one.is_blocking else "admin.no"))
            for one in review.unpriced[:ROWS_SHOWN]
        ),
    )  # fmt: skip
    empty = say(language, "admin.months.unpriced.none")
    return Block("unpriced", say(language, "admin.months.unpriced"), table=table, empty=empty)


def _corrections(review: Review, language: Language) -> Block:
    table = Table(
        say(language, "admin.months.corrections.caption"),
        heads(language, "filter.tenant", "documents.month", "documents.net"),
        tuple(
            (one.tenant, one.month, Amount(amount(one.net_cents, one.currency, language))) for one in review.corrections
        ),
    )
    empty = say(language, "admin.months.corrections.none")
    return Block("corrections", say(language, "documents.corrections"), table=table, empty=empty)


def _next(found: ClosingShown, language: Language) -> list[Block]:
    """The forms of what can come next: none once a month is decided for good."""
    month = Field("month", kind="hidden", value=found.month)
    draft = Form("/admin/months/draft", say(language, "admin.months.draft.make"), (month,))
    final = Form("/admin/months/final", say(language, "admin.months.final.make"), (
        month,
        Field.area("zero_unpriced", say(language, "admin.months.zero"), hint=say(language, "admin.months.zero.hint"),
                   is_required=False),
        confirm(language, "admin.months.sure"),
    ), is_grave=True)  # fmt: skip
    drafting = Block("draft", say(language, "admin.months.draft.title"), (say(language, "admin.months.draft.what"),),
                     forms=(draft,))  # fmt: skip
    finalising = Block("final", say(language, "admin.months.final.title"), (say(language, "admin.months.final.what"),),
                       forms=(final,))  # fmt: skip
    return {"open": [drafting], "draft": [drafting, finalising]}.get(found.state, [])


@post("/admin/months/draft", include_in_schema=False)
async def draft_month(request: Request[Any, Any, Any]) -> Response[Any]:
    """Look at a month as it stands."""

    def act(form: Sent) -> Said:
        closer: Closer = request.app.state.closer
        month = read_month(form.get("month", "")).month
        closer.draft(month, author=caller_of(request).actor.author, now=clock())
        return Said("done", "admin.months.draft.done")

    return await done(request, act, _own_page(await request.form()))


@post("/admin/months/final", include_in_schema=False)
async def finalise_month(request: Request[Any, Any, Any]) -> Response[Any]:
    """Decide to seal a month and to write its documents, for good; the worker does so, and the page says how far."""

    def act(form: Sent) -> Said:
        check_confirmed(form)
        closer: Closer = request.app.state.closer
        month = read_month(form.get("month", "")).month
        reason = made(Finalising, {"zero_unpriced": form.get("zero_unpriced") or None}).zero_unpriced
        closer.begin_final(month, author=caller_of(request).actor.author, now=clock(), zero_reason=reason)
        return Said("done", "admin.months.final.begun")

    return await done(request, act, _own_page(await request.form()))


def _own_page(form: Any) -> str:
    month = str(form.get("month", ""))
    known = len(month) == len("2026-10") and month.replace("-", "").isdecimal() and month.isascii()
    return f"{PAGE}/{month}" if known else PAGE

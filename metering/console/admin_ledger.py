"""Administration: refused events, and the proof that all places have counted the same."""

from typing import Any, get_args

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.params import FromPath

from metering.billing.periods import month_of
from metering.billing.prices import tariffs_of
from metering.billing.rating import read_month
from metering.catalog.documents import Currency
from metering.catalog.routes.acting import clock
from metering.console.acting import Form as Sent
from metering.console.administration import back_to_admin, done, heads
from metering.console.fields import made
from metering.database import transaction
from metering.errors import BadRequest, Conflict, NotFound, Unprocessable
from metering.events.intake import replay
from metering.events.quarantine import Quarantined, dismiss, list_quarantined
from metering.events.routes import DismissalRequest
from metering.identity import Principal
from metering.reconciliation.proof import Proof, StepShown, prove
from metering.visiting import Said
from metering.web import caller_of
from reports import wording
from reports.documents.amounts import amount
from reports.sheets import Amount, Block, Cell, Field, Form, Sheet, Table, address, answer_sheet, at
from reports.shown import Link
from reports.wording import Language, say

QUARANTINE = "/admin/quarantine"
RECONCILIATION = "/admin/reconciliation"
SHOWN = 100
NUMBER_DIGITS_MAX = 18
CURRENCIES = {f"cents {currency}": currency for currency in get_args(Currency)}
"""Quantities that are net amounts, in cents, to their currency."""


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX):
        raise BadRequest("invalid_page", "Not a number.", field="number", expected="digits")
    return int(text)


@get(QUARANTINE, include_in_schema=False, media_type=MediaType.HTML)
async def quarantine_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Refused events, oldest first, and the form that offers all of them again."""

    def build(language: Language, _reader: Principal) -> Sheet:
        after = _number(request.query_params.get("after") or "0")
        found = list_quarantined(request.app.state.engine, after=after, limit=SHOWN)
        table = Table(
            say(language, "admin.quarantine.caption"),
            heads(language, "admin.quarantine.number", "admin.quarantine.received", "admin.quarantine.code",
                  "admin.quarantine.field", "admin.quarantine.times"),
            tuple(_row(one, language) for one in found),
            older=address(QUARANTINE, language, after=str(found[-1].number)) if len(found) == SHOWN else None,
            newer=address(QUARANTINE, language) if after else None,
        )  # fmt: skip
        again = Form(f"{QUARANTINE}/replay", say(language, "admin.quarantine.replay_all"))
        notes, empty = (say(language, "admin.quarantine.kept"),), say(language, "admin.quarantine.none")
        forms = (again,) if found else ()
        block = Block("events", say(language, "admin.quarantine.list"), notes, table=table, empty=empty, forms=forms)
        title, what = say(language, "admin.quarantine"), say(language, "admin.quarantine.what")
        return Sheet(title, what, [block], back_to_admin(language))

    return await answer_sheet(request, build)


def _row(one: Quarantined, language: Language) -> tuple[Cell, ...]:
    path = address(f"{QUARANTINE}/{one.number}", language)
    times = Amount(wording.number(one.occurrences, language))
    return Link(str(one.number), path), at(one.received_at, language), one.code, one.field, times


@get(f"{QUARANTINE}/{{number:str}}", include_in_schema=False, media_type=MediaType.HTML)
async def refused_event_page(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[str]:
    """What is kept of a refused event, and the form that mends it."""

    def build(language: Language, _reader: Principal) -> Sheet:
        asked = _number(number)
        found = list_quarantined(request.app.state.engine, after=asked - 1, limit=1, numbers=[asked], done=True)
        if not found:
            raise NotFound("unknown_event", "There is no such event.", field="number")
        (one,) = found
        facts: tuple[tuple[str, Cell], ...] = (
            (say(language, "admin.quarantine.received"), at(one.received_at, language)),
            (say(language, "admin.quarantine.channel"), one.channel),
            (say(language, "admin.quarantine.code"), one.code),
            (say(language, "admin.quarantine.field"), one.field),
            (say(language, "admin.reason"), one.reason),
            (say(language, "admin.quarantine.times"), wording.number(one.occurrences, language)),
            (say(language, "admin.quarantine.replayed"), at(one.replayed_at, language) or say(language, "admin.no")),
            *_dismissal(one, language),
        )
        kept = "" if one.event is None else msgspec.json.format(msgspec.json.encode(one.event), indent=2).decode()
        blocks = [Block("event", say(language, "admin.quarantine.one"), facts=facts, text=kept)]
        if one.replayed_at is None and one.dismissed_at is None:
            blocks += [_mending(one, language)] if one.event is not None else []
            blocks.append(_dismissing(one, language))
        back = Link(say(language, "admin.quarantine"), address(QUARANTINE, language))
        return Sheet(
            f"{say(language, 'admin.quarantine.event')} {one.number}",
            say(language, "admin.quarantine.what"),
            blocks,
            back,
        )

    return await answer_sheet(request, build)


def _mending(one: Quarantined, language: Language) -> Block:
    form = Form(f"{QUARANTINE}/replay", say(language, "admin.quarantine.replay"), (
        Field("number", kind="hidden", value=str(one.number)),
        Field("path", say(language, "admin.quarantine.path"), value=one.field or "",
              hint=say(language, "admin.quarantine.path.hint")),
        Field("value", say(language, "admin.quarantine.value")),
    ))  # fmt: skip
    return Block(
        "mend", say(language, "admin.quarantine.mend"), (say(language, "admin.quarantine.mend.what"),), forms=(form,)
    )


def _dismissal(one: Quarantined, language: Language) -> tuple[tuple[str, Cell], ...]:
    """Who decided that an event needs no mending, when and why."""
    if one.dismissed_at is None:
        return ()
    when = at(one.dismissed_at, language)
    return ((say(language, "admin.quarantine.dismissed"), (f"{when}, {one.dismissed_by}", one.dismissed_why or "")),)


def _dismissing(one: Quarantined, language: Language) -> Block:
    form = Form(f"{QUARANTINE}/dismiss", say(language, "admin.quarantine.dismiss"), (
        Field("number", kind="hidden", value=str(one.number)), Field.area("reason", say(language, "admin.reason")),
    ), is_grave=True)  # fmt: skip
    title, what = say(language, "admin.quarantine.dismiss"), say(language, "admin.quarantine.dismiss.what")
    return Block("dismiss", title, (what,), forms=(form,))


@post(f"{QUARANTINE}/dismiss", include_in_schema=False)
async def dismiss_event(request: Request[Any, Any, Any]) -> Response[Any]:
    """Decide that a refused event needs no mending."""

    def act(form: Sent) -> Said:
        numbers = [_number(form.get("number", ""))]
        body = made(DismissalRequest, {"numbers": numbers, "reason": form.get("reason", "")})
        author = caller_of(request).actor.author
        if not dismiss(request.app.state.engine, body.numbers, why=body.reason, author=author, now=clock()):
            raise Conflict("already_done", "The event waits no longer.")
        return Said("done", "admin.quarantine.dismiss.done")

    number = str((await request.form()).get("number", ""))
    return await done(request, act, QUARANTINE, f"{QUARANTINE}/{number}" if number.isdecimal() else None)


@post(f"{QUARANTINE}/replay", include_in_schema=False)
async def replay_events(request: Request[Any, Any, Any]) -> Response[Any]:
    """Offer one refused event again, mended or as it is; or all."""

    def act(form: Sent) -> Said:
        state, number = request.app.state, form.get("number", "")
        changes = {form["path"]: form.get("value", "")} if form.get("path") and form.get("value") else {}
        if changes and not number:
            raise Unprocessable("one_at_a_time", "A change is for one event.", field="path", expected="a number")
        answer = replay(state.intake, state.engine, [_number(number)] if number else None, changes)
        counts = {"accepted": str(answer.accepted + answer.duplicate), "refused": str(answer.rejected)}
        return Said("refused" if answer.rejected else "done", "admin.quarantine.done", counts)

    number = str((await request.form()).get("number", ""))
    return await done(request, act, QUARANTINE, f"{QUARANTINE}/{number}" if number.isdecimal() else None)


@get(RECONCILIATION, include_in_schema=False, media_type=MediaType.HTML)
async def reconciliation_page(request: Request[Any, Any, Any]) -> Response[str]:
    """The proof of a month, worked out now."""

    def build(language: Language, reader: Principal) -> Sheet:
        state = request.app.state
        period = read_month(request.query_params.get("month") or month_of(clock()))
        with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
            proof = prove(connection, tariffs_of(state.catalog.current()), period)
        month = Field(
            "month", say(language, "documents.month"), value=period.month, hint=say(language, "documents.month.hint"),
            is_required=True, length_max=7,
        )  # fmt: skip
        choosing = Form(RECONCILIATION, say(language, "quotas.show"), (month,), method="get")
        blocks = [Block("choose", say(language, "choose"), forms=(choosing,)), _summary(proof, language)]
        blocks += [_drifts(number, step, language) for number, step in enumerate(proof.steps) if step.drifts]
        title, what = say(language, "admin.reconciliation"), say(language, "admin.reconciliation.what")
        return Sheet(title, what, blocks, back_to_admin(language), period=period.month)

    return await answer_sheet(request, build)


def _summary(proof: Proof, language: Language) -> Block:
    table = Table(
        say(language, "admin.reconciliation.caption"),
        heads(language, "admin.reconciliation.place", "admin.reconciliation.against", "admin.reconciliation.expected",
              "admin.reconciliation.found", "admin.reconciliation.drifts"),
        tuple(
            (_place(one.name, language), _place(one.against, language), _sums(one.expected, language),
             _sums(one.found, language), Amount(wording.number(one.drifts, language)))
            for one in proof.steps
        ),
    )  # fmt: skip
    clean = say(language, "admin.reconciliation.clean" if proof.is_clean else "admin.reconciliation.differs")
    facts: tuple[tuple[str, Cell], ...] = (
        (say(language, "documents.from.ledger"), wording.number(proof.ledger_batch, language)),
    )
    return Block("proof", say(language, "admin.reconciliation.proof"), (clean,) if proof.is_clean else (),
                 "" if proof.is_clean else clean, facts, table)  # fmt: skip


def _place(name: str, language: Language) -> str:
    return say(language, f"admin.place.{name.replace(' ', '_')}")


def _sums(sums: dict[str, int | None], language: Language) -> tuple[str, ...]:
    return tuple(
        f"{_quantity(name, language)} {_said(name, value, language) or say(language, 'unknown')}"
        for name, value in sums.items()
    )


def _quantity(name: str, language: Language) -> str:
    """Name of what is summed: rated lines tell tokens of both ways together, documents their net amounts."""
    if name in CURRENCIES:
        return say(language, "documents.net")
    return wording.quantity_name("total_tokens" if name == "tokens" else name, language)


def _said(name: str, value: int | None, language: Language) -> str | None:
    """A sum: cents of a currency, or a whole number; None is unknown."""
    if value is None:
        return None
    return amount(value, CURRENCIES[name], language) if name in CURRENCIES else wording.number(value, language)


def _drifts(number: int, step: StepShown, language: Language) -> Block:
    table = Table(
        say(language, "admin.reconciliation.named", count=wording.number(step.drifts, language)),
        heads(language, "admin.reconciliation.where", "admin.reconciliation.quantity", "admin.reconciliation.expected",
              "admin.reconciliation.found", "admin.reconciliation.difference"),
        tuple(
            (tuple(f"{name} {value}" for name, value in one.where.items()), _quantity(one.quantity, language),
             *(Amount(_said(one.quantity, value, language))
               for value in (one.expected, one.found, one.difference)))
            for one in step.named
        ),
    )  # fmt: skip
    return Block(f"drifts-{number}", f"{_place(step.name, language)} / {_place(step.against, language)}", table=table)

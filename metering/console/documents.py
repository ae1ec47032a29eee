"""The pages "Relevés et factures": documents with what is owed apart from what is valued, and one of them whole."""

from collections.abc import Sequence
from datetime import date
from typing import Any, get_args
from urllib.parse import quote

from litestar import MediaType, Request, Response, Router, get
from litestar.params import FromPath

from metering.billing.closing_routes import checked_seal
from metering.billing.documents import Filter, KeptDocument, credit_notes_of, find_document, newest_documents
from metering.billing.documents_verification import SealChecked
from metering.billing.periods import month_of
from metering.billing.prices import tariffs_of
from metering.billing.rating import rate_tenant, read_month
from metering.catalog.routes.acting import acting, clock
from metering.catalog.snapshot import Snapshot
from metering.console.guards import require_page
from metering.database import transaction
from metering.errors import BadRequest
from metering.identity import Principal
from metering.rules.billing.documents import BillingDocument, DocumentKind, DocumentLine
from metering.web import caller_within
from reports import wording
from reports.documents.amounts import amount, price_base, quantity_text, unit_price
from reports.sheets import Amount, Block, Cell, Field, Form, Sheet, Table, address, answer_sheet, at, choices
from reports.shown import Link
from reports.wording import Language, say

PAGE = "/documents"
DOCUMENTS_SHOWN = 50
KINDS: tuple[DocumentKind, ...] = get_args(DocumentKind)
CARBON_MONTHS = 12


@get(PAGE, include_in_schema=False, media_type=MediaType.HTML)
async def documents_page(request: Request[Any, Any, Any]) -> Response[str]:
    """Documents of an administration, or of all of them for an operator."""
    asked = request.query_params

    def build(language: Language, reader: Principal) -> Sheet:
        tenant = reader.tenant or asked.get("tenant") or None
        if asked.get("tenant") or tenant:
            caller_within(request, asked.get("tenant") or tenant or "")
        wanted = Filter(tenant, _month(asked.get("month")), _kind(asked.get("kind")))
        before = _place(asked.get("before"))
        with acting(request) as connection:
            found = newest_documents(connection, wanted, before=before, limit=DOCUMENTS_SHOWN + 1)
        snapshot: Snapshot = request.app.state.catalog.current()
        months = sorted({one.month for one in found}, reverse=True)[:CARBON_MONTHS]
        blocks = [
            _choosing(snapshot, reader, wanted, language),
            _documents(found, wanted, before, reader, language),
            _this_month(request, tenant, reader, language),
            _carbon(tenant, months, language),
        ]
        whose = "" if tenant is None else snapshot.tenants[tenant].name
        return Sheet(say(language, "documents"), say(language, "documents.what"), blocks, period=whose)

    return await answer_sheet(request, build)


def _month(text: str | None) -> str | None:
    return read_month(text).month if text else None


def _kind(text: str | None) -> DocumentKind | None:
    if text and text not in KINDS:
        raise BadRequest("invalid_kind", "Not a kind of document.", field="kind", expected=", ".join(KINDS))
    return next((kind for kind in KINDS if kind == text), None)


def _place(text: str | None) -> int | None:
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise BadRequest("invalid_page", "Not a page.", field="before", expected="a place in the chain")
    return int(text) if text else None


def _choosing(snapshot: Snapshot, reader: Principal, wanted: Filter, language: Language) -> Block:
    kinds = [
        ("", say(language, "documents.every.kind")),
        *((kind, say(language, f"documents.kind.{kind}")) for kind in KINDS),
    ]
    fields = [
        Field("kind", say(language, "documents.kind"), "select", choices=choices(kinds, wanted.kind or "")),
        Field("month", say(language, "documents.month"), value=wanted.month or "", length_max=7,
              hint=say(language, "documents.month.hint")),
    ]  # fmt: skip
    if reader.tenant is None:
        every = ("", say(language, "documents.every.tenant"))
        tenants = [every, *((one.id, one.name) for one in sorted(snapshot.tenants.values(), key=lambda one: one.name))]
        chosen = choices(tenants, wanted.tenant or "")
        fields.insert(0, Field("tenant", say(language, "filter.tenant"), "select", choices=chosen))
    form = Form(PAGE, say(language, "apply"), tuple(fields), method="get")
    return Block("choose", say(language, "choose"), forms=(form,))


def _documents(
    found: Sequence[KeptDocument], wanted: Filter, before: int | None, reader: Principal, language: Language
) -> Block:
    shown = found[:DOCUMENTS_SHOWN]
    names = ["number", "kind", "month", *(["tenant"] if reader.tenant is None else []), "due", "valued", "files"]
    kept = {"tenant": wanted.tenant, "month": wanted.month, "kind": wanted.kind}
    older = str(shown[-1].seq) if len(found) > DOCUMENTS_SHOWN else None
    table = Table(
        caption=say(language, "documents.caption"),
        headings=tuple(say(language, f"documents.{name}") for name in names),
        rows=tuple(_row(one, reader, language) for one in shown),
        older=older and address(PAGE, language, **kept, before=older),
        newer=None if before is None else address(PAGE, language, **kept),
    )
    filtered = any(value is not None for value in (wanted.month, wanted.kind, before))
    empty = say(language, "documents.none.here" if filtered else "documents.none")
    notes = (say(language, "documents.apart"),)
    return Block("documents", say(language, "documents.list"), notes, table=table, empty=empty)


def _row(one: KeptDocument, reader: Principal, language: Language) -> tuple[Cell, ...]:
    due, valued = _owed_and_valued(one.kind, one.gross_cents, one.net_cents, one.currency, language)
    whose: list[Cell] = [one.tenant] if reader.tenant is None else []
    return (
        Link(one.number, _page_of(one.number, language)), say(language, f"documents.kind.{one.kind}"),
        _month_said(one.month, language), *whose, due, valued, _files(one.number, one.files, language),
    )  # fmt: skip


def _owed_and_valued(
    kind: DocumentKind, gross_cents: int, net_cents: int, currency: str, language: Language
) -> tuple[Amount, Amount]:
    """What is owed (a credit note: given back), and what is valued and not billed; never both."""
    not_owed, not_valued = Amount(say(language, "documents.nothing_due")), Amount(say(language, "documents.is_due"))
    if kind == "statement":
        return not_owed, Amount(amount(net_cents, currency, language))
    return Amount(amount(-gross_cents if kind == "credit_note" else gross_cents, currency, language)), not_valued


def _files(number: str, files: Sequence[str] | Any, language: Language) -> tuple[Link, ...]:
    return tuple(Link(f"{say(language, f'documents.file.{_word(name)}')} {number}", _file(number, name))
                 for name in sorted(files))  # fmt: skip


def _word(suffix: str) -> str:
    return {"ubl.xml": "ubl"}.get(suffix, suffix)


def _file(number: str, suffix: str) -> str:
    return f"/v1/documents/{quote(number)}/files/{quote(suffix)}"


def _page_of(number: str, language: Language) -> str:
    return address(f"{PAGE}/{quote(number)}", language)


def _month_said(month: str, language: Language) -> str:
    return wording.month(date.fromisoformat(f"{month}-01"), language)


def _this_month(request: Request[Any, Any, Any], tenant: str | None, reader: Principal, language: Language) -> Block:
    """What the month under way comes to so far: an estimate, and said to be one."""
    title = say(language, "documents.now", month=_month_said(month_of(clock()), language))
    if tenant is None:
        return Block("now", title, (say(language, "documents.now.choose"),))
    state = request.app.state
    with transaction(state.engine, snapshot=True, actor=reader.actor) as connection:
        rating = rate_tenant(connection, tariffs_of(state.catalog.current()), tenant, read_month(month_of(clock())))
    facts: list[tuple[str, Cell]] = [
        (say(language, f"documents.now.{billing}"),
         Amount(amount(total.gross_cents if billing == "billed" else total.net_cents, currency, language)))
        for (billing, currency), total in rating.month.totals().items()
    ]  # fmt: skip
    if rating.month.gaps:
        facts.append((say(language, "documents.unpriced"), wording.number(len(rating.month.gaps), language)))
    empty = "" if facts else say(language, "documents.now.none")
    return Block("now", title, warning=say(language, "documents.now.provisional"), facts=tuple(facts), empty=empty)


def _carbon(tenant: str | None, months: Sequence[str], language: Language) -> Block:
    links = [] if tenant is None else [_carbon_link(tenant, month, language) for month in months]
    title, what = say(language, "documents.carbon"), say(language, "documents.carbon.what")
    empty = "" if links else say(language, "documents.carbon.choose" if tenant is None else "documents.carbon.none")
    return Block("carbon", title, (what,), links=tuple(links), empty=empty)


def _carbon_link(tenant: str, month: str, language: Language) -> Link:
    path = address("/v1/carbon/statement", language, tenant=tenant, month=month, format="text")
    return Link(say(language, "documents.carbon.of", month=_month_said(month, language)), path)


@get(f"{PAGE}/{{number:str}}", include_in_schema=False, media_type=MediaType.HTML)
async def document_page(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[str]:
    """One document: its lines, what it corrects or is corrected by, and its seal."""

    def build(language: Language, reader: Principal) -> Sheet:
        with acting(request) as connection:
            kept, document = find_document(connection, number)
            notes = credit_notes_of(connection, number)
        verified = checked_seal(request, number) if request.query_params.get("verify") == "yes" else None
        title = f"{say(language, f'documents.kind.{kept.kind}')} {kept.number}"
        blocks = [
            _facts(kept, document, language), _lines(document, language), _corrections(kept, notes, language),
            _provenance(document, language), _seal(kept, verified, language),
        ]  # fmt: skip
        back = Link(say(language, "documents.back"), address(PAGE, language, tenant=_chosen(reader, kept.tenant)))
        return Sheet(title, say(language, "documents.one"), blocks, back, period=_month_said(kept.month, language))

    return await answer_sheet(request, build)


def _chosen(reader: Principal, tenant: str) -> str | None:
    return tenant if reader.tenant is None else None


def _facts(kept: KeptDocument, document: BillingDocument, language: Language) -> Block:
    due, valued = _owed_and_valued(kept.kind, kept.gross_cents, kept.net_cents, kept.currency, language)
    facts: list[tuple[str, Cell]] = [
        (say(language, "documents.tenant"), document.buyer.name),
        (say(language, "documents.issued"), wording.day(kept.issued_on, language)),
        (say(language, "documents.due"), due),
        (say(language, "documents.valued"), valued),
    ]
    if kept.kind != "statement":
        facts.insert(2, (say(language, "documents.net"), amount(kept.net_cents, kept.currency, language)))
        facts.insert(3, (say(language, "documents.vat"), amount(kept.vat_cents, kept.currency, language)))
    if document.payment is not None:
        facts.append((say(language, "documents.pay_by"), wording.day(document.payment.due_on, language)))
    if document.convention is not None:
        facts.append((say(language, "documents.convention"), document.convention_title or document.convention))
    links = _files(kept.number, kept.files, language)
    return Block("facts", say(language, "documents.facts"), facts=tuple(facts), links=links)


def _lines(document: BillingDocument, language: Language) -> Block:
    names = ("line", "project", "quantity", "price", "amount")
    table = Table(
        say(language, "documents.lines.caption"),
        tuple(say(language, f"documents.line.{name}") for name in names),
        tuple(_line(document, one, language) for one in document.lines),
    )
    return Block("lines", say(language, "documents.lines"), table=table, empty=say(language, "documents.lines.none"))


def _line(document: BillingDocument, line: DocumentLine, language: Language) -> tuple[Cell, ...]:
    what = line.model_name or line.model or say(language, "documents.line.whole")
    unit = unit_price(line.unit_price_nano, document.currency, language)
    price = f"{unit} / {price_base(line.meter, line.per, language)}"
    return (
        (f"{line.number}. {what}", say(language, f"documents.line.{line.kind}"), _month_said(line.month, language)),
        line.project_name or line.project or say(language, "unnamed"),
        Amount(quantity_text(line.meter, line.quantity, language)), Amount(price),
        Amount(amount(line.net_cents, document.currency, language)),
    )  # fmt: skip


def _corrections(kept: KeptDocument, notes: Sequence[KeptDocument], language: Language) -> Block:
    """Which documents correct each other."""
    links = [] if kept.preceding is None else [_correction("corrects", kept.preceding, language)]
    for one in notes:
        said = amount(one.gross_cents, one.currency, language)
        links.append(_correction("corrected", one.number, language, amount=said))
    empty = "" if links else say(language, "documents.corrections.none")
    return Block("corrections", say(language, "documents.corrections"), links=tuple(links), empty=empty)


def _correction(key: str, number: str, language: Language, **values: str) -> Link:
    return Link(say(language, f"documents.{key}", number=number, **values), _page_of(number, language))


def _provenance(document: BillingDocument, language: Language) -> Block:
    known = document.provenance
    facts: tuple[tuple[str, Cell], ...] = (
        (say(language, "documents.from.start"), at(document.period.start, language)),
        (say(language, "documents.from.end"), at(document.period.end, language)),
        (say(language, "documents.from.ledger"), str(known.ledger_batch)),
        (say(language, "documents.from.hash"), known.ledger_hash),
        (say(language, "documents.from.carbon"), None if known.carbon_batch is None else str(known.carbon_batch)),
        (say(language, "documents.from.catalog"), str(known.catalog_version)),
    )
    return Block("from", say(language, "documents.from"), (say(language, "documents.from.what"),), facts=facts)


def _seal(kept: KeptDocument, verified: SealChecked | None, language: Language) -> Block:
    title = say(language, "documents.seal")
    again = Form(f"{PAGE}/{quote(kept.number)}", say(language, "documents.seal.verify"),
                 (Field("verify", kind="hidden", value="yes"),), method="get")  # fmt: skip
    if verified is None:
        facts: tuple[tuple[str, Cell], ...] = ((say(language, "documents.seal.place"), str(kept.seq)),)
        return Block("seal", title, (say(language, "documents.seal.what"),), facts=facts, forms=(again,))
    followed = {True: "yes", False: "no", None: "last"}[verified.is_followed]
    facts = (
        (say(language, "documents.seal.place"), str(verified.seq)),
        (say(language, "documents.seal.hash"), verified.hash),
        (say(language, "documents.seal.before"), _answer(verified.is_linked, language)),
        (say(language, "documents.seal.after"), say(language, f"documents.seal.{followed}")),
        *((f"{kept.number}.{one.file}", (_answer(one.is_intact, language), f"SHA-256 {one.sha256}"))
          for one in verified.files),
    )  # fmt: skip
    warning = "" if verified.is_intact else say(language, "documents.seal.broken")
    notes = (say(language, "documents.seal.intact", when=at(clock(), language)),) if verified.is_intact else ()
    rest = say(language, "documents.seal.rest")
    return Block("seal", title, (*notes, rest), warning, facts, forms=(again,))


def _answer(is_so: bool | None, language: Language) -> str:
    return say(
        language, {True: "documents.seal.yes", False: "documents.seal.no", None: "documents.seal.missing"}[is_so]
    )


def documents_router() -> Router:
    """The pages of documents."""
    return Router("/", route_handlers=[documents_page, document_page], guards=[require_page("operator", "manager")])

"""What a document's pages show: every text ready, in its language, for the template to lay out. Pure.

Texts reach the template as data and are never read as markup.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from metering.rules.billing.documents import BillingDocument, DocumentLine, Party, Unpriced
from metering.rules.periods import BOOKS_ZONE
from metering.rules.rating.totals import VatCategory, VatPart
from reports import wording
from reports.documents.amounts import amount, money, price_base, quantity_text, unit_price
from reports.documents.countries import country_name
from reports.documents.footprint import carbon_shown
from reports.documents.glyphs import shown
from reports.documents.invoice import days_of_month, exchange_text, first_and_last_day, item_name, percent, reason_of
from reports.documents.usage_days import days_shown
from reports.documents.words import say

Shown = dict[str, Any]
"""Texts, lists of them and small numbers, as the template reads them."""


def page_of(document: BillingDocument, *, has_xml: bool) -> Shown:
    """All that the template needs. has_xml: whether the e-invoice is inside the file."""
    language = document.language
    kind = say(language, document.kind)
    number = shown(document.number) if document.number else say(language, "number.none")
    first, last = first_and_last_day(document)
    return {
        "language": language,
        "title": say(language, "title", kind=kind, number=number, buyer=shown(document.buyer.name)),
        "kind": kind,
        "number": number,
        "draft": None if document.number else {"mark": say(language, "draft"), "note": say(language, "draft.note")},
        "seller": _party(document.seller, say(language, "seller"), document),
        "buyer": _party(document.buyer, say(language, "buyer"), document),
        "facts": [
            {"label": say(language, key), "value": value}
            for key, value in _facts(document, number)
            if value is not None
        ],
        "headline": _headline(document),
        "lines": _lines(document),
        "totals": _totals(document),
        "payment": _payment(document),
        "unpriced": _unpriced(document),
        "days": days_shown(document.days, wording.period(first, last, language), language),
        "carbon": carbon_shown(document.carbon, language),
        "provenance": _provenance(document, has_xml=has_xml),
        "footer": " · ".join([shown(document.seller.name), *_identifiers(document.seller, document)]),
        "page": say(language, "page", page="{page}", pages="{pages}"),
    }


def _party(party: Party, label: str, document: BillingDocument) -> Shown:
    address, language = party.address, document.language
    lines = [shown(line) for line in address.lines] if address else []
    if address:
        lines.append(" ".join([shown(address.postcode), shown(address.city)]))
    if address and address.country != "FR":
        lines.append(shown(country_name(address.country, language)))
    if party.email:
        lines.append(shown(party.email))
    return {
        "label": label,
        "name": shown(party.name),
        "lines": [*lines, *_identifiers(party, document)],
    }


def _identifiers(party: Party, document: BillingDocument) -> list[str]:
    said = [say(document.language, "siret", siret=_grouped_siret(party.siret))] if party.siret else []
    if party.vat_number:
        said.append(say(document.language, "vat_number", number=shown(party.vat_number)))
    return said


def _grouped_siret(siret: str) -> str:
    return shown(" ".join([siret[:3], siret[3:6], siret[6:9], siret[9:]]))


def _facts(document: BillingDocument, number: str) -> Iterator[tuple[str, str | None]]:
    language = document.language
    first, last = first_and_last_day(document)
    convention = document.convention_title or document.convention
    yield "number", number
    yield "issued", wording.day(document.issued_on, language)
    yield "period", wording.period(first, last, language)
    yield "zone", BOOKS_ZONE
    yield "convention", shown(convention) if convention else None
    yield "order_reference", shown(document.order_reference) if document.order_reference else None
    yield "buyer_reference", shown(document.buyer_reference) if document.buyer_reference else None
    if document.preceding is not None:
        day = wording.day(document.preceding.issued_on, language)
        yield "preceding", say(language, "preceding.of", number=shown(document.preceding.number), day=day)


def _headline(document: BillingDocument) -> Shown:
    """What is due, or what the use is worth without being due."""
    language = document.language
    if document.kind == "statement":
        key = f"valued.{document.settlement}"
        note = say(language, key if key in {"valued.free", "valued.prepaid", "valued.envelope"} else "valued.note")
        return {"label": say(language, "valued"), "value": _money(document.net_cents, document), "note": note}
    label = "due" if document.kind == "invoice" else "owed_back"
    if document.payment is not None:
        note = say(language, "terms.due", day=wording.day(document.payment.due_on, language))
    elif document.preceding is not None:
        note = say(language, "terms.credit_note", number=shown(document.preceding.number))
    else:
        note = say(language, "terms.none")
    return {"label": say(language, label), "value": _money(document.gross_cents, document), "note": note}


def _lines(document: BillingDocument) -> Shown:
    language = document.language
    columns = ["item", "quantity", "price", "vat", "net"]
    if document.kind == "statement":
        columns.remove("vat")
    return {
        "title": say(language, "detail"),
        "headings": [say(language, f"column.{name}", currency=document.currency) for name in columns],
        "groups": [
            {"title": title, "rows": [_row(document, line) for line in lines]}
            for title, lines in groupby(document.lines, key=lambda line: _group_title(document, line))
        ],
        "none": say(language, "detail.none"),
    }


def _group_title(document: BillingDocument, line: DocumentLine) -> str:
    """The project that lines are for; of an earlier month, the month too."""
    language = document.language
    project = line.project_name or line.project
    if line.kind in {"minimum", "cap"}:
        title = say(language, "line.whole")
    else:
        title = say(language, "line.project", project=shown(project)) if project else say(language, "line.no_project")
    if line.month == document.period.month:
        return title
    month = wording.month(days_of_month(line.month)[0], language)
    return f"{title} – {wording.in_sentence(say(language, 'line.month', month=month))}"


def _row(document: BillingDocument, line: DocumentLine) -> list[str]:
    language = document.language
    is_bound = line.kind in {"minimum", "cap"}
    price = unit_price(line.unit_price_nano, document.currency, language)
    base = price_base(line.meter, line.per, language)
    cells = [
        shown(item_name(document, line)),
        wording.digits(money(100 * line.quantity), language)
        if is_bound
        else quantity_text(line.meter, line.quantity, language),
        price if is_bound else say(language, "line.price_short", price=price, base=base),
    ]
    if document.kind != "statement":
        cells.append(_rate(line.vat, document))
    return [*cells, wording.digits(money(line.net_cents), language, 2)]


def _rate(category: VatCategory, document: BillingDocument) -> str:
    if category.regime != "rate":
        return say(document.language, "vat.none")
    return say(document.language, "vat.rate", rate=_percent(category.rate_bp, document))


def _percent(rate_bp: int, document: BillingDocument) -> str:
    return percent(rate_bp).replace(".", "," if document.language == "fr" else ".")


def _totals(document: BillingDocument) -> Shown:
    language = document.language
    if document.kind == "statement":
        rows = [(say(language, "total.valued"), _money(document.net_cents, document))]
    else:
        rows = [(say(language, "total.net"), _money(document.net_cents, document))]
        rows += [(_vat_label(part, document), _money(part.vat_cents, document)) for part in document.vat]
        if len(document.vat) > 1:
            rows.append((say(language, "total.vat_sum"), _money(document.vat_cents, document)))
        rows.append((say(language, "total.gross"), _money(document.gross_cents, document)))
    note = exchange_text(document) if document.exchanged_vat is not None else None
    return {
        "title": say(language, "totals"),
        "rows": [list(row) for row in rows],
        "note": shown(note, most=1_000) if note else None,
    }


def _vat_label(part: VatPart, document: BillingDocument) -> str:
    language = document.language
    base = _money(part.base_cents, document)
    if part.category.regime == "rate":
        return say(language, "total.vat", rate=_percent(part.category.rate_bp, document), base=base)
    code, text = reason_of(part.category, document)
    reason = shown(f"{text} ({code})" if code else text)
    return say(language, "total.untaxed", base=base, reason=reason)


def _payment(document: BillingDocument) -> Shown | None:
    payment, language = document.payment, document.language
    if payment is None:
        return None
    facts = [
        ("due", wording.day(payment.due_on, language)),
        ("means", say(language, "payment.transfer")),
        ("iban", _grouped_iban(payment.iban) if payment.iban else None),
        ("bic", shown(payment.bic) if payment.bic else None),
        ("reference", shown(document.number) if document.number else None),
    ]
    return {
        "title": say(language, "payment"),
        "facts": [{"label": say(language, f"payment.{key}"), "value": value} for key, value in facts if value],
        "notes": [say(language, f"note.{key}") for key in ("indemnity", "interest", "discount")],
    }


def _grouped_iban(iban: str) -> str:
    whole = iban.replace(" ", "")
    return shown(" ".join(whole[at : at + 4] for at in range(0, len(whole), 4)))


def _unpriced(document: BillingDocument) -> Shown | None:
    language = document.language
    if not document.unpriced:
        return None
    return {
        "title": say(language, "unpriced"),
        "note": say(language, "unpriced.note"),
        "headings": [say(language, "unpriced.reason"), say(language, "unpriced.quantity")],
        "rows": [[_reason(one.reason, document), _amount_of(one, document)] for one in document.unpriced],
    }


def _amount_of(one: Unpriced, document: BillingDocument) -> str:
    if one.quantity in wording.QUANTITY_WORDS:
        return shown(wording.amount(one.amount, one.quantity, document.language))
    return f"{wording.number(one.amount, document.language)} {shown(one.quantity)}"


def _reason(reason: str, document: BillingDocument) -> str:
    known = {"no_price_book", "unknown_model", "no_price", "uncounted", "unknown_carbon"}
    return say(document.language, f"unpriced.{reason}") if reason in known else shown(reason)


def _provenance(document: BillingDocument, *, has_xml: bool) -> Shown:
    language, origin = document.language, document.provenance
    ledger = say(language, "provenance.ledger", batch=wording.number(origin.ledger_batch, language))
    carbon = (
        say(language, "provenance.carbon_none")
        if origin.carbon_batch is None
        else say(language, "provenance.carbon", batch=wording.number(origin.carbon_batch, language))
    )
    catalog = say(language, "provenance.catalog", version=wording.number(origin.catalog_version, language))
    return {
        "title": say(language, "provenance"),
        "facts": f"{ledger} · {carbon} · {catalog}",
        "hash-label": say(language, "provenance.hash"),
        "hash": shown(origin.ledger_hash),
        "notes": [
            say(language, "provenance.note"),
            *([say(language, "attachment")] if has_xml else []),
        ],
    }


def _money(cents: int, document: BillingDocument) -> str:
    return amount(cents, document.currency, document.language)

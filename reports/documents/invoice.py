"""An invoice or a credit note in the terms of EN 16931, from which both syntaxes (CII and UBL) are written. Pure.

Keys are the standard's: BT are business terms, BG groups of them. All numbers are decimal strings, exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from metering.rules.billing.documents import BillingDocument, DocumentLine, Party
from metering.rules.periods import PARIS
from metering.rules.rating.totals import BASIS_POINTS, VatCategory
from reports import wording
from reports.cells import plain, short
from reports.documents.amounts import METER_WORDS, amount, money, plain_price, price_base, unit_code, unit_price
from reports.documents.words import say

Terms = dict[str, Any]
"""Business terms by their number."""

INVOICE, CREDIT_NOTE = "380", "381"
SIREN, SIRET = "0002", "0009"
"""Schemes of identifiers of ISO 6523."""
FRENCH_DIRECTORY, EMAIL = "0225", "EM"
"""Schemes of electronic addresses: the directory of the French reform, where a SIREN is enough, and e-mail."""
SERVICES = "S1"
"""The business process (BT-23): an invoice for services."""
TRANSFER, SEPA_TRANSFER = "30", "58"
OUT_OF_SCOPE = "VATEX-EU-O"
MODEL_CHARACTERS_MAX = 100
"""More of a model's name is cut, so that what is measured still stands after it."""


@dataclass(frozen=True, slots=True)
class TaxKey:
    """What tax is broken down by: the standard's category and, where there is one, the rate in percent."""

    code: str
    rate: str | None


def is_all_outside(document: BillingDocument) -> bool:
    """Whether everything on a document is out of scope of VAT."""
    return all(part.category.regime == "out_of_scope" for part in document.vat)


def tax_key(category: VatCategory, *, is_alone: bool) -> TaxKey:
    """The standard's category of a VAT category.

    What is out of scope (O) stands alone: beside other categories the standard knows it only as not taxed (E).
    """
    if category.regime == "out_of_scope" and is_alone:
        return TaxKey("O", None)
    if category.regime != "rate":
        return TaxKey("E", "0")
    return TaxKey("S" if category.rate_bp else "Z", percent(category.rate_bp))


def percent(rate_bp: int) -> str:
    """A rate in percent: 20, 5.5."""
    whole, rest = divmod(rate_bp * 100, BASIS_POINTS)
    return f"{whole}.{rest * 100 // BASIS_POINTS:02d}".rstrip("0").rstrip(".")


def first_and_last_day(document: BillingDocument) -> tuple[date, date]:
    """Days of the books that a document is of, both included."""
    start, end = (edge.astimezone(PARIS).date() for edge in (document.period.start, document.period.end))
    return start, end - timedelta(days=1)


def days_of_month(month: str) -> tuple[date, date]:
    """First and last day of a month written as 2026-10."""
    first = date.fromisoformat(f"{month}-01")
    return first, (first + timedelta(days=32)).replace(day=1) - timedelta(days=1)


def invoice_terms(document: BillingDocument) -> Terms:
    """The terms of an invoice or a credit note that has its number."""
    assert document.number is not None
    assert document.kind != "statement"
    is_taxed = not is_all_outside(document)
    first, last = first_and_last_day(document)
    terms: Terms = {
        "BT-1": plain(document.number),
        "BT-2": document.issued_on,
        "BT-3": INVOICE if document.kind == "invoice" else CREDIT_NOTE,
        "BT-5": document.currency,
        "BT-10": _given(document.buyer_reference),
        "BT-12": _given(document.convention),
        "BT-13": _given(document.order_reference),
        "BT-23": SERVICES,
        "BT-72": last,
        "BT-73": first,
        "BT-74": last,
        "BG-1": _notes(document),
        "BG-4": _party(document.seller, is_taxed=is_taxed, is_seller=True),
        "BG-7": _party(document.buyer, is_taxed=is_taxed, is_seller=False),
        "BG-23": _breakdown(document),
        "BG-25": [_line(document, line) for line in document.lines],
        **_totals(document),
        **_payment(document),
    }
    if document.preceding is not None:
        terms["BG-3"] = [{"BT-25": plain(document.preceding.number), "BT-26": document.preceding.issued_on}]
    return {key: value for key, value in terms.items() if value is not None}


def _totals(document: BillingDocument) -> Terms:
    terms: Terms = {
        "BT-106": _money(document.net_cents),
        "BT-109": _money(document.net_cents),
        "BT-110": _money(document.vat_cents),
        "BT-112": _money(document.gross_cents),
        "BT-115": _money(document.gross_cents),
    }
    if document.exchanged_vat is not None:
        terms |= {"BT-6": document.exchanged_vat.currency, "BT-111": _money(document.exchanged_vat.vat_cents)}
    return terms


def _payment(document: BillingDocument) -> Terms:
    payment = document.payment
    if payment is None:
        key = "terms.credit_note" if document.preceding is not None else "terms.none"
        number = document.preceding.number if document.preceding is not None else ""
        return {"BT-20": plain(say(document.language, key, number=number))}
    due = wording.day(payment.due_on, document.language)
    iban = (payment.iban or "").replace(" ", "")
    terms: Terms = {
        "BT-9": payment.due_on,
        "BT-20": say(document.language, "terms.due", day=due),
        "BT-81": SEPA_TRANSFER if iban and document.currency == "EUR" else TRANSFER,
        "BT-83": plain(document.number or ""),
    }
    if iban:
        terms |= {"BT-84": plain(iban), "BT-85": short(document.seller.name), "BT-86": _given(payment.bic)}
    return terms


def _notes(document: BillingDocument) -> list[Terms]:
    """What the law wants said of late payment, and what the figures follow from."""
    origin = document.provenance
    said = {
        "AAI": say(document.language, "note.provenance", batch=origin.ledger_batch, hash=plain(origin.ledger_hash)),
        "PMT": say(document.language, "note.indemnity"),
        "PMD": say(document.language, "note.interest"),
        "AAB": say(document.language, "note.discount"),
    }
    if document.exchanged_vat is not None:
        said["TXD"] = exchange_text(document)
    return [{"BT-21": subject, "BT-22": text} for subject, text in said.items()]


def exchange_text(document: BillingDocument) -> str:
    """VAT in the seller's currency, with the rate and who published it."""
    exchanged = document.exchanged_vat
    assert exchanged is not None
    return say(
        document.language,
        "note.exchange",
        vat=amount(exchanged.vat_cents, exchanged.currency, document.language),
        one=amount(100, document.currency, document.language),
        rate=unit_price(exchanged.rate_nano, exchanged.currency, document.language),
        source=plain(exchanged.source),
    )


def _party(party: Party, *, is_taxed: bool, is_seller: bool) -> Terms:
    """A seller or buyer. Numbers of VAT have no place on what is out of its scope."""
    address = party.address
    terms: Terms = {"name": short(party.name), "country_code": address.country if address else "FR"}
    if party.siret and party.siren:
        terms |= {
            "identifiers": {SIRET: plain(party.siret)},
            "legal_identifier": plain(party.siren),
            "legal_identifier_schemeid": SIREN,
        }
    if is_taxed and party.vat_number:
        terms["vat_identifier"] = plain(party.vat_number)
    elif is_taxed and is_seller and party.siren:
        terms["tax_identifier"] = plain(party.siren)
    if address is not None:
        lines = [short(line) for line in address.lines[:3]]
        terms |= {f"addr_l{number}": line for number, line in enumerate(lines, 1)}
        terms |= {"postcode": plain(address.postcode), "city": short(address.city)}
    if party.siren:
        terms |= {"einvoicing_addr": plain(party.siren), "einvoicing_addr_schemeid": FRENCH_DIRECTORY}
    elif party.email:
        terms |= {"einvoicing_addr": plain(party.email), "einvoicing_addr_schemeid": EMAIL}
    return terms


def _breakdown(document: BillingDocument) -> list[Terms]:
    """Tax by the standard's category and rate: reasons of one category stand together."""
    groups: dict[TaxKey, Terms] = {}
    alone = is_all_outside(document)
    for part in document.vat:
        found = groups.setdefault(
            tax_key(part.category, is_alone=alone), {"base": 0, "vat": 0, "codes": set(), "texts": {}}
        )
        found["base"] += part.base_cents
        found["vat"] += part.vat_cents
        if part.category.regime != "rate":
            code, text = reason_of(part.category, document)
            found["codes"].add(code)
            found["texts"][text] = None
    return [dict(_tax_terms(key, found)) for key, found in groups.items()]


def _tax_terms(key: TaxKey, found: Terms) -> Iterator[tuple[str, Any]]:
    yield "BT-116", _money(found["base"])
    yield "BT-117", _money(found["vat"])
    yield "BT-118", key.code
    if key.rate is not None:
        yield "BT-119", key.rate
    if key.code in "EO":
        yield "BT-120", " ; ".join(found["texts"])
        code = found["codes"].pop()
        if code is not None and not found["codes"] and (key.code == "O" or code != OUT_OF_SCOPE):
            yield "BT-121", code


def reason_of(category: VatCategory, document: BillingDocument) -> tuple[str | None, str]:
    """Why there is no tax: the code (VATEX) where there is one, and a text."""
    text = say(document.language, f"vat.{category.regime}")
    reason = plain(category.reason or "")
    if reason.startswith("VATEX-"):
        return reason, text
    code = OUT_OF_SCOPE if category.regime == "out_of_scope" else None
    return code, f"{text} ({reason})" if reason else text


def _line(document: BillingDocument, line: DocumentLine) -> Terms:
    """A line. The standard has no negative price: what is taken back is a negative quantity."""
    sign = -1 if line.unit_price_nano < 0 else 1
    price, base = plain_price(abs(line.unit_price_nano), line.per)
    key = tax_key(line.vat, is_alone=is_all_outside(document))
    terms: Terms = {
        "BT-126": str(line.number),
        "BT-129": str(sign * line.quantity),
        "BT-130": unit_code(line.meter) if line.kind in {"use", "free"} else "C62",
        "BT-131": _money(line.net_cents),
        "BT-146": f"{price.normalize():f}",
        "BT-149": str(base),
        "BT-151": key.code,
        "BT-153": item_name(document, line),
        "BT-154": _item_description(document, line),
        "BT-155": short(line.price),
    }
    if key.rate is not None:
        terms["BT-152"] = key.rate
    if line.month != document.period.month:
        terms["BT-134"], terms["BT-135"] = days_of_month(line.month)
    return terms


def item_name(document: BillingDocument, line: DocumentLine) -> str:
    """What a line is for, in a few words."""
    if line.kind in {"minimum", "cap"}:
        return say(document.language, f"line.{line.kind}", meter=METER_WORDS[line.meter][document.language])
    model = line.model_name or line.model
    meter = METER_WORDS[line.meter][document.language]
    named = f"{short(model, MODEL_CHARACTERS_MAX)} – {meter}" if model else meter[0].upper() + meter[1:]
    return named if line.kind == "use" else say(document.language, "line.free", item=named)


def _item_description(document: BillingDocument, line: DocumentLine) -> str:
    project = line.project_name or line.project
    parts = [
        say(document.language, "line.project", project=short(project)) if project else None,
        say(
            document.language,
            "line.price",
            price=unit_price(line.unit_price_nano, document.currency, document.language),
            base=price_base(line.meter, line.per, document.language),
        )
        if line.kind == "use"
        else None,
    ]
    return " ; ".join(part for part in parts if part) or item_name(document, line)


def _given(text: str | None) -> str | None:
    return plain(text) if text else None


def _money(cents: int) -> str:
    return f"{money(cents):.2f}"

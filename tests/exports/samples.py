"""Documents of any kind, as a close makes them."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from hypothesis import strategies as st

from metering.rules.billing.documents import (
    BillingDocument,
    DocumentLine,
    Party,
    Period,
    Preceding,
    Provenance,
)
from metering.rules.carbon.apportioning import rounded
from metering.rules.rating.meters import PRICE_METERS
from metering.rules.rating.totals import VatCategory, total_of

OCTOBER = Period("2026-10", datetime(2026, 9, 30, 22, tzinfo=UTC), datetime(2026, 10, 31, 23, tzinfo=UTC))
SELLER = Party("platform", "DINUM", "13002526500013", "FR12130025265")
CATEGORIES = (
    VatCategory("rate", 2000),
    VatCategory("rate", 550),
    VatCategory("exempt", 0, "VATEX-EU-132"),
    VatCategory("out_of_scope", 0, "VATEX-EU-O"),
)

HOSTILE = (
    '=cmd|"/C calc"!A1',
    "+1+1",
    "-2-3",
    "@SUM(A1:A9)",
    "\tquick",
    "é\u202egnp.exe",
    "x" * 10_000,
    "y" * 40_000,
    'semi;colon,comma "quoted"\r\nsecond line',
    "bell\x07 and escape\x1b[31m",
    "_x0041_ is not A",
    "http://example.test/a",
    " leading and trailing ",
    "𝒜 mathématiques 漢字",
)
"""Names that somebody may have meant ill by."""


def line_of(number: int, **changes: Any) -> DocumentLine:
    """A line of a document; its amount follows from quantity, price and base unless it is given."""
    line = DocumentLine(
        number, "2026-10", "assistant", "Assistant", "albert-large", "Albert large", "input_tokens", "use",
        4_969_016, 4_969_016, 400_000_000, 1_000_000, 0, CATEGORIES[0], "demo/category:big/input_tokens/2025",
    )  # fmt: skip
    line = replace(line, **changes)
    if "net_cents" in changes:
        return line
    return replace(line, net_cents=rounded(line.quantity * line.unit_price_nano, line.per * 10**7))


def document_of(lines: list[DocumentLine], kind: Any = "invoice", **changes: Any) -> BillingDocument:
    """A document whose totals follow from its lines."""
    total = total_of((line.vat, line.net_cents) for line in lines)
    vat = () if kind == "statement" else total.vat
    tax = sum(part.vat_cents for part in vat)
    document = BillingDocument(
        kind=kind, number="F2026-000123", language="fr", issued_on=date(2026, 11, 5), period=OCTOBER, seller=SELLER,
        buyer=Party("interieur", "Ministère de l'intérieur", "11001401600015"), convention="c-1",
        convention_title="Convention", settlement="billed", buyer_reference="SERVICE-1", order_reference="ENG-42",
        currency="EUR", lines=tuple(lines), vat=vat, net_cents=total.net_cents, vat_cents=tax,
        gross_cents=total.net_cents + tax, exchanged_vat=None, payment=None,
        preceding=Preceding("F2026-000100", date(2026, 10, 5)) if kind == "credit_note" else None,
        unpriced=(), carbon=None, days=(), provenance=Provenance(13, "ab" * 32, None, 94),
    )  # fmt: skip
    return replace(document, **changes)


names = st.one_of(
    st.none(), st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
)


@st.composite
def lines(draw: st.DrawFn, number: int) -> DocumentLine:
    """Any line: of use, free, of a correction, of a minimum or a cap."""
    kind = draw(st.sampled_from(["use", "use", "use", "free", "minimum", "cap"]))
    common = {"number": number, "kind": kind, "vat": draw(st.sampled_from(CATEGORIES))}
    if kind in {"minimum", "cap"}:
        cents = draw(st.integers(1, 10**7)) * (-1 if kind == "cap" else 1)
        empty = {"project": None, "project_name": None, "model": None, "model_name": None}
        return line_of(**common, **empty, used=0, quantity=1, unit_price_nano=cents * 10**7, per=1, net_cents=cents)
    month = draw(st.sampled_from(["2026-10", "2026-10", "2026-08"]))
    quantity = draw(st.integers(1, 10**15)) * (1 if month == "2026-10" else draw(st.sampled_from([-1, 1])))
    return line_of(
        **common, month=month, project=draw(names), model=draw(names), meter=draw(st.sampled_from(PRICE_METERS)),
        used=quantity, quantity=quantity, per=draw(st.sampled_from([1, 1_000, 10**6, 3_600_000, 730_000_000_000])),
        unit_price_nano=0 if kind == "free" else draw(st.integers(0, 10**10)),
    )  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> BillingDocument:
    """Any document."""
    count = draw(st.integers(0, 6))
    kind = draw(st.sampled_from(["invoice", "invoice", "credit_note", "statement"]))
    return document_of(
        [draw(lines(number)) for number in range(1, count + 1)], kind,
        currency=draw(st.sampled_from(["EUR", "CHF"])), number=draw(st.sampled_from([None, "F2026-000123"])),
        settlement=draw(st.sampled_from(["free", "prepaid", "envelope"])) if kind == "statement" else "billed",
    )  # fmt: skip

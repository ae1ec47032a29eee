"""Documents that tests and benchmarks render: of each kind, currency and regime of VAT, and with hostile names."""

from dataclasses import replace
from datetime import date, timedelta

from metering.rules.billing.documents import (
    BillingDocument,
    CarbonFigures,
    DayFigures,
    DocumentLine,
    ExchangedVat,
    Party,
    Payment,
    Period,
    PostalAddress,
    Preceding,
    Provenance,
    Unpriced,
)
from metering.rules.carbon.apportioning import rounded
from metering.rules.periods import month_bounds
from metering.rules.rating.meters import PriceMeter
from metering.rules.rating.prices import NANO_PER_CENT
from metering.rules.rating.totals import VatCategory, total_of

TWENTY = VatCategory("rate", 2_000)
EXEMPT = VatCategory("exempt", 0, "VATEX-FR-CGI261-4")
OUTSIDE = VatCategory("out_of_scope", 0, "VATEX-EU-O")

SELLER = Party(
    "platform",
    "Direction interministérielle du numérique",
    "13001653800014",
    "FR90130016538",
    PostalAddress(("20 avenue de Ségur",), "75007", "Paris"),
    "facturation@plateforme.example",
)
BUYER = Party(
    "culture",
    "Ministère de la Culture",
    "11004601800013",
    "FR42110046018",
    PostalAddress(("182 rue Saint-Honoré", "Service des systèmes d’information"), "75001", "Paris"),
    "achats@culture.example",
)
ABROAD = Party(
    "vaud",
    "Canton de Vaud",
    address=PostalAddress(("Place du Château 4",), "1014", "Lausanne", "CH"),
    email="factures@vaud.example",
)
PAYMENT = Payment(date(2026, 12, 3), "FR7630001007941234567890185", "BDFEFRPPCCT")
PROVENANCE = Provenance(48_213, "9f2c" * 16, 1_204, 377)
CARBON = CarbonFigures(
    requests=18_240,
    requests_unknown=312,
    energy_uj=52_000_000_000_000,
    total_ng=1_284_000_000_000,
    total_lower_ng=1_010_000_000_000,
    total_upper_ng=1_630_000_000_000,
    tiers_ppm=(("A", 812_000), ("C", 188_000)),
    methods=("attribution-2",),
    as_of=1_204,
    is_complete=True,
)
DAYS = tuple(
    DayFigures(
        date(2026, 10, 1) + timedelta(days=at),
        120 + at * 37 % 311,
        None if at == 11 else (0 if at % 7 in {2, 3} else 900_000 + at * 7_919_123 % 2_400_000),
    )
    for at in range(31)
)


def period(month: str = "2026-10") -> Period:
    return Period(month, *month_bounds(int(month[:4]), int(month[5:])))


def line(
    number: int,
    meter: PriceMeter,
    quantity: int,
    nano: int,
    per: int,
    vat: VatCategory = TWENTY,
    *,
    project: str | None = "archives",
    model: str | None = "mistral-small",
    month: str = "2026-10",
    kind: str = "use",
) -> DocumentLine:
    return DocumentLine(
        number=number,
        month=month,
        project=project,
        project_name={"archives": "Indexation des archives", "accueil": "Assistant d’accueil"}.get(
            project or "", project
        ),
        model=model,
        model_name={"mistral-small": "Mistral Small 3.2", "whisper": "Whisper Large v3"}.get(model or "", model),
        meter=meter,
        kind=kind,  # type: ignore[arg-type]
        used=quantity,
        quantity=quantity,
        unit_price_nano=nano,
        per=per,
        net_cents=rounded(quantity * nano, per * NANO_PER_CENT),
        vat=vat,
        price="ministeres-2026-07",
    )


def lines(vat: VatCategory = TWENTY) -> tuple[DocumentLine, ...]:
    return (
        line(1, "input_tokens", 100_000, 0, 1_000_000, vat, project="accueil", kind="free"),
        line(2, "input_tokens", 41_382_911, 200_000_000, 1_000_000, vat, project="accueil"),
        line(3, "output_tokens", 9_120_344, 600_000_000, 1_000_000, vat, project="accueil"),
        line(4, "input_tokens", 212_840_017, 200_000_000, 1_000_000, vat),
        line(5, "audio_ms", 44_045_123, 360_000_000, 3_600_000, vat, model="whisper"),
        line(6, "pages", 18_311, 1_500_000, 1, vat, model=None),
        line(7, "storage_byte_hours", 22 * 10**9 * 744, 25_000_000, 10**9 * 730, vat, model=None),
        line(8, "embedding_requests", 5_120, 12_345, 1, vat, model="bge-m3"),
        line(9, "carbon_ugco2e", 1_284_000_001, 150_000_000, 10**12, vat, model=None),
        line(10, "requests", 1, 731 * NANO_PER_CENT, 1, vat, project=None, model=None, kind="minimum"),
        line(11, "audio_ms", 1, -112 * NANO_PER_CENT, 1, vat, project=None, model=None, kind="cap"),
    )


def document(rows: tuple[DocumentLine, ...], **fields: object) -> BillingDocument:
    total = total_of((row.vat, row.net_cents) for row in rows)
    whole: dict[str, object] = {
        "kind": "invoice",
        "number": "FA-2026-10-0042",
        "language": "fr",
        "issued_on": date(2026, 11, 3),
        "period": period(),
        "seller": SELLER,
        "buyer": BUYER,
        "convention": "CNV-2026-017",
        "convention_title": "Convention d’accès privilégié 2026",
        "settlement": "billed",
        "buyer_reference": "SDSI-01",
        "order_reference": "1512345678",
        "currency": "EUR",
        "lines": rows,
        "vat": total.vat,
        "net_cents": total.net_cents,
        "vat_cents": total.vat_cents,
        "gross_cents": total.gross_cents,
        "exchanged_vat": None,
        "payment": PAYMENT,
        "preceding": None,
        "unpriced": (),
        "carbon": CARBON,
        "days": DAYS,
        "provenance": PROVENANCE,
    }
    return BillingDocument(**(whole | fields))  # type: ignore[arg-type]


def invoice() -> BillingDocument:
    return document(lines())


def exempt() -> BillingDocument:
    return document(lines(EXEMPT), number="FA-2026-10-0043", language="en")


def out_of_scope() -> BillingDocument:
    return document(lines(OUTSIDE), number="FA-2026-10-0044")


def francs() -> BillingDocument:
    found = document(
        (line(1, "output_tokens", 812_345_678, 750_000_000, 1_000_000),),
        number="FA-2026-10-0045",
        language="en",
        currency="CHF",
        buyer=ABROAD,
        order_reference=None,
        payment=replace(PAYMENT, iban="CH9300762011623852957", bic=None),
    )
    rate = 1_073_500_000
    exchanged = ExchangedVat(
        "EUR", rate, "European Central Bank, 30 October 2026", rounded(found.vat_cents * rate, 10**9)
    )
    return replace(found, exchanged_vat=exchanged)


def credit_note() -> BillingDocument:
    return document(
        (line(1, "input_tokens", 3_120_000, 200_000_000, 1_000_000, month="2026-09"),),
        kind="credit_note",
        number="AV-2026-10-0003",
        payment=None,
        preceding=Preceding("FA-2026-09-0038", date(2026, 10, 5)),
        carbon=None,
        days=(),
    )


def corrected() -> BillingDocument:
    """An invoice with lines that take back, and charge anew, use of an earlier month."""
    rows = (
        line(1, "input_tokens", 212_840_017, 200_000_000, 1_000_000),
        line(2, "input_tokens", -3_120_000, 200_000_000, 1_000_000, month="2026-09"),
        line(3, "input_tokens", 2_980_000, 200_000_000, 1_000_000, month="2026-09"),
    )
    return document(
        rows,
        number="FA-2026-10-0046",
        unpriced=(Unpriced("no_price", "pages", 120), Unpriced("uncounted", "requests", 3)),
    )


def mixed() -> BillingDocument:
    """What is out of scope beside what is taxed, after a change of regime."""
    rows = (
        line(1, "input_tokens", 212_840_017, 200_000_000, 1_000_000),
        line(2, "input_tokens", 2_980_000, 200_000_000, 1_000_000, OUTSIDE, month="2026-09"),
    )
    return document(rows, number="FA-2026-10-0049")


def statement() -> BillingDocument:
    rows = tuple(replace(row, vat=VatCategory("out_of_scope")) for row in lines())
    return document(
        rows,
        kind="statement",
        number="RE-2026-10-0107",
        settlement="free",
        convention=None,
        convention_title=None,
        buyer_reference=None,
        order_reference=None,
        payment=None,
        carbon=replace(CARBON, total_ng=None, total_lower_ng=None, total_upper_ng=None, energy_uj=None, tiers_ppm=()),
        unpriced=(Unpriced("unknown_model", "input_tokens", 41),),
    )


def draft() -> BillingDocument:
    return replace(invoice(), number=None)


HOSTILE = (
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "x" * 10_000,
    "a\u202egpj.exe\x00\x07\x1b[31m",
    '#import "/etc/passwd"; #eval("1") $x$ *b* `c` \\ @ref <label>',
    "<script>alert(1)</script>&amp;]]><!--",
    "العربية עברית 漢字 🚀 ñ ﷽",
    "tab\tline\r\nbreak\u2028end",
)
"""Names as people and programs may give them."""


def hostile() -> BillingDocument:
    rows = tuple(
        replace(
            line(number, "input_tokens", 1_000_000 * number, 200_000_000, 1_000_000),
            project=f"p{number}",
            project_name=name,
            model=name[:60],
            model_name=name,
            price=name,
        )
        for number, name in enumerate(HOSTILE, 1)
    )
    evil = " ".join(HOSTILE)
    return document(
        rows,
        number="FA-2026-10-0047",
        buyer=replace(BUYER, name=evil, address=PostalAddress((HOSTILE[5], HOSTILE[0]), "75001", HOSTILE[4])),
        convention=HOSTILE[0],
        convention_title=HOSTILE[2],
        buyer_reference=HOSTILE[1],
        order_reference=HOSTILE[5],
        unpriced=(Unpriced(HOSTILE[4], HOSTILE[4], 1),),
        carbon=replace(CARBON, methods=HOSTILE[:2]),
    )


def long() -> BillingDocument:
    """An invoice of several pages."""
    rows = tuple(
        line(number, "input_tokens", 1_000_003 * number, 200_000_000, 1_000_000, project=f"projet-{number // 8:02d}")
        for number in range(1, 201)
    )
    return document(rows, number="FA-2026-10-0048")


ALL = {
    "invoice": invoice,
    "exempt": exempt,
    "out_of_scope": out_of_scope,
    "francs": francs,
    "credit_note": credit_note,
    "corrected": corrected,
    "mixed": mixed,
    "statement": statement,
    "draft": draft,
    "hostile": hostile,
    "long": long,
}

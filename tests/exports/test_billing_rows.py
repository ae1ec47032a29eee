"""Charges and entries of documents: they add up to the documents, to the cent, whatever these are."""

from collections import defaultdict
from datetime import datetime
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.exports.accounting import ACCOUNTING_COLUMNS, Accounts, accounting_rows
from reports.exports.focus import charges, focus_columns, focus_rows
from tests.exports.focus_check import complaints
from tests.exports.samples import documents


def cents(amount: Decimal) -> int:
    return int(amount * 100)


@settings(max_examples=25)
@given(documents())
def test_charges_add_up_to_the_document(document) -> None:
    found = list(charges(document))
    billed = sum(cents(row["BilledCost"]) for row in found)
    owed = {"invoice": 1, "credit_note": -1, "statement": 0}[document.kind] * document.gross_cents
    assert billed == owed
    for row in found:
        if row["ContractedUnitPrice"] is not None and document.kind == "invoice":
            assert abs(row["ContractedCost"] - row["BilledCost"]) < Decimal("0.0051")  # rounded once, to the cent


@pytest.mark.parametrize("version", ["1.2", "1.4"])
@settings(max_examples=25)
@given(several=st.lists(documents(), max_size=3))
def test_charges_keep_the_rules_of_the_specification(version, several) -> None:
    columns = focus_columns(version)
    names = [column.name for column in columns]
    instants = {column.name for column in columns if column.kind == "instant"}
    rows = [dict(zip(names, row, strict=True)) for row in focus_rows(several, version)]
    for row in rows:
        row.update({name: datetime.fromisoformat(row[name]) for name in instants})
    with localcontext(prec=76):
        assert complaints(names, rows, version) == []


@settings(max_examples=25)
@given(st.lists(documents(), max_size=4))
def test_entries_of_a_document_balance(several) -> None:
    names = [column.name for column in ACCOUNTING_COLUMNS]
    for document in several:
        entries = [dict(zip(names, row, strict=True)) for row in accounting_rows([document], Accounts())]
        assert sum(row["Debit"] for row in entries) == sum(row["Credit"] for row in entries)
        assert all(min(row["Debit"], row["Credit"]) == 0 < max(row["Debit"], row["Credit"]) for row in entries)
        if document.kind == "statement" or document.number is None:
            assert not entries
            continue
        sums = defaultdict(int)
        for row in entries:
            sums[row["CompteNum"]] += cents(row["Debit"] - row["Credit"])
        sign = -1 if document.kind == "credit_note" else 1
        assert sums["411000"] == sign * document.gross_cents
        assert sums["706000"] == -sign * document.net_cents
        assert sums["445710"] == -sign * document.vat_cents

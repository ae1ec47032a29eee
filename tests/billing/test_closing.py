"""Months closed on real stores: documents, their numbers and files, what comes late, who sees what."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from metering.billing.closing import Closer
from metering.billing.documents import Filter, KeptDocument, document_path, find_document, list_documents
from metering.billing.documents_verification import verify_documents
from metering.billing.due import draft_due
from metering.billing.reviewing import Review
from metering.database import Actor, transaction
from metering.errors import JaugeError
from metering.rules.billing.correcting import signed_lines
from metering.rules.billing.documents import BillingDocument
from metering.services import Services
from metering.tables import outbox
from reports.documents import files_of
from tests.billing.conftest import Record, rated, write_file

BILLED = """
price_books:
  - {id: swiss, name: Swiss, currency: CHF, vat: rate, vat_percent: "8.1"}
  - {id: state, name: State, currency: EUR, vat: out_of_scope, vat_reason: VATEX-EU-O}
prices:
  - {book: swiss, selector: "*", meter: input_tokens, price: "1", per: 1_000, valid_from: 2026-01-01T00:00:00Z}
  - {book: swiss, selector: "*", meter: output_tokens, price: "2", per: 1_000, valid_from: 2026-01-01T00:00:00Z}
exchange_rates:
  - {currency: CHF, valid_on: 2026-01-01, rate: "1.07", source: ECB}
tenants:
  - id: dinum
    name: Dinum
    siret: "00011001500013"
    billing: {address: {lines: [1 rue A], postcode: "75001", city: Paris}, service_code: S-1, language: en}
  - id: berne
    name: Berne
    billing: {address: {lines: [1 rue B], postcode: "3000", city: Berne, country: CH}}
conventions:
  - {id: c-3, tenant: berne, title: T, funder: F, signed_on: 2026-01-01, effective_on: 2026-01-01,
     starts_on: 2026-01-01, ends_on: 2027-12-31, settlement: billed, overage: bill, price_book: swiss}
platform:
  default_plan: experimentation
  price_book: list
  issuer:
    name: Seller
    siret: "00022002000010"
    vat_number: FR84000220020
    address: {lines: [1 rue C], postcode: "75007", city: Paris}
    iban: FR1420041010050500013M02606
"""
AFTER_OCTOBER = datetime(2026, 11, 5, 9, tzinfo=UTC)
AFTER_NOVEMBER = datetime(2026, 12, 5, 9, tzinfo=UTC)


@pytest.fixture
def closer(priced: Services, tmp_path: Path) -> Closer:
    write_file(priced, BILLED)
    return Closer(priced.engine, tmp_path, files_of, grace_days=3)


def documents(closer: Closer, actor: Actor | None = None, **wanted: str) -> list[KeptDocument]:
    with transaction(closer.engine, actor=actor) as connection:
        return list(list_documents(connection, Filter(**wanted)))  # type: ignore[arg-type]


def refusal(closer: Closer, month: str = "2026-10", now: datetime = AFTER_OCTOBER) -> str:
    with pytest.raises(JaugeError) as raised:
        closer.finalise(month, author="test", now=now)
    return f"{raised.value.code} {raised.value.field}"


def close(closer: Closer, month: str, now: datetime) -> None:
    closer.finalise(month, author="test", now=now)


def test_a_month_becomes_documents_and_what_comes_late_a_credit_note(
    priced: Services, closer: Closer, record: Record
) -> None:
    for tenant in ("dinum", "berne", "sante"):
        record("2026-10-05T08:30:00Z", tenant=tenant, input_tokens=9_500, output_tokens=1_000, id=f"{tenant}-1")
    assert refusal(closer, now=datetime(2026, 11, 2, 9, tzinfo=UTC)) == "month_not_over month"
    _closing, found = closer.draft("2026-10", author="test", now=AFTER_OCTOBER)
    assert isinstance(found, Review)
    assert found.obstacles == []
    assert documents(closer) == []
    close(closer, "2026-10", AFTER_OCTOBER)
    close(closer, "2026-10", AFTER_NOVEMBER)  # again: nothing happens
    assert [(one.number, one.tenant, one.net_cents, one.vat_cents, one.currency) for one in documents(closer)] == [
        ("F2026-000001", "berne", 1_150, 93, "CHF"),
        ("F2026-000002", "dinum", 1_150, 230, "EUR"),
        ("R2026-000001", "sante", 1_150, 0, "EUR"),
    ]
    with transaction(priced.engine) as connection:
        _kept, swiss = find_document(connection, "F2026-000001")
        _kept, invoice = find_document(connection, "F2026-000002")
    assert swiss.exchanged_vat is not None
    assert swiss.exchanged_vat.vat_cents == 100
    assert (invoice.buyer_reference, invoice.language, invoice.days[0].requests) == ("S-1", "en", 1)
    assert verify_documents(priced.engine, closer.folder).clean

    # 1,500 tokens of October were counted twice: found in November.
    priced.corrections.correct("test", "dinum-1", {"input_tokens": 8_000}, reason="twice", author="test")
    record("2026-10-07T08:30:00Z", tenant="berne", input_tokens=2_000, output_tokens=0, id="late")
    record("2026-11-03T08:30:00Z", tenant="dinum", input_tokens=1_000, output_tokens=0, id="on-time")
    close(closer, "2026-11", AFTER_NOVEMBER)
    made = documents(closer, month="2026-11")
    assert [(one.number, one.kind, one.net_cents, one.vat_cents, one.preceding) for one in made] == [
        ("F2026-000003", "invoice", 200, 16, None),
        ("F2026-000004", "invoice", 100, 20, None),
        ("A2026-000001", "credit_note", 150, 30, "F2026-000002"),
    ]
    _check_conserved(priced, closer)


def _check_conserved(priced: Services, closer: Closer) -> None:
    """Over all documents of October, lines add up to October as it is rated now."""
    for tenant in ("dinum", "berne", "sante"):
        with transaction(priced.engine) as connection:
            found = [find_document(connection, one.number)[1] for one in documents(closer, tenant=tenant)]
        said = sum(line.net_cents for one in found for line in signed_lines(one) if line.month == "2026-10")
        assert said == sum(line.amount_cents for line in rated(priced, tenant).lines)


def test_usage_without_a_price_blocks_until_somebody_says_that_it_is_free(closer: Closer, record: Record) -> None:
    record("2026-10-05T08:30:00Z", model_requested="unheard-of", model_served="unheard-of", tenant="dinum")
    record("2026-10-05T08:30:00Z", tenant="dinum", id="priced")
    assert refusal(closer) == "month_not_ready unpriced"
    closer.finalise("2026-10", author="test", now=AFTER_OCTOBER, zero_reason="A trial.")
    (kept,) = documents(closer)
    with transaction(closer.engine) as connection:
        _kept, document = find_document(connection, kept.number)
    assert {one.reason for one in document.unpriced} == {"unknown_model"}


def test_an_invoice_needs_a_seller_and_months_close_in_order(priced: Services, tmp_path: Path, record: Record) -> None:
    closer = Closer(priced.engine, tmp_path, files_of, grace_days=3)
    record("2026-10-05T08:30:00Z", tenant="dinum")
    assert refusal(closer) == "month_not_ready no_issuer"
    write_file(priced, BILLED)
    close(closer, "2026-10", AFTER_OCTOBER)
    assert refusal(closer, "2026-09") == "not_its_turn month"
    assert refusal(closer, "2026-12", datetime(2027, 1, 9, tzinfo=UTC)) == "not_its_turn month"


def test_each_administration_sees_its_own_and_is_told_once(priced: Services, closer: Closer, record: Record) -> None:
    for tenant in ("dinum", "sante"):
        record("2026-10-05T08:30:00Z", tenant=tenant, id=tenant)
    close(closer, "2026-10", AFTER_OCTOBER)
    assert {one.tenant for one in documents(closer, Actor("a manager", "sante"))} == {"sante"}
    with transaction(priced.engine) as connection:
        told = connection.scalars(sa.select(outbox.c.recipient).where(outbox.c.subject == "documents_final"))
        assert sorted(told) == ["managers:dinum", "managers:sante"]


def test_the_worker_drafts_a_month_once_when_its_grace_is_over_and_completes_what_was_begun(
    priced: Services, closer: Closer, record: Record
) -> None:
    record("2026-10-05T08:30:00Z", tenant="dinum")
    assert draft_due(closer, datetime(2026, 11, 3, 22, tzinfo=UTC)) is None
    drafted = draft_due(closer, AFTER_OCTOBER)
    assert drafted is not None
    assert (drafted.month, drafted.is_final) == ("2026-10", False)
    assert draft_due(closer, AFTER_OCTOBER) is None
    with transaction(priced.engine) as connection:
        told = connection.scalars(sa.select(outbox.c.recipient).where(outbox.c.subject == "drafts_ready"))
        assert list(told) == ["operators"]

    def fails(_document: BillingDocument) -> dict[str, bytes]:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        replace(closer, render=fails).finalise("2026-10", author="test", now=AFTER_OCTOBER)
    assert documents(closer) == []
    completed = closer.resume(AFTER_NOVEMBER)
    assert completed is not None
    assert [(one.number, one.issued_on) for one in documents(closer)] == [("F2026-000001", AFTER_OCTOBER.date())]
    assert closer.resume(AFTER_NOVEMBER) is None


def test_a_file_or_a_row_that_was_changed_is_named(priced: Services, closer: Closer, record: Record) -> None:
    for tenant in ("dinum", "sante"):
        record("2026-10-05T08:30:00Z", tenant=tenant, id=tenant)
    close(closer, "2026-10", AFTER_OCTOBER)
    changed = document_path(closer.folder, "2026-10", "F2026-000001", "csv")
    changed.write_bytes(changed.read_bytes() + b"x")
    document_path(closer.folder, "2026-10", "R2026-000001", "pdf").unlink()
    with priced.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE billing_document DISABLE TRIGGER append_only"))
        connection.execute(sa.text("UPDATE billing_document SET document = replace(document, 'Dinum', 'Denim')"))
    found = {(one.kind, one.where) for one in verify_documents(priced.engine, closer.folder).differences}
    assert found == {
        ("document_file_changed", "F2026-000001.csv"), ("document_file_missing", "R2026-000001.pdf"),
        ("document_chain", "F2026-000001"),
    }  # fmt: skip

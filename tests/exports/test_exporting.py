"""Exports of what is in the ledger and of final documents: by HTTP for each reader, and by the command's own way."""

import csv
import hashlib
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest
from litestar.testing import TestClient

from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.events.decoding import decode
from metering.identity import Principal
from metering.tables import billing_document, month_closed, month_closing
from reports.exports.making import make, parse_export
from tests.applications import application
from tests.billing.conftest import CATALOGUE, write_file
from tests.conftest import ndjson
from tests.exports.samples import CATEGORIES, document_of, line_of
from tests.people import add_agent

OPERATOR = Principal("op", "operator")
OCTOBER = {"start": "2026-10-01", "end": "2026-11-01"}


@pytest.fixture
def used(services, make_event):
    """Use of two administrations, one of which pays."""
    write_file(services, CATALOGUE)
    events = [make_event(project=project) for project in ("assistant", "assistant", None)]
    events += [make_event(tenant="sante", project="essais", user="u-2")]
    assert services.intake.take(decode(ndjson(events), "ndjson", 10), "http").is_whole
    return services


@pytest.fixture
def client(used):
    with TestClient(application(used)) as opened:
        yield opened


def asked(client, token: str, **params):
    return client.get("/v1/exports/now", params=params, headers={"Authorization": f"Bearer {token}"})


def keep(services, *documents) -> None:
    """Record documents as a close does, without its chain."""
    with transaction(services.engine) as connection:
        closing = connection.scalar(
            month_closing.insert()
            .values(
                month="2026-10", is_final=True, ledger_batch=1, carbon_batch=0, catalog_version=1, author="test",
                issued_on=documents[0].issued_on, review={}, started_at=datetime(2026, 11, 5, tzinfo=UTC),
            )
            .returning(month_closing.c.number)
        )  # fmt: skip
        for place, one in enumerate(documents):
            connection.execute(
                billing_document.insert().values(
                    seq=place + 1, number=one.number, series="F", year=2026, serial=place + 1, closing=closing,
                    place=place, kind=one.kind, month="2026-10", tenant=one.buyer.id, settlement=one.settlement,
                    currency=one.currency, issued_on=one.issued_on, net_cents=one.net_cents, vat_cents=one.vat_cents,
                    gross_cents=one.gross_cents, preceding=one.preceding and one.preceding.number,
                    document=json_of(one), files={}, hash=b"0" * 32,
                )
            )  # fmt: skip
        connection.execute(
            month_closed.insert().values(
                month="2026-10", closing=closing, manifest_sha256="0" * 64, sealed_rows=0, documents=len(documents),
                ended_at=datetime(2026, 11, 5, tzinfo=UTC),
            )
        )  # fmt: skip


def json_of(document) -> str:
    import msgspec

    return msgspec.json.encode(document).decode()


def test_usage_with_the_amounts_of_its_month(used, tmp_path) -> None:
    params = OCTOBER | {"format": "parquet", "group_by": "tenant,project", "bucket": "month", "amounts": "true"}
    told: list[int] = []
    made = make(used.export_sources(), parse_export(params, OPERATOR), OPERATOR, tmp_path, lambda *one: told.append(1))
    found = pl.read_parquet(made.path).select("tenant", "project", "requests", "billed_amount", "valued_amount")
    assert found.rows() == [  # 100 tokens at 1 EUR for 1,000 and 20 at 2
        ("dinum", "assistant", 2, Decimal("0.28"), None),
        ("dinum", None, 1, Decimal("0.14"), None),
        ("sante", "essais", 1, None, Decimal("0.14")),
    ]
    assert made.path.name == "usage_2026-10-01_2026-11-01_batch-1.parquet"
    assert [one.name for one in tmp_path.iterdir()] == [made.path.name]
    manifest = json.loads(made.manifest())
    assert manifest["sha256"] == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert (manifest["ledger_batch"], len(manifest["ledger_hash"]), manifest["rows"]) == (1, 64, 3)


INEXACT = [
    {"group_by": "tenant,user"},
    {"group_by": "project"},
    {"group_by": "tenant", "bucket": "day"},
    {"group_by": "tenant", "tz": "UTC"},
    {"group_by": "tenant", "end": "2026-10-15"},
    {"group_by": "tenant", "operation": "chat"},
]


def test_a_cut_without_an_exact_amount_is_refused(client, used) -> None:
    operator = add_token(used.engine, "o", "operator")
    for params in INEXACT:
        answer = asked(client, operator, **OCTOBER | params | {"amounts": "true"})
        assert (answer.status_code, answer.json()["code"]) == (422, "no_exact_amount"), params


def test_each_reader_gets_what_is_theirs(client, used) -> None:
    _account, manager = add_agent(used, "dinum", "manager")
    _account, member = add_agent(used, "sante", "member", "u-2")
    rows = {
        token: list(csv.DictReader(io.StringIO(asked(client, token, **OCTOBER, group_by="tenant,project").text)))
        for token in (manager, member)
    }
    assert {row["tenant"] for row in rows[manager]} == {"dinum"}
    assert [(row["tenant"], row["project"]) for row in rows[member]] == [("sante", "essais")]
    assert asked(client, manager, **OCTOBER, tenant="sante").json()["code"] == "not_yours"
    assert asked(client, member, **OCTOBER, amounts="true").json()["code"] == "wrong_role"
    for kind in ("focus", "accounting"):
        assert asked(client, member, kind=kind, month="2026-10").json()["code"] == "wrong_role"
        assert asked(client, manager, kind=kind, month="2026-10", tenant="sante").json()["code"] == "not_yours"
        assert asked(client, manager, kind=kind, month="2026-10").json()["code"] == "no_documents"


def test_final_documents_as_charges_and_entries(client, used) -> None:
    invoice = document_of([line_of(1), line_of(2, vat=CATEGORIES[3])])
    own = document_of([line_of(1)], "statement", number="R2026-000001", settlement="free")
    buyers = {name: type(own.buyer)(name, name) for name in ("dinum", "sante")}
    keep(used, replaced(invoice, buyers["dinum"]), replaced(own, buyers["sante"]))
    operator = add_token(used.engine, "o", "operator")
    _account, manager = add_agent(used, "sante", "manager")
    for version in ("1.2", "1.4"):
        answer = asked(client, operator, kind="focus", month="2026-10", format="parquet", focus_version=version)
        found = pl.read_parquet(io.BytesIO(answer.content))
        assert answer.headers["content-disposition"].endswith(
            f'"focus-{version}_2026-10-01_2026-11-01_batch-1.parquet"'
        )
        assert answer.headers["jauge-ledger-batch"] == "1"
        assert found.filter(pl.col("InvoiceId") == invoice.number)["BilledCost"].sum() * 100 == invoice.gross_cents
        assert found.filter(pl.col("InvoiceId").is_null())["BilledCost"].to_list() == [0]
    theirs = asked(client, manager, kind="focus", month="2026-10", format="ndjson").text.splitlines()
    assert [json.loads(line)["BillingAccountId"] for line in theirs] == ["sante"]
    entries = list(
        csv.DictReader(
            io.StringIO(
                asked(client, operator, kind="accounting", month="2026-10", language="fr").text.lstrip("\ufeff")
            ),
            delimiter=";",
        )
    )
    sums = [sum(Decimal(row[side].replace(",", ".")) for row in entries) for side in ("Debit", "Credit")]
    assert sums == [Decimal(invoice.gross_cents) / 100] * 2


def replaced(document, buyer):
    from dataclasses import replace

    return replace(document, buyer=buyer)

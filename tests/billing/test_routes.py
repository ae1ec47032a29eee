"""Prices and ratings over HTTP and as commands."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from litestar import Litestar
from litestar.testing import TestClient

from metering.cli import main
from metering.services import Services
from metering.settings import Settings, get_settings
from tests.billing.conftest import CATALOGUE, LATER, Record, rated, write_file
from tests.people import add_agent

Client = TestClient[Litestar]

PRICES = "price_books:" + CATALOGUE.partition("price_books:")[2].partition("conventions:")[0]
OCTOBER = {"month": "2026-10"}


def test_a_rating_is_an_operators_for_anybody_and_a_managers_own(
    priced: Services, client: Client, record: Record
) -> None:
    record("2026-10-05T08:00:00Z")
    agents = {role: add_agent(priced, "dinum", role)[1] for role in ("manager", "member")}
    priced.catalog.refresh()
    found = client.get("/v1/rating", params=OCTOBER | {"tenant": "dinum"}).json()
    assert (found["totals"][0]["net"], found["lines"][0]["amount"]) == ("0.14", "0.10")
    past = OCTOBER | {"as_of": 1, "catalog_version": found["catalog_version"]}
    client.headers["Authorization"] = f"Bearer {agents['manager']}"
    assert client.get("/v1/rating", params=OCTOBER).json() == found
    assert client.get("/v1/rating", params=past).json() == found
    assert client.get("/v1/rating", params=OCTOBER | {"tenant": "sante"}).status_code == 404
    client.headers["Authorization"] = f"Bearer {agents['member']}"
    assert client.get("/v1/rating", params=OCTOBER).status_code == 403


def test_what_is_wrong_with_a_question_is_said(client: Client) -> None:
    for asked, status, code in (
        (OCTOBER, 422, "missing_field"),
        (OCTOBER | {"tenant": "nobody"}, 404, "unknown_tenant"),
        ({"tenant": "dinum", "month": "October"}, 422, "invalid_month"),
        ({"tenant": "dinum"}, 400, "invalid_request"),
        (OCTOBER | {"tenant": "dinum", "as_of": "5"}, 404, "unknown_batch"),
        (OCTOBER | {"tenant": "dinum", "as_of": "-1"}, 400, "invalid_request"),
        (OCTOBER | {"tenant": "dinum", "catalog_version": "100000"}, 404, "unknown_change"),
    ):
        answer = client.get("/v1/rating", params=asked)
        assert (answer.status_code, answer.json()["code"]) == (status, code), asked


def test_readers_see_what_they_pay_and_not_what_others_do(priced: Services, client: Client) -> None:
    write_file(priced, PRICES.replace("list", "other").replace("20", "10", 1))
    client.headers["Authorization"] = f"Bearer {add_agent(priced, 'dinum')[1]}"
    found = client.get("/v1/prices", params={"at": "2026-10-05T12:00:00+02:00"}).json()
    assert (found["book"]["id"], found["convention"], found["billing"]) == ("list", "c-1", "billed")
    assert [(one["meter"], one["price"], one["unit"], one["source"]) for one in found["items"]] == [
        ("input_tokens", "1.00", "1,000 tokens", "book"),
        ("output_tokens", "2.00", "1,000 tokens", "book"),
    ]
    assert client.get("/v1/prices", params={"tenant": "sante"}).status_code == 404
    assert client.get("/v1/prices", params={"at": "2025-01-01T00:00:00Z"}).json()["items"] == []


def test_an_operator_sees_what_free_use_is_valued_by(client: Client) -> None:
    found = client.get("/v1/prices").json()
    assert (found["tenant"], found["settlement"], found["book"]["vat_percent"]) == (None, "free", "20.00")
    assert client.get("/v1/prices", params={"tenant": "dinum"}).json()["settlement"] == "billed"


def test_an_instant_needs_its_offset_and_a_year_within_reason(client: Client) -> None:
    for at in ("2026-10-05T12:00:00", "9999-12-31T23:00:00Z"):
        answer = client.get("/v1/prices", params={"at": at})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_time"), at


def test_prices_are_written_and_listed_as_documents(client: Client) -> None:
    price = {"book": "list", "meter": "pages", "price": "0.8", "per": 1000, "valid_from": "2026-01-01T00:00:00Z"}
    assert client.put("/v1/admin/prices", json=price).status_code == 200
    listed = client.get("/v1/admin/prices").json()["items"]
    assert [one["price"] for one in listed if one["meter"] == "pages"] == ["0.8"]
    refused = client.put("/v1/admin/prices", json=price | {"price": "0.9"})
    assert (refused.status_code, refused.json()["code"]) == (409, "version_is_final")
    refused = client.put("/v1/admin/prices", json=price | {"valid_from": "2026-01-01T00:30:00Z"})
    assert (refused.status_code, refused.json()["field"], refused.json()["expected"]) == (
        400, "valid_from", "a whole hour",
    )  # fmt: skip
    assert client.delete("/v1/admin/prices", params={"key": "list"}).status_code == 405


# Commands


@pytest.fixture
def command(services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """`jauge` on the test's own stores."""
    for name in ("database_url", "redis_url", "secret_key"):
        monkeypatch.setenv(f"JAUGE_{name.upper()}", getattr(settings, name).get_secret_value())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metering.logs.configure_logs", lambda *_: None)
    get_settings.cache_clear()
    yield lambda *words, **more: CliRunner().invoke(main, ["prices", *words], **more)
    get_settings.cache_clear()


Command = Callable[..., Result]


def done(answer: Result) -> str:
    assert answer.exit_code == 0, (answer.stderr, answer.exception)
    return answer.stdout


def test_a_file_is_shown_asked_about_and_written_whole(services: Services, command: Command, tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(PRICES)
    write_file(services, CATALOGUE.partition("price_books:")[0])
    assert "+ price_books list" in done(command("apply", str(file), "--dry-run"))
    assert "written" not in done(command("apply", str(file), input="n\n"))
    assert done(command("apply", str(file), "--yes")).endswith("3 changes written.\n")
    assert done(command("apply", str(file))) == "Nothing differs.\n"
    exported = tmp_path / "exported.yaml"
    exported.write_text(done(command("export")))
    assert done(command("apply", str(exported))) == "Nothing differs.\n"


def test_a_file_of_prices_has_nothing_else_in_it(priced: Services, command: Command, tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("tenants: []")
    answer = command("apply", str(file), "--yes")
    assert answer.exit_code == 1
    assert answer.stderr == "error: A section is unknown. (tenants: price_books, prices) [invalid_catalogue]\n"


def test_prices_in_force_are_shown_as_of_a_date(priced: Services, command: Command) -> None:
    write_file(priced, "prices:\n" + LATER.format("3", "2027-01-31T23:00:00Z"))
    for day, price in (("2027-01-31", "1.00"), ("2027-02-01", "3.00")):
        shown = json.loads(done(command("show", "list", "--at", day, "--json")))
        assert [one["price"] for one in shown if one["meter"] == "input_tokens"] == [price]
    assert "category:big" in done(command("show", "list"))
    assert command("show", "none").stderr.endswith("[unknown_book]\n")


def test_a_month_is_rated_for_people_and_for_programs(priced: Services, command: Command, record: Record) -> None:
    record("2026-10-05T08:00:00Z")
    record("2026-10-05T08:00:00Z", operation="ocr", pages=3, output_tokens=None)
    shown = done(command("rate", "dinum", "2026-10"))
    assert "Billed: 0.24 EUR, VAT 20.00 % 0.05, to pay 0.29 EUR" in shown
    assert "no_price" in shown
    found = json.loads(done(command("rate", "dinum", "2026-10", "--json")))
    assert (found["ledger_batch"], [line["amount"] for line in found["lines"]]) == (2, ["0.20", "0.04"])
    past = done(command("rate", "dinum", "2026-10", "--as-of", "1", "--catalog-version", "1"))
    assert "change 1 of the catalogue" in past
    assert "no_price_book" in past
    assert "Valued, not billed" not in past
    assert command("rate", "nobody", "2026-10").stderr.endswith("[unknown_tenant]\n")
    assert command("rate", "dinum", "2026").stderr.endswith("[invalid_month]\n")


def test_free_use_is_shown_as_valued(priced: Services, command: Command, record: Record) -> None:
    record("2026-10-05T08:00:00Z", tenant="sante")
    assert done(command("rate", "sante", "2026-10")).endswith("Valued, not billed: 0.14 EUR\n")
    assert rated(priced, "sante").totals[0].gross == "0.14"

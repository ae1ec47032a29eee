"""A month of the ledger, rated."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from metering.billing.answers import RatingShown, shown_rating
from metering.billing.prices import tariffs_as_of, tariffs_of
from metering.billing.rating import LATEST, AsOf, rate_tenant, rate_tenants, read_month
from metering.database import Actor, transaction
from metering.errors import JaugeError
from metering.ledger import sealing
from metering.ledger.sealed import open_month
from metering.ledger.sealing import seal_month
from metering.services import Services
from metering.tables import carbon_batch, carbon_entry
from tests.billing.conftest import LATER, NOON, Record, amounts, rated, write_file

TOKENS = {"input_tokens": 1_000, "output_tokens": None, "status": "error"}
"""Of a request that failed, only what is known to have been used counts."""


def test_usage_of_a_month_becomes_lines_totals_and_vat(priced: Services, record: Record) -> None:
    for hour in ("05T08", "05T09", "28T23"):
        record(f"2026-10-{hour}:30:00Z", input_tokens=1_500, output_tokens=1_000)
    rating = rated(priced)
    assert amounts(rating) == [
        ("input_tokens", 4_500, "1.00", "4.50"),
        ("output_tokens", 3_000, "2.00", "6.00"),
    ]
    (total,) = rating.totals
    assert (total.billing, total.net, total.vat[0].amount, total.gross) == ("billed", "10.50", "2.10", "12.60")
    assert (rating.unpriced, rating.ledger_batch, rating.carbon_batch) == ([], 3, None)


def test_a_line_says_whose_it_is_by_which_price_and_what_it_was_before_rounding(
    priced: Services, record: Record
) -> None:
    record("2026-10-05T08:00:00Z", project="archives", input_tokens=1_234, output_tokens=0)
    (line,) = rated(priced).lines
    assert (line.project, line.model, line.convention, line.settlement) == (
        "archives", "albert-large", "c-1", "billed",
    )  # fmt: skip
    assert line.price == "list/category:big/input_tokens/2026-01-01T00Z"
    assert (line.per, line.unrounded, line.amount, line.amount_cents) == (1_000, "1.234000000000", "1.23", 123)


def test_the_month_is_that_of_paris(priced: Services, record: Record) -> None:
    for started_at in ("2026-09-30T21:59:59Z", "2026-09-30T22:00:00Z", "2026-10-31T22:59:59Z", "2026-10-31T23:00:00Z"):
        record(started_at, **TOKENS)
    months = {month: rated(priced, month=month).lines[0].quantity for month in ("2026-09", "2026-10", "2026-11")}
    assert months == {"2026-09": 1_000, "2026-10": 2_000, "2026-11": 1_000}


def test_a_price_that_changes_within_the_month_holds_from_its_hour_on(priced: Services, record: Record) -> None:
    write_file(priced, "prices:\n" + LATER.format("3", "2026-10-12T09:00:00Z"))
    for started_at in ("2026-10-12T08:59:59Z", "2026-10-12T09:00:00Z", "2026-10-30T09:00:00Z"):
        record(started_at, **TOKENS)
    assert amounts(rated(priced)) == [
        ("input_tokens", 1_000, "1.00", "1.00"),
        ("input_tokens", 2_000, "3.00", "6.00"),
    ]


def test_a_convention_bills_from_its_first_day_and_before_it_use_is_valued(priced: Services, record: Record) -> None:
    write_file(priced, """
conventions:
  - id: c-2
    tenant: sante
    title: T
    funder: F
    signed_on: 2026-10-01
    effective_on: 2026-10-15
    starts_on: 2026-10-15
    ends_on: 2026-10-20
    settlement: billed
    overage: bill
    prices: [{selector: "model:albert-large", meter: input_tokens, price: "0.5", per: 1_000}]
""")  # fmt: skip
    for day in ("14T21:59", "14T22:00", "20T21:59", "20T22:00"):
        record(f"2026-10-{day}:00Z", tenant="sante", **TOKENS)
    rating = rated(priced, "sante")
    assert [(line.billing, line.convention, line.quantity, line.amount) for line in rating.lines] == [
        ("valued", None, 2_000, "2.00"),
        ("billed", "c-2", 2_000, "1.00"),
    ]
    assert [(one.billing, one.net, one.gross) for one in rating.totals] == [
        ("billed", "1.00", "1.20"),
        ("valued", "2.00", "2.00"),
    ]


def test_tiers_go_on_where_an_amendment_begins(priced: Services, record: Record) -> None:
    tiered = "pricing: graduated, per: 1_000, tiers: [{up_to: 1_500, price: '2'}, {price: '1'}]"
    write_file(priced, f"""
prices:
  - {{book: list, selector: "model:albert-large", meter: input_tokens, {tiered}, valid_from: 2026-02-01T00:00:00Z}}
conventions:
  - id: c-1
    version: 2
    tenant: dinum
    title: T
    funder: F
    amends: The title.
    signed_on: 2026-10-01
    effective_on: 2026-10-15
    starts_on: 2026-01-01
    ends_on: 2027-12-31
    settlement: billed
    overage: bill
    price_book: list
""")  # fmt: skip
    for day in ("05", "20"):
        record(f"2026-10-{day}T08:00:00Z", **TOKENS)
    assert amounts(rated(priced)) == [("input_tokens", 1_500, "2.00", "3.00"), ("input_tokens", 500, "1.00", "0.50")]


def test_free_access_is_valued_by_the_platforms_book(priced: Services, record: Record) -> None:
    record("2026-10-05T08:00:00Z", tenant="sante", **TOKENS)
    rating = rated(priced, "sante")
    assert [(line.settlement, line.billing, line.amount) for line in rating.lines] == [("free", "valued", "1.00")]
    assert rating.totals[0].vat == []


def test_what_has_no_amount_is_listed(priced: Services, record: Record) -> None:
    record("2026-10-05T08:00:00Z", model_served="mystery", input_tokens=5, output_tokens=7)
    record("2026-10-05T08:00:00Z", operation="ocr", pages=3, output_tokens=None)
    record("2026-10-05T08:00:00Z", input_tokens=None, output_tokens=None)
    found = {(gap.reason, gap.model, gap.quantity, gap.amount) for gap in rated(priced).unpriced}
    assert found == {
        ("unknown_model", "mystery", "input_tokens", 5),
        ("unknown_model", "mystery", "output_tokens", 7),
        ("no_price", "albert-large", "pages", 3),
        ("uncounted", "albert-large", "requests", 1),
    }


def test_another_name_of_a_model_is_priced_as_the_model(priced: Services, record: Record) -> None:
    record("2026-10-05T08:00:00Z", model_requested="vendor/Large", model_served=None, **TOKENS)
    assert amounts(rated(priced)) == [("input_tokens", 1_000, "1.00", "1.00")]


def test_a_correction_changes_the_month_that_it_corrects(priced: Services, record: Record) -> None:
    record("2026-10-05T08:00:00Z", id="wrong", input_tokens=1_000, output_tokens=0)
    priced.corrections.correct("test", "wrong", {"input_tokens": 400}, reason="r", author="a")
    assert amounts(rated(priced)) == [("input_tokens", 400, "1.00", "0.40")]
    assert amounts(rated(priced, as_of=AsOf(1))) == [("input_tokens", 1_000, "1.00", "1.00")]


# As of


def test_with_the_numbers_that_a_rating_names_it_is_made_again(priced: Services, record: Record) -> None:
    record("2026-10-05T08:00:00Z", input_tokens=1_000, output_tokens=500)
    first = rated(priced)
    record("2026-10-05T08:00:00Z", input_tokens=9_000, output_tokens=500)
    write_file(priced, "prices:\n" + LATER.format("7", "2026-10-01T00:00:00Z"))
    write_file(priced, "models:\n  - {id: albert-large, name: L, category: small, publisher: P, licence: MIT}\n"
                       "categories:\n  - {id: small, name: Small}")  # fmt: skip
    assert rated(priced) != first
    with transaction(priced.engine, snapshot=True) as connection:
        past = tariffs_as_of(connection, first.catalog_version)
        again = rate_tenant(connection, past, "dinum", read_month("2026-10"), AsOf(first.ledger_batch))
    assert shown_rating(again) == first


def test_entries_as_of_the_last_batch_give_what_the_rollup_gives(priced: Services, record: Record) -> None:
    write_file(priced, "prices:\n" + LATER.format("3", "2026-10-12T09:00:00Z"))
    for day, status in (("05", "ok"), ("12", "refused"), ("13", "aborted")):
        record(f"2026-10-{day}T09:30:00Z", status=status)
    assert rated(priced, as_of=AsOf(3)) == rated(priced)


def test_the_catalogue_read_from_its_record_is_the_one_in_memory(priced: Services) -> None:
    now = tariffs_of(priced.catalog.current())
    with transaction(priced.engine, snapshot=True) as connection:
        assert tariffs_as_of(connection, now.version) == now
        assert tariffs_as_of(connection, 1).platform_book is None


def test_a_change_to_come_is_none(priced: Services) -> None:
    for version in (-1, 0, 10**6):
        with pytest.raises(JaugeError) as refused, transaction(priced.engine) as connection:
            tariffs_as_of(connection, version)
        assert (refused.value.code, refused.value.field) == ("unknown_change", "catalog_version")


def test_a_batch_to_come_is_none(priced: Services) -> None:
    with pytest.raises(JaugeError) as refused:
        rated(priced, as_of=AsOf(1))
    assert (refused.value.code, refused.value.expected) == ("unknown_batch", "0 to 0")


@pytest.mark.parametrize("month", ["2026-13", "2026-1", "202610", "0001-01", "9999-12", "２026-10", ""])
def test_what_is_no_month_is_said(month: str) -> None:
    with pytest.raises(JaugeError) as refused:
        read_month(month)
    assert (refused.value.code, refused.value.field) == ("invalid_month", "month")


def test_many_administrations_are_rated_as_each_alone(priced: Services, record: Record) -> None:
    write_file(priced, "prices:\n" + LATER.format("3", "2026-10-12T09:00:00Z"))
    for tenant in ("dinum", "sante"):
        record("2026-10-13T09:30:00Z", tenant=tenant)
    tariffs, period = tariffs_of(priced.catalog.current()), read_month("2026-10")
    with transaction(priced.engine, snapshot=True) as connection:
        found = rate_tenants(connection, tariffs, ["sante", "dinum", "education"], period)
    assert [shown_rating(one) for one in found] == [rated(priced, one) for one in ("sante", "dinum", "education")]


# Carbon

CARBON = """
price_books:
  - {id: green, name: Green, currency: CHF, vat: exempt, vat_reason: VATEX-EU-132}
prices:
  - {book: green, selector: "*", meter: carbon_ugco2e, price: "100", per: 1000000000, valid_from: 2026-01-01T00:00:00Z}
  - {book: green, selector: "operation:chat", meter: total_tokens, price: "0", valid_from: 2026-01-01T00:00:00Z}
platform: {default_plan: experimentation, price_book: green}
"""


def post_carbon(services: Services, seq: int, hour, location_ng: int | None, embodied_ng: int | None = 0) -> None:
    batch = {"seq": seq, "recorded_at": NOON, "hour": hour, "method": "1", "ledger_seq": 1, "energy_seq": 0,
             "factor_number": 0, "row_count": 1, "sums": [], "rows_digest": b"", "hash": b""}  # fmt: skip
    entry = {"batch_seq": seq, "hour": hour, "part": "use", "tenant": "sante", "project": "assistant",
             "model": "albert-large", "operation": "chat", "tier": "A", "is_reversal": False, "factors": [],
             "requests": 1, "location_ng": location_ng, "embodied_ng": embodied_ng}  # fmt: skip
    with transaction(services.engine) as connection:
        connection.execute(carbon_batch.insert().values(batch))
        connection.execute(carbon_entry.insert().values(entry))


def test_carbon_is_priced_from_its_own_ledger(priced: Services, record: Record) -> None:
    write_file(priced, CARBON)
    for _ in range(2):
        record("2026-10-05T12:30:00Z", tenant="sante")
    post_carbon(priced, 1, NOON, 1_500_000_000_000, 500_000_000_000)
    rating = rated(priced, "sante")
    assert amounts(rating)[0] == ("carbon_ugco2e", 2_000_000_000, "100.00", "200.00")
    assert (rating.carbon_batch, rating.totals[0].currency, rating.unpriced) == (1, "CHF", [])
    assert rated(priced, "sante", actor=Actor("a manager", "sante")) == rating
    assert rated(priced, "sante", actor=Actor("a manager", "dinum")).lines == []
    post_carbon(priced, 2, NOON, 1_000_000_000)
    assert amounts(rated(priced, "sante"))[0][1] == 2_001_000_000
    assert amounts(rated(priced, "sante", as_of=AsOf(None, 1)))[0][1] == 2_000_000_000


def test_carbon_that_is_not_known_or_not_posted_yet_is_listed(priced: Services, record: Record) -> None:
    write_file(priced, CARBON)
    for hour in ("12", "12", "13", "14"):
        record(f"2026-10-05T{hour}:30:00Z", tenant="sante")
    post_carbon(priced, 1, NOON, None)
    post_carbon(priced, 2, NOON.replace(hour=14), 1)
    (gap,) = rated(priced, "sante").unpriced
    assert (gap.reason, gap.quantity, gap.amount) == ("unknown_carbon", "requests", 2)


# What is written stays


def test_what_is_written_of_prices_is_never_changed(priced: Services) -> None:
    for table in ("price_book", "price_version"):
        for statement in ("UPDATE {} SET created_at = now()", "DELETE FROM {}", "TRUNCATE {} CASCADE"):
            with pytest.raises(sa.exc.IntegrityError, match="is refused"), transaction(priced.engine) as connection:
                connection.execute(sa.text(statement.format(table)))


# Sealed months


@pytest.mark.parametrize("rows_max", [1, 4, 500_000])
def test_a_sealed_month_gives_the_same_lines(
    priced: Services, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_max: int
) -> None:
    """With a price that changes in the hour after the clock is set back, late usage, a correction, and carbon.

    In files of one part of the month each, in some of which one has two, and in one file.
    """
    monkeypatch.setattr(sealing, "FILE_ROWS_MAX", rows_max)
    write_file(priced, "prices:\n" + LATER.format("3", "2026-10-25T01:00:00Z"))
    write_file(priced, CARBON)
    moments = ("2026-09-30T22:00:00Z", "2026-10-25T00:59:59Z", "2026-10-25T01:00:00Z", "2026-10-31T22:59:59Z")
    for at in moments:
        for tenant in ("dinum", "sante"):
            record(at, tenant=tenant, id=f"{at}-{tenant}", status="error" if at == moments[1] else "ok")
    record("2026-10-31T23:00:00Z")
    post_carbon(priced, 1, NOON.replace(day=25, hour=1), 10**12)
    tariffs, period, tenants = tariffs_of(priced.catalog.current()), read_month("2026-10"), ["sante", "dinum"]
    seal = seal_month(priced.engine, period.month, period.start, period.end, tmp_path, last_batch=7)

    def both(as_of: AsOf) -> list[RatingShown]:
        with transaction(priced.engine, snapshot=True) as connection:
            sealed = rate_tenants(connection, tariffs, tenants, period, as_of, open_month(seal, tmp_path))
            assert sealed == rate_tenants(connection, tariffs, tenants, period, as_of)
        return [shown_rating(one) for one in sealed]

    before = both(LATEST)
    record("2026-10-25T01:30:00Z", tenant="sante", input_tokens=10_000)
    priced.corrections.correct("test", f"{moments[2]}-dinum", {"input_tokens": 400}, reason="r", author="a")
    assert both(LATEST) != before
    assert both(AsOf(9)) == before  # two batches of October came after the seal, and one of November
    both(AsOf(3))
    with transaction(priced.engine, snapshot=True) as connection:
        assert rate_tenants(connection, tariffs, [], period, LATEST, open_month(seal, tmp_path)) == []

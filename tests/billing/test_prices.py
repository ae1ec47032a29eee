"""Price books and prices: what a file may say, what is refused, and what is never changed."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
import yaml
from alembic import command
from alembic.config import Config

from metering import migrate
from metering.billing.costs import cost_rates
from metering.billing.prices import tariffs_of
from metering.catalog.apply import compare, export, read_file
from metering.catalog.documents import Convention, Price, PriceBook, PriceVersion
from metering.catalog.kinds import KINDS, load
from metering.database import engine_for, transaction
from metering.errors import JaugeError
from metering.services import Services
from tests.billing.conftest import CATALOGUE, LATER, NOON, write_file
from tests.conftest import copied_database

PRICE = {"book": "list", "meter": "input_tokens", "price": "1", "valid_from": "2026-01-01T00:00:00Z"}
TIERED = {"pricing": "graduated", "price": None, "tiers": [{"up_to": 5, "price": "2"}, {"price": "1"}]}
BOOK = {"id": "b", "name": "B", "currency": "EUR", "vat": "rate", "vat_percent": "5.5"}


def fault_of(kind: type[msgspec.Struct], document: dict[str, Any]) -> str | None:
    """The field that is wrong with a document."""
    try:
        msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        return message.partition(":")[0] if ": expected" in message else message.rpartition("$.")[2].strip("`")
    return None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, None),
        ({"price": "0.000000001"}, None),
        ({"price": "0"}, None),
        ({"price": "0.0000000001"}, "price"),
        ({"price": "-1"}, "price"),
        ({"price": "NaN"}, "price"),
        ({"price": "1000000001"}, "price"),
        ({"price": None}, "price"),
        ({"per": 0}, "per"),
        ({"per": 730_000_000_000}, None),
        ({"free": -1}, "free"),
        ({"meter": "cost_neur"}, "meter"),
        ({"selector": "model:*"}, "selector"),
        ({"selector": "user:me"}, "selector"),
        ({"minimum": "0.001"}, "minimum"),
        ({"minimum": "5", "cap": "5"}, None),
        ({"minimum": "5.01", "cap": "5"}, "cap"),
        ({"valid_from": "2026-01-01T00:30:00Z"}, "valid_from"),
        ({"valid_from": "2026-01-01T00:00:00"}, "valid_from"),
        ({"valid_from": "2026-01-01T05:30:00+05:30"}, None),
        ({"valid_to": "2026-02-01T00:00:01Z"}, "valid_to"),
        ({"valid_to": "2026-01-01T00:00:00Z"}, "valid_to"),
        ({"pricing": "package", "per": 1_000}, None),
        (TIERED, None),
        (TIERED | {"pricing": "volume"}, None),
        (TIERED | {"price": "1"}, "price"),
        (TIERED | {"tiers": []}, "tiers"),
        ({"tiers": [{"price": "1"}]}, "tiers"),
        (TIERED | {"tiers": [{"up_to": 5, "price": "2"}]}, "tiers"),
        (TIERED | {"tiers": [{"price": "2"}, {"price": "1"}]}, "tiers"),
        (TIERED | {"tiers": [{"up_to": n, "price": "2"} for n in (5, 5)] + [{"price": "1"}]}, "tiers"),
        (TIERED | {"tiers": [{"up_to": n, "price": "2"} for n in (6, 5)] + [{"price": "1"}]}, "tiers"),
        (TIERED | {"tiers": [{"price": "0.0000000001"}]}, "price"),
        ({"rebate": 1}, None),
    ],
)
def test_what_a_price_may_say(changes: dict[str, Any], field: str | None) -> None:
    if "rebate" in changes:
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.convert(PRICE | changes, PriceVersion)
        return
    assert fault_of(PriceVersion, PRICE | changes) == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, None),
        ({"currency": "USD"}, "currency"),
        ({"vat_percent": None}, "vat_percent"),
        ({"vat_percent": "0"}, "vat_percent"),
        ({"vat_percent": "5.555"}, "vat_percent"),
        ({"vat_percent": "100.01"}, "vat_percent"),
        ({"vat_reason": "VATEX-EU-O"}, "vat_reason"),
        ({"vat": "out_of_scope"}, "vat_percent"),
        ({"vat": "out_of_scope", "vat_percent": None}, "vat_reason"),
        ({"vat": "out_of_scope", "vat_percent": None, "vat_reason": "because"}, "vat_reason"),
        ({"vat": "exempt", "vat_percent": None, "vat_reason": "VATEX-EU-132"}, None),
    ],
)
def test_what_a_book_may_say(changes: dict[str, Any], field: str | None) -> None:
    assert fault_of(PriceBook, BOOK | changes) == field


def test_a_convention_has_one_price_for_each_selector_and_meter() -> None:
    convention = yaml.safe_load(CATALOGUE)["conventions"][0]
    one, other = {"meter": "input_tokens", "price": "1"}, {"meter": "total_tokens", "price": "1"}
    for listed, is_fine in (([one], True), ([one, one], False), ([one, other], False)):
        version = {**convention, "prices": listed}
        if is_fine:
            assert msgspec.convert(version, Convention, strict=False).prices == [msgspec.convert(one, Price)]
        else:
            with pytest.raises(msgspec.ValidationError, match="prices: expected one for each"):
                msgspec.convert(version, Convention, strict=False)


# Files


def test_a_file_of_prices_comes_back_as_it_went_in(priced: Services) -> None:
    write_file(priced, yaml.safe_dump({"prices": [{**PRICE, **TIERED, "valid_from": NOON.replace(year=2027),
               "selector": "*", "free": 7, "minimum": "1.50", "cap": "9"}]}))  # fmt: skip
    with transaction(priced.engine) as connection:
        written = export(connection, ("price_books", "prices"))
        assert list(yaml.safe_load(written)) == ["price_books", "prices"]
        assert compare(connection, read_file(written.encode())) == []
        stored = connection.execute(sa.text("SELECT price_nano, minimum_cents FROM price_version WHERE free = 7")).one()
        assert tuple(stored) == (None, 150)


def test_the_same_instant_in_another_zone_is_the_same_version(priced: Services) -> None:
    same = "prices:\n" + LATER.format("1.0", "2026-01-01T02:00:00+02:00")
    with transaction(priced.engine) as connection:
        assert compare(connection, read_file(same.encode())) == []


def refusal(services: Services, text: str) -> JaugeError:
    """Why a file is refused; nothing of it is written."""
    with transaction(services.engine) as connection:
        before = {name: load(connection, kind) for name, kind in KINDS.items()}
    with pytest.raises(JaugeError) as refused:
        write_file(services, text)
    with transaction(services.engine) as connection:
        assert {name: load(connection, kind) for name, kind in KINDS.items()} == before
    return refused.value


def a_version(**changes: Any) -> str:
    return yaml.safe_dump({"prices": [{**PRICE, "valid_from": NOON, "selector": "category:big", **changes}]})


def test_a_version_that_is_written_is_never_changed(priced: Services) -> None:
    refused = refusal(priced, "prices:\n" + LATER.format("2", "2026-01-01T00:00:00Z"))
    assert (refused.code, refused.field) == ("version_is_final", "valid_from")
    refused = refusal(priced, "price_books: [{id: list, name: List, currency: CHF, vat: rate, vat_percent: '20'}]")
    assert (refused.code, refused.field) == ("version_is_final", "id")


def test_what_refers_to_nothing_or_overlaps_is_refused(priced: Services) -> None:
    for text, code, field in (
        (a_version(book="none"), "unknown_reference", "book"),
        (a_version(selector="model:none"), "unknown_reference", "selector"),
        (a_version(selector="category:none"), "unknown_reference", "selector"),
        (a_version(selector="operation:none"), "unknown_reference", "selector"),
        (a_version(meter="total_tokens"), "overlapping_prices", "valid_from"),
        ("platform: {default_plan: experimentation, price_book: none}", "unknown_reference", "price"),
        (a_version(per=0), "invalid_document", "prices[0]"),
        ("models: []\nprices: 1", "invalid_document", "prices[0]"),
    ):
        refused = refusal(priced, text)
        assert (refused.code, (refused.field or "").startswith(field)) == (code, True), text


def test_a_version_that_begins_in_one_with_an_end_is_refused(priced: Services) -> None:
    ending = a_version(selector="*", valid_to=NOON.replace(day=8))
    write_file(priced, ending)
    refused = refusal(priced, a_version(selector="*", valid_from=NOON.replace(day=7)))
    assert (refused.code, refused.field) == ("overlapping_prices", "valid_from")
    write_file(priced, a_version(selector="*", valid_from=NOON.replace(day=8)))


def test_the_selectors_of_a_conventions_prices_are_known(priced: Services) -> None:
    convention = yaml.safe_load(CATALOGUE)["conventions"][0]
    convention |= {"id": "c-9", "prices": [{"selector": "model:none", "meter": "pages", "price": "1"}]}
    refused = refusal(priced, yaml.safe_dump({"conventions": [convention]}))
    assert (refused.code, refused.field) == ("unknown_reference", "prices")


# What one request costs


def test_one_request_costs_about_so_much(priced: Services) -> None:
    tiers = {**TIERED, "meter": "cached_input_tokens", "per": 1_000, "free": 10}
    write_file(priced, a_version(**tiers))
    rates = cost_rates(tariffs_of(priced.catalog.current()), "dinum", "vendor/Large", "chat", NOON)
    assert rates is not None
    assert (rates.currency, {**rates.numerators}) == (
        "EUR",
        {"input_tokens": 10**6, "cached_input_tokens": 2 * 10**6, "output_tokens": 2 * 10**6},
    )
    assert rates.per == 1  # the price of 1,000 tokens, divided by what it has in common with 1,000
    used = {"input_tokens": 100, "cached_input_tokens": 40, "output_tokens": 10}
    assert rates.cost_nano(used) == (60 + 80 + 20) * 10**6
    assert rates.cost_nano({"input_tokens": 1, "output_tokens": 0}) == 10**6
    assert rates.cost_nano({"input_tokens": 100}) is None


def test_costs_are_rounded_up_once(priced: Services) -> None:
    write_file(priced, a_version(selector="model:albert-large", meter="output_tokens", price="0.000000001", per=3))
    rates = cost_rates(tariffs_of(priced.catalog.current()), "dinum", "albert-large", "chat", NOON)
    assert rates is not None
    assert [rates.cost_nano({"input_tokens": 0, "output_tokens": used}) for used in (0, 1, 3, 4)] == [0, 1, 1, 2]


def test_the_cost_of_what_has_no_price_is_unknown(priced: Services) -> None:
    tariffs = tariffs_of(priced.catalog.current())
    assert cost_rates(tariffs, "dinum", "mystery", "chat", NOON) is None
    assert cost_rates(tariffs, "dinum", "albert-large", "ocr", NOON) is None
    assert cost_rates(tariffs, "dinum", "albert-large", "chat", NOON.replace(year=2025)) is None


# The migration


def test_prices_of_conventions_keep_their_value_under_the_new_name(servers, template) -> None:
    with copied_database(servers, "template0", "before_prices") as url:
        engine = engine_for(url)
        config = Config()
        config.set_main_option("script_location", str(Path(migrate.SCRIPTS)))
        with transaction(engine) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "0004")
        with transaction(engine) as connection:
            connection.execute(sa.text("INSERT INTO tenant (id, name) VALUES ('t', 't')"))
            connection.execute(sa.text(
                "INSERT INTO convention (id, version, tenant, title, funder, signed_on, effective_on, starts_on, "
                "ends_on, settlement, overage, tier, outage, prices) VALUES ('c', 1, 't', 't', 'f', '2026-01-01', "
                "'2026-01-01', '2026-01-01', '2026-12-31', 'billed', 'bill', 'soft', 'open', "
                """'[{"selector": "*", "meter": "pages", "price_eur": "0.80", "per": 1000},"""
                """{"selector": "*", "meter": "searches", "price_eur": "3", "per": 1}]')"""
            ))  # fmt: skip
        migrate.upgrade(engine)
        with transaction(engine) as connection:
            (version,) = load(connection, KINDS["conventions"]).values()
        engine.dispose()
    assert isinstance(version, Convention)
    assert version.prices == [
        Price(meter="pages", price=Decimal("0.80"), per=1_000),
        Price(meter="searches", price=Decimal(3)),
    ]

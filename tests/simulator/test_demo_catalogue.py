"""The demo's catalogue names what the simulated gateway sends, and is written once."""

from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import chain

import msgspec
import pytest

from metering.catalog.apply import read_file
from metering.catalog.conventions import terms_of_use
from metering.catalog.models import look_up, notices_for, resolve
from metering.demo import apply_catalogue
from metering.events.envelope import UsageEvent
from metering.quotas.places import counted_request, places_of
from metering.rules.limits import Request
from metering.services import Services
from metering.simulator import ADMINISTRATIONS, APPLICATIONS, MODELS, history
from metering.simulator.population import RETIRING_MODEL

NOW = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
FILE = (files("metering.simulator") / "catalogue.yaml").read_bytes()
SIMULATED = {name: model for name, model in MODELS.items() if model.category is not None}


def documents(kind: str) -> list:
    return [document for one, document in read_file(FILE).documents if one.name == kind]


def test_it_names_the_administrations_and_projects_of_the_population() -> None:
    assert {one.id: one.name for one in documents("tenants")} == {one.id: one.name for one in ADMINISTRATIONS.values()}
    assert all(one.siret for one in documents("tenants"))
    assert {(one.tenant, one.id) for one in documents("projects")} == {
        (one.tenant, one.project) for one in APPLICATIONS
    }


def test_it_names_the_models_categories_and_replicas_of_the_population() -> None:
    assert {one.id: one.category for one in documents("models")} == {
        name: model.category for name, model in SIMULATED.items()
    }
    assert {one.id: one.model for one in documents("deployments")} == {
        deployment: name for name, model in SIMULATED.items() for deployment in model.deployments
    }
    offered = {one.id: set(one.operations) for one in documents("models")}
    for use in chain.from_iterable(application.uses for application in APPLICATIONS):
        assert use.model.name not in offered or use.operation in offered[use.model.name]


def test_a_second_start_changes_nothing_not_even_days_later(services: Services) -> None:
    assert apply_catalogue(services.engine, NOW)
    assert apply_catalogue(services.engine, NOW + timedelta(days=3)) == []


def test_two_administrations_have_a_convention_and_three_the_free_plan(services: Services) -> None:
    apply_catalogue(services.engine, NOW)
    catalog = services.catalog.current()
    terms = {tenant: terms_of_use(catalog, tenant, NOW) for tenant in ADMINISTRATIONS}
    settled = {tenant: one.convention.settlement for tenant, one in terms.items() if one.convention}
    assert settled == {"interieur": "billed", "sante": "prepaid"}
    assert {one.plan.id for one in terms.values()} == {"experimentation"}
    assert {tenant for tenant, one in terms.items() if one.tier == "free"} == {"dinum", "education", "finances"}


def test_a_model_is_retiring_and_a_maintenance_is_ahead(services: Services) -> None:
    apply_catalogue(services.engine, NOW)
    catalog = services.catalog.current()
    assert [name for name in catalog.models if look_up(catalog, name, NOW).status(NOW) != "available"] == [
        RETIRING_MODEL
    ]
    assert [one.kind for one in notices_for(catalog, "dinum", NOW)] == ["maintenance"]


def test_every_simulated_answer_is_what_the_catalogue_resolves_to(services: Services) -> None:
    apply_catalogue(services.engine, NOW)
    catalog = services.catalog.current()
    decoder = msgspec.json.Decoder(UsageEvent)
    served = {
        (event.data.tenant, event.data.model_requested, event.data.model_served)
        for event in map(decoder.decode, chain.from_iterable(history(NOW, days=7, events=7_000)))
        if event.data.category is not None and event.data.model_served is not None
    }
    assert any(requested in catalog.categories for _tenant, requested, _model in served)
    for tenant, requested, model in served:
        assert resolve(catalog, requested, tenant=tenant, now=NOW).model.id == model


def test_a_little_of_the_chat_is_with_the_retiring_model() -> None:
    decoder = msgspec.json.Decoder(UsageEvent)
    chats = [
        event.data.model_served
        for event in map(decoder.decode, chain.from_iterable(history(NOW, days=7, events=7_000)))
        if event.data.operation == "chat"
    ]
    assert chats.count(RETIRING_MODEL) / len(chats) == pytest.approx(0.0125, abs=0.0075)


def test_one_administration_has_monthly_limits_in_euros_and_grams_that_its_use_counts_for(services: Services) -> None:
    apply_catalogue(services.engine, NOW)
    catalog = services.catalog.current()
    request = counted_request(catalog, Request("interieur", model="albert-large", operation="chat"), NOW)
    monthly = {one.limit.meter: one for one in places_of(catalog, request, NOW) if one.limit.window == "month"}
    assert {"cost_neur", "carbon_ugco2e"} <= monthly.keys()
    assert all(monthly[meter].per_output > 0 for meter in ("cost_neur", "carbon_ugco2e"))

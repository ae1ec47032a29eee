"""The catalogue over HTTP: documents, the file, the record of changes."""

import pytest
import sqlalchemy as sa

from metering.catalog.snapshot import CatalogReader
from metering.errors import Unavailable
from tests.people import add_agent

LIMIT = {"scope": "user", "selector": "*", "meter": "requests", "window": "minute", "value": 60, "mode": "hard"}
PLAN = {"id": "large", "name": "Large", "tier": "soft", "outage": "open", "limits": [LIMIT]}
CATEGORY = {"id": "openweight-large", "name": "Large open-weights models", "model": None}
MODEL = {
    "id": "mistralai/Mistral-Small-3.2-24B", "name": "Mistral Small", "category": "openweight-large",
    "publisher": "Mistral AI", "licence": "Apache-2.0", "parameters": 24_000_000_000, "operations": ["chat"],
}  # fmt: skip
SIGNED = {
    "id": "2026-014", "version": 1, "tenant": "dinum", "title": "Usage", "funder": "DINUM",
    "signed_on": "2026-01-02", "effective_on": "2026-01-10", "starts_on": "2026-01-10", "ends_on": "2026-12-31",
    "settlement": "prepaid", "overage": "block", "envelope_eur": "25000.50",
}  # fmt: skip
DEPLOYMENT = {"id": "d", "model": "words", "starts_at": "2026-01-01T00:00:00Z"}


def test_a_document_is_written_listed_and_taken_away(operator) -> None:
    assert operator.put("/v1/admin/plans", json=PLAN).json() == PLAN
    assert operator.put("/v1/admin/plans", json=PLAN).json() == PLAN
    ids = [plan["id"] for plan in operator.get("/v1/admin/plans").json()["items"]]
    assert ids == ["experimentation", "large"]
    assert operator.delete("/v1/admin/plans", params={"key": "large"}).status_code == 204
    assert operator.delete("/v1/admin/plans", params={"key": "large"}).json()["code"] == "unknown_document"
    changes = operator.get("/v1/admin/changes", params={"entity": "plan"}).json()["items"]
    assert [(one["action"], one["key"], one["author"]) for one in changes[:2]] == [
        ("delete", "large", "operator:operator"),
        ("insert", "large", "operator:operator"),
    ]
    assert changes[1]["after"]["tier"] == "soft"


@pytest.mark.parametrize(
    ("kind", "document", "code", "field"),
    [
        ("plans", PLAN | {"tier": "words"}, "invalid_request", "tier"),
        ("plans", PLAN | {"words": 1}, "invalid_request", None),
        ("plans", PLAN | {"limits": [LIMIT, LIMIT]}, "invalid_request", "limits"),
        ("plans", PLAN | {"limits": [LIMIT | {"selector": "words:x"}]}, "invalid_request", "limits[0].selector"),
        ("plans", PLAN | {"limits": [LIMIT | {"selector": "model:words"}]}, "unknown_reference", "limits"),
        ("tenants", {"id": "dinum", "name": "x", "siret": "73282932000075"}, "invalid_request", "siret"),
        ("tenants", {"id": "dinum", "name": "x", "plan": "words"}, "unknown_reference", "plan"),
        ("projects", {"tenant": "words", "id": "p", "name": "P"}, "unknown_reference", "tenant"),
        ("models", MODEL, "unknown_reference", "category"),
        ("categories", CATEGORY | {"model": "words"}, "unknown_reference", "model"),
        ("deployments", DEPLOYMENT, "unknown_reference", "model"),
        ("deployments", DEPLOYMENT | {"starts_at": "2026-01-01"}, "invalid_request", "starts_at"),
    ],
)  # fmt: skip
def test_a_wrong_document_is_refused_by_its_field_and_nothing_is_written(operator, kind, document, code, field) -> None:
    before = operator.get("/v1/admin/catalog").text
    answer = operator.put(f"/v1/admin/{kind}", json=document)
    assert (answer.json()["code"], answer.json().get("field")) == (code, field), answer.text
    assert answer.status_code in {400, 422}
    assert operator.get("/v1/admin/catalog").text == before


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+05:00"])
def test_an_instant_at_the_end_of_the_calendar_is_refused_and_everybody_reads_on(operator, services, end: str) -> None:
    """Such a one, in the database, is more than anybody who reads the catalogue can hold."""
    texts = dict.fromkeys(("title_fr", "title_en", "text_fr", "text_en"), "words")
    notice = {"id": "n", "kind": "incident", **texts, "starts_at": "2026-01-01T00:00:00Z", "ends_at": end}
    override = {"limit": LIMIT, "motive": "m", "starts_at": "2999-01-01T00:00:00Z", "ends_at": end}
    for method, path, body in [
        ("PUT", "/v1/admin/notices", notice),
        ("PUT", "/v1/admin/deployments", DEPLOYMENT | {"ends_at": end}),
        ("POST", "/v1/admin/tenants/dinum/overrides", override),
    ]:
        answer = operator.request(method, path, json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, "ends_at"), answer.text
    assert CatalogReader(services.engine).current().version > 0
    convention = SIGNED | {"ends_on": "9999-12-31"}
    assert operator.put("/v1/admin/conventions", json=convention).json()["field"] == "ends_on"


@pytest.mark.parametrize("name", ["two\nlines", "bell\a", "\x1b[31mred", " spaced"])
def test_a_line_is_one_line_that_can_be_shown(operator, name: str) -> None:
    answer = operator.put("/v1/admin/categories", json=CATEGORY | {"name": name})
    assert (answer.status_code, answer.json()["field"]) == (400, "name")


def test_an_id_in_a_list_has_no_end_of_line(operator) -> None:
    answer = operator.put("/v1/admin/experiments", json={"id": "e", "name": "E", "early_access": ["dinum\n"]})
    assert (answer.status_code, answer.json()["field"]) == (400, "early_access")


def test_what_is_written_is_answered_even_if_it_cannot_be_read_back_now(operator, services, monkeypatch) -> None:
    def fail() -> None:
        raise Unavailable("database_unavailable", "The ledger's database is away.")

    assert operator.get("/v1/admin/plans").is_success  # from here on its token is known
    monkeypatch.setattr(services.catalog, "refresh", fail)
    assert operator.put("/v1/admin/plans", json=PLAN).json() == PLAN
    monkeypatch.undo()
    assert "large" in services.catalog.refresh().plans


def test_a_version_of_a_convention_is_told_once(operator, services) -> None:
    for _ in range(2):
        assert operator.put("/v1/admin/conventions", json=SIGNED).status_code == 200
    with services.engine.connect() as connection:
        told = connection.execute(sa.text("SELECT subject, tenant, payload ->> 'version' FROM outbox")).all()
    assert told == [("convention.published", "dinum", "1")]


def test_a_file_that_was_exported_changes_nothing(operator) -> None:
    operator.put("/v1/admin/categories", json=CATEGORY)
    operator.put("/v1/admin/models", json=MODEL)
    operator.put("/v1/admin/categories", json=CATEGORY | {"model": MODEL["id"]})
    exported = operator.get("/v1/admin/catalog")
    assert exported.headers["content-type"].startswith("application/yaml")
    answer = operator.post("/v1/admin/catalog", content=exported.content)
    assert answer.json() == {"applied": True, "changes": []}


def test_a_file_is_compared_then_applied_whole(operator) -> None:
    file = "plans:\n- {id: small, name: Small}\ntenants:\n- {id: dinum, name: DINUM, plan: small}\n"
    compared = operator.post("/v1/admin/catalog", params={"dry_run": True}, content=file).json()
    assert [(one["kind"], one["key"], one["is_new"]) for one in compared["changes"]] == [
        ("plans", ["small"], True),
        ("tenants", ["dinum"], False),
    ]
    assert compared["changes"][1]["fields"] == {"name": ["dinum", "DINUM"], "plan": [None, "small"]}
    assert not compared["applied"]
    assert "small" not in operator.get("/v1/admin/catalog").text
    assert operator.post("/v1/admin/catalog", content=file).json()["applied"]
    bad = "plans:\n- {id: tiny, name: Tiny}\ntenants:\n- {id: dinum, name: DINUM, plan: words}\n"
    assert operator.post("/v1/admin/catalog", content=bad).json()["code"] == "unknown_reference"
    assert "tiny" not in operator.get("/v1/admin/catalog").text


@pytest.mark.parametrize(
    "file", ["words: [", "- words", "words: []", "plans:\n- {words: 1}", "\0", "plans: words", "plans: 2026-13-45"]
)
def test_a_file_that_is_no_catalogue_is_refused(operator, file) -> None:
    answer = operator.post("/v1/admin/catalog", content=file)
    assert answer.status_code in {400, 422}, answer.text
    assert answer.json()["code"] in {"malformed_yaml", "invalid_catalogue", "invalid_document"}


def test_a_version_of_a_convention_is_final_and_amendments_come_in_order(operator) -> None:
    signed = SIGNED
    written = operator.put("/v1/admin/conventions", json=signed)
    assert written.json()["envelope_eur"] == "25000.50", written.text
    assert operator.put("/v1/admin/conventions", json=signed).status_code == 200
    changed = signed | {"envelope_eur": "1"}
    assert operator.put("/v1/admin/conventions", json=changed).json()["code"] == "version_is_final"
    skipped = changed | {"version": 3, "amends": "More"}
    assert operator.put("/v1/admin/conventions", json=skipped).json()["field"] == "version"
    assert operator.put("/v1/admin/conventions", json=changed | {"version": 2, "amends": "More"}).status_code == 200
    other = changed | {"version": 3, "amends": "Others", "tenant": "sante"}
    assert operator.put("/v1/admin/conventions", json=other).json()["field"] == "tenant"


def test_documents_come_by_pages(operator) -> None:
    seen, after = [], ""
    while after is not None:
        page = operator.get("/v1/admin/tenants", params={"limit": 2, "after": after}).json()
        seen += [one["id"] for one in page["items"]]
        after = page["next_after"]
    assert seen == ["dinum", "education", "finances", "interieur", "sante"]


def test_a_manager_sees_the_changes_of_their_administration_only(api, services) -> None:
    _account, token = add_agent(services, "dinum", "manager")
    add_agent(services, "sante", "manager")
    with api.client(token) as manager:
        own = manager.get("/v1/tenants/dinum/changes").json()["items"]
        assert {one["tenant"] for one in own} == {"dinum"}
        assert {one["entity"] for one in own} == {"account", "person", "tenant", "token"}
        assert "example.test" not in repr(own)
        assert manager.get("/v1/tenants/sante/changes").json()["code"] == "unknown_tenant"
        assert manager.get("/v1/tenants/words/changes").json()["code"] == "unknown_tenant"
        assert manager.get("/v1/admin/changes").status_code == 403


def test_what_is_written_is_known_to_the_next_request(operator, make_event) -> None:
    token = operator.post("/v1/admin/tokens", json={"name": "gateway", "role": "gateway"}).json()["token"]
    gateway = {"Authorization": f"Bearer {token}"}
    assert operator.post("/v1/events", json=make_event(), headers=gateway).status_code == 200
    assert operator.delete("/v1/admin/tokens/gateway").status_code == 204
    assert operator.post("/v1/events", json=make_event(), headers=gateway).status_code == 401
    assert token not in operator.get("/v1/admin/tokens").text + operator.get("/v1/admin/changes").text


def test_a_webhook_leads_to_a_public_address_and_its_secret_is_shown_once(operator) -> None:
    def add(**changes: object):
        return operator.post("/v1/admin/webhooks", json={"url": "https://198.51.101.7/hook", "events": []} | changes)

    assert add(url="https://127.0.0.1/").json()["code"] == "private_address"
    assert add(events=["words"]).json()["code"] == "unknown_event_type"
    added = add().json()
    assert added["secret"].startswith("whsec_")
    listed = operator.get("/v1/admin/webhooks")
    assert [one["id"] for one in listed.json()["items"]] == [added["id"]]
    turned = operator.post(f"/v1/admin/webhooks/{added['id']}/rotation").json()
    assert turned["secret"] != added["secret"]
    assert operator.delete(f"/v1/admin/webhooks/{added['id']}").status_code == 204
    assert operator.get("/v1/admin/webhooks").json()["items"][0]["disabled_at"]
    assert added["secret"] not in listed.text + operator.get("/v1/admin/changes").text

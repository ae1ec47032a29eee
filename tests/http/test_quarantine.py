"""The quarantine over HTTP: listed by pages, mended and replayed."""

from metering.catalog.tenants import add_tenant


def test_refused_events_are_listed_by_pages_without_content(operator, make_event) -> None:
    operator.post("/v1/events", json=[make_event(prompt=f"words {number}") for number in range(5)])
    first = operator.get("/v1/quarantine", params={"limit": 3}).json()
    second = operator.get("/v1/quarantine", params={"limit": 3, "after": first["next_after"]}).json()
    items = first["items"] + second["items"]
    assert (len(first["items"]), len(items), second["next_after"]) == (3, 5, None)
    assert {(item["code"], item["field"], item["channel"]) for item in items} == {
        ("content_field", "data.prompt", "http")
    }
    assert items[0]["event"]["data"]["input_tokens"] == 100
    assert "words" not in repr(items)


def test_events_enter_the_ledger_once_their_tenant_is_known_or_set(operator, services, make_event) -> None:
    for tenant in ("atlantis", "lemuria"):
        operator.post("/v1/events", json=make_event(tenant=tenant))
    still = operator.post("/v1/quarantine/replay", json={})
    assert (still.status_code, still.json()["rejected"]) == (200, 2)
    add_tenant(services.engine, "atlantis")
    assert operator.post("/v1/quarantine/replay", json={"numbers": [1]}).json()["events"] == [
        {"index": 1, "status": "accepted"}
    ]
    changed = operator.post("/v1/quarantine/replay", json={"changes": {"data.tenant": "dinum", "data.images": "2"}})
    assert changed.json()["accepted"] == 1
    assert operator.get("/v1/quarantine").json() == {"items": [], "next_after": None}
    assert len(operator.get("/v1/quarantine", params={"replayed": True}).json()["items"]) == 2
    usage = operator.get("/v1/usage", params={"start": "2026-10-01", "end": "2026-11-01", "group_by": "tenant"}).json()
    assert [(item["tenant"], item["images"]) for item in usage["items"]] == [("atlantis", None), ("dinum", 2)]

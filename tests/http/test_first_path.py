def test_events_over_http_come_out_as_usage(api, make_event):
    with api.client() as client:
        events = [make_event() for _ in range(3)]
        answer = client.post("/v1/events", json=events)
        assert answer.status_code == 200, answer.text
        assert answer.json()["accepted"] == 3
        again = client.post("/v1/events", json=events)
        assert (again.status_code, again.json()["duplicate"]) == (200, 3)
        bad = client.post("/v1/events", json=[make_event(), make_event(prompt="secret words"), {"x": 1}])
        assert bad.status_code == 207, bad.text
        print(bad.text)
    with api.client(api.operator_token) as client:
        usage = client.get("/v1/usage", params={"start": "2026-10-01", "end": "2026-11-01", "group_by": "tenant,model"})
        assert usage.status_code == 200, usage.text
        print(usage.text)
        print(client.get("/v1/quarantine").text)
        assert client.get("/readyz").json() == {"status": "ready"}
        docs = client.get("/docs")
        assert docs.status_code == 200, docs.text[:300]
        print(client.get("/docs/openapi.json").text[:3000])

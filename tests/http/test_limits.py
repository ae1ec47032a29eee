"""Limits, conventions, requests for a raise and overrides over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from metering.catalog.limits import limits_of
from tests.applications import application
from tests.conftest import ndjson
from tests.http.conftest import client_with
from tests.people import add_agent

PARIS = ZoneInfo("Europe/Paris")
MODEL = {"id": "m", "name": "M", "category": "text", "publisher": "P", "licence": "Apache-2.0"}
ASKED = {"scope": "user", "selector": "model:*", "meter": "requests", "window": "day", "value": 5_000}
BODY = {"limit": ASKED, "motive": "Many documents to read."}
CONVENTION = {
    "id": "2026-7", "tenant": "dinum", "title": "Convention", "funder": "DINUM", "signed_on": "2020-01-01",
    "effective_on": "2020-01-01", "starts_on": "2020-01-01", "ends_on": "2999-12-31", "settlement": "billed",
    "overage": "bill", "outage": "closed",
    "limits": [{"scope": "tenant", "meter": "total_tokens", "window": "term", "value": 10**9, "mode": "soft"}],
}  # fmt: skip


@pytest.fixture
def as_agent(services, operator):
    """Ask on behalf of an agent: `as_agent("GET", path, token)`."""

    def ask(method: str, path: str, token: str, body: Any = None) -> Any:
        return operator.request(method, path, headers={"Authorization": f"Bearer {token}"}, json=body)

    return ask


def limits(answer: Any) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return {(one["scope"], one["selector"], one["meter"], one["window"]): one for one in answer.json()["items"]}


def test_every_limit_in_force_is_shown_with_its_window(services, operator) -> None:
    shown = limits(operator.get("/v1/tenants/dinum/limits"))
    assert len(shown) == 5
    by_month, by_minute = shown["tenant", "*", "total_tokens", "month"], shown["user", "model:*", "requests", "minute"]
    assert (by_month["value"], by_month["unit"], by_month["mode"], by_month["source"]) == (
        500_000_000,
        "token",
        "hard",
        "plan",
    )
    start, end = (datetime.fromisoformat(by_month[name]).astimezone(PARIS) for name in ("window_start", "window_end"))
    assert start <= datetime.now(UTC) < end
    assert [(one.day, one.hour) for one in (start, end)] == [(1, 0), (1, 0)]
    assert (by_minute["window_start"], by_minute["window_end"], by_minute["ends_at"]) == (None, None, None)


def test_a_convention_brings_its_limits_and_its_term(services, operator, as_agent) -> None:
    _manager, token = add_agent(services, "dinum", "manager")
    assert operator.put("/v1/admin/conventions", json=CONVENTION).status_code == 200
    answer = as_agent("GET", "/v1/tenants/dinum/limits", token)
    assert {name: answer.json()[name] for name in ("plan", "convention", "tier", "outage")} == {
        "plan": "experimentation", "convention": "2026-7", "tier": "guaranteed", "outage": "closed",
    }  # fmt: skip
    term = limits(answer)["tenant", "*", "total_tokens", "term"]
    assert (term["source"], term["mode"]) == ("convention", "soft")
    assert (term["window_start"], term["window_end"]) == ("2019-12-31T23:00:00Z", "2999-12-31T23:00:00Z")
    amendment = CONVENTION | {"version": 2, "amends": "More tokens.", "effective_on": "2999-01-01"}
    operator.put("/v1/admin/conventions", json=amendment)
    listed = as_agent("GET", "/v1/tenants/dinum/conventions", token).json()
    assert [one["version"] for one in listed["items"]] == [1, 2]
    assert listed["in_force"] == ["2026-7", 1]


def test_limits_are_asked_for_by_what_a_request_is(services, operator) -> None:
    operator.put("/v1/admin/categories", json={"id": "text", "name": "Text"})
    operator.put("/v1/admin/models", json=MODEL)
    operator.put("/v1/admin/aliases", json={"id": "short", "model": "m"})
    add_agent(services, "dinum", account_id="u-1")
    own = {"limit": ASKED | {"selector": "category:text"}, "subject": "u-1", "motive": "A trial."}
    assert operator.post("/v1/admin/tenants/dinum/overrides", json=own).status_code == 201
    place = ("user", "category:text", "requests", "day")
    path = "/v1/tenants/dinum/limits"
    for params, seen in [({}, True), ({"user": "u-1"}, True), ({"user": "u-2"}, False), ({"model": "short"}, True)]:
        assert (place in limits(operator.get(path, params=params))) is seen
    by_model = limits(operator.get(path, params={"model": "short"}))
    assert by_model["user", "model:m", "requests", "day"]["value"] == 1_000
    assert operator.get(path, params={"model": "words"}).json()["code"] == "unknown_model"
    assert operator.get(path, params={"operation": "words"}).status_code == 400


def test_a_member_sees_their_own_limits_only(services, operator, as_agent) -> None:
    member, token = add_agent(services, "dinum")
    other, _token = add_agent(services, "dinum")
    for subject in (member, other):
        body = {"limit": ASKED, "subject": subject, "motive": "A trial."}
        operator.post("/v1/admin/tenants/dinum/overrides", json=body)
    answer = as_agent("GET", "/v1/tenants/dinum/limits", token)
    assert limits(answer)["user", "model:*", "requests", "day"]["subject"] == member
    assert other not in answer.text
    refused = as_agent("GET", f"/v1/tenants/dinum/limits?user={other}", token)
    assert (refused.status_code, refused.json()["code"]) == (403, "not_yours")
    key = {"limit": ASKED | {"scope": "key"}, "subject": None, "motive": "Every key."}
    assert operator.post("/v1/admin/tenants/dinum/overrides", json=key).status_code == 201
    shown = limits(as_agent("GET", "/v1/tenants/dinum/limits", token))
    assert ("key", "model:*", "requests", "day") in shown


def test_a_raise_is_asked_for_seen_granted_otherwise_and_ends(services, operator, as_agent) -> None:
    member, token = add_agent(services, "dinum")
    _other, other_token = add_agent(services, "dinum")
    _manager, manager_token = add_agent(services, "dinum", "manager")
    _stranger, stranger_token = add_agent(services, "education", "manager")
    asked = as_agent("POST", "/v1/tenants/dinum/limit-requests", token, BODY)
    assert asked.status_code == 201, asked.text
    request = asked.json()
    assert (request["account"], request["subject"], request["state"]) == (member, member, "pending")
    path = f"/v1/tenants/dinum/limit-requests/{request['id']}"
    for reader in (token, manager_token):
        assert as_agent("GET", path, reader).json() == request
        assert as_agent("GET", "/v1/tenants/dinum/limit-requests", reader).json()["items"] == [request]
    assert as_agent("GET", "/v1/tenants/dinum/limit-requests", other_token).json()["items"] == []
    assert as_agent("GET", path, other_token).json()["code"] == "unknown_limit_request"
    for place in (
        path,
        "/v1/tenants/dinum/limit-requests",
        "/v1/tenants/dinum/limits",
        "/v1/tenants/dinum/conventions",
    ):
        assert as_agent("GET", place, stranger_token).status_code == 404
    inside = path.replace("dinum", "education")
    assert as_agent("GET", inside, stranger_token).json()["code"] == "unknown_limit_request"
    assert operator.get("/v1/admin/limit-requests", params={"state": "pending"}).json()["items"] == [request]

    ends_at = datetime.now(UTC) + timedelta(hours=1)
    decision = {"decision": "approve", "reason": "A fair use.", "value": 2_000, "ends_at": ends_at.isoformat()}
    decided = operator.post(f"/v1/admin/limit-requests/{request['id']}/decision", json=decision)
    assert (decided.status_code, decided.json()["state"]) == (200, "approved"), decided.text
    limit = limits(as_agent("GET", "/v1/tenants/dinum/limits", token))["user", "model:*", "requests", "day"]
    assert (limit["value"], limit["source"], datetime.fromisoformat(limit["ends_at"])) == (2_000, "override", ends_at)
    after = {
        one.subject: one.value
        for one in limits_of(services.catalog.current(), "dinum", ends_at)
        if one.meter == "requests"
    }
    assert after == {None: 1_000}
    again = operator.post(f"/v1/admin/limit-requests/{request['id']}/decision", json=decision)
    assert (again.status_code, again.json()["code"]) == (409, "already_decided")
    assert operator.get("/v1/admin/limit-requests", params={"state": "pending"}).json()["items"] == []


def test_a_granted_value_may_be_unlimited_and_an_absent_one_is_what_was_asked(services, operator, as_agent) -> None:
    for answer, granted in [({}, 5_000), ({"value": None}, None)]:
        _member, token = add_agent(services, "dinum")
        request = as_agent("POST", "/v1/tenants/dinum/limit-requests", token, BODY).json()
        decision = {"decision": "approve", "reason": "A fair use."} | answer
        decided = operator.post(f"/v1/admin/limit-requests/{request['id']}/decision", json=decision).json()
        assert decided["granted"]["value"] == granted


def test_the_same_raise_waits_once_and_must_be_one(services, operator, as_agent) -> None:
    _member, token = add_agent(services, "dinum")
    path = "/v1/tenants/dinum/limit-requests"
    assert as_agent("POST", path, token, BODY).status_code == 201
    for changes, status, code in [
        ({}, 409, "already_pending"),
        ({"limit": ASKED | {"value": 1_000}}, 422, "not_a_raise"),
        ({"limit": ASKED | {"scope": "tenant"}}, 403, "not_yours"),
        ({"subject": "u-words"}, 403, "not_yours"),
        ({"limit": ASKED | {"value": -1}}, 400, "invalid_request"),
        ({"motive": ""}, 400, "invalid_request"),
        ({"words": 1}, 400, "invalid_request"),
    ]:
        answer = as_agent("POST", path, token, BODY | changes)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "u-words" not in answer.text
    assert operator.post(path, json=BODY).status_code == 403
    unknown = operator.post("/v1/admin/limit-requests/words/decision", json={"decision": "refuse", "reason": "No."})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_limit_request")


def test_a_study_says_what_usage_says(services, operator, as_agent, make_event) -> None:
    member, token = add_agent(services, "dinum")
    _manager, manager_token = add_agent(services, "dinum", "manager")
    now = datetime.now(UTC)
    events = [
        make_event(
            user=user, time=(now - timedelta(days=before)).isoformat(), started_at=None, input_tokens=10 * before + 1,
            output_tokens=None if before == 3 else 7, status="refused" if before == 5 else "ok",
        )
        for before in (0, 1, 3, 5, 10, 20)
        for user in (member, "u-other")
    ]  # fmt: skip
    assert operator.post(
        "/v1/events", content=ndjson(events), headers={"Content-Type": "application/x-ndjson"}
    ).is_success
    tokens = ASKED | {"meter": "total_tokens", "value": 10**10}
    of_tenant = {"scope": "tenant", "selector": "*", "meter": "total_tokens", "window": "month", "value": 10**10}
    for asker, limit, filters in [(token, tokens, {"user": member}), (manager_token, of_tenant, {})]:
        answer = as_agent("POST", "/v1/tenants/dinum/limit-requests", asker, {"limit": limit, "motive": "More."})
        study = answer.json()["study"]
        end = datetime.fromisoformat(study["last_day"]) + timedelta(days=1)
        period = {"start": study["first_day"], "end": end.date().isoformat(), "tenant": "dinum"} | filters
        whole = operator.get("/v1/usage", params=period).json()
        (usage,) = whole["items"]
        assert study["as_of"] == whole["as_of"]
        assert study["total"] == usage["input_tokens"] + usage["output_tokens"]
        names = ("requests", "uncounted_requests")
        assert [study[name] for name in names] == [usage[name] for name in names]
        assert study["refused_requests"] == usage["requests_refused"]
        days = operator.get("/v1/usage", params=period | {"bucket": "day"}).json()["items"]
        sums = [(one["input_tokens"] or 0) + (one["output_tokens"] or 0) for one in days]
        assert (study["days_with_use"], study["peak_day"]["value"]) == (len(days), max(sums))
        assert sorted(sums)[2] == study["median"]
    hours = operator.get("/v1/usage", params=period | {"bucket": "hour"}).json()["items"]
    peak = max(hours, key=lambda one: (one["input_tokens"] or 0) + (one["output_tokens"] or 0))
    assert datetime.fromisoformat(study["peak_hour"]["starts_at"]) == datetime.fromisoformat(peak["bucket_start"])


def test_an_operator_grants_and_ends_overrides(services, operator, as_agent) -> None:
    path = "/v1/admin/tenants/dinum/overrides"
    body = {"limit": ASKED | {"value": 0}, "motive": "Under inquiry."}
    given = operator.post(path, json=body)
    assert (given.status_code, given.json()["approver"]) == (201, "operator:operator")
    assert limits(operator.get("/v1/tenants/dinum/limits"))["user", "model:*", "requests", "day"]["value"] == 0
    listed = operator.get(path).json()
    assert listed == {"items": [given.json()], "next_after": None}
    assert operator.get(path, params={"after": given.json()["id"]}).json()["items"] == []
    assert operator.delete(f"{path}/{given.json()['id']}").status_code == 204
    assert limits(operator.get("/v1/tenants/dinum/limits"))["user", "model:*", "requests", "day"]["value"] == 1_000
    (ended,) = operator.get(path).json()["items"]
    assert ended["ends_at"] is not None
    assert operator.delete(f"{path}/words").json()["code"] == "unknown_override"
    assert operator.post("/v1/admin/tenants/words/overrides", json=body).json()["code"] == "unknown_tenant"
    wrong = body | {"limit": ASKED | {"selector": "model:words"}}
    assert operator.post(path, json=wrong).json()["code"] == "unknown_reference"
    past = body | {"starts_at": "2020-01-01T00:00:00Z"}
    assert operator.post(path, json=past).json()["code"] == "invalid_period"


def test_a_request_is_withdrawn_by_who_asked_and_stays_listed(services, operator, as_agent) -> None:
    _account, member = add_agent(services, "dinum", account_id="u-1")
    _account, manager = add_agent(services, "dinum", "manager", account_id="u-2")
    limit = {"scope": "user", "selector": "model:*", "meter": "requests", "window": "day", "value": 5_000}
    path = "/v1/tenants/dinum/limit-requests"
    asked = as_agent("POST", path, member, {"limit": limit, "motive": "m"}).json()["id"]
    assert as_agent("DELETE", f"{path}/{asked}", manager).status_code == 404
    assert as_agent("DELETE", f"/v1/tenants/sante/limit-requests/{asked}", member).status_code == 404
    assert operator.delete(f"{path}/{asked}").status_code == 403
    assert as_agent("DELETE", f"{path}/{asked}", member).status_code == 204
    assert as_agent("GET", f"{path}?state=withdrawn", member).json()["items"][0]["id"] == asked
    again = as_agent("DELETE", f"{path}/{asked}", member)
    assert (again.status_code, again.json()["code"]) == (409, "already_decided")
    refused = operator.post(f"/v1/admin/limit-requests/{asked}/decision", json={"decision": "refuse", "reason": "r"})
    assert refused.status_code == 409
    assert as_agent("POST", path, member, {"limit": limit, "motive": "m"}).status_code == 201


def test_each_route_is_for_those_it_says(services) -> None:
    _member, member = add_agent(services, "dinum")
    _manager, manager = add_agent(services, "dinum", "manager")
    admin = [("GET", "/v1/admin/limit-requests"), ("POST", "/v1/admin/limit-requests/x/decision"),
             ("GET", "/v1/admin/tenants/dinum/overrides"), ("POST", "/v1/admin/tenants/dinum/overrides"),
             ("DELETE", "/v1/admin/tenants/dinum/overrides/x")]  # fmt: skip
    with client_with(application(services)) as client:
        for method, path in [*admin, ("GET", "/v1/tenants/dinum/limits"), ("GET", "/v1/tenants/dinum/conventions")]:
            assert client.request(method, path).status_code == 401
        refused = [*((method, path, token) for method, path in admin for token in (member, manager)),
                   ("GET", "/v1/tenants/dinum/conventions", member)]  # fmt: skip
        for method, path, token in refused:
            answer = client.request(method, path, headers={"Authorization": f"Bearer {token}"}, json={})
            assert (answer.status_code, answer.json()["code"]) == (403, "wrong_role"), path

"""Carbon over HTTP."""

from datetime import timedelta

import pytest

from tests.carbon.hours import HOUR, a_factor, a_request, post_all, readings_of, record
from tests.people import add_agent


def test_an_event_is_explained_to_whose_it_is(api, services):
    record(services, [a_request(1, HOUR)], readings_of(HOUR, 60))
    post_all(services)
    with api.client(api.operator_token) as client:
        answer = client.get("/v1/carbon/explain/r-1", params={"source": "test"})
        assert answer.status_code == 200
        assert answer.json()["hours"][0]["windows"][0]["gpus"][0]["readings"][0]["energy_mj"] == 10**9
        unknown = client.get("/v1/carbon/explain/r-9", params={"source": "test"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_event")
    with api.client(api.gateway_token) as client:
        assert client.get("/v1/carbon/explain/r-1", params={"source": "test"}).status_code == 403
    for tenant, role, account, status in (
        ("dinum", "manager", "m-1", 200),
        ("dinum", "member", "u-1", 200),
        ("dinum", "member", "u-2", 404),
        ("sante", "manager", "m-2", 404),
    ):
        _account, token = add_agent(services, tenant, role, account)
        with api.client(token) as client:
            assert client.get("/v1/carbon/explain/r-1", params={"source": "test"}).status_code == status


PERIOD = {"start": "2026-10-05T12:00:00Z", "end": "2026-10-05T14:00:00Z"}


@pytest.fixture
def posted(services):
    """Two administrations on two GPUs for an hour, one request that no meter saw, and a GPU that waits."""
    events = [a_request(number, HOUR + timedelta(minutes=number)) for number in range(10)]
    events += [a_request(20 + number, HOUR + timedelta(minutes=20), tenant="sante") for number in range(5)]
    events.append(a_request(30, HOUR, deployment=None, tenant="sante"))
    record(services, events, readings_of(HOUR, 60, gpus=2, powers_w=(300, 500)))
    a_factor(services, 20_000_000)
    post_all(services)
    return services


def get(api, token, **params):
    with api.client(token) as client:
        answer = client.get("/v1/carbon", params=PERIOD | params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_figures_have_bounds_units_and_quality(api, posted):
    answer = get(api, api.operator_token, group_by="tenant")
    assert answer["known_until"] == "2026-10-05T15:00:00+02:00"
    dinum, sante = answer["items"]
    assert (dinum["tenant"], dinum["requests"], dinum["requests_unknown"]) == ("dinum", 10, 0)
    assert dinum["energy_lower_uj"] < dinum["energy_uj"] < dinum["energy_upper_uj"]
    assert dinum["total_ng"] == dinum["location_ng"] + dinum["embodied_ng"]
    assert dinum["total_lower_ng"] < dinum["total_ng"] < dinum["total_upper_ng"]
    assert dinum["per_1000_tokens_ng"] == round(dinum["total_ng"] / 10)
    assert dinum["energy_tier_a_uj"] == dinum["energy_uj"]
    assert dinum["market_ng"] is None
    assert (sante["requests"], sante["requests_unknown"], sante["per_1000_tokens_ng"]) == (6, 1, None)


def test_requests_idle_and_unallocated_energy_sum_to_the_meter_in_every_view(api, posted):
    meter_uj = 2 * 400 * 3600 * 10**6
    for idle in ("platform", "direct", "pro_rata"):
        answer = get(api, api.operator_token, group_by="tenant", idle=idle)
        own = sum(item["gpu_energy_uj"] for item in answer["items"])
        apart = answer["platform"]
        assert own + apart["idle_uj"] + apart["unallocated_uj"] == meter_uj
        if idle == "pro_rata":
            assert sum(item["idle_share_uj"] for item in answer["items"]) == apart["idle_uj"]


def test_a_manager_sees_the_administration_and_a_member_what_is_theirs(api, posted):
    _account, manager = add_agent(posted, "sante", "manager", "m-1")
    _account, member = add_agent(posted, "dinum", "member", "u-1")
    answer = get(api, manager, group_by=["tenant", "user"])
    assert {item["tenant"] for item in answer["items"]} == {"sante"}
    assert answer["platform"] is None
    assert {item["user"] for item in get(api, member, group_by="user")["items"]} == {"u-1"}
    with api.client(manager) as client:
        assert client.get("/v1/carbon", params=PERIOD | {"idle": "pro_rata"}).json()["code"] == "not_yours"
        assert client.get("/v1/carbon", params=PERIOD | {"tenant": "dinum"}).status_code == 403


def test_the_past_is_read_as_it_was_posted(api, posted):
    before = get(api, api.operator_token)["items"]
    a_factor(posted, 40_000_000, version="2")
    post_all(posted)
    after = get(api, api.operator_token)
    assert after["items"][0]["location_ng"] in range(2 * before[0]["location_ng"] - 9, 2 * before[0]["location_ng"] + 9)
    assert get(api, api.operator_token, as_of=after["as_of"] - 1)["items"] == before


def test_hours_and_days_come_in_buckets_and_pages_and_as_csv(api, posted):
    answer = get(api, api.operator_token, bucket="hour", group_by="user", limit=2)
    assert [item["bucket_start"] for item in answer["items"]] == ["2026-10-05T14:00:00+02:00"] * 2
    rest = get(api, api.operator_token, bucket="hour", group_by="user", limit=2, cursor=answer["next_cursor"])
    assert [item["user"] for item in answer["items"] + rest["items"]] == ["u-0", "u-1", "u-2"]
    with api.client(api.operator_token) as client:
        text = client.get("/v1/carbon", params=PERIOD | {"format": "csv", "group_by": "tenant"}).text
    header, *lines = text.strip().split("\r\n")
    assert header.startswith("tenant,requests,gpu_energy_uj,energy_uj")
    assert [line.split(",")[0] for line in lines] == ["dinum", "sante"]


@pytest.mark.parametrize(
    ("params", "code", "field"),
    [
        ({"start": "2026-10-05T12:30:00Z"}, "not_a_whole_hour", "start"),
        ({"end": "2026-10-05T11:00:00Z"}, "empty_period", "end"),
        ({"idle": "pro_rata", "bucket": "day"}, "bucket_with_idle", "bucket"),
        ({"group_by": "deployment"}, "unknown_value", "group_by"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_name(api, params, code, field):
    with api.client(api.operator_token) as client:
        answer = client.get("/v1/carbon", params=PERIOD | params)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)


def test_without_anything_posted_nothing_is_known(api):
    answer = get(api, api.operator_token)
    assert (answer["items"], answer["known_until"], answer["as_of"]) == ([], None, 0)

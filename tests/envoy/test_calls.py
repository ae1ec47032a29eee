"""Envoy's calls over gRPC, one by one."""

import json
import re
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import redis
from structlog.testing import capture_logs

from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.envoy.messages import OK, OVER_LIMIT, UINT32_MAX
from metering.envoy.questions import KEYS, QUANTITY_OF
from metering.events.decoding import decode
from metering.quotas.settling import Settler
from metering.services import Services
from metering.tables import api_key, platform, tenant
from tests.conftest import MakeEvent
from tests.envoy.calls import Caller, code_of, codes_of, connected, headers_of, request_of
from tests.envoy.conftest import CATALOGUE, SECRET, WHO, answering, standing
from tests.people import add_agent
from tests.quotas.conftest import declare

MINUTE, DAY = 2, 4


def test_a_request_runs_and_is_told_where_it_stands(envoy: Caller) -> None:
    response = envoy.ask(WHO)
    assert (response.overall_code, codes_of(response), response.raw_body) == (OK, [OK], b"")
    (status,) = response.statuses
    limit = status.current_limit
    assert (limit.name, limit.requests_per_unit, limit.unit) == ("user-requests-minute", 5, MINUTE)
    assert (status.limit_remaining, status.duration_until_reset.seconds) == (4, 60)
    headers = headers_of(response)
    assert headers["RateLimit"] == '"user-minute";r=4;t=60'
    assert headers["x-ratelimit-limit-tokens"] == "1000"


def test_the_fifth_of_a_minute_is_the_last(envoy: Caller, services: Services) -> None:
    assert [envoy.ask(WHO).overall_code for _ in range(7)] == [OK] * 5 + [OVER_LIMIT] * 2
    response = envoy.ask(WHO)
    (status,) = response.statuses
    assert (status.code, status.limit_remaining) == (OVER_LIMIT, 0)
    assert 60 <= status.duration_until_reset.seconds <= 70
    headers = headers_of(response)
    assert headers["Retry-After"] == str(status.duration_until_reset.seconds)
    assert headers["Content-Type"] == "application/json"
    assert json.loads(response.raw_body)["error"] == {
        "message": "A limit is reached.", "type": "rate_limit_error", "param": None, "code": "limit_reached",
    }  # fmt: skip
    assert standing(services)["requests/minute"] == (5, 0)
    assert standing(services)["concurrent_requests/now"] == (0, 0)


def test_numbers_beyond_32_bits_are_told_as_the_largest(services: Services, envoy: Caller) -> None:
    declare(services, CATALOGUE.replace("window: minute, value: 5", "window: day, value: 9007199254740991"))
    response = envoy.ask(WHO)
    (status,) = response.statuses
    assert (status.current_limit.requests_per_unit, status.limit_remaining) == (UINT32_MAX, UINT32_MAX)
    assert status.current_limit.unit == DAY
    assert headers_of(response)["x-ratelimit-remaining-requests"] == "9007199254740990"


def test_no_hits_look_and_hold_nothing(envoy: Caller, services: Services) -> None:
    assert {envoy.ask(WHO | {"hits": 0}).overall_code for _ in range(9)} == {OK}
    assert standing(services)["requests/minute"] == (0, 0)
    for _ in range(5):
        envoy.ask(WHO, hits=1)
    assert code_of(envoy.ask(WHO | {"hits": 0})) == "limit_reached"
    # The call's own addend of 0 is "not set": one hit.
    assert code_of(envoy.ask(WHO, hits=0)) == "limit_reached"


def test_a_look_at_one_meter_is_about_that_meter(envoy: Caller) -> None:
    for _ in range(5):
        envoy.ask(WHO)
    tokens = WHO | {"meter": "total_tokens", "hits": 0}
    response = envoy.ask(tokens)
    assert (response.overall_code, response.statuses[0].current_limit.name) == (OK, "user-total_tokens-day")
    assert "Retry-After" not in headers_of(response)
    assert code_of(envoy.ask(WHO | {"meter": "requests", "hits": 0})) == "limit_reached"
    envoy.ask(WHO | {"meter": "output_tokens", "hits": 1_000})
    assert code_of(envoy.ask(tokens)) == "limit_reached"


def test_a_look_that_refuses_holds_nothing_for_the_request(envoy: Caller, services: Services) -> None:
    large = WHO | {"model": "large", "meter": "total_tokens"}
    envoy.ask(large | {"hits": 1_000})
    response = envoy.ask(WHO, large | {"hits": 0})
    assert (response.overall_code, codes_of(response)) == (OVER_LIMIT, [OK, OVER_LIMIT])
    assert response.statuses[1].current_limit.name == "user-total_tokens-day"
    stands = standing(services)
    assert (stands["requests/minute"], stands["concurrent_requests/now"]) == ((0, 0), (0, 0))


def test_usage_counts_whatever_the_limit_and_then_the_limit_holds(envoy: Caller, services: Services) -> None:
    assert envoy.ask(WHO).overall_code == OK
    used = [WHO | {"meter": "input_tokens", "hits": 400}, WHO | {"meter": "output_tokens", "hits": 7_000}]
    assert codes_of(envoy.ask(*used)) == [OK, OK]
    stands = standing(services)
    assert (stands["requests/minute"], stands["total_tokens/day"]) == ((1, 0), (7_400, 0))
    response = envoy.ask(WHO)
    assert code_of(response) == "limit_reached"
    assert response.statuses[0].current_limit.name.startswith(("user-total_tokens", "tenant-total_tokens"))


def test_hits_of_a_call_are_of_each_descriptor_that_has_none(envoy: Caller, services: Services) -> None:
    envoy.ask(WHO | {"meter": "input_tokens"}, WHO | {"meter": "requests", "hits": 2}, hits=30)
    stands = standing(services)
    assert (stands["requests/minute"], stands["total_tokens/day"]) == ((2, 0), (30, 0))


def test_a_named_reservation_is_held_until_usage_comes(envoy: Caller, services: Services) -> None:
    asked = WHO | {"reservation": "req-1"}
    response = envoy.ask(asked)
    assert response.dynamic_metadata.fields[0].value.string_value == "req-1"
    stands = standing(services)
    assert (stands["requests/minute"], stands["concurrent_requests/now"]) == ((0, 1), (0, 1))
    assert stands["total_tokens/day"] == (0, 2)  # the least that a chat uses
    used = [asked | {"meter": "requests"}, asked | {"meter": "total_tokens", "hits": 90}]
    assert envoy.ask(*used).overall_code == OK
    assert envoy.ask(*used).overall_code == OK  # told twice, counted once
    stands = standing(services)
    assert (stands["requests/minute"], stands["concurrent_requests/now"]) == ((1, 0), (0, 0))
    assert stands["total_tokens/day"] == (90, 0)


def test_who_is_refused_has_no_reservation_to_tell_usage_of(envoy: Caller) -> None:
    for number in range(5):
        envoy.ask(WHO | {"reservation": f"full-{number}"}, WHO | {"meter": "requests", "hits": 0})
    refused = envoy.ask(WHO | {"reservation": "req-1"})
    assert code_of(refused) == "limit_reached"
    assert not refused.dynamic_metadata.fields


def test_the_event_has_the_last_word(envoy: Caller, services: Services, make_event: MakeEvent) -> None:
    asked = WHO | {"reservation": "req-1"}
    envoy.ask(asked)
    envoy.ask(asked | {"meter": "requests"}, asked | {"meter": "output_tokens", "hits": 90})
    now = datetime.now(UTC)
    event = make_event(
        time=now.isoformat(), started_at=(now - timedelta(seconds=1)).isoformat(), user="alice", api_key="k-alice",
        project=None, model_requested="small", model_served="small", input_tokens=10, output_tokens=80,
        reservation="req-1",
    )  # fmt: skip
    assert services.intake.take(decode(json.dumps(event).encode(), "json", 1), "http").is_whole
    while Settler(services.counters()).round(now):
        pass
    stands = standing(services)
    assert (stands["requests/minute"], stands["total_tokens/day"]) == ((1, 0), (90, 0))
    envoy.ask(asked | {"meter": "output_tokens", "hits": 90})  # late
    assert standing(services)["total_tokens/day"] == (90, 0)


def test_usage_counts_though_the_key_was_revoked_meanwhile(envoy: Caller, services: Services) -> None:
    asked = WHO | {"reservation": "req-1"}
    envoy.ask(asked)
    with transaction(services.engine) as connection:
        connection.execute(api_key.update().values(revoked_at=datetime.now(UTC)))
        connection.execute(tenant.update().where(tenant.c.id == "dinum").values(status="suspended"))
    services.catalog.refresh()
    assert code_of(envoy.ask(WHO)) == "invalid_key"
    envoy.ask(asked | {"meter": "total_tokens", "hits": 70})
    envoy.ask({"tenant": "dinum", "user": "alice", "model": "small", "meter": "total_tokens", "hits": 5})
    assert standing(services)["total_tokens/day"] == (75, 0)


def test_an_overload_sheds_and_says_when_to_come_back(envoy: Caller, services: Services) -> None:
    with transaction(services.engine) as connection:
        connection.execute(platform.update().values(overload="free", overload_reason="GPU down"))
    services.catalog.refresh()
    response = envoy.ask(WHO)
    assert code_of(response) == "shed"
    assert 10 <= int(headers_of(response)["Retry-After"]) <= 30
    assert not response.statuses[0].HasField("current_limit")
    assert code_of(envoy.ask(WHO | {"meter": "total_tokens", "hits": 0})) == "shed"


def test_a_full_limit_of_another_operation_is_seen_before_the_answer(envoy: Caller, services: Services) -> None:
    declare(
        services,
        CATALOGUE.replace("meter: total_tokens, window: day, value: 1000", "meter: pages, window: day, value: 3"),
    )
    read = WHO | {"operation": "ocr"}
    assert envoy.ask(read).overall_code == OK
    envoy.ask(read | {"meter": "pages", "hits": 3})
    assert code_of(envoy.ask(read)) == "limit_reached"
    assert envoy.ask(WHO).overall_code == OK


def test_another_request_under_a_reservation_is_refused(envoy: Caller) -> None:
    envoy.ask(WHO | {"reservation": "req-1"})
    assert envoy.ask(WHO | {"reservation": "req-1"}).overall_code == OK
    assert code_of(envoy.ask(WHO | {"reservation": "req-1", "model": "large"})) == "reservation_conflict"


def test_only_gateways_are_answered(envoy: Caller, services: Services) -> None:
    member = add_agent(services, "dinum")[1]
    for token, code in (
        (None, grpc.StatusCode.UNAUTHENTICATED),
        ("unknown", grpc.StatusCode.UNAUTHENTICATED),
        (member, grpc.StatusCode.PERMISSION_DENIED),
    ):
        envoy.metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        with pytest.raises(grpc.RpcError) as error:
            envoy.ask(WHO)
        assert error.value.code() == code
    assert standing(services)["requests/minute"] == (0, 0)


@pytest.mark.parametrize(("outage", "code"), [("local", OK), ("open", OK), ("closed", OVER_LIMIT)])
def test_the_plan_decides_while_the_store_is_away(services: Services, outage: str, code: int) -> None:
    declare(services, CATALOGUE.replace("  name: Free\n", f"  name: Free\n  outage: {outage}\n"))
    token = add_token(services.engine, "envoy", "gateway")
    away = replace(services, stores=replace(services.stores, redis_url="redis://127.0.0.1:1"))
    asked = {"tenant": "dinum", "model": "small"}
    with answering(away) as port, connected(port, token) as caller:
        assert caller.ask(asked).overall_code == code
        with pytest.raises(grpc.RpcError) as error:
            caller.ask(asked | {"meter": "pages", "hits": 3})
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_fault_is_told_without_what_it_quotes(envoy: Caller, services: Services, monkeypatch) -> None:
    def broken(*_):
        raise ValueError(SECRET)

    monkeypatch.setattr("metering.envoy.service.read_questions", broken)
    with capture_logs() as logs, pytest.raises(grpc.RpcError) as error:
        envoy.ask(WHO)
    assert error.value.code() == grpc.StatusCode.INTERNAL
    assert [line["error"] for line in logs if line["event"] == "fault"] == ["ValueError"]
    assert SECRET not in str(logs) + error.value.details()


def test_a_call_under_way_is_answered_before_the_end(services: Services) -> None:
    declare(services, CATALOGUE)
    token = add_token(services.engine, "envoy", "gateway")
    codes = []
    asked = {"tenant": "dinum", "model": "small"}
    with ExitStack() as stack, answering(services) as port:
        caller = stack.enter_context(connected(port, token))
        caller.ask(asked)
        with redis.Redis.from_url(services.stores.redis_url) as client:
            client.execute_command("CLIENT", "PAUSE", 500, "ALL")
        calling = threading.Thread(target=lambda: codes.append(caller.ask(asked).overall_code))
        calling.start()
        time.sleep(0.15)
        assert codes == []  # the store makes it wait, and here the service ends
        stack.callback(calling.join, 5)
    assert codes == [OK]


def test_a_request_whose_client_leaves_while_it_is_asked_for_holds_nothing(envoy: Caller, services: Services) -> None:
    envoy.ask(WHO | {"hits": 0})
    with redis.Redis.from_url(services.stores.redis_url) as client:
        for asked in (WHO, WHO | {"reservation": "req-1"}):
            client.execute_command("CLIENT", "PAUSE", 300, "ALL")
            with pytest.raises(grpc.RpcError) as error:
                envoy.send(request_of(asked), timeout_s=0.1)
            assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            client.ping()  # answered once the pause is over
    deadline = time.monotonic() + 5
    while standing(services)["concurrent_requests/now"] != (0, 0):
        assert time.monotonic() < deadline
    assert standing(services)["requests/minute"] == (0, 0)


def test_every_key_and_meter_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gateways" / "envoy.md").read_text()
    shown = set(re.findall(r"`([a-z0-9_]+)`", page))
    assert shown >= KEYS | set(QUANTITY_OF)


@pytest.mark.parametrize("about", [{}, {"meter": "requests", "hits": 0}])
def test_what_no_descriptor_can_name_is_refused_all_the_same(envoy: Caller, services: Services, about) -> None:
    limit = '  - {scope: tenant, selector: "*", meter: cost_neur, window: month, value: 1000}\n'
    declare(services, CATALOGUE.replace("  limits:\n", f"  limits:\n{limit}", 1))
    response = envoy.ask(WHO | about)  # there is no price book
    assert response.overall_code == OVER_LIMIT
    assert json.loads(response.raw_body)["error"]["code"] == "unknown_price"

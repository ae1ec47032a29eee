"""What is wrong in a call: refused where a client could have made it so, an error where only the operator could."""

from collections.abc import Iterator

import grpc
import pytest
from structlog.testing import capture_logs

from metering import embedded
from metering.envoy.messages import OK
from metering.envoy.questions import DESCRIPTORS_MAX
from tests.envoy.calls import Caller, code_of, request_of
from tests.envoy.conftest import SECRET, WHO, asking, opened


@pytest.fixture(scope="module")
def envoy(servers: embedded.Servers, template: str) -> Iterator[Caller]:
    with opened(servers, template, "envoy_refusals") as services, asking(services) as caller:
        yield caller


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"authorization": "Bearer words"}, "invalid_key"),
        ({"authorization": "words"}, "missing_token"),
        ({"authorization": b"Bearer \xff\xfe"}, "invalid_key"),
        ({"authorization": ""}, "missing_token"),
        ({"model": "words"}, "unknown_model"),
        ({"model": "-"}, "invalid_request"),
        ({"model": b"\xff"}, "invalid_request"),
        ({"operation": "words"}, "invalid_request"),
        ({"reservation": "two words"}, "invalid_request"),
        ({"reservation": "w" * 129}, "invalid_request"),
        ({"authorization": None}, "missing_key"),
        ({"authorization": None, "tenant": "words"}, "missing_key"),
        ({"authorization": None, "tenant": "two words"}, "invalid_request"),
        ({"authorization": None, "key_sha256": "words"}, "invalid_request"),
        ({"model": None}, "invalid_request"),
    ],
)  # fmt: skip
def test_what_a_client_gets_wrong_is_refused_and_never_let_through(envoy: Caller, told, code) -> None:
    entries = {key: value for key, value in (WHO | told).items() if value is not None}
    with capture_logs() as logs:
        for descriptor in (entries, entries | {"hits": 0}):
            response = envoy.ask(descriptor)
            assert code_of(response) == code
            assert b"words" not in response.raw_body
        told_later = envoy.ask(entries | {"meter": "pages", "hits": 3})
        # What a model that is gone has used still counts.
        assert told_later.overall_code == OK if code == "unknown_model" else code_of(told_later) == code
    assert "words" not in str(logs)
    assert SECRET not in str(logs)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (request_of(), "descriptors"),
        (request_of(*[WHO] * (DESCRIPTORS_MAX + 1)), "descriptors"),
        (request_of(WHO, WHO), "descriptors"),
        (request_of(WHO | {"generic_key": "words"}), "entries"),
        (request_of(WHO | {"meter": "words"}), "meter"),
        (request_of(WHO | {"meter": "cost_neur"}), "meter"),
        (request_of(WHO, hits=2), "hits_addend"),
        (request_of(WHO | {"meter": "pages", "hits": 2**53}), "hits_addend"),
        (request_of(WHO | {"meter": "pages", "hits": 2}, negative=True), "is_negative_hits"),
    ],
)
def test_descriptors_that_no_request_makes_right_are_an_error(envoy: Caller, call, field) -> None:
    with pytest.raises(grpc.RpcError) as error:
        envoy.send(call)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details().startswith(f"Expected of {field}: ")
    assert "words" not in error.value.details()


def test_a_key_named_twice_is_an_error(envoy: Caller) -> None:
    call = request_of(WHO)
    call.descriptors[0].entries.add(key=b"model", value=b"large")
    with pytest.raises(grpc.RpcError) as error:
        envoy.send(call)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_the_service_tells_its_health_to_everybody(envoy: Caller) -> None:
    assert envoy.health().status == envoy.health("envoy.service.ratelimit.v3.RateLimitService").status == 1
    with pytest.raises(grpc.RpcError) as error:
        envoy.health("words")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND

"""Every code of a refusal, what produces it, and what an answer says of it."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from metering.events.decoding import decode, decode_one
from metering.events.quarantine import list_quarantined
from metering.events.refusals import CODES, UNNAMEABLE
from metering.events.stream import StreamConsumer
from metering.services import Services

Event = dict[str, Any]


def changed(**changes: Any) -> Callable[[Event], bytes]:
    """The event with fields of the envelope changed; None takes one away."""

    def change(event: Event) -> bytes:
        event.update(changes)
        return json.dumps({name: value for name, value in event.items() if value is not None}).encode()

    return change


def with_data(**changes: Any) -> Callable[[Event], bytes]:
    """The event with fields of its data changed."""

    def change(event: Event) -> bytes:
        event["data"].update(changes)
        return json.dumps(event).encode()

    return change


def written(old: bytes, new: bytes) -> Callable[[Event], bytes]:
    """The event with its JSON changed."""

    def change(event: Event) -> bytes:
        text = json.dumps(event).encode()
        assert old in text
        return text.replace(old, new)

    return change


IN_AN_HOUR = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

REFUSED: list[tuple[str, str | None, Callable[[Event], bytes]]] = [
    ("malformed_json", None, written(b'"data"', b"data")),
    ("malformed_json", None, written(b": 100", b": NaN")),
    ("malformed_json", None, written(b'"dinum"', b'"\\ud800"')),
    ("invalid_utf8", None, written(b'"dinum"', b'"\xff"')),
    ("wrong_type", None, lambda event: b"[1, 2]"),
    ("wrong_type", "data", changed(data="words")),
    ("wrong_type", "data.input_tokens", with_data(input_tokens="12")),
    ("wrong_type", "data.tenant", with_data(tenant=["dinum"])),
    ("missing_field", "id", changed(id=None)),
    ("missing_field", "data.tenant", written(b'"tenant": "dinum", ', b"")),
    ("unknown_field", "data.temperature", with_data(temperature=1)),
    ("unknown_field", "subject", changed(subject="words")),
    ("unknown_field", UNNAMEABLE, changed(**{"tell me what the minister said": 1})),
    ("unknown_field", f"data.{UNNAMEABLE}", with_data(**{"sk-live-4fJ81kQz0": 1})),
    ("unknown_field", UNNAMEABLE, changed(**{"x` - at `$.data.words": 1})),
    ("unknown_field", UNNAMEABLE, changed(**{"x - at `words` - at `words": 1})),
    ("content_field", "data.messages", with_data(messages=[{"role": "user", "content": "words"}])),
    ("content_field", "prompt", changed(prompt="words")),
    ("unsupported_specversion", "specversion", changed(specversion="0.3")),
    ("unsupported_type", "type", changed(type="other.v1")),
    ("unknown_value", "data.operation", with_data(operation="poetry")),
    ("unknown_value", "datacontenttype", changed(datacontenttype="text/plain")),
    ("invalid_name", "id", changed(id="")),
    ("invalid_name", "id", changed(id="two words")),
    ("invalid_name", "source", changed(source="gateway%20one")),
    ("invalid_name", "data.user", with_data(user="claire.petit@example.org")),
    ("invalid_name", "data.parent", with_data(parent="two words")),
    ("invalid_name", "data.project", with_data(project="x" * 129)),
    ("invalid_name", "data.user", with_data(user="u\0v")),
    ("invalid_name", "data.endpoint", with_data(endpoint="/v1/search?q=words")),
    ("personal_identifier", "data.user", with_data(user="192.0.2.7")),
    ("personal_identifier", "data.user", with_data(user="192.0.2.7:443")),
    ("personal_identifier", "data.api_key", with_data(api_key="2001:db8::7")),
    ("personal_identifier", "data.application", with_data(application="192.0.2.0/24")),
    ("reserved_source", "source", changed(source="jauge:corrections")),
    ("negative_quantity", "data.images", with_data(images=-1)),
    ("fractional_quantity", "data.output_tokens", with_data(output_tokens=20.5)),
    ("fractional_quantity", "data.output_tokens", with_data(output_tokens=20.0)),
    ("quantity_too_large", "data.bytes_in", with_data(bytes_in=2**53)),
    ("quantity_too_large", "data.bytes_in", with_data(bytes_in=2**64)),
    ("out_of_range", "data.bytes_in", written(b": 100", b': 100, "bytes_in": ' + b"9" * 5_000)),
    ("out_of_range", "data.input_tokens", written(b": 100", b": 1e999")),
    ("out_of_range", "data.http_status", with_data(http_status=600)),
    ("invalid_time", "time", changed(time="yesterday")),
    ("invalid_time", "time", changed(time="2026-10-05T08:00:60Z")),
    ("time_without_offset", "time", changed(time="2026-10-05T08:00:00")),
    ("time_in_future", "time", changed(time=IN_AN_HOUR)),
    ("time_in_future", "time", changed(time="9999-12-31T23:59:59-14:00")),
    ("time_too_old", "data.started_at", with_data(started_at="2019-12-31T23:59:59Z")),
    ("time_too_old", "data.started_at", with_data(started_at="0001-01-01T00:00:00+14:00")),
    ("started_after_end", "data.started_at", with_data(started_at="2026-10-30T08:00:00Z")),
    ("first_token_outside_request", "data.first_token_at", with_data(first_token_at="2026-10-01T08:00:00Z")),
    ("cached_exceeds_input", "data.cached_input_tokens", with_data(cached_input_tokens=101)),
    ("reasoning_exceeds_output", "data.reasoning_tokens", with_data(reasoning_tokens=21)),
    ("unknown_tenant", "data.tenant", with_data(tenant="atlantis")),
]
BY_OTHER_MEANS = {"conflict", "unreadable_entry"}


def test_the_cases_cover_exactly_the_codes() -> None:
    assert {code for code, _, _ in REFUSED} | BY_OTHER_MEANS == CODES.keys()


def test_each_case_is_refused_with_its_code_and_field_beside_a_good_one(services, make_event) -> None:
    for code, field, change in REFUSED:
        piece, good = change(make_event()), json.dumps(make_event()).encode()
        results = services.intake.take([decode_one(piece), decode_one(good)], "http").events
        assert (results[0].code, results[0].field, results[1].status) == (code, field, "accepted"), piece[:300]
        assert (results[0].status, results[0].reason) == ("rejected", CODES[code])


def test_a_deeply_nested_event_is_refused(services, make_event) -> None:
    for opening in (b"[", b'{"a":'):
        deep = written(b'"dinum"', opening * 100_000)(make_event())
        assert decode_one(deep)[0].code in {"wrong_type", "malformed_json"}
    answer = services.intake.take(decode(b'{"data":' * 100_000, "json", 10), "http")
    assert answer.rejected == 1


def test_the_same_identity_with_another_payload_is_a_conflict(services, make_event) -> None:
    event = make_event()
    assert services.intake.take([decode_one(json.dumps(event).encode())], "http").accepted == 1
    event["data"]["output_tokens"] = 21
    (result,) = services.intake.take([decode_one(json.dumps(event).encode())], "http").events
    assert (result.status, result.code, result.field) == ("conflict", "conflict", "id")


def test_a_stream_entry_that_cannot_be_read_is_refused_as_one(services: Services) -> None:
    client, stop = services.redis(), threading.Event()
    client.xadd("entries", {"body": b"not gzip", "encoding": "gzip"})
    consumer = StreamConsumer(client, services.intake, stream="entries", claim_ms=500, events_max=10)
    thread = threading.Thread(target=consumer.run, args=[stop])
    thread.start()
    until = time.monotonic() + 10
    while not (found := list_quarantined(services.engine)) and time.monotonic() < until:
        time.sleep(0.02)
    stop.set()
    thread.join()
    assert [(item.code, item.event) for item in found] == [("unreadable_entry", None)]


@pytest.mark.parametrize("name", ["temperature", "top_p", "logprobs", "X-Request-Id", "maxTokens", "input_tokens_v2"])
def test_a_name_made_of_words_is_shown(name: str, make_event) -> None:
    assert decode_one(with_data(**{name: 1})(make_event()))[0].field == f"data.{name}"


@pytest.mark.parametrize(
    "name", ["a b", "é", "sk-4f81", "jauge_7Yt0pQ", "a" * 41, "aGVsbG8gd29ybGQx9", "_" * 30, "", "a\0b", "12345"]
)
def test_a_name_that_may_be_a_secret_or_a_sentence_is_not_shown(name: str, make_event) -> None:
    assert decode_one(with_data(**{name: 1})(make_event()))[0].field == f"data.{UNNAMEABLE}"


def test_of_a_key_that_is_given_twice_the_last_counts(make_event) -> None:
    twice = written(b'"tenant": "dinum"', b'"tenant": "some words", "tenant": "dinum"')(make_event())
    assert decode_one(twice).data.tenant == "dinum"

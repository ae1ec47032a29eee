"""`POST /v1/events`: what is read, what is answered, and what is refused before it is read."""

import gzip
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import zstandard

from metering.app import create_app
from metering.catalog.tokens import add_token
from metering.database import transaction
from metering.events import routes
from metering.events.room import Room
from metering.ledger.append import LEDGER_LOCK
from metering.services import Services, open_services
from metering.tables import ledger_entry
from tests.applications import application
from tests.http.conftest import client_with

MIB = 1024 * 1024
FORMS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], bytes]]] = {
    "array": ("application/json", lambda events: json.dumps(events).encode()),
    "array without a type": ("", lambda events: json.dumps(events).encode()),
    "batch": ("application/cloudevents-batch+json; charset=utf-8", lambda events: json.dumps(events).encode()),
    "lines": ("application/x-ndjson", lambda events: b"\n".join(json.dumps(event).encode() for event in events)),
    "lines of Windows": (
        "application/jsonl",
        lambda events: b"".join(json.dumps(e).encode() + b"\r\n\n" for e in events),
    ),
}
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {"": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


def headers(content_type: str = "", encoding: str = "") -> dict[str, str]:
    return {name: value for name, value in (("Content-Type", content_type), ("Content-Encoding", encoding)) if value}


def rows_in_ledger(services: Services) -> int:
    with transaction(services.engine) as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(ledger_entry)) or 0


def test_every_form_and_compression_is_read(api, services, make_event) -> None:
    sent = 0
    with api.client() as client:
        for content_type, write in FORMS.values():
            for encoding, compress in ENCODINGS.items():
                events = [make_event(), make_event()]
                answer = client.post(
                    "/v1/events", content=compress(write(events)), headers=headers(content_type, encoding)
                )
                assert (answer.status_code, answer.json()["accepted"]) == (200, 2), answer.text
                sent += 2
        single = client.post("/v1/events", json=make_event(), headers=headers("application/cloudevents+json"))
        assert single.json() == {
            "accepted": 1, "duplicate": 0, "conflict": 0, "rejected": 0, "events": [{"index": 0, "status": "accepted"}]
        }  # fmt: skip
        assert client.post("/v1/events", json=[]).json()["events"] == []
    assert rows_in_ledger(services) == sent + 1


def test_each_event_is_answered_in_its_place(api, make_event) -> None:
    known = make_event()
    other = {**known, "data": {**known["data"], "output_tokens": 21}}
    with api.client() as client:
        client.post("/v1/events", json=known)
        answer = client.post("/v1/events", json=[make_event(), known, other, make_event(prompt="words"), make_event()])
    assert answer.status_code == 207
    found = answer.json()
    assert [one["status"] for one in found["events"]] == ["accepted", "duplicate", "conflict", "rejected", "accepted"]
    assert (found["accepted"], found["duplicate"], found["conflict"], found["rejected"]) == (2, 1, 1, 1)
    assert (found["events"][3]["code"], found["events"][3]["field"]) == ("content_field", "data.prompt")
    assert "words" not in answer.text


def test_a_retry_is_a_success_and_counts_once(api, services, make_event) -> None:
    events = [make_event(), make_event()]
    with api.client() as client:
        client.post("/v1/events", json=events)
        again = client.post("/v1/events", json=[*events, *events])
    assert (again.status_code, again.json()["duplicate"], rows_in_ledger(services)) == (200, 4, 2)


CHANGES: list[dict[str, Any]] = [
    {"time": "2026-10-05T18:00:00Z"},
    {"time": "2026-11-05T18:00:00Z"},
    {"time": "2024-02-29T08:00:00Z", "started_at": None},
    {"started_at": "2026-10-04T08:00:00Z"},
    {"model_served": "other-model"},
    {"output_tokens": None},
    {"streamed": True},
]


def test_the_same_identity_with_any_other_payload_is_a_conflict(api, services, make_event) -> None:
    with api.client() as client:
        for change in CHANGES:
            event = make_event()
            other = {**event, "data": dict(event["data"])}
            for name, value in change.items():
                (other if name in other else other["data"])[name] = value
            client.post("/v1/events", json=event)
            answer = client.post("/v1/events", json=other)
            assert (answer.status_code, answer.json()["events"][0]["code"]) == (207, "conflict"), change
            assert client.post("/v1/events", json=event).json()["duplicate"] == 1
    assert rows_in_ledger(services) == len(CHANGES)


def test_another_notation_of_the_same_payload_is_a_duplicate(api, make_event) -> None:
    event = make_event(id="same", time="2026-10-05T08:00:10Z", started_at="2026-10-05T08:00:00Z")
    other = make_event(
        id="same", time="2026-10-05T10:00:10.000+02:00", started_at="2026-10-05T04:00:00-04:00", requests=1
    )
    with api.client() as client:
        client.post("/v1/events", json=event)
        assert client.post("/v1/events", json=other).json()["duplicate"] == 1


def test_a_call_beyond_a_limit_is_refused_whole(api, services, make_event) -> None:
    line = json.dumps(make_event()).encode()
    bodies = [
        ("", b"[" + b",".join([line] * 10_001) + b"]"),
        ("", b" " * (16 * MIB + 1)),
        ("gzip", gzip.compress(bytes(200 * MIB))),
        ("zstd", zstandard.compress(bytes(200 * MIB))),
    ]
    with api.client() as client:
        for encoding, body in bodies:
            answer = client.post("/v1/events", content=body, headers=headers("application/json", encoding))
            assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
        in_pieces = client.post("/v1/events", content=(b" " * MIB for _ in range(17)))
        assert in_pieces.status_code == 413
    assert rows_in_ledger(services) == 0


@pytest.mark.parametrize(
    ("sent", "body", "status", "code", "field"),
    [
        (headers("text/plain"), b"{}", 415, "unsupported_media_type", "Content-Type"),
        (headers("words"), b"{}", 415, "unsupported_media_type", "Content-Type"),
        (headers("", "br"), b"{}", 415, "unsupported_encoding", "Content-Encoding"),
        (headers("", "gzip"), b"words", 400, "broken_compression", "Content-Encoding"),
        (headers("", "zstd"), zstandard.compress(b"[]")[:-1], 400, "broken_compression", "Content-Encoding"),
        (headers(), b"", 400, "empty_body", None),
        (headers("application/x-ndjson"), b"\n \n", 400, "empty_body", None),
        (headers(), b"[1, 2", 400, "malformed_json", None),
        (headers(), b"[" * 100_000, 400, "malformed_json", None),
    ],
)  # fmt: skip
def test_a_call_that_cannot_be_read_is_a_problem_without_its_words(sent, body, status, code, field, standing) -> None:
    answer = standing.post("/v1/events", content=body, headers=sent)
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"], problem.get("field")) == (
        status,
        status,
        code,
        field,
    )
    assert problem["type"] == f"urn:jauge:error:{code}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "words" not in answer.text


def test_callers_are_told_to_come_back_when_the_ledger_falls_behind(settings, services, make_event) -> None:
    """One event is written, one is ready, one is prepared, one waits; the others are refused and none is lost."""
    narrow = settings.model_copy(update={"queue_events_max": 1, "group_events_max": 1})
    with open_services(narrow) as behind, services.engine.connect() as holder:
        token = add_token(behind.engine, "gateway", "gateway")
        with client_with(create_app(behind), token) as client, ThreadPoolExecutor(12) as pool:
            holder.execute(sa.select(sa.func.pg_advisory_lock(LEDGER_LOCK)))
            refused = threading.Event()

            def send(event: dict[str, Any]) -> httpx.Response:
                answer = client.post("/v1/events", json=event)
                if answer.status_code == 503:
                    refused.set()
                return answer

            sent = [pool.submit(send, make_event()) for _ in range(12)]
            assert refused.wait(20)
            holder.execute(sa.select(sa.func.pg_advisory_unlock(LEDGER_LOCK)))
            answers = [one.result() for one in sent]
        busy = [answer for answer in answers if answer.status_code == 503]
        assert {(one.json()["code"], one.headers["retry-after"]) for one in busy} == {("intake_busy", "1")}
        assert rows_in_ledger(behind) == sum(answer.status_code == 200 for answer in answers) > 0


def test_callers_are_told_to_come_back_when_too_many_bytes_are_under_way(api, make_event, monkeypatch) -> None:
    room = Room(MIB)
    monkeypatch.setattr(routes, "ROOM", room)
    with api.client() as client:
        with room.hold(MIB):
            answer = client.post("/v1/events", json=make_event())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        for encoding, compress in ENCODINGS.items():
            large = json.dumps(make_event()).encode() + b" " * 4 * MIB
            answer = client.post("/v1/events", content=compress(large), headers=headers("", encoding))
            assert answer.status_code == 200
        with room.hold(1):
            pass


def test_a_database_that_is_away_is_said_so_and_nothing_is_accepted(services, make_event) -> None:
    token = add_token(services.engine, "gateway", "gateway")
    with client_with(application(services), token) as client:
        assert client.post("/v1/events", json=make_event()).status_code == 200
        name = services.engine.url.database
        admin = sa.create_engine(services.engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
            connection.execute(
                sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
            )
            answer = client.post("/v1/events", json=make_event())
            ready = client.get("/readyz")
            connection.execute(sa.text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))
        admin.dispose()
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert ready.status_code == 503
        assert client.post("/v1/events", json=make_event()).status_code == 200
    assert rows_in_ledger(services) == 2

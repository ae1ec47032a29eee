"""Corrections and voids over HTTP."""

from typing import Any

import pytest

PERIOD = {"start": "2026-10-01", "end": "2026-11-01"}


@pytest.fixture
def event(operator, make_event) -> dict[str, Any]:
    """An event in the ledger: 100 tokens read, 20 generated."""
    made = make_event(cached_input_tokens=40)
    assert operator.post("/v1/events", json=made).status_code == 200
    return made


def about(event: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"source": "test", "id": event["id"], "reason": "counted twice", "author": "agent-7", **more}


def used(operator) -> dict[str, Any]:
    (row,) = operator.get("/v1/usage", params=PERIOD).json()["items"]
    return row


def test_a_correction_sets_quantities_and_usage_follows(operator, event) -> None:
    answer = operator.post("/v1/corrections", json=about(event, quantities={"output_tokens": 5, "images": 3}))
    assert (answer.status_code, answer.json()["quantities"]) == (201, {"output_tokens": -15, "images": 3})
    row = used(operator)
    assert (row["requests"], row["input_tokens"], row["output_tokens"], row["images"], row["pages"]) == (
        1,
        100,
        5,
        3,
        None,
    )
    before = operator.get("/v1/usage", params={**PERIOD, "as_of": 1}).json()
    assert (before["as_of"], before["items"][0]["output_tokens"], before["items"][0]["images"]) == (1, 20, None)


def test_a_void_makes_an_event_count_for_nothing_once(operator, event) -> None:
    assert operator.post("/v1/voids", json=about(event)).status_code == 201
    row = used(operator)
    assert (row["requests"], row["input_tokens"], row["output_tokens"]) == (0, 0, 0)
    for path, more in (("/v1/voids", {}), ("/v1/corrections", {"quantities": {"output_tokens": 1}})):
        again = operator.post(path, json=about(event, **more))
        assert (again.status_code, again.json()["code"]) == (409, "event_is_void")


@pytest.mark.parametrize(
    ("path", "more"), [("/v1/voids", {}), ("/v1/corrections", {"quantities": {"output_tokens": 5}})]
)
def test_a_repeated_call_with_its_id_answers_the_same_and_counts_once(path, more, operator, event) -> None:
    calls = [operator.post(path, json=about(event, correction_id="ticket-12", **more)) for _ in range(3)]
    assert {(call.status_code, call.text) for call in calls} == {(201, calls[0].text)}
    assert calls[0].json()["id"] == "ticket-12"
    assert used(operator)["output_tokens"] == (5 if more else 0)


def test_an_id_stands_for_one_correction(operator, event, make_event) -> None:
    other = make_event()
    operator.post("/v1/events", json=other)
    operator.post("/v1/corrections", json=about(event, correction_id="c-1", quantities={"images": 1}))
    for body in (about(other, quantities={"images": 1}), about(event, quantities={"images": 2})):
        answer = operator.post("/v1/corrections", json=body | {"correction_id": "c-1"})
        assert (answer.status_code, answer.json()["code"]) == (409, "correction_exists")


def test_what_breaks_a_rule_is_refused_by_name_and_changes_nothing(operator, event) -> None:
    refused: list[tuple[dict[str, Any], int, str, str]] = [
        ({"reason": "  "}, 422, "missing_field", "reason"),
        ({"author": ""}, 422, "missing_field", "author"),
        ({"reason": "x" * 501}, 422, "missing_field", "reason"),
        ({"reason": "a\0b"}, 422, "invalid_name", "reason"),
        ({"correction_id": "a\0b"}, 422, "invalid_name", "correction_id"),
        ({"id": "words"}, 404, "unknown_event", "id"),
        ({"source": "words"}, 404, "unknown_event", "id"),
        ({"quantities": {}}, 422, "nothing_to_correct", "quantities"),
        ({"quantities": {"output_tokens": 20}}, 422, "nothing_to_correct", "quantities"),
        ({"quantities": {"words": 1}}, 422, "unknown_field", "quantities"),
        ({"quantities": {"output_tokens": -1}}, 422, "out_of_range", "quantities.output_tokens"),
        ({"quantities": {"output_tokens": 2**53}}, 422, "out_of_range", "quantities.output_tokens"),
        ({"quantities": {"cached_input_tokens": 101}}, 422, "part_exceeds_whole", "quantities.cached_input_tokens"),
        ({"quantities": {"input_tokens": 39}}, 422, "part_exceeds_whole", "quantities.cached_input_tokens"),
    ]
    for changes, status, code, field in refused:
        answer = operator.post("/v1/corrections", json=about(event, quantities={"output_tokens": 5}) | changes)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["field"]) == (status, code, field), changes
        assert answer.headers["content-type"] == "application/problem+json"
        assert "words" not in answer.text
    for missing in ("reason", "author", "source", "id"):
        body = about(event)
        del body[missing]
        assert operator.post("/v1/voids", json=body).status_code == 400
    assert used(operator)["output_tokens"] == 20
